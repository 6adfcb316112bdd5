"""Read records whose boxes are in pixels: the picture's size compared with what is stated, one scale for the file.

A reader says what a record draws (:class:`Drawn`), then makes samples of it with boxes in the unit frame. The file
is gone through twice, as its scale is decided over all of its boxes; nothing but counts is kept of the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache, partial, wraps
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

from univg.data.formats.embedded import unpack_rows
from univg.data.formats.faults import Unusable, refuse
from univg.data.formats.fields import Row, find_numbers, read_box, shorten, show_box
from univg.data.formats.masks import Extent
from univg.data.formats.records import Read, Source, Split, make_samples, read_stated
from univg.data.formats.rows import Rows, read_rows
from univg.data.formats.scale import FAR, Scale, apply_scale, decide_scale, stray_fault
from univg.grounding.boxes import Box, SizeWH
from univg.grounding.samples import GroundingSample

__all__ = [
    "Drawn",
    "check_mask_size",
    "find_size",
    "place_boxes",
    "read_boxes",
    "read_row_size",
    "reads_pixels",
]

_SIZES = (
    ("width", "height"),
    ("image_width", "image_height"),
    ("img_width", "img_height"),
    ("imageWidth", "imageHeight"),
    ("img_w", "img_h"),
)
_SIZES_KEPT = 1 << 16


class Drawn(NamedTuple):
    """What a record draws: boxes x1 y1 x2 y2 as written, on image `target` of `images`, with its size if stated."""

    boxes: tuple[Box, ...]
    images: tuple[str, ...]
    target: int = 0
    stated_wh: tuple[Any, Any] = (None, None)


Find: TypeAlias = Callable[[Source, Any, str], Drawn]
Make: TypeAlias = Callable[[Source, Any, Drawn, str], Iterable[GroundingSample]]


def reads_pixels(
    set_name: str,
    find: Find,
    id_fields: tuple[str, ...] = ("id",),
    rows: Callable[[Path], Rows] = read_rows,
    split: Split | None = None,
    unpacks: bool = False,
) -> Callable[[Make], Read]:
    """Make a reader of a whole source of a function that makes samples of what `find` found in one record.

    `unpacks`: whether pictures that rows hold are written to files first.

    `make(source, row, drawn, record)` is given `drawn` with its boxes in the unit frame; the rest is as for
    `univg.data.formats.records.reads`.
    """

    def decorate(make: Make) -> Read:
        @wraps(make)
        def read(source: Source) -> Iterator[GroundingSample]:
            def list_rows(source: Source) -> Rows:
                found = rows(source.path)
                return unpack_rows(source, found) if unpacks else found

            quiet = replace(source, on_fault=lambda fault: None, on_note=None)
            size_of = lru_cache(_SIZES_KEPT)(partial(find_size, quiet))

            def measure(part: Any, record: str) -> Iterator[tuple[Box, SizeWH | None]]:
                drawn = find(quiet, part, record)
                size = size_of(drawn.images[drawn.target], read_stated(drawn.stated_wh))
                yield from ((box, size) for box in drawn.boxes)

            found = make_samples(quiet, set_name, list_rows(quiet), measure, id_fields, split)
            scale = decide_scale(found, "pixel", source.note)
            size_of = lru_cache(_SIZES_KEPT)(partial(find_size, source, certainly=True))

            def convert(part: Any, record: str) -> Iterable[GroundingSample]:
                drawn = find(source, part, record)
                size = size_of(drawn.images[drawn.target], read_stated(drawn.stated_wh))
                return make(source, part, drawn._replace(boxes=place_boxes(drawn.boxes, scale, size)), record)

            yield from make_samples(source, set_name, list_rows(source), convert, id_fields, split)

        return read

    return decorate


def find_size(source: Source, name: str, stated_wh: SizeWH | None, certainly: bool = False) -> SizeWH:
    """Return the size of the image the boxes lie on; what the record states only where the image is not there.

    `certainly`: once the whole file has been seen, what others of its pictures prove counts too.
    """
    stated = stated_wh or (None, None)
    path = source.images.find(name) if source.images is not None else None
    if path is None:
        return stated_wh or source.read_size(name)
    size = source.check_size(path, name, stated)
    if certainly:
        source.check_frame(path, name, stated)
    return size


def place_boxes(boxes: Iterable[Box], scale: Scale, size_wh: SizeWH) -> tuple[Box, ...]:
    """Return boxes as written in a file of this scale in the unit frame.

    Raises `Unusable` for one of another scale, or so far outside the image that it must be of another.
    """
    placed = []
    for box in boxes:
        refuse(stray_fault(box, scale))
        unit = apply_scale(box, scale, size_wh)
        if max(unit) > 1 + FAR or min(unit) < -FAR:
            cause = f"{show_box(box)} lies far outside the {size_wh[0]}x{size_wh[1]} image"
            raise Unusable("wrong_scale", cause)
        placed.append(unit)
    return tuple(placed)


def check_mask_size(source: Source, image: str, extents: Iterable[Extent]) -> None:
    """Compare the size of masks with that of the picture they were drawn on, where that is there."""
    path = source.images.find(image) if source.images is not None else None
    for _, size_wh in extents if path is not None else ():
        source.check_size(cast(Path, path), image, size_wh)
        source.check_frame(cast(Path, path), image, size_wh)


def read_row_size(row: Row) -> tuple[Any, Any]:
    """Return width and height as a record states them, under whichever of the usual names; (None, None) if not."""
    for names in _SIZES:
        sides = row.get(names[0]), row.get(names[1])
        if None not in sides and read_stated(sides) is not None:
            return sides
    return None, None


def read_boxes(value: Any, what: str) -> tuple[Box, ...]:
    """Return all boxes in `value`, however nested: its numbers by four.

    >>> read_boxes([[[1, 2, 3, 4]], [[5, 6], [7, 8]]], "'bbox'")
    ((1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0))
    """
    numbers = find_numbers(value)
    if not numbers:
        raise Unusable("no_box", f"{what} is {shorten(value)}")
    if len(numbers) % 4:
        raise Unusable("bad_box", f"{what} is {shorten(value)}, not four finite numbers a box")
    return tuple(read_box(numbers[at : at + 4], what) for at in range(0, len(numbers), 4))
