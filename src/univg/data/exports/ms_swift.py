"""Write JSON Lines for ms-swift (3 and later): `messages`, `images`, and `objects` with boxes in pixels.

`<bbox>` stands where a box is written, in the wording of whatever model is trained; `<ref-object>` where the name of
what is boxed stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from univg.data.exports.frameworks import (
    Row,
    check_thought,
    make_metadata,
    make_prompt,
    make_rows,
    write_lines,
)
from univg.data.exports.pictures import Pictures
from univg.data.exports.settings import Export
from univg.data.exports.targets import clip_box, find_category, place_boxes
from univg.data.formats.faults import Unusable, refuse
from univg.data.formats.scale import lesson_fault
from univg.data.readers.kept import METADATA
from univg.grounding.boxes import Box, unit_to_px
from univg.grounding.prompts import NONE, THINKING
from univg.grounding.samples import GroundingSample

__all__ = ["write_ms_swift"]

_REF_MARKS = re.compile(r"<\|object_ref_start\|>(.*?)<\|object_ref_end\|>", re.DOTALL)
_TAGS = re.compile(r"<(?:image|video|audio|bbox|ref-object|cot-process|start-image)>")
"""What ms-swift replaces wherever it stands."""


def write_ms_swift(path: Path, samples: Iterator[GroundingSample], how: Export) -> int:
    """Write a file of rows; return how many."""
    count = write_lines(path, make_rows(samples, how, partial(_make_row, Pictures(how))))
    if count and how.images is not None:
        how.note(f"paths are relative to ROOT_IMAGE_DIR={how.images.folder.resolve()}")
    return count


def _make_row(pictures: Pictures, sample: GroundingSample, how: Export) -> Row:
    """Make a row; boxes are in pixels of the image `image_id`, which are floats, so that a column has one type."""
    if found := _TAGS.search(sample.query + (sample.thought or "")):
        raise Unusable("image_tags", f"its own text holds {found[0]}", "take the tag out of the text")
    asked, answer = sample, sample.extra.get("answer")
    objects: Row = {"ref": [], "bbox": [], "bbox_type": "real", "image_id": []}
    if sample.is_answered or not isinstance(answer, str):
        placed = place_boxes(sample)
        if sample.complete:  # as `render_answer` writes them: by image, each once
            placed = sorted(dict.fromkeys(placed), key=lambda one: one[0])
        answer = _make_answer(sample, [image for image, _ in placed], how)
        for image, box in placed:
            size_wh = pictures.find(sample.images[image]).size_wh
            box_px = unit_to_px(_check_box(sample, box, how), size_wh)
            objects["bbox"].append([round(value, 3) for value in box_px])
            objects["image_id"].append(image)
        if marked_refs := _REF_MARKS.findall(
            sample.query
        ):  # ms-swift itself writes the marks of the model it trains
            asked, objects["ref"] = (
                replace(sample, query=_REF_MARKS.sub("<ref-object>", sample.query)),
                marked_refs,
            )
        elif category := find_category(sample, how):
            word = rf"(?<!\w){re.escape(category)}(?!\w)"
            marked, count = re.subn(word, "<ref-object>", sample.query)
            if count == 1:
                asked, objects["ref"] = replace(sample, query=marked), [category]
    for name in sample.images:
        pictures.find(name)  # or it is missing
    return {
        "messages": [
            {"role": "user", "content": make_prompt(asked, how)},
            {"role": "assistant", "content": answer},
        ],
        "images": list(sample.images),
        "objects": objects,
        METADATA: make_metadata(sample),
    }


def _make_answer(sample: GroundingSample, images: list[int], how: Export) -> str:
    """Write `<bbox>` for each box, of a set with its image before it."""
    if sample.complete:
        boxes = "; ".join(f"Image-{image + 1}: <bbox>" for image in images) or NONE
    else:
        boxes = "<bbox>" * len(images)
    if how.style_of(sample) not in THINKING:
        return boxes
    check_thought(sample)
    return f"<think>{sample.thought}</think><answer>{boxes}</answer>"


def _check_box(sample: GroundingSample, box: Box, how: Export) -> Box:
    refuse(lesson_fault(box))
    return clip_box(sample, box, how)
