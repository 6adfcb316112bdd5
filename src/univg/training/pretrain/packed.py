"""Run the model over rows of unequal length, and over images of unequal size, without computing what is padding.

All tokens of a micro-batch stand one after the other, and so do all patches; only attention sets them side by side.
Where everything stands is worked out where the rows are made (:mod:`.batches`), so that nothing here waits for a
device to tell how long something is. It computes what the model's own `forward` does, with its own weights, in fewer
and larger steps: projections of the same input are one product, and norms and rotations know their own gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2VLForConditionalGeneration

from univg.training.run.batches import PixelTable
from univg.training.run.cpu_layers import PatchLinear

if TYPE_CHECKING:
    from univg.training.pretrain.batches import MicroBatch

__all__ = ["ByteEmbedding", "Packing", "encode_packed", "norm_last", "pack", "take"]


LIKE = 0.85
"""Pieces this much as long as the longest, or longer, stand side by side with it: narrower groups would be many."""


@dataclass(frozen=True)
class Group:
    """Pieces of like length side by side: `rows` of `longest` places, padded on the right.

    `mask_R11L`: where a row has tokens, for attention that looks ahead; none, if no row is padded or it does not.
    """

    rows: int
    longest: int
    mask_R11L: Tensor | None = None


@dataclass(frozen=True)
class Packing:
    """How pieces that stand one after the other stand side by side, in groups of like length.

    `places_N`: the place, counted through all rows of all groups, of each of the N tokens; none, if that is its own.
    """

    groups: tuple[Group, ...]
    places_N: Tensor | None = None

    def spread(self, packed_NHD: Tensor) -> list[Tensor]:
        """Return (rows, heads, longest, head's width) of each group."""
        sizes = [group.rows * group.longest for group in self.groups]
        if self.places_N is not None:
            wide = packed_NHD.new_zeros(sum(sizes), *packed_NHD.shape[1:])
            packed_NHD = wide.index_copy(0, self.places_N, packed_NHD)
        parts = zip(self.groups, packed_NHD.split(sizes), strict=True)
        return [part.unflatten(0, (group.rows, group.longest)).transpose(1, 2) for group, part in parts]

    def gather(self, spread: Sequence[Tensor]) -> Tensor:
        """Return (N, heads × head's width)."""
        parts = [each.transpose(1, 2).flatten(2).flatten(0, 1) for each in spread]
        flat = parts[0] if len(parts) == 1 else torch.cat(parts)
        return flat if self.places_N is None else take(flat, self.places_N)


def pack(lengths: Sequence[int], masked: bool = False) -> Packing:
    """Say how pieces of these lengths stand side by side; `masked`: attention looks ahead."""
    starts, groups, end = np.empty(len(lengths), np.int64), [], 0
    order = sorted(range(len(lengths)), key=lambda piece: lengths[piece], reverse=True)
    while order:
        like = [piece for piece in order if lengths[piece] >= LIKE * lengths[order[0]]]
        order = order[len(like) :]
        like.sort()
        found, mask = np.array([lengths[piece] for piece in like]), None
        longest = int(found.max())
        if masked and found.min() < longest:
            longest = -(-longest // 16) * 16  # masked attention on GPUs wants a multiple of 16
            mask = torch.from_numpy(np.arange(longest) < found[:, None])[:, None, None]
        groups.append(Group(len(like), longest, mask))
        starts[like] = end + np.arange(len(like)) * longest
        end += len(like) * longest
    places = np.concatenate([start + np.arange(n) for start, n in zip(starts, lengths, strict=True)])
    alone = len(places) == end and bool((np.diff(places) == 1).all())
    return Packing(tuple(groups), None if alone else torch.from_numpy(places))


def take(flat: Tensor, places: Tensor) -> Tensor:
    """Return the entries of `flat` at `places`, none of which may occur twice: the gradient is copied, not added up."""
    taken: Tensor = _Take.apply(flat, places)  # type: ignore[no-untyped-call]
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


class _RmsNorm(torch.autograd.Function):
    """Qwen2-VL's norm of float32 (tokens, width), the result in another type."""

    @staticmethod
    def forward(context: Any, hidden: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        root = torch.linalg.vector_norm(hidden, dim=1, keepdim=True)
        scale = root.square_().div_(hidden.shape[1]).add_(eps).rsqrt_()
        normed = hidden * scale
        context.save_for_backward(normed, scale, weight)
        return (normed * weight).to(dtype)

    @staticmethod
    def backward(context: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        normed, scale, weight = context.saved_tensors
        grad = grad.float()
        product = grad * normed
        along = (product @ weight)[:, None].div_(-normed.shape[1])
        inward = (grad * weight).addcmul_(normed, along).mul_(scale)
        return inward, product.sum(0), None, None


class _Rotate(torch.autograd.Function):
    """Rotate (tokens, heads, width) by each token's own angles, the first half of the width with the second."""

    @staticmethod
    def forward(context: Any, heads_NHD: Tensor, cos_N1h: Tensor, sin_N1h: Tensor) -> Tensor:
        context.save_for_backward(cos_N1h, sin_N1h)
        context.dtype = heads_NHD.dtype
        return _rotate(heads_NHD, cos_N1h, sin_N1h, 1)

    @staticmethod
    def backward(context: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos_N1h, sin_N1h = context.saved_tensors
        return _rotate(grad, cos_N1h, sin_N1h, -1).to(context.dtype), None, None


def _rotate(heads_NHD: Tensor, cos_N1h: Tensor, sin_N1h: Tensor, direction: int) -> Tensor:
    heads = heads_NHD.float()
    rotated = torch.empty_like(heads)
    one, other = heads.chunk(2, dim=-1)
    first, second = rotated.chunk(2, dim=-1)
    torch.mul(one, cos_N1h, out=first).addcmul_(other, sin_N1h, value=-direction)
    torch.mul(other, cos_N1h, out=second).addcmul_(one, sin_N1h, value=direction)
    return rotated


class _Turn:
    """The rotations of all tokens, the same in each layer."""

    def __init__(self, cos_ND: Tensor, sin_ND: Tensor) -> None:
        half = cos_ND.shape[-1] // 2
        self.angles = cos_ND[:, None, :half].float(), sin_ND[:, None, :half].float()


def _attend(
    projected_NX: Tensor, heads: int, kv_heads: int, turn: _Turn, packing: Packing, causal: bool
) -> Tensor:
    """Attend within each row: queries, keys and values of all heads in, (N, heads × head's width) out.

    On CPUs in float32, whose backward pass takes half the time of bfloat16's.
    """
    dtype = torch.float32 if projected_NX.device.type == "cpu" else projected_NX.dtype
    turned, values = projected_NX.unflatten(1, (heads + 2 * kv_heads, -1)).split(
        [heads + kv_heads, kv_heads], 1
    )
    rotated: Any = _Rotate.apply(turned, *turn.angles)  # type: ignore[no-untyped-call]
    joined = torch.cat([rotated.to(dtype), values.to(dtype)], 1)
    with torch.autocast(projected_NX.device.type, enabled=False):
        out = []
        for group, part in zip(packing.groups, packing.spread(joined), strict=True):
            queries, keys, values = part.split([heads, kv_heads, kv_heads], 1)
            out.append(
                functional.scaled_dot_product_attention(
                    queries,
                    keys,
                    values,
                    attn_mask=group.mask_R11L,
                    is_causal=causal,
                    enable_gqa=heads != kv_heads,
                )
            )
    return packing.gather(out).to(projected_NX.dtype)


def _project(hidden: Tensor, *maps: Any) -> Tensor:
    """Apply linear maps of one input at once."""
    if len(maps) == 1:
        return functional.linear(hidden, maps[0].weight, maps[0].bias)
    biases = [each.bias for each in maps if each.bias is not None]
    return functional.linear(
        hidden, torch.cat([each.weight for each in maps]), torch.cat(biases) if biases else None
    )


def _look(block: Any, hidden_PW: Tensor, dtype: torch.dtype, turn: _Turn, packing: Packing) -> Tensor:
    """Run a block of the vision tower."""
    seen, heads = _layer_norm(block.norm1, hidden_PW).to(dtype), block.attn.num_heads
    attended = _attend(_project(seen, block.attn.qkv), heads, heads, turn, packing, causal=False)
    hidden_PW = hidden_PW + _project(attended, block.attn.proj)
    seen = _layer_norm(block.norm2, hidden_PW).to(dtype)
    return hidden_PW + _project(block.mlp.act(_project(seen, block.mlp.fc1)), block.mlp.fc2)


def _layer_norm(norm: Any, hidden: Tensor) -> Tensor:
    return functional.layer_norm(hidden, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _decode(layer: Any, hidden_NW: Tensor, dtype: torch.dtype, turn: _Turn, packing: Packing) -> Tensor:
    """Run a layer of the text model."""
    attention, mlp = layer.self_attn, layer.mlp
    projected = _project(
        _rms_norm(layer.input_layernorm, hidden_NW, dtype),
        attention.q_proj,
        attention.k_proj,
        attention.v_proj,
    )
    heads = attention.num_heads, attention.num_key_value_heads
    attended = _attend(projected, *heads, turn, packing, causal=True)
    hidden_NW = hidden_NW + _project(attended, attention.o_proj)
    seen = _rms_norm(layer.post_attention_layernorm, hidden_NW, dtype)
    gate, up = _project(seen, mlp.gate_proj, mlp.up_proj).chunk(2, dim=1)
    return hidden_NW + _project(mlp.act_fn(gate) * up, mlp.down_proj)


def _rms_norm(norm: Any, hidden: Tensor, dtype: torch.dtype) -> Tensor:
    normed: Tensor = _RmsNorm.apply(hidden, norm.weight, norm.variance_epsilon, dtype)  # type: ignore[no-untyped-call]
    return normed


class ByteEmbedding(nn.Module):
    """Embed patches as the model does, given as bytes too: of a still picture, once for all times it is shown.

    What the processor does to a byte is linear, so the weights take it over. The bytes less 128 are exact in bfloat16.
    The weight keeps its name and shape, so checkpoints do not change.
    """

    scale_C1: Tensor
    middle_C1: Tensor

    def __init__(self, embedding: Any, pixels: PixelTable) -> None:
        super().__init__()
        self.proj = embedding.proj if isinstance(embedding.proj, PatchLinear) else PatchLinear(embedding.proj)
        first, last = pixels.table[:, 0], pixels.table[:, -1]
        self.register_buffer("scale_C1", ((last - first) / 255)[:, None], persistent=False)
        self.register_buffer("middle_C1", (first + (last - first) * 128 / 255)[:, None], persistent=False)

    def forward(self, patches: Tensor) -> Tensor:
        if patches.dtype != torch.uint8:
            embedded: Tensor = self.proj(patches.to(self.proj.weight.dtype))
            return embedded
        weight_ECP = self.proj.weight.sum(2).flatten(2)
        bias_E = (weight_ECP * self.middle_C1).sum((1, 2))
        return functional.linear(patches.float() - 128, (weight_ECP * self.scale_C1).flatten(1), bias_E)


def encode_packed(
    model: Qwen2VLForConditionalGeneration, part: MicroBatch, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Return the hidden states (N, width) before the first and after each layer, none of them normed.

    `dtype` is what matrix products are computed in, within an autocast to it. The model's patch embedding is to be a
    :class:`ByteEmbedding`.
    """
    visual: Any = model.model.visual
    text: Any = model.model.language_model
    hidden = visual.patch_embed(part.patches_PF).float()
    turn = _Turn(*visual.rotary_pos_emb(hidden, part.patch_positions_P2))
    for block in visual.blocks:
        hidden = _look(block, hidden, dtype, turn, part.images)
    seen = visual.merger(hidden)
    hidden = text.embed_tokens(part.ids_N).index_copy(0, part.image_at_M, seen.float())
    cos, sin = text.rotary_emb(hidden, part.positions_3N[:, None])
    turn, states = _Turn(cos[0], sin[0]), [hidden]
    for layer in text.layers:
        states.append(_decode(layer, states[-1], dtype, turn, part.rows))
    return states


def norm_last(model: Qwen2VLForConditionalGeneration, hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """Norm tokens' last hidden states (N, width) as the head takes them."""
    return _rms_norm(model.model.language_model.norm, hidden, dtype)
