"""ReasonSeg (LISA): the prepared `lisa_val.json` and `lisa_test.json`, and the raw folder of one JSON an image.

Prepared: `image_path`, `instruction` (text, or a list holding one), `boxes` (pixels; the first is scored).
Raw: beside `name.jpg` a `name.json` with `text` (one or more), `is_sentence` and `shapes` of `label` and `points`;
some in cp1252. The published boxes are the extent of the first shape, and so are ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from univg.data.formats.records import (
    ReadError,
    Row,
    Source,
    Unusable,
    get,
    get_images,
    get_list,
    kind_of,
    numbers_in,
    samples_from,
)
from univg.data.formats.rows import read_rows
from univg.data.formats.scale import one_box, px_box
from univg.grounding.boxes import Box
from univg.grounding.prompts import ZERO_SHOT_IMAGE
from univg.grounding.samples import GroundingSample

__all__ = ["instructed", "read_lisa", "read_reasonseg_raw"]

TASK = "implicit"
_SUFFIXES = (".jpg", ".jpeg", ".png")


def read_lisa(source: Source) -> Iterator[GroundingSample]:
    """The prepared files, with the paper's zero-shot wording for the query."""

    def convert(row: Row, record: str) -> Iterable[GroundingSample]:
        image = get_images(row, "image_path")[0]
        texts = _texts(get(row, "instruction"), "instruction")
        boxes = get_list(row, "boxes")
        first = one_box(boxes[0] if boxes and isinstance(boxes[0], list) else boxes, "'boxes'[0]")
        yield instructed(image, texts[0], px_box(source, first, image), record)

    yield from samples_from(source, "lisa", read_rows(source.path), convert, ("id", "image_path"))


def read_reasonseg_raw(source: Source) -> Iterator[GroundingSample]:
    """The raw folder (or one of its JSON files): a sample for each text of each image."""
    files = sorted(source.path.rglob("*.json")) if source.path.is_dir() else [source.path]
    if not files:
        raise ReadError(
            f"no JSON file in this folder: {source.path}: give ReasonSeg's train, val or test folder"
        )

    def rows() -> Iterator[tuple[str, Row | Unusable]]:
        for file in files:
            yield file.stem, _read(file)

    def convert(row: Row, record: str) -> Iterable[GroundingSample]:
        file = Path(row["file"])
        image = _beside(source, file)
        shapes = get_list(row, "shapes")
        if not shapes or not isinstance(shapes[0], dict):
            raise Unusable("no_box", "'shapes' is empty")
        box = px_box(source, _extent(shapes[0].get("points")), image)
        texts = _texts(get(row, "text"), "text")
        for i, text in enumerate(texts):
            name = f"{record}@{i}" if len(texts) > 1 else record
            extra = {"is_sentence": row.get("is_sentence"), "label": str(shapes[0].get("label") or "")}
            yield instructed(image, text, box, name, extra)

    yield from samples_from(source, "reasonseg", rows(), convert, id_fields=())


def instructed(
    image: str, instruction: str, box: Box, record: str, extra: dict[str, Any] | None = None
) -> GroundingSample:
    """A sample that asks an instruction of one image in the paper's zero-shot wording."""
    if not instruction.strip():
        raise Unusable("empty_question", "the instruction is blank")
    return GroundingSample(
        images=(image,),
        query=ZERO_SHOT_IMAGE.format(instruction=instruction),
        task=TASK,
        boxes=(box,),
        target_image=0,
        source=record,
        extra={"instruction": instruction, **(extra or {})},
    )


def _texts(value: Any, name: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Unusable("bad_field", f"{name!r} is {kind_of(value)}, not one or more texts")
    if not texts:
        raise Unusable("empty_question", f"{name!r} is empty")
    return texts


def _read(file: Path) -> Row | Unusable:
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
    return (
        {**row, "file": str(file)}
        if isinstance(row, dict)
        else Unusable("bad_field", "no object with fields")
    )


def _beside(source: Source, file: Path) -> str:
    """The image beside its JSON, as the samples name it."""
    folder = source.path if source.path.is_dir() else source.path.parent
    for suffix in _SUFFIXES:
        image = file.with_suffix(suffix)
        if image.is_file():
            if source.images is None:
                return str(image)
            named = source.images.relative(image)
            return named if source.images.find(named) else str(image.resolve())
    return file.relative_to(folder).with_suffix(".jpg").as_posix()


def _extent(points: Any) -> Box:
    numbers = numbers_in(points)
    if len(numbers) < 4 or len(numbers) % 2:
        raise Unusable("no_box", "the first shape has no points")
    return min(numbers[0::2]), min(numbers[1::2]), max(numbers[0::2]), max(numbers[1::2])
