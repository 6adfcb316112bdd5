"""Average precision of boxes by their confidence: COCO's, worked out by pycocotools.

A question on one of its images is what COCO calls an image: a box counts only against the true boxes of its own. All
questions are one category, which is what separates this from a mean over tasks.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from univg.grounding.boxes import Box
from univg.grounding.sets import ROUNDING, THRESHOLDS

__all__ = ["AveragePrecision", "Found", "Truth", "average_precision"]

Truth: TypeAlias = tuple[Hashable, Box]
"""Where a true box lies (any name of a question's image), and the box, 0-1."""
Found: TypeAlias = tuple[Hashable, Box, float]
"""Where a box was found, the box, and how confident that is: only the order of all confidences counts."""


class AveragePrecision(NamedTuple):
    """The area under the curve of precision over recall, 0-1."""

    mean: float
    """The mean over IoU thresholds 0.5, 0.55, … 0.95: COCO's AP."""
    at_50: float
    """At IoU 0.5: COCO's AP50."""


def average_precision(found: Sequence[Found], true: Sequence[Truth]) -> AveragePrecision | None:
    """Return the average precision of the boxes `found`; None where no box is true, so that there is no recall.

    Of boxes that are equally confident those that stand first come first, as in COCO's own tool; up to 1000 boxes an
    image count (COCO's limit is 100).

    >>> left, right = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
    >>> round(average_precision([("a", left, 0.9), ("a", left, 0.8)], [("a", left), ("a", right)]).at_50, 3)
    0.505
    """
    if not true:
        return None
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    places = {
        place: number for number, place in enumerate(dict.fromkeys([one[0] for one in [*true, *found]]))
    }
    truths = [_annotate(k, places[place], box) | {"iscrowd": 0} for k, (place, box) in enumerate(true, 1)]
    boxes = [
        _annotate(k, places[place], box) | {"score": score} for k, (place, box, score) in enumerate(found, 1)
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # it tells what it does
        sides = []
        for annotations in (truths, boxes):
            side = COCO()
            side.dataset = {
                "images": [{"id": number} for number in places.values()],
                "annotations": annotations,
                "categories": [{"id": 1}],
            }
            side.createIndex()
            sides.append(side)
        judge = COCOeval(*sides, "bbox")
        judge.params.iouThrs = np.array(THRESHOLDS) - ROUNDING  # a half is a half, as everywhere here
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.params.maxDets = [1000]
        judge.evaluate()
        judge.accumulate()
    precision_TR = judge.eval["precision"][:, :, 0, 0, 0]
    return AveragePrecision(float(precision_TR.mean()), float(precision_TR[0].mean()))


def _annotate(number: int, image: int, box: Box) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    width, height = max(0.0, x2 - x1), max(0.0, y2 - y1)  # an inverted one has no area, as in `iou`
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "bbox": [x1, y1, width, height],
        "area": width * height,
    }
