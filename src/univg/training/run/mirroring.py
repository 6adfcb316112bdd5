"""Show a sample's pictures mirrored: of few photographs a model learns their places by heart, of mirrored ones less."""

from __future__ import annotations

import random
from dataclasses import replace

from PIL import Image

from univg.grounding.boxes import Box
from univg.grounding.samples import GroundingSample

__all__ = ["mirror"]


def mirror(
    sample: GroundingSample, images: tuple[Image.Image, ...], rng: random.Random
) -> tuple[GroundingSample, tuple[Image.Image, ...]]:
    """Return a sample and its pictures, all of them turned over by `rng`: left to right, upside down, both or not.

    A sample whose question holds a box, or that has a thought, stays as it is: the words would not fit any more.
    """
    across, down = rng.random() < 0.5, rng.random() < 0.5
    if "<|box_start|>" in sample.query or sample.thought:
        return sample, images
    for turned, way in ((across, Image.Transpose.FLIP_LEFT_RIGHT), (down, Image.Transpose.FLIP_TOP_BOTTOM)):
        if turned:
            images = tuple(image.transpose(way) for image in images)
    return replace(sample, boxes=tuple(_mirror_box(box, across, down) for box in sample.boxes)), images


def _mirror_box(box: Box, across: bool, down: bool) -> Box:
    x1, y1, x2, y2 = box
    x1, x2 = (1 - x2, 1 - x1) if across else (x1, x2)
    y1, y2 = (1 - y2, 1 - y1) if down else (y1, y2)
    return x1, y1, x2, y2
