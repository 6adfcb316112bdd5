"""Muon for the matrices inside a model's layers, AdamW for all else, as one optimizer with one schedule.

Muon makes the step of a matrix (its gradient's running mean) orthogonal, by Newton and Schulz's iteration; the
coefficients are those of Keller Jordan's post (kellerjordan.github.io/posts/muon). Its steps are those of
`torch.optim.Muon`; here all matrices of one shape are worked on together.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Muon", "MuonAndAdamW", "divide_weights"]

_ITERATIONS, _COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)
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


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov's momentum; the rate is scaled so that a step is as large as AdamW's (Moonlight's rule)."""

    def __init__(
        self, matrices: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take a step."""
        assert closure is None
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    alike[weight.shape].append(weight)
            for weights in alike.values():
                self._step_alike(weights, group["lr"], group["weight_decay"], group["momentum"])

    def _step_alike(self, weights: list[Tensor], lr: float, weight_decay: float, momentum: float) -> None:
        """Take the step of matrices of one shape."""
        gradients: list[Any] = [weight.grad for weight in weights]
        for weight in weights:
            if "momentum_buffer" not in self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        means = [self.state[weight]["momentum_buffer"] for weight in weights]
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        ahead = torch.stack(torch._foreach_lerp(gradients, means, momentum))
        steps = _orthogonalise(ahead).to(weights[0].dtype)
        torch._foreach_mul_(weights, 1 - lr * weight_decay)
        torch._foreach_add_(weights, list(steps.unbind()), alpha=-lr * 0.2 * math.sqrt(max(weights[0].shape)))


def _orthogonalise(matrices_KRC: Tensor) -> Tensor:
    """Return about U Vᵀ of each matrix U S Vᵀ, in bfloat16."""
    a, b, c = _COEFFICIENTS
    tall = matrices_KRC.shape[1] > matrices_KRC.shape[2]
    found = matrices_KRC.bfloat16()
    found = found.mT.contiguous() if tall else found
    found = found / found.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = found @ found.mT
        found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.mT if tall else found


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
        muon = Muon(matrices, matrix_lr, weight_decay)
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
