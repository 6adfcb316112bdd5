"""Read Pascal VOC: one XML file an image, in a folder of their own or beside the images.

http://host.robots.ox.ac.uk/pascal/VOC. Files in the wild keep the `<filename>` of before they were renamed, leave its
suffix out, or name another machine's path; so a file's own name is believed before what stands in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers.expat.errors import (
    XML_ERROR_NO_ELEMENTS,
    XML_ERROR_PARTIAL_CHAR,
    XML_ERROR_UNCLOSED_TOKEN,
    codes,
)

from univg.data.detection.beside import PictureSearch
from univg.data.detection.images import DetectionImage
from univg.data.detection.listing import ListedBox, ListedImage, find_flag, gather_images, list_box
from univg.data.detection.shapes import extent
from univg.data.formats.faults import Unusable
from univg.data.formats.fields import find_numbers, read_box
from univg.data.formats.records import Source
from univg.errors import UnivgError
from univg.grounding.boxes import Box

__all__ = ["read_voc_images"]

_FLAGS = ("difficult", "ignore")
_ENCODING = re.compile(rb"""<\?xml[^>]*?encoding=["']([\w.-]+)["'][^>]*>""")
_CUT = {codes[said] for said in (XML_ERROR_NO_ELEMENTS, XML_ERROR_UNCLOSED_TOKEN, XML_ERROR_PARTIAL_CHAR)}
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc_images(source: Source) -> list[DetectionImage]:
    """Return the images of a VOC folder (`Annotations/*.xml`, or XML files in it), in the files' order.

    Images are looked for under the image root; without one, in `JPEGImages` or `images` beside `Annotations`, and
    beside the XML files. Coordinates are taken as edges in pixels.
    """
    path = source.path
    folder = path / "Annotations" if (path / "Annotations").is_dir() else path
    files = sorted(folder.rglob("*.xml")) if folder.is_dir() else [path]
    if not files:
        raise UnivgError("no XML file in this folder", path, "give a VOC folder with Annotations in it")
    search = PictureSearch(source, folder if folder.is_dir() else folder.parent, files, "voc", "<filename>")
    return gather_images(source, search.list_images(_list_image))


def _list_image(search: PictureSearch, file: Path) -> ListedImage:
    record = search.record(file)
    try:
        root = _parse(file.read_bytes())
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        if getattr(error, "code", None) in _CUT:
            cause = f"{file.name} is empty, or cut off in its middle ({error})"
            raise Unusable("bad_field", cause, "copy or export it again") from None
        raise Unusable("bad_field", f"{file.name} is no XML ({error})", "write it again, as UTF-8") from None
    if root.tag.lower() != "annotation":
        raise Unusable("bad_field", f"{file.name} is no Pascal VOC file: it begins with <{root.tag}>")
    filename = (_find_text(root, "filename") or "").strip()
    path = search.find(file, filename)
    size = _find(root, "size")
    stated = (_find_text(size, "width"), _find_text(size, "height"))
    boxes = []
    for i, item in enumerate(child for child in root if child.tag.lower() == "object"):
        part = f"{record}@{i}"
        with search.source.reporting(part):
            boxes.append(_list_box(item, part))
    return ListedImage(record, filename or file.stem, boxes, stated, path)


def _parse(raw: bytes) -> ElementTree.Element:
    """Return what an XML text holds, in whatever encoding it says of itself: the parser knows no Chinese ones."""
    raw = raw.lstrip()
    said = _ENCODING.match(raw)
    if said is None or said[1].lower().startswith(b"utf"):
        return ElementTree.fromstring(raw)
    return ElementTree.fromstring(raw[said.end() :].decode(said[1].decode("ascii")))


def _list_box(item: ElementTree.Element, part: str) -> ListedBox:
    category = (_find_text(item, "name") or "").strip()
    if not category:
        raise Unusable("missing_field", "the object has no 'name'")
    passed = find_flag(_FLAGS, partial(_find_text, item))
    return list_box(part, category, partial(_read_corners, item), passed)


def _read_corners(item: ElementTree.Element) -> Box:
    """Return the box of an object: its `bndbox`, else the extent of its polygon."""
    box = _find(item, "bndbox")
    if box is not None:
        return read_box([_find_text(box, corner) for corner in _CORNERS], "'bndbox'")
    polygon = _find(item, "polygon")
    points = (
        [(child.tag.lower(), find_numbers(child.text)) for child in polygon] if polygon is not None else []
    )
    across, down = ([n for tag, found in points if tag[0] == axis for n in found] for axis in "xy")
    if len(across) < 3 or len(across) != len(down):
        raise Unusable("bad_box", "the object has no 'bndbox'")
    return extent(zip(across, down, strict=True))


def _find(parent: ElementTree.Element | None, tag: str) -> ElementTree.Element | None:
    """Return a child by its name, whatever its capitals."""
    children: Iterable[ElementTree.Element] = () if parent is None else parent
    return next((child for child in children if child.tag.lower() == tag), None)


def _find_text(parent: ElementTree.Element | None, tag: str) -> str | None:
    child = _find(parent, tag)
    return None if child is None else child.text
