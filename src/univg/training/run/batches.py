"""Batches of what is to be learnt: prompts with their answers, drawn step by step in data workers.

A row's tokens are those of its prompt, then those of its answer, as generation would append them. Rows of like length
are joined, so that little of a micro-batch is padding, which stands on the right.

Pictures travel as bytes, an eighth of what a model is given of them, and through a worker's pipe, as a container has
next to no shared memory.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from univg.models.processor import GroundingProcessor
from univg.training.run.workers import be_a_worker

__all__ = [
    "IGNORED",
    "STEPS_AHEAD",
    "PixelTable",
    "encode_row",
    "join_inputs",
    "load_steps",
    "pad_right",
    "split_by_length",
]

IGNORED = -100
"""The label of a token that is not learnt: prompt, pictures, padding."""
STEPS_AHEAD = 2
"""So many steps each worker makes ahead: one to be at hand, one because steps differ."""

B = TypeVar("B")


def encode_row(
    processor: GroundingProcessor, images: Sequence[Image.Image], prompt: str, response: str
) -> dict[str, Any]:
    """Encode one sample: `ids`, `labels` and `types` (lists, one entry a token), `bytes` and `grids` (tensors).

    `prompt` is the text with the chat's marks. `bytes` (patches, colours × pixels) are the pictures, resized and cut
    into patches, of which :class:`PixelTable` makes the model's input. The labels are `IGNORED` up to the answer, which
    ends its turn.
    """
    encoded = processor(
        images=[list(images)], text=[prompt], do_rescale=False, do_normalize=False, return_tensors="pt"
    )
    ids = encoded["input_ids"][0].tolist()
    answer = [*processor.encode_text(response), _end_of_turn(processor)]
    return {
        "ids": ids + answer,
        "labels": [IGNORED] * len(ids) + answer,
        "types": encoded["mm_token_type_ids"][0].tolist() + [0] * len(answer),
        "bytes": _split_patches(processor, encoded["pixel_values"])[:, :, 0].flatten(1).to(torch.uint8),
        "grids": encoded["image_grid_thw"],
    }


def _split_patches(processor: GroundingProcessor, pixels: Tensor) -> Tensor:
    """View patches as (patches, colours, times, pixels); a still picture is the same at all times."""
    return pixels.view(
        len(pixels),
        -1,
        processor.image_processor.temporal_patch_size,
        processor.image_processor.patch_size**2,
    )


class PixelTable:
    """What the processor makes of each byte of each colour: bit for bit its own patches, at the place they are used.

    Rescaling and normalising look at one value at a time, so the processor is asked once, about a picture of all bytes.
    """

    def __init__(self, processor: GroundingProcessor) -> None:
        images = processor.image_processor
        side = images.patch_size * images.merge_size
        grey = (np.arange(side * side) % 256).astype(np.uint8).reshape(side, side, 1).repeat(3, axis=2)
        picture = {"images": [Image.fromarray(grey)], "do_resize": False, "return_tensors": "pt"}
        raw = images(**picture, do_rescale=False, do_normalize=False)["pixel_values"]
        before, after = (_split_patches(processor, each) for each in (raw, images(**picture)["pixel_values"]))
        self.times = before.shape[2]
        self.table = torch.zeros(before.shape[1], 256)
        for colour, values in enumerate(self.table):
            values[before[:, colour].flatten().long()] = after[:, colour].flatten()

    def spread(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return inputs with the model's `pixel_values` in the place of `pixel_bytes`; others as they are."""
        inputs = dict(inputs)
        if (packed := inputs.pop("pixel_bytes", None)) is not None:
            colours = packed.view(len(packed), len(self.table), -1).int().unbind(1)
            seen = [
                row[bytes_NP] for row, bytes_NP in zip(self.table.to(packed.device), colours, strict=True)
            ]
            inputs["pixel_values"] = torch.stack(seen, 1).repeat_interleave(self.times, dim=1).flatten(1)
        return inputs


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
    """Join encoded rows to a model's inputs: tokens (rows, longest row), patches, as bytes, one after the other."""
    return {
        "input_ids": pad_right(rows, "ids", pad_id),
        "mm_token_type_ids": pad_right(rows, "types", 0),
        "pixel_bytes": torch.cat([row["bytes"] for row in rows]),
        "image_grid_thw": torch.cat([row["grids"] for row in rows]),
    }


class _Parcels(Dataset[bytes]):
    """Steps, each as one string of bytes: torch would put every tensor of theirs into shared memory."""

    def __init__(self, steps: Dataset[Any]) -> None:
        self.steps = steps

    def __getitem__(self, step: int) -> bytes:
        parcel = io.BytesIO()
        _Packer(parcel, protocol=5).dump(self.steps[step])
        return parcel.getvalue()


class _Packer(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        return (torch.from_numpy, (value.numpy(),)) if isinstance(value, Tensor) else NotImplemented


def load_steps(steps: Dataset[B], start: int, stop: int, workers: int) -> Iterator[B]:
    """Yield `steps[start]` … `steps[stop - 1]` in order, made ahead by `workers` processes (0: by this one)."""
    if not workers:
        return (steps[step] for step in range(start, stop))
    loader: Any = DataLoader(
        _Parcels(steps),
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        prefetch_factor=STEPS_AHEAD,
        worker_init_fn=be_a_worker,
        collate_fn=bytes,
        generator=torch.Generator(),  # its own: the run's random numbers stay where the checkpoint has them
    )
    return map(pickle.loads, loader)
