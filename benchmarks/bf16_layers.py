"""Is bfloat16 quicker than float32 on this processor? Forward and backward passes of linear layers, one thread.

    ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1 python benchmarks/bf16_layers.py

Prints seconds in bfloat16 over seconds in float32. The variable keeps oneDNN from newer instructions, so that one
machine can stand for older ones: AVX512_CORE_AMX, AVX512_CORE_BF16, AVX512_CORE, AVX2.
"""

from __future__ import annotations

import time

import torch

LAYERS = ((512, 192, 640), (2048, 192, 640), (2048, 640, 192), (1024, 1024, 1024))
ROUNDS = 15


def seconds(rows: int, inputs: int, outputs: int, dtype: torch.dtype) -> float:
    batch = torch.randn(rows, inputs).to(dtype)
    layer = torch.nn.Linear(inputs, outputs, bias=False).to(dtype)
    for _ in range(3):
        layer(batch).sum().backward()
    started = time.perf_counter()
    for _ in range(ROUNDS):
        layer(batch).sum().backward()
    return (time.perf_counter() - started) / ROUNDS


def main() -> None:
    torch.set_num_threads(1)
    print("| layer | bf16 / float32 |\n|---|---:|")
    for layer in LAYERS:
        ratio = seconds(*layer, torch.bfloat16) / seconds(*layer, torch.float32)
        print(f"| {' × '.join(map(str, layer))} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
