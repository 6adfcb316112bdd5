"""Any box, in any notation that is read and any of the usual wrappings, is read back to the last digit."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from univg.grounding.coordinates import read_quads, to_unit
from univg.grounding.reading import Asked, read

POSITIONS = [  # a b c d stand for x1 y1 x2 y2, w h for width and height
    "(a,b),(c,d)",
    "(a, b), (c, d)",
    "(a,b)(c,d)",
    "((a,b),(c,d))",
    "[a,b,c,d]",
    "[a, b, c, d]",
    "[[a, b, c, d]]",
    "[[[a, b, c, d]]]",
    "[[a,b],[c,d]]",
    "[(a,b),(c,d)]",
    "(a, b, c, d)",
    "{a, b, c, d}",
    "[a b c d]",
    "[a; b; c; d]",
    "[a,b;c,d]",
    '["a", "b", "c", "d"]',
    "['a', 'b', 'c', 'd']",
    "a, b, c, d",
    "a b c d",
    "a_b_c_d",
    "(a,b) to (c,d)",
    "from (a,b) to (c,d)",
    "(a, b) - (c, d)",
    "(a, b) → (c, d)",
    "a,b to c,d",
    "P1(a,b) P2(c,d)",
    "corner 1: (a, b), corner 2: (c, d)",
    r"\left(a, b\right), \left(c, d\right)",
    "[[a,b],[c,b],[c,d],[a,d]]",
    "[(a,d),(c,d),(c,b),(a,b)]",
    "(a,b),(c,b),(c,d),(a,d)",
    "[a,b,c,b,c,d,a,d]",
]
NAMES = [
    '{"bbox_2d": [a, b, c, d]}',
    '{"bbox_2d": [a, b, c, d], "label": "dog 2"}',
    '{"label": "box [1,2,3,4] (5,6),(7,8)", "bbox_2d": [a, b, c, d], "score": 0.98}',
    '[{"bbox_2d": [a, b, c, d], "label": "dog", "id": 17}]',
    "{'bbox': ['a', 'b', 'c', 'd'], 'class_id': 3}",
    '{"bbox": [[a, b], [c, d]]}',
    '{"bounding_box": "a,b,c,d"}',
    "bbox=[a,b,c,d]",
    "bbox:\n- a\n- b\n- c\n- d\n",
    "{&quot;bbox_2d&quot;: [a, b, c, d]}",
    '{"x1":a,"y1":b,"x2":c,"y2":b,"x3":c,"y3":d,"x4":a,"y4":d}',
    "min x: a, min y: b, max x: c, max y: d",
    r"$x_{\min}=a$, $y_{\min}=b$, $x_{\max}=c$, $y_{\max}=d$",
    '{"points": [[1, 2], [3, 4]], "bbox_2d": [a, b, c, d]}',
    '{"bbox_2d": [a, b, c, d], "point_2d": [7, 8]}',
    '{"crop": [0, 0, 9, 9], "bbox_2d": [a, b, c, d], "keypoints": [5, 6, 7, 8]}',
    '{"box_2d": [b, a, d, c]}',
    '[{"label": "dog", "box_2d": [b, a, d, c]}]',
    '{"quad": [[a,b],[c,b],[c,d],[a,d]]}',
    '{"poly": [a,b,c,b,c,d,a,d]}',
    '{"polygon": [[a,b],[c,b],[c,d],[a,d],[a,b]]}',
    "<quad>(a,b),(c,b),(c,d),(a,d)</quad>",
    '{"x1": a, "y1": b, "x2": c, "y2": d}',
    '{"y2": "d", "x2": "c", "y1": "b", "x1": "a"}',
    '{"xmin": a, "xmax": c, "ymin": b, "ymax": d}',
    '{"ymax": d, "xmax": c, "ymin": b, "xmin": a, "label": 5}',
    '{"x0": a, "y0": b, "x1": c, "y1": d}',
    '{"xMin": a, "yMin": b, "xMax": c, "yMax": d}',
    '{"left": a, "top": b, "right": c, "bottom": d}',
    '{"left": a, "top": b, "width": w, "height": h}',
    '{"x": a, "y": b, "width": w, "height": h}',
    '{"h": h, "w": w, "y": b, "x": a}',
    '{"bbox": {"x": a, "y": b, "width": w, "height": h}}',
    '{"top_left": [a, b], "bottom_right": [c, d]}',
    '{"bottomRight": {"x": c, "y": d}, "topLeft": {"x": a, "y": b}}',
    '{"top_left_x": a, "top_left_y": b, "bottom_right_x": c, "bottom_right_y": d}',
    '[{"x": a, "y": b}, {"x": c, "y": d}]',
    '{"bbox": [a, b, w, h], "format": "xywh"}',
    '{"bbox_xywh": [a, b, w, h]}',
    "[x, y, w, h] = [a, b, w, h]",
    "[ymin, xmin, ymax, xmax]: [b, a, d, c]",
    "(x1,y1) = (a,b), (x2,y2) = (c,d)",
    "x1=a, y1=b, x2=c, y2=d",
    "x1: a\ny1: b\nx2: c\ny2: d",
    "xmin a, ymin b, xmax c, ymax d",
    "Rect(left=a, top=b, right=c, bottom=d)",
    "| x1 | y1 | x2 | y2 |\n|---|---|---|---|\n| a | b | c | d |",
]
MARKS = [
    "<box>a b c d</box>",
    "<box>(a,b),(c,d)</box>",
    "<box>[[a, b, c, d]]</box>",
    "<bbox>a, b, c, d</bbox>",
    "<poly>a b c b c d a d</poly>",
    "<quad>a,b c,b c,d a,d</quad>",
    "<|box_start|>(a,b),(c,d)<|box_end|>",
    "<|object_ref_start|>2 dogs (5,6),(7,8)<|object_ref_end|><|box_start|>(a,b),(c,d)<|box_end|>",
    "<|ref|>dog [1,2,3,4]<|/ref|><|det|>[[a, b, c, d]]<|/det|>",
    "<|begin_of_box|>[[a,b,c,d]]<|end_of_box|>",
    "<loc_a><loc_b><loc_c><loc_d>",
    "<box><xmin>a</xmin><ymin>b</ymin><xmax>c</xmax><ymax>d</ymax></box>",
    "<object><name>dog 3</name><bndbox><ymin>b</ymin><xmin>a</xmin><ymax>d</ymax><xmax>c</xmax></bndbox></object>",
    '<box xmin="a" ymin="b" xmax="c" ymax="d" label="dog 3"/>',
]
SENTENCES = [
    "the top-left corner is at (a, b) and the bottom-right corner at (c, d)",
    "The top-left corner of the red cup is at (a, b). The bottom-right corner of the red cup is at (c, d).",
    "Upper left corner: a, b. Lower right corner: c, d.",
    "bottom-right (c, d), top-left (a, b)",
    "top-right corner (c, b), bottom-left corner (a, d)",
    "top-left corner at x=a, y=b and bottom-right corner at x=c, y=d",
    "from x=a, y=b to x=c, y=d",
    "x from a to c and y from b to d",
    "x: a-c, y: b-d",
    "x ranges from a to c, y ranges from b to d",
    "x ∈ [a, c], y ∈ [b, d]",
    "a <= x <= c, b <= y <= d",
    "horizontally from a to c and vertically from b to d",
    "left edge a, top edge b, right edge c, bottom edge d",
    "top-left corner (a, b), width w and height h",
    "左上角(a,b)，右下角(c,d)",
    "左上角坐标为（a，b），右下角坐标为（c，d）。",
    "左上角是a,b，右下角是c,d",
    "左上角：(a, b)；右下角：(c, d)",
    "最小x为a，最小y为b，最大x为c，最大y为d",
    "left edge at x=a, top edge at y=b, right edge at x=c, bottom edge at y=d",
    "横坐标从a到c，纵坐标从b到d",
    "x范围a到c，y范围b到d",
    "左边界a，上边界b，右边界c，下边界d",
    "左上角(a,b)，宽w，高h",
    "目标位于(a,b)到(c,d)之间",
    "坐标为[a，b，c，d]",
]
NOTATIONS = [*POSITIONS, *NAMES, *MARKS, *SENTENCES]

WRAPPINGS = [
    "{}",
    " {} ",
    "\n{}\n",
    "{}.",
    "```json\n{}\n```",
    "**{}**",
    "`{}`",
    "The box is: {}",
    "Sure! Here it is:\n{}",
    "The dog sits there. {}",
    "{} That is where it is.",
    "答案是：{}",
    "\\boxed{{{}}}",
    "There are 2 dogs.\n{}",
]
ENDS = ["", "<|im_end|>", "<|im_end|>\n<|endoftext|>", "\n"]
WIDE = {ord(char): chr(ord(char) - 0x21 + 0xFF01) for char in "0123456789()[],;:=%"}

edges = st.lists(st.integers(0, 998), min_size=4, max_size=4)
boxes = edges.map(lambda e: (min(e[0], e[2]), min(e[1], e[3]), max(e[0], e[2]) + 1, max(e[1], e[3]) + 1))


def fill(notation: str, box: tuple[int, int, int, int]) -> str:
    """The notation with the box's numbers in place of its letters, where they stand alone."""
    x1, y1, x2, y2 = box
    values = {"a": x1, "b": y1, "c": x2, "d": y2, "w": x2 - x1, "h": y2 - y1}
    text = list(notation)
    quiet = {"[x, y, w, h]": True}
    for place, char in enumerate(notation):
        around = notation[max(0, place - 1) : place] + notation[place + 1 : place + 2]
        alone = not any(letter.isascii() and letter.isalnum() for letter in around)
        key = notation[place - 1 : place + 2] == f'"{char}"' and notation[place + 2 : place + 3] == ":"
        template = any(notation.startswith(words) and place < len(words) for words in quiet)
        if char in values and alone and not key and not template:
            text[place] = str(values[char])
    return "".join(text)


def unit(box: tuple[int, int, int, int]) -> tuple[float, ...]:
    return tuple(value / 1000 for value in box)


def check(notation: str, box: tuple[int, int, int, int], wrapping: str, end: str, wide: bool) -> None:
    written = fill(notation, box)
    body = wrapping.format(written.translate(WIDE) if wide else written)
    reading = read(f"<think>(9,9),(99,99) in 3 images</think><answer>{body}</answer>{end}")
    assert (reading.box, reading.fault, len(reading.boxes)) == (unit(box), None, 1), body
    assert read(body + end, Asked(style="direct")).boxes == reading.boxes
    assert [to_unit(quad) for quad in read_quads(body)] == [unit(box)]


@pytest.mark.parametrize("notation", NOTATIONS)
def test_every_notation(notation: str) -> None:
    rng = random.Random(notation)
    for box in ((100, 200, 300, 400), (0, 0, 1, 1), (998, 0, 999, 999)):
        check(notation, box, rng.choice(WRAPPINGS), rng.choice(ENDS), rng.random() < 0.5)


@settings(max_examples=300)
@given(st.sampled_from(NOTATIONS), boxes, st.sampled_from(WRAPPINGS), st.sampled_from(ENDS), st.booleans())
def test_any_box_in_any_notation_and_wrapping(
    notation: str, box: tuple[int, int, int, int], wrapping: str, end: str, wide: bool
) -> None:
    check(notation, box, wrapping, end, wide)


@pytest.mark.slow
@pytest.mark.parametrize("notation", NOTATIONS)
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_every_notation_in_every_wrapping(notation: str, wrapping: str) -> None:
    rng = random.Random(notation + wrapping)
    for _ in range(20):
        x1, y1 = rng.randrange(999), rng.randrange(999)
        box = (x1, y1, rng.randrange(x1, 999) + 1, rng.randrange(y1, 999) + 1)
        check(notation, box, wrapping, rng.choice(ENDS), rng.random() < 0.3)
