"""What commands print where no terminal is, on a narrow one, and on one that has few letters."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from univg.terminal import print_rich_table, progress, results

LONG = "a_name_of_a_task_that_is_longer_than_any_column_of_a_narrow_terminal"


def make_table() -> Table:
    table = Table("task", "n", "what", box=None)
    table.add_row(LONG, "1234567890", "words that may be folded between them, but not cut")
    return table


def test_nothing_is_folded_where_no_terminal_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")  # which makes a terminal of a pipe for Rich
    print_rich_table(results(), make_table())
    told = capsys.readouterr().out
    assert LONG in told and "words that may be folded between them, but not cut" in told
    assert len(told.splitlines()) == 2


@pytest.mark.parametrize("width", [20, 80, 110])
def test_a_narrow_terminal_folds_and_cuts_nothing(width: int) -> None:
    file = io.StringIO()
    print_rich_table(Console(file=file, width=width, soft_wrap=True), make_table())
    told = file.getvalue()
    assert "…" not in told and "1234567890" in told
    assert told.count("_") == LONG.count("_"), "a name longer than the line is folded"
    assert not {"words", "folded", "between"} - set(told.split())


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437"])
def test_a_terminal_of_few_letters_stops_nothing(encoding: str, tmp_path: Path) -> None:
    row = '{"text": "<think>\\u2713 \\u56fe</think>", "task": "\\u56fe…·", "answer": [0, 0, 1, 1]}\n'
    (tmp_path / "p.jsonl").write_text(row + "{\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": encoding}
    environment |= {"PYTHONUTF8": "0", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "univg", "score", "p.jsonl", "--legacy"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=120)
    assert done.returncode == 1 and b"not_json" in done.stderr and b"Traceback" not in done.stderr
    assert b"\x1b[3" not in done.stdout, "NO_COLOR asks for none"
    assert "Acc@0.5" in done.stdout.decode(encoding)


def test_long_work_says_where_it_is_in_a_log_too(monkeypatch: pytest.MonkeyPatch) -> None:
    told = io.StringIO()
    for every_s, lines in ((0.0, ["counting: 1 of 3", "counting: 2 of 3", "counting: 3 of 3"]), (3600.0, [])):
        monkeypatch.setattr("univg.terminal._LINE_EVERY_S", every_s)
        told.truncate(0)
        told.seek(0)
        with progress(Console(file=told, soft_wrap=True)) as bar:
            task = bar.add_task("counting", total=3)
            for _ in range(3):
                bar.advance(task)
        assert told.getvalue().split("\n")[:-1] == lines


def test_threads_that_wait_give_way() -> None:
    code = "import univg.cli.main, os; print(os.environ['GOMP_SPINCOUNT'])"
    for given, expected in (({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7")):
        environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"} | given
        told = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        ).stdout
        assert told == f"{expected}\n"
