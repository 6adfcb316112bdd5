"""A run's log: a row a step, none twice after a resume, and notes that do not bury the run."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from univg.errors import UnivgError
from univg.training.run.log import (
    LEFT_OUT,
    Pace,
    RunLog,
    append_rows,
    drop_rows_after,
    log_left_out,
    read_rows,
)


def state(step: int) -> Any:
    return SimpleNamespace(global_step=step, max_steps=4, is_world_process_zero=True)


def test_a_step_is_a_row_and_the_bar_shows_its_numbers(tmp_path: Path) -> None:
    shown = io.StringIO()
    log = RunLog(tmp_path, "sft", Console(file=shown, force_terminal=True, width=120), ("loss",))
    args = SimpleNamespace(logging_steps=1)
    append_rows(log.path, [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 9.0}])
    append_rows(tmp_path / LEFT_OUT, [{"step": 1, "note": "a\u2028b"}, {"step": 2, "note": "drawn again"}])
    log.on_train_begin(args, state(1), None)
    log.on_log(args, state(2), None, logs={"loss": 2.5, "epoch": 0.1})
    log.on_log(args, state(2), None, logs={"train_runtime": 1.0})
    log.close()
    assert [row["note"] for row in read_rows(tmp_path / LEFT_OUT)] == ["a\u2028b"]
    rows = read_rows(log.path)
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 3.0), (2, 2.5)]
    assert set(rows[1]) == {"step", "loss", "seconds"}
    assert "loss 2.5" in shown.getvalue() and "2/4" in shown.getvalue()


def test_without_a_terminal_lines_say_how_far_it_is_and_how_long_it_takes(tmp_path: Path) -> None:
    shown = io.StringIO()
    log = RunLog(tmp_path, "sft", Console(file=shown, width=120), ("loss",))
    args, run = SimpleNamespace(logging_steps=1), SimpleNamespace(max_steps=1000, is_world_process_zero=True)
    run.global_step = 0
    log.on_train_begin(args, run, None)
    for step in range(1, 41):
        run.global_step = step
        log.on_log(args, run, None, logs={"loss": 2.5})
    log.close()
    lines = shown.getvalue().splitlines()
    assert [line.partition(" · ")[0] for line in lines[:4]] == [f"step {n}/1000" for n in (1, 2, 5, 10)]
    assert len(lines) < 10, "later ones come by the clock"
    for line in lines:
        assert re.fullmatch(r"step \d+/1000 · loss 2\.5 · [\d.]+ s/step · about [\d.]+ (s|min|h) left", line)


def test_time_left_counts_the_validations_that_are_to_come() -> None:
    pace = Pace(100)
    pace.add(1.0)
    assert pace.describe(40) == "1.0 s/step · about 60 s left"
    pace.add_pause(60.0, every=25)  # after steps 50, 75, 100
    assert pace.describe(40) == "1.0 s/step · about 4 min left"


def test_a_full_disk_is_one_line(tmp_path: Path, full_disk: Any) -> None:
    log = RunLog(tmp_path, "sft", Console(quiet=True))
    log.on_train_begin(SimpleNamespace(logging_steps=1), state(0), None)
    with full_disk(0), pytest.raises(UnivgError, match=r"the log cannot be written .*make room"):
        log.on_log(SimpleNamespace(logging_steps=1), state(1), None, logs={"loss": 2.5})
    log.close()
    append_rows(log.path, [{"step": 1, "loss": 3.0}])
    with full_disk(0), pytest.raises(UnivgError, match=r"the log cannot be written"):
        log.on_train_begin(SimpleNamespace(logging_steps=1), state(1), None)


def test_rows_of_later_steps_and_a_torn_one_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    drop_rows_after(path, 2)
    assert not path.exists() and read_rows(path) == []
    append_rows(path, [{"step": step, "loss": 0.1} for step in (1, 2, 3)])
    with path.open("a") as file:
        file.write('{"step": 4, "lo')
    drop_rows_after(path, 2)
    assert path.read_text() == '{"step": 1, "loss": 0.1}\n{"step": 2, "loss": 0.1}\n'


def test_all_that_is_left_out_is_logged_and_the_first_is_shown(tmp_path: Path) -> None:
    shown = io.StringIO()
    console = Console(file=shown, width=200)
    for step in range(1, 30):
        log_left_out(tmp_path, step, [f"sample {step}: left out: no such file"], console)
    assert len(read_rows(tmp_path / LEFT_OUT)) == 29
    assert "step 1: sample 1: left out" in shown.getvalue() and "step 29" not in shown.getvalue()
