"""One writer of Markdown tables."""

from __future__ import annotations

import pytest

from univg.report.markdown import table


def test_no_cell_breaks_its_table() -> None:
    text = table(("a", "b"), [("x|y", "<think>"), ("two\nlines", 3)])
    assert text.splitlines() == ["| a | b |", "|---|---|", "| x\\|y | &lt;think> |", "| two lines | 3 |"]
    assert table(("a", "b", "c"), [], numbers=True).splitlines()[1] == "|---|---:|---:|"
    with pytest.raises(ValueError, match="a row of 1 cells under 2 headings"):
        table(("a", "b"), [("x",)])
