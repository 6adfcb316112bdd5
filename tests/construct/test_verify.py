"""What is rejected, and for what; nothing that is right is."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from univg.construct.copies import Copies, hash_shingles, measure_likeness
from univg.construct.select import choose, list_orders, read_vote
from univg.construct.verify import CAUSES, MUST_MENTION, Rules, find_leaks, verify
from univg.grounding.prompts import render_response
from univg.grounding.samples import GroundingSample
from univg.world import FAMILIES, stream

PAIR = GroundingSample(
    ["a.png", "b.png"], "What differs?", "diff", boxes=[(0.1, 0.2, 0.5, 0.6)], target_image=1
)
GOOD = "The first image shows a cup. The second image shows a cup and a lamp. So the lamp is new in the second image."


def text(thought: str, box: str = "(100,200),(500,600)") -> str:
    return f"<think>{thought}</think><answer>{box}</answer>"


REJECTED = {
    "nothing": ("", "empty"),
    "no answer": (GOOD, "no_answer"),
    "no box": (text(GOOD, "left"), "no_box"),
    "two boxes": (text(GOOD, "(100,200),(500,600) (1,2),(3,4)"), "several_boxes"),
    "cut off": (f"<think>{GOOD}", "truncated"),
    "no thought": ("<answer>(100,200),(500,600)</answer>", "no_thought"),
    "an empty thought": (text(""), "no_thought"),
    "elsewhere": (text(GOOD, "(500,200),(900,600)"), "low_iou"),
    "ground truth": (text(f"{GOOD} This is the ground truth."), "leak_phrase"),
    "given coordinates": (text(f"The given coordinates show it. {GOOD}"), "leak_phrase"),
    "a provided box": (text(f"{GOOD} It fits the bounding box provided."), "leak_phrase"),
    "was told": (text(f"I was told where it is. {GOOD}"), "leak_phrase"),
    "numbers first": (text(f"The region (100,200),(500,600) is new. {GOOD}"), "leak_box"),
    "numbers in words": (text(f"It spans from 100 to 500 and 200 to 600. {GOOD}"), "leak_box"),
    "unit numbers": (text(f"At [0.1, 0.2, 0.5, 0.6] something is new. {GOOD}"), "leak_box"),
    "a tag": (text(f"{GOOD} <|image_pad|>"), "markup"),
    "one image only": (
        text("The second image shows a lamp that is new and stands at the left side."),
        "missing_image",
    ),
    "another image": (text(f"{GOOD} So it is in the first image."), "wrong_image"),
    "short": (text("Both images differ: the lamp."), "too_short"),
    "long": (text(GOOD + " The lamp is there." * 100), "too_long"),
    "German": (
        text(
            "Both images: Das erste Bild zeigt eine Tasse, das zweite Bild zeigt dazu noch eine Lampe, "
            "also ist die Lampe neu und steht links neben der Tasse."
        ),
        "language",
    ),
    "Chinese": (
        text("First image 第一张图有一个杯子。Second image 第二张图多了一盏灯，灯在左边，是新的。"),
        "language",
    ),
}


@pytest.mark.parametrize("case", REJECTED)
def test_each_fault_has_its_name(case: str) -> None:
    written, cause = REJECTED[case]
    assert verify(PAIR, written, Rules()).causes[0] == cause


def test_what_is_right_passes() -> None:
    assert verify(PAIR, text(GOOD), Rules()).causes == ()
    assert verify(PAIR, text(f"{GOOD} Its box is (100,200),(500,600)."), Rules()).causes == ()
    assert verify(PAIR, text(GOOD), Rules(), truncated=True).causes == ("truncated",)
    chinese = text(
        "第一张图有一个杯子 (first image)。第二张图多了一盏灯 (second image)，灯在左边，是新出现的物体。"
    )
    assert verify(PAIR, chinese, Rules(language="zh")).causes == ()


def test_pixels_are_read_at_the_size_that_was_seen() -> None:
    seen = ((100, 100), (200, 100))
    verdict = verify(PAIR, text(GOOD, "(20,20),(100,60)"), Rules(), frame="pixel", seen_wh=seen)
    assert verdict.causes == () and verdict.iou == pytest.approx(1)


def test_the_world_s_exact_thoughts_pass_in_every_family() -> None:
    for made in islice(stream(seed=11, size=28), 8 * len(FAMILIES)):
        sample = made.sample
        verdict = verify(sample, render_response(sample.boxes[0], sample.thought), Rules())
        assert verdict.causes == (), (sample.query, sample.thought)


def test_every_family_says_what_it_must_mention() -> None:
    several = {name for name, family in FAMILIES.items() if family.images[1] > 1}
    assert several <= set(MUST_MENTION)


def test_what_the_question_shows_is_no_leak() -> None:
    asked = "For the object marked with red bounding box((10,20),(30,40)), locate it in the 2th image."
    assert not find_leaks(asked, "The provided box in the first image holds a cat.")
    assert find_leaks(asked, "The provided box and the correct answer agree.")
    assert not find_leaks("Which is the correct answer?", "I look for the correct answer.")
    assert not find_leaks("Locate the 1th region picture.", "The given region picture shows a door.")


@given(st.text(max_size=300))
def test_any_text_gets_a_verdict(written: str) -> None:
    verdict = verify(PAIR, written, Rules())
    assert verdict.causes and set(verdict.causes) <= set(CAUSES)


@pytest.mark.parametrize(
    "settings", [{"min_iou": 2}, {"copies": -1}, {"min_words": 9, "max_words": 3}, {"language": "x"}]
)
def test_bounds_that_make_no_sense(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"lie in 0-1|min_words|choose from"):
        Rules(**settings)  # type: ignore[arg-type]


@given(st.lists(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=14).map(" ".join), max_size=14))
def test_copies_are_found_as_by_comparing_all(thoughts: list[str]) -> None:
    likeness, seen = 0.6, Copies(0.6)
    for at, thought in enumerate(thoughts):
        mine, others = hash_shingles(thought), map(hash_shingles, thoughts[:at])
        like = [b for b, other in enumerate(others) if measure_likeness(mine, other) >= likeness]
        found = seen.find_original(str(at), thought)
        assert (found is not None) == bool(like) and (found is None or int(found) in like)
        seen.add(str(at), thought)


def test_a_judge_that_looks_at_the_order_decides_nothing() -> None:
    for count in (2, 3, 5):
        always_first = choose([0.8] * count, ["<best>1</best>"] * count)
        assert (always_first.by, always_first.chosen, set(always_first.votes)) == ("tie", 0, {1})
        steady = [f"<best>{order.index(1) + 1}</best>" for order in list_orders(count)]
        assert (choose([0.8] * count, steady).by, choose([0.8] * count, steady).chosen) == ("votes", 1)
        assert [sorted(order) for order in list_orders(count)] == [list(range(count))] * count


@pytest.mark.parametrize(
    ("answers", "by", "chosen"),
    [
        (["<best>tie</best>", "<best>tie</best>"], "tie", 1),
        (["<best>1</best>", "<best>tie</best>"], "tie", 0),
        (["I cannot help with that.", None], "refused", 1),
        (["<best>7</best>", "Both are fine."], "refused", 1),
        ([" 1.", "<best>Chain 2</best>"], "votes", 0),
        (None, "rule", 1),
    ],
)
def test_ties_and_refusals_go_by_the_rule(answers: list[str | None] | None, by: str, chosen: int) -> None:
    """The second has the higher IoU; a single vote is no majority, but it keeps the others out."""
    choice = choose([0.7, 0.9], answers)
    assert (choice.by, choice.chosen) == (by, chosen)


def test_a_vote_in_many_forms() -> None:
    said = [
        "<best>2</best>",
        "<best> chain 2 </best>",
        "2",
        "**2**",
        "Chain 2",
        "<best>1</best> no, <best>2</best>",
    ]
    assert {read_vote(one, (4, 7)) for one in said} == {7}
    assert read_vote("", (0, 1)) is None and read_vote("<best>0</best>", (0, 1)) is None
