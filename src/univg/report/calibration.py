"""Tell whether a confidence means what it says: of the answers with 0.8, four in five should be right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Bin", "Calibration", "calibrate"]


@dataclass(frozen=True)
class Bin:
    """The answers whose confidence lies between `low` and `high`: how many, how confident, and how often right."""

    low: float
    high: float
    n: int
    confidence: float
    hits: float


@dataclass(frozen=True)
class Calibration:
    """Confidence beside the share that is right, by bins that hold something."""

    bins: tuple[Bin, ...]

    @property
    def n(self) -> int:
        """How many answers."""
        return sum(one.n for one in self.bins)

    @property
    def confidence(self) -> float:
        """The mean confidence, 0-1."""
        return sum(one.n * one.confidence for one in self.bins) / self.n

    @property
    def hits(self) -> float:
        """The share that is right, 0-1."""
        return sum(one.n * one.hits for one in self.bins) / self.n

    @property
    def error(self) -> float:
        """The expected calibration error: the mean distance of confidence and share over the bins, weighted by their
        answers (Guo et al. 2017, arXiv 1706.04599)."""
        return sum(one.n * abs(one.confidence - one.hits) for one in self.bins) / self.n


def calibrate(confidences: Sequence[float], hits: Sequence[bool], bins: int = 10) -> Calibration:
    """Sort answers into `bins` of equal width by their confidence, 0-1; 1.0 lies in the last.

    Raises ValueError for no answers.

    >>> found = calibrate([0.9, 0.9, 0.1, 0.1], [True, False, False, False])
    >>> [(one.n, one.hits) for one in found.bins], round(found.error, 3)
    ([(2, 0.0), (2, 0.5)], 0.25)
    """
    if not confidences:
        raise ValueError("no answers: nothing to calibrate")
    said, right = np.asarray(confidences, dtype=np.float64), np.asarray(hits, dtype=np.float64)
    # a share of others such as 0.3 may come out a last bit lower than the edge that it lies on
    place = np.clip((said * bins + 1e-9).astype(int), 0, bins - 1)
    found = []
    for number in range(bins):
        here = place == number
        if count := int(here.sum()):
            mean, share = float(said[here].mean()), float(right[here].mean())
            found.append(Bin(number / bins, (number + 1) / bins, count, mean, share))
    return Calibration(tuple(found))
