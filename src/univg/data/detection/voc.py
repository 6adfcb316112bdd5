"""Read Pascal VOC: one XML file an image, in a folder of their own or beside the images.

http://host.robots.ox.ac.uk/pascal/VOC. Files in the wild keep the `<filename>` of before they were renamed, leave its
suffix out, or name another machine's path; so a file's own name is believed before what stands in it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from PIL import Image

from univg.data.detection.images import DetectionImage
from univg.data.detection.listing import ListedBox, ListedImage, gather_images
from univg.data.formats.faults import RecordFault, Unusable, report
from univg.data.formats.fields import find_numbers, read_box, read_flag
from univg.data.formats.records import Source
from univg.errors import UnivgError
from univg.grounding.boxes import Box
from univg.pictures.images import FORMATS

__all__ = ["list_pictures", "read_voc_images"]

_FLAGS = {"difficult": "difficult", "ignore": "to be ignored"}
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_PICTURES = ("JPEGImages", "images")


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
    search = _Search(source, folder if folder.is_dir() else folder.parent, files)
    listed = []
    for file in files:
        with source.reporting(search.record(file)):
            listed.append(_list_image(search, file))
    return gather_images(source, listed)


def _list_image(search: _Search, file: Path) -> ListedImage:
    record = search.record(file)
    try:
        root = ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise Unusable("bad_field", f"{file.name} is no XML ({error})", "write the file again") from None
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


def _list_box(item: ElementTree.Element, part: str) -> ListedBox:
    category = (_find_text(item, "name") or "").strip()
    if not category:
        raise Unusable("missing_field", "the object has no 'name'")
    passed = next((word for flag, word in _FLAGS.items() if read_flag(_find_text(item, flag), flag)), "")
    return ListedBox(part, category, _read_corners(item), passed)


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
    return min(across), min(down), max(across), max(down)


def _find(parent: ElementTree.Element | None, tag: str) -> ElementTree.Element | None:
    """Return a child by its name, whatever its capitals."""
    children: Iterable[ElementTree.Element] = () if parent is None else parent
    return next((child for child in children if child.tag.lower() == tag), None)


def _find_text(parent: ElementTree.Element | None, tag: str) -> str | None:
    child = _find(parent, tag)
    return None if child is None else child.text


# --- which picture ---


def list_pictures(folder: Path) -> dict[str, list[Path]]:
    """Return the pictures below a folder by their path in it without suffix, as "a/b" of "a/b.JPG"."""
    Image.init()
    suffixes = {suffix for suffix, name in Image.EXTENSION.items() if name in FORMATS}
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        if path.suffix.lower() in suffixes:
            found[path.relative_to(folder).with_suffix("").as_posix()].append(path)
    return dict(found)


@dataclass
class _Search:
    """Find the picture of each XML file: the one of its own name, in the same place below the folder of pictures."""

    source: Source
    folder: Path
    files: list[Path]

    def record(self, file: Path) -> str:
        """Return the name of a file's record: its path below the folder of annotations, without suffix."""
        return f"voc#{self._own(file)}"

    def _own(self, file: Path) -> str:
        return file.relative_to(self.folder).with_suffix("").as_posix()

    @cached_property
    def _annotated(self) -> set[str]:
        return {self._own(file) for file in self.files}

    @cached_property
    def _stems(self) -> Counter[str]:
        return Counter(file.stem for file in self.files)

    @cached_property
    def _listings(self) -> list[Mapping[str, list[Path]]]:
        """The pictures below each folder that may hold them, the likeliest folder first."""
        images = self.source.images
        above = [images.folder] if images is not None else [self.folder.parent, self.folder]
        places = [place / name for place in above for name in _PICTURES] + above[::-1]
        return [list_pictures(place) for place in dict.fromkeys(places) if place.is_dir()]

    def find(self, file: Path, filename: str) -> Path | None:
        """Return the picture that an XML file is about; None if there is none, and its size must be stated."""
        own = self._own(file)
        written = PurePosixPath(filename.replace("\\", "/")).name
        same_place = PurePosixPath(own).parent
        by_name = self._look(str(same_place / PurePosixPath(written).stem), file) if written else []
        named = [path for path in by_name if path.name == written] or by_name
        mine = self._look(own, file)
        if mine:
            return self._choose(file, mine, named, written)
        if not named and not mine:
            if self.source.images is not None:
                cause = f"no {own}.* and no {written or 'other name'} under {self.source.images.folder}"
                raise Unusable("missing_image", cause)
            return None
        other = str(same_place / named[0].stem)
        if other in self._annotated:
            cause = f"no {own}.*, and {written}, which it names, is annotated by {other}.xml"
            raise Unusable("missing_image", cause, "fetch the picture, or give it the annotation's name")
        if len(named) > 1:
            raise Unusable("missing_image", f"{filename} may be {_join(named)}", "write the suffix")
        return named[0]

    def _choose(self, file: Path, mine: list[Path], named: list[Path], written: str) -> Path:
        both = [path for path in mine if path in named]
        chosen = both or mine
        if len(chosen) > 1:
            cause = f"{_join(chosen)} are there, and which is meant is not said"
            raise Unusable("missing_image", cause, "write the suffix in <filename>, or keep one")
        if named and not both:
            cause = (
                f"it names {written}, which is there too; taken to be about {chosen[0].name}, by its own name"
            )
            report(RecordFault(self.record(file), "other_name", cause, usable=True), self.source.on_fault)
        return chosen[0]

    def _look(self, own: str, file: Path) -> list[Path]:
        """Return the pictures at a path without suffix; of a file whose name is no other's also those further up."""
        names = [own]
        if "/" in own and self._stems[file.stem] == 1:
            names.append(PurePosixPath(own).name)
        return next((listing[name] for name in names for listing in self._listings if name in listing), [])


def _join(paths: Iterable[Path]) -> str:
    names: Iterator[str] = (path.name for path in paths)
    return " and ".join(names)
