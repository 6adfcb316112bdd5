"""Say why scores are as low as they are, where something else than the answers is the likely cause."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from univg.grounding.boxes import Box, iou
from univg.grounding.legacy import legacy_mig_bench_box
from univg.grounding.prompts import THINKING, PromptStyle
from univg.grounding.reading import Asked, Reading, read

__all__ = ["count_unnamed", "describe_style", "explain_legacy", "pair_boxes", "suggest_scale"]

_FEW = 0.05
"""The share of responses that a hint is about at least."""


def describe_style(texts: Sequence[str], rows: Sequence[Mapping[str, Any]], style: PromptStyle) -> str:
    """Say in which style the responses were read, and of one that finds more boxes how many.

    Only a style with a thought wants its `<answer>`: the others look there too, and without one in all of the text.
    """
    where = "is looked for in <answer>" if style in THINKING else "may stand anywhere"
    said = f"Style {style}: the box {where}."
    unanswered = [(text, row) for text, row in zip(texts, rows, strict=True) if row["fault"] == "no_answer"]
    boxed = sum(
        bool(found.boxes or (row.get("complete") and found.says_none))
        for text, row in unanswered
        for found in [read(text, Asked(style="direct"))]
    )
    if style not in THINKING or boxed < _FEW * len(rows):
        return said
    there = sum(bool(row["boxes_unit"] or row.get("refused")) for row in rows)
    what = "a box, or that there is none," if any(row.get("complete") for row in rows) else "a box"
    return (
        f"{said} {len(unanswered)} of {len(rows)} responses have none: --style direct reads {what} in "
        f"{_percent(there + boxed, rows)}, {style} in {_percent(there, rows)}."
    )


def count_unnamed(readings: Iterable[Reading]) -> str:
    """Say how many answers to questions about several images put a box on the last one only because nothing names
    another; "" if none does."""
    unnamed = sum(any(placed.image_rule == "last" for placed in reading.boxes) for reading in readings)
    if not unnamed:
        return ""
    return (
        f"NOTE: {unnamed} answers do not say on which image a box lies, nor does their question: it counts as on the "
        'last. Write {"bbox_2d": [x1, y1, x2, y2], "image": 2}, or the name of its file, or Image-2: (x1,y1),(x2,y2).'
    )


def suggest_scale(rows: Sequence[Mapping[str, Any]], truths_unit: Sequence[Box]) -> str:
    """Say so if boxes miss the truth only by their scale: pixels on one side, thousandths on the other; else "".

    A factor for x and one for y is fitted to each pair of boxes, from the origin, so that images may differ in size.
    """
    pairs = [
        ((b[0], b[1], b[2], b[3]), truth)
        for row, truth in zip(rows, truths_unit, strict=True)
        for b in row.get("boxes_unit", ())[:1]
        if row["iou"] < 0.5
    ]
    fitted = [(_fit(box, truth, 0), _fit(box, truth, 1), box, truth) for box, truth in pairs]
    hits = [
        (x, y)
        for x, y, box, truth in fitted
        if iou((x * box[0], y * box[1], x * box[2], y * box[3]), truth) >= 0.7
    ]
    if len(hits) < 3 or 2 * len(hits) < len(rows):
        return ""
    x, y = (statistics.median(one[axis] for one in hits) for axis in (0, 1))
    return (
        f"NOTE: {len(pairs)} of {len(rows)} boxes miss, and {len(hits)} of these fit the truth once they are "
        f"scaled, by about {x:.2f} in x and {y:.2f} in y: one of the two is in pixels. Give both 0–1000 of the image's "
        "width and height; truth in pixels may also come as the samples' own file, with --data and --images."
    )


def pair_boxes(rows: Iterable[Mapping[str, Any]]) -> list[tuple[dict[str, Any], Box]]:
    """Pair the boxes of sets with the truth's for :func:`suggest_scale`, where there are as many on the same images.

    In the order of images and places: a scale does not change it.
    """
    pairs = []
    for row in rows:
        if not row.get("complete"):
            continue
        found = sorted(zip(row["box_images"], map(tuple, row["boxes_unit"]), strict=True))
        on = [image or 0 for image in row["truth_images"]]  # none is named where there is one
        truths = sorted(zip(on, map(tuple, row["truths_unit"]), strict=True))
        if [image for image, _ in found] == [image for image, _ in truths]:
            for (_, box), (_, truth) in zip(found, truths, strict=True):
                pairs.append(({"boxes_unit": [box], "iou": iou(box, truth)}, truth))
    return pairs


def _fit(box: Box, truth: Box, axis: int) -> float:
    """Return the factor that brings a box's two edges of an axis nearest to the truth's (least squares)."""
    square = box[axis] ** 2 + box[axis + 2] ** 2
    return (box[axis] * truth[axis] + box[axis + 2] * truth[axis + 2]) / square if square else 1.0


def explain_legacy(texts: Sequence[str], rows: Sequence[Mapping[str, Any]], as_it_stands: bool) -> list[str]:
    """Say why the reference's numbers are lower than ours, by the responses that hit here and there do not.

    `as_it_stands`: the truth is 0-1, and its MIG-Bench scorer, which expects 0-1000, gets it so.
    """
    if as_it_stands:
        notes = [
            "The reference's MIG-Bench scorer takes an answer as it stands for 0–1000: against 0–1 answers it gives "
            "next to 0, however good the responses. Give answers 0–1000, or the samples' file with --data, which is "
            "converted."
        ]
    else:
        whys = Counter(
            _explain_box(text)
            for text, row in zip(texts, rows, strict=True)
            if row["hit_50"] and row["legacy_mig_iou"] < 0.5
        )
        kinds = "; ".join(f"{count} {why}" for why, count in whys.most_common())
        notes = [f"Hits that the reference's MIG-Bench scorer misses: {kinds}."] if whys else []
    unrewarded = sum(row["hit_50"] and not row["legacy_reward_iou"] for row in rows)
    if unrewarded:
        notes.append(
            f"{unrewarded} hits earn no IoU reward there: its box is (x1,y1),(x2,y2) in integers inside <answer>."
        )
    return notes


def _explain_box(text: str) -> str:
    found = legacy_mig_bench_box(text)
    if any(found):
        return "hold another box that it takes, such as one in the thought (it takes the first of the text)"
    if "." in text and any(letter.isdigit() for letter in text):
        return "are written in decimals, which it makes zeros, or in none of its forms"
    return "are in none of the forms that it knows, such as (x1,y1),(x2,y2)"


def _percent(count: int, rows: Sequence[Any]) -> str:
    return f"{100 * count / len(rows):.0f} %"
