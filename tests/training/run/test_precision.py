"""bf16 is computed only where the device has it, and the plan says which."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from univg.training.run.precision import describe_precision

TINY = ["max_steps=1", "batch=2", "micro_batch=2", "workers=0", "data.0.image_px=60"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the processor does not decide where there is a GPU")
def test_a_processor_without_bf16_computes_in_float32_and_says_so(tmp_path: Path) -> None:
    """oneDNN is told to do without its newer instructions: what it then says of bf16 decides, and training goes on."""
    command = [
        sys.executable,
        "-m",
        "univg",
        "sft",
        "--config",
        "tiny-sft",
        "--out",
        str(tmp_path / "run"),
        *TINY,
    ]
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    said = " ".join(ended.stderr.split())
    assert "computes in float32: bf16 was asked for" in said
    assert '"precision": "float32"' in (tmp_path / "run" / "run.json").read_text()


def test_float32_that_was_asked_for_needs_no_reason() -> None:
    assert describe_precision(False) == "computes in float32 (bf16: false)"
