"""Let each process hold all weights for a while, where they are divided between processes: each then answers alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.distributed.fsdp import FSDPModule
from trl.models.utils import unwrap_model_for_generation

__all__ = ["holding_whole_weights"]


@contextmanager
def holding_whole_weights(trainer: Any) -> Iterator[None]:
    """While this is open, a forward pass of `trainer.model` needs no other process; every process must come here.

    Takes the memory of all weights, in the type that they are computed in, beside each process's part. Nothing is
    changed where weights are not divided (DDP, ZeRO-2).
    """
    model: Any = trainer.model
    if isinstance(trainer.model, FSDPModule):
        parts: list[Any] = [module for module in model.modules() if isinstance(module, FSDPModule)]
        divides_again = trainer.accelerator.state.fsdp_plugin.reshard_after_forward
        model.set_reshard_after_forward(False)
        for part in parts:
            part.unshard()
        try:
            yield
        finally:
            for part in parts:
                part.reshard()
            if divides_again:  # the outermost part never does: it is needed again at once
                model.set_reshard_after_forward(True)
                model.set_reshard_after_forward(False, recurse=False)
    elif trainer.is_deepspeed_enabled:
        kept = trainer.args.gradient_checkpointing_kwargs
        with unwrap_model_for_generation(
            trainer.model_wrapped, trainer.accelerator, gradient_checkpointing_kwargs=kept
        ):
            yield
    else:
        yield
