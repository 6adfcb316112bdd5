"""Choose the precision that a run computes in: bfloat16 where it was asked for and the device has it."""

from __future__ import annotations

import platform

import torch

__all__ = ["computes_in_bf16", "describe_precision", "has_bf16"]


def has_bf16() -> bool:
    """Tell whether the device that training runs on multiplies bfloat16 numbers itself.

    A processor that does not have the instructions emulates them, and a training step then takes 7 to 8 times as long
    as in float32. oneDNN's own test is true of emulation on AVX-512 as well, so the instructions are asked for too.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.backends.mps.is_available():
        return True
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def computes_in_bf16(asked: bool) -> bool:
    """Tell whether a run whose config has `bf16: asked` computes in bfloat16 (autocast) here."""
    return asked and has_bf16()


def describe_precision(asked: bool) -> str:
    """Return the plan's line on it.

    >>> describe_precision(False)
    'computes in float32'
    """
    if computes_in_bf16(asked):
        return "computes in bfloat16, weights in float32"
    why = ": bf16 was asked for, and this device would only emulate it, several times slower" if asked else ""
    return f"computes in float32{why}"
