"""Run the model over rows of unequal length, and over images of unequal size, without computing what is padding.

All tokens of a micro-batch stand one after the other, and so do all patches; only attention sets them side by side.
Where everything stands is worked out where the rows are made (:mod:`.batches`), so that nothing here waits for a
device to tell how long something is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, Qwen2VLForConditionalGeneration

from univg.training.run.batches import PixelTable
from univg.training.run.cpu_layers import PatchLinear

if TYPE_CHECKING:
    from univg.training.pretrain.batches import MicroBatch

__all__ = ["PACKED", "Packing", "encode_packed", "prepare_packed", "take"]

PACKED = "univg_packed"
"""The name of the attention that a model is set to for :func:`encode_packed`."""


@dataclass(frozen=True)
class Packing:
    """How pieces that stand one after the other stand side by side: `rows` of `longest` places, padded on the right.

    `places_N`: the place, counted through all rows, of each of the N tokens; none, if no row is padded. `mask_R11L`:
    where a row has tokens, for attention that looks ahead; none, if no row is padded or it does not.
    """

    rows: int
    longest: int
    places_N: Tensor | None = None
    mask_R11L: Tensor | None = None

    def spread(self, packed_1HND: Tensor) -> Tensor:
        """Return (rows, heads, longest, head's width) of (1, heads, N, head's width)."""
        flat_NHD = packed_1HND[0].transpose(0, 1)
        if self.places_N is not None:
            wide = flat_NHD.new_zeros(self.rows * self.longest, *flat_NHD.shape[1:])
            flat_NHD = wide.index_copy(0, self.places_N, flat_NHD)
        return flat_NHD.unflatten(0, (self.rows, self.longest)).transpose(1, 2)

    def gather(self, spread_RHLD: Tensor) -> Tensor:
        """Return (1, N, heads, head's width) of (rows, heads, longest, head's width)."""
        flat = spread_RHLD.transpose(1, 2).flatten(0, 1)
        return (flat if self.places_N is None else take(flat, self.places_N))[None]


def take(flat: Tensor, places: Tensor) -> Tensor:
    """Return the entries of `flat` at `places`, none of which may occur twice: the gradient is copied, not added up."""
    taken: Tensor = _Take.apply(flat, places)
    return taken


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, flat: Tensor, places_N: Tensor) -> Tensor:
        context.save_for_backward(places_N)
        context.shape = flat.shape
        return flat.index_select(0, places_N)

    @staticmethod
    def backward(context: Any, grad: Tensor) -> tuple[Tensor, None]:
        (places_N,) = context.saved_tensors
        return grad.new_zeros(context.shape).index_copy_(0, places_N, grad), None


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packing: Packing,
    scaling: float,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Attend within each row; on CPUs in float32, whose backward pass takes half the time of bfloat16's."""
    dtype = torch.float32 if query.device.type == "cpu" else value.dtype
    with torch.autocast(query.device.type, enabled=False):
        out = functional.scaled_dot_product_attention(
            *(packing.spread(each.to(dtype)) for each in (query, key, value)),
            attn_mask=packing.mask_R11L,
            is_causal=bool(getattr(module, "is_causal", False)),
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
    return packing.gather(out).to(value.dtype), None


AttentionInterface.register(PACKED, _attend)


class _ByteEmbedding(nn.Module):
    """Embed patches as the model does, given as bytes too: of a still picture, once for all times it is shown.

    What the processor does to a byte is linear, so the weights take it over. The bytes less 128 are exact in bfloat16.
    The weight keeps its name and shape, so checkpoints do not change.
    """

    def __init__(self, embedding: Any, pixels: PixelTable) -> None:
        super().__init__()
        self.proj = embedding.proj if isinstance(embedding.proj, PatchLinear) else PatchLinear(embedding.proj)
        first, last = pixels.table[:, 0], pixels.table[:, -1]
        self.register_buffer("scale_C1", ((last - first) / 255)[:, None], persistent=False)
        self.register_buffer("middle_C1", (first + (last - first) * 128 / 255)[:, None], persistent=False)

    def forward(self, patches: Tensor) -> Tensor:
        if patches.dtype != torch.uint8:
            return self.proj(patches.to(self.proj.weight.dtype))
        weight_ECP = self.proj.weight.sum(2).flatten(2)
        bias_E = (weight_ECP * self.middle_C1).sum((1, 2))
        return functional.linear(patches.float() - 128, (weight_ECP * self.scale_C1).flatten(1), bias_E)


def prepare_packed(model: Qwen2VLForConditionalGeneration, pixels: PixelTable) -> None:
    """Make a model ready for :func:`encode_packed`; on pictures and texts as usual it computes what it did."""
    model.model.visual.patch_embed = _ByteEmbedding(model.model.visual.patch_embed, pixels)
    model.set_attn_implementation(PACKED)


def encode_packed(model: Qwen2VLForConditionalGeneration, part: MicroBatch) -> tuple[Tensor, ...]:
    """Return the hidden states (N, width) before the first and after each layer, the last one normed."""
    text: Any = model.model.language_model
    patches = part.patches_PF
    seen = model.model.visual(
        patches,
        grid_thw=None,
        position_ids=part.patch_positions_P2,
        cu_seqlens=torch.tensor(
            [0, len(patches)], dtype=torch.int32
        ),  # of all: `packing` says which belong together
        packing=part.images,
    ).pooler_output
    embedded = text.embed_tokens(part.ids_N)
    embedded = embedded.index_copy(0, part.image_at_M, seen.to(embedded.dtype))
    outputs = text(
        inputs_embeds=embedded[None],
        position_ids=part.positions_3N[:, None],
        attention_mask={"full_attention": None, "sliding_attention": None},  # none, and so none is made
        use_cache=False,
        output_hidden_states=True,
        packing=part.rows,
    )
    return tuple(hidden[0] for hidden in (*outputs.hidden_states[:-1], outputs.last_hidden_state))
