"""The response that the others agree with, and by how much."""

from __future__ import annotations

import pytest

from univg.grounding.agreement import choose_most_agreed, count_agreeing
from univg.grounding.reading import Asked, Reading, read


def at(*box: int, image: int = 0, words: str = "") -> Reading:
    x1, y1, x2, y2 = box
    asked = Asked(2, "Where?", "simple", target_image=image)
    return read(f"({x1},{y1}),({x2},{y2}){words}", asked)


def test_it_is_the_medoid() -> None:
    agreeing, stray = [at(0, 0, 400, 400), at(0, 0, 400, 300), at(0, 0, 400, 200)], at(800, 800, 900, 900)
    # mean IoU with the three others: (3/4 + 1/2) / 3, (3/4 + 2/3) / 3, (1/2 + 2/3) / 3, 0
    index, agreement = choose_most_agreed([stray, *agreeing])
    assert (index, agreement) == (2, pytest.approx((3 / 4 + 2 / 3) / 3))


def test_edges() -> None:
    none = read("nothing", Asked(style="simple"))
    assert choose_most_agreed([none]) == (0, None)
    assert choose_most_agreed([none, none]) == (0, 0.0)
    assert choose_most_agreed([none, at(0, 0, 500, 500)]) == (1, 0.0)
    assert choose_most_agreed([at(0, 0, 100, 100), at(500, 500, 600, 600)]) == (0, 0.0)


def test_a_box_on_another_image_agrees_by_nothing() -> None:
    assert choose_most_agreed([at(0, 0, 500, 500), at(0, 0, 500, 500, image=1)]) == (0, 0.0)


def test_a_fault_is_taken_only_if_all_have_one() -> None:
    sound, inverted = at(0, 0, 500, 400), at(500, 500, 0, 0)
    assert inverted.fault == "inverted_box"
    assert choose_most_agreed([inverted, inverted, sound])[0] == 2
    assert choose_most_agreed([inverted, inverted])[0] == 0


def said(text: str) -> Reading:
    return read(text, Asked(2, "Every cat.", "set_direct"))


ONE, OTHER = "Image-1: (0,0),(400,400)", "Image-2: (500,500),(900,900)"


def test_of_sets_it_is_the_medoid_by_soft_f1() -> None:
    readings = [said(text) for text in (ONE, f"{ONE}; {OTHER}", f"{OTHER}; {ONE}", "none")]
    # with the others: 2/3 + 2/3 + 0, 2/3 + 1 + 0
    assert choose_most_agreed(readings, sets=True) == (1, pytest.approx((2 / 3 + 1) / 3))
    assert choose_most_agreed(readings)[1] == pytest.approx(1 / 3), "by first boxes, whichever follow"
    assert count_agreeing(readings, 1) == [pytest.approx(2 / 3), pytest.approx(1 / 3)]


def test_those_who_say_that_nothing_fits_agree() -> None:
    assert choose_most_agreed([said("none"), said(ONE), said("none")], sets=True) == (0, 0.5)
    broken = [said(""), said("I see (1,2"), said("none")]
    assert choose_most_agreed(broken, sets=True) == (2, 0.0), "a broken answer does not say so"
    assert choose_most_agreed(broken[:2], sets=True) == (0, 0.0)
    assert count_agreeing([said("none"), said(ONE)], 0) == []


def test_a_box_counts_once_for_each_other_response() -> None:
    twice = f"{ONE}; Image-1: (0,0),(400,390)"
    assert count_agreeing([said(ONE), said(twice), said("none")], 0) == [0.5]
    assert count_agreeing([said(twice), said(ONE), said(ONE)], 0) == [1.0, 0.0]
