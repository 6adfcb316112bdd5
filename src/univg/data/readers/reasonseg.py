"""Read ReasonSeg (LISA): the prepared `lisa_val.json` and `lisa_test.json`, and the raw folder of one JSON an image.

Prepared: `image_path`, `instruction` (text, or a list holding one), `boxes` (pixels; the first is read, as it
alone is scored).
Raw: beside `name.jpg` a `name.json` with `text` (one or more), `is_sentence` and `shapes` of `label` and `points`;
some in cp1252. Every shape is a target, except those labelled `flag` (withdrawn) or with "ignore" in the label (not
evaluated), as in the published code. A target's extent is a box, in the file's order: the published boxes are the
extent of the first, and the first is scored.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from univg.data.detection.shapes import circle_extent, extent
from univg.data.formats.faults import Unusable
from univg.data.formats.fields import Row, find_numbers, get, get_image, get_list, get_texts
from univg.data.formats.pixels import Drawn, read_boxes, read_row_size, reads_pixels
from univg.data.formats.records import Source
from univg.data.formats.rows import Rows
from univg.errors import UnivgError
from univg.grounding.boxes import Box
from univg.grounding.prompts import ZERO_SHOT_IMAGE
from univg.grounding.samples import GroundingSample

__all__ = ["keep_further", "make_instructed", "read_lisa", "read_reasonseg_raw"]

TASK = "implicit"
_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


def _find_boxes(source: Source, row: Row, record: str) -> Drawn:
    image = get_image(row, "image_path")
    return Drawn(read_boxes(get(row, "boxes"), "'boxes'"), (image,), 0, read_row_size(row))


@reads_pixels("lisa", _find_boxes, id_fields=("id", "image_path"))
def read_lisa(source: Source, row: Row, drawn: Drawn, record: str) -> Iterable[GroundingSample]:
    """Yield the prepared files' samples, with the paper's zero-shot wording for the query."""
    texts = get_texts(row, "instruction")
    for i, text in enumerate(texts):
        name = f"{record}@{i}" if len(texts) > 1 else record
        boxes, further = keep_further(source, drawn)
        yield make_instructed(drawn.images[0], text, boxes, name, further, source.complete)


def keep_further(source: Source, drawn: Drawn) -> tuple[tuple[Box, ...], dict[str, Any]]:
    """Return the box of a prepared record that is scored, the first, and for a sample's `extra` the others; all of them
    where they are known to be a set."""
    if len(drawn.boxes) == 1 or source.complete:
        return drawn.boxes, {}
    source.note(
        "records with several boxes are asked for the first, as in the published evaluation: the others are kept "
        "as further_boxes"
    )
    return drawn.boxes[:1], {"further_boxes": [list(box) for box in drawn.boxes[1:]]}


def _read_folder(path: Path) -> Rows:
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if not files:
        raise UnivgError("no JSON file in this folder", path, "give ReasonSeg's train, val or test folder")
    stems = Counter(file.stem for file in files)
    for file in files:
        name = file.stem if stems[file.stem] == 1 else file.relative_to(path).with_suffix("").as_posix()
        yield name, _read_file(file)


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


def _find_shapes(source: Source, row: Row, record: str) -> Drawn:
    image = _find_image_beside(source, Path(row["file"]), row.get("imagePath"))
    shapes = get_list(row, "shapes")
    if not all(isinstance(shape, dict) for shape in shapes):
        raise Unusable("bad_field", "an entry of 'shapes' is no object")
    labels = Counter(word for shape in shapes if (word := _passes_over(shape)))
    targets = [shape for shape in shapes if not _passes_over(shape)]
    if not targets:
        has = ", ".join(f"{count} labelled {word}" for word, count in sorted(labels.items())) or "it is empty"
        raise Unusable("no_box", f"no target among the 'shapes': {has}")
    if labels:
        source.note("shapes labelled flag or ignore are no targets, as in the published code")
    return Drawn(tuple(map(_find_extent, targets)), (image,), 0, read_row_size(row))


@reads_pixels("reasonseg", _find_shapes, id_fields=(), rows=_read_folder)
def read_reasonseg_raw(source: Source, row: Row, drawn: Drawn, record: str) -> Iterable[GroundingSample]:
    """Yield a sample for each text of each image of the raw folder (or of one of its JSON files)."""
    first = next(shape for shape in row["shapes"] if not _passes_over(shape))
    extra = {"is_sentence": row.get("is_sentence"), "label": str(first.get("label") or "")}
    texts = get_texts(row, "text")
    for i, text in enumerate(texts):
        name = f"{record}@{i}" if len(texts) > 1 else record
        yield make_instructed(drawn.images[0], text, drawn.boxes, name, extra, source.complete)


def _passes_over(shape: Row) -> str:
    """Return why a shape is no target; "" if it is one."""
    label = str(shape.get("label") or "").strip().lower()
    return "flag" if label == "flag" else "ignore" if "ignore" in label else ""


def make_instructed(
    image: str,
    instruction: str,
    boxes: tuple[Box, ...],
    record: str,
    extra: dict[str, Any] | None = None,
    complete: bool = False,
) -> GroundingSample:
    """Make a sample that asks an instruction of one image in the paper's zero-shot wording."""
    if not instruction.strip():
        raise Unusable("empty_question", "the instruction is blank")
    query = ZERO_SHOT_IMAGE.format(instruction=instruction)
    extra = {"instruction": instruction, **(extra or {})}
    return GroundingSample((image,), query, TASK, boxes, 0, source=record, complete=complete, extra=extra)


def _find_image_beside(source: Source, file: Path, stated: Any) -> str:
    """Return the image beside its JSON, as the samples name it; `stated`: the name in the file, if there is one."""
    folder = source.path if source.path.is_dir() else source.path.parent
    there = [image for suffix in _SUFFIXES if (image := file.with_suffix(suffix)).is_file()]
    if isinstance(stated, str) and stated:
        named = file.with_name(PurePosixPath(stated.replace("\\", "/")).name)
        if there and named not in there and named.is_file():
            raise Unusable("other_name", f"{file.name} names {named.name}, and {there[0].name} is there too")
        there = there or [named] * named.is_file()
    if not there:
        beside = file.relative_to(folder)
        names = [beside.with_suffix(suffix).as_posix() for suffix in _SUFFIXES]
        return next((name for name in names if source.images and source.images.find(name)), names[0])
    if source.images is None:
        return str(there[0])
    named_here = source.images.relative(there[0])
    return named_here if source.images.find(named_here) else str(there[0].resolve())


def _find_extent(shape: Row) -> Box:
    numbers = find_numbers(shape.get("points"))
    if len(numbers) < 4 or len(numbers) % 2 or not all(map(math.isfinite, numbers)):
        raise Unusable("no_box", f"the shape {shape.get('label')!r} has no points")
    if shape.get("shape_type") == "circle":
        return circle_extent((numbers[0], numbers[1]), (numbers[2], numbers[3]))
    return extent(zip(numbers[0::2], numbers[1::2], strict=True))
