"""Score rows as benchmarks of sets are published: under the published name, with the published rule.

Each function takes the rows of one benchmark and returns its numbers by name, 0-1. What the published code needs of a
sample beside its boxes, a reader keeps under `extra["protocol"]`, and the row holds it as `protocol`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from univg.evaluate.average_precision import Found, Truth, find_precisions
from univg.evaluate.sets import list_boxes, list_truths, match_row, place_boxes
from univg.grounding.boxes import iou
from univg.grounding.sets import ROUNDING, THRESHOLDS

__all__ = ["PUBLISHED", "list_published"]

Row: TypeAlias = Mapping[str, Any]
Scores: TypeAlias = dict[str, float]


def list_published(benchmark: str, rows: Iterable[Row]) -> list[str]:
    """Return lines that say what the rows of a benchmark are worth by its published protocol; none without one."""
    measure, rows = PUBLISHED.get(benchmark), list(rows)
    if measure is None or not rows:
        return []
    told = ", ".join(f"{name} {100 * value:.2f}" for name, value in measure(rows).items())
    return [f"As published, in percent: {told}."]


def _share(flags: Iterable[bool]) -> float:
    found = list(flags)
    return sum(found) / len(found) if found else 0.0


def _split_empty(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """Return the rows where something is to be found, and those where nothing is."""
    sides: tuple[list[Row], list[Row]] = ([], [])
    for row in rows:
        sides[not row["truths_unit"]].append(row)
    return sides


def score_grefcoco(rows: Sequence[Row]) -> Scores:
    """Return gRefCOCO's three numbers (arXiv 2308.16182, and mdetr/datasets/refexp.py of its repository).

    Pr@(F1=1, IoU>=0.5): the share of expressions whose boxes are exactly the true ones at IoU 0.5, none too many; where
    nothing is meant, without a box. N-acc: of the expressions that mean nothing, the share that is answered so. T-acc:
    of the others, the share that is answered with a box at all. The published code matches greedily by GIoU; here the
    matching is the best one. A detector's silence is its "nothing"; of a text, only a text that says so.
    """
    targets, empty = _split_empty(rows)
    right = [_says_nothing(row) for row in empty] + [match_row(row).f1(0.5) == 1.0 for row in targets]
    scores = {"Pr@(F1=1, IoU>=0.5)": _share(right)}
    if empty:
        scores["N-acc"] = _share(_says_nothing(row) for row in empty)
    if targets:
        scores["T-acc"] = _share(bool(row["boxes_unit"]) for row in targets)
    return scores


def _says_nothing(row: Row) -> bool:
    """Tell whether the answer to a question that nothing fits says so: then alone it is worth anything."""
    return bool(row["iou"] == 1.0)


def score_mc_bench(rows: Sequence[Row]) -> Scores:
    """Return MC-Bench's two numbers (eval_mc_bench.py of its repository).

    AP50: the average precision at IoU 0.5 of each group of instances over all images, weighted by how many instances a
    group has. Answers name no groups, so that all boxes are of group 1, as in a results file without groups: instances
    of further groups are missed. Acc: the share of texts where exactly those images that hold instances have a box.
    """
    found: list[Found] = []
    true: list[Truth] = []
    right = []
    for question, row in enumerate(rows):
        given, targets = place_boxes(question, row, 1)
        groups = (row.get("protocol") or {}).get("groups") or [1] * len(targets)
        true += [one._replace(category=group) for one, group in zip(targets, groups, strict=True)]
        found += given
        right.append({one.image for one in given} == {one.image for one in targets})
    by_group = find_precisions(found, true)
    sizes = Counter(one.category for one in true)
    weighted = sum(sizes[group] * precision.at_50 for group, precision in by_group.items())
    return {"AP50": weighted / len(true) if true else 0.0, "Acc": _share(right)}


def score_coco_detection(rows: Sequence[Row]) -> Scores:
    """Return COCO's AP and AP50, the mean over categories, of the images and categories that are asked for.

    A crowd is no target, and a box on it is no mistake, as in COCO's evaluation. Not all categories are asked of every
    image (docs/evaluation.md), so that these numbers are not those of a detector's run over all.
    """
    found: list[Found] = []
    true: list[Truth] = []
    for question, row in enumerate(rows):
        protocol = row.get("protocol") or {}
        category = protocol.get("category", row["query"])
        given, targets = place_boxes(question, row, category)
        crowds = [(crowd[0], crowd[1], crowd[2], crowd[3]) for crowd in protocol.get("crowds", ())]
        true += [*targets, *(Truth((question, 0), category, crowd, crowd=True) for crowd in crowds)]
        found += given
    by_category = find_precisions(found, true)
    if not by_category:
        return {}
    n = len(by_category)
    return {
        "AP": sum(one.mean for one in by_category.values()) / n,
        "AP50": sum(one.at_50 for one in by_category.values()) / n,
    }


def score_groundingme(rows: Sequence[Row]) -> Scores:
    """Return GroundingME's accuracies (its evaluate.py): the share of samples whose first box has an IoU of 0.5, 0.75
    or 0.9, of the subtask Rejection those that are rejected; and the first of them by subtask.

    The published code takes what it cannot read for a rejection; here only a text that rejects is one.
    """
    overlaps = [(row["task"], _find_first(row)) for row in rows]
    scores = {f"ACC@{at}": _share(one >= at - ROUNDING for _, one in overlaps) for at in (0.5, 0.75, 0.9)}
    for task in sorted({task for task, _ in overlaps}):
        scores[f"{task} ACC@0.5"] = _share(one >= 0.5 - ROUNDING for name, one in overlaps if name == task)
    return scores


def _find_first(row: Row) -> float:
    """Return the IoU of a row's first box with the true one; of nothing with nothing 1.0."""
    if not row["truths_unit"]:
        return float(_says_nothing(row))
    given = list_boxes(row)
    return iou(given[0][1], list_truths(row)[0][1]) if given else 0.0


def score_openref(rows: Sequence[Row]) -> Scores:
    """Return OpenRef's numbers (its evaluation code): precision, recall and F1 of all boxes together at IoU 0.5 where
    something is meant; and of the others NSR, the share that is answered so.

    Its N3R, which weighs a wrong box by the probabilities of its tokens, needs the model's own and is left out.
    """
    targets, empty = _split_empty(rows)
    matches = [match_row(row) for row in targets]
    hits = sum(match.count_hits(0.5) for match in matches)
    given, true = sum(len(match.given) for match in matches), sum(len(match.true) for match in matches)
    scores = {}
    if targets:
        scores["Precision"] = hits / given if given else 0.0
        scores["Recall"] = hits / true
        scores["F1"] = 2 * hits / (given + true)
    if empty:
        scores["NSR"] = _share(_says_nothing(row) for row in empty)
    return scores


def score_ref_l4(rows: Sequence[Row]) -> Scores:
    """Return Ref-L4's accuracies (ref_l4/evaluation.py of its repository): the share of annotations whose IoU is above
    0.5, 0.75 and 0.9, mAcc over 0.5 to 0.95, and Acc@0.5 of small (below 128 px), medium and large (above 256) objects.

    Its mean over classes needs a table of COCO's and Objects365's classes and is left out.
    """
    overlaps = [row["iou"] for row in rows]
    scores = {f"Acc@{at}": _share(one > at for one in overlaps) for at in (0.5, 0.75, 0.9)}
    scores["mAcc"] = sum(_share(one > at for one in overlaps) for at in THRESHOLDS) / len(THRESHOLDS)
    sized: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        side = (row.get("protocol") or {}).get("side_px")
        if side is not None:
            sized["small" if side < 128 else "medium" if side <= 256 else "large"].append(row["iou"])
    for name in ("small", "medium", "large"):
        if name in sized:
            scores[f"{name} Acc@0.5"] = _share(one > 0.5 for one in sized[name])
    return scores


PUBLISHED: Mapping[str, Callable[[Sequence[Row]], Scores]] = {
    "grefcoco": score_grefcoco,
    "mc_bench": score_mc_bench,
    "coco_detection": score_coco_detection,
    "groundingme": score_groundingme,
    "openref": score_openref,
    "ref_l4": score_ref_l4,
}
"""Benchmarks whose published protocol is not the report's own, and what scores their rows by it."""
