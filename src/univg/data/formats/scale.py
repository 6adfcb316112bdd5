"""Find the scale in which a file writes its boxes, and what is wrong with one box.

A published file writes all its boxes in one scale, and MIG-Bench exists in two: the public file in 0-1, the
revised one in 0-1000. So the scale is found out for the file as a whole, and noted.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from univg.data.formats.fields import find_numbers
from univg.data.formats.records import Source
from univg.data.formats.rows import read_rows
from univg.grounding.boxes import Box, is_degenerate, is_ordered, unit_to_permille

__all__ = ["Scale", "apply_scale", "box_fault", "detect_scale", "lesson_fault"]

Scale: TypeAlias = Literal["unit", "permille"]

UNIT_LIMIT = 1.05
"""Up to here a number can be one of 0-1: published boxes reach beyond the image by as much."""
_PERMILLE = 1000.0
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


def apply_scale(box: Box, scale: Scale) -> Box:
    """Return a box as written in a file of this scale in the unit frame.

    >>> apply_scale((0, 250, 500, 1000), "permille")
    (0.0, 0.25, 0.5, 1.0)
    """
    if scale == "unit":
        return box
    x1, y1, x2, y2 = box
    return x1 / _PERMILLE, y1 / _PERMILLE, x2 / _PERMILLE, y2 / _PERMILLE


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
    """
    fault = box_fault(box_unit)
    if fault is not None and (fault[0] != "out_of_range" or is_degenerate(box_unit)):
        return fault
    x1, y1, x2, y2 = unit_to_permille(box_unit)
    if x1 >= x2 or y1 >= y2:
        text = "(" + ", ".join(f"{value:.6g}" for value in box_unit) + ")"
        return "degenerate_box", f"{text} has no area in whole thousandths, in which answers are written"
    return None
