"""Muon for the matrices inside a model's layers, AdamW for all else, as one optimizer with one schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["MuonAndAdamW", "divide_weights"]

_INNER = ("layers.", "blocks.", "merger.")


def divide_weights(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the trained matrices inside the layers, and the other trained weights: embeddings, norms, biases."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            inner = weight.ndim == 2 and any(part in name for part in _INNER)
            (matrices if inner else rest).append(weight)
    return matrices, rest


class MuonAndAdamW(torch.optim.Optimizer):
    """Two optimizers as one; `param_groups` are theirs, AdamW's first, whose rate is the one that logs show."""

    def __init__(
        self,
        model: nn.Module,
        matrix_lr: float,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
    ) -> None:
        matrices, rest = divide_weights(model)
        adamw = torch.optim.AdamW(rest, lr=lr, betas=betas, weight_decay=weight_decay)
        muon = torch.optim.Muon(
            matrices, lr=matrix_lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        self.parts = (adamw, muon)
        super().__init__([{"params": [*rest, *matrices]}], {})
        self._share_groups()

    def _share_groups(self) -> None:
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Let both take a step."""
        assert closure is None
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the states of both."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()
