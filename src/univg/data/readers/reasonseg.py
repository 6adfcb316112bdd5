"""Read ReasonSeg (LISA): the prepared `lisa_val.json` and `lisa_test.json`, and the raw folder of one JSON an image.

Prepared: `image_path`, `instruction` (text, or a list holding one), `boxes` (pixels; the first is scored).
Raw: beside `name.jpg` a `name.json` with `text` (one or more), `is_sentence` and `shapes` of `label` and `points`;
some in cp1252. The published boxes are the extent of the first shape, and so are ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from univg.data.formats.faults import Unusable
from univg.data.formats.fields import Row, find_numbers, get_images, get_list, get_texts, read_box
from univg.data.formats.records import Source, reads
from univg.data.formats.rows import Rows
from univg.errors import UnivgError
from univg.grounding.boxes import Box, px_to_unit
from univg.grounding.prompts import ZERO_SHOT_IMAGE
from univg.grounding.samples import GroundingSample

__all__ = ["make_instructed", "read_lisa", "read_reasonseg_raw"]

TASK = "implicit"
_SUFFIXES = (".jpg", ".jpeg", ".png")


@reads("lisa", id_fields=("id", "image_path"))
def read_lisa(source: Source, row: Row, record: str) -> Iterable[GroundingSample]:
    """Yield the prepared files' samples, with the paper's zero-shot wording for the query."""
    image = get_images(row, "image_path")[0]
    instruction = get_texts(row, "instruction")[0]
    boxes = get_list(row, "boxes")
    first = boxes[0] if boxes and isinstance(boxes[0], list) else boxes
    box_px = read_box(first, "'boxes'[0]", several=True)
    yield make_instructed(image, instruction, px_to_unit(box_px, source.read_size(image)), record)


def _read_folder(path: Path) -> Rows:
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if not files:
        raise UnivgError("no JSON file in this folder", path, "give ReasonSeg's train, val or test folder")
    yield from ((file.stem, _read_file(file)) for file in files)


def _read_file(file: Path) -> Row | Unusable:
    try:
        raw = file.read_bytes()
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = raw.decode("cp1252")
        row = json.loads(text)
    except OSError as error:
        return Unusable("not_json", f"{file} cannot be read ({error.strerror})")
    except (ValueError, RecursionError) as error:
        return Unusable("not_json", f"{file.name} is not JSON ({error})")
    if not isinstance(row, dict):
        return Unusable("bad_field", "no object with fields")
    return {**row, "file": str(file)}


@reads("reasonseg", id_fields=(), rows=_read_folder)
def read_reasonseg_raw(source: Source, row: Row, record: str) -> Iterable[GroundingSample]:
    """Yield a sample for each text of each image of the raw folder (or of one of its JSON files)."""
    image = _find_image_beside(source, Path(row["file"]))
    shapes = get_list(row, "shapes")
    if not shapes or not isinstance(shapes[0], dict):
        raise Unusable("no_box", "'shapes' is empty")
    box = px_to_unit(_find_extent(shapes[0].get("points")), source.read_size(image))
    extra = {"is_sentence": row.get("is_sentence"), "label": str(shapes[0].get("label") or "")}
    texts = get_texts(row, "text")
    for i, text in enumerate(texts):
        yield make_instructed(image, text, box, f"{record}@{i}" if len(texts) > 1 else record, extra)


def make_instructed(
    image: str, instruction: str, box: Box, record: str, extra: dict[str, Any] | None = None
) -> GroundingSample:
    """Make a sample that asks an instruction of one image in the paper's zero-shot wording."""
    if not instruction.strip():
        raise Unusable("empty_question", "the instruction is blank")
    query = ZERO_SHOT_IMAGE.format(instruction=instruction)
    extra = {"instruction": instruction, **(extra or {})}
    return GroundingSample((image,), query, TASK, (box,), 0, source=record, extra=extra)


def _find_image_beside(source: Source, file: Path) -> str:
    """Return the image beside its JSON, as the samples name it."""
    folder = source.path if source.path.is_dir() else source.path.parent
    for suffix in _SUFFIXES:
        image = file.with_suffix(suffix)
        if image.is_file():
            if source.images is None:
                return str(image)
            named = source.images.relative(image)
            return named if source.images.find(named) else str(image.resolve())
    return file.relative_to(folder).with_suffix(".jpg").as_posix()


def _find_extent(points: Any) -> Box:
    numbers = find_numbers(points)
    if len(numbers) < 4 or len(numbers) % 2:
        raise Unusable("no_box", "the first shape has no points")
    return min(numbers[0::2]), min(numbers[1::2]), max(numbers[0::2]), max(numbers[1::2])
