"""The reference code's numbers, by tables worked by hand from its published behaviour."""

from __future__ import annotations

import random
import re
import struct
import time

import pytest

from univg.grounding.legacy import (
    legacy_accuracy_reward,
    legacy_format_reward,
    legacy_mig_bench_box,
    legacy_mig_bench_iou,
    legacy_zero_shot_iou,
)

ZEROS = [0.0, 0.0, 0.0, 0.0]

MIG_BENCH_BOXES = [
    # the first box of the whole text, thought included
    ("<think>not (9,8),(7,6)</think><answer>(1,2),(3,4)</answer>", [9, 8, 7, 6]),
    ("(1,2),(3,4) (5,6),(7,8) (9,9),(9,9)", [1, 2, 3, 4]),
    ("<|box_start|>(1,2),(3,4)<|box_end|>", [1, 2, 3, 4]),
    # blanks after commas only
    ("(1,  2),\n(3,\t4)", [1, 2, 3, 4]),
    ("( 1,2),(3,4)", ZEROS),
    ("(1 ,2),(3,4)", ZEROS),
    ("(1,2) ,(3,4)", ZEROS),
    ("(1,2)(3,4)", ZEROS),
    ("(-1,2),(3,4)", ZEROS),
    # neither clipped nor ordered
    ("(3000,2),(1,0)", [3000, 2, 1, 0]),
    ("(007,2),(3,4)", [7, 2, 3, 4]),
    ("(٣,2),(3,4)", [3, 2, 3, 4]),
    # the other formats, and their rank: integer pairs, then decimals of three kinds, then lists, then <box>
    ("[1, 2,3,  4]", [1, 2, 3, 4]),
    ("[[28, 586, 362, 793]]", [28, 586, 362, 793]),
    ("[1 ,2,3,4]", ZEROS),
    ("(1,2,3,4)", ZEROS),  # integers in one pair of parentheses are no format
    ("<box>1 2\n3  4</box>", [1, 2, 3, 4]),
    ("<box> 1 2 3 4</box>", ZEROS),
    ("<box>1,2,3,4</box>", ZEROS),
    ("[5,6,7,8] then (1,2),(3,4)", [1, 2, 3, 4]),
    ("<box>5 6 7 8</box> then [1,2,3,4]", [1, 2, 3, 4]),
    # decimals are recognised and then fail to become integers, so they hide what ranks below them
    ("[0.1, 0.2, 0.3, 0.4]", ZEROS),
    ("(0.1,0.2),(0.3,0.4)", ZEROS),
    ("(0.1, 0.2, 0.3, 0.4)", ZEROS),
    ("[5,6,7,8] [0.1, 0.2, 0.3, 0.4]", ZEROS),
    ("<box>1 2 3 4</box> (0.1,0.2),(0.3,0.4)", ZEROS),
    ("[5,6,7,8] (0.1, 0.2, 0.3, 0.4)", ZEROS),
    ("[0.1, 0.2, 0.3, 0.4] (1,2),(3,4)", [1, 2, 3, 4]),
    # of the decimal pairs, blanks are not a format: the list behind them is read
    ("[5,6,7,8] (0.1, 0.2), (0.3, 0.4)", [5, 6, 7, 8]),
    ("[5,6,7,8] [.1, .2, .3, .4]", [5, 6, 7, 8]),
    ("[5,6,7,8] [0.1, 0.2, 0.3, 1]", [5, 6, 7, 8]),
    ("(" + "9" * 5000 + ",2),(3,4)", ZEROS),  # more digits than Python converts
    ("", ZEROS),
    ("no box", ZEROS),
]


@pytest.mark.parametrize(("text", "box"), MIG_BENCH_BOXES)
def test_mig_bench_box(text, box):
    assert legacy_mig_bench_box(text) == box
    assert type(legacy_mig_bench_box(text)[0]) is type(box[0])


MIG_BENCH_IOUS = [  # text, answer, IoU as the quotient of integers worked by hand
    ("(0,0),(200,100)", [0, 0, 100, 100], 10_000 / 20_000),
    ("(10,10),(20,20)", [15, 15, 25, 25], 25 / 175),
    ("(0,0),(3,1)", [0, 0, 1, 3], 1 / 5),
    ("(0,0),(1,1)", [0, 0, 1000, 1000], 1 / 1_000_000),
    ("(0,0),(10,10)", [10, 0, 20, 10], 0.0),  # touching
    ("(0,0),(10,10)", [20, 20, 30, 30], 0.0),
    ("(20,20),(10,10)", [0, 0, 30, 30], 0.0),  # inverted response
    ("(0,0),(30,30)", [20, 20, 10, 10], 0.0),  # inverted truth
    ("none", [0, 0, 100, 100], 0.0),
    ("[0.0, 0.0, 0.5, 0.5]", [0, 0, 500, 500], 0.0),
    # 0-1 answers are compared as they stand: all but 0
    ("(0,0),(500,500)", [0.0, 0.0, 0.5, 0.5], 0.25 / 250_000.0),
    ("(321,96),(999,724)", [0.321, 0.096, 0.999, 0.724], 0.0),
    # where the reference divides by zero
    ("none", [0, 0, 0, 0], 0.0),
    ("(5,5),(5,5)", [5, 5, 5, 5], 0.0),
]


@pytest.mark.parametrize(("text", "truth", "iou"), MIG_BENCH_IOUS)
def test_mig_bench_iou(text, truth, iou):
    assert legacy_mig_bench_iou(text, truth) == iou


ZERO_SHOT = [  # text, truth, (overlap, area of response, area of truth) or None
    ("(0,0),(500,500)", (0.0, 0.0, 0.5, 0.5), (0.25, 0.25, 0.25)),
    (" ( 0 ,\n0 ) , ( 1000,500 )", (0.0, 0.0, 0.5, 0.5), (0.25, 0.5, 0.25)),
    # prompt and completion are one text
    (
        "in the first (0,0),(500,500)?\nassistant\n<answer>(500,500),(1000,1000)</answer>",
        (0, 0, 0.5, 0.5),
        (0.25, 0.25, 0.25),
    ),
    ("(0,0),(250,250)", (0.5, 0.5, 1.0, 1.0), (0.0, 0.0625, 0.25)),
    ("(500,500),(0,0)", (0.0, 0.0, 1.0, 1.0), (0.0, 0.25, 1.0)),
    ("[0,0,500,500]", (0.0, 0.0, 0.5, 0.5), None),
    ("(0,0)(500,500)", (0.0, 0.0, 0.5, 0.5), None),
    ("(0.0,0.0),(0.5,0.5)", (0.0, 0.0, 0.5, 0.5), None),
    ("(0,0),(500,500)", None, None),  # the image was missing
    ("(" + "9" * 400 + ",0),(500,500)", (0.0, 0.0, 0.5, 0.5), None),  # does not fit a float
    ("", (0.0, 0.0, 0.5, 0.5), None),
]


@pytest.mark.parametrize(("text", "truth", "areas"), ZERO_SHOT)
def test_zero_shot_iou(text, truth, areas):
    expected = 0.0 if areas is None else areas[0] / (areas[1] + areas[2] - areas[0] + 1e-6)
    assert legacy_zero_shot_iou(text, truth) == expected


def test_zero_shot_iou_to_the_last_bit():
    # Found by doing the reference's sums by hand in doubles; another order of them ends in another bit.
    value = legacy_zero_shot_iou("(123,45),(678,901)", (100 / 640, 33 / 480, 433 / 640, 401 / 480))
    width, height = (
        min(0.678, 433 / 640) - max(0.123, 100 / 640),
        min(0.901, 401 / 480) - max(0.045, 33 / 480),
    )
    overlap = width * height
    response, truth = (0.678 - 0.123) * (0.901 - 0.045), (433 / 640 - 100 / 640) * (401 / 480 - 33 / 480)
    assert struct.pack("d", value) == struct.pack("d", overlap / (response + truth - overlap + 1e-6))


ACCURACY = [  # text, answer, reward
    ("<answer>(0,0),(200,100)</answer>", [0, 0, 100, 100], 0.5),
    ("<think>(0,0),(100,100)</think><answer>(0,0),(200,100)</answer>", [0, 0, 100, 100], 0.5),
    ("<answer>(0,0),(200,100)</answer><answer>(0,0),(100,100)</answer>", [0, 0, 100, 100], 0.5),
    ("<answer>(0,0),(200,100) (0,0),(100,100)</answer>", [0, 0, 100, 100], 0.5),
    ("<answer>\nbox: (0, 0),  (200,\n100) </answer>", [0, 0, 100, 100], 0.5),
    # the first <answer>, even one repeated from the prompt in the thought
    ("<think>in <answer> </answer> tags</think><answer>(0,0),(100,100)</answer>", [0, 0, 100, 100], 0.0),
    ("<think>in <answer> tags</think><answer>(0,0),(100,100)</answer>", [0, 0, 100, 100], 1.0),
    ("(0,0),(100,100)", [0, 0, 100, 100], 0.0),
    ("<answer>(0,0),(100,100)", [0, 0, 100, 100], 0.0),
    ("<ANSWER>(0,0),(100,100)</ANSWER>", [0, 0, 100, 100], 0.0),
    ("<answer>[0,0,100,100]</answer>", [0, 0, 100, 100], 0.0),
    ("<answer>(0.0,0.0),(0.1,0.1)</answer>", [0, 0, 100, 100], 0.0),
    # an overlap of one unit or less counts nothing, of two units plainly
    ("<answer>(0,0),(1,100)</answer>", [0, 0, 100, 100], 0.0),
    ("<answer>(0,0),(100,1)</answer>", [0, 0, 100, 100], 0.0),
    ("<answer>(0,0),(2,100)</answer>", [0, 0, 100, 100], 0.02),
    ("<answer>(99,0),(200,100)</answer>", [0, 0, 100, 100], 0.0),
    ("<answer>(98,0),(198,100)</answer>", [0, 0, 100, 100], 200 / 19_800),
    ("<answer>(5,5),(6,6)</answer>", [5, 5, 6, 6], 0.0),  # identical, but one unit wide
    ("<answer>(100,100),(0,0)</answer>", [0, 0, 100, 100], 0.0),
    ("<answer>(5,5),(5,5)</answer>", [5, 5, 5, 5], 0.0),
    ("", [0, 0, 100, 100], 0.0),
]


@pytest.mark.parametrize(("text", "truth", "reward"), ACCURACY)
def test_accuracy_reward(text, truth, reward):
    assert legacy_accuracy_reward(text, truth) == reward


def test_accuracy_reward_of_a_simple_reference_reads_the_whole_text():
    assert legacy_accuracy_reward("It is (0,0),(200,100)", [0, 0, 100, 100], simple=True) == 0.5
    assert legacy_accuracy_reward("It is (0,0),(200,100)", [0, 0, 100, 100]) == 0.0


def test_accuracy_reward_with_decimal_truth_moves_edges_there_and_back():
    # 0.3 - 1 + 1 is not 0.3 in doubles, and the reference does just that to right and lower edges
    left, top, right, bottom = truth = [4.2, 24.8, 36.4, 61.9]
    overlap = ((right - 1) - left + 1) * ((bottom - 1) - top + 1)
    union = 100 * 100 + (right - left) * (bottom - top) - overlap
    plain = (right - left) * (bottom - top)
    assert (
        legacy_accuracy_reward("<answer>(0,0),(100,100)</answer>", truth) == overlap / union != plain / 10_000
    )


FORMAT = [
    ("<think>a</think><answer>(1,2),(3,4)</answer>", 1.0),
    ("<think>a\nb</think> \n<answer>(1, 2),  (3,\n4)</answer>", 1.0),
    ("Well: <think></think><answer>(1,2),(3,4)</answer>", 1.0),  # searched, so anything may stand before
    ("<think>a</think><answer>(1,2),(3,4)</answer>\n", 1.0),  # $ passes one final newline
    ("<think>a</think><answer>(1,2),(3,4)</answer>\n\n", 0.0),
    ("<think>a</think><answer>(1,2),(3,4)</answer> ", 0.0),
    ("<think>a</think><answer>(1,2),(3,4)</answer>.", 0.0),
    ("<think>a</think>b<answer>(1,2),(3,4)</answer>", 0.0),
    ("<think>a</think>b</think><answer>(1,2),(3,4)</answer>", 1.0),  # the lazy dot goes on to the next one
    ("<think>a</think><answer>(9,9),(9,9)</answer><think>b</think><answer>(1,2),(3,4)</answer>", 1.0),
    ("<think>a</think><answer>x<answer>(1,2),(3,4)</answer>", 0.0),
    ("a</think><answer>(1,2),(3,4)</answer>", 0.0),
    ("</think><think><answer>(1,2),(3,4)</answer>", 0.0),
    ("<think</think><answer>(1,2),(3,4)</answer>", 0.0),
    ("<think>a</think><answer>( 1,2),(3,4)</answer>", 0.0),
    ("<think>a</think><answer> (1,2),(3,4)</answer>", 0.0),
    ("<think>a</think><answer>[1,2,3,4]</answer>", 0.0),
    ("<answer>(1,2),(3,4)</answer>", 0.0),
    ("", 0.0),
]


@pytest.mark.parametrize(("text", "reward"), FORMAT)
def test_format_reward(text, reward):
    assert legacy_format_reward(text) == reward


def test_format_reward_of_a_simple_reference_wants_a_box_anywhere():
    assert legacy_format_reward("It is (1,2),(3,4).", simple=True) == 1.0
    assert legacy_format_reward("It is [1,2,3,4].", simple=True) == 0.0


PIECES = [
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "(1,2),(3, 4)",
    "(1,2)",
    " ",
    "\n",
    "\x1c",
    "\u3000",
    "a",
    "<",
]


def test_format_reward_equals_the_published_search():
    published = re.compile(
        r"<think>.*?</think>\s*<answer>\((\d+),\s*(\d+)\),\s*\((\d+),\s*(\d+)\)</answer>$", re.DOTALL
    )
    rng = random.Random(7)
    passed = 0
    for _ in range(50_000):
        text = "".join(rng.choices(PIECES, k=rng.randrange(8)))
        if rng.random() < 0.7:
            text += (
                rng.choice(["</think>", ""])
                + rng.choice(PIECES)
                + "<answer>(1,2),(3,4)</answer>"
                + rng.choice(["", "\n", "\r", " "])
            )
        expected = 1.0 if published.search(text) else 0.0
        assert legacy_format_reward(text) == expected, text
        passed += int(expected)
    assert 1_000 < passed < 49_000


@pytest.mark.parametrize(
    "unit",
    [
        "<think>",
        "</think>",
        "<answer>",
        "(1,",
        "(1,2),(",
        "1",
        " ",
        "<box>1 ",
        "[1.1, ",
        "((((",
        "(1" + " " * 40,
    ],
)
def test_long_texts_take_linear_time(unit):
    def seconds(size):
        text = unit * (size // len(unit))
        start = time.process_time()
        legacy_mig_bench_box(text)
        legacy_zero_shot_iou(text, (0, 0, 1, 1))
        legacy_accuracy_reward(text, [0, 0, 1, 1])
        legacy_format_reward(text)
        return time.process_time() - start

    assert any(seconds(1_000_000) < 8 * seconds(250_000) + 0.02 for _ in range(3))
