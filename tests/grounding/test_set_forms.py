"""Answers that are sets, as stock models write them: every box is read, on the image that the answer names."""

from __future__ import annotations

import json

import pytest

from univg.grounding.reading import Asked, read

A, B, C = (1, 2, 30, 40), (5, 6, 70, 80), (9, 9, 20, 20)


def keyed(key: str, *numbers: object) -> str:
    return json.dumps([{"bbox_2d": box, key: one} for box, one in zip((A, B), numbers, strict=False)])


FORMS = {
    "Qwen's list with labels": (
        json.dumps([{"bbox_2d": A, "label": "cup"}, {"bbox_2d": B, "label": "cup"}]),
        [(1, A), (1, B)],  # of two images that nothing names, the last
    ),
    "Qwen's list, fenced, with images": (f"```json\n{keyed('image', 1, 2)}\n```", [(0, A), (1, B)]),
    "image from 0": (keyed("image", 0, 1), [(0, A), (1, B)]),
    "image_index": (keyed("image_index", 0, 1), [(0, A), (1, B)]),
    "img_idx": (keyed("img_idx", 1, 0), [(1, A), (0, B)]),
    "frame": (keyed("frame", 1, 2), [(0, A), (1, B)]),
    "frame_index": (keyed("frame_index", 0, 1), [(0, A), (1, B)]),
    "image_id from 1": (keyed("image_id", 1, 2), [(0, A), (1, B)]),
    "image named in words": (keyed("image", "Image-2", "first"), [(1, A), (0, B)]),
    "lists by image": (json.dumps({"image_1": [A], "image_2": [B, C]}), [(0, A), (1, B), (1, C)]),
    "one image has none": (json.dumps({"Image-1": [], "Image-2": [A, B]}), [(1, A), (1, B)]),
    "boxes of an image": (json.dumps({"image": 2, "boxes": [A, B]}), [(1, A), (1, B)]),
    "a label that is not there": (
        json.dumps([{"bbox_2d": A, "label": "cup"}, {"bbox_2d": None, "label": "mug"}]),
        [(1, A)],
    ),
    "InternVL": ("<box>[[1, 2, 30, 40], [5, 6, 70, 80]]</box>", [(1, A), (1, B)]),
    "InternVL on each image": (
        "Image-1: <ref>cup</ref><box>[[1, 2, 30, 40]]</box>\nImage-2: <ref>cup</ref><box>[[5, 6, 70, 80]]</box>",
        [(0, A), (1, B)],
    ),
    "Qwen2-VL": (
        "Picture 1: <|box_start|>(1,2),(30,40)<|box_end|>\nPicture 2: <|box_start|>(5,6),(70,80)<|box_end|>",
        [(0, A), (1, B)],
    ),
    "Gemini": ('[{"label": "cup", "box_2d": [2, 1, 40, 30]}, {"box_2d": [6, 5, 80, 70]}]', [(1, A), (1, B)]),
    "words before": (
        "In the first image: (1,2),(30,40) and (5,6),(70,80). In the second image: (9,9),(20,20).",
        [(0, A), (0, B), (1, C)],
    ),
    "words behind": ("(1,2),(30,40) in the first image and (5,6),(70,80) in the second.", [(0, A), (1, B)]),
    "a box, and none": ("Image-1: (1,2),(30,40); none", [(0, A)]),
    "none of one image": ("Image-1: none; Image-2: (1,2),(30,40)", [(1, A)]),
    "none of the other": ("In the first image: (1,2),(30,40). In the second image: none.", [(0, A)]),
    "Chinese": ("第一张图：(1,2),(30,40)；第二张图：(5,6),(70,80)", [(0, A), (1, B)]),
    "Chinese, numbered": ("图1: [1,2,30,40]\n图2: [5,6,70,80]", [(0, A), (1, B)]),
    "numbered lines": ("1. [1, 2, 30, 40]\n2. [5, 6, 70, 80]", [(1, A), (1, B)]),
    "a box twice": ("[[1, 2, 30, 40], [1, 2, 30, 40]]", [(1, A), (1, A)]),
    "several of one image": (
        "Image-1: (1,2),(30,40), (5,6),(70,80); Image-2: (9,9),(20,20)",
        [(0, A), (0, B), (1, C)],
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_box_is_read_on_its_image(name):
    text, expected = FORMS[name]
    reading = read(text, Asked(2, "Every cup.", "set_direct"))
    assert reading.fault is None and not reading.says_none
    assert [(one.image_index, tuple(round(1000 * v) for v in one.box)) for one in reading.boxes] == expected


MANY = [(20 * i, 10, 20 * i + 15, 90) for i in range(40)]
LONG = {
    "list": json.dumps([{"bbox_2d": box, "image": 1 + i % 2} for i, box in enumerate(MANY)]),
    "lines": "\n".join(f"Image {1 + i % 2}: {list(box)}" for i, box in enumerate(MANY)),
    "ours": "; ".join(f"Image-{1 + i % 2}: ({a},{b}),({c},{d})" for i, (a, b, c, d) in enumerate(MANY)),
}


@pytest.mark.parametrize("name", LONG)
def test_forty_boxes(name):
    reading = read(LONG[name], Asked(2, "Every cup.", "set_direct"))
    assert [one.image_index for one in reading.boxes] == [i % 2 for i in range(40)]
    assert [tuple(round(1000 * v) for v in one.box) for one in reading.boxes] == MANY


@pytest.mark.parametrize(
    "text",
    ['[{"bbox_2d": [], "label": "cup"}]', "Image-1: none; Image-2: none", "<box></box>", '{"found": false}'],
)
def test_nothing_of_the_kind(text):
    reading = read(text, Asked(2, "Every cup.", "set_direct"))
    assert reading.says_none and reading.fault is None
