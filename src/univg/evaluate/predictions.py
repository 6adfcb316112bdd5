"""Score responses made elsewhere, without a model: `univg score`.

In: answers as other programs write them (`univg.evaluate.answers`), each with its truth (a box x1 y1 x2 y2; one scale
for the whole file, 0-1 or 0-1000), or beside a data file whose samples they answer (`univg.evaluate.matching`). Out: a
row for each, in the same order, with what it is worth.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeAlias

from univg.data.formats.faults import OnFault, RecordFault, Unusable, name_fault, report
from univg.errors import UnivgError
from univg.evaluate.answers import Given, find_truth, read_given
from univg.evaluate.hints import explain_legacy
from univg.evaluate.image_names import counts_from_zero, number_images
from univg.evaluate.matching import match
from univg.evaluate.rows import Row, reward_columns, score_columns
from univg.evaluate.sets import is_set, split_rows
from univg.files import write_whole
from univg.grounding.boxes import Box
from univg.grounding.legacy import legacy_mig_bench_box, legacy_mig_bench_iou
from univg.grounding.prompts import PromptStyle
from univg.grounding.reading import Asked, read
from univg.grounding.samples import GroundingSample
from univg.report.set_tables import build_refusals_table, build_sets_table
from univg.report.statistics import MACRO, METRICS, MICRO, summarise
from univg.report.tables import LEGACY, Table, build_legacy_table, build_scores_table, format_percent

Scale: TypeAlias = Literal["unit", "permille"]

_UNIT_LIMIT = 1.05
"""Published 0-1 files hold edges a little beyond 1; a 0-1000 file with nothing above this does not exist."""


@dataclass(frozen=True)
class Prediction:
    """One answer: the response, the truth's four numbers as they stand, and what names the answer.

    `sample`: what it answers, where a data file says it; its truth is 0-1, and of a set the first box, or None.
    """

    text: str
    answer: Box | None
    task: str
    names: Mapping[str, Any]
    """`id`, `task` and the like, as far as they are known."""
    sample: GroundingSample | None = None


def read_predictions(path: Path, on_fault: OnFault | None = None) -> list[Prediction]:
    """Read answers that stand beside their truth. What is wrong with one goes to `on_fault` (without it, the first is
    raised); of two with one `id` (and one `task`) the first counts. Raises UnivgError if nothing is left."""
    predictions: list[Prediction] = []
    seen: set[str] = set()
    faults: list[RecordFault] = []

    def tell(fault: RecordFault) -> None:
        faults.append(fault)
        report(fault, on_fault)

    for given in read_given(path, lambda fault: tell(_place(path, fault)), with_truth=True):
        row, record = given.row, f"{path}, {given.place}"
        try:
            truth, task = find_truth(row), row.get("task")
            if truth is None:
                fix = "give a box of four numbers x1 y1 x2 y2, or the samples' file with --data"
                raise Unusable("no_answer", f"no truth: answer is {row.get('answer')!r}", fix)
            if task is not None and not isinstance(task, str):
                raise Unusable("bad_field", f"task is {task!r}", "give text, or leave it out")
            name = json.dumps([row.get("id"), task])
            if row.get("id") is not None and name in seen:
                raise Unusable("repeated_answer", f"id {row['id']!r} is there already")
        except Unusable as error:
            tell(name_fault(error, record))
            continue
        seen.add(name)
        names = {field: row[field] for field in ("id", "task") if field in row}
        predictions.append(Prediction(given.text, truth, task if task and task.strip() else "all", names))
    if not predictions:
        _refuse(path, faults)
    return predictions


def _place(path: Path, fault: RecordFault) -> RecordFault:
    return RecordFault(f"{path}, {fault.record}", fault.kind, fault.cause, fault.fix)


def _refuse(path: Path, faults: Sequence[RecordFault]) -> NoReturn:
    """Raise the error that says why no answer of a file can be scored, by the first of its faults."""
    if not faults:
        raise UnivgError("no predictions", path, "give one JSON object a line")
    cause = f"no answer of {len(faults)} can be scored; the first: {faults[0].cause}"
    raise UnivgError(cause, faults[0].record, faults[0].fix)


def match_predictions(
    path: Path, samples: Sequence[GroundingSample], on_fault: OnFault, whole: bool = True
) -> tuple[list[Prediction], list[str]]:
    """Read answers to `samples`; return those whose sample was found, and in words how and what of images was read.

    Answers to no sample, and second ones to a sample (the first counts), go to `on_fault`, as what is no answer does.
    `whole`: see `univg.evaluate.matching.match`, which also says what is raised.
    """
    faults: list[RecordFault] = []
    sets = any(sample.complete for sample in samples)
    given = read_given(path, lambda fault: faults.append(_place(path, fault)), sets=sets)
    if not given:
        _refuse(path, faults)
    for fault in faults:
        on_fault(fault)
    found = match(given, samples, path, whole)
    predictions: list[Prediction] = []
    seen: dict[int, str] = {}
    images = _ImageReader(given, found.numbers, samples)
    for one, number in zip(given, found.numbers, strict=True):
        record = f"{path}, {one.place}"
        names = {field: one.row[field] for field in ("id", "custom_id") if field in one.row}
        said = ", ".join(f"{field} {value!r}" for field, value in names.items()) or "this answer"
        if number is None:
            on_fault(RecordFault(record, "unknown_id", f"{said} names no sample"))
        elif number in seen:
            same = "the same text" if seen[number] == one.text else "another text"
            cause = f"{said}: {samples[number].source} is answered already, with {same}"
            on_fault(RecordFault(record, "repeated_answer", cause))
        else:
            seen[number] = one.text
            sample = samples[number]
            names |= {"source": sample.source, "task": sample.task}
            truth = sample.boxes[0] if sample.boxes else None
            predictions.append(Prediction(images.read(one, sample), truth, sample.task, names, sample))
    return predictions, [found.how, *images.tell()]


class _ImageReader:
    """Put the number of its image beside each box of a set, whatever the file says instead."""

    def __init__(
        self, given: Sequence[Given], numbers: Sequence[int | None], samples: Sequence[GroundingSample]
    ) -> None:
        pairs = [
            (one.text, len(samples[number].images))
            for one, number in zip(given, numbers, strict=True)
            if number is not None and samples[number].complete
        ]
        self.from_zero = counts_from_zero([text for text, _ in pairs], [count for _, count in pairs])
        self.unknown: list[str] = []

    def read(self, one: Given, sample: GroundingSample) -> str:
        if not sample.complete:
            return one.text

        def tell(why: str) -> None:
            self.unknown.append(f"{one.place}: {why}")

        return number_images(one.text, sample.images, self.from_zero, tell)

    def tell(self) -> list[str]:
        notes = []
        if self.from_zero:
            notes.append(
                "NOTE: the answers say `image` 0, so all of them are read as counting images from 0."
            )
        if self.unknown:
            rest = f" (and {len(self.unknown) - 1} more)" if len(self.unknown) > 1 else ""
            notes.append(f"NOTE: a box is on no image of its question; {self.unknown[0]}{rest}.")
        return notes


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
    `legacy_reward_format`; not of sets, which it does not know. Its MIG-Bench scorer compares with the answer as it
    stands in the file, so against 0-1 answers `legacy_mig_iou` is next to nothing, as it is there; truths of a data
    file it gets 0-1000, as in `univg evaluate`. Its reward is given answers 0-1000, whatever the file has.
    """
    for prediction in predictions:
        sample = prediction.sample or _make_sample(prediction, 1.0 if scale == "unit" else 1000.0)
        row: Row = {
            **prediction.names,
            **score_columns(sample, read(prediction.text, Asked.of(sample, style))),
        }
        if legacy and not sample.complete and (as_it_stands := prediction.answer):
            permille = [value if scale == "permille" else round(value * 1000, 6) for value in as_it_stands]
            truth = as_it_stands if prediction.sample is None else permille
            row |= {
                "legacy_mig_box": legacy_mig_bench_box(prediction.text),
                "legacy_mig_iou": legacy_mig_bench_iou(prediction.text, truth),
                **reward_columns(prediction.text, permille, style),
            }
        yield row


def _make_sample(prediction: Prediction, divisor: float) -> GroundingSample:
    """Make the sample that an answer's truth stands for; `score` looks at nothing but its box."""
    assert prediction.answer is not None, "what names no sample has a truth"
    x1, y1, x2, y2 = (value / divisor for value in prediction.answer)
    return GroundingSample(("none",), "none", prediction.task, boxes=((x1, y1, x2, y2),))


def build_tables(
    predictions: Sequence[Prediction],
    rows: Sequence[Row],
    scale: Scale,
    title: str,
    notes: Sequence[str] = (),
) -> list[Table]:
    """Return the tables of the scores, of sets those of their own, with `notes` below the first; and one more where
    `rows` have the reference code's numbers."""
    told, tables = list(notes), []
    if all(one.sample is None for one in predictions):
        told += _describe_scale([one.answer for one in predictions if one.answer], scale)
    single, sets = split_rows(_add_columns(predictions, rows))
    if single:
        tables.append(build_scores_table(summarise(single), title, ("hit_50",), told))
        told = []
    if sets:
        tables.append(build_sets_table(sets, f"{title}: answers that are sets", None, False, told))
        tables.append(build_refusals_table(sets, f"{title}: nothing there, and how many", False))
    judged = [
        row | {"legacy_hit_50": row["legacy_mig_iou"] >= 0.5, "legacy_iou": row["legacy_mig_iou"]}
        for row in single
        if "legacy_mig_iou" in row
    ]
    if judged:
        texts = [one.text for one, row in zip(predictions, rows, strict=True) if not is_set(row)]
        told = explain_legacy(texts, judged, scale == "unit" and predictions[0].sample is None)
        tables.append(build_legacy_table(summarise(judged, LEGACY), title, told))
    return tables


def _add_columns(predictions: Sequence[Prediction], rows: Sequence[Row]) -> list[Row]:
    """Return rows with what a table counts by."""
    return [
        row | {"task": one.task, "truncated": row["fault"] == "truncated"}
        for row, one in zip(rows, predictions, strict=True)
    ]


def _describe_scale(answers: Sequence[Box], scale: Scale) -> list[str]:
    notes = [f"Answers are {'0–1' if scale == 'unit' else '0–1000'} (found in the file)."]
    small = sum(find_scale([answer]) == "unit" for answer in answers)
    if scale == "permille" and small:
        notes.append(
            f"{small} of {len(answers)} answers look like 0–1 all the same and score next to 0: "
            "one scale a file."
        )
    largest = max(value for answer in answers for value in answer)
    if largest > 1050:
        notes.append(
            f"NOTE: an answer reaches {largest:g}, beyond 0–1000: pixels must be made 0–1 or 0–1000 first."
        )
    return notes


def describe_missing(
    predictions: Sequence[Prediction], rows: Sequence[Row], samples: Sequence[GroundingSample]
) -> str:
    """Say how many samples have no answer, and the table's averages if these counted 0; "" if all have one."""
    answered = {id(one.sample) for one in predictions}
    missing = [sample for sample in samples if id(sample) not in answered]
    if not missing:
        return ""
    nothing = {"fault": "missing", "truncated": False, "format_ok": False, **dict.fromkeys(METRICS, 0.0)}
    judged = _add_columns(predictions, rows)
    whole = [*judged, *(nothing | {"task": one.task, "complete": one.complete} for one in missing)]
    changes = [
        f"{name} would be {_list_averages(after, metric)} instead of {_list_averages(before, metric)}"
        for name, metric, before, after in zip(
            ("Acc@0.5", "soft-F1"), ("hit_50", "iou"), split_rows(judged), split_rows(whole), strict=True
        )
        if after
    ]
    return (
        f"NOT COMPLETE: {len(missing)} of {len(samples)} samples have no answer (the first is {missing[0].source}) "
        f"and are not in these scores; counted as 0, {'; '.join(changes)}."
    )


def _list_averages(rows: Sequence[Row], metric: str) -> str:
    """List a table's averages of a metric, or its only task's, by the names that its lines have."""
    if not rows:
        return "none"
    lines = summarise(rows, (metric,)).lines
    averages = [line for line in lines if line.name in (MACRO, MICRO)] or lines
    return ", ".join(f"{line.name} {format_percent(line.estimates[metric], False)}" for line in averages)


def write_scores(path: Path, rows: Iterable[Row]) -> None:
    """Write one row a line, the whole file or nothing."""
    write_whole(path, "".join(json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n" for row in rows))
