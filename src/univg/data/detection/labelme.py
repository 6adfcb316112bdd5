"""Read labelme's folders, and X-AnyLabeling's: one JSON an image, beside it or in a folder of their own.

https://github.com/wkentaro/labelme. A JSON holds `shapes` of `label`, `points` and `shape_type`, and names its image in
`imagePath`, relative to itself, with the slashes of the machine it was made on. A rectangle's two corners come in any
order. Shapes with one label and one `group_id` are parts of one object, as labelme's own converters take them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from univg.data.detection.beside import PictureSearch
from univg.data.detection.images import DetectionImage
from univg.data.detection.listing import ListedBox, ListedImage, find_flag, gather_images, list_box
from univg.data.detection.shapes import circle_extent, extent, read_points
from univg.data.formats.faults import Unusable
from univg.data.formats.fields import get_list, shorten
from univg.data.formats.masks import union
from univg.data.formats.records import Source
from univg.errors import UnivgError
from univg.grounding.boxes import Box

__all__ = ["is_labelme", "read_labelme_images"]

_FLAGS = ("iscrowd", "is_crowd", "crowd", "difficult", "ignore", "ignored")
_CORNERS = ("rectangle", "mask")  # a mask's two points are the corners of its picture
_OUTLINES = ("polygon", "rotation", "quadrilateral")
_NO_BOX = ("point", "points", "line", "linestrip")


def is_labelme(value: Any) -> bool:
    """Tell labelme's JSON from ReasonSeg's, which also has `shapes`, and in which `is_sentence` says what is asked."""
    if not isinstance(value, Mapping) or "is_sentence" in value:
        return False
    return (
        len(value.keys() & {"shapes", "imagePath", "imageData", "imageHeight"}) > 1
    )  # shapes may be an empty list


def read_labelme_images(source: Source) -> list[DetectionImage]:
    """Return the images of a folder of labelme's JSON files (or of one of them), in the files' order.

    Images are looked for under the image root; without one, where `imagePath` says, beside the JSON files, and in
    `images` beside their folder. Without any image its size must be stated.
    """
    path = source.path
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if not files:
        raise UnivgError("no JSON file in this folder", path, "give the folder of labelme's JSON files")
    search = PictureSearch(source, path if path.is_dir() else path.parent, files, "labelme", "imagePath")
    return gather_images(source, search.list_images(_list_image))


def _list_image(search: PictureSearch, file: Path) -> ListedImage:
    record, row = search.record(file), _read_file(file)
    named = row.get("imagePath")
    written = named if isinstance(named, str) else ""
    exact = _find_exact(search.source, file, written)
    try:
        path = search.find(file, written, exact)
    except Unusable as fault:
        if fault.kind == "missing_image" and row.get("imageData"):
            fix = "write it out of the JSON with labelme_export_json, or fetch it"
            raise Unusable(fault.kind, f"{fault.cause}; it is embedded in the JSON alone", fix) from None
        raise
    boxes = _list_boxes(search.source, row, record)
    stated = (row.get("imageWidth"), row.get("imageHeight"))
    return ListedImage(record, written.replace("\\", "/") or file.stem, boxes, stated, path)


def _read_file(file: Path) -> Mapping[str, Any]:
    try:
        row = json.loads(file.read_text("utf-8-sig"))
    except OSError as error:
        raise Unusable("not_json", f"{file.name} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise Unusable("not_json", f"{file.name} is not JSON ({error})", "write the file again") from None
    if not is_labelme(row):
        fix = "move it out of the folder, or name its own --format"
        raise Unusable("bad_field", f"{file.name} is no labelme file: it has no shapes and imagePath", fix)
    return dict(row)


def _find_exact(source: Source, file: Path, written: str) -> Path | None:
    """Return the file at the very place that `imagePath` names, if it is there, and below the image root if any."""
    name = written.replace("\\", "/")
    if not name or "\0" in name or Path(name).is_absolute():
        return None
    path = Path(*_normalize((*file.parent.parts, *name.split("/"))))
    if source.images is None or not os.path.isfile(path):
        return path if os.path.isfile(path) else None
    folder = source.images.folder
    inside = path.resolve().is_relative_to(folder.resolve())
    return folder / path.resolve().relative_to(folder.resolve()) if inside else None


def _normalize(parts: tuple[str, ...]) -> list[str]:
    """Return the parts of a path without "." and without ".." that has a folder before it."""
    kept: list[str] = []
    for part in parts:
        if part == ".." and kept and kept[-1] not in ("..", "/"):
            kept.pop()
        elif part not in ("", "."):
            kept.append(part)
    return kept


# --- shapes ---


def _list_boxes(source: Source, row: Mapping[str, Any], record: str) -> list[ListedBox]:
    boxes: list[ListedBox] = []
    parts: dict[tuple[str, str], ListedBox] = {}
    for i, shape in enumerate(get_list(row, "shapes")):
        part = f"{record}@{i}"
        with source.reporting(part):
            if not isinstance(shape, Mapping):
                raise Unusable("bad_field", f"the shape {shorten(shape)} is no object")
            if shape.get("shape_type") in _NO_BOX:
                source.count(f"shape(s) that have no box are passed over: {shape['shape_type']}")
                continue
            box = _list_box(source, shape, part)
            key = (box.category, str(shape.get("group_id")))
            if shape.get("group_id") is not None and key in parts:
                source.count(
                    "shape(s) with the label and group_id of another are parts of its object: taken together"
                )
                whole = parts[key]
                whole.numbers, whole.passed_over = (
                    union([whole.numbers, box.numbers]),
                    whole.passed_over or box.passed_over,
                )
                continue
            parts[key] = box
            boxes.append(box)
    return boxes


def _list_box(source: Source, shape: Mapping[str, Any], part: str) -> ListedBox:
    label = shape.get("label")
    category = label.strip() if isinstance(label, str) else ""
    if not category:
        raise Unusable("missing_field", "the shape has no 'label'")
    why = _find_why_passed_over(shape, category)
    return list_box(part, category, partial(_read_extent, source, shape), why)


def _find_why_passed_over(shape: Mapping[str, Any], category: str) -> str:
    if category == "__ignore__":
        return "to be ignored"
    flags = shape.get("flags")
    said = {**(flags if isinstance(flags, Mapping) else {}), "difficult": shape.get("difficult")}
    return find_flag(_FLAGS, said.get)


def _read_extent(source: Source, shape: Mapping[str, Any]) -> Box:
    points = read_points(shape.get("points"))
    kind = shape.get("shape_type") or "polygon"
    if kind == "circle":
        if len(points) != 2:
            raise Unusable("bad_box", f"the circle has {len(points)} points, not a centre and one on its rim")
        return circle_extent(*points)
    if kind in _CORNERS and len(points) in (2, 4):
        return extent(points)
    if kind in _OUTLINES and len(points) >= 3:
        if kind == "rotation":
            source.count("turned rectangle(s) are given their extent")
        return extent(points)
    known = kind in (*_CORNERS, *_OUTLINES)
    raise Unusable("bad_box", f"a {kind} of {len(points)} points" + ("" if known else " is of no known kind"))
