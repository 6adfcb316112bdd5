"""Detection sets: COCO JSON and Pascal VOC XML, as images with their instances, and as samples.

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

from univg.data.formats.image_root import image_size
from univg.data.formats.json_stream import read_items
from univg.data.formats.records import ReadError, RecordFault, Source, clean_path, shorten
from univg.grounding.boxes import Box, SizeWH, clip_unit, is_degenerate
from univg.grounding.samples import GroundingSample
from univg.pictures.images import ImageFault

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
    """The images of a COCO JSON file, or of a VOC folder or XML file."""
    if source.path.is_dir() or source.path.suffix.lower() == ".xml":
        return read_voc_images(source)
    return read_coco_images(source)


def read_coco(source: Source) -> Iterator[GroundingSample]:
    """A sample for each image and category of a COCO file."""
    yield from _samples(read_coco_images(source))


def read_voc(source: Source) -> Iterator[GroundingSample]:
    """A sample for each image and category of a VOC folder."""
    yield from _samples(read_voc_images(source))


def _samples(images: Iterable[DetectionImage]) -> Iterator[GroundingSample]:
    for image in images:
        for category in sorted({instance.category for instance in image.instances if instance.alone}):
            here = [i for i in image.instances if i.category == category]
            if not all(instance.alone for instance in here):
                continue  # a crowd: its members have no boxes of their own, so no question about them is fair
            ask = (
                f"Locate the {category} in the image."
                if len(here) == 1
                else f"Locate every {category} in the image."
            )
            yield GroundingSample(
                images=(image.name,),
                query=ask,
                task=TASK,
                boxes=tuple(instance.box for instance in here),
                target_image=0,
                thinking=False,
                source=f"{image.record}@{category}",
            )


# --- COCO ---


@dataclass
class _Coco:
    images: dict[Any, dict[str, Any]] = field(default_factory=dict)
    categories: dict[Any, str] = field(default_factory=dict)
    boxes: dict[Any, list[tuple[Any, Any, Any, bool, str | None]]] = field(default_factory=dict)
    """By image: (annotation id, category id, bbox, crowd, track)."""


def read_coco_images(source: Source) -> list[DetectionImage]:
    """The images of a COCO detection (or COCO-video) file, by file name, with their boxes (x y w h, pixels)."""
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
        raise ReadError(f"no 'images' in this COCO file: {source.path}: give a detection annotation file")
    for image_id in coco.boxes.keys() - coco.images.keys():
        for annotation, *_ in coco.boxes[image_id]:
            cause = f"its image {image_id} is not among the images"
            source.fault(RecordFault(f"coco#{annotation}", "missing_image", cause, "add the image's entry"))
    found = (_coco_image(source, coco, image_id) for image_id in coco.images)
    return sorted((image for image in found if image is not None), key=lambda image: image.name)


_COCO_IMAGE = ("file_name", "width", "height", "video_id", "frame_id", "frame_index")


def _coco_image(source: Source, coco: _Coco, image_id: Any) -> DetectionImage | None:
    entry = coco.images[image_id]
    record = f"coco#{image_id}"
    if not isinstance(entry["file_name"], str) or not entry["file_name"]:
        source.fault(RecordFault(record, "missing_field", "the image has no 'file_name'"))
        return None
    name = clean_path(entry["file_name"])
    size = _size(source, record, name, (entry["width"], entry["height"]))
    if size is None:
        return None
    instances = []
    for annotation, category, bbox, crowd, track in coco.boxes.get(image_id, ()):
        part = f"{record}@{annotation}"
        if category not in coco.categories:
            source.fault(
                RecordFault(part, "missing_field", f"its category {category} is not among the categories")
            )
            continue
        try:
            x, y, width, height = (float(number) for number in bbox)
        except (TypeError, ValueError):
            source.fault(RecordFault(part, "bad_box", f"'bbox' is {shorten(bbox)}, not x y w h"))
            continue
        box = _box(source, part, (x, y, x + width, y + height), size)
        if box is not None:
            instances.append(Instance(coco.categories[category], box, not crowd, track))
    frame = entry["frame_id"] if entry["frame_id"] is not None else entry["frame_index"]
    video = None if entry["video_id"] is None else str(entry["video_id"])
    return DetectionImage(name, record, size, tuple(instances), video, frame if isinstance(frame, int) else 0)


# --- Pascal VOC ---


def read_voc_images(source: Source) -> list[DetectionImage]:
    """The images of a VOC folder (`Annotations/*.xml`, or XML files in it), in the files' order.

    Images are looked for under the image root; without one, in `JPEGImages` beside `Annotations`, and beside
    the XML files. Coordinates are taken as edges in pixels.
    """
    path = source.path
    folder = path / "Annotations" if (path / "Annotations").is_dir() else path
    files = sorted(folder.rglob("*.xml")) if folder.is_dir() else [path]
    if not files:
        raise ReadError(f"no XML file in this folder: {path}: give a VOC folder with Annotations in it")
    found = (_voc_image(source, file) for file in files)
    return [image for image in found if image is not None]


def _voc_image(source: Source, file: Path) -> DetectionImage | None:
    record = f"voc#{file.stem}"
    try:
        root = ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, OSError, ValueError) as error:
        source.fault(
            RecordFault(record, "bad_field", f"{file.name} is no XML ({error})", "write the file again")
        )
        return None
    name = _voc_name(source, file, root.findtext("filename") or "")
    size = _size(source, record, name, (root.findtext("size/width"), root.findtext("size/height")))
    if size is None:
        return None
    instances = []
    for i, item in enumerate(root.iterfind("object")):
        part = f"{record}@{i}"
        category = (item.findtext("name") or "").strip()
        corners = [item.findtext(f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
        if not category:
            source.fault(RecordFault(part, "missing_field", "the object has no 'name'"))
            continue
        try:
            x1, y1, x2, y2 = (float(corner or "") for corner in corners)
        except ValueError:
            source.fault(RecordFault(part, "bad_box", f"'bndbox' is {shorten(corners)}, not four numbers"))
            continue
        box = _box(source, part, (x1, y1, x2, y2), size)
        if box is not None:
            difficult = (item.findtext("difficult") or "0").strip() not in ("0", "")
            instances.append(Instance(category, box, not difficult))
    return DetectionImage(name, record, size, tuple(instances))


def _voc_name(source: Source, file: Path, filename: str) -> str:
    """The image's path as samples name it. A `filename` without its suffix, or wrong, is common in VOC sets."""
    stem = file.stem
    names = [filename] if filename else []
    names += [f"{stem}{suffix}" for suffix in _VOC_SUFFIXES]
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


def _size(source: Source, record: str, name: str, stated: tuple[Any, Any]) -> SizeWH | None:
    """The image's size: as stated, checked against the file where that is there; None after a fault."""
    try:
        width, height = (int(float(side)) for side in stated)
    except (TypeError, ValueError):
        width = height = 0
    path = source.images.find(name) if source.images is not None else Path(name)
    if path is None or not path.is_file():
        if source.images is not None:
            cause = f"no {name} under {source.images.folder}"
            source.fault(RecordFault(record, "missing_image", cause))
            return None
        if width > 0 and height > 0:
            return width, height
        source.fault(
            RecordFault(record, "missing_image", f"neither the size of {name} is stated, nor is it there")
        )
        return None
    try:
        actual = image_size(path)
    except ImageFault as error:
        source.fault(RecordFault(record, "bad_image", f"{name}: {error.cause}", error.remedy))
        return None
    if width > 0 and height > 0 and (width, height) != actual:
        cause = f"{name} is {actual[0]}x{actual[1]}, and the annotation says {width}x{height}"
        source.fault(RecordFault(record, "size_mismatch", cause))
        return None
    return actual


def _box(source: Source, part: str, box_px: Box, size_wh: SizeWH) -> Box | None:
    """A box in the unit frame, clipped; None after a fault that leaves nothing to clip."""
    x1, y1, x2, y2 = box_px
    shown = f"({x1:g}, {y1:g}, {x2:g}, {y2:g})"
    if x2 < x1 or y2 < y1:
        source.fault(RecordFault(part, "inverted_box", f"{shown} has its corners exchanged"))
        return None
    box, outside = clip_unit((x1 / size_wh[0], y1 / size_wh[1], x2 / size_wh[0], y2 / size_wh[1]))
    if is_degenerate(box):
        source.fault(RecordFault(part, "degenerate_box", f"{shown} encloses no area of the image"))
        return None
    # Half a pixel is rounding; more is a box that was drawn for another picture.
    if outside and (min(x1, y1) < -0.5 or x2 > size_wh[0] + 0.5 or y2 > size_wh[1] + 0.5):
        cause = f"{shown} reaches outside the {size_wh[0]}x{size_wh[1]} image, and was clipped"
        source.fault(RecordFault(part, "out_of_range", cause, usable=True))
    return box
