"""Choose the precision that a run computes in: bfloat16 where it was asked for and the device has it."""

from __future__ import annotations

import torch

from univg.models.devices import find_processor

__all__ = ["computes_in_bf16", "describe_precision", "has_bf16"]


def has_bf16() -> bool:
    """Tell whether the device that training runs on is quicker in bfloat16 than in float32; see
    :func:`~univg.models.devices.is_quick_in_bf16` for processors."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.backends.mps.is_available():
        return True
    # oneDNN's own answer is yes where it only emulates, and no where it is kept from instructions that there are.
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and find_processor().bf16


def computes_in_bf16(asked: bool) -> bool:
    """Tell whether a run whose config has `bf16: asked` computes in bfloat16 (autocast) here."""
    return asked and has_bf16()


def describe_precision(asked: bool) -> str:
    """Return the plan's line on it.

    >>> describe_precision(False)
    'computes in float32 (bf16: false)'
    """
    cuda = torch.cuda.is_available()
    device = "GPU" if cuda or torch.backends.mps.is_available() else "processor"
    if computes_in_bf16(asked):
        return f"computes in bfloat16, in which this {device} is quicker"
    why = f": bf16 was asked for, but this {device} is slower in it" if asked else " (bf16: false)"
    return f"computes in float32{why}"
