"""Read detection sets: COCO JSON and Pascal VOC XML, as images with their instances, and as samples.

A detection set is an index, not a list of records: boxes and images stand apart in COCO, one file an image in
VOC. So it is read into `DetectionImage`s first. `univg.data.building.build` makes multi-image tasks of them; the
readers here make one sample an image and category.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from univg.data.formats.faults import RecordFault, Unusable, report
from univg.data.formats.fields import clean_path, shorten
from univg.data.formats.json_stream import read_items
from univg.data.formats.records import Source, read_size
from univg.errors import UnivgError
from univg.grounding.boxes import Box, SizeWH, clip_unit, is_degenerate, px_to_unit
from univg.grounding.samples import GroundingSample

__all__ = [
    "DetectionImage",
    "Instance",
    "read_coco",
    "read_coco_images",
    "read_detection",
    "read_voc",
    "read_voc_images",
]

TASK = "detection"
_VOC_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, slots=True)
class Instance:
    """An annotated object: its category, box (unit frame, clipped), and whose track it belongs to, if any.

    `alone` is False for what marks a crowd, or is called difficult: there, but no target.
    """

    category: str
    box: Box
    alone: bool = True
    track: str | None = None


@dataclass(frozen=True, slots=True)
class DetectionImage:
    """An image with its instances. `video` and `frame` place it in an ordered sequence, if it is in one."""

    name: str
    """The image's path, relative to the image root."""
    record: str
    size_wh: SizeWH
    instances: tuple[Instance, ...]
    video: str | None = None
    frame: int = 0


def read_detection(source: Source) -> list[DetectionImage]:
    """Return the images of a COCO JSON file, or of a VOC folder or XML file."""
    if source.path.is_dir() or source.path.suffix.lower() == ".xml":
        return read_voc_images(source)
    return read_coco_images(source)


def read_coco(source: Source) -> Iterator[GroundingSample]:
    """Yield a sample for each image and category of a COCO file."""
    yield from _ask_for_categories(read_coco_images(source))


def read_voc(source: Source) -> Iterator[GroundingSample]:
    """Yield a sample for each image and category of a VOC folder."""
    yield from _ask_for_categories(read_voc_images(source))


def _ask_for_categories(images: Iterable[DetectionImage]) -> Iterator[GroundingSample]:
    for image in images:
        for category in sorted({instance.category for instance in image.instances if instance.alone}):
            here = [i for i in image.instances if i.category == category]
            if not all(instance.alone for instance in here):
                continue  # a crowd: its members have no boxes of their own, so no question about them is fair
            query = f"Locate {'the' if len(here) == 1 else 'every'} {category} in the image."
            boxes, name = tuple(instance.box for instance in here), f"{image.record}@{category}"
            yield GroundingSample((image.name,), query, TASK, boxes, 0, thinking=False, source=name)


# --- COCO ---


@dataclass
class _Coco:
    images: dict[Any, dict[str, Any]] = field(default_factory=dict)
    categories: dict[Any, str] = field(default_factory=dict)
    boxes: dict[Any, list[tuple[Any, Any, Any, bool, str | None]]] = field(default_factory=dict)
    """By image: (annotation id, category id, bbox, crowd, track)."""


_COCO_IMAGE = ("file_name", "width", "height", "video_id", "frame_id", "frame_index")


def read_coco_images(source: Source) -> list[DetectionImage]:
    """Return the images of a COCO detection (or COCO-video) file, by file name, with their boxes (x y w h, pixels)."""
    coco = _Coco()
    for key, value in read_items(source.path):
        if not isinstance(value, dict):
            continue
        if key == "images":
            coco.images[value.get("id")] = {name: value.get(name) for name in _COCO_IMAGE}
        elif key == "categories":
            coco.categories[value.get("id")] = str(value.get("name"))
        elif key == "annotations":
            track = value.get("track_id", value.get("instance_id"))
            entry = (
                *(value.get("id"), value.get("category_id"), value.get("bbox")),
                *(bool(value.get("iscrowd")), None if track is None else str(track)),
            )
            coco.boxes.setdefault(value.get("image_id"), []).append(entry)
    if not coco.images:
        raise UnivgError("no 'images' in this COCO file", source.path, "give a detection annotation file")
    for image_id in coco.boxes.keys() - coco.images.keys():
        for annotation, *_ in coco.boxes[image_id]:
            with source.reporting(f"coco#{annotation}"):
                cause = f"its image {image_id} is not among the images"
                raise Unusable("missing_image", cause, "add the image's entry")
    found = []
    for image_id in coco.images:
        with source.reporting(f"coco#{image_id}"):
            found.append(_make_coco_image(source, coco, image_id))
    return sorted(found, key=lambda image: image.name)


def _make_coco_image(source: Source, coco: _Coco, image_id: Any) -> DetectionImage:
    entry = coco.images[image_id]
    record = f"coco#{image_id}"
    if not isinstance(entry["file_name"], str) or not entry["file_name"]:
        raise Unusable("missing_field", "the image has no 'file_name'")
    name = clean_path(entry["file_name"])
    size = _find_size(source, name, (entry["width"], entry["height"]))
    instances = []
    for annotation, category, bbox, crowd, track in coco.boxes.get(image_id, ()):
        part = f"{record}@{annotation}"
        with source.reporting(part):
            if category not in coco.categories:
                raise Unusable("missing_field", f"its category {category} is not among the categories")
            x, y, width, height = _read_four(bbox, "'bbox'", "x y w h")
            box = _clip_box(source, part, (x, y, x + width, y + height), size)
            instances.append(Instance(coco.categories[category], box, not crowd, track))
    frame = entry["frame_id"] if entry["frame_id"] is not None else entry["frame_index"]
    video = None if entry["video_id"] is None else str(entry["video_id"])
    return DetectionImage(name, record, size, tuple(instances), video, frame if isinstance(frame, int) else 0)


# --- Pascal VOC ---


def read_voc_images(source: Source) -> list[DetectionImage]:
    """Return the images of a VOC folder (`Annotations/*.xml`, or XML files in it), in the files' order.

    Images are looked for under the image root; without one, in `JPEGImages` beside `Annotations`, and beside
    the XML files. Coordinates are taken as edges in pixels.
    """
    path = source.path
    folder = path / "Annotations" if (path / "Annotations").is_dir() else path
    files = sorted(folder.rglob("*.xml")) if folder.is_dir() else [path]
    if not files:
        raise UnivgError("no XML file in this folder", path, "give a VOC folder with Annotations in it")
    found = []
    for file in files:
        with source.reporting(f"voc#{file.stem}"):
            found.append(_make_voc_image(source, file))
    return found


def _make_voc_image(source: Source, file: Path) -> DetectionImage:
    record = f"voc#{file.stem}"
    try:
        root = ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise Unusable("bad_field", f"{file.name} is no XML ({error})", "write the file again") from None
    name = _find_voc_name(source, file, root.findtext("filename") or "")
    size = _find_size(source, name, (root.findtext("size/width"), root.findtext("size/height")))
    instances = []
    for i, item in enumerate(root.iterfind("object")):
        part = f"{record}@{i}"
        with source.reporting(part):
            category = (item.findtext("name") or "").strip()
            if not category:
                raise Unusable("missing_field", "the object has no 'name'")
            corners = [item.findtext(f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
            box = _clip_box(source, part, _read_four(corners, "'bndbox'", "four numbers"), size)
            difficult = (item.findtext("difficult") or "0").strip() not in ("0", "")
            instances.append(Instance(category, box, not difficult))
    return DetectionImage(name, record, size, tuple(instances))


def _find_voc_name(source: Source, file: Path, filename: str) -> str:
    """Return the image's path as samples name it. VOC's `filename` often lacks its suffix, or is wrong."""
    names = [filename] if filename else []
    names += [f"{file.stem}{suffix}" for suffix in _VOC_SUFFIXES]
    if source.images is not None:
        for name in (*(f"JPEGImages/{name}" for name in names), *names):
            found = source.images.find(name)
            if found is not None:
                return source.images.relative(found)
    for name in names:
        for folder in (file.parent.parent / "JPEGImages", file.parent):
            if (folder / name).is_file():
                return (folder / name).as_posix()
    return clean_path(names[0])


# --- what both share ---


def _find_size(source: Source, name: str, stated: tuple[Any, Any]) -> SizeWH:
    """Return the image's size: as stated, checked against the file where that is there."""
    try:
        width, height = (int(float(side)) for side in stated)
    except (TypeError, ValueError):
        width = height = 0
    is_stated = width > 0 and height > 0
    path = source.images.find(name) if source.images is not None else Path(name)
    if source.images is not None and path is None:
        raise Unusable("missing_image", f"no {name} under {source.images.folder}")
    if path is None or not path.is_file():
        if is_stated:
            return width, height
        raise Unusable("missing_image", f"neither the size of {name} is stated, nor is it there")
    actual = read_size(path, name)
    if is_stated and (width, height) != actual:
        cause = f"{name} is {actual[0]}x{actual[1]}, and the annotation says {width}x{height}"
        raise Unusable("size_mismatch", cause)
    return actual


def _read_four(values: Any, what: str, form: str) -> Box:
    try:
        a, b, c, d = (float(value) for value in values)
    except (TypeError, ValueError):
        raise Unusable("bad_box", f"{what} is {shorten(values)}, not {form}") from None
    return a, b, c, d


def _clip_box(source: Source, part: str, box_px: Box, size_wh: SizeWH) -> Box:
    """Return a box in the unit frame, clipped; raise `Unusable` if that leaves nothing."""
    x1, y1, x2, y2 = box_px
    width, height = size_wh
    shown = f"({x1:g}, {y1:g}, {x2:g}, {y2:g})"
    if x2 < x1 or y2 < y1:
        raise Unusable("inverted_box", f"{shown} has its corners exchanged")
    box, outside = clip_unit(px_to_unit(box_px, size_wh))
    if is_degenerate(box):
        raise Unusable("degenerate_box", f"{shown} encloses no area of the image")
    # Half a pixel is rounding; more is a box that was drawn for another picture.
    if outside and (min(x1, y1) < -0.5 or x2 > width + 0.5 or y2 > height + 0.5):
        cause = f"{shown} reaches outside the {width}x{height} image, and was clipped"
        report(RecordFault(part, "out_of_range", cause, usable=True), source.on_fault)
    return box
