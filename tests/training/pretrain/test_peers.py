"""Base training in two processes learns what one learns, and goes on in any number of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from launching import Launcher, read_log

from univg.config import save_config
from univg.errors import UnivgError
from univg.training.config import Phase, PretrainConfig
from univg.training.pretrain.stage import pretrain
from univg.training.run.launch import LOCK

PHASE = Phase(name="one", steps=2, mixture={"referring/describe": 1.0, "diff/think": 1.0})
# The heads' losses are means over a micro-batch's tokens: of one sample each, they are the same however it is divided.
CONFIG = PretrainConfig(
    phases=(PHASE,),
    batch=5,
    micro_batch=1,
    image_px=60,
    dense_layer=1,
    box_layer=2,
    warmup=0,
    workers=0,
    bf16=False,
    save_every=1,
    eval_every=1,
    eval_samples=1,
    card_samples=0,
)

Run = Callable[..., Path]


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    launcher = Launcher()
    yield launcher
    launcher.close()


@pytest.fixture
def run(launcher: Launcher, start: Path, tmp_path: Path) -> Run:
    """Return the folder of a run of so many steps by its launcher."""

    def begin(kind: str, name: str, steps: int = 2, **changes: Any) -> Path:
        file, phase = tmp_path / f"{name}.yaml", PHASE.model_copy(update={"steps": steps})
        save_config(CONFIG.model_copy(update={"start": str(start), "phases": (phase,), **changes}), file)
        resume = ["--resume"] if (tmp_path / name).exists() else []
        launcher.run(kind, ["pretrain", "--config", str(file), *resume], tmp_path / name)
        return tmp_path / name

    return begin


def check_same(out: Path, other: Path) -> None:
    for row, expected in zip(read_log(out), read_log(other), strict=True):
        numbers = {name: value for name, value in expected.items() if name not in ("seconds", "phase")}
        assert {name: row[name] for name in numbers} == pytest.approx(numbers, rel=1e-4, abs=1e-6)
    states = [torch.load(folder / "state.pt", weights_only=True) for folder in (out, other)]
    # Muon steps in bfloat16, which makes more of sums that round differently; what it steps from agrees closely.
    moments, weights = ([pick(state) for state in states] for pick in (list_moments, list_weights))
    for (found, expected), bound in ((moments, 1e-3), (weights, 1e-2)):
        for one, another in zip(found, expected, strict=True):
            assert (one - another).norm() <= bound * another.norm() + 1e-9


def list_moments(state: dict[str, Any]) -> list[torch.Tensor]:
    """Return the running means of all gradients, and of AdamW's squares."""
    states = [state for optimizer in state["optimizers"] for state in optimizer["state"].values()]
    return [value for each in states for value in each.values()]


def list_weights(state: dict[str, Any]) -> list[torch.Tensor]:
    return [*state["model"].values(), *state["head"].values()]


def test_two_processes_learn_what_one_learns(run: Run) -> None:
    two = run("ddp", "two")
    said = two.with_suffix(".log").read_text()
    assert said.count("2 processes") == said.count("checkpoint: ") == 1
    check_same(two, run("one", "one"))


def test_a_run_goes_on_in_another_number_of_processes(run: Run) -> None:
    outs = []
    for before, after in (("one", "ddp"), ("ddp", "one")):
        out = run(before, before, steps=1)
        state = torch.load(out / "state.pt", weights_only=True)
        state["config"]["phases"][0]["steps"] = 2
        torch.save(state, out / "state.pt")
        outs.append(run(after, before))
    check_same(*outs)


def test_two_processes_end_at_the_same_step_when_their_time_is_up(run: Run) -> None:
    """Else the one that takes a step more waits for the other's gradients."""
    out = run("ddp", "timed", steps=10**6, max_minutes=0.03, eval_every=0, save_every=10**6)
    assert 0 < len(read_log(out)) < 1000


def test_a_folder_takes_one_run_at_a_time(tmp_path: Path) -> None:
    with FileLock(tmp_path / LOCK), pytest.raises(UnivgError, match="another run is writing here"):
        pretrain(CONFIG, tmp_path)
    assert not (tmp_path / "pretrain.yaml").exists()


def test_a_batch_has_a_sample_for_each_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "WORLD_SIZE": "8",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "localhost",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UnivgError, match="batch=5: 8 processes cannot divide it"):
        pretrain(CONFIG, tmp_path)
