"""One step of base training: the losses of a batch, their gradients, the weights' new values.

Nothing here waits for the device: what a step tells of itself stays there until somebody reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2VLForConditionalGeneration

from univg.models.processor import GroundingProcessor
from univg.training.config import PretrainConfig
from univg.training.pretrain.batches import Clock, MicroBatch, phase_at
from univg.training.pretrain.packed import encode_packed, norm_last, take
from univg.training.pretrain.peers import ALONE, Peers

__all__ = ["Run", "rate_at", "read_numbers", "update"]


@dataclass
class Run:
    """Everything that changes while training."""

    config: PretrainConfig
    model: Qwen2VLForConditionalGeneration
    processor: GroundingProcessor
    head: nn.ModuleDict  # auxiliary heads, "dense" and "box"; dropped at the end
    optimizers: list[torch.optim.Optimizer]
    clock: Clock
    step: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)
    bf16: bool = False
    peers: Peers = ALONE

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def weights(self) -> list[nn.Parameter]:
        return [*self.model.parameters(), *self.head.parameters()]

    @property
    def steps(self) -> int:
        return self.clock.steps


def rate_at(config: PretrainConfig, step: int, steps: int, taken: int | None = None) -> float:
    """Return the learning rates' factor: linear warm-up, the phase's own, linear to zero where phase or run ends.

    `step` is the place in the schedule of `steps`; `taken`: the steps taken so far, where they are fewer.
    """
    warm = min(1.0, ((step if taken is None else taken) + 1) / max(1, config.warmup))
    phase, left_of_phase = phase_at(config, step), steps - step
    decay, length = config.decay, steps
    if phase.decay is not None:
        ends = accumulate(each.steps for each in config.phases)
        left_of_phase = next(end for end in ends if end > step) - step
        decay, length = phase.decay, phase.steps
    return min(warm, 1.0, left_of_phase / max(1.0, decay * length)) * phase.rate


def update(training: Run, batch: Sequence[MicroBatch], place: int) -> dict[str, Tensor]:
    """Take one optimizer step over the micro-batches; the loss is a mean over the batch's weighted tokens.

    `place` is the step's in the schedule. Of several processes each gives its own micro-batches; the batch is that of
    all. Returns the numbers for the log, each a tensor without dimensions, on the device.
    """
    config = training.config
    factor = rate_at(config, place, training.steps, training.step)
    for optimizer in training.optimizers:
        optimizer.zero_grad(set_to_none=True)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
    weight, tokens = sum(part.weight for part in batch), sum(len(part.dense.known_at) for part in batch)
    total_weight, total_tokens = training.peers.add_up([weight, tokens])
    sums: dict[str, Tensor] = {}
    for part in batch:
        loss, dense, terms = _compute_losses(training, part.to(training.device))
        share = len(part.dense.known_at) / max(1, total_tokens)
        (loss / total_weight + config.dense_weight * share * dense).backward()
        terms = {name: term * share for name, term in terms.items()}
        terms |= {"loss": loss.detach() / total_weight}
        for name, term in terms.items():
            sums[name] = sums[name] + term if name in sums else term
    sums = training.peers.add_gradients(training.weights, sums)
    norm = nn.utils.clip_grad_norm_(training.weights, 1.0)
    for optimizer in training.optimizers:
        optimizer.step()
    return {**sums, "grad_norm": norm, "rate": torch.tensor(factor)}


def _compute_losses(training: Run, part: MicroBatch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return the summed weighted token loss, the heads' loss, and terms to watch, the mean loss of box digits too."""
    config, heads = training.config, training.head
    with torch.autocast(training.device.type, dtype=torch.bfloat16, enabled=training.bf16):
        dtype = torch.bfloat16 if training.bf16 else torch.float32
        hidden = encode_packed(training.model, part, dtype)
        last = norm_last(training.model, take(hidden[-1], part.answered_at_A), dtype)
        logits = training.model.lm_head(last).float()
    token_loss = functional.cross_entropy(logits, part.answers_A, reduction="none")
    dense, terms = heads["dense"](take(hidden[config.dense_layer], part.image_at_M), part.dense)
    pointed = heads["box"](take(hidden[config.box_layer], part.box_at_K), part.box_K4)
    watched = {f"dense_{name}": term for name, term in terms.items()} | {"dense_pointed": pointed.detach()}
    digits = (token_loss.detach() * part.in_box_A).sum() / part.in_box_A.sum().clamp(min=1)
    return (
        (token_loss * part.weights_A).sum(),
        dense + config.pointed_weight * pointed,
        {"box_token": digits, **watched},
    )


def read_numbers(terms: dict[str, Tensor]) -> dict[str, float]:
    """Read a step's numbers; this waits until the device has computed them."""
    device = terms["loss"].device
    stacked = torch.stack([term.to(device, torch.float, non_blocking=True) for term in terms.values()])
    return dict(zip(terms, stacked.tolist(), strict=True))
