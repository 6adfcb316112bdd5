"""Killed at any moment, a run goes on and pays for nothing twice."""

from __future__ import annotations

import hashlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from univg.cli.main import main
from univg.construct.ledger import Budget, Ledger, Prices, Usage
from univg.errors import UnivgError
from univg.grounding.samples import read_jsonl

SAMPLES, CHAINS, CONCURRENCY = 16, 3, 4
FILES = ("samples.jsonl", "proposals.jsonl", "left-out.jsonl")


def request_digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked children")
def test_killed_at_many_moments_it_pays_for_nothing_twice(
    own_set: Callable[..., tuple[Path, Path]], teacher_server: Any, tmp_path: Path, lines: Any
) -> None:
    """What a reply brought into the journal before a kill is never asked for again; only what was under way is,
    at most as many requests as go out together. The end is the same as of a run that nobody disturbed."""
    willing = teacher_server.behave

    def behave(handler: Any, number: int) -> bool:
        time.sleep(0.004)
        return bool(willing(handler, number))

    teacher_server.behave = behave
    data, root = own_set(SAMPLES)
    fixed = ["construct", "--data", str(data), "--images", str(root), "--teacher", "openai:served"]
    fixed += ["--base-url", teacher_server.url, "--chains", str(CHAINS), "--concurrency", str(CONCURRENCY)]
    out, calm = tmp_path / "out", tmp_path / "calm"
    program = Path(__file__).with_name("killable.py")
    started = [sys.executable, str(program), *fixed, "--out", str(out)]
    rng, codes, requests = random.Random(5), [], teacher_server.requests
    with subprocess.Popen(started, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as child:
        assert child.stdin is not None and child.stdout is not None and child.stdout.readline() == b"ready\n"
        while 0 not in codes:
            child.stdin.write(b"\n")
            process, goal = int(child.stdout.readline()), len(requests) + rng.randint(2, 5 * CONCURRENCY)
            while len(requests) < goal and not select.select([child.stdout], [], [], 0.001)[0]:
                pass
            if len(requests) >= goal:
                time.sleep(rng.uniform(0, 0.01))
                os.kill(process, signal.SIGKILL)
            codes.append(int(child.stdout.readline()))
            assert codes[-1] in (0, -signal.SIGKILL)
        child.stdin.close()
    killed = len(codes) - 1
    counts = Counter(map(request_digest, requests))
    print(f"killed {killed} times, {sum(counts.values()) - len(counts)} requests lost under way")
    assert killed >= 5 and len(counts) == SAMPLES * 2 * CHAINS
    assert sum(counts.values()) - len(counts) <= killed * CONCURRENCY
    rows = lines(out / "journal.jsonl")
    assert len({row["request"] for row in rows}) == len(rows) == len(counts)
    assert main([*fixed, "--out", str(calm)]) == 0
    assert not list(out.glob(".*.partial"))
    for name in FILES:
        assert [row | {"seconds": 0} for row in lines(out / name)] == [
            row | {"seconds": 0} for row in lines(calm / name)
        ]


def test_ctrl_c_lets_what_is_under_way_come_in(
    own_set: Callable[..., tuple[Path, Path]], teacher_server: Any, tmp_path: Path, lines: Any
) -> None:
    willing, stop = teacher_server.behave, threading.Event()

    def behave(handler: Any, number: int) -> bool:
        if number == 5:
            stop.set()
        time.sleep(0.3 if number >= 2 else 0)
        return bool(willing(handler, number))

    teacher_server.behave = behave
    data, root = own_set(6)
    out = tmp_path / "out"
    arguments = ["construct", "--data", str(data), "--images", str(root), "--teacher", "openai:served"]
    arguments += ["--base-url", teacher_server.url, "--concurrency", "4", "--out", str(out)]
    interrupt = threading.Thread(target=lambda: stop.wait(20) and os.kill(os.getpid(), signal.SIGINT))
    # A process started in the background ignores Ctrl-C until it is told not to.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupt.start()
        assert main(arguments) == 130
        interrupt.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(lines(out / "journal.jsonl")) == len(teacher_server.requests)
    assert not json.loads((out / "manifest.json").read_text())["complete"]
    asked = len(teacher_server.requests)
    teacher_server.behave = willing
    assert main(arguments) == 0
    assert len(teacher_server.requests) == 6 * 6 and asked < 36
    assert len(list(read_jsonl(out / "samples.jsonl"))) == 6


def test_a_torn_last_line_is_asked_for_again(
    own_set: Callable[..., tuple[Path, Path]], teacher_server: Any, tmp_path: Path, capsys: Any
) -> None:
    data, root = own_set(2)
    arguments = ["construct", "--data", str(data), "--images", str(root), "--teacher", "openai:served"]
    arguments += ["--base-url", teacher_server.url, "--judge", "none", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    journal = tmp_path / "out" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    assert main(arguments) == 0 and len(teacher_server.requests) == 7
    content = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([content[0], b"{torn}\n", *content[1:]]))
    assert main(arguments) == 2
    assert "a damaged line: " in capsys.readouterr().err and len(teacher_server.requests) == 7


def test_two_runs_do_not_share_a_folder(tmp_path: Path, capsys: Any) -> None:
    with Ledger(tmp_path):
        assert main(["construct", "--teacher", "world", "--out", str(tmp_path)]) == 2
    assert "another process writes here: " in capsys.readouterr().err


def test_a_ledger_holds_what_it_admits(tmp_path: Path) -> None:
    never = threading.Event()
    with Ledger(tmp_path, Prices(1e6, 1e6), Budget(tokens=100)) as ledger:
        held = ledger.admit(Usage(1, 49, 20), never)
        assert held == Usage(1, 50, 20)
        later: list[Usage | None] = []
        waits = threading.Thread(target=lambda: later.append(ledger.admit(Usage(1, 39, 20), never)))
        waits.start()
        time.sleep(0.1)
        assert not later  # what is under way may come out cheaper
        ledger.release(held)
        waits.join()
        assert later == [Usage(1, 40, 20)] and not ledger.exhausted
        ledger.release(Usage(1, 40, 20))
        assert ledger.admit(Usage(1, 101, 0), never) is None and ledger.exhausted


def test_a_foreign_line_is_told(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text('{"request": "a"}\n')
    with pytest.raises(UnivgError, match="line 1: remove that line"), Ledger(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UnivgError, match=r"cannot write \(not a directory\): .*file"),
        Ledger(tmp_path / "file/out"),
    ):
        pass
