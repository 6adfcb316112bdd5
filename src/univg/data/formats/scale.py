"""Find the scale in which a file writes its boxes, and what is wrong with one box.

A published file writes all its boxes in one scale, and MIG-Bench exists in two: the public file in 0-1, the
revised one in 0-1000. What people export comes in pixels, 0-1, percent or 0-1000, often in another one than their
format says. So the scale is found out for the file as a whole, and noted; a box that plainly is of another one is
refused, never converted by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

from univg.data.formats.fields import find_numbers
from univg.data.formats.records import Source
from univg.data.formats.rows import read_rows
from univg.grounding.boxes import (
    Box,
    SizeWH,
    clip_unit,
    is_degenerate,
    is_ordered,
    px_to_unit,
    unit_to_permille,
)

__all__ = [
    *("SCALES", "Scale", "apply_scale", "box_fault", "decide_scale", "detect_scale", "lesson_fault"),
    "stray_fault",
]

Scale: TypeAlias = Literal["pixel", "unit", "percent", "permille"]

SCALES: dict[Scale, str] = {
    "pixel": "in pixels",
    "unit": "0-1",
    "percent": "in percent",
    "permille": "0-1000",
}
"""Every scale that files write boxes in, as notes and faults call it."""

UNIT_LIMIT = 1.05
"""Up to here a number can be one of 0-1: published boxes reach beyond the image by as much."""
_PERMILLE = 1000.0
_PERCENT = 100.0
_ENOUGH, _FEW = 10, 5
"""How many boxes make percent, or 0-1000 in the place of pixels, more than chance."""
_CHANCE = 1e-3
_FAR_OUTSIDE = 1.5
_SLACK = 1e-9


def detect_scale(source: Source, field: str) -> Scale:
    """Return the scale of the boxes in `field` of all rows, 0-1 if no number passes 1.05, and note it.

    Where some records alone would be 0-1 and others 0-1000, the file is taken as 0-1000, and the note says how
    many look otherwise: `box_fault` finds each of them.
    """
    small = large = 0
    for _, row in read_rows(source.path):
        numbers = find_numbers(row.get(field)) if isinstance(row, dict) else []
        if numbers and max(map(abs, numbers)) > UNIT_LIMIT:
            large += 1
        elif numbers:
            small += 1
    if not large:
        source.note(f"boxes are written 0-1 (no number of {small} passes {UNIT_LIMIT})")
        return "unit"
    mixed = f", but {small} hold no number above {UNIT_LIMIT}: see wrong_scale" if small else ""
    source.note(f"boxes are written 0-1000 ({large} of {small + large} hold larger numbers than 1{mixed})")
    return "permille"


def decide_scale(
    boxes: Iterable[tuple[Box, SizeWH | None]], expected: Scale, found: Callable[[str], None]
) -> Scale:
    """Return the scale that all boxes of a file are written in; say so to `found` unless it is the `expected` one.

    `boxes`: x1 y1 x2 y2 as written, with the size of the image that each lies on (None where nobody knows it).
    Another scale than the expected one is believed only if no box contradicts it, and the expected one does not fit:

    - 0-1: no number passes 1.05.
    - percent: no number of ten boxes or more passes 100, and the images are much larger (or 0-1000 was expected).
    - 0-1000 instead of pixels: a fifth of the boxes or more lie outside their image, and all within 0-1000.
    - pixels instead of 0-1000: a number passes 1000, and all boxes lie inside their images, whose sizes are known.
    - another scale instead of 0-1: no box could be 0-1, and the others are next to impossible (`_find_larger`).

    Single boxes that do not fit what is decided are for `stray_fault`.
    """
    written = list(boxes)
    largest = [max(map(abs, box)) for box, _ in written if all(map(math.isfinite, box))]
    top, n = max(largest, default=0.0), len(largest)
    scale: Scale = expected
    why = ""
    if not n or top <= UNIT_LIMIT:
        if n and expected != "unit":
            scale, why = "unit", f"no number of {n} box(es) passes {UNIT_LIMIT}"
    elif expected in ("pixel", "permille") and top <= _PERCENT and _could_be_percent(written, expected):
        if n >= _ENOUGH:
            scale, why = "percent", f"no number of {n} boxes passes 100"
        elif expected == "pixel":
            found(
                f"no number of {n} box(es) passes 100, on images of 300 pixels and more: percent? Read as pixels"
            )
    elif expected == "pixel":
        outside = sum(size is not None and _reaches_out(box, size) for box, size in written)
        if outside >= max(1, n / 5) and n >= _FEW and top <= _PERMILLE:
            scale, why = (
                "permille",
                f"{outside} of {n} boxes lie outside their image as pixels, none as 0-1000",
            )
    elif expected == "permille" and top > _PERMILLE:
        inside = all(size is not None and not _reaches_out(box, size) for box, size in written)
        if inside:
            passing = sum(value > _PERMILLE for value in largest)
            scale, why = (
                "pixel",
                f"{passing} of {n} box(es) pass 1000, and all lie inside their image as pixels",
            )
    elif expected == "unit":
        scale, why = _find_larger(written)
    if scale != expected:
        found(f"boxes are written {SCALES[scale]}, not {SCALES[expected]} ({why}): read as such")
    return scale


def _find_larger(written: list[tuple[Box, SizeWH | None]]) -> tuple[Scale, str]:
    """Return the scale of boxes that pass 1 where 0-1 is expected, and why; 0-1 if some do not, or two scales fit.

    What fits by chance is told apart by how likely it is that boxes of one scale all stay within another's limits.
    """
    finite = [(box, size) for box, size in written if all(map(math.isfinite, box))]
    top, n = max(max(map(abs, box)) for box, _ in finite), len(finite)
    if any(max(map(abs, box)) <= UNIT_LIMIT and any(v != int(v) for v in box) for box, _ in finite):
        return "unit", ""
    placed = [(box, size) for box, size in finite if size is not None]
    if len(placed) < n:
        return "unit", ""
    sizes = [size for _, size in placed]
    outside = sum(_reaches_out(box, size) for box, size in placed)
    if top <= _PERCENT:
        as_pixels = math.prod(min(1, _PERCENT / side) for size in sizes for side in size)
        if as_pixels < _CHANCE:
            return "percent", f"no number of {n} box(es) passes 100, on images much larger"
    elif not outside:
        as_permille = math.prod(min(1, side / _PERMILLE) for size in sizes for side in size)
        if top > _PERMILLE or as_permille < _CHANCE:
            return "pixel", f"{n} box(es) pass 1, and all lie inside their image as pixels"
    elif top <= _PERMILLE and n >= _FEW and outside >= n / 5:
        return "permille", f"{outside} of {n} boxes lie outside their image as pixels, none as 0-1000"
    return "unit", ""


def _could_be_percent(boxes: list[tuple[Box, SizeWH | None]], expected: Scale) -> bool:
    sizes = [size for _, size in boxes if size is not None]
    return expected == "permille" or (len(sizes) == len(boxes) and min(map(min, sizes)) >= 3 * _PERCENT)


def _reaches_out(box_px: Box, size_wh: SizeWH) -> bool:
    """Tell whether a box passes its image's edges by more than rounding and sloppy drawing explain."""
    return max(box_px[0::2]) > size_wh[0] * UNIT_LIMIT + 1 or max(box_px[1::2]) > size_wh[1] * UNIT_LIMIT + 1


def stray_fault(box: Box, scale: Scale) -> tuple[str, str] | None:
    """Return `(kind, cause)` if a box as written plainly is not of the file's `scale`, though others are; or None.

    >>> stray_fault((0.1, 0.1, 0.5, 0.5), "pixel"), stray_fault((10, 10, 50, 50), "pixel")
    (('wrong_scale', '(0.1, 0.1, 0.5, 0.5) is written 0-1, and the file in pixels'), None)
    """
    top = max(map(abs, box))
    other: Scale | None = None
    if scale != "unit" and 0 < top <= UNIT_LIMIT and any(value != int(value) for value in box):
        other = "unit"
    elif scale in ("unit", "percent") and top > {"unit": _FAR_OUTSIDE, "percent": _FAR_OUTSIDE * 100}[scale]:
        other = "pixel"
    if other is None:
        return None
    text = "(" + ", ".join(f"{value:.6g}" for value in box) + ")"
    return "wrong_scale", f"{text} is written {SCALES[other]}, and the file {SCALES[scale]}"


def apply_scale(box: Box, scale: Scale, size_wh: SizeWH | None = None) -> Box:
    """Return a box as written in a file of this scale in the unit frame; pixels need the image's size.

    >>> apply_scale((0, 250, 500, 1000), "permille"), apply_scale((0, 24, 64, 48), "pixel", (64, 48))
    ((0.0, 0.25, 0.5, 1.0), (0.0, 0.5, 1.0, 1.0))
    """
    if scale == "unit":
        return box
    if scale == "pixel":
        if size_wh is None:
            raise ValueError("a box in pixels needs the size of its image")
        return px_to_unit(box, size_wh)
    full = _PERMILLE if scale == "permille" else _PERCENT
    x1, y1, x2, y2 = box
    return x1 / full, y1 / full, x2 / full, y2 / full


def box_fault(box_unit: Box) -> tuple[str, str] | None:
    """Return `(kind, cause)` of what is wrong with a ground-truth box, or None. The worst is named.

    >>> box_fault((0.1, 0.1, 0.5, 0.5)) is None, box_fault((0.5, 0.1, 0.1, 0.5))[0]
    (True, 'inverted_box')
    >>> box_fault((0.319, 0.186, 1.048, 0.535))
    ('out_of_range', '(0.319, 0.186, 1.048, 0.535) reaches outside 0-1')
    >>> box_fault((102.0, 50.0, 340.0, 200.0))[0], box_fault((0.0001, 0.0002, 0.0005, 0.001))[0]
    ('wrong_scale', 'wrong_scale')
    """
    text = "(" + ", ".join(f"{value:.6g}" for value in box_unit) + ")"
    if not all(map(math.isfinite, box_unit)):
        return "bad_box", f"{text} is not finite"
    largest, smallest = max(box_unit), min(box_unit)
    if largest > _FAR_OUTSIDE or smallest < 1 - _FAR_OUTSIDE:
        return "wrong_scale", f"{text} lies far outside the image, as pixels or 0-1000 read as 0-1 would"
    if 0 < largest <= UNIT_LIMIT / _PERMILLE + _SLACK:
        return "wrong_scale", f"{text} is a thousandth of the image, as 0-1 read as 0-1000 would be"
    if not is_ordered(box_unit):
        return "inverted_box", f"{text} has its corners exchanged"
    if box_unit[0] == box_unit[2] or box_unit[1] == box_unit[3]:
        return "degenerate_box", f"{text} has no area"
    if smallest < -_SLACK or largest > 1 + _SLACK:
        return "out_of_range", f"{text} reaches outside 0-1"
    return None


def lesson_fault(box_unit: Box) -> tuple[str, str] | None:
    """Return `(kind, cause)` of why a box cannot be taught or rewarded, or None; one that only reaches outside can.

    >>> lesson_fault((0.319, 0.186, 1.048, 0.535)) is None, lesson_fault((0.5, 0.1, 0.1, 0.5))[0]
    (True, 'inverted_box')
    >>> lesson_fault((0.5001, 0.1, 0.5003, 0.5))
    ('degenerate_box', '(0.5001, 0.1, 0.5003, 0.5) has no area in whole thousandths, in which answers are written')
    >>> lesson_fault((1.2, 1.2, 1.4, 1.5))
    ('out_of_range', '(1.2, 1.2, 1.4, 1.5) lies outside the image: clipped to it, it has no area')
    """
    fault = box_fault(box_unit)
    if fault is not None and fault[0] != "out_of_range":
        return fault
    clipped = clip_unit(box_unit)[0]  # as answers are written
    text = "(" + ", ".join(f"{value:.6g}" for value in box_unit) + ")"
    if is_degenerate(clipped):
        return "out_of_range", f"{text} lies outside the image: clipped to it, it has no area"
    x1, y1, x2, y2 = unit_to_permille(clipped)
    if x1 >= x2 or y1 >= y2:
        return "degenerate_box", f"{text} has no area in whole thousandths, in which answers are written"
    return None
