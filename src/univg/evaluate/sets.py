"""Rows of answers that are sets: what of them a report counts beyond the means of their columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from univg.evaluate.average_precision import AveragePrecision, Found, Truth, find_precisions
from univg.evaluate.rows import Row
from univg.grounding.agreement import SAME
from univg.grounding.boxes import Box
from univg.grounding.sets import ROUNDING, OnImage, SetMatch, match_sets
from univg.report.calibration import Calibration, calibrate
from univg.report.statistics import MACRO, MICRO

__all__ = [
    "calibrate_rows",
    "find_task_precisions",
    "is_set",
    "list_boxes",
    "list_truths",
    "match_row",
    "place_boxes",
    "split_rows",
]


def is_set(row: Mapping[str, Any]) -> bool:
    """Tell whether a row is of an answer that is a set; rows of before there were any say nothing of it."""
    return bool(row.get("complete"))


def split_rows(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """Return the rows of one box, and those of sets."""
    kinds: tuple[list[Row], list[Row]] = ([], [])
    for row in rows:
        kinds[is_set(row)].append(row)
    return kinds


def list_truths(row: Mapping[str, Any]) -> list[OnImage]:
    """Return the true boxes of a row, each with its image, from 0, or None where nobody states it.

    >>> list_truths({"truth_unit": [0, 0, 1, 1]})
    [(None, (0.0, 0.0, 1.0, 1.0))]
    """
    if not is_set(row):
        return [(None, _box(row["truth_unit"]))] if row["truth_unit"] else []
    return _join(row["truth_images"], row["truths_unit"])


def list_boxes(row: Mapping[str, Any]) -> list[OnImage]:
    """Return the boxes that a row's answer gives, each with its image, from 0."""
    images = row.get("box_images") or [row["image_index"]] * len(row["boxes_unit"])
    return _join(images, row["boxes_unit"])


def match_row(row: Mapping[str, Any]) -> SetMatch:
    """Match the boxes of a row with the true ones; boxes whose image the truth does not state fit any."""
    return match_sets(list_boxes(row), list_truths(row))


def _join(images: Sequence[int | None], boxes: Sequence[Sequence[float]]) -> list[OnImage]:
    return [(image, _box(box)) for image, box in zip(images, boxes, strict=True)]


def _box(value: Sequence[float]) -> Box:
    x1, y1, x2, y2 = map(float, value)
    return x1, y1, x2, y2


def find_task_precisions(rows: Sequence[Row]) -> dict[str, AveragePrecision]:
    """Return the average precision of sets by task, and as macro (the mean over tasks) and micro (all boxes together).

    The confidence of a box is its share of the other responses; without several responses there is none, and
    nothing comes back. A task in which nothing is true has no average precision.
    """
    if not rows or not all("box_confidences" in row for row in rows):
        return {}
    found: list[Found] = []
    true: list[Truth] = []
    for question, row in enumerate(rows):
        given, targets = place_boxes(question, row, row["task"])
        found += given
        true += targets
    by_task = find_precisions(found, true, most=1000)
    if not by_task or len({row["task"] for row in rows}) == 1:
        return by_task
    means, halves = zip(*by_task.values(), strict=True)
    macro = AveragePrecision(sum(means) / len(means), sum(halves) / len(halves))
    found, true = (
        [one._replace(category=MICRO) for one in found],
        [one._replace(category=MICRO) for one in true],
    )
    return {**by_task, MACRO: macro, **find_precisions(found, true, most=1000)}


def place_boxes(question: int, row: Mapping[str, Any], category: Any) -> tuple[list[Found], list[Truth]]:
    """Return the boxes of an answer, each with its agreement with further answers (without those 1.0) as confidence,
    and the true ones. Where the truth does not say on which image a box lies, all images are taken for one."""
    truths, boxes = list_truths(row), list_boxes(row)
    somewhere = any(image is None for image, _ in truths)
    confidences = row.get("box_confidences") or [1.0] * len(boxes)
    found = [
        Found((question, None if somewhere else image), category, box, confidence)
        for (image, box), confidence in zip(boxes, confidences, strict=True)
    ]
    return found, [Truth((question, None if somewhere else image), category, box) for image, box in truths]


def calibrate_rows(rows: Iterable[Row]) -> dict[str, Calibration]:
    """Set the agreement of several responses beside the share of boxes that hit at IoU 0.5: of answers of one box,
    and of all boxes of sets. Nothing comes back of rows of single responses; an answer without a box claims nothing.
    """
    single, sets = split_rows(row for row in rows if row.get("confidence") is not None)
    pairs = {"one box": [(row["confidence"], bool(row["hit_50"])) for row in single if row["boxes_unit"]]}
    pairs["boxes of sets"] = [pair for row in sets for pair in _list_hits(row)]
    return {
        kind: calibrate([confidence for confidence, _ in found], [hit for _, hit in found])
        for kind, found in pairs.items()
        if found
    }


def _list_hits(row: Mapping[str, Any]) -> list[tuple[float, bool]]:
    """Return the confidence of each box of a set, and whether it is matched to a true one at IoU 0.5."""
    hits = {place for place, _, overlap in match_row(row).pairs if overlap >= SAME - ROUNDING}
    return [(confidence, place in hits) for place, confidence in enumerate(row["box_confidences"])]
