"""Numbers about rows, against what they are worked out by hand or by a plain loop."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

from univg.report.statistics import compare, group_by_task, student_reach, summarise, wilson_interval


def row(task: str, iou: float, fault: str | None = None, truncated: bool = False) -> dict[str, Any]:
    hits = {f"hit_{int(100 * t)}": iou >= t for t in (0.3, 0.5, 0.7)}
    return {
        "task": task,
        "iou": iou,
        **hits,
        "fault": fault,
        "truncated": truncated,
        "format_ok": fault is None,
    }


ROWS = [
    *(row("diff", 1.0), row("diff", 0.6), row("diff", 0.4), row("diff", 0.0, "no_box")),
    *(row("region", 0.9), row("region", 0.0, "truncated", truncated=True)),
]


def test_tasks_macro_and_micro() -> None:
    summary = summarise(ROWS)
    found = {
        line.name: (line.n, line.estimates["hit_50"].value, line.estimates["iou"].value)
        for line in summary.lines
    }
    assert list(found) == ["diff", "region", "macro", "micro"]
    assert found["diff"] == (4, 0.5, pytest.approx(0.5))
    assert found["region"] == (2, 0.5, pytest.approx(0.45))
    assert found["macro"] == (6, 0.5, pytest.approx(0.475))
    assert found["micro"] == (6, 0.5, pytest.approx(2.9 / 6))
    assert summary.total.name == "macro"


def test_faults_stand_beside_every_score() -> None:
    lines = {line.name: line for line in summarise(ROWS).lines}
    assert lines["diff"].faults == {"no_box": 0.25} and lines["diff"].truncated == 0
    assert lines["region"].fault_rate == lines["region"].truncated == lines["region"].formatted == 0.5
    assert lines["macro"].faults == {"no_box": 0.125, "truncated": 0.25}
    assert lines["micro"].faults == {"no_box": pytest.approx(1 / 6), "truncated": pytest.approx(1 / 6)}


def test_one_task_has_no_averages() -> None:
    assert [line.name for line in summarise(ROWS[:4]).lines] == ["diff"]
    with pytest.raises(ValueError, match="no rows"):
        summarise([])


def test_the_paper_orders_its_tasks() -> None:
    named = [row(task, 1.0) for task in ("video", "correspondence", "implicit", "diff", "region")]
    assert list(group_by_task(named)) == ["diff", "region", "correspondence", "implicit", "video"]


def test_the_interval_is_that_of_the_binomial() -> None:
    rng = random.Random(0)
    rows = [row("diff", float(rng.random() < 0.3)) for _ in range(1000)]
    estimate = summarise(rows).lines[0].estimates["hit_50"]
    half = 1.96 * (estimate.value * (1 - estimate.value) / 1000) ** 0.5
    assert estimate.high - estimate.value == pytest.approx(half, rel=0.15)
    assert estimate.value - estimate.low == pytest.approx(half, rel=0.15)
    assert summarise(rows) == summarise(rows), "the same draws every time"


def test_intervals_cover_what_they_claim() -> None:
    rng = random.Random(1)
    covered = 0
    for _ in range(100):
        rows = [
            row(task, float(rng.random() < share))
            for task, share in (("a", 0.2), ("b", 0.7))
            for _ in range(60)
        ]
        estimate = summarise(rows).total.estimates["hit_50"]
        covered += estimate.low <= 0.45 <= estimate.high
    assert covered >= 86


def test_a_paired_comparison_sees_what_two_intervals_hide() -> None:
    rng = random.Random(2)
    hard = [rng.random() for _ in range(400)]
    first = {str(n): row("diff", 1.0 if h < 0.50 else 0.0) for n, h in enumerate(hard)}
    second = {str(n): row("diff", 1.0 if h < 0.55 else 0.0) for n, h in enumerate(hard)}
    [line] = compare(first, second).lines
    difference = line.estimates["hit_50"]
    assert difference.low > 0 and line.only_first == 0 and line.only_second == round(400 * difference.value)
    apart = [summarise(list(rows.values())).lines[0].estimates["hit_50"] for rows in (first, second)]
    assert apart[0].high > apart[1].low


def test_only_shared_samples_are_compared() -> None:
    first = {"a": row("diff", 1.0), "b": row("diff", 0.0)}
    comparison = compare(first, {"b": row("diff", 0.6), "c": row("diff", 1.0)})
    [line] = comparison.lines
    assert (line.n, comparison.unpaired, line.estimates["iou"].value) == (1, 2, 0.6)
    assert compare(first, {}).lines == ()


def test_the_averages_count_all_tasks_flips() -> None:
    first = {"a": row("diff", 1.0), "b": row("region", 0.0)}
    second = {"a": row("diff", 0.0), "b": row("region", 1.0)}
    lines = {line.name: (line.only_first, line.only_second) for line in compare(first, second).lines}
    assert lines == {"diff": (1, 0), "region": (0, 1), "macro": (1, 1), "micro": (1, 1)}


@pytest.mark.parametrize("n", [24, 50, 100, 1300])
def test_wilson_s_interval_is_the_formula(n: int) -> None:
    z = 1.959963984540054
    for hits in range(0, n + 1, max(1, n // 40)):
        share = hits / n
        middle = (share + z * z / (2 * n)) / (1 + z * z / n)
        reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        assert wilson_interval(hits, n) == pytest.approx((middle - reach, middle + reach), abs=1e-12)


def test_student_s_reach_has_the_quantiles_of_the_tables() -> None:
    for count, quantile in ((2, 12.706), (3, 4.303), (5, 2.776), (10, 2.262), (31, 2.042)):
        values = [float(value) for value in range(count)]
        error = float(np.std(values, ddof=1)) / math.sqrt(count)
        assert student_reach(values) / error == pytest.approx(quantile, abs=5e-4)
