"""LLM-Seg40K: the prepared `LLMSeg_eval.json`, and the raw file with run-length masks.

Prepared: `image_path`, `question`, `bbox` (pixels; nested lists, of which the first four numbers count).
Raw: `{image: {from_dataset, qa_pairs: [{question, answer, rle_seg}]}}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from univg.data.formats.json_stream import read_items
from univg.data.formats.masks import rle_extent
from univg.data.formats.records import (
    Row,
    Source,
    Unusable,
    clean_path,
    get,
    get_images,
    get_list,
    get_question,
    samples_from,
)
from univg.data.formats.rows import read_rows
from univg.data.formats.scale import one_box, px_box
from univg.data.readers.reasonseg import instructed
from univg.grounding.samples import GroundingSample

__all__ = ["read_llmseg", "read_llmseg_raw"]


def read_llmseg(source: Source) -> Iterator[GroundingSample]:
    """The prepared file, with the paper's zero-shot wording for the query."""

    def convert(row: Row, record: str) -> Iterable[GroundingSample]:
        image = get_images(row, "image_path")[0]
        box = px_box(source, one_box(get(row, "bbox"), "'bbox'"), image)
        yield instructed(image, get_question(row, "question"), box, record)

    yield from samples_from(source, "llmseg", read_rows(source.path), convert, ("id", "question_id"))


def read_llmseg_raw(source: Source) -> Iterator[GroundingSample]:
    """The raw file: a sample for each question of each image. The masks state the images' size."""

    def rows() -> Iterator[tuple[str, Row | Unusable]]:
        for image, value in read_items(source.path):
            if image is None or not isinstance(value, dict):
                yield str(image), Unusable("bad_field", "an image's entry is an object with 'qa_pairs'")
            else:
                yield image, {**value, "image": image}

    def convert(row: Row, record: str) -> Iterable[GroundingSample | Unusable]:
        image = clean_path(row["image"])
        for i, pair in enumerate(get_list(row, "qa_pairs")):
            try:
                if not isinstance(pair, dict):
                    raise Unusable("bad_field", "an entry of 'qa_pairs' is not an object")
                found = rle_extent(get(pair, "rle_seg"))
                if found is None:
                    raise Unusable("no_box", "the mask is empty")
                (x1, y1, x2, y2), (width, height) = found
                box = x1 / width, y1 / height, x2 / width, y2 / height
                extra = {"from_dataset": row.get("from_dataset"), "answer": pair.get("answer")}
                yield instructed(image, get_question(pair, "question"), box, f"{record}@{i}", extra)
            except Unusable as error:
                yield Unusable(error.kind, error.cause, error.fix, part=str(i))

    yield from samples_from(source, "llmseg", rows(), convert, id_fields=())
