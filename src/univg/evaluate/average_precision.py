"""Average precision of boxes by their confidence: COCO's, worked out by pycocotools.

A question on one of its images is what COCO calls an image: a box counts only against the true boxes of its own, and
of its category.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from univg.grounding.boxes import Box
from univg.grounding.sets import ROUNDING, THRESHOLDS

__all__ = ["AveragePrecision", "Found", "Truth", "find_precisions"]


class Truth(NamedTuple):
    """A true box, 0-1: the image (any name of a question's image) and category that it belongs to, and whether it is
    a crowd, which is no target and makes boxes on it no mistakes."""

    image: Hashable
    category: Any
    box: Box
    crowd: bool = False


class Found(NamedTuple):
    """A box that was found, 0-1, with its confidence, of which only the order counts."""

    image: Hashable
    category: Any
    box: Box
    confidence: float


class AveragePrecision(NamedTuple):
    """The area under the curve of precision over recall, 0-1."""

    mean: float
    """The mean over IoU thresholds 0.5, 0.55, … 0.95: COCO's AP."""
    at_50: float
    """At IoU 0.5: COCO's AP50."""


def find_precisions(
    found: Sequence[Found], true: Sequence[Truth], most: int = 100
) -> dict[Any, AveragePrecision]:
    """Return the average precision of each category that has a target; without any there is no recall.

    Of boxes that are equally confident those that stand first come first, as in COCO's own tool; up to `most` of an
    image and category count (COCO's limit is 100).

    >>> left, right = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
    >>> truths = [Truth("a", "cat", left), Truth("a", "cat", right)]
    >>> found = [Found("a", "cat", left, 0.9), Found("a", "cat", left, 0.8)]
    >>> round(find_precisions(found, truths)["cat"].at_50, 3)
    0.505
    """
    categories = list(dict.fromkeys(one.category for one in true if not one.crowd))
    if not categories:
        return {}
    from pycocotools.cocoeval import COCOeval

    numbers = {category: number for number, category in enumerate(categories)}
    # Those that were found go first: boxes that are equally confident stay in order.
    names = dict.fromkeys([*(one.image for one in found), *(one.image for one in true)])
    images = {name: number for number, name in enumerate(names)}
    with contextlib.redirect_stdout(io.StringIO()):  # it tells what it does
        judge = COCOeval(_make_coco(true, images, numbers), _make_coco(found, images, numbers), "bbox")
        judge.params.iouThrs = np.array(THRESHOLDS) - ROUNDING  # a half is a half, as everywhere here
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.params.maxDets = [most]
        judge.evaluate()
        judge.accumulate()
    means_TK = judge.eval["precision"][:, :, :, 0, 0].mean(axis=1)
    return {
        category: AveragePrecision(float(means_TK[:, number].mean()), float(means_TK[0, number]))
        for category, number in numbers.items()
    }


def _make_coco(
    boxes: Sequence[Truth | Found], images: Mapping[Hashable, int], categories: Mapping[Any, int]
) -> Any:
    from pycocotools.coco import COCO

    side = COCO()
    kept = (one for one in boxes if one.category in categories)
    side.dataset = {
        "images": [{"id": number} for number in images.values()],
        "annotations": [_annotate(k, one, images, categories) for k, one in enumerate(kept, start=1)],
        "categories": [{"id": number} for number in categories.values()],
    }
    side.createIndex()
    return side


def _annotate(
    number: int, one: Truth | Found, images: Mapping[Hashable, int], categories: Mapping[Any, int]
) -> dict[str, Any]:
    x1, y1, x2, y2 = one.box
    width, height = max(0.0, x2 - x1), max(0.0, y2 - y1)  # an inverted one has no area, as in `iou`
    kind = {"iscrowd": int(one.crowd)} if isinstance(one, Truth) else {"score": one.confidence}
    return {
        "id": number,
        "image_id": images[one.image],
        "category_id": categories[one.category],
        "bbox": [x1, y1, width, height],
        "area": width * height,
        **kind,
    }
