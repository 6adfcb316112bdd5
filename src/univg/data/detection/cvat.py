"""Read CVAT's XML, "for images 1.1" and "for video 1.1".

https://docs.cvat.ai/docs/dataset_management/formats/format-cvat. For images: an `<image>` by its name, folders
included, with its shapes. For video: a `<track>` of an object, with a shape for each frame; a frame is a number, so its
picture must carry the name that CVAT's "Save images" gives it, `frame_000000`, counted from 0. `outside` says that the
object is not there.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from univg.data.detection.beside import list_pictures
from univg.data.detection.images import DetectionImage
from univg.data.detection.listing import ListedBox, ListedImage, find_flag, gather_images, list_box, say_lost
from univg.data.detection.shapes import (
    ellipse_extent,
    extent,
    polygon_extent,
    read_number,
    read_rotation,
    turn,
)
from univg.data.formats.faults import Unusable
from univg.data.formats.fields import clean_path, find_numbers, read_flag, shorten
from univg.data.formats.image_root import ImageRoot
from univg.data.formats.masks import rle_extent
from univg.data.formats.records import Source
from univg.errors import UnivgError
from univg.grounding.boxes import Box

__all__ = ["find_root_tag", "read_cvat_images"]

_BOXED = ("box", "polygon", "ellipse", "mask")
_NO_BOX = ("polyline", "points", "cuboid", "skeleton")
_FLAGS = ("is_crowd", "iscrowd", "difficult", "ignore", "ignored")
_PICTURES = "images"
"""The folder beside `annotations.xml` that CVAT packs images into."""
_META = {"name": "task/name", "width": "original_size/width", "height": "original_size/height"}
_FRAME = re.compile(r"frame_(\d+)")


def find_root_tag(path: Path) -> str:
    """Return the name of an XML file's outermost element; "" if it is no XML."""
    try:
        return next((element.tag for _, element in ElementTree.iterparse(path, ("start",))), "")
    except (ElementTree.ParseError, OSError, ValueError):
        return ""


def read_cvat_images(source: Source) -> list[DetectionImage]:
    """Return the images, or frames, of CVAT's XML, or of all such files in a folder; in the files' order.

    Images are looked for under the image root, and in `images` there; without one, beside the XML file.
    """
    path = source.path
    found = sorted(path.rglob("*.xml")) if path.is_dir() else [path]
    files = [file for file in found if find_root_tag(file) == "annotations"] if path.is_dir() else found
    if not files:
        raise UnivgError("no XML file of CVAT in this folder", path, "give the folder of annotations.xml")
    listed: list[ListedImage] = []
    for file in files:
        listed += _File(source, file, f"{file.parent.name}/" if len(files) > 1 else "").list_images()
    return gather_images(source, listed)


@dataclass
class _File:
    """One XML file. `prefix` tells its records from those of others."""

    source: Source
    path: Path
    prefix: str
    meta: dict[str, str] = field(default_factory=dict)
    """What `<meta>` says of the whole: the task's name and the size of a video."""
    no_box: Counter[str] = field(default_factory=Counter)

    def list_images(self) -> list[ListedImage]:
        """Return what the file lists. Images and tracks are let go as soon as they are read: such files are large."""
        listed: list[ListedImage] = []
        places: list[tuple[str, str]] = []
        tracks: list[Track] = []
        n_images = 0
        try:
            for _, element in ElementTree.iterparse(self.path):
                if element.tag == "meta":
                    self._read_meta(element)
                elif element.tag == "image":
                    n_images += 1
                    record = f"cvat#{self.prefix}{element.get('id')}"
                    with self.source.reporting(record):
                        listed.append(self._list_image(element, record))
                        places.append((element.get("task_id", ""), element.get("subset", "")))
                    element.clear()
                elif element.tag == "track":
                    tracks.append(self._read_track(element))
                    element.clear()
        except (ElementTree.ParseError, OSError, ValueError) as error:
            cause = f"no XML that can be read ({error})"
            raise UnivgError(cause, self.path, "export it again") from None
        if tracks and n_images:
            cause = "both images and tracks are in this file, and which image a frame is is not said"
            raise UnivgError(cause, self.path, "export it from CVAT as 'CVAT for images 1.1'")
        if not tracks and not n_images:
            raise UnivgError("no image and no track in this file", self.path, "export it again")
        shown = (
            _list_frames(self, tracks) if tracks else _find_pictures(self.source, self.path, listed, places)
        )
        if self.no_box:
            kinds = ", ".join(sorted(self.no_box))
            self.source.note(f"{self.no_box.total()} shape(s) that have no box are passed over: {kinds}")
        return shown

    def _read_meta(self, meta: ElementTree.Element) -> None:
        for name, place in _META.items():
            text = meta.findtext(f".//{place}")
            if text:
                self.meta[name] = text.strip()

    def _list_image(self, image: ElementTree.Element, record: str) -> ListedImage:
        name = (image.get("name") or "").strip()
        if not name:
            raise Unusable("missing_field", "the image has no 'name'")
        boxes = []
        for i, shape in enumerate(image):
            with self.source.reporting(f"{record}@{i}"):
                box = self._list_box(shape, shape.get("label"), f"{record}@{i}")
                if box is not None:
                    boxes.append(box)
        return ListedImage(record, name, boxes, (image.get("width"), image.get("height")))

    def _read_track(self, track: ElementTree.Element) -> Track:
        record = f"cvat#{self.prefix}track {track.get('id')}"
        read = Track(record, track.get("task_id", ""))
        for shape in track:
            frame = shape.get("frame", "")
            part = f"{record}@{frame}"
            with self.source.reporting(part):
                if not frame.isdecimal():
                    raise Unusable("missing_field", f"the {shape.tag} has no 'frame'")
                read.frames.add(int(frame))
                box = self._list_box(shape, track.get("label"), part)
                if box is not None:
                    box.track = track.get("id")
                    read.boxes.append((int(frame), box))
        return read

    def _list_box(self, shape: ElementTree.Element, label: str | None, part: str) -> ListedBox | None:
        """Return an object; None for what has no box, or is not there."""
        if shape.tag in _NO_BOX:
            self.no_box[shape.tag] += 1
        if shape.tag in _NO_BOX or shape.tag in ("tag", "attribute"):
            return None
        if shape.tag not in _BOXED:
            raise Unusable("bad_field", f"<{shape.tag}> is no shape that is known")
        if read_flag(shape.get("outside"), "outside"):
            self.source.count("box(es) marked outside are passed over: their object is not in that image")
            return None
        category = (label or "").strip()
        if not category:
            raise Unusable("missing_field", f"the {shape.tag} has no 'label'")
        said = {item.get("name", "").lower(): item.text for item in shape if item.tag == "attribute"}
        passed = find_flag(_FLAGS, said.get)
        return list_box(part, category, partial(_read_extent, self.source, shape), passed)


def _read_extent(source: Source, shape: ElementTree.Element) -> Box:
    fields: Mapping[str, Any] = dict(shape.attrib)
    degrees = read_rotation(fields)
    if degrees % 360:
        source.count("turned shape(s) are given the extent of what is turned")
    if shape.tag == "polygon":
        return polygon_extent(fields.get("points") or "")
    if shape.tag == "ellipse":
        cx, cy, rx, ry = (read_number(fields, name) for name in ("cx", "cy", "rx", "ry"))
        return ellipse_extent((cx, cy), (rx, ry), degrees)
    if shape.tag == "mask":
        return _read_mask(fields)
    x1, y1, x2, y2 = (read_number(fields, name) for name in ("xtl", "ytl", "xbr", "ybr"))
    if not degrees % 360 or x2 < x1 or y2 < y1:
        return x1, y1, x2, y2
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    return extent(turn(corners, ((x1 + x2) / 2, (y1 + y2) / 2), degrees))


def _read_mask(fields: Mapping[str, Any]) -> Box:
    """Return the extent of a mask: run lengths, row by row, within a part of the image."""
    left, top, width, height = (read_number(fields, name) for name in ("left", "top", "width", "height"))
    counts = [int(run) for run in find_numbers(fields.get("rle"))]
    found = rle_extent({"size": [int(width), int(height)], "counts": counts})  # rows taken for columns
    if found is None:
        raise Unusable("degenerate_box", f"the mask {shorten(fields.get('rle'))} is empty")
    y1, x1, y2, x2 = found[0]
    return left + x1, top + y1, left + x2, top + y2


# --- which picture ---


def _places(source: Source, file: Path) -> list[ImageRoot]:
    """Return the folders that images are looked for in, the likeliest first."""
    folder = source.images.folder if source.images is not None else file.parent
    return [ImageRoot(place) for place in (folder / _PICTURES, folder) if place.is_dir()]


def _find_pictures(
    source: Source, file: Path, listed: list[ListedImage], places: list[tuple[str, str]]
) -> list[ListedImage]:
    """Find the pictures of images; a project's lie below their subset's name. Two images are never one picture."""
    names = [clean_path(entry.name) for entry in listed]
    below = [f"{subset}/{name}" for (_, subset), name in zip(places, names, strict=True)]
    ways = []
    for written in [below, names] if any(subset for _, subset in places) else [names]:
        for root in _places(source, file):
            root.expect(partial(list, written))
            ways.append([root.find(name) for name in written])
    # One way for all: else a picture that is missing would be found in another's place.
    paths = max(ways, key=lambda found: len(found) - found.count(None), default=[None] * len(listed))
    whose: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for entry, place, name, path in zip(listed, places, names, paths, strict=True):
        entry.path = path
        whose[str(path or entry.name)].add((*place, name))
    sure = []
    for entry in listed:
        with source.reporting(entry.record):
            if len(whose[str(entry.path or entry.name)]) > 1:
                cause = f"{entry.name} and another entry, or another task's, would be one picture"
                fix = "export each task by itself, or lay the images in folders as CVAT packs them"
                raise Unusable("ambiguous_id", cause, fix)
            if entry.path is None and any(paths) and source.images is not None:
                lost = say_lost(len(entry.boxes))
                raise Unusable("missing_image", f"no {entry.name} where the other images lie{lost}")
            sure.append(entry)
    return sure


@dataclass
class Track:
    """An object through a video: its boxes by frame, and all frames that say something of it."""

    record: str
    task: str
    boxes: list[tuple[int, ListedBox]] = field(default_factory=list)
    frames: set[int] = field(default_factory=set)


def _list_frames(file: _File, tracks: list[Track]) -> list[ListedImage]:
    """Return the frames that tracks speak of. Raises `UnivgError` if their pictures are not there by number."""
    if len({track.task for track in tracks}) > 1:
        cause = "tracks of several tasks, so that a frame's number does not say which picture it is"
        raise UnivgError(cause, file.path, "export each task by itself")
    pictures = _number_frames(file.source, file.path)
    if 0 not in pictures:
        there = (
            f"the first picture is {pictures[min(pictures)][0].name}"
            if pictures
            else "no such picture is there"
        )
        cause = f"CVAT for video counts frames from frame_000000, and {there}"
        fix = (
            "export it with 'Save images' and name its folder with --images; or write the frames with "
            "ffmpeg -i VIDEO -start_number 0 frame_%06d.png"
        )
        raise UnivgError(cause, file.path, fix)
    by_frame: dict[int, list[ListedBox]] = {frame: [] for track in tracks for frame in track.frames}
    for track in tracks:
        for frame, box in track.boxes:
            by_frame[frame].append(box)
    video = f"{file.prefix}{file.meta.get('name') or file.path.stem}"
    stated = (file.meta.get("width"), file.meta.get("height"))
    listed = []
    for frame, boxes in sorted(by_frame.items()):
        record = f"cvat#{file.prefix}frame {frame}"
        with file.source.reporting(record):
            paths, lost = pictures.get(frame, []), say_lost(len(boxes))
            if len(paths) > 1:
                both = " and ".join(path.name for path in paths)
                raise Unusable("missing_image", f"{both} are one frame{lost}", "keep one of them")
            if not paths:
                raise Unusable("missing_image", f"no frame_{frame:06d}.*{lost}")
            listed.append(ListedImage(record, paths[0].name, boxes, stated, paths[0], video, frame))
    return listed


def _number_frames(source: Source, file: Path) -> dict[int, list[Path]]:
    """Return the pictures that are called frames, by number, in the first folder that has some."""
    for root in _places(source, file):
        numbered: dict[int, list[Path]] = defaultdict(list)
        for name, paths in list_pictures(root.folder).items():
            if match := _FRAME.fullmatch(name):
                numbered[int(match[1])] += paths
        if numbered:
            return numbered
    return {}
