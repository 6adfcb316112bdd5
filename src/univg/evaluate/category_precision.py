"""Average precision of boxes by category, with crowds, as pycocotools works it out."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

from univg.grounding.boxes import Box
from univg.grounding.sets import ROUNDING, THRESHOLDS

__all__ = ["Found", "Precision", "Truth", "find_precisions"]

_MOST = 100
"""Boxes of an image and category that count, as in COCO's evaluation."""


class Truth(NamedTuple):
    """A true box, 0-1: the image (any name of a question's image) and category that it belongs to, and whether it is
    a crowd, which is no target and makes boxes on it no mistakes."""

    image: Hashable
    category: Hashable
    box: Box
    crowd: bool = False


class Found(NamedTuple):
    """A box that was found, 0-1, with its confidence, of which only the order counts."""

    image: Hashable
    category: Hashable
    box: Box
    confidence: float


class Precision(NamedTuple):
    """The area under the curve of precision over recall, 0-1: the mean over IoU 0.5, 0.55, … 0.95, and at 0.5."""

    mean: float
    at_50: float


def find_precisions(found: Sequence[Found], true: Sequence[Truth]) -> dict[Hashable, Precision]:
    """Return the average precision of each category that has a target; a box counts against those of its image alone.

    >>> left, right = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
    >>> truths = [Truth("a", "cat", left), Truth("a", "cat", right)]
    >>> round(find_precisions([Found("a", "cat", left, 1.0)], truths)["cat"].at_50, 3)
    0.505
    """
    categories = list(dict.fromkeys(one.category for one in true if not one.crowd))
    if not categories:
        return {}
    from pycocotools.cocoeval import COCOeval

    # Those that were found go first: boxes that are equally confident stay in order.
    names = dict.fromkeys([*(one.image for one in found), *(one.image for one in true)])
    images = {name: number for number, name in enumerate(names)}
    numbers = {category: number for number, category in enumerate(categories)}
    everything: tuple[Sequence[Truth | Found], Sequence[Truth | Found]] = (true, found)
    rows = [
        [
            _annotate(k, one, images, numbers)
            for k, one in enumerate((one for one in side if one.category in numbers), start=1)
        ]
        for side in everything
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # it tells what it does
        truths, results = (_make_coco(side, len(images), len(categories)) for side in rows)
        judge = COCOeval(truths, results, "bbox")
        judge.params.iouThrs = np.array(THRESHOLDS) - ROUNDING  # a half is a half, as everywhere here
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.params.maxDets = [_MOST]
        judge.evaluate()
        judge.accumulate()
    precision_TRK = judge.eval["precision"][:, :, :, 0, 0]
    means_TK = precision_TRK.mean(axis=1)
    return {
        category: Precision(float(means_TK[:, number].mean()), float(means_TK[0, number]))
        for category, number in numbers.items()
    }


def _make_coco(annotations: list[dict[str, Any]], n_images: int, n_categories: int) -> Any:
    from pycocotools.coco import COCO

    side = COCO()
    side.dataset = {
        "images": [{"id": number} for number in range(n_images)],
        "annotations": annotations,
        "categories": [{"id": number} for number in range(n_categories)],
    }
    side.createIndex()
    return side


def _annotate(
    number: int, one: Truth | Found, images: dict[Hashable, int], categories: dict[Hashable, int]
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
