"""`univg score`: answers made elsewhere, scored without a model.

In: JSON Lines with `text` (the raw response; null for none), `answer` (a box x1 y1 x2 y2; one scale for the
whole file, 0-1 or 0-1000), and optionally `id` and `task`. Out: the same rows in the same order with what they
are worth.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from univg.evaluate.rows import Row
from univg.grounding.boxes import Box
from univg.grounding.legacy import (
    legacy_accuracy_reward,
    legacy_format_reward,
    legacy_mig_bench_box,
    legacy_mig_bench_iou,
)
from univg.grounding.prompts import PromptStyle
from univg.grounding.reading import Asked, read
from univg.grounding.samples import GroundingSample
from univg.grounding.scoring import score

Scale: TypeAlias = Literal["unit", "permille"]

_UNIT_LIMIT = 1.05
"""Published 0-1 files hold edges a little beyond 1; a 0-1000 file with nothing above this does not exist."""


class PredictionError(ValueError):
    """A predictions file that cannot be scored; one line with file, line number and what to do."""


@dataclass(frozen=True)
class Prediction:
    """One line: the response, the answer's four numbers as they stand, and what names the line."""

    text: str
    answer: Box
    task: str
    names: Mapping[str, Any]
    """`id` and `task`, as far as the line has them."""


def read_predictions(path: Path) -> list[Prediction]:
    """All lines of a predictions file; blank lines are passed over. Raises PredictionError."""
    try:
        with open(path, "rb") as file:
            predictions = [
                _prediction(line, f"{path}, line {number}")
                for number, line in enumerate(file, start=1)
                if line.strip()
            ]
    except OSError as error:
        raise PredictionError(f"cannot be read ({error.strerror}): {path}: check the path") from None
    if not predictions:
        raise PredictionError(f"no predictions: {path}: give one JSON object a line")
    return predictions


def scale_of(answers: Iterable[Box]) -> Scale:
    """ "unit" if no number passes 1.05, else "permille".

    >>> scale_of([(0.1, 0.2, 0.3, 1.02)]), scale_of([(0, 0, 1, 1), (100, 200, 300, 400)])
    ('unit', 'permille')
    """
    return "unit" if all(value <= _UNIT_LIMIT for box in answers for value in box) else "permille"


def score_predictions(
    predictions: Iterable[Prediction], scale: Scale, style: PromptStyle = "think", legacy: bool = False
) -> Iterator[Row]:
    """A row a prediction: `id`, `task`, `iou`, the three hits, `boxes_unit`, `fault`, `format_ok`, `truncated`.

    `legacy` adds the reference code's numbers: `legacy_mig_box`, `legacy_mig_iou`, `legacy_reward_iou`,
    `legacy_reward_format`. Its MIG-Bench scorer compares with the answer as it stands in the file, so against 0-1
    answers `legacy_mig_iou` is next to nothing, as it is there. Its reward is given answers 0-1000, whatever the
    file has.
    """
    divisor = 1.0 if scale == "unit" else 1000.0
    for prediction in predictions:
        x1, y1, x2, y2 = (value / divisor for value in prediction.answer)
        # score() judges samples; of this one it looks at the box alone.
        sample = GroundingSample(("none",), "none", prediction.task, boxes=((x1, y1, x2, y2),))
        reading = read(prediction.text, Asked.of(sample, style))
        result = score(sample, reading)
        row: Row = {
            **prediction.names,
            "iou": result.iou,
            "hit_30": result.hit_30,
            "hit_50": result.hit_50,
            "hit_70": result.hit_70,
            "boxes_unit": [list(placed.box) for placed in reading.boxes],
            "fault": reading.fault,
            "format_ok": result.format_ok,
        }
        if legacy:
            simple = style == "simple"
            permille = [
                value if scale == "permille" else round(value * 1000, 6) for value in prediction.answer
            ]
            row |= {
                "legacy_mig_box": legacy_mig_bench_box(prediction.text),
                "legacy_mig_iou": legacy_mig_bench_iou(prediction.text, prediction.answer),
                "legacy_reward_iou": legacy_accuracy_reward(prediction.text, permille, simple),
                "legacy_reward_format": legacy_format_reward(prediction.text, simple),
            }
        yield row


def write_scores(path: Path, rows: Iterable[Row]) -> None:
    """One row a line, the whole file or nothing."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _prediction(line: bytes, where: str) -> Prediction:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise PredictionError(f"not JSON ({error}): {where}: write one object a line") from None
    if not isinstance(record, dict):
        raise PredictionError(f"not an object with named fields: {where}: write one object a line")
    text, answer, task = record.get("text"), record.get("answer"), record.get("task")
    if "text" not in record or not (text is None or isinstance(text, str)):
        raise PredictionError(f"no text: {where}: give the raw response as `text`")
    if task is not None and not isinstance(task, str):
        raise PredictionError(f"task is {task!r}: {where}: give text, or leave it out")
    names = {name: record[name] for name in ("id", "task") if name in record}
    return Prediction(text or "", _answer(answer, where), task if task and task.strip() else "all", names)


def _answer(answer: Any, where: str) -> Box:
    numeric = isinstance(answer, list) and len(answer) == 4
    if not numeric or not all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in answer
    ):
        raise PredictionError(f"answer is {answer!r}: {where}: give a box of four numbers x1 y1 x2 y2")
    if not all(math.isfinite(value) and abs(value) < 1e9 for value in answer):
        raise PredictionError(f"answer is {answer!r}: {where}: give finite numbers")
    x1, y1, x2, y2 = answer
    return x1, y1, x2, y2
