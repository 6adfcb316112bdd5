"""Choose among several responses to one question by how much their boxes agree."""

from __future__ import annotations

from collections.abc import Sequence

from univg.grounding.boxes import iou
from univg.grounding.reading import Reading
from univg.grounding.sets import ROUNDING, OnImage, match_sets

__all__ = ["SAME", "choose_most_agreed", "count_agreeing"]

SAME = 0.5
"""The IoU from which two boxes of two responses are taken for the same thing."""


def choose_most_agreed(readings: Sequence[Reading], sets: bool = False) -> tuple[int, float | None]:
    """Return the place of the reading whose first box has the highest mean IoU with those of all others (the medoid),
    and that mean; None for a single reading.

    A box on another image, or no box, agrees by 0. A reading with a fault is taken only if every one with a box has
    one, however much others agree with it. With no box anywhere, it is the first reading, at confidence 0.

    `sets`: the answer is a set, so that readings agree by the soft-F1 of all their boxes on their images, and two that
    say that nothing fits agree by 1.

    >>> from univg.grounding.reading import Asked, read
    >>> texts = ["(0,0),(500,500)", "(0,0),(500,400)", "(900,900),(999,999)"]
    >>> choose_most_agreed([read(text, Asked(style="simple")) for text in texts])
    (0, 0.4)
    >>> choose_most_agreed([read(text, Asked(style="set_direct")) for text in [*texts, "none", "none"]], sets=True)
    (3, 0.25)
    """
    if len(readings) == 1:
        return 0, None
    usable = [k for k, reading in enumerate(readings) if reading.boxes or (sets and reading.says_none)]
    sound = [place for place in usable if readings[place].fault is None]
    share = _share_boxes if sets else _overlap
    best, agreement = 0, -1.0
    for place in sound or usable:
        shared = sum(share(readings[place], readings[other]) for other in usable if other != place)
        if shared > agreement:
            best, agreement = place, shared
    return best, max(agreement, 0.0) / (len(readings) - 1)


def count_agreeing(readings: Sequence[Reading], chosen: int) -> list[float]:
    """Return for each box of the reading at `chosen` the share of the other readings that have it too: a box matched
    to it with an IoU of at least `SAME`, on the same image. 0-1, in the order of its boxes.

    >>> from univg.grounding.reading import Asked, read
    >>> texts = ["Image-1: (0,0),(500,500); Image-2: (0,0),(90,90)", "Image-1: (0,0),(500,400)", "none"]
    >>> count_agreeing([read(text, Asked(2, style="set_direct")) for text in texts], 0)
    [0.5, 0.0]
    """
    counts = [0] * len(readings[chosen].boxes)
    for place, other in enumerate(readings):
        if place != chosen:
            for box, _, overlap in match_sets(_place(readings[chosen]), _place(other)).pairs:
                counts[box] += overlap >= SAME - ROUNDING
    return [count / (len(readings) - 1) for count in counts]


def _share_boxes(one: Reading, other: Reading) -> float:
    return match_sets(_place(one), _place(other)).soft_f1


def _place(reading: Reading) -> list[OnImage]:
    return [(one.image_index, one.box) for one in reading.boxes]


def _overlap(one: Reading, other: Reading) -> float:
    here, there = one.boxes[0], other.boxes[0]
    return iou(here.box, there.box) if here.image_index == there.image_index else 0.0
