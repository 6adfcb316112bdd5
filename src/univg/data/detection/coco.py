"""Read COCO detection files, and COCO-video: one JSON object of `images`, `annotations` and `categories`.

https://cocodataset.org/#format-data. Files in the wild write ids as texts, categories as an object, boxes as texts or
objects, and flags as words; all of these are read. Two entries with one id leave open whose boxes are meant: refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from univg.data.detection.coco_folder import choose_coco_file, find_coco_pictures
from univg.data.detection.images import DetectionImage
from univg.data.detection.listing import ListedBox, ListedImage, find_flag, gather_images, list_box
from univg.data.detection.shapes import extent, to_sides
from univg.data.formats.faults import Unusable
from univg.data.formats.fields import clean_path, find_numbers, read_box, shorten
from univg.data.formats.json_stream import read_items
from univg.data.formats.masks import rle_extent, union
from univg.data.formats.records import Source, read_stated
from univg.errors import UnivgError
from univg.grounding.boxes import Box

__all__ = ["read_coco_images"]

_FLAGS = ("iscrowd", "ignore", "difficult")
_ANNOTATION = (
    *("id", "bbox", "category_id", "segmentation", "track_id", "instance_id"),
    *_FLAGS,
)
_IMAGE = (
    "file_name",
    "width",
    "height",
    "video_id",
    "frame_id",
    "frame_index",
    "not_exhaustive_category_ids",
)


@dataclass
class _Coco:
    images: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """By id. More than one entry with an id is a fault, unless they say the same."""
    categories: dict[str, set[str]] = field(default_factory=dict)
    annotations: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    """By the id of their image."""


def _name_id(value: Any) -> str:
    """Return an id as text: 1, 1.0 and "1" are one id."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def read_coco_images(source: Source) -> list[DetectionImage]:
    """Return the images of a COCO detection (or COCO-video) file, by file name, with their boxes (x y w h, pixels).

    Of a folder the one COCO file in it, with its pictures in their usual place.
    """
    folder, source = source.path, replace(source, path=choose_coco_file(source.path))
    coco = _read_file(source)
    for image_id in coco.annotations.keys() - coco.images.keys():
        for annotation in coco.annotations[image_id]:
            with source.reporting(f"coco#{annotation.get('id')}"):
                cause = f"its image {image_id} is not among the images"
                raise Unusable("missing_image", cause, "add the image's entry")
    listed = []
    for image_id, entries in coco.images.items():
        with source.reporting(f"coco#{image_id}"):
            listed.append(_list_image(source, coco, image_id, entries))
    if folder != source.path:
        find_coco_pictures(source, folder, source.path, listed)
    return sorted(gather_images(source, listed, "sides"), key=lambda image: image.name)


def _read_file(source: Source) -> _Coco:
    coco = _Coco()
    segments = captions = 0
    for key, value in read_items(source.path):
        if key == "categories" and isinstance(value, dict):
            for category_id, name in _list_categories(value):
                coco.categories.setdefault(_name_id(category_id), set()).add(name)
        elif isinstance(value, Unusable):  # a key stands twice in it
            with source.reporting(f"coco#{key}"):
                raise value
        elif key in ("images", "annotations") and not isinstance(value, dict):
            with source.reporting(f"coco#{key}"):
                raise Unusable("bad_field", f"{shorten(value)} among the {key} is no object")
        elif key == "images":
            entry = {name: value.get(name) for name in _IMAGE}
            entry["file_name"] = entry["file_name"] or _find_name(value)
            coco.images.setdefault(_name_id(value.get("id")), []).append(entry)
        elif key == "annotations":
            segments += "segments_info" in value
            captions += "caption" in value and "bbox" not in value
            kept = {name: value[name] for name in _ANNOTATION if name in value}
            if _holds_box(value.get("bbox")):
                kept.pop("segmentation", None)
            coco.annotations.setdefault(_name_id(value.get("image_id")), []).append(kept)
    if segments:
        fix = "convert it to instances first: panopticapi's converters/panoptic2detection_coco_format.py"
        raise UnivgError("a COCO panoptic file, whose objects are colours of PNG files", source.path, fix)
    if captions and captions == sum(map(len, coco.annotations.values())):
        fix = "give instances_*.json of the same images"
        raise UnivgError("COCO captions, which have no boxes", source.path, fix)
    _check_numbering(source, coco)
    if not coco.images:
        raise UnivgError("no 'images' in this COCO file", source.path, "give a detection annotation file")
    return coco


def _find_name(image: Mapping[str, Any]) -> Any:
    """Return the path of an image that only an address names, as LVIS does: folder and name, as val2017/1.jpg."""
    address = image.get("coco_url")
    return "/".join(address.split("/")[-2:]) if isinstance(address, str) and "://" in address else None


def _check_numbering(source: Source, coco: _Coco) -> None:
    """Refuse a file whose annotations count categories from another number than its categories do."""
    used = {_name_id(one.get("category_id")) for some in coco.annotations.values() for one in some}
    numbers = sorted(int(name) for name in coco.categories if name.isdigit())
    counted = sorted(int(name) for name in used if name.isdigit())
    if not numbers or not counted or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        return
    if (counted[0], numbers[0]) == (0, 1) or (counted[-1], numbers[-1]) == (len(numbers), len(numbers) - 1):
        cause = (
            f"annotations number the categories {counted[0]} to {counted[-1]}, and the categories go from "
            f"{numbers[0]} to {numbers[-1]}: their names may all be shifted by one"
        )
        raise UnivgError(cause, source.path, "number both alike")


def _list_categories(value: dict[str, Any]) -> Iterable[tuple[Any, str]]:
    """Yield id and name: of one entry, or of all where they are written as an object of names by id."""
    if "id" in value or "name" in value:
        yield value.get("id"), _read_name(value.get("name"))
        return
    for category_id, name in value.items():
        yield category_id, _read_name(name.get("name") if isinstance(name, dict) else name)


def _read_name(name: Any) -> str:
    """Return a category's name, which may be a number; "" for what is none."""
    return str(name).strip() if isinstance(name, (str, int)) and not isinstance(name, bool) else ""


def _list_image(source: Source, coco: _Coco, image_id: str, entries: list[dict[str, Any]]) -> ListedImage:
    record, entry = f"coco#{image_id}", entries[0]
    if not isinstance(entry["file_name"], str) or not entry["file_name"]:
        raise Unusable("missing_field", "the image has no 'file_name'")
    annotations = coco.annotations.pop(image_id, [])  # a large set is not held twice
    others = {clean_path(str(other["file_name"])) for other in entries} - {clean_path(entry["file_name"])}
    if others:
        cause = (
            f"{entry['file_name']} and {', '.join(sorted(others))} have one id, so whose the {len(annotations)} "
            "box(es) are is not known"
        )
        raise Unusable("ambiguous_id", cause, "give each image an id of its own, and its boxes too")
    if image_id == "None":
        raise Unusable("missing_field", f"the image {entry['file_name']} has no 'id'")
    if len({read_stated((one["width"], one["height"])) for one in entries}) > 1:
        raise Unusable("ambiguous_id", f"{entry['file_name']} is listed with one id and two sizes")
    if len(entries) > 1:
        source.note(f"images are listed more than once with one id, as {entry['file_name']}: taken as one")
    partly = entry["not_exhaustive_category_ids"]  # LVIS
    incomplete = set(map(_name_id, partly)) if isinstance(partly, list) else set()
    boxes = []
    for annotation in annotations:
        part = f"{record}@{annotation.get('id')}"
        with source.reporting(part):
            boxes.append(_list_box(source, coco, annotation, part))
            if _name_id(annotation.get("category_id")) in incomplete:
                boxes[-1].passed_over = boxes[-1].passed_over or "not all annotated"
    frame = entry["frame_id"] if entry["frame_id"] is not None else entry["frame_index"]
    video = None if entry["video_id"] is None else str(entry["video_id"])
    number = frame if isinstance(frame, int) else 0
    stated = (entry["width"], entry["height"])
    return ListedImage(record, entry["file_name"], boxes, stated, video=video, frame=number)


def _list_box(source: Source, coco: _Coco, annotation: Mapping[str, Any], part: str) -> ListedBox:
    category_id = _name_id(annotation.get("category_id"))
    names = coco.categories.get(category_id, set())
    if not names:
        raise Unusable("missing_field", f"its category {category_id} is not among the categories")
    if len(names) > 1:
        raise Unusable("ambiguous_id", f"its category {category_id} is {' and '.join(sorted(names))}")
    name = min(names)
    if not name:
        raise Unusable("missing_field", f"its category {category_id} has no name")
    passed = find_flag(_FLAGS, annotation.get)
    track = annotation.get("track_id", annotation.get("instance_id"))
    read = partial(_read_bbox, source, annotation)
    return list_box(part, name, read, passed, None if track is None else str(track))


def _holds_box(bbox: Any) -> bool:
    return bbox is not None and bbox != []


def _read_bbox(source: Source, annotation: Mapping[str, Any]) -> Box:
    """Return x y width height, as written or as the extent of the segmentation."""
    bbox = annotation.get("bbox")
    if isinstance(bbox, Mapping):
        for names in (("x", "y", "width", "height"), ("x", "y", "w", "h")):
            if all(name in bbox for name in names):
                return read_box([bbox[name] for name in names], "'bbox'")
        raise Unusable("bad_box", f"'bbox' is {shorten(bbox)}, without x, y, width and height")
    if _holds_box(bbox):
        return read_box(bbox, "'bbox'")
    found = _find_extent(annotation.get("segmentation"))
    if found is None:
        raise Unusable("bad_box", f"'bbox' is {shorten(bbox)}, not x y w h, and there is no segmentation")
    source.count("object(s) without a box, but with a segmentation, are given its extent")
    return to_sides(found)


def _find_extent(segmentation: Any) -> Box | None:
    """Return the extent of polygons or of a run-length mask; None if there is neither."""
    if isinstance(segmentation, Mapping):
        found = rle_extent(segmentation)
        return None if found is None else found[0]
    polygons = segmentation if isinstance(segmentation, list) else []
    if polygons and not isinstance(polygons[0], list):
        polygons = [polygons]
    boxes = []
    for numbers in map(find_numbers, polygons):
        if len(numbers) >= 6 and len(numbers) % 2 == 0:
            boxes.append(extent(zip(numbers[0::2], numbers[1::2], strict=True)))
    return union(boxes) if boxes else None
