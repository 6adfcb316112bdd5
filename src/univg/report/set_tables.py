"""Tables about answers that are sets, as plain data like those of :mod:`univg.report.tables`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from univg.report.calibration import Calibration
from univg.report.statistics import MACRO, MICRO, Estimate, Line, ScoredRows, Summary, summarise
from univg.report.tables import Table, format_percent, format_rate

__all__ = ["SET_CHANGES", "build_calibration_table", "build_refusals_table", "build_sets_table"]

_METRICS = ("iou", "precision_50", "recall_50", "f1_50", "mean_f1")
_HEADINGS = ("soft-F1", "P@0.5", "R@0.5", "F1@0.5", "F1@0.5:0.95")
SET_CHANGES: Mapping[str, str] = {"iou": "soft-F1", "f1_50": "F1@0.5", "count_right": "count exact"}
"""What two runs are compared by, and what it is called."""


def build_sets_table(
    rows: ScoredRows,
    title: str,
    precisions: Mapping[str, tuple[float, float]] | None,
    intervals: bool = True,
    notes: Sequence[str] = (),
) -> Table:
    """Set tasks against what their boxes are worth, in percent; the soft-F1 always with its interval, the others if
    `intervals`.

    `precisions`: AP and AP at IoU 0.5 by the name of a line, which needs a confidence of each box; empty without, and
    None where there can be none.
    """
    summary = summarise(rows, _METRICS)
    placed = [row for row in rows if row["images_right"] is not None]
    images = summarise(placed, ("images_right",)) if placed else None
    cells, strong = [], set()
    for number, line in enumerate(summary.lines):
        scores = [format_percent(line.estimates[name], intervals or name == "iou") for name in _METRICS]
        scores += [_show(images, line.name, "images_right", intervals)] if images else []
        if precisions:
            scores += [f"{100 * value:.1f}" for value in precisions.get(line.name, ())] or ["–", "–"]
        rates = [format_rate(line.fault_rate), format_rate(line.truncated), format_rate(line.formatted)]
        cells.append((line.name, str(line.n), *scores, *rates))
        if line.name in (MACRO, MICRO):
            strong.add(number)
    named = [*_HEADINGS, *(["images right"] if images else []), *(["AP", "AP@0.5"] if precisions else [])]
    headings = ("task", "n", *named, "faults", "truncated", "format ok")
    faults = ", ".join(f"{name} {format_rate(share)}" for name, share in summary.lines[-1].faults.items())
    told = [f"Faults by kind, of all responses: {faults}."] if faults else []
    if precisions is not None and not precisions:
        told.append("AP needs several responses a question (--samples): their agreement is the confidence.")
    return Table(title, headings, tuple(cells), frozenset(strong), (*told, *notes))


def build_refusals_table(rows: ScoredRows, title: str, intervals: bool = True) -> Table:
    """Show how often an answer says that nothing fits, where that is so and where it is not, side by side, and how far
    the number of boxes is off.

    A share over few samples moves much: both rates have their interval always, as has the count error.
    """
    counted = [row | {"count_off": abs(row["count_error"])} for row in map(dict, rows)]
    summary = summarise(counted, ("count_off", "count_right"))
    kinds = [[row for row in counted if bool(row["truths_unit"]) == there] for there in (False, True)]
    refusals = [summarise(kind, ("refused",)) if kind else None for kind in kinds]
    cells, strong = [], set()
    for number, line in enumerate(summary.lines):
        shares = []
        for found in refusals:
            shown = _find(found, line.name)
            shares += [str(shown.n) if shown else "0", _show(found, line.name, "refused", True)]
        counts = [
            format_number(line.estimates["count_off"]),
            format_percent(line.estimates["count_right"], intervals),
        ]
        cells.append((line.name, *shares, *counts))
        if line.name in (MACRO, MICRO):
            strong.add(number)
    headings = ("task", "n empty", "refused", "n others", "falsely refused", "count off by", "count exact")
    notes = ("macro and micro are over the tasks and samples that have any of the kind.",) if strong else ()
    return Table(title, headings, tuple(cells), frozenset(strong), notes)


def build_calibration_table(calibrations: Mapping[str, Calibration]) -> Table:
    """Set the confidence of answers beside the share that is right, each kind of answer a line."""
    cells = [
        (
            name,
            str(one.n),
            f"{100 * one.confidence:.1f}",
            f"{100 * one.hits:.1f}",
            f"{100 * one.error:.1f}",
        )
        for name, one in calibrations.items()
    ]
    notes = (
        "ECE, the expected calibration error, is the mean distance of both over ten bins of confidence. A box is right "
        "at IoU 0.5. The agreement of one box is its mean IoU with those of the other responses; of a box of a set, "
        "the share of the other responses that have it.",
    )
    return Table(
        "Agreement as confidence", ("", "boxes", "mean agreement", "right", "ECE"), tuple(cells), notes=notes
    )


def format_number(estimate: Estimate) -> str:
    """Return a number with its interval.

    >>> format_number(Estimate(0.5, 0.254, 1.0))
    '0.50 (0.25–1.00)'
    """
    return f"{estimate.value:.2f} ({estimate.low:.2f}–{estimate.high:.2f})"


def _show(summary: Summary | None, name: str, metric: str, interval: bool) -> str:
    line = _find(summary, name)
    return format_percent(line.estimates[metric], interval) if line else "–"


def _find(summary: Summary | None, name: str) -> Line | None:
    """Return the line of a summary over a part of the rows that stands for `name`: an average over a single task is
    that task."""
    if summary is None:
        return None
    line = summary.line(name)
    return line or (summary.lines[-1] if name in (MACRO, MICRO) and len(summary.lines) == 1 else None)
