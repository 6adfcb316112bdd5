"""Read benchmarks of referring expressions behind RefCOCO: Ref-L4, RefCOCO-M, GroundingME and OpenRef.

- Ref-L4 (arXiv 2406.16866, its dataset card): rows of `id`, `caption`, `bbox` (x y width height in pixels),
  `file_name`, `width`, `height`, `ori_category_id`. One object each.
- RefCOCO-M (moondream/refcoco-m, its dataset card): rows of an image with `samples` of `id`, `sentences` and `bbox` (as
  above). One object each; the masks are not read.
- GroundingME (arXiv 2512.17495, its dataset card and evaluate.py): rows of `id`, `description`, `image`, `bbox` (x1 y1
  x2 y2 in pixels), `subtask_l1`, `subtask_l2`. One object, or of the subtask Rejection none.
- OpenRef (arXiv 2605.25706, its dataset card and evaluation code): `image`, `relation_type` (single, multi, none),
  `positive`, `negative`, `bbox_num`, and `proposal` of `x`, `y`, `width`, `height` in percent, `original_width`,
  `original_height`. All objects that `positive` means, none where the relation is none; `negative` means nothing.

Pictures that rows hold are written under the image root.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from univg.data.formats.faults import Unusable
from univg.data.formats.fields import (
    Row,
    get_box,
    get_image,
    get_list,
    get_question,
    get_text,
    get_texts,
    shorten,
)
from univg.data.formats.pixels import Drawn, read_row_size, reads_pixels
from univg.data.formats.records import Source, reads
from univg.data.readers.refcoco import TASK, find_named
from univg.data.readers.wording import ask_every
from univg.grounding.boxes import Box
from univg.grounding.samples import GroundingSample

__all__ = ["read_groundingme", "read_openref", "read_ref_l4", "read_refcoco_m"]

# --- Ref-L4 ---


def _find_captioned(source: Source, row: Row, record: str) -> Drawn:
    image = find_named(source, [get_image(row, "file_name")])
    return Drawn((_to_corners(get_box(row, "bbox")),), (image,), 0, read_row_size(row))


@reads_pixels("ref_l4", _find_captioned)
def read_ref_l4(source: Source, row: Row, drawn: Drawn, record: str) -> Iterable[GroundingSample]:
    """Yield Ref-L4's samples: simple references of one object, as RefCOCO's."""
    _, _, width, height = get_box(row, "bbox")
    extra = {"ori_category_id": row.get("ori_category_id"), "split": row.get("split")}
    extra["protocol"] = {"side_px": math.sqrt(max(0.0, width * height))}
    query = get_question(row, "caption")
    yield GroundingSample(
        drawn.images, query, TASK, drawn.boxes, 0, thinking=False, source=record, extra=extra
    )


def _to_corners(sides: Box) -> Box:
    x, y, width, height = sides
    return x, y, x + width, y + height


# --- RefCOCO-M ---


class _Referred(NamedTuple):
    row: Row
    instance: Row
    sentence: str


def _split_instances(row: Row) -> Iterator[tuple[str, _Referred]]:
    for place, instance in enumerate(get_list(row, "samples")):
        if not isinstance(instance, Mapping):
            raise Unusable("bad_field", f"an entry of 'samples' is {shorten(instance)}, no object")
        name = instance.get("id", place)
        for number, sentence in enumerate(get_texts(instance, "sentences")):
            yield f"{name}/{number}", _Referred(row, instance, sentence)


def _find_instance(source: Source, part: _Referred, record: str) -> Drawn:
    image = get_image(part.row, "image")
    box = _to_corners(get_box(part.instance, "bbox"))
    return Drawn((box,), (image,), 0, read_row_size(part.row))


@reads_pixels("refcoco_m", _find_instance, ("image_id",), split=_split_instances, unpacks=True)
def read_refcoco_m(source: Source, part: _Referred, drawn: Drawn, record: str) -> Iterable[GroundingSample]:
    """Yield a sample for each sentence of each instance: simple references of one object, as RefCOCO's."""
    extra = {"category": part.instance.get("category")}
    yield GroundingSample(
        drawn.images, part.sentence, TASK, drawn.boxes, 0, thinking=False, source=record, extra=extra
    )


# --- GroundingME ---

_VIEWER = "Spatial relations are meant as the viewer sees them, in front being nearer. "
_REJECTION = "Rejection"


def _find_described(source: Source, row: Row, record: str) -> Drawn:
    rejected = get_text(row, "subtask_l1") == _REJECTION
    boxes: tuple[Box, ...] = () if rejected else (get_box(row, "bbox"),)
    return Drawn(boxes, (get_image(row, "image"),), 0, read_row_size(row))


@reads_pixels("groundingme", _find_described, unpacks=True)
def read_groundingme(source: Source, row: Row, drawn: Drawn, record: str) -> Iterable[GroundingSample]:
    """Yield GroundingME's samples, whose task is the subtask. What is to be rejected is known to be nowhere."""
    text = get_question(row, "description")
    extra = {"expression": text, "subtask_l2": row.get("subtask_l2")}
    query, task = _VIEWER + ask_every(text), get_text(row, "subtask_l1")
    yield GroundingSample(
        drawn.images, query, task, drawn.boxes, 0, complete=True, source=record, extra=extra
    )


# --- OpenRef ---


class _Expressed(NamedTuple):
    row: Row
    text: str
    kind: str
    """single, multi, none or negative."""


def _split_expressions(row: Row) -> Iterator[tuple[str, _Expressed]]:
    kind = get_text(row, "relation_type")
    if kind not in ("single", "multi", "none"):
        raise Unusable("bad_field", f"'relation_type' is {shorten(kind)}, not single, multi or none")
    for name in ("positive", "negative"):
        text = row.get(name)
        if isinstance(text, str) and text.strip():
            yield name, _Expressed(row, text, kind if name == "positive" else name)


@reads("openref", split=_split_expressions)
def read_openref(source: Source, part: _Expressed, record: str) -> Iterable[GroundingSample]:
    """Yield a sample for each expression, whose task is single, multi, none or negative."""
    row = part.row
    name = get_image(row, "image")
    candidates = (name, f"{row['relation_type']}/{name}")
    there = (one for one in candidates if source.images is not None and source.images.find(one))
    image = next(there, name)
    boxes = [] if part.kind in ("none", "negative") else list(_list_proposals(source, row, image))
    if part.kind in ("single", "multi") and not boxes:
        raise Unusable("no_box", f"the relation is {part.kind}, and 'proposal' is empty")
    if part.kind != "negative":
        _check_count(row)
    yield GroundingSample(
        *((image,), ask_every(part.text), part.kind, tuple(boxes), 0),
        complete=True,
        thinking=False,
        source=record,
        extra={"expression": part.text},
    )


def _check_count(row: Row) -> None:
    count, stated = len(get_list(row, "proposal")), row.get("bbox_num")
    if isinstance(stated, int) and stated != count:
        raise Unusable("several_answers", f"'bbox_num' is {stated}, and 'proposal' has {count} box(es)")


def _list_proposals(source: Source, row: Row, image: str) -> Iterator[Box]:
    """Yield the boxes of a record in the unit frame; where the picture is there, it must have the stated size."""
    for proposal in get_list(row, "proposal"):
        if not isinstance(proposal, Mapping):
            raise Unusable("bad_field", f"an entry of 'proposal' is {shorten(proposal)}, no object")
        sides: dict[str, Any] = {name: proposal.get(name) for name in ("x", "y", "width", "height")}
        x, y, width, height = get_box({"proposal": list(sides.values())}, "proposal")
        if max(x + width, y + height) > 2 * 100 or min(x, y) < -100:
            raise Unusable("wrong_scale", f"a proposal is {shorten(sides)}, not in percent of its image")
        path = source.images.find(image) if source.images is not None else None
        if path is not None:
            source.check_size(path, image, (proposal.get("original_width"), proposal.get("original_height")))
        yield x / 100, y / 100, (x + width) / 100, (y + height) / 100
