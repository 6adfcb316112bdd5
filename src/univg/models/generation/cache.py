"""Keep keys and values of past tokens where there is room for those to come.

transformers' dynamic cache concatenates at each token, which copies all that is there: on a CPU, in batches, the
largest single cost of generation. Here each layer writes into a buffer with room to spare and hands out a view of
the part that is filled, so the numbers that attention sees are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

ROOM = 128
"""Tokens of room that a full buffer is enlarged by."""


def roomy_cache(config: PreTrainedConfig) -> DynamicCache:
    """Make an empty cache for a model's `past_key_values`: a `DynamicCache` whose plain layers have room.

    Layers of other kinds (sliding windows) stay transformers' own.
    """
    cache = DynamicCache(config=config)
    cache.layers = [_RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def keep_rows(cache: DynamicCache, places: Sequence[int]) -> None:
    """Keep these rows of the batch, in this order.

    Where every row stays or moves up from behind the new end, only those that move are copied.
    """
    index: torch.Tensor | None = None
    for layer in cache.layers:
        if not getattr(layer, "is_initialized", True):  # nothing has been written yet
            continue
        if isinstance(layer, _RoomyLayer) and layer.close_up(places):
            continue
        if index is None:
            index = torch.tensor(places, device=layer.keys.device)
        layer.batch_select_indices(index)


def joinable(config: PreTrainedConfig) -> bool:
    """Tell whether all layers keep every token, so that caches of several batches can become one."""
    return all(isinstance(layer, _RoomyLayer) for layer in roomy_cache(config).layers)


def join_caches(caches: Sequence[DynamicCache]) -> DynamicCache:
    """Put the rows of all of them into one cache, padded on the left with zeros to the longest.

    Takes the caches apart as it goes: at no time is more than one layer there twice.
    """
    if len(caches) == 1:
        return caches[0]
    cache = caches[0]
    for layer, *others in zip(*(each.layers for each in caches), strict=True):
        assert isinstance(layer, _RoomyLayer)
        layer.take_in(others)
    return cache


class _RoomyLayer(DynamicLayer):
    """`keys` and `values`, (batch, heads, tokens, width), are views of the filled parts of two larger buffers."""

    keys: torch.Tensor | None
    values: torch.Tensor | None
    _buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        filled = self.get_seq_length()
        end = filled + key_states.shape[-2]
        buffers, rows = self._buffers, len(key_states)
        if buffers is None or buffers[0].shape[-2] < end or not _is_view(self.keys, buffers[0]):
            buffers = (_enlarge(self.keys, key_states, end), _enlarge(self.values, value_states, end))
            self._buffers = buffers
        for buffer, new in zip(buffers, (key_states, value_states), strict=True):
            buffer[:rows, :, filled:end] = new
        self.keys, self.values = (buffer[:rows, :, :end] for buffer in buffers)
        return self.keys, self.values

    def close_up(self, places: Sequence[int]) -> bool:
        """Keep these rows, moving few; False if that is not how they lie, and nothing is done."""
        buffers, rows = self._buffers, len(places)
        moves = [(place, source) for place, source in enumerate(places) if place != source]
        if buffers is None or not _is_view(self.keys, buffers[0]) or any(old < rows for _, old in moves):
            return False
        tokens = self.get_seq_length()
        for buffer in buffers:
            for place, source in moves:
                buffer[place, :, :tokens] = buffer[source, :, :tokens]
        self.keys, self.values = (buffer[:rows, :, :tokens] for buffer in buffers)
        return True

    def take_in(self, others: Sequence[DynamicLayer]) -> None:
        """Put the rows of other layers behind those here; the others are left empty."""
        layers = [self, *others]
        self._buffers = (
            _stack([layer.keys for layer in layers]),
            _stack([layer.values for layer in layers]),
        )
        tokens = self._buffers[0].shape[-2] - ROOM
        for layer in others:
            layer.reset()
            layer.keys = layer.values = None
        self.keys, self.values = (buffer[..., :tokens, :] for buffer in self._buffers)

    def reset(self) -> None:
        self._buffers = None
        super().reset()


def _is_view(part: torch.Tensor | None, buffer: torch.Tensor) -> bool:
    """Tell whether a layer lies in its buffer: cropping leaves a view, selecting rows makes other tensors."""
    return part is not None and part.data_ptr() == buffer.data_ptr()


def _enlarge(old: torch.Tensor, new: torch.Tensor, tokens: int) -> torch.Tensor:
    batch, heads, _, width = new.shape
    buffer = new.new_empty((batch, heads, tokens + ROOM, width))
    if old.numel():
        buffer[..., : old.shape[-2], :] = old
    return buffer


def _stack(parts: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """Make one buffer, with room, for all rows. What is left of a short row's first token counts nowhere, but must be
    a number: nothing times NaN is NaN."""
    held = [part for part in parts if part is not None]
    rows, tokens = sum(len(part) for part in held), max(part.shape[-2] for part in held)
    _, heads, _, width = held[0].shape
    buffer = held[0].new_empty((rows, heads, tokens + ROOM, width))
    row = 0
    for part in held:
        place = buffer[row : row + len(part)]
        place[:, :, : tokens - part.shape[-2]] = 0
        place[:, :, tokens - part.shape[-2] : tokens] = part
        row += len(part)
    return buffer
