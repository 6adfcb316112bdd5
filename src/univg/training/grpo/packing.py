"""Log-probabilities of all completions of a group, with its prompt and its images encoded once.

    share_prompts(model)                                     # once (univg.models.generation.shared_attention)
    packed = pack(model, prompts, sources, completion_ids_BC, completion_mask_BC)
    logps_BC, entropies_BC = completion_logps(model, packed)

A trainer that reads every rollout as a row of its own encodes the same prompt G times, and the head's logits at
positions that nobody asks for. Here a batch is one row without padding, `[prompt | c1 | … | cG | next prompt
| …]`; a completion sees its prompt and itself, and its rotary positions go on where the prompt's end. The
numbers and their gradients are those of separate rows, to rounding.

The forward pass goes through `model(…)` itself, as TRL's does, so wrappers (DDP, FSDP, PEFT, autocast) do
what they do, and the head is TRL's, which computes logits in tiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from univg.models.generation.decoding import prompt_positions
from univg.models.generation.shared_attention import Packing, Span

__all__ = ["Packed", "completion_logps", "pack"]


@dataclass(frozen=True)
class Packed:
    """One row of N tokens, and where its S scored tokens belong among B rollouts of at most C tokens.

    `inputs` are the model's; `labels_1S` the tokens that are scored; `rows_S` and `columns_S` their places;
    `mask_BC` what counts.
    """

    inputs: dict[str, Any]
    packing: Packing
    labels_1S: Tensor
    rows_S: Tensor
    columns_S: Tensor
    mask_BC: Tensor


def pack(
    model: Any,
    prompts: Mapping[str, Tensor],
    sources: Sequence[int],
    completion_ids_BC: Tensor,
    completion_mask_BC: Tensor,
    images: Mapping[str, Any] | None = None,
) -> Packed:
    """Return the packed row of B completions to P prompts.

    `prompts`: `input_ids` and `attention_mask` (P, T), left-padded, and for prompts with images
    `mm_token_type_ids` (P, T) and `image_grid_thw` (images, 3). `sources[b]` is the prompt of completion b.
    `completion_mask_BC` is 1 on a completion's tokens, which stand left. `images`: what the model is given
    of the images of all prompts, in order: `pixel_values` with `image_grid_thw`, or `mm_encoder_outputs`.

    The last token of a completion is predicted, and nothing is predicted from it, so it is not in the row.
    """
    device = completion_ids_BC.device
    mask_PT = prompts["attention_mask"].bool()
    positions_3PT, after_P = prompt_positions(model, prompts)
    lengths = completion_mask_BC.sum(dim=1).tolist()
    if not any(lengths):
        lengths[0] = 1  # one token, which counts nothing, keeps the result connected to the weights
    members = [[b for b, source in enumerate(sources) if source == p] for p in range(len(mask_PT))]
    ids, positions, spans, order, start = [], [], [], [], 0
    for p, rows in enumerate(members):
        ids.append(prompts["input_ids"][p][mask_PT[p]])
        positions.append(positions_3PT[:, p][:, mask_PT[p]])
        inner = tuple(max(lengths[b] - 1, 0) for b in rows)
        for b, count in zip(rows, inner, strict=True):
            ids.append(completion_ids_BC[b, :count])
            positions.append((after_P[p] + torch.arange(count, device=device)).expand(3, -1))
        spans.append(Span(start, int(mask_PT[p].sum()), inner))
        order += rows
        start = spans[-1].end
    rows_S = torch.tensor([b for b in order for _ in range(lengths[b])], device=device)
    columns_S = torch.cat([torch.arange(lengths[b], device=device) for b in order])
    inputs = {
        "input_ids": torch.cat(ids)[None],
        "position_ids": torch.cat(positions, dim=1)[:, None],
        "use_cache": False,
        **(images or {}),
    }
    return Packed(
        inputs,
        Packing(spans, _scored_positions(spans, members, lengths).to(device)),
        completion_ids_BC[rows_S, columns_S][None],
        rows_S,
        columns_S,
        completion_mask_BC,
    )


def completion_logps(model: Any, packed: Packed) -> tuple[Tensor, Tensor | None]:
    """Return log-probabilities and entropies (B, C) of the completions' tokens, zero where the mask is.

    `model` has been through `share_prompts` and TRL's `add_fused_lm_head`, whose temperature counts; entropies
    are None if that head was not told to give them. It may be wrapped (DDP, PEFT).
    """
    output = model(
        **packed.inputs,
        shared_prefix=packed.packing,
        shift_labels=packed.labels_1S,
        fused_lm_head=True,
    )
    entropy = getattr(output, "entropy", None)
    return _scatter(output.log_probs, packed), None if entropy is None else _scatter(entropy, packed)


def _scatter(values_1S: Tensor, packed: Packed) -> Tensor:
    empty_BC = values_1S.new_zeros(packed.mask_BC.shape)
    placed_BC = empty_BC.index_put((packed.rows_S, packed.columns_S), values_1S[0])
    return placed_BC * packed.mask_BC.to(values_1S.dtype)


def _scored_positions(
    spans: Sequence[Span], members: Sequence[Sequence[int]], lengths: Sequence[int]
) -> Tensor:
    """Return the positions whose hidden states predict the completions' tokens: the prompt's last, then all
    of a completion that stands in the row."""
    scored = []
    for span, rows in zip(spans, members, strict=True):
        start = span.prompt_end
        for b, count in zip(rows, span.lengths, strict=True):
            if lengths[b]:
                scored += [span.prompt_end - 1, *range(start, start + count)]
            start += count
    return torch.tensor(scored)
