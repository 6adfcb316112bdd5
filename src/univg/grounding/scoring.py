"""Score readings: :func:`score` is the one judge, for training, evaluation and construction alike.

Scorers that reproduce the published reference code stand in :mod:`univg.grounding.legacy`.
"""

from __future__ import annotations

from dataclasses import dataclass

from univg.grounding.reading import Reading
from univg.grounding.samples import GroundingSample, SampleError
from univg.grounding.sets import ROUNDING, SetMatch, match_sets

__all__ = ["Score", "score"]


@dataclass(frozen=True, slots=True)
class Score:
    """How good one response is. What is wrong with it, and on which image its boxes lie, its Reading says."""

    format_ok: bool
    """The form the prompt asked for, to the character, with nothing to mend: no fault."""
    match: SetMatch
    """The boxes that count, matched."""

    @property
    def iou(self) -> float:
        """Of the response's first box with the sample's first box, 0-1; 0.0 without a box. The image is not scored, as
        in the published protocols. Of an answer that is a set, the soft-F1 of all boxes on their images, which of one
        box against one is their IoU; 0.0 where no box is to be found and the response does not say so."""
        return self.match.soft_f1

    def hits(self, threshold: float) -> bool:
        """Tell whether the IoU reaches a threshold, such as MIG-Bench's 0.3, 0.5 and 0.7."""
        return self.iou >= threshold - ROUNDING

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
    (published files hold some) gives an IoU of 0.0 whatever the response. Whether the answer is a set, the sample
    says (``complete``): of any other, the first box alone counts, as in the published protocols.

    >>> from univg.grounding.reading import Asked, read
    >>> sample = GroundingSample(["a.png", "b.png"], "What differs?", "diff", boxes=[(0, 0, 0.5, 0.5)])
    >>> reading = read("<think>A cup.</think><answer>(0,0),(500,250)</answer>", Asked.of(sample))
    >>> result = score(sample, reading)
    >>> result.iou, result.hit_50, result.format_ok, reading.image_index, reading.image_rule
    (0.5, True, True, 1, 'last')
    >>> empty = GroundingSample(["a.png"], "Every dog.", "find_all", complete=True)
    >>> [score(empty, read(text, Asked.of(empty, "direct"))).iou for text in ("none", "(0,0),(9,9)", "A dog?")]
    [1.0, 0.0, 0.0]
    """
    if not sample.is_answered:
        raise SampleError(f"sample {sample.name} has no ground truth to score against")
    if not sample.complete:
        first = [(None, reading.box)] if reading.box is not None else []
        return Score(reading.format_ok, match_sets(first, [(None, sample.boxes[0])]))
    boxes = [(one.image_index, one.box) for one in reading.boxes]
    return Score(reading.format_ok, match_sets(boxes, sample.targets, not boxes and not reading.says_none))
