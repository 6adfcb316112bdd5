"""Arguments of TRL's and transformers' trainers: those that univg decides, and those that a config passes through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from transformers import TrainingArguments

from univg.errors import UnivgError
from univg.training.config import StageConfig
from univg.training.run.precision import computes_in_bf16
from univg.training.run.quiet import silence_libraries

__all__ = ["make_arguments"]

A = TypeVar("A", bound=TrainingArguments)

_GPU_ALONE = (
    "fp16",
    "tf32",
    "torch_compile",
    "activation_offloading",
    "use_liger_kernel",
    "torch_empty_cache_steps",
)


def make_arguments(cls: type[A], config: StageConfig, decided: Mapping[str, Any]) -> A:
    """Make a trainer's arguments of what follows from the config, `decided` by the stage, and its `trainer` keys.

    Raises UnivgError for a value that TRL refuses, or that has no effect without a GPU.
    """
    asked = {**_list_shared(config), **decided, **config.trainer}
    for name in _GPU_ALONE:
        if asked["use_cpu"] and config.trainer.get(name):
            raise UnivgError(f"trainer.{name}: does nothing without a GPU", remedy="leave it out")
    try:
        with silence_libraries():
            return cls(**asked)
    except (ValueError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise UnivgError(f"trainer: {cls.__name__} refuses its arguments: {reason}") from error


def _list_shared(config: StageConfig) -> dict[str, Any]:
    return {
        "use_cpu": not torch.cuda.is_available() and not torch.backends.mps.is_available(),
        "seed": config.seed,
        "learning_rate": config.learning_rate,
        "warmup_steps": config.warmup_ratio
        if config.warmup_ratio < 1
        else 0.999,  # from 1 on, it counts steps
        "bf16": computes_in_bf16(config.bf16),
        "gradient_checkpointing": config.gradient_checkpointing,
        "max_steps": 1,  # set once the data has been read
        "save_strategy": "steps",
        "save_steps": config.save_every,
        "save_total_limit": None,  # univg.training.run.checkpoints keeps count
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # what is not finite must show: univg.training.run.checkpoints stops there
        "report_to": "none",
        "project": "univg",
        "disable_tqdm": True,
        "remove_unused_columns": False,
    }
