"""Draw rollouts, every response from its own stream of random numbers, so that neither the batch it is in,
nor the micro-batches, nor the number of processes decides what is drawn.

A group's prompt is read once, and its responses are written together (:mod:`univg.models.generation.decoding`).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from trl.trainer.utils import pad

from univg.models.generation.cache import roomy_cache
from univg.models.generation.decoding import decode, prefill
from univg.models.generation.generate import DrawByRow, draw_by_row, forbidden_ids, stop_ids
from univg.models.generation.shared_cache import shared
from univg.models.loading import plain_model

__all__ = [
    "draw",
    "draw_in_parts",
    "draw_sharded",
    "find_forbidden",
    "find_runs",
    "pad_left",
    "sampling_bans",
    "stream",
    "take_rows",
]

PER_IMAGE = ("pixel_values", "image_grid_thw")
"""What stands per image in a batch; everything else stands per row."""


def stream(seed: int, step: int, place: int, prompt: Sequence[int], device: torch.device) -> torch.Generator:
    """Return the random numbers of the rollout at `place` of a step's batch (over all processes): nothing
    else decides them."""
    digest = hashlib.sha256(f"{seed}\0{step}\0{place}\0{list(prompt)}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def draw(
    model: Any,
    inputs: Mapping[str, Tensor],
    sources: Sequence[int],
    streams: Sequence[torch.Generator],
    config: GenerationConfig,
    sharing: bool = False,
) -> list[list[int]]:
    """Return the token ids of one response to each of `sources`, the end mark included if it was reached.

    `inputs` as the model takes them, left-padded, a row for each different prompt; `sources[i]` is the row that
    response i continues, `streams[i]` its random numbers. `config` is the sampling configuration (temperature,
    top_p, suppress_tokens, …). With `sharing`, the responses to a prompt have one copy of its keys and values.
    """
    plain = plain_model(model)
    warpers = LogitsProcessorList(_warpers(config))
    banned = torch.tensor(config.suppress_tokens or [], dtype=torch.long, device=streams[0].device)

    def choose(logits_RV: Tensor, rows: Sequence[int]) -> Tensor:
        scores_RV = warpers(None, logits_RV.index_fill(1, banned, float("-inf")))
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


def draw_in_parts(
    model: Any,
    take: Callable[[Sequence[int]], Mapping[str, Tensor]],
    group: Callable[[range], tuple[list[int], list[int]]],
    streams: Sequence[torch.Generator],
    config: GenerationConfig,
    at_once: int | None = None,
    sharing: bool = False,
    sharded: bool = False,
) -> list[list[int]]:
    """Draw a response from each of `streams`, `at_once` of them together (None: all), each prompt read once.

    `take(rows)` gives the model's inputs for rows of the batch, `group(rows)` the first row of each prompt
    among them and for each row its prompt's number. `sharded`: a forward pass needs all processes
    (`draw_sharded`).
    """
    responses: list[list[int]] = []
    size = at_once or len(streams)
    for start in range(0, len(streams), size):
        rows = range(start, min(start + size, len(streams)))
        drawing = streams[rows.start : rows.stop]
        if sharded:
            responses += draw_sharded(model, take(rows), drawing, config)
        else:
            firsts, sources = group(rows)
            responses += draw(model, take(firsts), sources, drawing, config, sharing)
    return responses


def draw_sharded(
    model: Any,
    inputs: Mapping[str, Tensor],
    streams: Sequence[torch.Generator],
    config: GenerationConfig,
) -> list[list[int]]:
    """Draw as `draw` does, a row a response, by transformers' `generate`: where weights are gathered layer by
    layer from all processes, these must take as many steps as each other, and `generate` sees to that."""
    rules = LogitsProcessorList([*_warpers(config), DrawByRow(1.0, streams)])
    cache = {} if config.cache_implementation else {"past_key_values": roomy_cache(model.config)}
    greedy = _without_sampling(config)
    tokens = model.generate(**inputs, generation_config=greedy, logits_processor=rules, **cache)
    ends = _ids(config.eos_token_id)
    written = tokens[:, inputs["input_ids"].shape[1] :].tolist()
    return [_until_end(row, ends) for row in written]


def sampling_bans(forbidden: Sequence[int], vllm: bool) -> dict[str, Any]:
    """Return the generation arguments that keep `forbidden` token ids out: `suppress_tokens` for
    transformers; for vLLM, whose sampling has no such list, the strongest bias against each that it takes.

    >>> sampling_bans([7, 9], vllm=True)
    {'logit_bias': {7: -100.0, 9: -100.0}}
    """
    if vllm:
        return {"logit_bias": dict.fromkeys(forbidden, -100.0)}
    return {"suppress_tokens": list(forbidden)}


def find_forbidden(model: Any, processor: Any) -> list[int]:
    """Return vision, padding and chat tokens: in a response they would be taken for images, or for a turn of the
    chat."""
    vocab_size = model.get_input_embeddings().num_embeddings  # under ZeRO-3 the weight itself is empty
    return forbidden_ids(processor.tokenizer, vocab_size, stop_ids(model, processor.tokenizer))


def find_runs(
    prompts: Sequence[Sequence[int]],
    images: Sequence[Sequence[Any]] | None,
    rows: Sequence[int] | None = None,
) -> tuple[list[int], list[int]]:
    """Return (those of `rows` that begin a run of equal prompts, for each row its run); prompts are equal if
    their tokens are, and their images are the same objects.

    >>> find_runs([[1, 2], [1, 2], [3], [1, 2]], None)
    ([0, 2, 3], [0, 0, 1, 2])
    """
    firsts: list[int] = []
    sources: list[int] = []
    for row in range(len(prompts)) if rows is None else rows:
        last = firsts[-1] if firsts else None
        if last is None or prompts[row] != prompts[last] or not _is_same(images, row, last):
            firsts.append(row)
        sources.append(len(firsts) - 1)
    return firsts, sources


def _is_same(images: Sequence[Sequence[Any]] | None, row: int, other: int) -> bool:
    if images is None:
        return True
    here, there = images[row] or (), images[other] or ()
    return len(here) == len(there) and all(a is b for a, b in zip(here, there, strict=True))


def pad_left(
    prompt_ids: Sequence[Sequence[int]], fields: Mapping[str, Any], pad_id: int, device: torch.device
) -> dict[str, Tensor]:
    """Return the model's inputs: what comes as lists stands per token and is padded as the prompts are."""

    def padded(rows: Any, fill: int) -> Tensor:
        return pad([torch.as_tensor(row) for row in rows], padding_value=fill, padding_side="left")

    inputs = {
        "input_ids": padded(prompt_ids, pad_id),
        "attention_mask": padded([torch.ones(len(ids), dtype=torch.long) for ids in prompt_ids], 0),
    }
    inputs |= {
        name: value if isinstance(value, Tensor) else padded(value, 0) for name, value in fields.items()
    }
    return {name: value.to(device) for name, value in inputs.items()}


def take_rows(
    inputs: Mapping[str, Tensor], images_per_row: Sequence[int] | None, rows: Sequence[int]
) -> dict[str, Tensor]:
    """Return the given rows of a batch, with their images."""
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
    """Yield transformers' own, in its order; they come before a token is drawn."""
    if config.temperature not in (None, 1.0):
        yield TemperatureLogitsWarper(config.temperature)
    if config.top_k:
        yield TopKLogitsWarper(config.top_k)
    if config.top_p is not None and config.top_p < 1.0:
        yield TopPLogitsWarper(config.top_p)
    if config.min_p is not None:
        yield MinPLogitsWarper(config.min_p)


def _without_sampling(config: GenerationConfig) -> GenerationConfig:
    """Return the same configuration for `generate`, which then takes the one token that `DrawByRow` leaves."""
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
