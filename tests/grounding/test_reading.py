"""Prompts to the letter; answers as models really write them; any text whatever, in linear time."""

from __future__ import annotations

import dataclasses
import gc
import json
import random
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from univg.grounding.coordinates import read_quads
from univg.grounding.prompts import (
    ZERO_SHOT_IMAGE,
    ZERO_SHOT_VIDEO,
    choose_style,
    render_chat,
    render_prompt,
    render_response,
)
from univg.grounding.reading import FAULTS, FAULTS_WITH_BOX, Asked, Reading, read
from univg.grounding.samples import GroundingSample

STYLES = ("think", "direct", "simple")
BOX = ((0.1, 0.2, 0.3, 0.4),)


def reading_of(text: str, style: str = "think", frame: str = "permille", size_wh=None) -> Reading:
    """A response to a question about one image."""
    return read(text, Asked(1, "", style, frame), [size_wh] if size_wh else ())


def boxes_of(reading: Reading) -> tuple:
    return tuple(placed.box for placed in reading.boxes)


# --- prompts ---


def test_prompts_are_the_papers_to_the_letter():
    think = (
        "Find it. First output the thinking process in <think> </think> tags and then output the bounding box in "
        "<answer> </answer> tags."
    )
    assert render_prompt("Find it. ") == render_prompt("Find it.", "think") == think
    assert render_prompt(" Find it. ", "direct") == (
        "Find it. Format:<|box_start|>(x1,y1),(x2,y2)<|box_end|>. Don't generate addtional words."
    )
    assert render_prompt("the left dog", "simple") == (
        "This is a single image grounding task with simple reference. the left dog"
    )
    assert ZERO_SHOT_IMAGE.format(instruction="the dog") == (
        "Output the bounding box in the image corresponding to the instruction: the dog."
    )
    assert ZERO_SHOT_VIDEO.format(instruction="the dog") == (
        "This is a sequence of images from a video. Please understand the entire video content, and then output the "
        "bounding box in the third image according to the instruction: the dog."
    )


def test_chat_puts_the_images_before_the_text():
    (turn,) = render_chat(3, "Where?", "simple")
    assert turn["role"] == "user"
    assert turn["content"] == [{"type": "image"}] * 3 + [
        {"type": "text", "text": "This is a single image grounding task with simple reference. Where?"}
    ]


@pytest.mark.parametrize("style", STYLES)
def test_a_sample_without_thinking_is_asked_simply(style):
    sample = GroundingSample(("a.png",), "q", "referring")
    assert choose_style(sample, style) == style
    assert choose_style(dataclasses.replace(sample, thinking=False), style) == "simple"


@pytest.mark.parametrize(
    "function", [lambda s: render_prompt("q", s), lambda s: render_response((0, 0, 1, 1), "", s)]
)
def test_an_unknown_style_is_refused(function):
    with pytest.raises(ValueError, match="think, direct, simple"):
        function("thinking")


def test_responses_as_taught():
    box = (0.1, 0.2004, 0.3005, 1.2)
    assert (
        render_response(box, "It is left.")
        == "<think>It is left.</think><answer>(100,200),(301,1000)</answer>"
    )
    assert render_response(box, style="direct") == "<|box_start|>(100,200),(301,1000)<|box_end|>"
    assert render_response(box, "ignored", "simple") == "(100,200),(301,1000)"


permille = st.integers(0, 1000)
proper_box = (
    st.tuples(permille, permille, permille, permille)
    .map(lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3])))
    .filter(lambda b: b[0] < b[2] and b[1] < b[3])
)
# A thought may say anything but close itself.
thoughts = st.text(max_size=60).filter(lambda t: not re.search(r"<\s*/?\s*(think|answer)", t, re.IGNORECASE))


@given(proper_box, thoughts, st.sampled_from(STYLES))
def test_what_is_rendered_is_read_back_exactly(box, thought, style):
    unit = tuple(value / 1000 for value in box)
    response = reading_of(render_response(unit, thought, style), style)
    assert boxes_of(response) == (unit,)
    assert response.fault is None
    assert response.formatted
    assert response.thought == (thought.strip() if style == "think" else None)


# --- what models write ---

WRITTEN = [
    "(100,200),(300,400)",
    " ( 100 , 200 ) , ( 300 , 400 ) ",
    "(100, 200), (300, 400).",
    "(100,200)(300,400)",
    "(100,200)\n(300,400)",
    "((100,200),(300,400))",
    "<|box_start|>(100,200),(300,400)<|box_end|>",
    "<|object_ref_start|>dog 2<|object_ref_end|><|box_start|>(100,200),(300,400)<|box_end|>",
    "[100,200,300,400]",
    "[[100, 200, 300, 400]]",
    "[[100,200],[300,400]]",
    "[(100,200),(300,400)]",
    "[100, 200], [300, 400]",
    "(100, 200, 300, 400)",
    "{100, 200, 300, 400}",
    "[100 200 300 400]",
    "[100; 200; 300; 400]",
    "<box>100 200 300 400</box>",
    "<box>(100,200),(300,400)</box>",
    "<box>[[100, 200, 300, 400]]</box>",
    "<bbox>100, 200, 300, 400</bbox>",
    "100, 200, 300, 400",
    "100 200 300 400.",
    '{"bbox_2d": [100, 200, 300, 400], "label": "cup 2"}',
    '```json\n[\n\t{"bbox_2d": [100, 200, 300, 400], "label": "cup"}\n]\n```',
    '{"image": 2, "bbox_2d": [[100, 200], [300, 400]]}',
    '{"bbox": "100,200,300,400"}',
    "bbox_2d=[100,200,300,400]",
    '{"x1": 100, "y1": 200, "x2": 300, "y2": 400}',
    '{"image": 2, "x1": 100, "y1": 200, "x2": 300, "y2": 400}',
    '{"xmin": 100, "xmax": 300, "ymin": 200, "ymax": 400}',
    '{"y_min": 200, "x_min": 100, "y_max": 400, "x_max": 300}',
    "x1=100, y1=200, x2=300, y2=400",
    "x1: 100\ny1: 200\nx2: 300\ny2: 400",
    "(x1=100, y1=200), (x2=300, y2=400)",
    '{"top_left": [100, 200], "bottom_right": [300, 400]}',
    "top-left (100, 200), bottom-right (300, 400)",
    "(100,200) to (300,400)",
    "from (100,200) and the lower right corner (300,400)",
    "(x1,y1) = (100,200), (x2,y2) = (300,400)",
    "(100.0,200.0),(300.0,400.0)",
    "(1e2, 2e2), (3e2, 4e2)",
    "(0.1,0.2),(0.3,0.4)",
    "[0.10, 0.20, 0.30, 0.40]",
    "[.1, .2, .3, .4]",
    "(0100,0200),(0300,0400)",
    "+100, +200, +300, +400",
    "（100，200），（300，400）",
    "［100，200，300，400］",
    "【100，200，300，400】",
    "In image 2: (100,200),(300,400)",
    "It's in the 2nd image. (100,200),(300,400)",
    "Image 2: 100, 200, 300, 400",
    "**(100,200),(300,400)**",
    "\\boxed{(100,200),(300,400)}",
]


@pytest.mark.parametrize("written", WRITTEN)
def test_ways_to_write_a_box(written):
    think = reading_of(f"<think>Two dogs.</think>\n<answer>{written}</answer>")
    assert think.box == pytest.approx(BOX[0])
    assert (len(think.boxes), think.fault, think.thought) == (1, None, "Two dogs.")
    for style in ("direct", "simple"):
        assert reading_of(written, style).boxes == think.boxes
        assert reading_of(written, style).fault is None


NO_BOX = [
    "there is no difference",
    "the second image",
    "(100,200)",
    "(100,200),(300,)",
    "[100,200,300]",
    "[1,2,3,4,5]",
    "1 2 3 4 5",
    "the cat at (1,2), a dog at (3,4)",
    '{"x": 1, "y": 2, "height": 4}',
    "(a,b),(c,d)",
    "(1/2,3/4),(5/6,7/8)",
    "100200300400",
    "1.2.3.4",
    "(nan,nan),(nan,nan)",
    "(inf,inf),(inf,inf)",
    "12345678901,12345678902,12345678903,12345678904",
    "a1 b2 c3 d4",
]


@pytest.mark.parametrize("written", NO_BOX)
def test_what_is_no_box(written):
    assert (
        reading_of(f"<answer>{written}</answer>").fault,
        boxes_of(reading_of(f"<answer>{written}</answer>")),
    ) == (
        "no_box",
        (),
    )
    assert reading_of(written, "direct").fault == "no_box"


MANY = [
    ("(1,2),(3,4)\n(5,6),(7,8)", 2),
    ("[[1,2,3,4],[5,6,7,8]]", 2),
    ('[{"bbox_2d": [1,2,3,4]}, {"bbox_2d": [5,6,7,8]}, {"bbox_2d": [5,6,7,9]}]', 3),
    ("<box>1 2 3 4</box><box>5 6 7 8</box>", 2),
    ("(1,2),(3,4) and (5,6),(7,8)", 2),
    ('{"x1":1,"y1":2,"x2":3,"y2":4},{"x1":5,"y1":6,"x2":7,"y2":8}', 2),
]


@pytest.mark.parametrize(("written", "n"), MANY)
def test_several_boxes_are_all_read_and_the_first_counts(written, n):
    response = reading_of(f"<answer>{written}</answer>")
    assert (len(response.boxes), response.fault) == (n, "several_boxes")
    assert response.box == (0.001, 0.002, 0.003, 0.004)


ANATOMY = [  # text, thought, box, fault
    ("<think>a</think><answer>(1,2),(3,4)</answer>", "a", True, None),
    ("<think>\n a\nb \n</think>\n\n<answer>\n(1,2),(3,4)\n</answer>\n", "a\nb", True, None),
    ("<Think>a</THINK><ANSWER>(1,2),(3,4)</Answer>", "a", True, None),
    ("< think >a</ think >< answer >(1,2),(3,4)< / answer >", "a", True, None),
    ("<think></think><answer>(1,2),(3,4)</answer>", "", True, None),
    ("<answer>(1,2),(3,4)</answer>", None, True, None),
    ("<think>a</think><answer>(1,2),(3,4)</answer><|im_end|>\n<|endoftext|><|endoftext|>", "a", True, None),
    ("<answer>(1,2),(3,4)</answer><think>a</think>", "a", True, None),
    # the opening tag stood in the prompt
    ("a</think><answer>(1,2),(3,4)</answer>", "a", True, None),
    # the closing one was forgotten
    ("<think>a<answer>(1,2),(3,4)</answer>", "a", True, None),
    # a box in the thought is no answer
    (
        "<think>It may be (9,9),(99,99)</think><answer>(1,2),(3,4)</answer>",
        "It may be (9,9),(99,99)",
        True,
        None,
    ),
    ("<think>It is (1,2),(3,4)</think>", "It is (1,2),(3,4)", False, "no_answer"),
    ("<think>It is (1,2),(3,4)</think><answer>see above</answer>", "It is (1,2),(3,4)", False, "no_box"),
    ("(1,2),(3,4)", None, False, "no_answer"),
    ("<think>a</think>(1,2),(3,4)", "a", False, "no_answer"),
    ("<think>a</think>(1,2),(3,4)</answer>", "a", False, "no_answer"),
    # the prompt's words repeated
    (
        "<think>In <answer> </answer> tags.</think><answer>(1,2),(3,4)</answer>",
        "In <answer> </answer> tags.",
        True,
        None,
    ),
    ("<think>In <answer> tags. b</think><answer>(1,2),(3,4)</answer>", "In <answer> tags. b", True, None),
    (
        "<think>Use <think> </think> and <answer> </answer> tags. b</think><answer>(1,2),(3,4)</answer>",
        "Use <think> </think> and <answer> </answer> tags. b",
        True,
        None,
    ),
    (
        "<think>As <answer>(x1,y1),(x2,y2)</answer>.</think><answer>(1,2),(3,4)</answer>",
        "As <answer>(x1,y1),(x2,y2)</answer>.",
        True,
        None,
    ),
    (
        "<think>Maybe <answer>(9,9),(99,99)</answer>?</think><answer>(1,2),(3,4)</answer>",
        "Maybe <answer>(9,9),(99,99)</answer>?",
        True,
        None,
    ),
    ("<think>So <answer>(1,2),(3,4)</answer></think>", "So <answer>(1,2),(3,4)</answer>", True, None),
    # opened again instead of closed
    ("<think>a</think><answer>(1,2),(3,4)<answer>", "a", True, None),
    ("<answer></answer><answer>(1,2),(3,4)</answer>", None, True, None),
    # several
    ("<answer>(1,2),(3,4)</answer><answer>(5,6),(7,8)</answer>", None, True, "several_answers"),
    (
        "<think>a</think><answer>(1,2),(3,4)</answer><think>b</think><answer>(5,6),(7,8)</answer>",
        "a",
        True,
        "several_answers",
    ),
    ("<answer>none</answer><answer>(1,2),(3,4)</answer>", None, False, "no_box"),
    # nothing
    ("", None, False, "empty"),
    (" \n\t ", None, False, "empty"),
    ("<|im_end|>", None, False, "empty"),
    ("<think>a</think><answer></answer>", "a", False, "no_box"),
    ("<think>Use <answer> tags</think> done", "Use <answer> tags", False, "no_answer"),
    # broken off
    ("<think>a", "a", False, "truncated"),
    ("<think>a (1,2),(3,4)", "a (1,2),(3,4)", False, "truncated"),
    ("<think>a</think><answer>", "a", False, "truncated"),
    ("<think>a</think><ans", "a", False, "truncated"),
    ("<think>a</think><", "a", False, "truncated"),
    ("<think>a</think><answer>(1,2),(3", "a", False, "truncated"),
    ("<think>a</think><answer>(1,2),(3,4", "a", False, "truncated"),
    ("<think>a</think><answer>1, 2, 3, 4", "a", False, "truncated"),
    ("<think>a</think><answer>(1,2),(3,4)", "a", True, "truncated"),
    ("<think>a</think><answer>(1,2),(3,4)</ans", "a", True, "truncated"),
    ("<think>a</think><answer>(1,2),(3,4),(5,6),(7", "a", True, "truncated"),
]


@pytest.mark.parametrize(("text", "thought", "has_box", "fault"), ANATOMY)
def test_thought_answer_and_fault(text, thought, has_box, fault):
    response = reading_of(text)
    assert (response.thought, response.fault) == (thought, fault)
    assert response.box == ((0.001, 0.002, 0.003, 0.004) if has_box else None)
    assert response.text == text


DIRECT = [
    ("The dog. <|box_start|>(1,2),(3,4)<|box_end|><|im_end|>", True, None),
    ("<answer>(1,2),(3,4)</answer> rather than (5,6),(7,8)", True, None),
    ("<think>(9,9),(99,99)</think>(1,2),(3,4)", True, None),
    ("(9,9),(99,99)</think>(1,2),(3,4)", True, None),
    ("<think>(9,9),(99,99)", False, "truncated"),
    ("<|box_start|>(1,2),(3", False, "truncated"),
    ("<|box_start|>(1,2),", False, "truncated"),
    ("[1, 2, 3", False, "truncated"),
    ("(1,2)", False, "no_box"),
    ("I cannot find it.", False, "no_box"),
    ("", False, "empty"),
]


@pytest.mark.parametrize(("text", "has_box", "fault"), DIRECT)
@pytest.mark.parametrize("style", ["direct", "simple"])
def test_styles_without_thought_read_what_stands_outside_it(style, text, has_box, fault):
    response = reading_of(text, style)
    assert (response.box, response.fault) == ((0.001, 0.002, 0.003, 0.004) if has_box else None, fault)


GEOMETRY = [
    ("(300,400),(100,200)", BOX, "inverted_box"),
    ("(300,200),(100,400)", BOX, "inverted_box"),
    ("(100,200),(100,400)", (), "degenerate_box"),
    ("(0,0),(0,0)", (), "degenerate_box"),
    ("(900,900),(1200,1001)", ((0.9, 0.9, 1.0, 1.0),), "out_of_range"),
    ("(-50,0),(500,500)", ((0.0, 0.0, 0.5, 0.5),), "out_of_range"),
    ("(1200,1200),(1300,1300)", (), "degenerate_box"),
    ("(0,0),(1000,1000)", ((0.0, 0.0, 1.0, 1.0),), None),
    ("(5,5),(5,5) (100,200),(300,400)", BOX, "several_boxes"),
    ("[0, 0.2, 1, 1.04]", ((0.0, 0.2, 1.0, 1.0),), "out_of_range"),
    ("[0.5, 0.5, 1.06, 1.5]", ((0.5, 0.5, 1.0, 1.0),), "out_of_range"),
    ("[0.5, 0.5, 1.06, 1.51]", ((0.0005, 0.0005, 0.00106, 0.00151),), None),  # beyond 1.5: not unit floats
    ("[0, 0, 1, 1]", ((0.0, 0.0, 0.001, 0.001),), None),  # no decimal point: integers 0-1000
]


@pytest.mark.parametrize(("written", "boxes", "fault"), GEOMETRY)
def test_boxes_are_mended_and_the_mending_is_named(written, boxes, fault):
    response = reading_of(f"<answer>{written}</answer>")
    assert response.fault == fault
    assert boxes_of(response) == boxes


def test_pixels_are_those_of_the_stated_size():
    text = '```json\n[{"bbox_2d": [64, 48, 320, 480], "label": "dog"}]\n```'
    assert boxes_of(reading_of(text, "direct", "pixel", (640, 480))) == ((0.1, 0.1, 0.5, 1.0),)
    assert reading_of(text, "direct", "pixel", (320, 480)).fault is None
    assert reading_of(text, "direct", "pixel", (300, 480)).fault == "out_of_range"
    with pytest.raises(ValueError, match="size of every image"):
        reading_of(text, "direct", "pixel")
    with pytest.raises(ValueError, match="permille, pixel"):
        reading_of(text, "direct", "pixels", (640, 480))
    with pytest.raises(ValueError, match="think, direct, simple"):
        reading_of(text, "cot")


FORM = [
    ("<think>a</think><answer>(1,2),(3,4)</answer>", "think", True),
    ("<think>a\nb</think>\n<answer>(1, 2), (3, 4)</answer>\n<|im_end|>", "think", True),
    ("<think>a</think><answer>(3,4),(1,2)</answer>", "think", True),  # the form is right, the box is not
    ("Sure! <think>a</think><answer>(1,2),(3,4)</answer>", "think", False),
    ("<think>a</think><answer>(1,2),(3,4)</answer> Done.", "think", False),
    ("<think>a</think> so <answer>(1,2),(3,4)</answer>", "think", False),
    ("<think>a</think><answer>[1,2,3,4]</answer>", "think", False),
    ("<think>a</think><answer>(0.1,0.2),(0.3,0.4)</answer>", "think", False),
    ("<think>a</think><answer> (1,2),(3,4)</answer>", "think", False),
    ("<answer>(1,2),(3,4)</answer>", "think", False),
    ("<think>a</think><think>b</think><answer>(1,2),(3,4)</answer>", "think", False),
    ("<think>a</think><answer>(1,2),(3,4)</answer><answer>(1,2),(3,4)</answer>", "think", False),
    ("<|box_start|>(1,2),(3,4)<|box_end|>", "direct", True),
    ("(1,2),(3,4)<|im_end|>", "direct", True),
    ("(1,2),(3,4)", "simple", True),
    ("<|box_start|>(1,2),(3,4)", "direct", False),
    ("It is (1,2),(3,4)", "simple", False),
    ("<answer>(1,2),(3,4)</answer>", "simple", False),
]


@pytest.mark.parametrize(("text", "style", "formatted"), FORM)
def test_the_form_is_judged_apart_from_the_box(text, style, formatted):
    assert reading_of(text, style).formatted is formatted


# --- any text whatever ---


def assert_sound(response, style):
    """What every caller may rely on, for any text."""
    assert response.fault is None or response.fault in FAULTS
    assert response.box == (response.boxes[0].box if response.boxes else None)
    if response.fault is None:
        assert len(response.boxes) == 1
    if response.boxes:
        assert response.fault is None or response.fault in FAULTS_WITH_BOX
    elif response.fault not in ("truncated", "unknown_image", "degenerate_box"):
        assert response.fault in FAULTS.keys() - FAULTS_WITH_BOX
    for x1, y1, x2, y2 in boxes_of(response):
        assert 0.0 <= x1 < x2 <= 1.0
        assert 0.0 <= y1 < y2 <= 1.0
    if style == "think" and response.boxes:
        assert re.search(r"<\s*answer\s*>", response.text, re.IGNORECASE)


# Letters of answers, whole words of them, and whatever else there is.
pieces = st.lists(
    st.sampled_from(list("0123456789.,;:()[]{}<>|/=%-_\"'\\ \nxywh第图一二中的"))
    | st.text(max_size=3)
    | st.sampled_from(
        [
            '"bbox_2d": ',
            '"box_2d":',
            '"label": "',
            '"image": ',
            "top-left corner",
            "左上角",
            "x from",
            "width",
            "<loc_",
            "Image 2",
        ]
    )
)


@given(
    st.text() | pieces.map("".join),
    st.sampled_from(STYLES),
    st.integers(1, 4),
    st.sampled_from(["permille", "pixel"]),
)
def test_any_text_is_read(text, style, n_images, frame):
    wrapped = f"<answer>{text}</answer>" if style == "think" else text
    response = read(wrapped, Asked(n_images, text, style, frame), [(64, 48)] * n_images)
    assert_sound(response, style)
    assert all(0 <= placed.image_index < n_images for placed in response.boxes)
    read_quads(text)


@given(
    st.lists(
        st.sampled_from(
            [
                "(",
                ")",
                "[",
                "]",
                "{",
                "}",
                ",",
                " ",
                ":",
                "dog",
                "at",
                "the",
                "corner",
                "左上角",
                "右下角",
                "x",
                "to",
                '"bbox_2d"',
                '"',
                "%",
            ]
        )
    ),
    st.lists(st.integers(0, 999), max_size=3),
    st.randoms(),
)
def test_three_numbers_are_never_a_box(words, numbers, rng):
    parts = [*words, *(f" {number} " for number in numbers)]
    rng.shuffle(parts)
    assert reading_of(f"<answer>{' '.join(parts)}</answer>").boxes == ()


@given(
    st.lists(
        st.tuples(st.sampled_from(["cat", "dog", "cup"]), st.integers(0, 999), st.integers(0, 999)),
        max_size=5,
    ),
    st.sampled_from(
        [
            "the {} at ({},{})",
            "{}: ({}, {})",
            "A {} in the top-left corner at ({}, {})",
            "{} [{}, {}]",
            "{}在({},{})",
        ]
    ),
)
def test_points_of_things_are_never_a_box(things, pattern):
    assert (
        reading_of("<answer>" + ", ".join(pattern.format(*thing) for thing in things) + "</answer>").boxes
        == ()
    )


FRAGMENTS = [
    *("<think>", "</think>", "<answer>", "</answer>", "<ans", "</", "<", ">", "< think >", "</ANSWER >"),
    *("<|box_start|>", "<|box_end|>", "<|im_end|>", "<|endoftext|>", "<|vision_start|>", "<box>", "</box>"),
    *("(1,2),(3,4)", "(100,200),(300,400)", "(300,200),(100,400)", "(0,0),(0,0)", "(-1,5),(2000,9)"),
    *(
        "[1,2,3,4]",
        "[0.1, 0.2, 0.3, 0.4]",
        "[[1,2],[3,4]]",
        '{"bbox_2d": [5,6,70,80], "label": "x"}',
        "```json\n",
    ),
    *(
        "x1: 1, y1: 2, x2: 3, y2: 4",
        "1 2 3 4",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ",",
        "(12",
        "34)",
        ".",
        "-",
        "+",
    ),
    *(
        '{"image": 3, "bbox": [1, 2, 3, 4]}',
        "[[1,2],[3,4],[5,6]]",
        "[10%, 2, 30%, 4]",
        "左上角",
        "x from",
        "<loc_1>",
    ),
    *("0.5", "1.05", "1e9", "9" * 30, "٣", "²", "Ⅷ", "（", "，", "\u2028", "\x00", "\ud83d", "🐕", "e\u0301"),
    *(" ", "\n", "\t", "the second image", "Image-2", "so", "It is in the 3th image. ", "x1,y1", "to", "and"),
]


def drawn(rng):
    parts = [rng.choice(FRAGMENTS) for _ in range(rng.randrange(1, 14))]
    if rng.random() < 0.3:  # a whole response, then damaged
        parts = ["<think>", *parts[:5], "</think><answer>", *parts[5:8], "(1,2),(3,4)", "</answer>"]
        del parts[rng.randrange(len(parts))]
    text = "".join(parts)
    if rng.random() < 0.5:  # cut anywhere, as by a token limit
        text = text[: rng.randrange(len(text) + 1)]
    if rng.random() < 0.2 and text:  # one character gone astray
        at = rng.randrange(len(text))
        text = text[:at] + chr(rng.randrange(0x110000)) + text[at + 1 :]
    return text


@pytest.mark.parametrize("count", [8_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_generated_texts_of_every_kind(count):
    rng = random.Random(20250521)
    seen = set()
    for n in range(count):
        text, style = drawn(rng), STYLES[n % 3]
        response = read(text, Asked(1 + n % 2, "", style))
        assert_sound(response, style)
        seen.add(response.fault)
    assert seen == {None, *FAULTS}  # the fragments reach everything there is to reach


HOSTILE = {
    "digits": "1",
    "opening brackets": "(",
    "nested lists": "[[",
    "open points": "(1,",
    "points": "(1,2)",
    "boxes": "(1,2),(3,4)",
    "half boxes": "(1,2),(",
    "quads of three": "[1,2,3",
    "numbers": "1 ",
    "dotted": "1.",
    "decimals": ".1",
    "blanks": " ",
    "blanks after a bracket": "(" + " " * 50,
    "commas": ",",
    "separators": "(1 ,",
    "between": "(1,2) to and the ",
    "less than": "<",
    "spaced tags": "<  think  ",
    "opened thoughts": "<think>",
    "closed thoughts": "</think>",
    "thoughts": "<think></think>",
    "opened answers": "<answer>",
    "closed answers": "</answer>",
    "answers": "<answer>(1,2),(3,4)</answer>",
    "empty answers": "<answer></answer>",
    "quoted answers": "<answer>x1,y1",
    "ends of turn": "<|im_end|>",
    "ends of turn, spaced": "<|endoftext|> \n",
    "names": "x1: 1, ",
    "quotes": '"x1":',
    "exponents": "1e1",
    "signs": "+-",
    "full width": "（１，",
    "keys": '"bbox_2d":[',
    "nested keys": '"bbox":[[1,2,3,4],',
    "objects": '{"image": 1, "bbox": {"x1":',
    "strings": '"label": "',
    "strings of two kinds": """"label": 'x""",
    "escapes": '"label": "a\\"',
    "corners in words": "the top-left corner of the ",
    "ranges": "x from 1 to ",
    "orders": "[x,y,w,h] [1,2,3,4] ",
    "sizes": "w: 1, h: 2; [1,2,3,4] ",
    "images and boxes": "Image 1: [1,2,3,4] ",
    "locations": "<loc_1>",
    "Chinese": "第二张图左上角(1,2)",
}


def seconds(text, style):
    # Other tests have filled the heap: going through it again and again would be measured as the parser's time.
    gc.disable()
    try:
        start = time.process_time()
        assert_sound(reading_of(text, style), style)
        return time.process_time() - start
    finally:
        gc.enable()


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("frame", ["{}", "<think>{}</think><answer>{}</answer>", "<answer>{}"])
@pytest.mark.parametrize("length", [12_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_any_text_takes_linear_time(name, frame, length):
    unit, holes = HOSTILE[name], frame.count("{}")
    style = "direct" if frame == "{}" else "think"

    def text(size):
        return frame.replace("{}", unit * (size // len(unit) // holes))

    # Quadratic time would make four times the text take sixteen times as long. A busy machine may spoil a
    # measurement, so a bad one is taken again.
    small, large = text(length // 4), text(length)
    assert any(seconds(large, style) < 8 * seconds(small, style) + 0.02 for _ in range(3))


def test_mig_benchs_gold_sentences_are_read():
    path = Path(__file__).parents[2].parent / "shared" / "data" / "mig_bench_original.json"
    if not path.exists():
        pytest.skip("the MIG-Bench annotations are not beside the repository")
    records = [r for r in json.loads(path.read_text("utf-8")) if r["task"] == "group_grounding"]
    assert len(records) == 499
    for record in (
        records
    ):  # the gold sentence: "It is in the first image. <|box_start|>(241,378),(447,621)<|box_end|>. "
        response = reading_of(record["additional_info"], "direct")
        assert response.fault in (None, "out_of_range")
        assert response.box == pytest.approx(record["answer"], abs=1e-9)


# --- the token limit ---

CUT = [  # text, style, the fault where the model ended by itself, and where the limit cut it off
    ("<think>a</think><answer>(100,200),(300,400)</answer>", "think", None, None),
    ("<think>a</think><answer>(100,200),(300,400)</answer> and", "think", None, None),
    ("<answer>(500,500),(500,500)</answer> and", "think", "degenerate_box", "truncated"),
    ("<think>I look at the first", "think", "truncated", "truncated"),
    ("I look at the first", "think", "no_answer", "truncated"),
    ("<think>a</think><answer>the dog</answer>", "think", "no_box", "truncated"),
    ("<think>a</think><answer>(100,200),(300,400)", "think", "truncated", "truncated"),
    (
        "<answer>(1,2),(3,4)</answer><answer>(5,6),(7,8)</answer>",
        "think",
        "several_answers",
        "several_answers",
    ),
    ("<answer>(300,400),(100,200)</answer>", "think", "inverted_box", "inverted_box"),
    ("", "think", "empty", "truncated"),
    ("\n", "direct", "empty", "truncated"),
    ("(100,200),(300,400)", "direct", None, None),
    ("(100,200),(30", "direct", "truncated", "truncated"),
]


@pytest.mark.parametrize(("text", "style", "ended", "cut"), CUT)
def test_the_limit_is_named_where_it_is_why_there_is_no_box(text, style, ended, cut):
    for truncated, fault in ((False, ended), (True, cut)):
        reading = read(text, Asked(style=style), truncated=truncated)
        assert (reading.fault, reading.truncated) == (fault, truncated)
        assert (reading.fault == "truncated" and not reading.boxes) or reading.fault == ended
