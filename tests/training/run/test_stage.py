"""The plan of a run: what is printed before the first step."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import torch
from rich.console import Console

from univg.training.run.stage import print_plan


def test_parameters_that_zero3_has_scattered_are_counted() -> None:
    """DeepSpeed leaves an empty tensor in each process, and the number of all its parts beside it."""
    model = torch.nn.Linear(1000, 2000)
    for weight in model.parameters():
        vars(weight)["ds_numel"] = weight.numel()
        weight.data = torch.empty(0, dtype=torch.bfloat16)
    args = SimpleNamespace(world_size=8, device=torch.device("cpu"), bf16=True)
    trainer: Any = SimpleNamespace(args=args, model=model)
    said = io.StringIO()
    print_plan(trainer, 5, [], Console(file=said, width=200))
    assert "2.00 M parameters, 2.00 M of them trained; 5 steps on 8 process(es)" in said.getvalue()
