"""A run's log: a row each step, and the samples that were shrunk or left out."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from transformers import TrainerCallback

from univg.files import write_whole
from univg.terminal import progress
from univg.training.run.checkpoints import writing

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "LEFT_OUT",
    "LOG",
    "Pace",
    "RunLog",
    "append_rows",
    "drop_rows_after",
    "log_left_out",
    "read_rows",
    "sum_up_left_out",
]

LOG, LEFT_OUT = "log.jsonl", "left-out.jsonl"
LEFT_OUT_MARK = ": left out: "
"""What stands in the note on a sample that was left out, and not in one on a sample that was shrunk."""
FIRST_STEPS = (1, 2, 5, 10)
"""After these a run whose bar nobody sees says how far it is, and then every so often."""
QUIET_S = 20
"""Seconds without a line after which it does again, and later a thirtieth of the time that it has run."""
_SHOWN_BYTES = 1000
"""Notes on samples are shown until their file has this size: a few show the kind, thousands bury the run."""


class Pace:
    """How long a run's steps take, and how long it still does; begins when it is made."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._seconds: deque[float] = deque(maxlen=20)
        self._began = self._said = time.perf_counter()
        self._pause_s, self._pause_every = 0.0, 0

    def add(self, seconds: float) -> None:
        """Note how long a step took."""
        if len(self._seconds) == 1 and seconds < self._seconds[0]:
            self._seconds.clear()  # the first step warms up
        self._seconds.append(seconds)

    def add_pause(self, seconds: float, every: int) -> None:
        """Note how long what happens every so many steps took beside them."""
        self._pause_s, self._pause_every = seconds, every

    def describe(self, step: int) -> str:
        """Say what a step takes, and what the rest will.

        >>> pace = Pace(400)
        >>> pace.add(0.9)
        >>> pace.describe(10), pace.describe(400)
        ('0.9 s/step · about 6 min left', '0.9 s/step')
        """
        if not self._seconds:
            return ""
        each = sum(self._seconds) / len(self._seconds)
        left = (self.total - step) * each
        if self._pause_every:
            left += self._pause_s * (-(-self.total // self._pause_every) - step // self._pause_every)
        digits = 2 if each < 0.1 else 1 if each < 10 else 0
        return f"{each:.{digits}f} s/step" + (f" · about {_say_time(left)} left" if step < self.total else "")

    def is_due(self, step: int) -> bool:
        """Tell whether a line is due where nobody sees a bar; it is then taken to be written."""
        now = time.perf_counter()
        quiet = max(QUIET_S, (now - self._began) / 30)
        due = step in FIRST_STEPS or step == self.total or now - self._said > quiet
        self._said = now if due else self._said
        return due


def _say_time(seconds: float) -> str:
    """Say a time in one unit.

    >>> _say_time(40.2), _say_time(372), _say_time(11_000)
    ('40 s', '6 min', '3.1 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Listeners(Protocol):
    """Who is told each row of a log (:class:`univg.training.run.trackers.Trackers`)."""

    def follow(self, trainer: Any) -> None: ...

    def write(self, row: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class RunLog(TrainerCallback):
    """Write a row of `log.jsonl` each step, and to the `trackers`; show a progress bar with the numbers in `shown`."""

    def __init__(
        self,
        out: Path,
        title: str,
        console: Console,
        shown: Sequence[str] = ("loss",),
        trackers: Listeners | None = None,
    ) -> None:
        self.trackers = trackers
        self.path, self.title, self.console, self.shown = out / LOG, title, console, shown
        self._bar = progress(console, times=False, note=True)
        self._task: Any = None
        self._at = time.perf_counter()
        self._pace = Pace(0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._at, self._pace = time.perf_counter(), Pace(state.max_steps)
        if state.is_world_process_zero:
            with writing("the log", self.path.parent):
                for path in (self.path, self.path.with_name(LEFT_OUT)):
                    drop_rows_after(path, state.global_step)
            self._task = self._bar.add_task(
                self.title, total=state.max_steps, completed=state.global_step, note=""
            )
            self._bar.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if self._task is None or not logs or "train_runtime" in logs:
            return
        row = {"step": state.global_step, **{name: v for name, v in logs.items() if name != "epoch"}}
        is_step = "loss" in logs  # and not what was found between two steps
        if is_step:
            now = time.perf_counter()
            row["seconds"] = round((now - self._at) / max(1, int(args.logging_steps)), 4)
            self._at = now
            self._pace.add(row["seconds"])
        row = {name: _plain_number(value) for name, value in row.items()}
        with writing("the log", self.path.parent):
            append_rows(self.path, [row])
        if self.trackers:
            self.trackers.write(row)
        if not is_step:
            return
        numbers = [f"{name} {row[name]:.3g}" for name in self.shown if row.get(name) is not None]
        note = " · ".join([*numbers, self._pace.describe(state.global_step)])
        self._bar.update(self._task, completed=state.global_step, note=note)
        if not self.console.is_terminal and self._pace.is_due(state.global_step):
            self.console.print(f"step {state.global_step}/{state.max_steps} · {note}")

    def show(self, note: str) -> None:
        """Show a note behind the bar until the next step's."""
        if self._task is not None:
            self._bar.update(self._task, note=note)

    def leave_out(self, seconds: float, every: int) -> None:
        """Leave out of a step's time what was done beside it, every so many steps."""
        self._at += seconds
        self._pace.add_pause(seconds, every)

    def close(self) -> None:
        """Take the bar away, and end what is told to trackers, however the run ended."""
        self._bar.stop()
        if self.trackers:
            self.trackers.close()


def append_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append JSON lines to a log; a number that is not finite is written as it is."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a log's whole rows; none where there is no log. A torn last line is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split(
        "\n"
    )  # a note may hold what splitlines takes for line ends
    return [json.loads(line) for line in lines if line.endswith("}")]


def drop_rows_after(path: Path, step: int) -> None:
    """Drop the rows of steps that a resumed run takes again, and a torn last one."""
    if path.exists():
        kept = [row for row in read_rows(path) if row["step"] <= step]
        write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))


def log_left_out(out: Path, step: int, notes: Sequence[str], console: Console) -> None:
    """Log samples that were shrunk or left out, by id; the first few are shown as well."""
    path = out / LEFT_OUT
    before = path.stat().st_size if path.exists() else 0
    with writing("the log", out):
        append_rows(path, [{"step": step, "note": note} for note in notes])
    if before < _SHOWN_BYTES:
        for note in notes:
            console.print(f"step {step}: {note}")


def sum_up_left_out(out: Path, samples: int, console: Console) -> None:
    """Say of the `samples` of a finished run how many were shrunk or left out, if any was."""
    notes = [row["note"] for row in read_rows(out / LEFT_OUT)]
    left_out = sum(LEFT_OUT_MARK in note for note in notes)
    if notes:
        console.print(
            f"of {samples} samples drawn, {left_out} left out for the next one, {len(notes) - left_out} with pictures "
            f"shrunk: see {out / LEFT_OUT}"
        )


def _plain_number(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
