"""Compare a set of boxes with the set that is asked for: each box is matched to one of its image, or to none.

The matching is the one of all with the greatest sum of IoU (the assignment problem, by scipy), and from it comes one
number, the *soft-F1*: 2 · sum of matched IoU / (boxes given + boxes true). Of one box against one it is their IoU. A
box too many, a box given twice and a box missed lower it alike; where nothing is to be found, it is 1 for an answer
that says so and 0 for any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from univg.grounding.boxes import Box, iou

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["THRESHOLDS", "OnImage", "SetMatch", "match_sets"]

OnImage: TypeAlias = tuple[int | None, Box]
"""A box and its image, from 0; None is an image that nobody stated, and fits any."""

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""COCO's: 0.5, 0.55, … 0.95."""

# An IoU of exactly one half between integers 0-1000 must hit, though between unit floats it may come out a last
# bit lower. Integer boxes that miss a threshold miss it by more than 1e-8.
ROUNDING = 1e-9


@dataclass(frozen=True)
class SetMatch:
    """What is common to the boxes `given` and those that are `true`."""

    given: tuple[OnImage, ...]
    true: tuple[OnImage, ...]
    pairs: tuple[tuple[int, int, float], ...]
    """(place of the given box, place of the true one, their IoU above 0), by the first."""
    broken: bool = False
    """The answer is neither boxes nor 'none': every measure is 0.0, also where nothing is true."""

    @property
    def soft_f1(self) -> float:
        """2 · sum of matched IoU / (given + true), 0-1; 1.0 where both are empty."""
        return self._share(2.0 * sum(overlap for *_, overlap in self.pairs), len(self.given) + len(self.true))

    def count_hits(self, threshold: float) -> int:
        """Return how many pairs at most, of one given and one true box each, have an IoU of `threshold` or more."""
        least = threshold - ROUNDING
        if sum(overlap >= least for *_, overlap in self.pairs) == min(len(self.given), len(self.true)):
            return len(self.pairs)
        return len(_assign(self.given, self.true, lambda overlap: float(overlap >= least)))

    def precision(self, threshold: float) -> float:
        """Return the share of given boxes that hit at `threshold`; without any, 1.0 if none is true, else 0.0."""
        return self._share(self.count_hits(threshold), len(self.given), len(self.true))

    def recall(self, threshold: float) -> float:
        """Return the share of true boxes that are hit at `threshold`; without any, 1.0 if none is given, else 0.0."""
        return self._share(self.count_hits(threshold), len(self.true), len(self.given))

    def f1(self, threshold: float) -> float:
        """Return 2 · hits / (given + true) at `threshold`; 1.0 where both are empty."""
        return self._share(2.0 * self.count_hits(threshold), len(self.given) + len(self.true))

    @cached_property
    def mean_f1(self) -> float:
        """The mean F1 over `THRESHOLDS`."""
        return sum(self.f1(threshold) for threshold in THRESHOLDS) / len(THRESHOLDS)

    @property
    def image_f1(self) -> float | None:
        """2 · images named rightly / (images named + images true), whatever the boxes; None where no image is
        stated."""
        if any(image is None for image, _ in self.true):
            return None
        named, right = ({image for image, _ in side} for side in (self.given, self.true))
        return self._share(2.0 * len(named & right), len(named) + len(right))

    def _share(self, part: float, whole: int, others: int = 0) -> float:
        if self.broken:
            return 0.0
        return part / whole if whole else float(not others)


def match_sets(given: Sequence[OnImage], true: Sequence[OnImage], broken: bool = False) -> SetMatch:
    """Match the boxes `given` to the `true` ones of the same image, so that the sum of IoU is the greatest.

    `broken`: the answer holds no box, and does not say that nothing is there either.

    >>> one, other = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
    >>> match = match_sets([(0, one), (1, one)], [(0, one), (0, other)])
    >>> match.soft_f1, match.f1(0.5), match.image_f1, match_sets([], []).soft_f1
    (0.5, 0.5, 0.6666666666666666, 1.0)
    """
    return SetMatch(tuple(given), tuple(true), _assign(given, true, lambda overlap: overlap), broken)


def _assign(
    given: Sequence[OnImage], true: Sequence[OnImage], worth: Callable[[float], float]
) -> tuple[tuple[int, int, float], ...]:
    """Return the pairs with the greatest sum of what their IoU is worth, without those that are worth nothing."""
    if not given or not true:
        return ()
    overlaps = [
        [iou(box, truth) if on is None or there is None or on == there else 0.0 for there, truth in true]
        for on, box in given
    ]
    worths = [[worth(overlap) for overlap in row] for row in overlaps]
    if len(given) == len(true) == 1:
        chosen = [(0, 0)]
    else:
        from scipy.optimize import linear_sum_assignment

        rows, columns = linear_sum_assignment(worths, maximize=True)
        chosen = list(zip(rows.tolist(), columns.tolist(), strict=True))
    return tuple((row, column, overlaps[row][column]) for row, column in chosen if worths[row][column] > 0)
