"""Stock models: how they are asked, the form they answer in, and the shapes that their answers really come in."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from univg.grounding.boxes import SizeWH
from univg.grounding.coordinates import Frame
from univg.grounding.native import has_form
from univg.grounding.prompts import (
    NATIVE,
    SETS,
    PromptStyle,
    choose_style,
    render_answer,
    render_chat,
    render_prompt,
)
from univg.grounding.reading import Asked, Fault, read
from univg.grounding.samples import GroundingSample

FENCED = '```json\n[\n\t{"bbox_2d": [112, 84, 560, 420], "label": "grey kettle"}\n]\n```'
KETTLE, LID = (0.112, 0.084, 0.56, 0.42), (0.01, 0.02, 0.03, 0.04)
ANSWERS: dict[str, tuple[str, int, list[tuple[int, tuple[float, ...]]], Fault | None, Fault | None, bool]] = {
    # name: (text, images, boxes, fault where one was asked for, where every one was, whether it has the form)
    "fenced, tabs": (FENCED, 1, [(0, KETTLE)], None, None, True),
    "one line": ('[{"bbox_2d": [112, 84, 560, 420], "label": "grey kettle"}]', 1, [(0, KETTLE)], None, None, True),
    "an object, no list": ('{\n"bbox_2d": [112, 84, 560, 420]\n}', 1, [(0, KETTLE)], None, None, True),
    "sub-label, score": (
        '[{"bbox_2d": [112, 84, 560, 420], "label": "kettle", "sub_label": "2 handles, 40 cm", "score": 0.93}]',
        *(1, [(0, KETTLE)], None, None, True),
    ),
    "a point beside it": (
        '[{"point_2d": [300, 200], "bbox_2d": [112, 84, 560, 420], "label": "kettle"}]',
        *(1, [(0, KETTLE)], None, None, True),
    ),
    "words around": (f"The kettle is here:\n{FENCED}\nIt is grey.", 1, [(0, KETTLE)], None, None, False),
    "single quotes": ("[{'bbox_2d': [112, 84, 560, 420], 'label': 'kettle'}]", 1, [(0, KETTLE)], None, None, False),
    "wrong quotes in the label": (
        '[{"bbox_2d": [112, 84, 560, 420], "label": "the "old" kettle"}]',
        *(1, [(0, KETTLE)], None, None, False),
    ),
    "numbers in the label": (
        '[{"bbox_2d": [112, 84, 560, 420], "label": "kettle 2 of 3 at (5, 6)"}]',
        *(1, [(0, KETTLE)], None, None, True),
    ),
    "two": (
        '[\n\t{"bbox_2d": [112, 84, 560, 420], "label": "kettle"},\n\t{"bbox_2d": [10, 20, 30, 40], "label": "lid"}\n]',
        *(1, [(0, KETTLE), (0, LID)], "several_boxes", None, True),
    ),
    "two, each fenced": (
        '```json\n{"bbox_2d": [112, 84, 560, 420]}\n```\n```json\n{"bbox_2d": [10, 20, 30, 40]}\n```',
        *(1, [(0, KETTLE), (0, LID)], "several_boxes", None, False),
    ),
    "cut off in the second": (
        '```json\n[\n\t{"bbox_2d": [112, 84, 560, 420], "label": "kettle"},\n\t{"bbox_2d": [10, 20, 3',
        *(1, [(0, KETTLE)], "truncated", "truncated", False),
    ),
    "cut off in the only one": ('```json\n[\n\t{"bbox_2d": [112, 84, 5', 1, [], "truncated", "truncated", False),
    "image by number": (
        '[{"image": 2, "bbox_2d": [112, 84, 560, 420], "label": "kettle"}]',
        *(2, [(1, KETTLE)], None, None, True),
    ),
    "images, by number, behind": (
        '[{"bbox_2d": [112, 84, 560, 420], "image": 1}, {"bbox_2d": [10, 20, 30, 40], "image": 2}]',
        *(2, [(0, KETTLE), (1, LID)], "several_boxes", None, True),
    ),
    "image by index": (
        '[{"bbox_2d": [112, 84, 560, 420], "label": "kettle", "image_index": 1}]',
        *(2, [(1, KETTLE)], None, None, True),
    ),
    "thought first": (f"<think>A kettle, at the left.</think>\n\n{FENCED}", 1, [(0, KETTLE)], None, None, False),
    "a point alone": ('[{"point_2d": [300, 200], "label": "kettle"}]', 1, [], "no_box", "no_box", False),
    "three numbers": ('[{"bbox_2d": [112, 84, 560], "label": "kettle"}]', 1, [], "no_box", "no_box", False),
    "no area": ('[{"bbox_2d": [0, 0, 0, 0], "label": "kettle"}]', 1, [], "degenerate_box", "degenerate_box", True),
    "nine numbers of a 3d box": (
        '[{"bbox_3d": [0.31, 0.12, 5.4, 1.6, 1.4, 3.9, 0.0, 0.01, 0.0], "label": "kettle"}]',
        *(1, [], "no_box", "no_box", False),
    ),
    "one object for all": (
        '{"object_name": "kettle", "bbox": [112, 84, 560, 420], "object_name": "lid", "bbox": [10, 20, 30, 40]}',
        *(1, [], "ambiguous_box", "ambiguous_box", False),
    ),
    "edges by name": (
        '[{"bbox_2d": {"x1": 112, "y1": 84, "x2": 560, "y2": 420}, "label": "kettle"}]',
        *(1, [(0, KETTLE)], None, None, False),
    ),
    "text that was read": (
        '[{"bbox_2d": [112, 84, 560, 420], "text_content": "No. 12, 10:40, 1 2 3 4"}]',
        *(1, [(0, KETTLE)], None, None, True),
    ),
    "label first": ('[{"label": "3/4 full", "bbox_2d": [112, 84, 560, 420]}]', 1, [(0, KETTLE)], None, None, True),
    "a comma too many": ('[{"bbox_2d": [112, 84, 560, 420], "label": "kettle",}]', 1, [(0, KETTLE)], None, None, False),
    "the question's N kept": (
        '[{"image": N, "bbox_2d": [112, 84, 560, 420], "label": "kettle"}]',
        *(2, [(1, KETTLE)], None, None, False),
    ),
    "the image as a key": (
        '{"image 2": [{"bbox_2d": [112, 84, 560, 420]}]}',
        *(2, [(1, KETTLE)], None, None, False),
    ),
    "nothing, fenced": ("```json\n[]\n```", 1, [], "no_box", None, True),
    "nothing, in words": ("There is no kettle in the image.", 1, [], "no_box", None, False),
    "nothing, as null": ('[{"bbox_2d": null, "label": "none"}]', 1, [], "no_box", None, False),
}  # fmt: skip
MARKED: dict[str, tuple[str, int, list[tuple[int, tuple[float, ...]]], Fault | None, Fault | None, bool]] = {
    "name and box": (
        "<|object_ref_start|>kettle<|object_ref_end|><|box_start|>(112,84),(560,420)<|box_end|>",
        *(1, [(0, KETTLE)], None, None, True),
    ),
    "marks skipped": ("the grey kettle(112,84),(560,420)", 1, [(0, KETTLE)], None, None, True),
    "a number in the name": ("kettle 2(112,84),(560,420)", 1, [(0, KETTLE)], None, None, True),
    "two boxes of one name": (
        "<|object_ref_start|>kettles<|object_ref_end|><|box_start|>(112,84),(560,420)<|box_end|>"
        "<|box_start|>(10,20),(30,40)<|box_end|>",
        *(1, [(0, KETTLE), (0, LID)], "several_boxes", None, True),
    ),
    "lines of images": (
        "Image-2: <|object_ref_start|>lid<|object_ref_end|><|box_start|>(10,20),(30,40)<|box_end|>\n"
        "Image-1: <|object_ref_start|>kettle<|object_ref_end|><|box_start|>(112,84),(560,420)<|box_end|>",
        *(2, [(1, LID), (0, KETTLE)], "several_boxes", None, True),
    ),
    "in a sentence": ("The kettle(112,84),(560,420) is grey.", 1, [(0, KETTLE)], None, None, False),
    "nothing": ("none", 1, [], "no_box", None, True),
}


@pytest.mark.parametrize("name", [*ANSWERS, *MARKED])
def test_answers_as_stock_models_write_them(name: str) -> None:
    text, images, boxes, one, every, formed = (ANSWERS | MARKED)[name]
    styles: list[PromptStyle] = ["json", "set_json"] if name in ANSWERS else ["marks", "set_marks"]
    for style, fault in zip(styles, (one, every), strict=True):
        reading = read(text, Asked(images, "the grey kettle", style))
        assert [(placed.image_index, placed.box) for placed in reading.boxes] == boxes
        assert reading.fault == fault
        assert reading.formatted == (formed and (bool(reading.boxes) or fault != "no_box")), style
        assert reading.format_ok == (reading.formatted and fault is None)


def test_pixels_are_those_of_the_resized_image() -> None:
    sizes = [(560, 420), (1120, 840)]
    text = '[{"image": 2, "bbox_2d": [112, 84, 560, 420], "label": "kettle"}]'
    reading = read(text, Asked(2, "the kettle", "json", "pixel"), sizes)
    assert reading.boxes[0].box == pytest.approx((0.1, 0.1, 0.5, 0.5)) and reading.format_ok


def test_prompts() -> None:
    assert render_prompt(" the dog ", "json") == (
        "Locate the object that this describes or asks for: the dog\nReport its bbox coordinates in JSON format."
    )
    assert render_prompt("dogs", "set_json").endswith("in JSON format, or [] if there is none.")
    assert '"image": N' in render_chat(2, "the dog", "json")[0]["content"][-1]["text"]
    assert "Image-N" in render_prompt("the dog", "marks", 2) and "Image-N" not in render_prompt(
        "the dog", "marks"
    )
    for style in NATIVE:
        assert (
            read(render_prompt("the dog", style, 2), Asked(2, "the dog", style)).boxes == ()
        )  # an echo is no answer


def test_a_simple_reference_is_asked_as_the_model_is_used_to() -> None:
    simple = GroundingSample(["a"], "the dog", "referring", [(0, 0, 0.5, 1)], thinking=False)
    every = GroundingSample(["a"], "dogs", "find_all", [(0, 0, 0.5, 1)], complete=True)
    assert [choose_style(simple, style) for style in ("think", "json", "marks")] == [
        "simple",
        "json",
        "marks",
    ]
    assert [choose_style(every, style) for style in ("json", "marks")] == ["set_json", "set_marks"]


SIZES: list[SizeWH] = [(28, 28), (2800, 56), (644, 476), (1036, 1120)]
BOX = st.tuples(*[st.integers(0, 900)] * 2, *[st.integers(30, 100)] * 2).map(
    lambda box: (box[0] / 1000, box[1] / 1000, (box[0] + box[2]) / 1000, (box[1] + box[3]) / 1000)
)


@given(st.data(), st.sampled_from(["json", "marks"]), st.sampled_from(["permille", "pixel"]), st.booleans())
def test_what_is_written_is_read_to_half_a_unit(
    data: st.DataObject, style: PromptStyle, frame: Frame, sets: bool
) -> None:
    images = data.draw(st.integers(1, 3))
    sizes = data.draw(st.lists(st.sampled_from(SIZES[1:]), min_size=images, max_size=images))
    boxes = data.draw(st.lists(BOX, min_size=0 if sets else 1, max_size=4 if sets else 1))
    at = sorted(data.draw(st.lists(st.integers(0, images - 1), min_size=len(boxes), max_size=len(boxes))))
    name = data.draw(st.sampled_from([None, "cup", "cup 3", "[cup]", 'the "cup"', "图2", "{}", "第二"]))
    extra = {} if name is None or (style == "marks" and name != "cup") else {"category": name}
    sample = GroundingSample(
        ["a"] * images, "Where?", "t", boxes, box_images=at, complete=sets, extra=extra
    )  # fmt: skip
    text = render_answer(
        sample, choose_style(sample, style), at[0] if at else 0, sizes if frame == "pixel" else ()
    )
    reading = read(text, Asked.of(sample, style, frame), sizes)
    assert reading.format_ok and len(reading.boxes) <= len(boxes)
    for placed, (image, box) in zip(
        reading.boxes,
        sorted(dict.fromkeys(zip(at, boxes, strict=True)), key=lambda one: one[0]),
        strict=False,
    ):
        width, height = sizes[image] if frame == "pixel" else (1000, 1000)
        off = [abs(a - b) * side for a, b, side in zip(placed.box, box, (width, height) * 2, strict=True)]
        assert placed.image_index == image and max(off) <= 0.5 + 1e-6


@given(
    st.text(st.sampled_from('[]{}"(),:\n <>|0123 bbox_2dabel`json')),
    st.sampled_from(["json", "marks"]),
    st.booleans(),
)
def test_a_form_is_told_of_any_text(text: str, form: str, sets: bool) -> None:
    assert has_form(text, form, sets) in (True, False)  # type: ignore[arg-type]


@pytest.mark.parametrize("unit", ["[" * 10, "a(1,2),(3,4) ", "Image-1: ", "1" * 10])
@pytest.mark.parametrize("form", ["json", "marks"])
def test_forms_of_long_texts_are_quick(unit: str, form: Any) -> None:
    """In four times the text it takes four times as long, not sixteen times."""

    def measure(count: int) -> float:
        before = time.process_time()
        assert not has_form(unit * count, form, True)
        return time.process_time() - before

    few, many = (min(measure(count) for _ in range(3)) for count in (5_000, 20_000))
    assert many < 9 * few + 0.02


def test_styles_of_sets_have_their_one() -> None:
    from univg.grounding.prompts import ONE_BOX, style_of_sets

    assert set(ONE_BOX) == SETS and all(style_of_sets(one) == style for style, one in ONE_BOX.items())
