"""RefCOCO, RefCOCO+ and RefCOCOg, as three frameworks write them.

- VLM-R1 JSON: `image`, `problem`, `solution` (pixels, x1 y1 x2 y2).
- VLM-R1 JSONL: `id`, `image` (a path or a list), `conversations`; the answer's box in pixels.
- lmms-eval rows, as JSON, JSONL, Parquet or a `datasets` folder: `question_id`, `image`, `answer` (one or more
  expressions), `bbox` (pixels, x y w h). An image embedded in a row is written once under the image root.

These are the paper's single-image simple references: no thinking, a bare box for an answer.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from univg.data.formats.conversations import check_tags, exchanges, without_tags
from univg.data.formats.records import (
    Row,
    Source,
    Unusable,
    clean_path,
    get,
    get_four,
    get_images,
    get_question,
    kind_of,
    samples_from,
    shorten,
)
from univg.data.formats.rows import read_rows
from univg.data.formats.scale import px_box
from univg.data.readers.univg_r1 import bare_query
from univg.grounding.boxes import Box
from univg.grounding.coordinates import read_quads
from univg.grounding.samples import GroundingSample

__all__ = ["read_lmms_rows", "read_vlm_r1", "read_vlm_r1_lines"]

TASK = "referring"
EMBEDDED = "embedded"
"""The folder under the image root that images out of rows are written to."""


def read_vlm_r1(source: Source) -> Iterator[GroundingSample]:
    """VLM-R1's JSON."""

    def convert(row: Row, record: str) -> Iterable[GroundingSample]:
        image = get_images(row, "image")[0]
        query, _ = bare_query(without_tags(get_question(row, "problem")))
        box = _to_unit(source, row, get_four(row, "solution"), image)
        yield _referring([image], query, box, record)

    yield from samples_from(source, "refcoco", read_rows(source.path), convert, ("id", "question_id"))


def read_vlm_r1_lines(source: Source) -> Iterator[GroundingSample]:
    """VLM-R1's JSONL; of several images the box is taken to lie on the last, whose pixels it counts."""

    def convert(row: Row, record: str) -> Iterable[GroundingSample | Unusable]:
        images, turns = get_images(row, "image"), exchanges(row)
        check_tags(turns, len(images))
        for turn in turns:
            part = f"turn {turn.turn}" if len(turns) > 1 else ""
            quads = read_quads(turn.answer)
            if not quads:
                yield Unusable("no_box", f"the answer {shorten(turn.answer)} holds no box", part=part)
                continue
            x1, y1, x2, y2 = map(float, quads[0])
            box = _to_unit(source, row, (x1, y1, x2, y2), images[-1])
            name = f"{record}@{part}" if part else record
            yield _referring(images, bare_query(without_tags(turn.question))[0], box, name)

    yield from samples_from(source, "refcoco", read_rows(source.path), convert)


def read_lmms_rows(source: Source) -> Iterator[GroundingSample]:
    """lmms-eval's rows: a sample for each expression of a row."""

    def convert(row: Row, record: str) -> Iterable[GroundingSample]:
        image = _image(source, row, record)
        x, y, width, height = get_four(row, "bbox")
        box = _to_unit(source, row, (x, y, x + width, y + height), image)
        answers = get(row, "answer")
        expressions = [answers] if isinstance(answers, str) else answers
        if not isinstance(expressions, list) or not all(isinstance(text, str) for text in expressions):
            raise Unusable("bad_field", f"'answer' is {kind_of(answers)}, not one or more expressions")
        if not expressions:
            raise Unusable("empty_question", "'answer' holds no expression")
        for i, expression in enumerate(expressions):
            yield _referring([image], expression, box, f"{record}@{i}" if len(expressions) > 1 else record)

    yield from samples_from(source, "refcoco", read_rows(source.path), convert, ("question_id", "id"))


def _referring(images: list[str], query: str, box: Box, record: str) -> GroundingSample:
    return GroundingSample(
        images=tuple(images),
        query=query,
        task=TASK,
        boxes=(box,),
        target_image=len(images) - 1,
        thinking=len(images) > 1,
        source=record,
    )


def _to_unit(source: Source, row: Row, box_px: Box, image: str) -> Box:
    """By the size the row states (`width`, `height`), else by the image's own."""
    sides = [row.get(name) or row.get(f"image_{name}") for name in ("width", "height")]
    if all(isinstance(side, (int, float)) and side > 0 for side in sides):
        width, height = (float(side) for side in sides if side is not None)
        x1, y1, x2, y2 = box_px
        return x1 / width, y1 / height, x2 / width, y2 / height
    return px_box(source, box_px, image)


def _image(source: Source, row: Row, record: str) -> str:
    """The path of a row's image; one that is embedded is written under the image root first."""
    value = get(row, "image")
    if isinstance(value, str):
        return clean_path(value)
    raw = value.get("bytes") if isinstance(value, Mapping) else value
    path = value.get("path") if isinstance(value, Mapping) else None
    name = _name(row.get("file_name") or row.get("image_name") or path or record.partition("#")[2])
    if source.images is not None and source.images.find(name) is not None:
        return name
    if not isinstance(raw, bytes):
        if isinstance(path, str) and path:
            return clean_path(path)
        raise Unusable("bad_field", f"'image' is {kind_of(value)}, neither a path nor an embedded image")
    if source.images is None:
        raise Unusable(
            "missing_image", "the image is embedded in the row", "name with --images a folder to write it to"
        )
    return _extracted(source, raw, name)


def _name(value: Any) -> str:
    """A file name out of a row, without folders: it must not lead out of the image root."""
    name = "".join(c if c.isalnum() or c in "._-" else "_" for c in os.path.basename(str(value)))
    return name.lstrip(".") or "image"


def _extracted(source: Source, raw: bytes, name: str) -> str:
    assert source.images is not None
    try:
        with Image.open(io.BytesIO(raw)) as image:
            kind = (image.format or "png").lower()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        raise Unusable("bad_image", "the embedded image cannot be decoded") from None
    if not Path(name).suffix:
        name += {"jpeg": ".jpg"}.get(kind, f".{kind}")
    relative = f"{EMBEDDED}/{name}"
    path = source.images.folder / relative
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        part.write_bytes(raw)
        part.replace(path)
        source.note(f"images embedded in rows were written to {path.parent}")
    return relative
