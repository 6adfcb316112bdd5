"""From an answer to a row: the text read, the box chosen, everything about it scored.

A row holds what a report or another scorer needs, so no number has to be made again to be understood.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from univg.evaluate.benchmarks import ZERO_SHOT
from univg.evaluate.rows import Row
from univg.grounding.agreement import most_agreed
from univg.grounding.boxes import Box
from univg.grounding.coordinates import Frame
from univg.grounding.legacy import (
    legacy_accuracy_reward,
    legacy_format_reward,
    legacy_mig_bench_iou,
    legacy_zero_shot_iou,
)
from univg.grounding.prompts import PromptStyle, render_prompt
from univg.grounding.reading import Asked, read
from univg.grounding.scoring import score

if TYPE_CHECKING:
    from univg.grounding.samples import GroundingSample
    from univg.models.answering import Answer


def judge(sample: GroundingSample, answer: Answer, style: PromptStyle, frame: Frame) -> Row:
    """The row of one answer: of several texts the one whose box agrees most with the others (the medoid by
    IoU) is scored; `confidence` is then that mean agreement. Keys `key`, `fingerprint` are the runner's."""
    asked = Asked.of(sample, style, frame)
    readings = [read(text.text, asked, answer.seen_wh, text.truncated) for text in answer.texts]
    chosen, confidence = most_agreed(readings)
    text, reading = answer.texts[chosen], readings[chosen]
    result = score(sample, reading)
    row: Row = {
        "source": sample.source,
        "task": sample.task,
        "images": list(sample.images),
        "query": sample.query,
        "truth_unit": list(sample.boxes[0]),
        "style": asked.style,
        "text": text.text,
        "tokens": text.tokens,
        "truncated": text.truncated,
        "boxes_unit": [list(placed.box) for placed in reading.boxes],
        "fault": reading.fault,
        "iou": result.iou,
        "hit_30": result.hit_30,
        "hit_50": result.hit_50,
        "hit_70": result.hit_70,
        "format_ok": result.format_ok,
        "image_index": reading.image_index,
        "image_rule": reading.image_rule,
        "seconds": round(answer.seconds, 4),
    }
    if len(answer.texts) > 1:
        row |= {"confidence": confidence, "texts": [one.text for one in answer.texts]}
    return row


def legacy_columns(row: Mapping[str, Any], benchmark: str) -> dict[str, float]:
    """What the reference code gives for a row: its benchmark's IoU, and the two rewards of training.

    Its MIG-Bench scorer is meant for answers 0-1000, so the truth is taken to that frame (of a 0-1 file the
    reference itself makes zeros). The zero-shot scorer sees prompt and response together.
    """
    truth_unit: Box = tuple(row["truth_unit"])
    truth_permille = [round(value * 1000, 6) for value in truth_unit]
    simple = row["style"] == "simple"
    if benchmark in ZERO_SHOT:
        iou = legacy_zero_shot_iou(render_prompt(row["query"], row["style"]) + row["text"], truth_unit)
    else:
        iou = legacy_mig_bench_iou(row["text"], truth_permille)
    return {
        "legacy_iou": iou,
        "legacy_reward_iou": legacy_accuracy_reward(row["text"], truth_permille, simple),
        "legacy_reward_format": legacy_format_reward(row["text"], simple),
    }
