"""Read LLM-Seg40K: the prepared `LLMSeg_eval.json`, and the raw file with run-length masks.

Prepared: `image_path`, `question`, `bbox` (pixels; nested lists, of which the first four numbers count).
Raw: `{image: {from_dataset, qa_pairs: [{question, answer, rle_seg}]}}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from univg.data.formats.faults import Unusable
from univg.data.formats.fields import Row, clean_path, get, get_images, get_list, get_question, read_box
from univg.data.formats.json_stream import read_items
from univg.data.formats.masks import rle_extent
from univg.data.formats.records import Source, reads
from univg.data.formats.rows import Rows
from univg.data.readers.reasonseg import make_instructed
from univg.grounding.boxes import px_to_unit
from univg.grounding.samples import GroundingSample

__all__ = ["read_llmseg", "read_llmseg_raw"]


@reads("llmseg", id_fields=("id", "question_id"))
def read_llmseg(source: Source, row: Row, record: str) -> Iterable[GroundingSample]:
    """Yield the prepared file's samples, with the paper's zero-shot wording for the query."""
    image = get_images(row, "image_path")[0]
    box_px = read_box(get(row, "bbox"), "'bbox'", several=True)
    box = px_to_unit(box_px, source.read_size(image))
    yield make_instructed(image, get_question(row, "question"), box, record)


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
    extent = rle_extent(get(pair, "rle_seg"))
    if extent is None:
        raise Unusable("no_box", "the mask is empty")
    extra = {"from_dataset": row.get("from_dataset"), "answer": pair.get("answer")}
    question = get_question(pair, "question")
    yield make_instructed(clean_path(row["image"]), question, px_to_unit(*extent), record, extra)
