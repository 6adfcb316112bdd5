"""Attend over prompts that several completions share, computing no block that a mask would take away.

In a packed row `[prompt | c1 | … | cG | next prompt | …]` a completion sees its prompt and itself. The prompt
attends to itself causally; the completions' queries attend, all in one go, to the prompt's keys, which stand there
once, and each to its own keys causally; the two are merged by their log-sum-exps. One dense mask over the row would
compute the other completions' blocks too, and copies of the prompt's keys would take G times their memory.

While completions are being written, each row has keys of its own, and all rows of a group attend to the one copy of
the prompt's (:class:`PromptKeys`).

`share_prompts(model)` gives a model this attention through transformers' `AttentionInterface`. A forward pass that
is not told of a `shared_prefix` is transformers' SDPA, as before.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from univg.models.families import MODEL_FAMILIES
from univg.models.loading import plain_model

__all__ = ["ATTENTION", "Packing", "PromptKeys", "Span", "share_prompts", "why_not"]

ATTENTION = "univg_shared_prefix"
"""The attention's name in transformers."""


@dataclass(frozen=True)
class Span:
    """A group in a packed row: its prompt begins at `start`, its completions follow one another."""

    start: int
    prompt: int
    lengths: tuple[int, ...]

    @property
    def prompt_end(self) -> int:
        return self.start + self.prompt

    @property
    def end(self) -> int:
        return self.prompt_end + sum(self.lengths)


class Packing:
    """Where the groups of a packed row stand, and which positions are `scored` (S,), those whose last hidden
    states are wanted."""

    def __init__(self, spans: Sequence[Span], scored: Tensor) -> None:
        self.spans = tuple(spans)
        self.scored = scored

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Return (1, heads, N, D) from query (1, heads, N, D), key and value (1, kv heads, N, D)."""
        if query.device.type == "cpu":  # its backward pass takes twice as long in bf16
            query, key, value = query.float(), key.float(), value.float()
        else:
            query, key = query.to(value.dtype), key.to(value.dtype)
        completions = _attend_merged if query.device.type == "cpu" else _attend_joined
        parts: list[Tensor] = []
        for span, slots in zip(self.spans, self.slots, strict=True):
            prompt, rest = slice(span.start, span.prompt_end), slice(span.prompt_end, span.end)
            own_key, own_value = key[:, :, prompt], value[:, :, prompt]
            parts.append(_attend_causally(query[:, :, prompt], own_key, own_value, scale))
            count = sum(length > 0 for length in span.lengths)
            if count:
                later = query[:, :, rest], key[:, :, rest], value[:, :, rest]
                parts.append(completions(own_key, own_value, later, count, slots, scale))
        return torch.cat(parts, dim=2)

    @cached_property
    def slots(self) -> tuple[tuple[Tensor, Tensor] | None, ...]:
        """Return for each group how its completions (M tokens in a row) stand in a rectangle (G, longest): the token of
        each place (padding: token 0), and the place of each token. None where all are equally long."""
        return tuple(self._slots_of(span) for span in self.spans)

    def _slots_of(self, span: Span) -> tuple[Tensor, Tensor] | None:
        lengths = [length for length in span.lengths if length]
        if len(set(lengths)) <= 1:
            return None
        lengths_G = torch.tensor(lengths, device=self.scored.device)
        column = torch.arange(max(lengths), device=self.scored.device)
        inside = column < lengths_G[:, None]
        starts = lengths_G.cumsum(0) - lengths_G
        token_GC = torch.where(inside, starts[:, None] + column, 0)
        return token_GC, inside.flatten().nonzero()[:, 0]


class PromptKeys:
    """Keys and values of P prompts, there once, for R rows being written that continue them.

    `layers[l][p]` are those of prompt p in layer l, each (1, kv heads, T of p, D). `sources[r]` is the prompt of
    row r.
    """

    def __init__(self, layers: Sequence[Sequence[tuple[Tensor, Tensor]]], sources: Sequence[int]) -> None:
        self.layers = [list(layer) for layer in layers]
        self.keep(sources)

    def keep(self, sources: Sequence[int]) -> None:
        """Keep these rows. A prompt that no row continues is let go of."""
        self.sources = list(sources)
        gone = set(range(len(self.layers[0]))) - set(self.sources)
        for layer in self.layers if gone else ():
            nothing = layer[0][0].new_empty(0)
            for p in gone:
                layer[p] = nothing, nothing
        order = sorted(range(len(self.sources)), key=self.sources.__getitem__)
        self._groups = [
            (p, len(list(rows))) for p, rows in itertools.groupby(order, key=self.sources.__getitem__)
        ]
        device = self.layers[0][self._groups[0][0]][0].device
        self._order = None if order == sorted(order) else torch.tensor(order, device=device)
        self._places = None if self._order is None else self._order.argsort()

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Return (R, heads, 1, D) from query (R, heads, 1, D) and the rows' own keys and values (R, kv heads, t, D)."""
        query, key = query.to(value.dtype), key.to(value.dtype)  # under autocast the rotary embedding widens
        own, own_total = _look(query, key, value, scale)
        heads, ordered = key.shape[1], query if self._order is None else query[self._order]
        parts, totals, start = [], [], 0
        for p, count in self._groups:
            rows = ordered[start : start + count].unflatten(1, (heads, -1))
            asked = rows.permute(1, 0, 2, 3, 4).reshape(1, heads, -1, query.shape[-1])
            part, total = _look(asked, *self.layers[layer][p], scale)
            parts.append(part.reshape(heads, *rows.shape[:1], *rows.shape[2:]).transpose(0, 1).flatten(1, 2))
            totals.append(total.reshape(heads, count, -1).transpose(0, 1).reshape(count, -1, 1))
            start += count
        out, total = torch.cat(parts), torch.cat(totals)
        if self._places is not None:
            out, total = out[self._places], total[self._places]
        share = torch.sigmoid(total - own_total)[..., None]
        return own.lerp(out, share.to(own.dtype))


def why_not(model: Any) -> str | None:
    """Return why prompts cannot be shared in this model; None if they can. Any reason names what would help."""
    plain = plain_model(model)
    text = plain.config.get_text_config()
    kind = getattr(plain.config, "model_type", "")
    # Their text continues after images on all three rotary axes at once, so completions can restart there.
    if kind not in MODEL_FAMILIES:
        return (
            f"models of type {kind!r} are not known to continue positions as {', '.join(MODEL_FAMILIES)} do"
        )
    if text._attn_implementation not in ("sdpa", ATTENTION):
        return (
            f"it needs SDPA, and the model was loaded with attn_implementation={text._attn_implementation!r}"
        )
    if set(getattr(text, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        return "the model has sliding-window layers, in which a completion sees only the end of its prompt"
    if getattr(text, "attention_dropout", 0.0):
        return "the model's attention_dropout would drop the same for all rollouts: set it to 0"
    return None


def share_prompts(model: Any) -> None:
    """Let `model` take `shared_prefix=Packing(…)` in its forward pass; its last hidden states are then (1, S, H),
    those of `Packing.scored`. Doing it again changes nothing. Errors: ValueError with the reason if it cannot."""
    reason = why_not(model)
    if reason is not None:
        raise ValueError(reason)
    plain = plain_model(model)
    decoder = plain.model.language_model
    if decoder.config._attn_implementation != ATTENTION:
        decoder.set_attn_implementation(ATTENTION)
        decoder.register_forward_hook(_scored_only, with_kwargs=True)


def _scored_only(decoder: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
    """Keep the scored positions only, so that the head works on what is wanted and on nothing else."""
    packing = kwargs.get("shared_prefix")
    if isinstance(packing, Packing):
        output.last_hidden_state = output.last_hidden_state.index_select(1, packing.scored)
    return output


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    shared_prefix: Packing | PromptKeys | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers calls it: query (B, heads, N, D), key and value (B, kv heads, N, D);
    the result is (B, N, heads, D)."""
    if shared_prefix is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    layer: Any = module.layer_idx
    scale, device = float(settings["scaling"]), query.device.type
    with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext():
        out = shared_prefix.attend(layer, query, key, value, scale)
    return out.transpose(1, 2).contiguous().to(value.dtype), None


def _attend_causally(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    heads = query.shape[1] // key.shape[1]
    if heads > 1 and query.device.type == "cpu":  # faster there than enable_gqa
        key, value, heads = repeat_kv(key, heads), repeat_kv(value, heads), 1
    return functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scale, enable_gqa=heads > 1
    )


def _stack(row: Tensor, count: int, slots: tuple[Tensor, Tensor] | None) -> Tensor:
    """Reshape (1, heads, M, D) to (G, heads, longest, D)."""
    if slots is None:
        return row[0].unflatten(1, (count, -1)).transpose(0, 1)
    return row[0][:, slots[0]].transpose(0, 1)


def _unstack(stack: Tensor, slots: tuple[Tensor, Tensor] | None) -> Tensor:
    """Do the reverse: (G, heads, longest, …) to (1, heads, M, …)."""
    row = stack.transpose(0, 1).flatten(1, 2)
    return (row if slots is None else row.index_select(1, slots[1]))[None]


Later = tuple[Tensor, Tensor, Tensor]


def _attend_joined(
    key: Tensor, value: Tensor, later: Later, count: int, slots: tuple[Tensor, Tensor] | None, scale: float
) -> Tensor:
    """Attend in a row a completion, the prompt's keys first: fused kernels know this mask and skip what it hides."""
    queries, own_keys, own_values = (_stack(part, count, slots) for part in later)
    keys = torch.cat([key.expand(count, -1, -1, -1), own_keys], dim=2)
    values = torch.cat([value.expand(count, -1, -1, -1), own_values], dim=2)
    mask: Any = causal_lower_right(queries.shape[2], keys.shape[2])
    if queries.device.type == "cpu":
        mask = torch.ones(queries.shape[2], keys.shape[2], dtype=torch.bool).tril(key.shape[2])
    out = functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=mask, scale=scale, enable_gqa=queries.shape[1] != keys.shape[1]
    )
    return _unstack(out, slots)


def _attend_merged(
    key: Tensor, value: Tensor, later: Later, count: int, slots: tuple[Tensor, Tensor] | None, scale: float
) -> Tensor:
    """Attend to the prompt's keys and a completion's own apart, on a CPU."""
    query, own_key, own_value = later
    heads = query.shape[1] // key.shape[1]
    own_key, own_value = repeat_kv(own_key, heads), repeat_kv(own_value, heads)
    out: Tensor = _Merged.apply(key, value, query, own_key, own_value, count, slots, scale)  # type: ignore[no-untyped-call]
    return out


class _Merged(torch.autograd.Function):
    """Merge two parts of one softmax: with l the log-sum-exp of all scores and l_i of part i, the result is
    Σ exp(l_i − l) · part_i. A fused backward kernel that is given the whole's l and result computes each part's
    gradients as they are in the whole, so nothing else need be kept (as in ring attention, arXiv 2310.01889).
    """

    @staticmethod
    def forward(
        ctx: Any,
        key: Tensor,
        value: Tensor,
        query: Tensor,
        own_key: Tensor,
        own_value: Tensor,
        count: int,
        slots: tuple[Tensor, Tensor] | None,
        scale: float,
    ) -> Tensor:
        # long because autograd follows only tensors that are arguments of their own
        out, total = _attend(_fold_heads(query, key), key, value, False, scale)
        out, total = out.reshape(query.shape), total.reshape(query.shape[:3])
        q, k, v = (_stack(part, count, slots) for part in (query, own_key, own_value))
        own_out, own_total = _attend(q, k, v, True, scale)
        own_out, own_total = _unstack(own_out, slots), _unstack(own_total, slots)
        whole = torch.logaddexp(total, own_total)
        out = out * (total - whole).exp()[..., None] + own_out * (own_total - whole).exp()[..., None]
        ctx.save_for_backward(key, value, query, own_key, own_value, out, whole)
        ctx.count, ctx.slots, ctx.scale = count, slots, scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        key, value, query, own_key, own_value, out, whole = ctx.saved_tensors
        count, slots, scale = ctx.count, ctx.slots, ctx.scale
        grad = gradients[0]
        folded = _fold_heads(grad, key), _fold_heads(query, key), _fold_heads(out, key)
        grad_query, grad_key, grad_value = _attend_backward(
            folded[0], folded[1], key, value, folded[2], whole.reshape(1, key.shape[1], -1), False, scale
        )
        grad_query = grad_query.reshape(query.shape)
        q, k, v, own_out = (
            _stack(part, count, slots).contiguous() for part in (query, own_key, own_value, out)
        )
        own_whole = _stack(whole[..., None], count, slots)[..., 0].contiguous()
        own_grad = _stack(grad, count, slots).contiguous()
        if slots is not None:  # padding repeats a real token: it must not count again
            padding = torch.ones(own_whole.shape[0] * own_whole.shape[2], dtype=torch.bool)
            padding[slots[1]] = False
            own_grad.masked_fill_(padding.view(own_whole.shape[0], 1, -1, 1), 0)
        own = _attend_backward(own_grad, q, k, v, own_out, own_whole, True, scale)
        own_query, grad_own_key, grad_own_value = (_unstack(part, slots) for part in own)
        none = (None, None, None)
        return grad_key, grad_value, grad_query + own_query, grad_own_key, grad_own_value, *none


def _fold_heads(query: Tensor, key: Tensor) -> Tensor:
    """Put query heads that share a key head one after another: (1, heads, M, D) as (1, kv heads, group · M, D)."""
    if query.shape[1] == key.shape[1]:
        return query
    return query.reshape(1, key.shape[1], -1, query.shape[-1])


def _attend(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Call the CPU's fused kernel, which also gives the log-sum-exps: (…, M, D) and (…, M)."""
    out, total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, causal, attn_mask=None, scale=scale
    )
    return out, total


def _look(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return what a few queries see in all of the keys, and the log-sum-exps: (B, heads, M, D) and (B, heads, M)."""
    if query.device.type == "cpu":
        return _attend(query, key, value, False, scale)
    return _look_plainly(query, key, value, scale)


def _look_plainly(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Do the same without a fused kernel; few queries make few scores."""
    grouped = query.unflatten(1, (key.shape[1], -1)).flatten(2, 3)  # (B, kv heads, group · M, D)
    scores = (grouped @ key.transpose(2, 3)).float() * scale
    total = scores.logsumexp(dim=-1, keepdim=True)
    out = (scores - total).exp().to(value.dtype) @ value
    return out.reshape(query.shape), total.reshape(query.shape[:3])


def _attend_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    total: Tensor,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    gradients: tuple[Tensor, Tensor, Tensor] = backward(
        grad, query, key, value, out, total, 0.0, causal, attn_mask=None, scale=scale
    )
    return gradients


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
