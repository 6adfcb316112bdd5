"""Keys and values of past tokens, kept where there is room for those to come.

transformers' dynamic cache concatenates at each token, which copies all that is there: on a CPU, in batches, the
largest single cost of generation. Here each layer writes into a buffer with room to spare and hands out a view of
the part that is filled, so the numbers that attention sees are the same.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

ROOM = 128
"""Tokens of room that a full buffer is enlarged by."""


def roomy_cache(config: PreTrainedConfig) -> DynamicCache:
    """An empty cache for `model.generate(past_key_values=…)`: a `DynamicCache` whose plain layers have room.

    Layers of other kinds (sliding windows) stay transformers' own.
    """
    cache = DynamicCache(config=config)
    cache.layers = [
        _RoomyLayer() if type(layer) is DynamicLayer else layer  # type: ignore[no-untyped-call]
        for layer in cache.layers
    ]
    return cache


class _RoomyLayer(DynamicLayer):
    """`keys` and `values`, (batch, heads, tokens, width), are views of the filled parts of two larger buffers."""

    _buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        filled = self.get_seq_length()
        end = filled + key_states.shape[-2]
        buffers = self._buffers
        if buffers is None or buffers[0].shape[-2] < end or not _is_view(self.keys, buffers[0]):
            buffers = (_enlarged(self.keys, key_states, end), _enlarged(self.values, value_states, end))
            self._buffers = buffers
        for buffer, new in zip(buffers, (key_states, value_states), strict=True):
            buffer[..., filled:end, :] = new
        self.keys, self.values = (buffer[..., :end, :] for buffer in buffers)
        return self.keys, self.values

    def reset(self) -> None:
        self._buffers = None
        super().reset()


def _is_view(part: torch.Tensor, buffer: torch.Tensor) -> bool:
    """Cropping leaves a view; repeating or selecting rows puts other tensors in place."""
    return part.data_ptr() == buffer.data_ptr() and part.shape[0] == buffer.shape[0]


def _enlarged(old: torch.Tensor, new: torch.Tensor, tokens: int) -> torch.Tensor:
    batch, heads, _, width = new.shape
    buffer = new.new_empty((batch, heads, tokens + ROOM, width))
    if old.numel():
        buffer[..., : old.shape[-2], :] = old
    return buffer
