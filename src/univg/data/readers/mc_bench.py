"""Read MC-Bench: `mc-bench_v0.2_val.json` as published, or `MC-Bench_coco_format.json`, which its evaluation reads.

arXiv 2410.12332; its README describes the format. `descriptions` of `id`, `text`, `images_id`, `positive_sample`,
`text_style`; `images` of `id`, `file_name`, `width`, `height`; `annotations` of `text_id`, `image_id`, `category_id`,
`bbox` (x y width height in pixels). The other file has no descriptions: there the images hold `description`, `pair_id`
and `id_in_pair`, the annotations `pair_id`. Every instance that a text means is annotated, on whichever image; a text
that is no positive sample means nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from univg.data.formats.faults import Unusable
from univg.data.formats.fields import Row, clean_path, get_list, get_question, get_text, read_box, shorten
from univg.data.formats.json_stream import read_items
from univg.data.formats.pixels import find_size, place_boxes
from univg.data.formats.records import Source, make_samples, read_stated
from univg.data.formats.rows import Rows
from univg.data.readers.wording import ask_every
from univg.errors import UnivgError
from univg.grounding.boxes import Box
from univg.grounding.samples import GroundingSample

__all__ = ["read_mc_bench"]

TASK = "multi_context"


@dataclass
class _Bench:
    texts: list[Row] = field(default_factory=list)
    images: dict[str, Row] = field(default_factory=dict)
    annotations: defaultdict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    """By the text that they belong to."""


def read_mc_bench(source: Source) -> Iterator[GroundingSample]:
    """Yield a sample for each text; its task is the style of the text: referring, comparison or reasoning."""
    bench = _read_file(source)

    def convert(row: Row, record: str) -> Iterable[GroundingSample]:
        ids = [str(number) for number in get_list(row, "images_id")]
        entries = [_find_image(bench, number) for number in ids]
        names = tuple(clean_path(get_text(entry, "file_name")) for entry in entries)
        boxes: list[Box] = []
        on: list[int] = []
        groups: list[Any] = []
        for annotation in sorted(
            bench.annotations[str(row.get("id"))], key=lambda one: _find_place(one, ids)
        ):
            place = _find_place(annotation, ids)
            stated = read_stated((entries[place].get("width"), entries[place].get("height")))
            x, y, width, height = read_box(annotation.get("bbox"), "'bbox'")
            size = find_size(source, names[place], stated, certainly=True)
            boxes += place_boxes([(x, y, x + width, y + height)], "pixel", size)
            on.append(place)
            groups.append(
                annotation.get("category_id", annotation.get("catgory_id"))
            )  # the README's spelling
        text = get_question(row, "text")
        _check_positive(row, len(boxes))
        extra = {"expression": text, "protocol": {"groups": groups}}
        yield GroundingSample(
            *(names, ask_every(text, len(names)), str(row.get("text_style") or TASK).lower(), tuple(boxes)),
            box_images=tuple(on),
            complete=True,
            source=record,
            extra=extra,
        )

    yield from make_samples(source, "mc_bench", _list_rows(bench), convert)


def _list_rows(bench: _Bench) -> Rows:
    yield from ((str(place), text) for place, text in enumerate(bench.texts))


def _find_image(bench: _Bench, number: str) -> Row:
    if number not in bench.images:
        raise Unusable("missing_image", f"the image {number} is not among the 'images'", "add its entry")
    return bench.images[number]


def _find_place(annotation: Row, ids: list[str]) -> int:
    """Return on which of a text's images an annotation lies, from 0."""
    image = str(annotation.get("image_id"))
    if image not in ids:
        cause = f"the annotation {annotation.get('id')} is of image {image}, not of {', '.join(ids)}"
        raise Unusable("which_image", cause, "correct its image_id")
    return ids.index(image)


def _check_positive(row: Row, n_boxes: int) -> None:
    positive = row.get("positive_sample")
    if positive is not None and bool(positive) != bool(n_boxes):
        cause = f"'positive_sample' is {shorten(positive)}, and {n_boxes} box(es) are annotated"
        raise Unusable("several_answers" if n_boxes else "no_box", cause, "correct the one that is wrong")


def _read_file(source: Source) -> _Bench:
    bench = _Bench()
    for key, value in read_items(source.path):
        if not isinstance(value, Mapping):
            continue
        if key == "descriptions":
            bench.texts.append(value)
        elif key == "images":
            bench.images[str(value.get("id"))] = value
        elif key == "annotations":
            bench.annotations[str(value.get("text_id", value.get("pair_id")))].append(value)
    if not bench.texts:
        bench.texts = list(_pair_images(bench.images.values()))
    if not bench.texts:
        raise UnivgError("no 'descriptions' in it", source.path, "give mc-bench_v0.2_val.json")
    return bench


def _pair_images(images: Iterable[Row]) -> Iterator[Row]:
    """Yield what the file that the evaluation reads has instead of descriptions."""
    pairs: defaultdict[str, list[Row]] = defaultdict(list)
    for image in images:
        if image.get("pair_id") is not None:
            pairs[str(image["pair_id"])].append(image)
    for number, some in pairs.items():
        some.sort(key=lambda image: str(image.get("id_in_pair")))
        yield {
            "id": number,
            "images_id": [image.get("id") for image in some],
            "text": some[0].get("description"),
        }
