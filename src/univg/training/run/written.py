"""The truth as an answer can say it: whole thousandths, or whole pixels, of the image that a box lies on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from univg.grounding.boxes import (
    Box,
    SizeWH,
    clip_unit,
    permille_to_unit,
    px_to_unit,
    unit_to_permille,
    unit_to_whole_px,
)
from univg.grounding.mentions import decide_image
from univg.grounding.samples import GroundingSample

__all__ = ["as_written", "find_place"]


def find_place(sample: GroundingSample) -> int:
    """Return the image, from 0, that an answer puts a box on of which the sample does not say it."""
    return decide_image(len(sample.images), sample.target_image, sample.query, sample.thought)[0]


def as_written(sample: GroundingSample, sizes: Sequence[SizeWH] = ()) -> GroundingSample:
    """Return a sample with its truth moved to the nearest that can be written: the first box, or of an answer that is a
    set every box, once each. `sizes`: of every image as the model sees it, for a family that writes pixels.

    What `univg.grounding.prompts.render_answer` writes scores 1.0 on it; on the sample itself it scores what
    rounding leaves.

    >>> cat = GroundingSample(["a"], "The cat?", "referring", [(0.1234, 0, 0.5, 1)])
    >>> as_written(cat).boxes, as_written(cat, [(8, 8)]).boxes
    (((0.123, 0.0, 0.5, 1.0),), ((0.125, 0.0, 0.5, 1.0),))
    """
    place = find_place(sample)
    if not sample.complete:
        first = _round(sample.boxes[0], sizes[place] if sizes else None)
        return replace(sample, boxes=(first, *sample.boxes[1:]))
    if not sample.boxes:
        return sample
    rounded = dict.fromkeys(
        (on, _round(box, sizes[place if on is None else on] if sizes else None)) for on, box in sample.targets
    )
    images, boxes = zip(*rounded, strict=True)
    return replace(sample, boxes=boxes, target_image=None, box_images=images)


def _round(box: Box, seen_wh: SizeWH | None) -> Box:
    clipped, _ = clip_unit(box)
    if seen_wh is None:
        return permille_to_unit(unit_to_permille(clipped))
    return px_to_unit(unit_to_whole_px(clipped, seen_wh), seen_wh)
