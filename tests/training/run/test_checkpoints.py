"""Checkpoints by themselves: whole or not there, and a run that stops at a number that is not finite."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from univg.errors import UnivgError
from univg.training.run.checkpoints import (
    STAGING,
    Checkpoints,
    StopAtNonFinite,
    find_checkpoints,
    find_fault,
    find_last_good,
)


def arguments(out: Path) -> TrainingArguments:
    return TrainingArguments(output_dir=str(out), use_cpu=True, report_to="none")


def test_what_the_block_saves_becomes_a_whole_checkpoint(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    kept = Checkpoints(2, lambda folder: (folder / "univg.json").write_text("{}"))
    for step in (2, 4, 6):
        with kept.write(args, step) as folder:
            assert Path(str(args.output_dir)) == folder.parent == tmp_path / STAGING
            (folder.parent / "README.md").parent.mkdir(exist_ok=True)
            (folder.parent / "README.md").write_text("a trainer's draft")
            folder.mkdir()
            (folder / "weights").write_bytes(bytes(step))
        assert args.output_dir == str(tmp_path)
    assert [folder.name for folder in find_checkpoints(tmp_path)] == ["checkpoint-6", "checkpoint-4"]
    assert find_last_good(tmp_path) == (tmp_path / "checkpoint-6", [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-4", "checkpoint-6"]
    assert (tmp_path / "checkpoint-6" / "univg.json").exists()
    (tmp_path / "checkpoint-6" / "univg.json").write_text("[]")
    assert find_fault(tmp_path / "checkpoint-6") == "univg.json is damaged"


def test_a_block_that_fails_leaves_no_checkpoint(tmp_path: Path) -> None:
    args = arguments(tmp_path)

    def fail() -> None:
        with Checkpoints().write(args, 2) as folder:
            folder.mkdir(parents=True)
            raise OSError(28, "no space left on device")

    with pytest.raises(
        UnivgError, match=r"checkpoint 2 cannot be written \(no space.*no checkpoint is there yet"
    ):
        fail()
    assert args.output_dir == str(tmp_path) and list(tmp_path.iterdir()) == []


def stop(tmp_path: Path) -> tuple[StopAtNonFinite, Any, Any]:
    batch = {"input_ids": torch.tensor([[1, 2]])}
    return (
        StopAtNonFinite(tmp_path, lambda: [batch]),
        SimpleNamespace(process_index=0),
        SimpleNamespace(global_step=4),
    )


def test_a_gradient_that_is_not_finite_stops_before_the_step(tmp_path: Path) -> None:
    callback, args, state = stop(tmp_path)
    model = torch.nn.Linear(2, 1)
    model(torch.ones(1, 2)).sum().backward()
    callback.on_pre_optimizer_step(args, state, None, model=model)
    assert model.weight.grad is not None
    model.weight.grad[0, 1] = torch.inf
    with pytest.raises(
        UnivgError, match=r"step 5: the gradient's norm is inf: .*step-5-process-0\.pt holds the batch"
    ):
        callback.on_pre_optimizer_step(args, state, None, model=model)
    saved = torch.load(tmp_path / "non-finite" / "step-5-process-0.pt", weights_only=True)
    assert saved["step"] == 5 and saved["batches"][0]["input_ids"].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("logs", "said"),
    [
        ({"loss": float("inf")}, "step 4: the loss is inf"),
        ({"loss": 1.0, "grad_norm": float("nan")}, "norm is nan"),
    ],
)
def test_what_only_the_log_shows_stops_as_well(tmp_path: Path, logs: dict[str, float], said: str) -> None:
    callback, args, state = stop(tmp_path)
    callback.on_log(args, state, None, logs={"loss": 1.0, "grad_norm": 2.0})
    callback.on_log(args, state, None, logs={"train_runtime": 1.0})
    with pytest.raises(UnivgError, match=said):
        callback.on_log(args, state, None, logs=logs)
