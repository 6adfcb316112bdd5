"""Sharded over two processes (ZeRO-3, FSDP2), a run learns what one process learns."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpo_parts as parts
import pytest
import torch
from safetensors.torch import load_file

from univg.models.loading import load
from univg.training.grpo.rollouts import find_forbidden

PROGRAM = Path(__file__).with_name("sharded_on_cpu.py")
LAUNCH = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc_per_node",
    "2",
    str(PROGRAM),
]
RUN = ["max_steps=2", "workers=0", "bf16=false", "warmup_ratio=0"]
GRPO = ["prompts_per_step=2", "rollouts=4", "micro_batch=4", "max_completion_tokens=24", "learning_rate=1e-3"]
STAGES = {"sft": ["batch=4", "micro_batch=2"], "grpo": GRPO}
SAME = ("loss", "grad_norm", "kl", "iou", "entropy", "completions/mean_length")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parts.save_start(tmp_path_factory.mktemp("start") / "tiny")


def test_bans_do_not_depend_on_weights_that_are_elsewhere(start: Path) -> None:
    """Under ZeRO-3 a process holds no row of the embedding; without bans an image token drawn ends the run."""
    loaded = load(start, device="cpu")
    whole = find_forbidden(loaded.model, loaded.processor)
    loaded.model.get_input_embeddings().weight = torch.nn.Parameter(torch.empty(0))
    assert find_forbidden(loaded.model, loaded.processor) == whole
    assert loaded.model.config.image_token_id in whole and len(whole) >= 10


def test_an_empty_model_is_the_model_without_its_numbers(start: Path) -> None:
    whole, empty = load(start, device="cpu"), load(start, device="cpu", empty=True)
    shapes = {name: (value.shape, value.dtype) for name, value in whole.model.state_dict().items()}
    assert {name: (value.shape, value.dtype) for name, value in empty.model.state_dict().items()} == shapes
    for (name, one), (_, other) in zip(whole.model.named_buffers(), empty.model.named_buffers(), strict=True):
        assert torch.equal(one, other), name
    weights = list(empty.model.parameters())
    assert len({weight.data_ptr() for weight in weights}) == len(weights), "accelerate tells them by address"
    assert empty.model.lm_head.weight is empty.model.get_input_embeddings().weight


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", ["zero3", "fsdp2"])
def test_two_processes_that_share_the_weights_learn_what_one_does(
    kind: str, stage: str, start: Path, tmp_path: Path
) -> None:
    """The start model has learnt nothing: every token has its chance, image tokens too, were they not banned."""
    if kind == "zero3" and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("needs deepspeed: pip install 'univg[deepspeed]'")
    run = [stage, "--config", f"tiny-{stage}", f"model={start}", *RUN, *STAGES[stage]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment |= {"ACCELERATE_USE_CPU": "true"} if kind == "fsdp2" else {}
    on_processors = ["trainer.use_cpu=false"] if kind == "zero3" else []
    for out, command in (
        ("one", [sys.executable, "-m", "univg", *run]),
        ("two", [*LAUNCH, kind, *run, *on_processors]),
    ):
        end = subprocess.run(
            [*command, "--out", str(tmp_path / out)],
            capture_output=True,
            text=True,
            env=environment if out == "two" else {**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=600,
        )
        assert end.returncode == 0, end.stderr[-3000:]
    one, two = _read(tmp_path / "one"), _read(tmp_path / "two")
    assert len(one) == len(two) == 2
    for step, (alone, shared) in enumerate(zip(one, two, strict=True)):
        for name in set(SAME) & set(alone):
            # What the first update did differs in the last bits; rollouts of the second step are drawn from it.
            apart = 1e-3 if step else 1e-4
            assert shared[name] == pytest.approx(alone[name], rel=1e-3, abs=apart), (step, name)
    weights = [load(tmp_path / out, device="cpu").model.state_dict() for out in ("one", "two")]
    assert max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0]) < 2e-3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zero3", "fsdp2"])
def test_a_sharded_run_goes_on_from_a_checkpoint_that_holds_the_weights_once(
    kind: str, start: Path, tmp_path: Path
) -> None:
    if kind == "zero3" and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("needs deepspeed: pip install 'univg[deepspeed]'")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run = ["sft", "--config", "tiny-sft", f"model={start}", *RUN, *STAGES["sft"], "save_every=1"]
    # transformers wants a GPU for bf16 where it does not know that it is on a processor.
    run += ["trainer.use_cpu=false"] if kind == "zero3" else ["bf16=true"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment |= {"ACCELERATE_USE_CPU": "true"} if kind == "fsdp2" else {}
    for out in (whole, killed):
        if out == killed:  # as it was after its first checkpoint
            shutil.copytree(whole, killed)
            shutil.rmtree(killed / "checkpoint-2")
            (killed / "model.safetensors").unlink()
        command = [*LAUNCH, kind, *run, "--resume", "--out", str(out)]
        end = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
        assert end.returncode == 0, end.stderr[-3000:]
    assert "resuming from checkpoint-1" in end.stderr and "0.00 M parameters" not in end.stderr
    saved, again = (load_file(out / "model.safetensors") for out in (whole, killed))
    dtype = torch.float32 if kind == "zero3" else torch.bfloat16
    assert {weight.dtype for weight in saved.values()} == {dtype}
    assert all(torch.equal(saved[name], again[name]) for name in saved)
    assert not list(whole.rglob("pytorch_model_fsdp*"))
    assert load(whole / "checkpoint-1", device="cpu").prompt_style == "think"


def _read(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
