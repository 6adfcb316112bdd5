"""Read RefCOCO, RefCOCO+ and RefCOCOg, as three frameworks write them.

- VLM-R1 JSON: `image`, `problem`, `solution` (pixels, x1 y1 x2 y2).
- VLM-R1 JSONL: `id`, `image` (a path or a list), `conversations`; the answer's box in pixels.
- lmms-eval rows, as JSON, JSONL, Parquet or a `datasets` folder: `question_id`, `image`, `answer` (one or more
  expressions), `bbox` (pixels, x y w h). An image embedded in a row is written once under the image root.

These are the paper's single-image simple references: no thinking, a bare box for an answer.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from univg.data.formats.conversations import Turn, split_turns, strip_tags
from univg.data.formats.faults import Unusable
from univg.data.formats.fields import (
    Row,
    clean_path,
    get,
    get_box,
    get_images,
    get_question,
    get_texts,
    name_kind,
    shorten,
)
from univg.data.formats.records import Source, reads
from univg.data.readers.univg_r1 import strip_wording
from univg.files import write_whole
from univg.grounding.boxes import Box, px_to_unit
from univg.grounding.coordinates import read_quads
from univg.grounding.samples import GroundingSample

__all__ = ["read_lmms_rows", "read_vlm_r1", "read_vlm_r1_lines"]

TASK = "referring"
EMBEDDED = "embedded"
"""The folder under the image root that images out of rows are written to."""


@reads("refcoco", id_fields=("id", "question_id"))
def read_vlm_r1(source: Source, row: Row, record: str) -> Iterable[GroundingSample]:
    """Yield the samples of VLM-R1's JSON."""
    images = get_images(row, "image")[:1]
    query, _ = strip_wording(strip_tags(get_question(row, "problem")))
    yield _make_referring(source, row, images, query, get_box(row, "solution"), record)


@reads("refcoco", split=partial(split_turns, images_field="image"))
def read_vlm_r1_lines(source: Source, turn: Turn, record: str) -> Iterable[GroundingSample]:
    """Yield the samples of VLM-R1's JSONL; of several images the box lies on the last, whose pixels it counts."""
    quads = read_quads(turn.answer)
    if not quads:
        raise Unusable("no_box", f"the answer {shorten(turn.answer)} holds no box")
    x1, y1, x2, y2 = map(float, quads[0])
    query, _ = strip_wording(turn.question)
    yield _make_referring(source, turn.row, turn.images, query, (x1, y1, x2, y2), record)


@reads("refcoco", id_fields=("question_id", "id"))
def read_lmms_rows(source: Source, row: Row, record: str) -> Iterable[GroundingSample]:
    """Yield a sample for each expression of each of lmms-eval's rows."""
    image = _read_image(source, row, record)
    x, y, width, height = get_box(row, "bbox")
    expressions = get_texts(row, "answer")
    for i, text in enumerate(expressions):
        name = f"{record}@{i}" if len(expressions) > 1 else record
        yield _make_referring(source, row, (image,), text, (x, y, x + width, y + height), name)


def _make_referring(
    source: Source, row: Row, images: tuple[str, ...], query: str, box_px: Box, record: str
) -> GroundingSample:
    """Make a sample; the box is measured by the size the row states (`width`, `height`), else by the image's own."""
    sides = [row.get(name) or row.get(f"image_{name}") for name in ("width", "height")]
    width, height = (side if isinstance(side, (int, float)) else 0 for side in sides)
    size = (width, height) if min(width, height) > 0 else source.read_size(images[-1])
    box, thinking = px_to_unit(box_px, size), len(images) > 1  # type: ignore[arg-type]  # floats do as well
    return GroundingSample(images, query, TASK, (box,), len(images) - 1, thinking=thinking, source=record)


def _read_image(source: Source, row: Row, record: str) -> str:
    """Return the path of a row's image; one that is embedded is written under the image root first."""
    value = get(row, "image")
    if isinstance(value, str):
        return clean_path(value)
    raw = value.get("bytes") if isinstance(value, Mapping) else value
    path = value.get("path") if isinstance(value, Mapping) else None
    name = _make_name(row.get("file_name") or row.get("image_name") or path or record.partition("#")[2])
    if source.images is not None and source.images.find(name) is not None:
        return name
    if not isinstance(raw, bytes):
        if isinstance(path, str) and path:
            return clean_path(path)
        raise Unusable("bad_field", f"'image' is {name_kind(value)}, neither a path nor an embedded image")
    if source.images is None:
        fix = "name with --images a folder to write it to"
        raise Unusable("missing_image", "the image is embedded in the row", fix)
    return _extract(source, source.images.folder, raw, name)


def _make_name(value: Any) -> str:
    """Make a file name of what a row says, without folders: it must not lead out of the image root."""
    name = "".join(c if c.isalnum() or c in "._-" else "_" for c in os.path.basename(str(value)))
    return name.lstrip(".") or "image"


def _extract(source: Source, root: Path, raw: bytes, name: str) -> str:
    try:
        with Image.open(io.BytesIO(raw)) as image:
            kind = (image.format or "png").lower()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        raise Unusable("bad_image", "the embedded image cannot be decoded") from None
    if not Path(name).suffix:
        name += {"jpeg": ".jpg"}.get(kind, f".{kind}")
    path = root / EMBEDDED / name
    if not path.exists():
        write_whole(path, raw)
        source.note(f"images embedded in rows were written to {path.parent}")
    return f"{EMBEDDED}/{name}"
