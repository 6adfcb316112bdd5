"""Summarise scored rows: shares and means with bootstrap intervals, per task, macro and micro, and paired.

Intervals are the 2.5 and 97.5 percentiles of resampled means (2000 draws, a fixed seed). Samples are drawn again
within their task, because a benchmark's tasks and their sizes are fixed, not drawn; `scipy.stats.bootstrap` knows no
such strata, and other draws would move the last digit of published intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

ScoredRows: TypeAlias = Sequence[Mapping[str, Any]]
Floats: TypeAlias = NDArray[np.float64]

METRICS = ("hit_30", "hit_50", "hit_70", "iou")
"""Acc@0.3, Acc@0.5, Acc@0.7 and mean IoU, as columns of rows."""
MACRO, MICRO = "macro", "micro"

_DRAWS, _SEED = 2000, 0
_ORDER = (
    *("diff", "view_diff", "common_object", "object_tracking", "multi_view"),
    *("region", "refer_grounding", "group_grounding", "reasoning", "correspondence"),
)


@dataclass(frozen=True)
class Estimate:
    """Holds a mean and the 95 % interval around it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """Holds the numbers of a task, or of the macro or micro average.

    `estimates` by metric; `faults` is the share of responses with each fault, `truncated` of those that the token
    limit cut off, `formatted` of those in the form asked for.
    """

    name: str
    n: int
    estimates: Mapping[str, Estimate]
    faults: Mapping[str, float]
    truncated: float
    formatted: float

    @property
    def fault_rate(self) -> float:
        """The share of responses with any fault."""
        return sum(self.faults.values())


@dataclass(frozen=True)
class Summary:
    """Holds a line a task, then macro (the mean over tasks, the paper's AVG) and micro (over samples), unless there
    is one task only."""

    lines: tuple[Line, ...]

    def line(self, name: str) -> Line | None:
        """Return the line of a task, or of `MACRO` or `MICRO`; None if there is none."""
        return next((line for line in self.lines if line.name == name), None)

    @property
    def total(self) -> Line:
        """The line that speaks for all: the macro average, or the only task."""
        return self.line(MACRO) or self.lines[-1]


def summarise(rows: ScoredRows, metrics: Sequence[str] = METRICS) -> Summary:
    """Summarise `rows`, which have `task`, `fault`, `truncated`, `format_ok` and the metrics' columns.

    Raises ValueError for no rows.

    >>> row = {"task": "diff", "fault": None, "truncated": False, "format_ok": True, "iou": 0.5}
    >>> summarise([row, row | {"iou": 1.0}], ["iou"]).lines[0].estimates["iou"].value
    0.75
    """
    if not rows:
        raise ValueError("no rows: nothing to summarise")
    groups = group_by_task(rows)
    values = [_read_values(group, metrics) for group in groups.values()]
    means_TM = np.stack([each.mean(axis=0) for each in values])
    drawn_TDM = np.stack([_resample(each, seed) for seed, each in enumerate(values)])
    faults = sorted({row["fault"] for row in rows if row["fault"]})
    shares_TF = np.array([_count_shares(group, faults) for group in groups.values()])
    sizes_T = np.array([len(each) for each in values], dtype=np.float64)
    weights: dict[str, Floats] = dict(zip(groups, np.eye(len(groups)), strict=True))
    if len(groups) > 1:
        weights |= {MACRO: np.full(len(groups), 1 / len(groups)), MICRO: sizes_T / sizes_T.sum()}
    lines = []
    for name, weights_T in weights.items():
        *of_faults, truncated, formatted = (weights_T @ shares_TF).tolist()
        estimates = _estimate(metrics, weights_T @ means_TM, np.tensordot(weights_T, drawn_TDM, axes=1))
        found = {fault: share for fault, share in zip(faults, of_faults, strict=True) if share}
        lines.append(Line(name, len(groups.get(name, rows)), estimates, found, truncated, formatted))
    return Summary(tuple(lines))


def group_by_task(rows: ScoredRows) -> dict[str, list[Mapping[str, Any]]]:
    """Group rows by task: MIG-Bench's tasks in the paper's order, then the others by name."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["task"], []).append(row)
    place = {task: number for number, task in enumerate(_ORDER)}
    return {task: groups[task] for task in sorted(groups, key=lambda task: (place.get(task, 99), task))}


@dataclass(frozen=True)
class Difference:
    """Holds second run minus first of one task (or macro, micro), over the samples that both have."""

    name: str
    n: int
    estimates: Mapping[str, Estimate]
    only_first: int
    """Samples that only the first run hits at IoU 0.5; likewise `only_second`."""
    only_second: int


@dataclass(frozen=True)
class Comparison:
    """Holds `lines` of differences; `unpaired` counts the samples that only one run has, which are left out."""

    lines: tuple[Difference, ...]
    unpaired: int


def compare(
    first: Mapping[str, Mapping[str, Any]],
    second: Mapping[str, Mapping[str, Any]],
    metrics: Sequence[str] = ("hit_50", "iou"),
) -> Comparison:
    """Compare two runs' rows by key: how much better the second is, sample by sample, by columns of the rows.

    Paired: the same samples are drawn again for both, so what is hard for both does not widen the interval.
    No shared sample gives no lines.
    """
    shared = [key for key in first if key in second]
    unpaired = len(first) + len(second) - 2 * len(shared)
    if not shared:
        return Comparison((), unpaired)
    paired = [
        {
            "task": first[key]["task"],
            "only_first": bool(first[key]["hit_50"]) and not second[key]["hit_50"],
            "only_second": bool(second[key]["hit_50"]) and not first[key]["hit_50"],
            **{name: float(second[key][name]) - float(first[key][name]) for name in metrics},
            "fault": None,
            "truncated": False,
            "format_ok": True,
        }
        for key in shared
    ]
    groups = group_by_task(paired)
    lines = []
    for line in summarise(paired, metrics).lines:
        group = groups.get(line.name, paired)
        only = (sum(row["only_first"] for row in group), sum(row["only_second"] for row in group))
        lines.append(Difference(line.name, line.n, line.estimates, *only))
    return Comparison(tuple(lines), unpaired)


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of the share ``hits / n``, both 0-1.

    >>> [round(bound, 3) for bound in wilson_interval(80, 100)]
    [0.711, 0.867]
    """
    from scipy.stats import binomtest

    interval = binomtest(hits, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def student_reach(values: Sequence[float]) -> float:
    """Return half the 95 % interval of the mean of two or more normally distributed values (Student's t).

    >>> round(student_reach([50.0, 52.0, 54.0]), 2)
    4.97
    """
    from scipy.stats import sem, t

    return float(t.ppf(0.975, len(values) - 1) * sem(values))


def _read_values(rows: ScoredRows, metrics: Sequence[str]) -> Floats:
    return np.array([[float(row[name]) for name in metrics] for row in rows], dtype=np.float64)


def _resample(values_NM: Floats, seed: int) -> Floats:
    """Return the means of `_DRAWS` resamples, (draws, metrics). How often each sample is drawn is multinomial."""
    n = len(values_NM)
    rng = np.random.default_rng((_SEED, seed))
    counts_DN = rng.multinomial(n, np.full(n, 1 / n), size=_DRAWS)
    means: Floats = counts_DN @ values_NM / n
    return means


def _estimate(metrics: Sequence[str], mean_M: Floats, drawn_DM: Floats) -> dict[str, Estimate]:
    low_M, high_M = np.percentile(drawn_DM, (2.5, 97.5), axis=0)
    return {
        name: Estimate(float(mean_M[at]), float(low_M[at]), float(high_M[at]))
        for at, name in enumerate(metrics)
    }


def _count_shares(rows: ScoredRows, faults: Sequence[str]) -> list[float]:
    """Return the share of rows with each fault, of those cut off, and of those in the form asked for."""
    counts = [sum(row["fault"] == fault for row in rows) for fault in faults]
    counts += [sum(bool(row[name]) for row in rows) for name in ("truncated", "format_ok")]
    return [count / len(rows) for count in counts]
