"""What can go wrong beside a run's own steps: other runs, changed functions, rewards that fail, memory, an adapter."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runs import QUIET
from univg.config import load_config
from univg.errors import UnivgError
from univg.training.config import GrpoConfig, SftConfig
from univg.training.grpo.rewards import Reward, watch_reward
from univg.training.grpo.stage import train_grpo
from univg.training.run.start import load_start
from univg.training.sft.stage import train_sft

SFT = ["batch=4", "micro_batch=2", "save_every=1", "workers=0", "bf16=false", "data.0.image_px=60"]
GRPO = ["prompts_per_step=1", "rollouts=2", "micro_batch=2", "max_completion_tokens=4", *SFT[2:]]


def sft(start: Path, *settings: str) -> SftConfig:
    return load_config(SftConfig, overrides=[f"model={start}", "max_steps=2", *SFT, *settings])


def test_a_second_run_in_a_folder_is_refused_while_the_first_is_there(start: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = [f"model={start}", "max_steps=100000", *SFT, "save_every=100000"]
    command = [sys.executable, "-m", "univg", "sft", "--config", "tiny-sft", "--out", str(out), *settings]
    first = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    try:
        while not (out / "log.jsonl").exists():
            assert first.poll() is None
            time.sleep(0.05)
        with pytest.raises(UnivgError, match="another run is writing here"):
            train_sft(sft(start), out, resume=True, console=QUIET)
    finally:
        first.kill()
        first.wait()
    train_sft(sft(start), out, resume=True, console=QUIET)  # nothing is left of the lock


def test_a_run_may_go_on_with_smaller_micro_batches(start: Path, tmp_path: Path) -> None:
    """As the message on memory says; but not between two updates on the same rollouts."""
    train_sft(sft(start, "max_steps=1"), tmp_path, console=QUIET)
    with pytest.raises(UnivgError, match="max_steps"):
        train_sft(sft(start, "micro_batch=1"), tmp_path, resume=True, console=QUIET)
    train_sft(sft(start, "max_steps=1", "micro_batch=1"), tmp_path, resume=True, console=QUIET)
    twice = [f"model={start}", "max_steps=2", "iterations=2", *GRPO]
    train_grpo(load_config(GrpoConfig, overrides=twice), tmp_path / "grpo", console=QUIET)
    smaller = load_config(GrpoConfig, overrides=[*twice, "micro_batch=1"])
    with pytest.raises(UnivgError, match="micro_batch"):
        train_grpo(smaller, tmp_path / "grpo", resume=True, console=QUIET)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            lambda n: {}["oops"],
            r"reward 'mine' fails in step 3 \(KeyError: 'oops'\): .*test_stage_faults.py:\d+",
        ),
        (lambda n: [0.5], "gives 1 values for 2 rollouts in step 3"),
        (lambda n: [0.5, float("nan")], "gives .*nan.* in step 3: return finite numbers, or None"),
        (lambda n: "half", "return a list of 2 numbers"),
        (lambda n: [0.5, "much"], "return numbers, or None"),
        (lambda n: [0.5, None], ""),
    ],
)
def test_a_reward_that_fails_in_training_is_named(given: Any, said: str) -> None:
    def mine(completions: Any, **columns: Any) -> Any:
        return given(len(completions))

    watched = watch_reward(Reward("mine", mine, 1.0))
    assert watched.__name__ == "mine"  # TRL logs it by this
    state = SimpleNamespace(global_step=2)
    if not said:
        assert watched(completions=["a", "b"], trainer_state=state) == [0.5, None]
        return
    with pytest.raises(UnivgError, match=said):
        watched(completions=["a", "b"], trainer_state=state)


def test_a_reward_that_has_changed_is_not_resumed_with(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "changing_rewards.py"
    file.write_text("def half(completions, **columns):\n    return [0.5 for _ in completions]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = [f"model={start}", "max_steps=1", *GRPO, "rewards={iou: 1.0, changing_rewards.half: 1.0}"]
    config = load_config(GrpoConfig, overrides=settings)
    train_grpo(config, tmp_path / "run", console=QUIET)
    train_grpo(config, tmp_path / "run", resume=True, console=QUIET)
    file.write_text(file.read_text().replace("0.5", "0.9"))
    with pytest.raises(
        UnivgError, match=r"the file of changing_rewards\.half is not what the run began with"
    ):
        train_grpo(config, tmp_path / "run", resume=True, console=QUIET)


def test_all_weights_of_an_adapter_and_its_base_are_trained(start: Path, tmp_path: Path) -> None:
    train_sft(sft(start, "lora.r=2", "max_steps=1"), tmp_path, console=QUIET)
    model = load_start(sft(tmp_path)).model
    assert all(weight.requires_grad for weight in model.model.language_model.parameters())
    assert not any(weight.requires_grad for weight in model.model.visual.parameters())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process's memory are Linux's")
def test_memory_that_runs_out_is_one_line(start: Path, tmp_path: Path) -> None:
    settings = (
        f"model={start} batch=4000 micro_batch=4000 max_steps=1 workers=0 bf16=false check_memory=false"
    )
    run = f"{sys.executable} -m univg sft --config tiny-sft --out {tmp_path / 'run'} {settings}"
    command = f"ulimit -v 6000000; exec {run}"
    ended = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert ended.returncode == 2 and "memory ran out in step 1" in ended.stderr
    assert "lower micro_batch" in ended.stderr and "unexpected" not in ended.stderr
