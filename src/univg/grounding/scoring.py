"""Score readings: :func:`score` is the one judge, for training, evaluation and construction alike.

Scorers that reproduce the published reference code stand in :mod:`univg.grounding.legacy`.
"""

from __future__ import annotations

from dataclasses import dataclass

from univg.grounding.boxes import iou
from univg.grounding.reading import Reading
from univg.grounding.samples import GroundingSample, SampleError

__all__ = ["Score", "score"]

# An IoU of exactly one half between integers 0-1000 must hit, though between unit floats it may come out a last
# bit lower. Integer boxes that miss a threshold miss it by more than 1e-8.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Score:
    """How good one response is. What is wrong with it, and on which image its boxes lie, its Reading says."""

    iou: float
    """Of the response's first box with the sample's first box, 0-1; 0.0 without a box. The image is not scored, as
    in the published protocols."""
    format_ok: bool
    """The form the prompt asked for, to the character, with nothing to mend: no fault."""

    def hits(self, threshold: float) -> bool:
        """Tell whether the IoU reaches a threshold, such as MIG-Bench's 0.3, 0.5 and 0.7."""
        return self.iou >= threshold - _ROUNDING

    @property
    def hit_30(self) -> bool:
        """IoU at least 0.3; likewise ``hit_50`` and ``hit_70``."""
        return self.hits(0.3)

    @property
    def hit_50(self) -> bool:
        """IoU at least 0.5."""
        return self.hits(0.5)

    @property
    def hit_70(self) -> bool:
        """IoU at least 0.7."""
        return self.hits(0.7)


def score(sample: GroundingSample, reading: Reading) -> Score:
    """Judge a response to ``sample``, as :func:`univg.grounding.reading.read` read it.

    A sample without ground truth cannot be scored: :class:`SampleError`. Ground truth that encloses no area
    (published files hold some) gives an IoU of 0.0 whatever the response.

    >>> from univg.grounding.reading import Asked, read
    >>> sample = GroundingSample(["a.png", "b.png"], "What differs?", "diff", boxes=[(0, 0, 0.5, 0.5)])
    >>> reading = read("<think>A cup.</think><answer>(0,0),(500,250)</answer>", Asked.of(sample))
    >>> result = score(sample, reading)
    >>> result.iou, result.hit_50, result.format_ok, reading.image_index, reading.image_rule
    (0.5, True, True, 1, 'last')
    """
    if not sample.boxes:
        raise SampleError(f"sample {sample.name} has no ground truth to score against")
    overlap = iou(reading.box, sample.boxes[0]) if reading.box is not None else 0.0
    return Score(overlap, reading.format_ok)
