"""Arguments of TRL's and transformers' trainers: those that univg decides, and those that a config passes through."""

from __future__ import annotations

import dataclasses
import difflib
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

_OPEN = {
    "logging_steps",
    "report_to",
    "lr_scheduler_type",
    "dataloader_num_workers",
    "use_cpu",
    "ddp_find_unused_parameters",
}
"""Names that univg gives a default and the config's `trainer` may replace."""


def make_arguments(cls: type[A], config: StageConfig, decided: Mapping[str, Any]) -> A:
    """Make a trainer's arguments of what follows from the config, `decided` by the stage, and its `trainer` keys.

    Raises UnivgError for an unknown name (with the nearest), one that univg decides, or a value that TRL refuses.
    """
    known = [field.name for field in dataclasses.fields(cls) if field.init]
    ours = {**_list_shared(config), **decided}
    for name in config.trainer:
        if name in ours and name not in _OPEN:
            cause = f"trainer.{name}: univg decides it, by its own keys"
            raise UnivgError(cause, remedy="leave it out of trainer")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "see the arguments of TRL and transformers"
            raise UnivgError(f"trainer.{name}: {cls.__name__} has no such argument; {hint}")
    try:
        with silence_libraries():
            return cls(**{**ours, **config.trainer})
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
        "disable_tqdm": True,
        "remove_unused_columns": False,
    }
