"""Tables in the docs that promise what is read, refused and told: each of their rows is a test, by its own words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
MARK = "<!-- each row is a test -->"
PAGES = ["docs/data.md", "docs/evaluation.md", "docs/serve.md"]


def rows_of(page: str) -> list[str]:
    """The first cell of every row below the mark, up to the next heading of the second level."""
    _, marked, text = (REPO / page).read_text("utf-8").partition(MARK)
    assert marked, f"{page} has no table whose rows are tests"
    rows = re.findall(r"^\| *(.+?) *(?<!\\)\|", text.split("\n## ")[0], re.MULTILINE)
    return [
        row
        for row in rows
        if not set(row) <= set("-: ") and row not in ("what comes", "written", "what is sent")
    ]


@pytest.fixture(scope="module")
def tests() -> str:
    """Everything that the tests say: ids and names, in small letters, blanks for whatever is no letter or digit."""
    texts = (
        file.read_text("utf-8") for file in sorted((REPO / "tests").rglob("*.py")) if file != Path(__file__)
    )
    return simplify(" ".join(texts))


def simplify(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


@pytest.mark.parametrize("page", PAGES)
def test_every_row_is_a_test(page: str, tests: str) -> None:
    rows = rows_of(page)
    assert len(rows) >= 10
    missing = [row for row in rows if simplify(row) not in tests]
    assert not missing, f"no test says: {missing}"
