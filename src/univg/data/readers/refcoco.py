"""Read RefCOCO, RefCOCO+ and RefCOCOg, as three frameworks write them.

- VLM-R1 JSON: `image`, `problem`, `solution` (pixels, x1 y1 x2 y2).
- VLM-R1 JSONL: `id`, `image` (a path or a list), `conversations`; the answer's box in pixels.
- lmms-eval rows, as JSON, JSONL, Parquet or a `datasets` folder: `question_id`, `image`, `answer` (one or more
  expressions), `bbox` (pixels, x y w h). An image embedded in a row is written once under the image root.

These are the paper's single-image simple references: no thinking, a bare box for an answer.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from univg.data.formats.answers import ImageNumbers, find_box_images, read_written
from univg.data.formats.conversations import Turn, split_turns, strip_tags
from univg.data.formats.embedded import place_embedded
from univg.data.formats.faults import Unusable
from univg.data.formats.fields import (
    Row,
    clean_path,
    get,
    get_box,
    get_image,
    get_question,
    get_texts,
    name_kind,
    read_flag,
    shorten,
)
from univg.data.formats.pixels import Drawn, read_boxes, read_row_size, reads_pixels
from univg.data.formats.records import Source
from univg.data.readers.wording import find_target, strip_wording
from univg.grounding.boxes import Box
from univg.grounding.samples import GroundingSample

__all__ = ["TASK", "find_named", "read_lmms_rows", "read_vlm_r1", "read_vlm_r1_lines"]

TASK = "referring"


def _find_solution(source: Source, row: Row, record: str) -> Drawn:
    images = (get_image(row, "image", "name one, or write conversations (vlm_r1_lines)"),)
    return Drawn(_read_solution(get(row, "solution"), images), images, 0, read_row_size(row))


def _read_solution(value: Any, images: tuple[str, ...]) -> tuple[Box, ...]:
    """Return the boxes of a solution: numbers, or a text or object that names them as answers do."""
    text = value if isinstance(value, str) else json.dumps(value)
    written = read_written(text) if any(map(str.isalpha, text.replace("NaN", ""))) else []
    find_box_images(written, images, ImageNumbers())  # which refuses boxes of another image
    return tuple(one.box for one in written) or read_boxes(value, "'solution'")


@reads_pixels("refcoco", _find_solution, id_fields=("id", "question_id"), unpacks=True)
def read_vlm_r1(source: Source, row: Row, drawn: Drawn, record: str) -> Iterable[GroundingSample]:
    """Yield the samples of VLM-R1's JSON."""
    query, _ = strip_wording(strip_tags(get_question(row, "problem")))
    yield _make_referring(drawn, query, record)


def _find_answered(source: Source, turn: Turn, record: str) -> Drawn:
    written = read_written(turn.answer)
    if not written:
        raise Unusable("no_box", f"the answer {shorten(turn.answer)} holds no box")
    told = find_box_images(written, turn.images, ImageNumbers())
    if told is None:
        named = find_target(turn.question, None, len(turn.images))
        told = [len(turn.images) - 1 if named is None else named]
    if len(set(told)) > 1:
        raise Unusable(
            "which_image", "the boxes of one answer lie on several images", "ask for each by itself"
        )
    return Drawn(tuple(one.box for one in written), turn.images, told[0], read_row_size(turn.row))


@reads_pixels("refcoco", _find_answered, split=partial(split_turns, images_field="image"))
def read_vlm_r1_lines(source: Source, turn: Turn, drawn: Drawn, record: str) -> Iterable[GroundingSample]:
    """Yield the samples of VLM-R1's JSONL; of several images the boxes lie on the one that the answer names, else
    the question, else on the last."""
    query, _ = strip_wording(turn.question)
    yield _make_referring(drawn, query, record)


def _find_sides(source: Source, row: Row, record: str) -> Drawn:
    image = _read_image(source, row, record)
    x, y, width, height = get_box(row, "bbox")
    return Drawn(((x, y, x + width, y + height),), (image,), 0, read_row_size(row))


@reads_pixels("refcoco", _find_sides, id_fields=("question_id", "id"))
def read_lmms_rows(source: Source, row: Row, drawn: Drawn, record: str) -> Iterable[GroundingSample]:
    """Yield a sample for each expression of each of lmms-eval's rows. A crowd that is referred to is a target too."""
    if read_flag(row.get("iscrowd"), "iscrowd"):
        source.note("rows marked iscrowd are read as the others: the crowd is what their expressions mean")
    expressions = get_texts(row, "answer")
    for i, text in enumerate(expressions):
        yield _make_referring(drawn, text, f"{record}@{i}" if len(expressions) > 1 else record)


def _make_referring(drawn: Drawn, query: str, record: str) -> GroundingSample:
    images, target = drawn.images, drawn.target
    return GroundingSample(images, query, TASK, drawn.boxes, target, thinking=len(images) > 1, source=record)


# --- the picture of an lmms-eval row ---


def _read_image(source: Source, row: Row, record: str) -> str:
    """Return the path of a row's image; one that is embedded is written under the image root first."""
    value = get(row, "image")
    raw = value.get("bytes") if isinstance(value, Mapping) else value
    path = value.get("path") if isinstance(value, Mapping) else value if isinstance(value, str) else None
    if not isinstance(raw, bytes):
        names = [name for name in (path, row.get("file_name"), row.get("image_name")) if _is_name(name)]
        if not _is_name(path):
            raise Unusable(
                "bad_field", f"'image' is {name_kind(value)}, neither a path nor an embedded image"
            )
        return find_named(source, [clean_path(str(name)) for name in names])
    name = row.get("file_name") or row.get("image_name") or path or record.partition("#")[2]
    return place_embedded(source, raw, str(name))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


_COCO = re.compile(r"(?P<stem>(?P<set>COCO_(?:train|val|test)2014_)?(?P<id>\d{12}))(?:_\d+)?\.jpg")
"""COCO's pictures are known by twelve digits; lmms-eval's rows add the number of the expression behind them."""


def find_named(source: Source, names: list[str]) -> str:
    """Return the path of a row's picture, which it may name twice; the first name if that is nowhere.

    COCO's pictures are found by the twelve digits in their names, which no two have. Other names have to be there as
    they are written, and two names of two pictures are a fault: whose box it is would be a guess.
    """
    found = {name: _find_candidate(source, name) for name in names}
    paths = dict(filter(None, found.values()))
    ids = [match["id"] if (match := _match_coco(name)) else None for name in names]
    if len(paths) > 1 or len({*ids} - {None}) > 1:
        pictures = dict.fromkeys(candidate for _, candidate in paths.items()) if len(paths) > 1 else names
        cause = f"the row names two pictures, {' and '.join(pictures)}"
        raise Unusable("other_name", cause, "leave the one in that the box was drawn on")
    for name, number in zip(names, ids, strict=True):
        there = found[name]
        if there is not None and (name == names[0] or (number is not None and number == ids[0])):
            if there[1] != name:
                source.note(
                    "names with the number of an expression behind COCO's (COCO_train2014_…_16.jpg) are taken for "
                    "COCO's picture of the twelve digits"
                )
            return there[1]
    return names[0]


def _match_coco(name: str) -> re.Match[str] | None:
    return _COCO.fullmatch(os.path.basename(name))


def _find_candidate(source: Source, name: str) -> tuple[Path, str] | None:
    """Return where a name's picture lies, and the name it has there; None if nowhere."""
    candidates, match = [name], _match_coco(name)
    if match is not None:
        candidates.append(os.path.join(os.path.dirname(name), f"{match['stem']}.jpg"))
    if match is not None and match["set"]:
        candidates += [f"{part}2014/COCO_{part}2014_{match['id']}.jpg" for part in ("train", "val")]
        candidates += [f"{part}2017/{match['id']}.jpg" for part in ("train", "val")]
    for candidate in candidates if source.images is not None else ():
        path = source.images.find(candidate) if source.images is not None else None
        if path is not None:
            return path, candidate
    return None
