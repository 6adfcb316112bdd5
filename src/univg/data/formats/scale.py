"""Find the scale in which a file writes its boxes, and what is wrong with one box.

A published file writes all its boxes in one scale, and MIG-Bench exists in two: the public file in 0-1, the
revised one in 0-1000. What people export comes in pixels, 0-1, percent or 0-1000, often in another one than their
format says. So the scale is found out for the file as a whole, and noted; a box that plainly is of another one is
refused, never converted by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from univg.data.formats.faults import Unusable
from univg.data.formats.fields import clean_path, find_numbers, show_box
from univg.data.formats.records import Source
from univg.data.formats.rows import read_rows
from univg.errors import UnivgError
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
    *(
        "ENOUGH",
        "FAR",
        "FEW",
        "PERCENT",
        "PERMILLE",
        "SCALES",
        "UNIT_LIMIT",
        "Scale",
        "apply_scale",
        "box_fault",
    ),
    *("decide_scale", "detect_scale", "lesson_fault", "reaches_out", "stray_fault"),
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
PERMILLE = 1000.0
PERCENT = 100.0
ENOUGH, FEW = 10, 5
"""How many boxes make percent, or 0-1000 in the place of pixels, more than chance."""
_CHANCE = math.log(1e-3)
"""Less likely than this is no chance."""
FAR = 0.5
"""Of the image's sides: a box that passes them by more is of another image or scale, not drawn sloppily."""
_FAR_OUTSIDE = 1 + FAR
_SLACK = 1e-9


def detect_scale(source: Source, field: str) -> Scale:
    """Return the scale of the boxes in `field` of all rows of a set in 0-1 or 0-1000, and note it.

    0-1 if no number passes 1.05. Where some records alone would be 0-1 and others 0-1000, the file is taken as
    0-1000, and the note says how many look otherwise: `box_fault` finds each of them. Percent are read as such; a
    file in pixels is refused as a whole, as nobody knows which image's pixels they are.
    """
    small = large = huge = 0

    def find_boxes() -> Iterator[tuple[Box, None]]:
        nonlocal small, large, huge
        for _, row in read_rows(source.path):
            numbers = find_numbers(row.get(field)) if isinstance(row, dict) else []
            top = max(map(abs, numbers), default=0.0)
            small += bool(numbers) and top <= UNIT_LIMIT
            large += top > UNIT_LIMIT
            huge += top > UNIT_LIMIT * PERMILLE
            if len(numbers) == 4:
                yield (numbers[0], numbers[1], numbers[2], numbers[3]), None

    scale = decide_scale(find_boxes(), "permille", lambda note: None)
    if not large:
        source.note(f"boxes are written 0-1 (no number of {small} passes {UNIT_LIMIT})")
        return "unit"
    if huge >= FEW and huge >= large / 5:
        cause = f"boxes are written in pixels: {huge} of {small + large} hold numbers far above 1000"
        raise UnivgError(cause, source.path, "write them 0-1 or 0-1000 of their image's width and height")
    if scale == "percent":
        source.note(f"boxes are written in percent, not 0-1000 (no number of {large + small} passes 100)")
        return scale
    if source.images is not None and _fit_as_pixels(source, field):
        source.note(
            "every box lies inside its images as pixels too, which 0-1000 hardly would: read as 0-1000, as the format "
            "says; pixels?"
        )
    mixed = f", but {small} hold no number above {UNIT_LIMIT}: see wrong_scale" if small else ""
    source.note(f"boxes are written 0-1000 ({large} of {small + large} hold larger numbers than 1{mixed})")
    return "permille"


def _fit_as_pixels(source: Source, field: str) -> bool:
    """Tell whether boxes that should be 0-1000 all lie inside their images as pixels, and not by chance.

    Of several images the largest sides count, as nobody says which is meant. A set in 0-1000 is known after a few.
    """
    log_of_chance = 0.0
    for _, row in read_rows(source.path):
        images = row.get("images") if isinstance(row, dict) else None
        numbers = find_numbers(row.get(field)) if isinstance(row, dict) else []
        if len(numbers) != 4 or not images or not isinstance(images, list):
            continue
        try:
            sizes = [source.read_size(clean_path(str(image))) for image in images]
        except Unusable:
            continue  # told when images are checked
        wide, high = (max(sides) for sides in zip(*sizes, strict=True))
        if reaches_out((numbers[0], numbers[1], numbers[2], numbers[3]), (wide, high)):
            return False
        log_of_chance += sum(math.log(min(1, side / PERMILLE)) for side in (wide, high))
    return log_of_chance < _CHANCE


@dataclass
class _Tally:
    """Count what boxes tell of their scale: `n` finite ones, their largest number, how they lie on their images.

    - `fractions`: boxes that can only be 0-1.
    - `log_in_percent`, `log_in_permille`, `log_in_image`: how likely it is, as a logarithm, that boxes in pixels all
      stay below 100, or below 1000, and that boxes in 0-1000 all lie inside their images as pixels.
    """

    n: int = 0
    top: float = 0.0
    passing: int = 0
    past_percent: int = 0
    outside: int = 0
    unknown: int = 0
    narrowest: float = math.inf
    fractions: int = 0
    log_in_percent: float = 0.0
    log_in_permille: float = 0.0
    log_in_image: float = 0.0

    def add(self, box: Box, size: SizeWH | None) -> None:
        if not all(map(math.isfinite, box)):
            return
        largest = max(map(abs, box))
        self.n += 1
        self.top = max(self.top, largest)
        self.passing += largest > PERMILLE
        self.past_percent += largest > PERCENT
        self.fractions += largest <= UNIT_LIMIT and any(value != int(value) for value in box)
        if size is None:
            self.unknown += 1
        else:
            self.outside += reaches_out(box, size)
            self.narrowest = min(self.narrowest, *size)
            self.log_in_percent += sum(math.log(min(1, PERCENT / side)) for side in size)
            self.log_in_permille += sum(math.log(min(1, PERMILLE / side)) for side in size)
            self.log_in_image += sum(math.log(min(1, side / PERMILLE)) for side in size)

    def looks_small(self, full: float) -> bool:
        """Tell whether no number passes `full`, on images whose sides are all three times as long or longer."""
        return self.top <= full and not self.unknown and self.narrowest >= 3 * full


def decide_scale(
    boxes: Iterable[tuple[Box, SizeWH | None]], expected: Scale, found: Callable[[str], None]
) -> Scale:
    """Return the scale that all boxes of a file are written in; say so to `found` unless it is the `expected` one.

    `boxes`: x1 y1 x2 y2 as written, with the size of the image that each lies on (None where nobody knows it).
    Another scale than the expected one is believed only if no box contradicts it, and the expected one does not fit:

    - 0-1: no number passes 1.05.
    - percent: no number of ten boxes or more passes 100, and the images are much larger (or 0-1000 was expected).
    - 0-1000 instead of pixels: a fifth of the boxes or more lie outside their image, and all within 0-1000; or no
      number of ten boxes or more passes 1000, and the images are much larger.
    - pixels instead of 0-1000: a number passes 1000, and all boxes lie inside their images, whose sizes are known.
    - pixels instead of percent: half of the boxes pass 100, and all lie inside their images.
    - another scale instead of 0-1: no box could be 0-1, and the others are next to impossible (`_find_larger`).

    Single boxes that do not fit what is decided are for `stray_fault`.
    """
    seen = _Tally()
    for box, size in boxes:
        seen.add(box, size)
    scale, why = _judge(seen, expected, found)
    if scale != expected:
        found(f"boxes are written {SCALES[scale]}, not {SCALES[expected]} ({why}): read as such")
    return scale


def _judge(seen: _Tally, expected: Scale, found: Callable[[str], None]) -> tuple[Scale, str]:
    n = seen.n
    if seen.top <= UNIT_LIMIT:
        return ("unit", f"no number of {n} box(es) passes {UNIT_LIMIT}") if n else (expected, "")
    if expected == "permille" and seen.top <= PERCENT and n >= ENOUGH:
        return "percent", f"no number of {n} boxes passes 100"
    if expected == "permille" and seen.passing and not seen.outside and not seen.unknown:
        why = f"{seen.passing} of {n} box(es) pass 1000, and all lie inside their image as pixels"
        return "pixel", why
    if expected == "unit":
        return _find_larger(seen)
    if expected == "percent" and seen.top > PERCENT * _FAR_OUTSIDE:
        past = f"{seen.past_percent} of {n} box(es) pass 100"
        if seen.past_percent >= n / 2 and not seen.outside and not seen.unknown:
            return "pixel", f"{past}, and all lie inside their image as pixels"
        found(f"{past}, where percent are meant; the others are read as percent")
    if expected != "pixel":
        return expected, ""
    for full, other in ((PERCENT, "percent"), (PERMILLE, "permille")):
        if seen.looks_small(full) and n >= ENOUGH:
            return cast(Scale, other), f"no number of {n} boxes passes {full:g}"
        if seen.looks_small(full):
            name = "percent" if full == PERCENT else "0-1000"
            found(
                f"no number of {n} box(es) passes {full:g}, on images of {3 * full:g} pixels and more: {name}? "
                "Read as pixels"
            )
            return expected, ""
    if n >= ENOUGH and seen.top <= PERMILLE and not seen.outside and seen.log_in_permille < _CHANCE:
        found(f"no number of {n} boxes passes 1000, though images are larger: 0-1000? Read as pixels")
    if seen.outside >= max(1, n / 5) and n >= FEW and seen.top <= PERMILLE:
        return "permille", f"{seen.outside} of {n} boxes lie outside their image as pixels, none as 0-1000"
    return expected, ""


def _find_larger(seen: _Tally) -> tuple[Scale, str]:
    """Return the scale of boxes that pass 1 where 0-1 is expected, and why; 0-1 if some do not, or two scales fit.

    What fits by chance is told apart by how likely it is that boxes of one scale all stay within another's limits.
    """
    if seen.fractions or seen.unknown:
        return "unit", ""
    if seen.top <= PERCENT:
        if seen.log_in_percent < _CHANCE:
            return "percent", f"no number of {seen.n} box(es) passes 100, on images much larger"
    elif not seen.outside:
        if seen.passing or seen.log_in_image < _CHANCE:
            return "pixel", f"{seen.n} box(es) pass 1, and all lie inside their image as pixels"
    elif not seen.passing and seen.n >= FEW and seen.outside >= seen.n / 5:
        return (
            "permille",
            f"{seen.outside} of {seen.n} boxes lie outside their image as pixels, none as 0-1000",
        )
    return "unit", ""


def reaches_out(box_px: Box, size_wh: SizeWH) -> bool:
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
    return "wrong_scale", f"{show_box(box)} is written {SCALES[other]}, and the file {SCALES[scale]}"


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
    full = PERMILLE if scale == "permille" else PERCENT
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
    text = show_box(box_unit)
    if not all(map(math.isfinite, box_unit)):
        return "bad_box", f"{text} is not finite"
    largest, smallest = max(box_unit), min(box_unit)
    if largest > _FAR_OUTSIDE or smallest < -FAR:
        return "wrong_scale", f"{text} lies far outside the image, as pixels or 0-1000 read as 0-1 would"
    if 0 < largest <= UNIT_LIMIT / PERMILLE + _SLACK:
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
    text = show_box(box_unit)
    if is_degenerate(clipped):
        return "out_of_range", f"{text} lies outside the image: clipped to it, it has no area"
    x1, y1, x2, y2 = unit_to_permille(clipped)
    if x1 >= x2 or y1 >= y2:
        return "degenerate_box", f"{text} has no area in whole thousandths, in which answers are written"
    return None
