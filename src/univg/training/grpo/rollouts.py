"""Drawing rollouts: every response from its own stream of random numbers, so that neither the batch it is in, nor
the micro-batches, nor the number of processes decides what is drawn.

A group's prompt is read once, and its responses are written together (:mod:`univg.models.generation.decoding`).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from univg.models.generation.cache import roomy_cache
from univg.models.generation.decoding import decode, prefill
from univg.models.generation.generate import DrawByRow, draw_by_row
from univg.models.generation.shared_cache import shared
from univg.models.loading import plain_model

__all__ = ["draw", "draw_sharded", "runs_of", "sampling_bans", "stream", "take_rows"]

PER_IMAGE = ("pixel_values", "image_grid_thw")
"""What stands per image in a batch; everything else stands per row."""


def stream(seed: int, step: int, place: int, prompt: Sequence[int], device: torch.device) -> torch.Generator:
    """The random numbers of the rollout at `place` of a step's batch (over all processes): nothing else decides
    them."""
    digest = hashlib.sha256(f"{seed}\0{step}\0{place}\0{list(prompt)}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def draw(
    model: Any,
    inputs: Mapping[str, torch.Tensor],
    sources: Sequence[int],
    streams: Sequence[torch.Generator],
    config: GenerationConfig,
    sharing: bool = False,
) -> list[list[int]]:
    """The token ids of one response to each of `sources`, the end mark included if it was reached.

    `inputs` as the model takes them, left-padded, a row for each different prompt; `sources[i]` is the row that
    response i continues, `streams[i]` its random numbers. `config` is the sampling configuration (temperature,
    top_p, suppress_tokens, …). With `sharing`, the responses to a prompt have one copy of its keys and values.
    """
    plain = plain_model(model)
    warpers = LogitsProcessorList(_warpers(config))
    banned = torch.tensor(config.suppress_tokens or [], dtype=torch.long, device=streams[0].device)

    def choose(logits_RV: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        scores_RV = warpers(None, logits_RV.index_fill(1, banned, float("-inf")))  # type: ignore[arg-type]
        return draw_by_row(scores_RV, [streams[row] for row in rows])

    prefix = prefill(plain, inputs)
    each = len(sources) // len(prefix)
    if sharing and each > 1:
        prefix = shared(plain, prefix, sources)
    elif list(sources) == [row for row in range(len(prefix)) for _ in range(each)]:
        prefix.repeat(each)
    else:  # a group that is divided between processes or parts is not whole here
        prefix.keep(list(sources))
    return decode(plain, prefix, choose, _ids(config.eos_token_id), int(config.max_new_tokens or 0))


def draw_sharded(
    model: Any,
    inputs: Mapping[str, torch.Tensor],
    streams: Sequence[torch.Generator],
    config: GenerationConfig,
) -> list[list[int]]:
    """As `draw`, a row a response, by transformers' `generate`: where weights are gathered layer by layer from all
    processes, these must take as many steps as each other, and `generate` sees to that."""
    rules = LogitsProcessorList([*_warpers(config), DrawByRow(1.0, streams)])
    cache = {} if config.cache_implementation else {"past_key_values": roomy_cache(model.config)}
    greedy = _without_sampling(config)
    tokens = model.generate(**inputs, generation_config=greedy, logits_processor=rules, **cache)
    ends = _ids(config.eos_token_id)
    written = tokens[:, inputs["input_ids"].shape[1] :].tolist()
    return [_until_end(row, ends) for row in written]


def sampling_bans(forbidden: Sequence[int], vllm: bool) -> dict[str, Any]:
    """The generation arguments that keep `forbidden` token ids out: `suppress_tokens` for transformers; for vLLM,
    whose sampling has no such list, the strongest bias against each that it takes.

    >>> sampling_bans([7, 9], vllm=True)
    {'logit_bias': {7: -100.0, 9: -100.0}}
    """
    if vllm:
        return {"logit_bias": dict.fromkeys(forbidden, -100.0)}
    return {"suppress_tokens": list(forbidden)}


def runs_of(
    prompts: Sequence[Sequence[int]], images: Sequence[Sequence[Any]] | None
) -> tuple[list[int], list[int]]:
    """(rows that begin a run of equal prompts, for each row its run); prompts are equal if their tokens are, and
    their images are the same objects.

    >>> runs_of([[1, 2], [1, 2], [3], [1, 2]], None)
    ([0, 2, 3], [0, 0, 1, 2])
    """
    firsts: list[int] = []
    sources: list[int] = []
    for row, ids in enumerate(prompts):
        same = bool(firsts) and ids == prompts[firsts[-1]] and _same(images, row, firsts[-1])
        if not same:
            firsts.append(row)
        sources.append(len(firsts) - 1)
    return firsts, sources


def _same(images: Sequence[Sequence[Any]] | None, row: int, other: int) -> bool:
    if images is None:
        return True
    here, there = images[row] or (), images[other] or ()
    return len(here) == len(there) and all(a is b for a, b in zip(here, there, strict=True))


def take_rows(
    inputs: Mapping[str, torch.Tensor], images_per_row: Sequence[int] | None, rows: Sequence[int]
) -> dict[str, torch.Tensor]:
    """The given rows of a batch, with their images."""
    index = torch.tensor(rows, device=inputs["input_ids"].device)
    taken = {name: value[index] for name, value in inputs.items() if name not in PER_IMAGE}
    if "image_grid_thw" in inputs and images_per_row is not None:
        grids = inputs["image_grid_thw"].split(list(images_per_row))
        patches = [int(grid.prod(dim=-1).sum()) for grid in grids]
        pixels = inputs["pixel_values"].split(patches)
        if any(images_per_row[row] for row in rows):
            taken["pixel_values"] = torch.cat([pixels[row] for row in rows])
            taken["image_grid_thw"] = torch.cat([grids[row] for row in rows])
    return taken


def _warpers(config: GenerationConfig) -> Iterator[Any]:
    """transformers' own, in its order; they come before a token is drawn."""
    if config.temperature not in (None, 1.0):
        yield TemperatureLogitsWarper(config.temperature)
    if config.top_k:
        yield TopKLogitsWarper(config.top_k)
    if config.top_p is not None and config.top_p < 1.0:
        yield TopPLogitsWarper(config.top_p)
    if config.min_p is not None:
        yield MinPLogitsWarper(config.min_p)


def _without_sampling(config: GenerationConfig) -> GenerationConfig:
    """The same configuration for `generate`, which then takes the one token that `DrawByRow` leaves."""
    greedy = copy.deepcopy(config)
    greedy.do_sample = False
    greedy.temperature, greedy.top_k, greedy.top_p, greedy.min_p = 1.0, 50, 1.0, None  # its silent defaults
    return greedy


def _until_end(row: list[int], ends: frozenset[int]) -> list[int]:
    for at, token in enumerate(row):
        if token in ends:
            return row[: at + 1]
    return row


def _ids(stated: int | Sequence[int] | None) -> frozenset[int]:
    return frozenset([] if stated is None else [stated] if isinstance(stated, int) else stated)
