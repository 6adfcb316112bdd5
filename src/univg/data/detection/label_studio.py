"""Read Label Studio's exports: JSON (a task with its annotations), JSON-MIN (an annotation a row), and single tasks.

https://labelstud.io/guide/export. Regions are in percent of their image; a turned rectangle is turned about its upper
left corner. Of a task with several images a region says by `item_index`, `source` or `to_name` which is its own. A task
that several people annotated has several answers: the one marked as ground truth counts, or what all agree on.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from univg.data.detection.addresses import AddressedPictures, looks_like_picture
from univg.data.detection.images import DetectionImage
from univg.data.detection.listing import ListedBox, ListedImage, gather_images, list_box
from univg.data.detection.regions import (
    LABELS,
    Region,
    collect_labels,
    has_place,
    list_shaped,
    name_labels,
    read_extent,
)
from univg.data.formats.faults import Unusable
from univg.data.formats.fields import get_list, get_object, read_flag, shorten
from univg.data.formats.records import Source, read_stated
from univg.data.formats.rows import read_rows
from univg.errors import UnivgError
from univg.grounding.boxes import SizeWH

__all__ = ["is_label_studio", "read_label_studio_images"]

_REPEATED = re.compile(r"_(\d+)$")
_OF_MIN = ("annotation_id", "annotator", "lead_time", "created_at", "updated_at", "id", "agreement")


def is_label_studio(row: Any) -> bool:
    """Tell whether a record is a task of Label Studio, or a row of JSON-MIN."""
    if not isinstance(row, Mapping):
        return False
    if isinstance(row.get("data"), Mapping):
        answers = [row.get(name) for name in ("annotations", "completions", "predictions")]
        return any(isinstance(answer, list) for answer in answers)
    if isinstance(row.get("task"), Mapping) and isinstance(row["task"].get("data"), Mapping):
        return isinstance(row.get("result"), list)
    by_labels = any(region["type"] != "rectangle" for region in _list_min_regions(row))
    return by_labels or {"annotation_id", "annotator", "lead_time"} <= row.keys()


def read_label_studio_images(source: Source) -> list[DetectionImage]:
    """Return the images of an export that somebody annotated, in its order, with their boxes.

    Images are looked for under the image root, else beside the file, by the ends of their addresses.
    """
    tasks = list(_read_tasks(source))
    choose = _choose_answer if any(task.answers for task in tasks) else _choose_prediction
    chosen = [(task, regions) for task in tasks for regions in choose(source, task)]
    if tasks and not any(task.answers or task.guesses for task in tasks):
        raise UnivgError(
            "no task of this export is annotated", source.path, "annotate, submit, and export again"
        )
    pictures = AddressedPictures(source, [address for task, _ in chosen for address in task.list_addresses()])
    listed: list[ListedImage] = []
    for task, regions in chosen:
        with source.reporting(task.record):
            listed += _list_images(source, task, regions, pictures)
    return gather_images(source, listed, "sides", "percent")


@dataclass
class _Task:
    """A task: its images by the names of the fields that hold them, and the answers of people and models."""

    record: str
    images: dict[str, list[str]]
    repeated: frozenset[str] = frozenset()
    """Fields that list objects, as <Repeater> takes them: its tags are named by their number, as page_0."""
    answers: list[list[Region]] = field(default_factory=list)
    true: list[list[Region]] = field(default_factory=list)
    """Those of the answers that are marked as ground truth."""
    guesses: list[list[Region]] = field(default_factory=list)

    def list_addresses(self) -> list[str]:
        return [address for addresses in self.images.values() for address in addresses]


# --- tasks ---


def _read_tasks(source: Source) -> Iterator[_Task]:
    """Yield the tasks of a file; rows of JSON-MIN with one id are answers to one task."""
    by_id: dict[str, _Task] = {}
    for position, row in read_rows(source.path):
        name = str(row["id"]) if isinstance(row, Mapping) and row.get("id") is not None else position
        record = f"label_studio#{name}"
        with source.reporting(record):
            if isinstance(row, Unusable):
                raise row
            if not isinstance(row, Mapping):
                raise Unusable("bad_field", f"a task is an object, not {shorten(row)}")
            whole = {**row["task"], "annotations": [row]} if isinstance(row.get("task"), Mapping) else row
            if "data" in whole:
                yield _read_task(source, whole, record)
            elif name in by_id:
                by_id[name].answers.append(_list_min_regions(row))
            else:
                data = {key: value for key, value in row.items() if key not in _OF_MIN}
                by_id[name] = _Task(record, _find_images(data), answers=[_list_min_regions(row)])
    yield from by_id.values()


def _read_task(source: Source, row: Mapping[str, Any], record: str) -> _Task:
    data = get_object(row, "data")
    images = _find_images(data)
    repeated = frozenset(
        name for name in images if isinstance(data[name], list) and isinstance(data[name][0], Mapping)
    )
    task = _Task(record, images, repeated)
    name = "completions" if row.get("annotations") is None else "annotations"
    for answer in get_list(row, name) if row.get(name) is not None else []:
        if not isinstance(answer, Mapping):
            raise Unusable("bad_field", f"an annotation is an object, not {shorten(answer)}")
        if read_flag(answer.get("was_cancelled"), "was_cancelled") or read_flag(
            answer.get("skipped"), "skipped"
        ):
            source.count("answer(s) that were skipped (was_cancelled) are passed over")
            continue
        regions = get_list(answer, "result")
        task.answers.append(regions)
        if read_flag(answer.get("ground_truth"), "ground_truth"):
            task.true.append(regions)
    for guess in get_list(row, "predictions") if row.get("predictions") is not None else []:
        if isinstance(guess, Mapping) and guess.get("result"):
            task.guesses.append(get_list(guess, "result"))
    return task


def _find_images(data: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the addresses of images in a task's data, by the names of their fields."""
    found: dict[str, list[str]] = {}
    for name, value in data.items():
        items = value if isinstance(value, list) else [value]
        texts = [
            next(iter(item.values()), None) if isinstance(item, Mapping) and len(item) == 1 else item
            for item in items
        ]
        addresses = [text for text in texts if isinstance(text, str) and text]
        if addresses and len(addresses) == len(items) and all(map(looks_like_picture, addresses)):
            found[name] = addresses
    if not found:  # an address without a suffix
        for name in ("image", "img", "images"):
            if isinstance(data.get(name), str) and data[name]:
                found[name] = [data[name]]
    return found


def _list_min_regions(row: Mapping[str, Any]) -> list[Region]:
    """Return the regions of a row of JSON-MIN, in the shape that the full export has.

    A shape without a label is one only if no labelled one has its place: tags beside it repeat the place.
    """
    labelled: list[Region] = []
    others: list[Region] = []
    for name, values in row.items():
        for value in values if isinstance(values, list) else []:
            if not isinstance(value, Mapping) or not (
                {"x", "width"} <= value.keys() or value.keys() & {"points", "rle"}
            ):
                continue
            kinds = [kind for kind in (*LABELS, "labels") if kind in value]
            stated = {side: value.get(side) for side in ("original_width", "original_height", "item_index")}
            region = {"from_name": name, "type": (kinds or ["rectangle"])[0], "value": value, **stated}
            (labelled if kinds else others).append(region)
    places = set(map(_find_place, labelled))
    return labelled + [region for region in others if _find_place(region) not in places]


def _find_place(region: Region) -> str:
    return repr([region["value"].get(name) for name in ("x", "y", "width", "height", "points")])


# --- whose answer ---


def _choose_answer(source: Source, task: _Task) -> Iterator[list[Region]]:
    """Yield the regions that count; none, and say why, if nobody annotated the task or people differ."""
    if not task.answers:
        if task.guesses:
            source.count(
                "task(s) that hold only a model's predictions are passed over: nobody has annotated them"
            )
        else:
            source.count("task(s) that nobody has annotated are passed over")
        return
    with source.reporting(task.record):
        yield _agree(task.true or task.answers, "annotations", "mark one as ground truth in Label Studio")


def _choose_prediction(source: Source, task: _Task) -> Iterator[list[Region]]:
    if task.guesses:
        source.note("no task is annotated: the boxes are a model's predictions, which nobody has checked")
        with source.reporting(task.record):
            yield _agree(task.guesses, "predictions", "keep those of one model")


def _agree(answers: list[list[Region]], what: str, fix: str) -> list[Region]:
    if len({frozenset(map(_name_region, regions)) for regions in answers}) > 1:
        raise Unusable("several_answers", f"{len(answers)} {what} of one task differ", fix)
    return answers[0]


def _name_region(region: Any) -> str:
    """Return what a region says, without who drew it when."""
    if not isinstance(region, Mapping):
        return repr(region)
    value = region.get("value")
    return repr((region.get("type"), region.get("item_index"), region.get("to_name"), value))


# --- regions ---


def _list_images(
    source: Source, task: _Task, regions: list[Region], pictures: AddressedPictures
) -> list[ListedImage]:
    addresses = task.list_addresses()
    if not addresses:
        kinds = (
            ", ".join(sorted({str(region.get("type")) for region in regions if isinstance(region, Mapping)}))
            or "nothing"
        )
        raise Unusable("no_images", f"the task has no image; its annotation holds {kinds}")
    boxes: dict[str, list[ListedBox]] = {address: [] for address in addresses}
    stated: dict[str, set[SizeWH]] = defaultdict(set)
    labels, shaped = collect_labels(regions), list_shaped(regions)
    for i, region in enumerate(regions):
        name = region.get("id") or i if isinstance(region, Mapping) else i
        part = f"{task.record}@{name}"
        with source.reporting(part):
            if not isinstance(region, Mapping):
                raise Unusable("bad_field", f"the region {shorten(region)} is no object")
            if not has_place(source, region, shaped):
                continue
            address = _choose_image(task, region)
            size = read_stated((region.get("original_width"), region.get("original_height")))
            if size is not None:
                stated[address].add(size)
            for label in name_labels(region, labels.get(str(region.get("id")), [])):
                boxes[address].append(list_box(part, label, partial(read_extent, source, region, size)))
    # Of several fields with images some may only be shown beside: nobody says that nothing is on those.
    drawn_on = [
        shown for shown in task.images.values() if len(task.images) == 1 or any(map(boxes.get, shown))
    ]
    listed = []
    for k, address in enumerate(dict.fromkeys(address for shown in drawn_on for address in shown)):
        record = f"{task.record}@image {k}" if len(addresses) > 1 else task.record
        with source.reporting(record):
            if len(stated[address]) > 1:
                both = " and ".join(f"{width}x{height}" for width, height in sorted(stated[address]))
                raise Unusable("size_mismatch", f"its regions state {both} for one image")
            size = next(iter(stated[address]), None)
            path, written = pictures.find(address, len(boxes[address]))
            listed.append(ListedImage(record, written, boxes[address], size or (None, None), path))
    return listed


def _choose_image(task: _Task, region: Region) -> str:
    """Return the address of the image that a region lies on."""
    addresses = task.list_addresses()
    index = region.get("item_index")
    named = _find_field(task, region)
    items = task.images[named] if named else addresses if len(task.images) == 1 else []
    if index is not None and items:
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(items):
            raise Unusable("bad_field", f"item_index {index} is none of the task's {len(items)} image(s)")
        return items[index]
    repeated = _REPEATED.search(str(region.get("to_name")))
    if (
        repeated
        and len(task.images) == 1
        and task.images.keys() <= task.repeated
        and int(repeated[1]) < len(items)
    ):
        return items[int(repeated[1])]
    if len(items) == 1:
        return items[0]
    if len(set(addresses)) == 1:
        return addresses[0]
    said = f"to_name {region.get('to_name')!r}" if region.get("to_name") else "nothing"
    cause = f"which of the task's {len(addresses)} images it lies on is not known ({said}, and no item_index)"
    raise Unusable("which_image", cause, "name the data's field in 'source', as $image, or give 'item_index'")


def _find_field(task: _Task, region: Region) -> str:
    """Return the field of the data that a region names: in `source`, or by the name of the tag it belongs to."""
    written = region.get("source")
    if isinstance(written, str) and written.removeprefix("$") in task.images:
        return written.removeprefix("$")
    name = region.get("to_name")
    return name if isinstance(name, str) and name in task.images else ""
