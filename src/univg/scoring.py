"""The one judge: :func:`score` says how good a response is, for training, evaluation and construction alike.

Scorers that reproduce the published reference code stand in :mod:`univg.legacy`; they are re-exported here.
"""

from __future__ import annotations

from dataclasses import dataclass

from univg.boxes import SizeWH, iou
from univg.legacy import (
    legacy_accuracy_reward,
    legacy_format_reward,
    legacy_mig_bench_box,
    legacy_mig_bench_iou,
    legacy_zero_shot_iou,
)
from univg.response import Fault, Frame, ImageRule, PromptStyle, parse, which_image
from univg.samples import GroundingSample, SampleError

__all__ = [
    "Score",
    "legacy_accuracy_reward",
    "legacy_format_reward",
    "legacy_mig_bench_box",
    "legacy_mig_bench_iou",
    "legacy_zero_shot_iou",
    "score",
]

# An IoU of exactly one half between integers 0-1000 must hit, though between unit floats it may come out a last
# bit lower. Integer boxes that miss a threshold miss it by more than 1e-8.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Score:
    """How good one response is."""

    iou: float
    """Of the response's first box with the sample's first box, 0-1; 0.0 without a box."""
    hit_30: bool
    """IoU at least 0.3; likewise 0.5 and 0.7, the thresholds of MIG-Bench."""
    hit_50: bool
    hit_70: bool
    format_ok: bool
    """The form the prompt asked for, to the character, with nothing to mend: no fault."""
    fault: Fault | None
    """What was wrong with the response, a key of ``univg.response.FAULTS``; None if nothing was."""
    image_index: int
    """The image the box lies on, from 0. Reported, never scored, as in the published protocols."""
    image_rule: ImageRule
    """What decided on that image: "target", "question", "thought" or "last"."""


def score(
    sample: GroundingSample,
    text: str,
    style: PromptStyle = "think",
    frame: Frame = "permille",
    size_wh: SizeWH | None = None,
) -> Score:
    """Judge a response ``text`` to ``sample``; ``style``, ``frame`` and ``size_wh`` as for ``parse``.

    Any text gets a score. A sample without ground truth cannot be scored: :class:`SampleError`. Ground truth
    that encloses no area (published files hold some) gives an IoU of 0.0 whatever the response.

    >>> sample = GroundingSample(["a.png", "b.png"], "What differs?", "diff", boxes=[(0, 0, 0.5, 0.5)])
    >>> result = score(sample, "<think>A cup.</think><answer>(0,0),(500,250)</answer>")
    >>> result.iou, result.hit_50, result.format_ok, result.image_index, result.image_rule
    (0.5, True, True, 1, 'last')
    """
    if not sample.boxes:
        raise SampleError(f"sample {sample.source or sample.key} has no ground truth to score against")
    response = parse(text, style, frame, size_wh)
    overlap = iou(response.box, sample.boxes[0]) if response.box is not None else 0.0
    image_index, image_rule = which_image(
        len(sample.images), sample.target_image, sample.query, response.thought
    )
    return Score(
        iou=overlap,
        hit_30=overlap >= 0.3 - _ROUNDING,
        hit_50=overlap >= 0.5 - _ROUNDING,
        hit_70=overlap >= 0.7 - _ROUNDING,
        format_ok=response.formatted and response.fault is None,
        fault=response.fault,
        image_index=image_index,
        image_rule=image_rule,
    )
