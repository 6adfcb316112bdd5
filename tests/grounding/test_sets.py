"""Answers that are sets: how they are matched and scored, and that no cheap answer beats an honest one."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from univg.grounding.boxes import iou
from univg.grounding.prompts import render_answer
from univg.grounding.reading import Asked, read
from univg.grounding.samples import GroundingSample
from univg.grounding.scoring import score
from univg.grounding.sets import THRESHOLDS, match_sets

LEFT, RIGHT, TOP = (0.0, 0.0, 0.4, 1.0), (0.6, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 0.2)


@st.composite
def boxes(draw):
    x1, x2 = sorted(draw(st.lists(st.integers(0, 20), min_size=2, max_size=2, unique=True)))
    y1, y2 = sorted(draw(st.lists(st.integers(0, 20), min_size=2, max_size=2, unique=True)))
    return x1 / 20, y1 / 20, x2 / 20, y2 / 20


on_images = st.lists(st.tuples(st.integers(0, 2), boxes()), max_size=5)


@given(boxes(), boxes())
def test_one_against_one_is_the_iou_to_the_last_bit(one, other):
    assert match_sets([(None, one)], [(None, other)]).soft_f1 == iou(one, other)
    assert match_sets([(1, one)], [(1, other)]).soft_f1 == iou(one, other)
    assert match_sets([(0, one)], [(1, other)]).soft_f1 == 0


@given(on_images, on_images, st.randoms())
def test_order_and_sides_change_nothing(one, other, rng):
    match = match_sets(one, other)
    shuffled = rng.sample(one, len(one)), rng.sample(other, len(other))
    again, turned = match_sets(*shuffled), match_sets(other, one)
    for measure in ("soft_f1", "mean_f1", "image_f1"):
        assert getattr(match, measure) == pytest.approx(getattr(again, measure))
        assert getattr(match, measure) == pytest.approx(getattr(turned, measure))
    assert match.precision(0.5) == turned.recall(0.5)


@given(on_images, on_images)
def test_bounds(one, other):
    match = match_sets(one, other)
    assert 0 <= match.mean_f1 <= match.f1(0.5) + 1e-12 <= 1 + 1e-12
    assert 0 <= match.soft_f1 <= 1
    assert (match.soft_f1 == 1) == (sorted(one) == sorted(other))
    counts = [match.count_hits(threshold) for threshold in THRESHOLDS]
    assert counts == sorted(counts, reverse=True)


@given(on_images, on_images)
def test_no_other_matching_is_better(one, other):
    few, many = (one, other) if len(one) <= len(other) else (other, one)
    best = max(
        sum(iou(a[1], b[1]) for a, b in zip(few, order, strict=True) if a[0] == b[0])
        for order in itertools.permutations(many, len(few))
    )
    assert sum(overlap for *_, overlap in match_sets(one, other).pairs) == pytest.approx(best)


@given(on_images, on_images, st.data())
def test_a_box_moved_onto_its_truth_is_never_worse(given_boxes, true, data):
    match = match_sets(given_boxes, true)
    if not match.pairs:
        return
    place, truth, _ = data.draw(st.sampled_from(match.pairs))
    better = [true[truth] if at == place else one for at, one in enumerate(given_boxes)]
    assert match_sets(better, true).soft_f1 >= match.soft_f1 - 1e-12


@given(on_images.filter(bool), on_images.filter(bool))
def test_a_box_given_twice_or_too_many_costs(given_boxes, true):
    match = match_sets(given_boxes, true)
    for further in (given_boxes[0], (7, TOP)):
        spam = match_sets([*given_boxes, further, further, further, further, further], true)
        # one more can be right where fewer were given than there are, or where true boxes lie on one another
        assert (
            spam.precision(0.5) <= match.precision(0.5)
            or len(given_boxes) < len(true)
            or len(set(true)) < len(true)
        )
    exact = match_sets(true, true)
    assert match_sets([*true, true[0]], true).soft_f1 < exact.soft_f1 == 1


@given(st.lists(st.tuples(st.integers(0, 1), boxes()), max_size=4), on_images)
def test_hits_agree_with_pycocotools(given_boxes, true):
    """Where true boxes of an image do not overlap, its greedy matching and ours count the same hits at 0.5 and more."""
    coco = pytest.importorskip("pycocotools.coco")
    import numpy as np
    from pycocotools.cocoeval import COCOeval

    apart = []
    for image, box in true:
        if all(image != there or iou(box, other) == 0 for there, other in apart):
            apart.append((image, box))
    truth, found = coco.COCO(), coco.COCO()
    images = [{"id": number} for number in range(3)]

    def annotate(placed, **further):
        rows = []
        for number, (image, (x1, y1, x2, y2)) in enumerate(placed, 1):
            w, h = x2 - x1, y2 - y1
            row = {"id": number, "image_id": image, "category_id": 1, "bbox": [x1, y1, w, h], "area": w * h}
            rows.append(row | {"iscrowd": 0} | further)
        return rows

    for one, rows in ((truth, annotate(apart)), (found, annotate(given_boxes, score=0.5))):
        one.dataset = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "thing"}]}
        one.createIndex()
    judge = COCOeval(truth, found, "bbox")
    judge.params.imgIds, judge.params.areaRng, judge.params.areaRngLbl = [0, 1, 2], [[0, 1e5**2]], ["all"]
    judge.evaluate()
    match = match_sets(given_boxes, apart)
    for place, threshold in enumerate(THRESHOLDS):
        hits = sum(int(np.sum(one["dtMatches"][place] > 0)) for one in judge.evalImgs if one is not None)
        near = [
            abs(overlap - threshold) < 1e-6
            for a in given_boxes
            for b in apart
            if (overlap := iou(a[1], b[1]))
        ]
        if not any(near):
            assert match.count_hits(threshold) == hits


def make(boxes_of, **further):
    return GroundingSample(["a", "b", "c"], "Every cat.", "find_all", boxes_of, complete=True, **further)


THREE = make([LEFT, RIGHT, TOP], box_images=[0, 0, 2])
NOTHING = make([])
GRID = [
    ((x / 4, y / 4, (x + 1) / 4, (y + 1) / 4), image)
    for x in range(4)
    for y in range(4)
    for image in range(3)
]


def judge(sample, text):
    return score(sample, read(text, Asked.of(sample, "direct")))


def worth(sample, text):
    return judge(sample, text).iou


def listed(placed):
    sample = make([box for box, _ in placed], box_images=[image for _, image in placed])
    return render_answer(sample, "set_direct")


BROKEN = ("", "It is (1,2", "I cannot help with that.", "Image-1: (5,5),(5,5)")


@pytest.mark.parametrize("text", BROKEN)
@pytest.mark.parametrize("sample", [NOTHING, THREE], ids=["none", "three"])
def test_a_broken_answer_is_worth_nothing_by_any_measure(sample, text):
    result = judge(sample, text)
    match = result.match
    assert match.broken and not match.given
    worth_of = (match.soft_f1, match.precision(0.5), match.recall(0.5), match.f1(0.5), match.mean_f1)
    assert (*worth_of, match.image_f1, result.iou) == (0.0,) * 7


def test_none_and_boxes_are_not_broken():
    for sample in (NOTHING, THREE):
        assert not any(judge(sample, text).match.broken for text in ("none", "Image-1: (0,0),(9,9)"))
    match = judge(NOTHING, "none").match
    assert (match.soft_f1, match.precision(0.5), match.recall(0.5), match.mean_f1, match.image_f1) == (
        1.0,
    ) * 5
    one_box = GroundingSample(["a"], "The cat?", "referring", [LEFT])
    assert not judge(one_box, "talks").match.broken and judge(one_box, "talks").iou == 0.0


POLICIES = {
    "refuses": "none",
    "one box over each image": listed([((0, 0, 1, 1), image) for image in range(3)]),
    "one box over one image": listed([((0, 0, 1, 1), 0)]),
    "a grid over everything": listed(GRID),
    "says a true box twice": "Image-1: (0,0),(400,1000); " + render_answer(THREE, "set_direct"),
    "the right boxes on every image": listed(
        [(box, image) for box in (LEFT, RIGHT, TOP) for image in range(3)]
    ),
    "talks": "I see several cats on the sofa and one near the window.",
    "nothing": "",
}


@pytest.mark.parametrize("name", POLICIES)
def test_no_trivial_policy_beats_an_honest_answer(name):
    """An honest answer finds two of three boxes, not exactly; where nothing is, it says so four times of five."""
    honest = worth(THREE, "Image-1: (20,0),(400,960); Image-1: (600,40),(980,1000)")
    everywhere = [worth(sample, POLICIES[name]) for sample in (THREE, *[NOTHING])]
    assert sum(everywhere) < honest + 0.8
    if name != "says a true box twice":
        assert everywhere[0] < honest
    assert everywhere[0] < 1


@pytest.mark.parametrize(
    "sample", [THREE, NOTHING, make([LEFT], target_image=1)], ids=["three", "none", "one"]
)
@pytest.mark.parametrize("style", ["think", "direct"])
def test_what_is_taught_reads_back(sample, style):
    asked = Asked.of(sample, style)
    assert asked.style == {"think": "set", "direct": "set_direct"}[style]
    assert asked.target_image is None
    reading = read(render_answer(sample, asked.style), asked)
    assert reading.format_ok
    assert sorted((one.image_index, one.box) for one in reading.boxes) == sorted(sample.targets)
    assert score(sample, reading).iou == 1


SET_FORMS = [
    ("Image-1: (1,2),(3,4)", True, 1, None),
    ("Image-1: (1,2),(3,4); Image-2: (1,2),(3,4)", True, 2, None),
    ("Image-1: (1,2),(3,4);Image-2:(1,2),(3,4)", True, 2, None),
    ("none", True, 0, None),
    ("None.", False, 0, None),
    ("[]", False, 0, None),
    ("There is no cat in any of the images.", False, 0, None),
    ("三张图片中都没有猫。", False, 0, None),
    ("", False, 0, "empty"),
    ("A cat sleeps on the sofa.", False, 0, "no_box"),
    ("I can't help with that.", False, 0, "no_box"),
    ("(1,2),(3,4)", False, 1, None),
    ("Image-1: (1,2),(3,4) and Image-3: (5,5),(9,9)", False, 2, None),
    ("Image-9: (1,2),(3,4)", True, 0, "unknown_image"),
    ("Image-1: (1,2),(3,4); Image-2: (5,5),(5,5)", True, 1, "degenerate_box"),
    (json.dumps([{"bbox_2d": [1, 2, 30, 40], "image": number} for number in (1, 3)]), False, 2, None),
]


@pytest.mark.parametrize(("text", "formatted", "count", "fault"), SET_FORMS)
def test_answers_of_sets(text, formatted, count, fault):
    reading = read(text, Asked(3, "Every cat.", "set_direct"))
    assert (reading.formatted, len(reading.boxes), reading.fault) == (formatted, count, fault)
    assert reading.says_none == (count == 0 and fault is None)


def test_an_answer_that_was_cut_off_says_nothing():
    asked = Asked(1, "Every cat.", "set_direct")
    assert not read("There is no", asked, truncated=True).says_none
    assert read("<answer>none</answer> and", asked, truncated=True).says_none
    thinking = Asked(1, "Every cat.", "set")
    assert read("<think>There is no cat.", thinking, truncated=True).fault == "truncated"
    assert read("<think>There is no cat.</think>", thinking).fault == "no_answer"


def test_a_style_of_one_box_still_calls_a_refusal_a_fault():
    reading = read("There is no cat.", Asked(1, "The cat?", "direct"))
    assert reading.fault == "no_box" and reading.says_none


def test_the_image_of_the_truth_is_not_given_away():
    sample = make([LEFT], target_image=0)
    assert worth(sample, "(0,0),(400,1000)") == 0  # on the last image, as nothing says another
    assert worth(sample, "Image-1: (0,0),(400,1000)") == 1


def test_the_fields_of_before_stand_where_they_stood():
    positional = GroundingSample(("a",), "The cat?", "t", (LEFT,), 0, "So.", True, "s#1", {"kept": 1})
    assert positional.extra == {"kept": 1} and not positional.complete
