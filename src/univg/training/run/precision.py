"""Choose the precision that a run computes in: bfloat16 where it was asked for and the device has it."""

from __future__ import annotations

import platform

import torch

__all__ = ["computes_in_bf16", "describe_precision", "has_bf16"]

_X86 = ("x86_64", "amd64")


def has_bf16() -> bool:
    """Tell whether the device that training runs on is quicker in bfloat16 than in float32.

    An x86 processor is with AMX; with AVX512-BF16 alone it takes 1.1 to 1.5 times as long, and emulating, which oneDNN
    calls supported too, 4 times on AVX-512 and more than 20 times without (docs/experiments.md, section 11).
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.backends.mps.is_available():
        return True
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    if platform.machine().lower() not in _X86:
        return True
    return bool(torch.cpu._is_amx_tile_supported())


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
    lacks = " has no AMX, and" if device == "processor" and platform.machine().lower() in _X86 else ""
    why = f": bf16 was asked for, but this {device}{lacks} is slower in it" if asked else " (bf16: false)"
    return f"computes in float32{why}"
