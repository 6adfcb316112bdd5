"""What the trainers save, vLLM reads: names of the weights, data type, tokenizer; and it answers as univg does.

`slow`, and skipped where there is no vLLM (see `vllm_engine`).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open

from families import save_family
from univg.cli.main import main
from vllm_engine import answer_here, answer_in_vllm, require

STEP = ["max_steps=1", "micro_batch=2", "workers=0", "bf16=false"]
SFT = ["sft", "--config", "tiny-sft", *STEP, "batch=2"]
GRPO = ["grpo", "--config", "tiny-grpo", *STEP, "prompts_per_step=1", "rollouts=2", "max_completion_tokens=8"]


def train(out: Path, *command: str) -> Path:
    assert main([*command, "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_vllm_loads_what_is_trained_and_answers_as_univg(tmp_path: Path) -> None:
    require()
    start = "model=embedded-think"
    adapter = train(tmp_path / "adapter", *SFT, start, "lora={r: 4}", "learning_rate=1e-2")
    merged = tmp_path / "merged"
    assert main(["merge", str(adapter), "--out", str(merged)]) == 0
    family = save_family(tmp_path / "start", "qwen3_vl", tied=False, pixels=(4096, 16384))
    folders = [
        train(tmp_path / "sft", *SFT, start),
        merged,
        train(tmp_path / "grpo", *GRPO, start),
        train(tmp_path / "qwen3", *SFT, f"model={family}"),
    ]
    for folder in folders:
        with safe_open(folder / "model.safetensors", "pt") as weights:
            names = weights.keys()
        assert not [name for name in names if name.startswith("model.model.")]
    assert answer_in_vllm(folders, tmp_path) == [answer_here(folder) for folder in folders]
