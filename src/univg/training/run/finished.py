"""Write the finished model of a run: weights or adapter, processor, conventions, card."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import Trainer

from univg.data.pushing import HubTarget, push_files
from univg.models import checkpoint
from univg.models.conventions import write_conventions
from univg.models.layout import publish_layout
from univg.models.loading import Loaded, plain_model
from univg.terminal import is_first_process
from univg.training.config import StageConfig
from univg.training.run.card import write_stage_card
from univg.training.run.checkpoints import writing
from univg.training.run.log import LOG
from univg.training.run.quiet import silence_libraries
from univg.training.run.settings import mend_settings
from univg.training.run.validation import Best

__all__ = ["save_weights", "write_model"]


def write_model(
    trainer: Trainer,
    config: StageConfig,
    out: Path,
    loaded: Loaded,
    facts: Mapping[str, Any],
    hub: HubTarget | None,
    console: Console,
    best: Best | None = None,
) -> Path:
    """Write the finished model to `out`: weights (or the adapter), processor, conventions, card; push it to `hub`.
    The card says which step is the `best`.

    Full weights are saved as bf16 if the config says so. Of a model sharded by ZeRO-3 or FSDP every process sends
    its parts to the first one.
    """
    staged = out / ".final"
    as_bf16 = config.lora is None and config.bf16 and config.save_bf16
    with writing("the finished model", out), silence_libraries():
        if is_first_process():
            shutil.rmtree(staged, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()
        save_weights(trainer, staged, as_bf16, config.lora is not None)
        trainer.accelerator.wait_for_everyone()
        if not is_first_process():
            return out
        (staged / "training_args.bin").unlink(missing_ok=True)
        loaded.processor.save_pretrained(staged)
        write_conventions(staged, config.prompt_style, loaded.pixel_budget)
        mend_settings(staged, config.model, "bfloat16" if as_bf16 else None)
        publish_layout(staged)
        write_stage_card(staged, out.name, config, facts, out / LOG, best)
        files = sorted(staged.iterdir(), key=lambda path: (path.suffix == ".safetensors", path.name))
        for file in files:
            os.replace(file, out / file.name)  # the weights last: without them it is no checkpoint
        staged.rmdir()
    if config.lora is not None:
        checkpoint.adapter_folder(out)
    else:
        checkpoint.weight_files(checkpoint.locate(out))
    if hub is not None:
        message = f"{facts['stage']}, {facts['steps']} steps"
        push_files(hub, out, [file.name for file in files], message, "the model is finished", console)
    return out


def save_weights(trainer: Trainer, folder: Path, as_bf16: bool, adapter: bool) -> None:
    """Save a model's weights, or its adapter; every process must come here."""
    zero = trainer.is_deepspeed_enabled and not adapter
    if not (zero or trainer.is_fsdp_enabled):
        if as_bf16:
            plain_model(trainer.model).to(torch.bfloat16)
        trainer.save_model(str(folder))
        return
    engine: Any = trainer.model_wrapped
    if (
        zero and engine.zero_optimization_partition_weights()
    ):  # even where the launch config gathers no checkpoints
        weights = engine._zero3_consolidated_16bit_state_dict()
    else:
        weights = trainer.accelerator.get_state_dict(engine)
    if not trainer.args.should_save:
        return
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    if as_bf16:
        for name, weight in weights.items():
            weights[name] = weight.to(torch.bfloat16)
    model.save_pretrained(folder, state_dict=weights)
