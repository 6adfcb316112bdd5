"""Checkpoints by themselves: whole or not there, and a run that stops at a number that is not finite."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import TrainingArguments

from univg.errors import UnivgError
from univg.models.loading import load
from univg.training.run.checkpoints import (
    STAGING,
    Checkpoints,
    StopAtNonFinite,
    find_checkpoints,
    find_fault,
    find_last_good,
    load_whole_model,
    seal,
    writing,
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


def test_a_byte_that_changes_anywhere_in_a_large_file_is_found(tmp_path: Path) -> None:
    content = bytes(range(256)) * (20 << 10)  # 5 MB
    (tmp_path / "optimizer.pt").write_bytes(content)
    (tmp_path / "empty").touch()
    seal(tmp_path)
    assert find_fault(tmp_path) is None
    middle = len(content) // 2
    changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    (tmp_path / "optimizer.pt").write_bytes(changed)
    assert find_fault(tmp_path) == "optimizer.pt is damaged"
    assert find_fault(tmp_path, contents=False) is None


def test_a_seal_of_an_older_version_is_read(tmp_path: Path) -> None:
    """Its digests, of 32 digits, cover the first and the last megabyte."""
    content = bytes(range(256)) * (12 << 10)  # 3 MB
    ends = content[: 1 << 20] + content[-(1 << 20) :]
    listed = {"optimizer.pt": [len(content), hashlib.sha256(ends).hexdigest()[:32]]}
    (tmp_path / "whole.json").write_text(json.dumps(listed))
    (tmp_path / "optimizer.pt").write_bytes(content)
    assert find_fault(tmp_path) is None
    (tmp_path / "optimizer.pt").write_bytes(b"x" + content[1:])
    assert find_fault(tmp_path) == "optimizer.pt is damaged"


@pytest.mark.parametrize(("numbers", "limit"), [(10, 0), (10, 200), (100_000, 100), (100_000, 200_000)])
def test_a_disk_that_is_full_inside_torch_save_is_one_line(
    tmp_path: Path, full_disk: Any, numbers: int, limit: int
) -> None:
    """It raises a RuntimeError that speaks of positions in a container, or of an iostream."""
    with full_disk(limit), pytest.raises(UnivgError) as error, writing("the state", tmp_path):
        torch.save({str(i): torch.zeros(numbers // 10) for i in range(10)}, tmp_path / "state.pt")
    assert "the state cannot be written (" in str(error.value) and "make room" in str(error.value)
    assert "enforce" not in str(error.value) and "\n" not in str(error.value)


def test_weights_that_fsdp_saves_a_second_time_are_left_out(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    for step, kept in ((2, "model.safetensors"), (4, "adapter_model.safetensors")):
        with Checkpoints().write(args, step) as folder:
            folder.mkdir(parents=True)
            for name in (kept, "pytorch_model_fsdp.bin"):
                (folder / name).write_bytes(b"weights")
    names = [{path.name for path in folder.iterdir()} for folder in find_checkpoints(tmp_path)]
    assert names == [
        {
            "adapter_model.safetensors",
            "pytorch_model_fsdp.bin",
            "whole.json",
        },  # it is resumed from the second
        {"model.safetensors", "whole.json"},
    ]


def test_a_model_sharded_by_fsdp2_reads_the_weights_that_all_read(start: Path) -> None:
    model = load(start).model
    wanted = {name: weight.clone() for name, weight in model.state_dict().items()}
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        for layer in model.model.language_model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        with torch.no_grad():
            for weight in model.parameters():
                weight.zero_()
        assert load_whole_model(model, start)
        read = {name: weight.full_tensor() for name, weight in model.state_dict().items()}
    finally:
        dist.destroy_process_group()
    assert read.keys() == wanted.keys()
    assert all(torch.equal(read[name], wanted[name]) for name in wanted)


def stop(tmp_path: Path) -> tuple[StopAtNonFinite, Any, Any]:
    batch = {"input_ids": torch.tensor([[1, 2]])}
    return (
        StopAtNonFinite(tmp_path, lambda: [batch]),
        SimpleNamespace(process_index=0),
        SimpleNamespace(global_step=4),
    )


def test_a_gradient_that_is_not_finite_stops_before_the_step(tmp_path: Path, full_disk: Any) -> None:
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
    with full_disk(100), pytest.raises(UnivgError, match=r"the batch cannot be written .*make room"):
        callback.on_pre_optimizer_step(args, state, None, model=model)


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
