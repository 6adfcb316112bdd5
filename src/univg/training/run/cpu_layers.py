"""Two layers that are quick on CPUs: attention in float32 inside a bf16 run, patches embedded by a matrix product."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from univg.models.loading import plain_model

__all__ = ["ATTENTION", "PatchLinear", "embed_by_product"]

ATTENTION = "univg_float"


def _float_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Attend causally (SDPA) in float32 inside a bf16 run: on CPUs its backward pass takes half the time of bf16's.

    Rows are padded on the right and labels end before the padding, so no mask is needed.
    """
    with torch.autocast(query.device.type, enabled=False):
        out = functional.scaled_dot_product_attention(
            query.float(),
            key.float(),
            value.float(),
            is_causal=bool(getattr(module, "is_causal", False)),
            scale=settings.get("scaling"),
            enable_gqa=query.shape[1] != key.shape[1],
        )
    return out.transpose(1, 2).contiguous().to(value.dtype), None


AttentionInterface.register(ATTENTION, _float_attention)


class PatchLinear(nn.Module):
    """Embed patches by the matrix product that it is: on CPUs a strided Conv3d is several times slower.

    Weight and bias (Qwen3-VL's has one) keep their names and shapes, so checkpoints do not change.
    """

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(self, patches: Tensor) -> Tensor:
        return functional.linear(patches.flatten(1), self.weight.flatten(1), self.bias)


def embed_by_product(model: Any) -> None:
    """Replace a model's patch embedding by :class:`PatchLinear`, where it is a convolution."""
    embedding = plain_model(model).model.visual.patch_embed
    if isinstance(embedding.proj, nn.Conv3d):
        embedding.proj = PatchLinear(embedding.proj)
