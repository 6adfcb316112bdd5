"""One of two processes that torchrun started is killed, or fails: both end, and a line says how to go on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launching import RUNS, Launcher, read_log
from safetensors.torch import load_file

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
LONG = ["max_steps=40", "save_every=4"]
FAULTY = """
import os

def faulty_reward(completions, trainer_state, **columns):
    # Before the first step it is tried, without a state.
    if os.environ["RANK"] == "1" and trainer_state is not None and trainer_state.global_step == 1:
        raise ValueError("no luck")
    return [float(index) for index, _ in enumerate(completions)]
"""


def _begin(folder: Path, run: list[str]) -> subprocess.Popen[str]:
    command = [*TORCHRUN, "-m", "univg", *run, "--out", "out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "stderr").open("w") as stderr:
        return subprocess.Popen(command, cwd=folder, env=environment, stderr=stderr, text=True)


def _find_process(launcher: int, rank: int) -> int:
    """Return the id of a launcher's process by its rank."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = re.search(r"^PPid:\s*(\d+)", (folder / "status").read_text(), re.M)
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if parent and int(parent[1]) == launcher and f"RANK={rank}".encode() in environment:
            return int(folder.name)
    raise AssertionError(f"no process {rank}")


def _errors(folder: Path) -> list[str]:
    return [line for line in (folder / "stderr").read_text().splitlines() if line.startswith("error: ")]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="processes are found in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_where_one_process_is_killed_the_other_says_how_to_go_on(
    rank: int, scaled: Path, tmp_path: Path
) -> None:
    """Killed in two processes, it goes on in one (of rank 1) or two, and ends as a run of one process does."""
    run = [*RUNS["sft"], f"model={scaled}", *LONG]
    begun = _begin(tmp_path, run)
    try:
        until = time.monotonic() + 600
        while not (tmp_path / "out" / "checkpoint-4").exists():
            assert begun.poll() is None and time.monotonic() < until, (tmp_path / "stderr").read_text()[
                -3000:
            ]
            time.sleep(0.05)
        os.kill(_find_process(begun.pid, rank), signal.SIGKILL)
        assert begun.wait(timeout=900) == 1
    finally:
        begun.terminate()
    (error,) = _errors(tmp_path)
    assert re.search(
        r"another process of the run has died.*: continue with --resume from checkpoint-\d+$", error
    )
    launcher = Launcher()
    try:
        told = launcher.run("one" if rank else "ddp", [*run, "--resume"], tmp_path / "out")
        launcher.run("one", run, tmp_path / "whole")
    finally:
        launcher.close()
    assert "resuming from checkpoint-" in told
    assert ("began with 2 process(es), not 1: the samples are the same" in told) == bool(rank)
    one, two = read_log(tmp_path / "whole"), read_log(tmp_path / "out")
    assert [row["step"] for row in two] == list(range(1, 41))
    for each, other in zip(one, two, strict=True):
        assert other["loss"] == pytest.approx(each["loss"], rel=1e-3), each["step"]
    weights = [load_file(tmp_path / out / "model.safetensors") for out in ("whole", "out")]
    assert max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0]) < 1e-3


@pytest.mark.slow
def test_where_the_second_process_fails_the_first_does_not_wait(scaled: Path, tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    run = [*RUNS["grpo"][:-1], "rewards={faulty.faulty_reward: 1.0}", f"model={scaled}"]
    begun = _begin(tmp_path, run)
    try:
        assert begun.wait(timeout=900) == 1
    finally:
        begun.terminate()
    own, other = _errors(tmp_path)
    assert re.fullmatch(r"error: process 1: .*no luck.*", own)
    assert re.search(r"process of the run has died .*: continue with --resume from checkpoint-1$", other)
