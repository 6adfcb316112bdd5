"""Runs of `univg` on processors, a few steps in one process or several, as each launcher would have them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

PROGRAM = Path(__file__).with_name("sharded_on_cpu.py")
KINDS = ("one", "ddp", "fsdp2", "zero2", "zero3")

COMMON = ["max_steps=2", "workers=0", "bf16=false", "warmup_ratio=0", "save_every=1"]
SFT = ["sft", "--config", "tiny-sft", *COMMON, "batch=4", "micro_batch=2"]
GRPO = ["grpo", "--config", "tiny-grpo", *COMMON, "prompts_per_step=2", "rollouts=4", "micro_batch=4"]
GRPO += ["max_completion_tokens=24", "learning_rate=1e-3", "shared_prefix=on"]
GRPO += ["rewards={iou: 1.0, format: 1.0, letters.vowels_reward: 1.0}"]
LORA = ["lora.r=4", "lora.alpha=8", "lora.dropout=0"]
RUNS = {"sft": SFT, "sft-lora": [*SFT, *LORA], "grpo": GRPO, "grpo-lora": [*GRPO, *LORA]}

# A model that has learnt nothing writes no box: all its rewards would be 0, and its gradients too.
REWARD = """
from univg.training.grpo.rewards import text_of

def vowels_reward(completions, **columns):
    texts = [text_of(each).lower() for each in completions]
    return [sum(letter in "aeiou" for letter in text) / max(1, len(text)) for text in texts]
"""


class Launcher:
    """A process that has loaded all libraries and forks the processes of runs."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def run(self, kind: str, run: list[str], out: Path, processes: int = 2) -> str:
        """Run `univg` to its end in the folder above `out`; return what it wrote on stderr."""
        if kind.startswith("zero") and importlib.util.find_spec("deepspeed") is None:
            pytest.skip("needs deepspeed: pip install 'univg[deepspeed]'")
        (out.parent / "letters.py").write_text(REWARD)
        log, processes = out.with_suffix(".log"), 1 if kind == "one" else processes
        log.unlink(missing_ok=True)
        arguments = [*run, "--out", str(out), *(["trainer.use_cpu=false"] if kind.startswith("zero") else [])]
        job = {"kind": kind, "arguments": arguments, "processes": processes}
        job |= {"cwd": str(out.parent), "log": str(log)}
        assert self._process.stdin and self._process.stdout
        print(json.dumps(job), file=self._process.stdin, flush=True)
        codes = json.loads(self._process.stdout.readline())
        assert codes == [0] * processes, log.read_text()[-3000:]
        return log.read_text()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def read_log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def list_weights(folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the dtype and shape of everything in a folder's one file of weights, by name."""
    (file,) = folder.glob("*.safetensors")
    with safe_open(file, framework="pt") as weights:
        slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118  (no mapping)
        return {name: (str(each.get_dtype()), tuple(each.get_shape())) for name, each in slices.items()}
