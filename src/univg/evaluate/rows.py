"""Make rows: what an answer says and what it is worth, with all that a report or another scorer needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from univg.evaluate.benchmarks import ZERO_SHOT
from univg.grounding.agreement import choose_most_agreed, count_agreeing
from univg.grounding.boxes import Box
from univg.grounding.coordinates import Frame
from univg.grounding.legacy import (
    legacy_accuracy_reward,
    legacy_format_reward,
    legacy_mig_bench_iou,
    legacy_zero_shot_iou,
)
from univg.grounding.prompts import SETS, PromptStyle, render_prompt
from univg.grounding.reading import Asked, Reading, read
from univg.grounding.samples import GroundingSample
from univg.grounding.scoring import Score, score

if TYPE_CHECKING:
    from univg.models.answering import Answer

__all__ = ["Row", "add_legacy", "drop_timings", "make_row", "reward_columns", "score_columns"]

Row: TypeAlias = dict[str, Any]
"""One scored response by column, as JSON holds it."""

_TIMINGS = frozenset({"seconds"})
"""What may differ between two runs of the same fingerprint."""


def make_row(sample: GroundingSample, answer: Answer, style: PromptStyle, frame: Frame) -> Row:
    """Return the row of one answer, without `key` and `fingerprint`, which are the runner's.

    Of several texts the one whose box agrees most with the others (the medoid by IoU, of sets by soft-F1) is scored;
    `confidence` is then that mean agreement. Of a set, `box_confidences` holds for each box the share of the other
    texts that have it.
    """
    asked = Asked.of(sample, style, frame)
    readings = [
        read(text, asked, answer.seen_wh, truncated)
        for text, truncated in zip(answer.texts, answer.truncated, strict=True)
    ]
    chosen, confidence = choose_most_agreed(readings, sets=asked.style in SETS)
    reading = readings[chosen]
    row: Row = {
        "source": sample.source,
        "task": sample.task,
        "images": list(sample.images),
        "query": sample.query,
        "truth_unit": list(sample.boxes[0]) if sample.boxes else None,
        "style": asked.style,
        "text": reading.text,
        "tokens": answer.tokens[chosen],
        "truncated": reading.truncated,
        **score_columns(sample, reading),
        "image_index": reading.image_index,
        "image_rule": reading.image_rule,
        "seconds": round(answer.seconds, 4),
    }
    if "protocol" in sample.extra:  # what the benchmark's published metric needs beside the boxes
        row["protocol"] = sample.extra["protocol"]
    if "wording" in sample.extra:  # which of the ways to ask the world chose
        row["wording"] = sample.extra["wording"]
    if any(placed.image_index != reading.image_index for placed in reading.boxes):
        row["box_images"] = [placed.image_index for placed in reading.boxes]
    if len(answer.texts) > 1:
        row |= {"confidence": confidence, "texts": list(answer.texts)}
        if sample.complete:
            row["box_confidences"] = count_agreeing(readings, chosen)
    return row


def score_columns(sample: GroundingSample, reading: Reading) -> Row:
    """Return the columns that say what a response is worth, alike in every file of rows.

    Where the answer is a set (`sample.complete`), `iou` is its soft-F1, and further columns stand beside it.
    """
    result = score(sample, reading)
    columns = {
        "boxes_unit": [list(placed.box) for placed in reading.boxes],
        "fault": reading.fault,
        "iou": result.iou,
        "hit_30": result.hit_30,
        "hit_50": result.hit_50,
        "hit_70": result.hit_70,
        "format_ok": result.format_ok,
    }
    return columns | _score_set(sample, reading, result) if sample.complete else columns


def _score_set(sample: GroundingSample, reading: Reading, result: Score) -> Row:
    """Return the columns of an answer that is a set: all truths and boxes with their images, and how they match.

    `images_right` and `image_f1` are None where there is one image, or the truth does not say on which the boxes lie.
    """
    match = result.match
    stated = match.image_f1 is not None and len(sample.images) > 1
    return {
        "complete": True,
        "truths_unit": [list(box) for box in sample.boxes],
        "truth_images": [image for image, _ in sample.targets],
        "box_images": [placed.image_index for placed in reading.boxes],
        "precision_50": match.precision(0.5),
        "recall_50": match.recall(0.5),
        "f1_50": match.f1(0.5),
        "mean_f1": match.mean_f1,
        "images_right": match.image_f1 == 1.0 if stated else None,
        "image_f1": match.image_f1 if stated else None,
        "refused": reading.says_none,
        "count_error": len(match.given) - len(match.true),
        "count_right": not match.broken and len(match.given) == len(match.true),
    }


def add_legacy(row: Mapping[str, Any], benchmark: str) -> Row:
    """Return `row` with what the reference code gives for it: its benchmark's IoU, and the two rewards of training.

    Its MIG-Bench scorer is meant for answers 0-1000, so the truth is taken to that frame (of a 0-1 file the
    reference itself makes zeros). The zero-shot scorer sees prompt and response together. The reference knows no sets:
    their rows come back as they are.
    """
    if row.get("complete"):
        return dict(row)
    truth_unit: Box = tuple(row["truth_unit"])
    truth_permille = [round(value * 1000, 6) for value in truth_unit]
    if benchmark in ZERO_SHOT:
        iou = legacy_zero_shot_iou(
            render_prompt(row["query"], row["style"], len(row["images"])) + row["text"], truth_unit
        )
    else:
        iou = legacy_mig_bench_iou(row["text"], truth_permille)
    return {**row, "legacy_iou": iou, **reward_columns(row["text"], truth_permille, row["style"])}


def reward_columns(text: str, truth_permille: list[float], style: PromptStyle) -> dict[str, float]:
    """Return the reference code's two rewards of training for a text."""
    simple = style == "simple"
    return {
        "legacy_reward_iou": legacy_accuracy_reward(text, truth_permille, simple),
        "legacy_reward_format": legacy_format_reward(text, simple),
    }


def drop_timings(row: Row) -> Row:
    """Return what two runs of one fingerprint agree on to the last bit."""
    return {name: value for name, value in row.items() if name not in _TIMINGS}
