"""What makes an answer doubtful by itself, without knowing the truth."""

from __future__ import annotations

from itertools import combinations

from univg.grounding.boxes import iou
from univg.grounding.image_names import find_names
from univg.grounding.reading import Reading

__all__ = ["list_doubts"]

SAME = 0.85
"""The IoU from which two boxes on an image are taken for one thing, found twice."""
_MOST = 50  # images that a thought may count on to; the words for the last one are not numbers


def list_doubts(reading: Reading, n_images: int) -> list[str]:
    """List what is odd about an answer to a question about so many images, a sentence each: images that the thought
    names and that are not there, and boxes of a set that are the same."""
    named = {name.image for name in find_names(_MOST, reading.thought or "")} - {-1, _MOST - 1}
    beyond = [str(image + 1) for image in sorted(named) if image >= n_images]
    doubts = []
    if beyond:
        there = "there is only one" if n_images == 1 else f"there are {n_images}"
        doubts.append(f"the thought speaks of image {', '.join(beyond)}, and {there}")
    twins = [
        f"{first} and {second}"
        for (first, one), (second, other) in combinations(enumerate(reading.boxes, start=1), 2)
        if one.image_index == other.image_index and iou(one.box, other.box) >= SAME
    ]
    if twins:
        doubts.append(f"nearly the same box twice: {', '.join(twins[:5])}{', …' if len(twins) > 5 else ''}")
    return doubts
