"""Score responses made elsewhere, without a model: `univg score`.

In: JSON Lines, or a list, with `text` (the raw response; null for none), `answer` (a box x1 y1 x2 y2; one scale for the
whole file, 0-1 or 0-1000), and optionally `id` and `task`. Out: the same rows in the same order with what they
are worth.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from univg.data.formats.faults import Unusable
from univg.data.formats.rows import read_rows
from univg.errors import UnivgError
from univg.evaluate.rows import Row, reward_columns, score_columns
from univg.files import write_whole
from univg.grounding.boxes import Box
from univg.grounding.legacy import legacy_mig_bench_box, legacy_mig_bench_iou
from univg.grounding.prompts import PromptStyle
from univg.grounding.reading import Asked, read
from univg.grounding.samples import GroundingSample
from univg.report.statistics import summarise
from univg.report.tables import LEGACY, Table, build_legacy_table, build_scores_table

Scale: TypeAlias = Literal["unit", "permille"]

_UNIT_LIMIT = 1.05
"""Published 0-1 files hold edges a little beyond 1; a 0-1000 file with nothing above this does not exist."""


@dataclass(frozen=True)
class Prediction:
    """One line: the response, the answer's four numbers as they stand, and what names the line."""

    text: str
    answer: Box
    task: str
    names: Mapping[str, Any]
    """`id` and `task`, as far as the line has them."""


def read_predictions(path: Path) -> list[Prediction]:
    """Read all predictions of a file, JSON Lines or a list. Raises UnivgError, naming the line."""
    if not path.exists():
        raise UnivgError("cannot be read (no such file)", path, "check the path")
    empty = path.is_file() and not path.read_bytes().strip()
    rows = [] if empty else list(read_rows(path))
    predictions = [_read_prediction(row, f"{path}, {place}") for place, row in rows]
    if not predictions:
        raise UnivgError("no predictions", path, "give one JSON object a line")
    return predictions


def find_scale(answers: Iterable[Box]) -> Scale:
    """Return "unit" if no number passes 1.05, else "permille".

    >>> find_scale([(0.1, 0.2, 0.3, 1.02)]), find_scale([(0, 0, 1, 1), (100, 200, 300, 400)])
    ('unit', 'permille')
    """
    return "unit" if all(value <= _UNIT_LIMIT for box in answers for value in box) else "permille"


def score_predictions(
    predictions: Iterable[Prediction], scale: Scale, style: PromptStyle = "think", legacy: bool = False
) -> Iterator[Row]:
    """Yield a row for each prediction: `id`, `task` and the columns of `univg.evaluate.rows.score_columns`.

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
        row: Row = {
            **prediction.names,
            **score_columns(sample, read(prediction.text, Asked.of(sample, style))),
        }
        if legacy:
            permille = [
                value if scale == "permille" else round(value * 1000, 6) for value in prediction.answer
            ]
            row |= {
                "legacy_mig_box": legacy_mig_bench_box(prediction.text),
                "legacy_mig_iou": legacy_mig_bench_iou(prediction.text, prediction.answer),
                **reward_columns(prediction.text, permille, style),
            }
        yield row


def build_tables(
    predictions: Sequence[Prediction], rows: Sequence[Row], scale: Scale, title: str
) -> list[Table]:
    """Return the table of the scores, and a second one where `rows` have the reference code's numbers."""
    judged = [
        row | {"task": one.task, "truncated": row["fault"] == "truncated"}
        for row, one in zip(rows, predictions, strict=True)
    ]
    notes = [f"Answers are {'0–1' if scale == 'unit' else '0–1000'} (found in the file)."]
    small = sum(find_scale([one.answer]) == "unit" for one in predictions)
    if scale == "permille" and small:
        notes.append(
            f"{small} of {len(predictions)} answers look like 0–1 all the same and score next to 0: "
            "one scale a file."
        )
    largest = max(value for one in predictions for value in one.answer)
    if largest > 1050:
        notes.append(
            f"NOTE: an answer reaches {largest:g}, beyond 0–1000: pixels must be made 0–1 or 0–1000 first."
        )
    tables = [build_scores_table(summarise(judged), title, ("hit_50",), notes)]
    if "legacy_mig_iou" in rows[0]:
        judged = [
            row | {"legacy_hit_50": row["legacy_mig_iou"] >= 0.5, "legacy_iou": row["legacy_mig_iou"]}
            for row in judged
        ]
        unit = "The reference scorer takes an answer as it stands for 0–1000: against 0–1 answers it says nothing."
        tables.append(build_legacy_table(summarise(judged, LEGACY), title, [unit] if scale == "unit" else []))
    return tables


def suggest_style(
    predictions: Sequence[Prediction], rows: Sequence[Row], scale: Scale, style: PromptStyle
) -> str:
    """Say how the responses would be read in another style, if most hold no `<answer>` and so no box; else ""."""
    unanswered = [one for one, row in zip(predictions, rows, strict=True) if row["fault"] == "no_answer"]
    if 2 * len(unanswered) < len(rows) or style != "think":
        return ""
    boxed = sum(bool(row["boxes_unit"]) for row in score_predictions(unanswered, scale, "direct"))
    if not boxed:
        return ""
    without = f"{len(unanswered)} of {len(rows)} responses have no <answer>, where the style think looks for the box"
    return f"{without}: with --style direct {boxed} of them hold one."


def write_scores(path: Path, rows: Iterable[Row]) -> None:
    """Write one row a line, the whole file or nothing."""
    write_whole(path, "".join(json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n" for row in rows))


def _read_prediction(record: Any, where: str) -> Prediction:
    if isinstance(record, Unusable):
        cause = record.cause.replace("not complete JSON", "not JSON")
        raise UnivgError(cause, where, record.fix or "write one object a line")
    if not isinstance(record, dict):
        raise UnivgError("not an object with named fields", where, "write one object a line")
    text, answer, task = record.get("text"), record.get("answer"), record.get("task")
    if "text" not in record or not (text is None or isinstance(text, str)):
        raise UnivgError("no text", where, "give the raw response as `text`")
    if task is not None and not isinstance(task, str):
        raise UnivgError(f"task is {task!r}", where, "give text, or leave it out")
    names = {name: record[name] for name in ("id", "task") if name in record}
    return Prediction(
        text or "", _check_answer(answer, where), task if task and task.strip() else "all", names
    )


def _check_answer(answer: Any, where: str) -> Box:
    numeric = isinstance(answer, list) and len(answer) == 4
    if not numeric or not all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in answer
    ):
        raise UnivgError(f"answer is {answer!r}", where, "give a box of four numbers x1 y1 x2 y2")
    if not all(math.isfinite(value) and abs(value) < 1e9 for value in answer):
        raise UnivgError(f"answer is {answer!r}", where, "give finite numbers")
    x1, y1, x2, y2 = answer
    return x1, y1, x2, y2
