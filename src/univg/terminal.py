"""Talk to people at a terminal: notes on stderr, progress bars, tables.

Results go to stdout, everything else to stderr, so that a command's output can be piped. Of several processes only
the first one speaks.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

__all__ = ["is_first_process", "notes", "print_rich_table", "progress", "results", "waiting"]

_ENDLESS = 10_000
"""The width where no terminal is, which has none: more than any line of ours takes."""
_LINE_EVERY_S = 20.0


def is_first_process() -> bool:
    """Tell whether this is the only process of a run, or the first of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def notes(quiet: bool = False) -> Console:
    """Make the console for what is not a result: stderr, unbroken lines, text as it stands."""
    from rich.console import Console

    return Console(
        stderr=True,
        soft_wrap=True,
        highlight=False,
        markup=False,
        emoji=False,
        quiet=quiet or not is_first_process(),
        width=_find_width(sys.stderr),
    )


def results() -> Console:
    """Make the console for results: stdout, unbroken lines, text as it stands."""
    from rich.console import Console

    return Console(soft_wrap=True, highlight=False, markup=False, width=_find_width(sys.stdout))


def _find_width(stream: TextIO) -> int | None:
    """Return the width to write in; None for the terminal's own, or the one that COLUMNS asks for."""
    return None if stream.isatty() or os.environ.get("COLUMNS", "").isdecimal() else _ENDLESS


def print_rich_table(console: Console, table: Table) -> None:
    """Print a table of which nothing is cut: what is too wide is folded between words, never within a number."""
    from rich.measure import Measurement

    for column in table.columns:
        column.overflow = "fold"
    width = console.width
    least = Measurement.get(console, console.options.update(width=_ENDLESS), table).minimum
    console.width = max(width, least)  # the terminal wraps a line that is longer still
    console.print(table, soft_wrap=False)
    console.width = width


def progress(
    console: Console | None = None, *, times: bool = True, note: bool = False, disable: bool = False
) -> Progress:
    """Make a progress bar with a count; it is gone when it ends. In a log it is a line every 20 seconds.

    With ``times``, elapsed and remaining time stand behind it.

    With ``note``, the text that each task carries as ``note=`` stands behind it.

    >>> with progress(notes(quiet=True)) as bar:
    ...     for _ in bar.track(range(2), description="counting"):
    ...         pass
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    shown = console or notes()

    class Told(Progress):
        told = time.monotonic()

        def advance(self, task_id: TaskID, advance: float = 1) -> None:
            super().advance(task_id, advance)
            if not shown.is_terminal and not disable and time.monotonic() - self.told > _LINE_EVERY_S:
                self.told, task = time.monotonic(), self._tasks[task_id]
                of = f" of {task.total:.0f}" if task.total else ""
                shown.print(f"{task.description}: {task.completed:.0f}{of}")

    return Told(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16 if note else 40),
        MofNCompleteColumn(),
        *((TimeElapsedColumn(), TimeRemainingColumn()) if times else ()),
        *([TextColumn("{task.fields[note]}", markup=False)] if note else []),
        console=shown,
        transient=True,
        disable=disable or not shown.is_terminal,  # to a log it would write empty lines
    )


@contextmanager
def waiting(console: Console, what: str) -> Iterator[None]:
    """Show a spinner with a word on what is being waited for; on a terminal only, never in a log."""
    from rich.markup import escape

    if not console.is_terminal:
        yield
        return
    with console.status(escape(what)):
        yield
