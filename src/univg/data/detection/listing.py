"""Turn what an annotation file lists into images with objects: which file is meant, in which scale, what is no target.

A reader of a detection format only says what is written (:class:`ListedImage`, :class:`ListedBox`); everything in
which such files go wrong alike is decided here, once: a picture listed twice, a path of another machine, a stated
size that is not the picture's, boxes in another scale than the format's, an object written twice.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from univg.data.detection.images import DetectionImage, Instance
from univg.data.formats.faults import RecordFault, Unusable, refuse, report
from univg.data.formats.fields import clean_path, read_flag, show_box
from univg.data.formats.image_root import is_foreign
from univg.data.formats.records import Source, read_stated
from univg.data.formats.scale import (
    ENOUGH,
    FAR,
    FEW,
    UNIT_LIMIT,
    Scale,
    apply_scale,
    decide_scale,
    reaches_out,
    stray_fault,
)
from univg.errors import UnivgError
from univg.grounding.boxes import Box, SizeWH, clip_unit, is_degenerate, unit_to_px

__all__ = ["WHOLE", "Form", "ListedBox", "ListedImage", "find_flag", "gather_images", "list_box", "say_lost"]

Form: TypeAlias = Literal["corners", "sides", "centre"]
"""How four numbers make a box: x1 y1 x2 y2; x y width height; or centre x, centre y, width, height."""

_NEARLY = 0.95
"""Of a file's boxes fit their images in the form that is meant."""
_SLACK = 0.01
"""Of an image's side: outside by less is a sloppy edge."""
_ROUNDING = 0.5
"""Of a pixel: less outside the image is rounding; more is a box that was drawn for another picture."""
_UNIT_FRAME: SizeWH = (1, 1)
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(slots=True)
class ListedBox:
    """An object as a file lists it: the four `numbers` as written. `passed_over` says why it is no target, if so.

    `unread` is what is wrong with numbers that could not be read: the object is there all the same.
    """

    record: str
    category: str
    numbers: Box
    passed_over: str = ""
    track: str | None = None
    unread: Unusable | None = None


def list_box(
    record: str, category: str, read: Callable[[], Box], passed_over: str = "", track: str | None = None
) -> ListedBox:
    """Return an object whose numbers `read` reads, or raises as `Unusable`."""
    try:
        return ListedBox(record, category, read(), passed_over, track)
    except Unusable as fault:
        return ListedBox(record, category, WHOLE, passed_over, track, fault)


_WHY_NO_TARGET = {
    **dict.fromkeys(("iscrowd", "is_crowd", "crowd", "isgroupof"), "crowd"),
    **dict.fromkeys(("difficult", "isdifficult"), "difficult"),
    **dict.fromkeys(("ignore", "ignored"), "to be ignored"),
}


def find_flag(flags: Iterable[str], get: Callable[[str], Any]) -> str:
    """Return why an object is no target: by the first of a format's flags that is set; "" if none is."""
    return next((_WHY_NO_TARGET[flag] for flag in flags if read_flag(get(flag), flag)), "")


@dataclass(slots=True)
class ListedImage:
    """An image as a file lists it.

    - `name`: its path as written, whichever slashes; `path`: the file, where the reader has found it already.
    - `stated_wh`: width and height as the file states them, of any type; nothing, or not above 0, states nothing.
    """

    record: str
    name: str
    boxes: list[ListedBox] = field(default_factory=list)
    stated_wh: tuple[Any, Any] = (None, None)
    path: Path | None = None
    video: str | None = None
    frame: int = 0


@dataclass(slots=True)
class _Placed:
    """A listed image whose file and size are known."""

    listed: ListedImage
    name: str
    path: Path | None
    size_wh: SizeWH
    lost: list[str] = field(default_factory=list)
    """The categories of objects that are there, but nobody knows where."""


def gather_images(
    source: Source,
    listed: Iterable[ListedImage],
    form: Form | Sequence[Form] = "corners",
    scale: Scale = "pixel",
) -> list[DetectionImage]:
    """Return one image for each picture that is listed, in the list's order, with boxes in the unit frame, clipped.

    `form` and `scale` are what the format prescribes. The scale really used is decided over all boxes of the file
    (`decide_scale`), and so is the form where the format has x y width height or centres, or leaves it open by giving
    several; both are noted. What cannot be used is a fault of its image or object. Entries of one picture are put
    together, an object written twice counts once.
    """
    placed = _place(source, list(listed))
    for image in placed:
        _set_unread_apart(source, image)
    boxes = [(box, image.size_wh) for image in placed for box in image.listed.boxes]
    frame = _guess_frame(boxes, scale)
    form = _decide_form(source, boxes, form, frame)
    _check_axes(source, boxes, form, frame)
    corners = (
        # In 0-1 of another form than the one that is meant, corners may pass 1: the numbers themselves tell.
        (box.numbers if frame == _UNIT_FRAME else _corners(box.numbers, form), size)
        for box, size in boxes
    )
    scale = decide_scale(corners, scale, source.note)
    by_file: dict[str, list[_Placed]] = {}
    for image in placed:
        by_file.setdefault(_identify(image), []).append(image)
    _note_what_is_special(source, by_file.values())
    return [_make_image(source, same, form, scale) for same in by_file.values()]


# --- pictures ---


def _place(source: Source, listed: list[ListedImage]) -> list[_Placed]:
    """Find the pictures and their sizes; an entry whose picture is not there is a fault."""
    if source.images is not None:
        source.images.expect(lambda: [clean_path(entry.name) for entry in listed])
    placed: list[_Placed] = []
    for entry in listed:
        with source.reporting(entry.record):
            path, name = _find_picture(source, entry)
            placed.append(_Placed(entry, name, path, _find_size(source, entry, path, name)))
    sure = []
    for image in placed:
        with source.reporting(image.listed.record):
            if image.path is not None:
                source.check_frame(image.path, image.name, image.listed.stated_wh)
            sure.append(image)
    source.tell_counted()
    return sure


def _find_picture(source: Source, entry: ListedImage) -> tuple[Path | None, str]:
    """Return the file (None if there is no folder of images to look in) and its path as samples name it."""
    root, name = source.images, clean_path(entry.name)
    if entry.path is not None:
        return entry.path, root.relative(entry.path) if root is not None else entry.path.as_posix()
    if root is None:
        return (Path(name) if os.path.isfile(name) else None), name
    found = root.find(name)
    if found is None:
        raise Unusable("missing_image", root.explain(name) + say_lost(len(entry.boxes)))
    if is_foreign(name):
        source.note(
            f"images are named by paths of another machine, as {entry.name}: found by the paths' ends"
        )
    return found, name if found == root.folder / name else root.relative(found)


def say_lost(n_boxes: int) -> str:
    """Return how a cause ends that costs an image its boxes."""
    return f"; its {n_boxes} box(es) are left out" if n_boxes else ""


def _find_size(source: Source, entry: ListedImage, path: Path | None, name: str) -> SizeWH:
    if path is not None:
        return source.check_size(path, name, entry.stated_wh)
    stated = read_stated(entry.stated_wh)
    if stated is None:
        cause = f"neither the size of {name} is stated, nor is it there"
        raise Unusable("missing_image", cause, "say with --images where it lies")
    return stated


def _identify(image: _Placed) -> str:
    return image.name if image.path is None else os.path.realpath(image.path)


# --- boxes ---


def _corners(numbers: Box, form: Form) -> Box:
    a, b, c, d = numbers
    if form == "corners":
        return numbers
    return (a, b, a + c, b + d) if form == "sides" else (a - c / 2, b - d / 2, a + c / 2, b + d / 2)


_FORMS: dict[Form, str] = {
    "corners": "x1 y1 x2 y2",
    "sides": "x y width height",
    "centre": "centre x, centre y, width, height",
}
_Sized: TypeAlias = tuple[ListedBox, SizeWH]


def _guess_frame(boxes: Sequence[_Sized], scale: Scale) -> SizeWH | None:
    """Return width and height of what the numbers of a file fill, whatever its form; None if that is each image.

    As `decide_scale` does, which sees corners: those of a wrong form would look like another scale.
    """
    top = max((abs(value) for box, _ in boxes for value in box.numbers if math.isfinite(value)), default=0)
    if top <= UNIT_LIMIT:
        return _UNIT_FRAME
    much_larger = len(boxes) >= ENOUGH and all(min(size) >= 300 for _, size in boxes)
    if top <= 100 and (scale == "percent" or much_larger):
        return 100, 100
    passing = sum(reaches_out(box.numbers, size) for box, size in boxes)
    return (1000, 1000) if top <= 1000 and len(boxes) >= FEW and passing >= len(boxes) / 5 else None


def _decide_form(
    source: Source, boxes: Sequence[_Sized], expected: Form | Sequence[Form], frame: SizeWH | None
) -> Form:
    """Return the form of a file's boxes: the expected one, unless many boxes fit their images only in another.

    Of several that are expected alike, that one in which (nearly) all boxes fit; `UnivgError` if that is not one.
    """
    if not isinstance(expected, str):
        return _choose_form(source, boxes, expected, frame)
    others: dict[Form, tuple[Form, ...]] = {"sides": ("corners", "centre"), "centre": ("corners", "sides")}
    if expected not in others or len(boxes) < FEW:
        return expected
    wrong = sum(not _fits(box, frame or size, expected) for box, size in boxes)
    fitting = [
        form for form in others[expected] if all(_fits(box, frame or size, form) for box, size in boxes)
    ]
    if not fitting or wrong < len(boxes) / 10:
        return expected
    why = f"{wrong} of {len(boxes)} would lie outside their image, and none does as"
    if len(fitting) > 1:
        cause = f"boxes are not {_FORMS[expected]} ({why} {' or as '.join(_FORMS[form] for form in fitting)})"
        raise UnivgError(cause, source.path, "write them as the format says")
    source.note(
        f"boxes are written {_FORMS[fitting[0]]}, not {_FORMS[expected]} ({why} {_FORMS[fitting[0]]}): read as such"
    )
    return fitting[0]


def _choose_form(
    source: Source, boxes: Sequence[_Sized], forms: Sequence[Form], frame: SizeWH | None
) -> Form:
    fitting = [
        form
        for form in forms
        if sum(_fits(box, frame or size, form) for box, size in boxes) >= _NEARLY * len(boxes)
    ]
    if not boxes:
        return forms[0]
    if len(fitting) == 1:
        source.note(f"boxes are read as {_FORMS[fitting[0]]}: only so they fit their images")
        return fitting[0]
    how = "either" if fitting else "neither"
    cause = f"boxes may be written {' or '.join(_FORMS[form] for form in forms)}, and {how} fits all images"
    raise UnivgError(cause, source.path, "give the columns names that say which, as xmin, ymin, xmax, ymax")


def _fits(box: ListedBox, frame: SizeWH, form: Form, exchanged: bool = False) -> bool:
    x1, y1, x2, y2 = _corners(box.numbers, form)
    width, height = frame[::-1] if exchanged else frame
    slack = 1.0 if frame != _UNIT_FRAME else _SLACK
    if form == "corners" and not (x1 < x2 and y1 < y2):
        return False
    low = form != "centre" or min(x1, y1) >= -slack
    return low and x2 <= width + slack and y2 <= height + slack


def _check_axes(source: Source, boxes: Sequence[_Sized], form: Form, frame: SizeWH | None) -> None:
    """Refuse a file whose boxes fit their images only with x and y exchanged: y first, or images turned since."""
    if frame == _UNIT_FRAME or len(boxes) < FEW:
        return
    wrong = sum(not _fits(box, size, form) for box, size in boxes)
    forms: set[Form] = {form, "corners"}
    if wrong >= len(boxes) / 5 and any(
        all(_fits(box, size, other, exchanged=True) for box, size in boxes) for other in forms
    ):
        cause = (
            f"{wrong} of {len(boxes)} boxes would lie outside their image, and none with x and y exchanged: they are "
            "written y first, or the images were turned since"
        )
        raise UnivgError(cause, source.path, "write x first, or bring the images that were annotated")


def _make_image(source: Source, same: list[_Placed], form: Form, scale: Scale) -> DetectionImage:
    first = same[0]
    instances: dict[tuple[str, Box], Instance] = {}
    for image in same:
        for listed in image.listed.boxes:
            with source.reporting(listed.record):
                box = _try_box(source, image, listed, form, scale)
                if (listed.category, box) in instances:
                    cause = (
                        f"{listed.category} at {show_box(_corners(listed.numbers, form))} is written twice"
                    )
                    fault = RecordFault(listed.record, "repeated_box", cause, usable=True)
                    report(fault, source.on_fault)
                    continue
                instance = Instance(listed.category, box, not listed.passed_over, listed.track)
                instances[listed.category, box] = instance
    for category in dict.fromkeys(category for image in same for category in image.lost):
        # How many there are is not known, so that none of the others can be called the only one.
        instances.setdefault((category, WHOLE), Instance(category, WHOLE, alone=False))
    entry = first.listed
    return DetectionImage(
        first.name, entry.record, first.size_wh, tuple(instances.values()), entry.video, entry.frame
    )


def _set_unread_apart(source: Source, image: _Placed) -> None:
    for box in image.listed.boxes:
        if box.unread is not None:
            image.lost.append(box.category)
            with source.reporting(box.record):
                raise box.unread
    image.listed.boxes = [box for box in image.listed.boxes if box.unread is None]


def _try_box(source: Source, image: _Placed, listed: ListedBox, form: Form, scale: Scale) -> Box:
    try:
        return _make_box(source, listed, form, scale, image.size_wh)
    except Unusable as fault:
        if fault.kind != "degenerate_box":  # a click that drew nothing is no object
            image.lost.append(listed.category)
        raise


def _make_box(source: Source, listed: ListedBox, form: Form, scale: Scale, size_wh: SizeWH) -> Box:
    """Return a box in the unit frame, clipped; raise `Unusable` if that leaves nothing."""
    written = _corners(listed.numbers, form)
    shown = show_box(written)
    if not all(map(math.isfinite, written)):
        raise Unusable("bad_box", f"{shown} is not finite")
    if written[2] < written[0] or written[3] < written[1]:
        raise Unusable("inverted_box", f"{shown} has its corners exchanged")
    refuse(stray_fault(written, scale) or stray_fault(listed.numbers, scale))
    unclipped = apply_scale(written, scale, size_wh)
    box, outside = clip_unit(unclipped)
    of = f"the {size_wh[0]}x{size_wh[1]} image"
    if all(max(unclipped[axis::2]) > 1 + FAR or min(unclipped[axis::2]) < -FAR for axis in (0, 1)):
        raise Unusable("wrong_scale", f"{shown} lies far outside {of}")
    if is_degenerate(box):
        raise Unusable("degenerate_box", f"{shown} encloses no area of the image")
    x1, y1, x2, y2 = unit_to_px(unclipped, size_wh)
    if outside and (min(x1, y1) < -_ROUNDING or x2 > size_wh[0] + _ROUNDING or y2 > size_wh[1] + _ROUNDING):
        cause = f"{shown} reaches outside {of}, and was clipped"
        report(RecordFault(listed.record, "out_of_range", cause, usable=True), source.on_fault)
    return box


def _note_what_is_special(source: Source, images: Iterable[list[_Placed]]) -> None:
    twice: list[str] = []
    passed: Counter[str] = Counter()
    for same in images:
        if len(same) > 1:
            twice.append(same[0].name)
        passed.update(box.passed_over for image in same for box in image.listed.boxes if box.passed_over)
    if twice:
        source.note(
            f"{len(twice)} image(s) are listed more than once, as {twice[0]}: their boxes are put together"
        )
    for why, count in sorted(passed.items()):
        source.note(f"{count} box(es) are marked {why}: there, but no targets")
