"""The one judge."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from univg.grounding.boxes import permille_to_unit
from univg.grounding.reading import FAULTS, Asked, read
from univg.grounding.samples import GroundingSample, SampleError
from univg.grounding.scoring import score

SAMPLE = GroundingSample(
    ("a.png", "b.png", "c.png"),
    "Locate it in the second image.",
    "t",
    boxes=[(0.0, 0.0, 0.4, 0.5), (0.9, 0.9, 1, 1)],
)


def answer(box, thought="It is there."):
    return f"<think>{thought}</think><answer>{box}</answer>"


TABLE = [  # response, IoU, hits at 0.3 0.5 0.7, format, fault
    (answer("(0,0),(400,500)"), 1.0, (True, True, True), True, None),
    (answer("(0,0),(280,500)"), 0.7, (True, True, True), True, None),
    (answer("(0,0),(200,500)"), 0.5, (True, True, False), True, None),
    (answer("(0,0),(120,500)"), 0.3, (True, False, False), True, None),
    (answer("(0,0),(119,500)"), 0.2975, (False, False, False), True, None),
    (answer("(900,900),(1000,1000)"), 0.0, (False, False, False), True, None),  # only the first truth counts
    (answer("[0, 0, 400, 500]"), 1.0, (True, True, True), False, None),
    (answer("(400,500),(0,0)"), 1.0, (True, True, True), False, "inverted_box"),
    (answer("(0,0),(400,500),(1,2),(3,4)"), 1.0, (True, True, True), False, "several_boxes"),
    (answer("(1,2),(3,4),(0,0),(400,500)"), 4 / 200_000, (False, False, False), False, "several_boxes"),
    (answer("(-10,0),(400,500)"), 1.0, (True, True, True), False, "out_of_range"),
    (answer("(0,0),(400,500)")[:-3], 1.0, (True, True, True), False, "truncated"),
    (answer("(5,5),(5,9)"), 0.0, (False, False, False), False, "degenerate_box"),
    ("<think>(0,0),(400,500)</think>", 0.0, (False, False, False), False, "no_answer"),
    (answer("nothing"), 0.0, (False, False, False), False, "no_box"),
    ("", 0.0, (False, False, False), False, "empty"),
]


@pytest.mark.parametrize(("text", "iou", "hits", "format_ok", "fault"), TABLE)
def test_score_by_hand(text, iou, hits, format_ok, fault):
    reading = read(text, Asked.of(SAMPLE))
    result = score(SAMPLE, reading)
    assert result.iou == pytest.approx(iou)
    assert (result.hit_30, result.hit_50, result.hit_70) == hits
    assert result.format_ok is format_ok
    assert reading.fault == fault


def test_style_and_frame_are_passed_on():
    assert read("(0,0),(400,500)", Asked.of(SAMPLE)).fault == "no_answer"
    assert read("(0,0),(400,500)", Asked.of(SAMPLE, "simple")).format_ok
    pixels = Asked.of(SAMPLE, "direct", "pixel")
    sizes = [(1, 1)] * len(SAMPLE.images)
    sizes[1] = (200, 100)  # of the image that the question names
    assert score(SAMPLE, read("[0, 0, 80, 50]", pixels, sizes)).iou == 1.0
    with pytest.raises(ValueError, match="size of every image"):
        read("[0, 0, 80, 50]", pixels)


def test_the_image_is_reported_with_its_rule_and_not_scored():
    text = answer("(0,0),(400,500)", "It is in the first image.")
    cases = [
        (SAMPLE, (1, "question")),
        (dataclasses.replace(SAMPLE, target_image=2), (2, "target")),
        (dataclasses.replace(SAMPLE, query="Locate it."), (0, "thought")),
    ]
    for sample, expected in cases:
        reading = read(text, Asked.of(sample))
        result = score(sample, reading)
        assert (reading.image_index, reading.image_rule) == expected
        assert result.iou == 1.0


def test_without_ground_truth_there_is_no_score():
    with pytest.raises(SampleError, match=r"set#7 has no ground truth"):
        score(dataclasses.replace(SAMPLE, boxes=(), source="set#7"), read(answer("(0,0),(1,1)")))


def test_inverted_ground_truth_scores_zero():
    assert (
        score(dataclasses.replace(SAMPLE, boxes=[(0.4, 0.5, 0, 0)]), read(answer("(0,0),(400,500)"))).iou
        == 0.0
    )


side = st.integers(1, 40)


@given(st.integers(0, 900), st.integers(0, 900), side, side, side)
def test_exact_halves_hit_and_what_is_below_does_not(x, y, width, height, taken):
    # truth: 2w x h; the response covers some columns of it. Unit floats may round 1/2 down, the verdict may not.
    truth = (x, y, x + 2 * width, y + height)
    predicted = (x, y, x + min(taken, 2 * width), y + height)
    sample = dataclasses.replace(SAMPLE, boxes=[permille_to_unit(truth)])
    result = score(sample, read(answer(f"({x},{y}),({predicted[2]},{predicted[3]})")))
    exact = Fraction(min(taken, 2 * width), 2 * width)
    assert result.iou == pytest.approx(float(exact))
    assert result.hit_30 == (exact >= Fraction(3, 10))
    assert result.hit_50 == (exact >= Fraction(1, 2))
    assert result.hit_70 == (exact >= Fraction(7, 10))


@given(st.text(), st.sampled_from(["think", "direct", "simple"]))
def test_any_text_gets_a_score(text, style):
    reading = read(text, Asked.of(SAMPLE, style))
    result = score(SAMPLE, reading)
    assert 0.0 <= result.iou <= 1.0
    assert reading.fault is None or reading.fault in FAULTS
    assert result.hit_70 <= result.hit_50 <= result.hit_30
