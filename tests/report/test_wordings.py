"""How the published wording and others fare, side by side."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import pytest

from univg.evaluate.rows import make_row
from univg.grounding.samples import GroundingSample
from univg.models.answering import Answer
from univg.report.statistics import Estimate
from univg.report.wordings import build_wordings_table, subtract


def ask(task: str, wording: str | None, hits: int, n: int) -> list[dict[str, Any]]:
    told = {} if wording is None else {"wording": wording}
    return [{"task": task, "hit_50": i < hits, **told} for i in range(n)]


def test_tasks_are_compared_where_both_wordings_were_asked() -> None:
    rows = ask("diff", "published", 40, 50) + ask("diff", "What changed?", 60, 100)
    rows += ask("diff", "Spot the difference.", 30, 50)  # all others together: 90 of 150
    rows += ask("region", "published", 9, 10) + ask("region", "piece {n}", 10, 10)
    rows += ask("referring", "the {one}", 3, 10) + ask("video", None, 3, 10)
    table = build_wordings_table(rows, "model", "published")
    assert table is not None and table.title == "model: Acc@0.5 by wording"
    assert [row[:2] for row in table.rows] == [("diff", "50"), ("region", "10"), ("macro", "")]
    assert table.rows[0][2].startswith("80.0 (") and table.rows[0][3:5] == ("150", "60.0 (52.0–67.5)")
    assert [row[5].split()[0] for row in table.rows] == ["-20.0", "+10.0", "-5.0"]
    assert table.strong == {2}


@pytest.mark.parametrize("rows", [[], ask("diff", None, 1, 3), ask("absent", "the {one}", 1, 3)])
def test_there_is_no_table_without_both(rows: list[dict[str, Any]]) -> None:
    assert build_wordings_table(rows, "model", "published") is None


def test_a_difference_is_as_unsure_as_its_parts() -> None:
    exact, doubtful = Estimate(0.5, 0.5, 0.5), Estimate(0.4, 0.3, 0.6)
    assert astuple(subtract(doubtful, exact)) == pytest.approx((-0.1, -0.2, 0.1))
    assert astuple(subtract(exact, doubtful)) == pytest.approx((0.1, -0.1, 0.2))


def test_a_row_says_how_it_was_asked() -> None:
    answer = Answer("a", ("(1,1),(9,9)",), (False,), (9,), 9, 9, False, ((100, 100),), 0.1)
    for extra, told in (({"wording": "the {one}"}, "the {one}"), ({}, None)):
        sample = GroundingSample(("a.png",), "the cat", "referring", ((0.0, 0.0, 1.0, 1.0),), extra=extra)
        assert make_row(sample, answer, "think", "permille").get("wording") == told
