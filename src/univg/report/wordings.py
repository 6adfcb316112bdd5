"""Compare how questions fare in a benchmark's own wording and in others: which words a model needs to hear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

from univg.report.statistics import MACRO, Estimate, group_by_task, wilson_interval
from univg.report.tables import Table, format_percent, format_points


def build_wordings_table(rows: Sequence[Mapping[str, Any]], title: str, first: str) -> Table | None:
    """Set Acc@0.5 of other wordings beside that of the published one, by task; None where no task was asked in both.

    Rows tell their `wording`; `first` is what it is called where it is the published one.

    Intervals are Wilson's, of differences Newcombe's (Statistics in Medicine 17, 1998, method 10); of the mean over
    tasks those of the tasks, added as squares.
    """
    lines: list[tuple[str, ...]] = []
    differences: list[Estimate] = []
    for task, group in group_by_task([row for row in rows if "wording" in row]).items():
        parts = [[row for row in group if (row["wording"] == first) == kind] for kind in (True, False)]
        if not all(parts):
            continue
        published, own = (_estimate(part) for part in parts)
        differences.append(subtract(own, published))
        counts = [str(len(part)) for part in parts]
        shares = [format_percent(published), format_percent(own)]
        lines.append((task, counts[0], shares[0], counts[1], shares[1], format_points(differences[-1])))
    if not lines:
        return None
    mean = _average(differences)
    lines.append((MACRO, "", "", "", "", format_points(mean)))
    headings = ("task", "n", "published wording", "n", "other wordings", "other minus published")
    strong = frozenset({len(lines) - 1})
    return Table(f"{title}: Acc@0.5 by wording", headings, tuple(lines), strong)


def subtract(one: Estimate, other: Estimate) -> Estimate:
    """Return the difference of two independent shares with Newcombe's interval.

    >>> difference = subtract(Estimate(56 / 70, 0.6918, 0.8771), Estimate(48 / 80, 0.4904, 0.7004))
    >>> [round(value, 3) for value in (difference.value, difference.low, difference.high)]
    [0.2, 0.052, 0.334]
    """
    value = one.value - other.value
    low = value - sqrt((one.value - one.low) ** 2 + (other.high - other.value) ** 2)
    high = value + sqrt((one.high - one.value) ** 2 + (other.value - other.low) ** 2)
    return Estimate(value, low, high)


def _estimate(rows: Sequence[Mapping[str, Any]]) -> Estimate:
    hits = sum(bool(row["hit_50"]) for row in rows)
    return Estimate(hits / len(rows), *wilson_interval(hits, len(rows)))


def _average(estimates: Sequence[Estimate]) -> Estimate:
    n = len(estimates)
    value = sum(one.value for one in estimates) / n
    low = sqrt(sum((one.value - one.low) ** 2 for one in estimates)) / n
    high = sqrt(sum((one.high - one.value) ** 2 for one in estimates)) / n
    return Estimate(value, value - low, value + high)
