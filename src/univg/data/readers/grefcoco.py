"""Read gRefCOCO: `grefs(unc).json`, and `instances.json` beside it, as published.

github.com/henghuiding/gRefCOCO (its mdetr/scripts/fine-tuning/grefexp_coco_format.py reads the same file). A list of
`ref_id`, `image_id`, `split`, `ann_id` (one or a list; [-1] where nothing is meant), `no_target`, and `sentences` of
`sent_id` and `sent`. What an expression means are all objects of `ann_id`, and nothing else: every sample is
complete. Boxes are those of COCO's annotations, x y width height in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from univg.data.formats.faults import Unusable
from univg.data.formats.fields import Row, get, get_list, get_question, get_text, read_box, read_flag, shorten
from univg.data.formats.json_stream import read_items
from univg.data.formats.pixels import find_size, place_boxes
from univg.data.formats.records import Source, make_samples, read_stated
from univg.data.formats.rows import read_rows
from univg.data.readers.refcoco import find_named
from univg.data.readers.wording import ask_every
from univg.errors import UnivgError
from univg.grounding.boxes import Box, SizeWH
from univg.grounding.samples import GroundingSample

__all__ = ["read_grefcoco"]

INSTANCES = "instances.json"


class _Picture(NamedTuple):
    name: str
    stated_wh: SizeWH | None


@dataclass
class _Instances:
    """What `instances.json` says: of an annotation its image and box, of an image its name and size; by their ids."""

    annotations: dict[str, tuple[str, Any]] = field(default_factory=dict)
    images: dict[str, _Picture] = field(default_factory=dict)


def read_grefcoco(source: Source) -> Iterator[GroundingSample]:
    """Yield a sample for each expression; its task is the split, as `grefcoco_testA`."""
    instances = _read_instances(source.path.with_name(INSTANCES))

    @cache
    def find_picture(picture: _Picture) -> tuple[str, SizeWH]:
        name = find_named(source, [picture.name])
        return name, find_size(source, name, picture.stated_wh, certainly=True)

    def convert(part: tuple[Row, Any], record: str) -> Iterable[GroundingSample]:
        row, sentence = part
        if not isinstance(sentence, Mapping):
            raise Unusable("bad_field", f"a sentence is {shorten(sentence)}, no object")
        text = get_question(sentence, "sent")
        image_id = str(get(row, "image_id"))
        if image_id not in instances.images:
            raise Unusable("missing_image", f"the image {image_id} is not in {INSTANCES}", _SAME)
        name, size = find_picture(instances.images[image_id])
        boxes = place_boxes(_list_boxes(row, instances), "pixel", size)
        extra = {"expression": text}
        task = f"grefcoco_{get_text(row, 'split')}"
        yield GroundingSample(
            *((name,), ask_every(text), task, boxes, 0),
            complete=True,
            thinking=False,
            source=record,
            extra=extra,
        )

    rows = read_rows(source.path)
    yield from make_samples(source, "grefcoco", rows, convert, ("ref_id",), _split_sentences)


_SAME = "take both files of one release"


def _split_sentences(row: Row) -> Iterator[tuple[str, tuple[Row, Any]]]:
    for place, sentence in enumerate(get_list(row, "sentences")):
        number = sentence.get("sent_id", place) if isinstance(sentence, Mapping) else place
        yield str(number), (row, sentence)


def _list_boxes(row: Row, instances: _Instances) -> Iterator[Box]:
    """Yield x1 y1 x2 y2 in pixels of all that an expression means."""
    for number in _list_targets(row):
        if number not in instances.annotations:
            raise Unusable("no_box", f"the annotation {number} is not in {INSTANCES}", _SAME)
        image_id, bbox = instances.annotations[number]
        if image_id != str(row["image_id"]):
            cause = f"the annotation {number} is of image {image_id}, the expression of {row['image_id']}"
            raise Unusable("which_image", cause, _SAME)
        x, y, width, height = read_box(bbox, f"'bbox' of annotation {number}")
        yield x, y, x + width, y + height


def _list_targets(row: Row) -> list[str]:
    """Return the ids of the annotations that an expression means; none where it means nothing."""
    value = get(row, "ann_id")
    ids = value if isinstance(value, list) else [value]
    if not ids or not all(isinstance(one, int) and not isinstance(one, bool) for one in ids):
        raise Unusable("bad_field", f"'ann_id' is {shorten(value)}, not one or more ids")
    if -1 in ids and ids != [-1]:
        raise Unusable("bad_field", f"'ann_id' is {shorten(value)}: -1 says that nothing is meant")
    if row.get("no_target") is not None and read_flag(row["no_target"], "no_target") != (ids == [-1]):
        cause = f"'no_target' is {row['no_target']}, and 'ann_id' is {shorten(value)}"
        raise Unusable("several_answers", cause, "correct the one that is wrong")
    return [] if ids == [-1] else list(dict.fromkeys(map(str, ids)))


def _read_instances(path: Path) -> _Instances:
    """Read what is needed of the annotations. Streams the file: most of it are outlines."""
    if not path.is_file():
        fix = f"put gRefCOCO's {INSTANCES} there, which holds the boxes"
        raise UnivgError(f"no {INSTANCES} beside the expressions", path, fix)
    found = _Instances()
    for key, value in read_items(path):
        if not isinstance(value, Mapping):
            continue
        if key == "annotations" and "id" in value:
            found.annotations[str(value["id"])] = str(value.get("image_id")), value.get("bbox")
        elif key == "images" and isinstance(value.get("file_name"), str):
            stated = read_stated((value.get("width"), value.get("height")))
            found.images[str(value.get("id"))] = _Picture(value["file_name"], stated)
    if not found.images or not found.annotations:
        raise UnivgError("no images and annotations in it", path, "give gRefCOCO's own file")
    return found
