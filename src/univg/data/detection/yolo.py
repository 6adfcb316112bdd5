"""Read YOLO folders: a text file of labels a picture, one object a line, `data.yaml` with the names of the classes.

https://docs.ultralytics.com/datasets/detect: class, centre x, centre y, width, height, as parts of the picture. A
longer line is a polygon (also an oriented box's four corners), or a box with keypoints if `data.yaml` has `kpt_shape`.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from univg.data.detection.beside import list_pictures
from univg.data.detection.images import DetectionImage
from univg.data.detection.listing import ListedBox, ListedImage, gather_images, list_box, say_lost
from univg.data.detection.shapes import extent
from univg.data.detection.yolo_folder import YoloFolder, name_place, read_lines
from univg.data.formats.faults import Unusable
from univg.data.formats.fields import NUMBER, shorten
from univg.data.formats.records import Source
from univg.errors import UnivgError
from univg.grounding.boxes import Box

__all__ = ["read_yolo_images"]

_COMMA = re.compile(r"-?[01],\d+")
_ENOUGH = 5
"""Lines that make a pattern more than chance."""


@dataclass
class _Line:
    """A line of a label file, before it is known what its numbers are."""

    record: str
    class_text: str
    texts: list[str]
    numbers: list[float] = field(default_factory=list)


@dataclass
class _Entry:
    record: str
    picture: Path
    lines: list[_Line] = field(default_factory=list)


def read_yolo_images(source: Source) -> list[DetectionImage]:
    """Return the pictures of a YOLO set that have a label file, with their boxes; an empty file is no objects.

    The set is given as its folder, its `data.yaml`, or a part of it. Pictures lie beside the labels; those of a folder
    of labels alone are looked for under the image root, in the same place.
    """
    folder = YoloFolder.open(source.path)
    entries = []
    empty = 0
    for picture, labels in _pair(source, folder):
        entry = _Entry(folder.name_record(labels), picture)
        with source.reporting(entry.record):
            entry.lines = [*_read_lines(source, entry.record, labels)]
            entries.append(entry)
            empty += not entry.lines
    if empty:
        source.note(f"{empty} label file(s) are empty: images without objects")
    _check_numbering(folder, entries)
    keypoints = _decide_keypoints(folder, entries)
    listed = []
    for entry in entries:
        boxes = []
        for line in entry.lines:
            with source.reporting(line.record):
                boxes.append(_list_box(source, folder, line, keypoints))
        listed.append(ListedImage(entry.record, entry.picture.as_posix(), boxes, path=entry.picture))
    return gather_images(source, listed, "centre", "unit")


# --- lines ---


def _read_lines(source: Source, record: str, file: Path) -> Iterator[_Line]:
    """Yield the lines of a label file, class and numbers apart; a line that cannot be parted is a fault."""
    try:
        lines = read_lines(file)
    except UnivgError as error:
        raise Unusable("bad_field", f"{file.name}: {error.cause}", error.remedy) from None
    for number, written in enumerate(lines, start=1):
        if not written.strip().strip(",;"):
            continue
        part = f"{record}@line {number}"
        with source.reporting(part):
            name, *texts = _split(source, written) or [""]
            numbers = [_read_number(text, written) for text in texts]
            if len(numbers) < 4:
                cause = f"{shorten(written.strip())} is no class with four numbers"
                raise Unusable("bad_box", cause, "write class, centre x, centre y, width, height")
            yield _Line(part, name, texts, numbers)


def _split(source: Source, written: str) -> list[str]:
    """Return the words of a line, which blanks, tabs, commas or semicolons part; decimal commas as points."""
    words = [word for part in written.replace(";", " ").split() if (word := part.rstrip(","))]
    if not any("," in word for word in words):
        return words
    joined = [word for word in words if "," in word]
    if len(words) == 1 or all("." in word for word in joined):
        return [word for word in re.split(r"[\s,;]+", written) if word]
    if "." in written or not all(map(_COMMA.fullmatch, joined)):  # 10,20 may be a point as well
        cause = f"{shorten(written.strip())}: a comma may part numbers, or stand for the decimal point"
        raise Unusable("bad_box", cause, "write numbers with a point, and blanks between them")
    source.note("numbers are written with a decimal comma: read as such")
    return [word.replace(",", ".") for word in words]


def _read_number(text: str, written: str) -> float:
    if not NUMBER.fullmatch(text):
        raise Unusable("bad_box", f"{text!r} in {shorten(written.strip())} is no finite number")
    return float(text)


def _find_class(folder: YoloFolder, text: str) -> str:
    """Return the name of a class, which labels name by its number (a few by the name itself)."""
    if NUMBER.fullmatch(text):
        number = float(text)
        if number in folder.names:
            return folder.names[int(number)]
        numbers = f"{min(folder.names)} to {max(folder.names)}" if folder.names else "none"
        named_by = folder.named_by.name if folder.named_by else "the names"
        raise Unusable("unknown_class", f"class {text} is not among those of {named_by} ({numbers})")
    if text in folder.names.values():
        return text
    raise Unusable("unknown_class", f"{shorten(text)} is no class, by number or name")


def _check_numbering(folder: YoloFolder, entries: list[_Entry]) -> None:
    """Refuse a set whose classes seem numbered from 1, where names are numbered from 0: each would be the next one."""
    used = {line.class_text for entry in entries for line in entry.lines}
    numbers = {float(text) for text in used if NUMBER.fullmatch(text)}
    if len(numbers) < 2 or min(folder.names, default=1) != 0:
        return
    if 0 not in numbers and max(numbers) == max(folder.names) + 1:
        cause = f"labels number the classes {min(numbers):g} to {max(numbers):g}, the names 0 to {max(folder.names)}"
        raise UnivgError(
            cause, folder.named_by or folder.base, "number both from 0, or give the names as 1: first, …"
        )


# --- what the numbers are ---


def _decide_keypoints(folder: YoloFolder, entries: list[_Entry]) -> int:
    """Return how many numbers of keypoints follow each box, 0 if none; `UnivgError` if they seem to, but none says so.

    A box with keypoints and a polygon can have the same length, so only `kpt_shape` tells. A set in which all long
    lines look like keypoints is refused without it: as polygons, their boxes would be nonsense.
    """
    if folder.shape is not None:
        return folder.shape[0] * folder.shape[1]
    long = [line for entry in entries for line in entry.lines if len(line.numbers) > 6]
    if not long or len({len(line.numbers) for line in long}) > 1:
        return 0
    flags = all(map(_has_flags, long)) and any(
        2 in line.numbers[6::3] or line.texts[6].isdecimal() for line in long
    )
    points = all(map(_has_points, long))
    n = len(long[0].numbers) - 4
    if flags or (points and len(long) >= _ENOUGH and n > 4):
        size = 3 if flags else 2
        cause = f"{len(long)} line(s) look like boxes with {n // size} keypoints, as {shorten(' '.join(long[0].texts))}"
        fix = f"write kpt_shape: [{n // size}, {size}] into data.yaml if they are, or else remove what follows the box"
        raise UnivgError(cause, f"{folder.base}, {long[0].record}", fix)
    return 0


def _has_flags(line: _Line) -> bool:
    """Tell whether each third number behind the box is 0, 1 or 2, as visibility is."""
    rest = line.numbers[4:]
    return len(rest) % 3 == 0 and len(rest) >= 3 and all(flag in (0, 1, 2) for flag in rest[2::3])


def _has_points(line: _Line) -> bool:
    """Tell whether all that follows the first four numbers are points in the box that these would be."""
    x, y, width, height = line.numbers[:4]
    rest = line.numbers[4:]
    return len(rest) % 2 == 0 and all(
        abs(value - middle) <= side / 2
        for values, middle, side in ((rest[0::2], x, width), (rest[1::2], y, height))
        for value in values
    )


def _list_box(source: Source, folder: YoloFolder, line: _Line, keypoints: int) -> ListedBox:
    category = _find_class(folder, line.class_text)
    return list_box(line.record, category, partial(_find_box, source, line, keypoints))


def _find_box(source: Source, line: _Line, keypoints: int) -> Box:
    """Return centre, width and height of a line's object."""
    numbers, n = line.numbers, len(line.numbers)
    box = (numbers[0], numbers[1], numbers[2], numbers[3])
    if n == 4:
        return box
    if keypoints:
        if n == 4 + keypoints:
            source.note("lines hold keypoints behind the box (kpt_shape): the box is read")
            return box
        cause = f"{n} numbers, and a box with the keypoints of kpt_shape has {4 + keypoints}"
        raise Unusable("bad_box", cause, "write the line again, or correct kpt_shape")
    if n == 5 or (n == 6 and line.texts[5].isdecimal() and numbers[5] > 1):
        source.note("lines hold a confidence or a track behind the box, as predictions do: not read")
        return box
    if n % 2 or (n == 6 and line.texts[5].isdecimal()):
        cause = f"{n} numbers may be a polygon and a confidence, or a box with more behind it"
        raise Unusable(
            "bad_box", cause, "remove what follows the box, or write kpt_shape into data.yaml if keypoints do"
        )
    source.note("lines hold polygons or oriented boxes: their extent is taken")
    x1, y1, x2, y2 = extent(zip(numbers[0::2], numbers[1::2], strict=True))
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


# --- which labels are whose ---


def _pair(source: Source, folder: YoloFolder) -> Iterator[tuple[Path, Path]]:
    """Yield each picture with its label file; what has none, or no one of its own, is a fault or a note."""
    root = None if source.images is None else Path(os.path.abspath(source.images.folder))
    elsewhere = root is not None and not _overlap(root, folder.base)
    every = folder.list_label_files()
    if elsewhere and root is not None:
        mine = _match_elsewhere(source, folder, root, every)
    else:
        mine = _match_beside(source, folder, every)
    taken: set[Path] = set()
    for labels, pictures in mine.items():
        taken.add(labels)
        with source.reporting(folder.name_record(labels)):
            if len(pictures) > 1:
                cause = f"{folder.say(pictures)} have one label file, so whose its boxes are is not known"
                raise Unusable("ambiguous_id", cause, "give each picture a name of its own")
            if pictures:
                yield pictures[0], labels
    lost = [file for file in every if file not in taken]
    outside = [file for file in lost if folder.splits and not elsewhere and not folder.is_in_splits(file)]
    if outside:
        what = (
            f"{len(outside)} label file(s) are of no picture in train, val or test of {folder.name_config()}"
        )
        source.note(f"{what}, as {folder.say(outside[:1])}: left out")
    for file in sorted(set(lost).difference(outside)):
        with source.reporting(folder.name_record(file)):
            count = sum(bool(line.strip()) for line in file.read_bytes().splitlines())
            cause = f"no picture of {folder.say([file])} under {root or folder.base}"
            raise Unusable("missing_image", cause + say_lost(count))


def _match_beside(source: Source, folder: YoloFolder, every: list[Path]) -> dict[Path, list[Path]]:
    """Return the pictures of each label file in the set itself; a label file of no use has none."""
    mine: dict[Path, list[Path]] = defaultdict(list)
    bare: list[Path] = []
    for picture in _list_pictures(source, folder):
        files = [file for file in folder.find_label_files(picture) if file.is_file()]
        if len(files) > 1:
            mine.update({file: mine[file] for file in files})  # none of them is without its picture
            if files[0].read_bytes() != files[1].read_bytes():
                with source.reporting(folder.name_record(picture)):
                    cause = f"{folder.say(files)} both are labels of {picture.name}, and differ"
                    raise Unusable("ambiguous_id", cause, "remove the wrong one")
                continue
        if files:
            mine[files[0]].append(picture)
        else:
            bare.append(picture)
    _note_bare(source, folder, bare)
    order = {file: place for place, file in enumerate(every)}
    return dict(sorted(mine.items(), key=lambda pair: order.get(pair[0], len(order))))


def _match_elsewhere(
    source: Source, folder: YoloFolder, root: Path, every: list[Path]
) -> dict[Path, list[Path]]:
    """Return the pictures of each label file below a folder of pictures alone: those in the same place."""
    pictures: dict[str, list[Path]] = defaultdict(list)
    for same in list_pictures(root).values():
        for path in same:
            pictures[name_place(path, root)].append(path)
    places = Counter(name_place(file, folder.base) for file in every)
    mine: dict[Path, list[Path]] = {}
    for file in every:
        place = name_place(file, folder.base)
        with source.reporting(folder.name_record(file)):
            if place not in pictures:
                continue
            mine[file] = pictures[place] if places[place] == 1 else []
            if places[place] > 1:
                cause = f"{folder.say(pictures[place])} may be of several label files in the place {place}"
                raise Unusable(
                    "ambiguous_id", cause, "put pictures and labels into one folder, images and labels"
                )
    _note_bare(
        source, folder, [path for place in pictures if place not in places for path in pictures[place]]
    )
    return mine


def _note_bare(source: Source, folder: YoloFolder, bare: list[Path]) -> None:
    if bare:
        source.note(f"{len(bare)} picture(s) have no label file, as {folder.say(bare[:1])}: left out")


def _list_pictures(source: Source, folder: YoloFolder) -> list[Path]:
    """Return the pictures of the set, or of the part asked for, each once."""
    if not folder.splits:
        if folder.lost:
            fix = "correct it, or 'path', there"
            raise UnivgError(f"nothing that it names is there ({folder.lost[0]})", folder.config, fix)
        everything = (path for same in list_pictures(folder.base).values() for path in same)
        return [path for path in everything if folder.is_asked_for(path)]
    for entry in folder.lost:
        source.note(f"{entry}, which {folder.name_config()} names, is not there: left out")
    lost: list[tuple[str, str]] = []
    splits: dict[Path, list[str]] = {}
    for split in folder.splits:
        for picture in folder.list_pictures(split, lost):
            if folder.part == folder.base or folder.is_asked_for(picture):
                splits.setdefault(picture, []).append(split.name)
    for record, why in lost:
        with source.reporting(f"yolo#{record}"):
            raise Unusable("missing_image", why)
    counts = Counter(name for names in splits.values() for name in names[:1])
    if len(counts) > 1:
        each = ", ".join(f"{name} ({count} pictures)" for name, count in counts.items())
        source.note(f"all parts are read together: {each}; for one of them give its folder of labels")
    several = [picture for picture, names in splits.items() if len(names) > 1]
    if several:
        names = " and ".join(dict.fromkeys(splits[several[0]]))
        source.note(
            f"{len(several)} picture(s) are listed more than once ({names}), as {several[0].name}: read once"
        )
    return list(splits)


def _overlap(one: Path, other: Path) -> bool:
    return one == other or one in other.parents or other in one.parents
