"""Batches of what is to be learnt: prompts with their answers, drawn step by step in data workers.

A row's tokens are those of its prompt, then those of its answer, as generation would append them. Rows of like length
are joined, so that little of a micro-batch is padding, which stands on the right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from univg.models.processor import GroundingProcessor

__all__ = ["IGNORED", "encode_row", "join_inputs", "load_steps", "pad_right", "split_by_length"]

IGNORED = -100
"""The label of a token that is not learnt: prompt, pictures, padding."""

B = TypeVar("B")


def encode_row(
    processor: GroundingProcessor, images: Sequence[Image.Image], prompt: str, response: str
) -> dict[str, Any]:
    """Encode one sample: `ids`, `labels` and `types` (lists, one entry a token), `pixels` and `grids` (tensors).

    `prompt` is the text with the chat's marks. The labels are `IGNORED` up to the answer, which ends its turn.
    """
    encoded = processor(images=[list(images)], text=[prompt], return_tensors="pt")
    ids = encoded["input_ids"][0].tolist()
    answer = [*processor.tokenizer.encode(response), _end_of_turn(processor)]
    return {
        "ids": ids + answer,
        "labels": [IGNORED] * len(ids) + answer,
        "types": encoded["mm_token_type_ids"][0].tolist() + [0] * len(answer),
        "pixels": encoded["pixel_values"],
        "grids": encoded["image_grid_thw"],
    }


def _end_of_turn(processor: GroundingProcessor) -> int:
    tokenizer = processor.tokenizer
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")  # a base model's own end mark is another token
    return int(end if end is not None and end != tokenizer.unk_token_id else tokenizer.eos_token_id)


def split_by_length(rows: Sequence[Mapping[str, Any]], size: int) -> list[list[Mapping[str, Any]]]:
    """Sort rows by their length and cut them into runs of `size`."""
    ordered = sorted(rows, key=lambda row: len(row["ids"]))
    return [ordered[i : i + size] for i in range(0, len(ordered), size)]


def pad_right(
    rows: Sequence[Mapping[str, Any]], name: str, fill: float, dtype: torch.dtype = torch.long
) -> Tensor:
    """Stack one field of the rows as (rows, longest row).

    >>> pad_right([{"ids": [1, 2]}, {"ids": [3]}], "ids", 0).tolist()
    [[1, 2], [3, 0]]
    """
    longest = max(len(row[name]) for row in rows)
    return torch.tensor([row[name] + [fill] * (longest - len(row[name])) for row in rows], dtype=dtype)


def join_inputs(rows: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, Tensor]:
    """Join encoded rows to a model's inputs: tokens (rows, longest row), pixels one after the other."""
    return {
        "input_ids": pad_right(rows, "ids", pad_id),
        "mm_token_type_ids": pad_right(rows, "types", 0),
        "pixel_values": torch.cat([row["pixels"] for row in rows]),
        "image_grid_thw": torch.cat([row["grids"] for row in rows]),
    }


def load_steps(steps: Dataset[B], start: int, stop: int, workers: int) -> Iterator[B]:
    """Yield `steps[start]` … `steps[stop - 1]` in order, made ahead by `workers` processes (0: by this one)."""
    loader: Any = DataLoader(
        steps,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_use_one_thread if workers else None,
        generator=torch.Generator(),  # its own: the run's random numbers stay where the checkpoint has them
    )
    return iter(loader)


def _use_one_thread(number: int) -> None:
    torch.set_num_threads(1)
