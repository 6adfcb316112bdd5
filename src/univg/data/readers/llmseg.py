"""Read LLM-Seg40K: the prepared `LLMSeg_eval.json`, and the raw file with run-length masks.

Prepared: `image_path`, `question`, `bbox` (pixels; nested lists of numbers, the first four of which are read).
Raw: `{image: {from_dataset, qa_pairs: [{question, answer, rle_seg}]}}`. A list of masks is a list of objects: each
is a box, in the file's order, and the first is scored, as in the prepared file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from univg.data.formats.faults import Unusable
from univg.data.formats.fields import Row, clean_path, get, get_image, get_list, get_question
from univg.data.formats.json_stream import read_items
from univg.data.formats.masks import rle_extents
from univg.data.formats.pixels import Drawn, check_mask_size, read_boxes, read_row_size, reads_pixels
from univg.data.formats.records import Source, reads
from univg.data.formats.rows import Rows
from univg.data.readers.reasonseg import keep_further, make_instructed
from univg.grounding.boxes import px_to_unit
from univg.grounding.samples import GroundingSample

__all__ = ["read_llmseg", "read_llmseg_raw"]


def _find_boxes(source: Source, row: Row, record: str) -> Drawn:
    image = get_image(row, "image_path")
    return Drawn(read_boxes(get(row, "bbox"), "'bbox'"), (image,), 0, read_row_size(row))


@reads_pixels("llmseg", _find_boxes, id_fields=("id", "question_id"))
def read_llmseg(source: Source, row: Row, drawn: Drawn, record: str) -> Iterable[GroundingSample]:
    """Yield the prepared file's samples, with the paper's zero-shot wording for the query."""
    question = get_question(row, "question")
    boxes, further = keep_further(source, drawn)
    yield make_instructed(drawn.images[0], question, boxes, record, further, source.complete)


def _read_images(path: Path) -> Rows:
    for image, value in read_items(path):
        if image is None or not isinstance(value, dict):
            yield str(image), Unusable("bad_field", "an image's entry is an object with 'qa_pairs'")
        else:
            yield image, {**value, "image": image}


def _split_pairs(row: Row) -> Iterator[tuple[str, tuple[Row, Row]]]:
    yield from ((str(i), (row, pair)) for i, pair in enumerate(get_list(row, "qa_pairs")))


@reads("llmseg", id_fields=(), rows=_read_images, split=_split_pairs)
def read_llmseg_raw(source: Source, asked: tuple[Row, Row], record: str) -> Iterable[GroundingSample]:
    """Yield a sample for each question of each image of the raw file. The masks state the images' size."""
    row, pair = asked
    if not isinstance(pair, dict):
        raise Unusable("bad_field", "an entry of 'qa_pairs' is not an object")
    extents = rle_extents(get(pair, "rle_seg"))
    if not extents:
        raise Unusable("no_box", "the mask is empty")
    image = clean_path(row["image"])
    check_mask_size(source, image, extents)
    boxes = tuple(px_to_unit(*extent) for extent in extents)
    extra = {"from_dataset": row.get("from_dataset"), "answer": pair.get("answer")}
    question = get_question(pair, "question")
    yield make_instructed(image, question, boxes, record, extra, source.complete)
