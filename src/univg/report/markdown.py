"""Write Markdown as GitHub and the model hub show it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["escape", "table"]


def table(header: Sequence[object], rows: Iterable[Sequence[object]], *, numbers: bool = False) -> str:
    """Return a table's lines, without a newline at the end; cells are escaped, emphasis in them stays.

    ``numbers``: every column but the first is right-aligned. Raises ValueError for a row of another length than the
    header.

    >>> print(table(("task", "IoU"), [("a|b", 0.5)], numbers=True))
    | task | IoU |
    |---|---:|
    | a\\|b | 0.5 |
    """
    lines = [
        _line(header),
        "|" + "|".join(["---"] + ["---:" if numbers else "---"] * (len(header) - 1)) + "|",
    ]
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row of {len(row)} cells under {len(header)} headings: {row}")
        lines.append(_line(row))
    return "\n".join(lines)


def escape(text: object) -> str:
    """Return ``text`` on one line, showing as it stands: no column ends in it and no HTML begins.

    >>> escape("a|b <think>")
    'a\\\\|b &lt;think>'
    """
    return str(text).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _line(cells: Iterable[object]) -> str:
    return "| " + " | ".join(map(escape, cells)) + " |"
