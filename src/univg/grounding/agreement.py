"""Choose among several responses to one question by how much their boxes agree."""

from __future__ import annotations

from collections.abc import Sequence

from univg.grounding.boxes import iou
from univg.grounding.reading import Reading

__all__ = ["choose_most_agreed"]


def choose_most_agreed(readings: Sequence[Reading]) -> tuple[int, float | None]:
    """Return the place of the reading whose first box has the highest mean IoU with those of all others (the medoid),
    and that mean; None for a single reading.

    A box on another image, or no box, agrees by 0. A reading with a fault is taken only if every one with a box has
    one, however much others agree with it. With no box anywhere, it is the first reading, at confidence 0.

    >>> from univg.grounding.reading import Asked, read
    >>> texts = ["(0,0),(500,500)", "(0,0),(500,400)", "(900,900),(999,999)"]
    >>> choose_most_agreed([read(text, Asked(style="simple")) for text in texts])
    (0, 0.4)
    """
    if len(readings) == 1:
        return 0, None
    boxed = [place for place, reading in enumerate(readings) if reading.boxes]
    sound = [place for place in boxed if readings[place].fault is None]
    best, agreement = 0, -1.0
    for place in sound or boxed:
        shared = sum(_overlap(readings[place], readings[other]) for other in boxed if other != place)
        if shared > agreement:
            best, agreement = place, shared
    return best, max(agreement, 0.0) / (len(readings) - 1)


def _overlap(one: Reading, other: Reading) -> float:
    here, there = one.boxes[0], other.boxes[0]
    return iou(here.box, there.box) if here.image_index == there.image_index else 0.0
