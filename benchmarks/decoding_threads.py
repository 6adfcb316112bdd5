"""Measure a token's time in one thread and in all, over models of several sizes, alone and beside other programs.

    python benchmarks/decoding_threads.py                 # some three minutes
    python benchmarks/decoding_threads.py --busy 3        # three programs compute without end meanwhile
    python benchmarks/decoding_threads.py --spins 3000 10000 300000

Printed: milliseconds a token, the median of five responses of 32 tokens, for one row and for eight that share a
prompt of 400 tokens. `--spins`: how long OpenMP's threads wait in a loop before they sleep (GNU's; its own is 300000).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

WIDTHS = {256: 6, 384: 8, 512: 10, 768: 12, 1024: 12}
PROMPT, TOKENS, REPEATS = 400, 32, 5


def measure(width: int, threads: int) -> dict[str, float]:
    """Return millions of weights, and milliseconds a token with one row and with eight."""
    import torch

    from univg.models.generation import decoding
    from univg.models.generation.shared_cache import shared
    from univg.models.tiny import build_tiny

    text = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": WIDTHS[width]}
    model, _ = build_tiny(
        text=text | {"num_attention_heads": width // 64, "num_key_value_heads": width // 128}
    )
    decoding.FEW_WEIGHTS = 0  # as many threads as are set here
    ids = torch.randint(30, 200, (1, PROMPT))
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": torch.zeros_like(ids),
    }
    result = {"weights": sum(weight.numel() for weight in model.model.language_model.parameters()) / 1e6}
    for rows in (1, 8):
        taken = []
        for _ in range(REPEATS + 1):  # the first is slower
            prefix = shared(model, decoding.prefill(model, inputs), [0] * rows)
            torch.set_num_threads(threads)
            started = time.perf_counter()
            decoding.decode(model, prefix, lambda logits, _: logits.argmax(-1), [], TOKENS)
            taken.append(time.perf_counter() - started)
            torch.set_num_threads(os.cpu_count() or 1)
        result[str(rows)] = statistics.median(taken[1:]) / TOKENS * 1e3
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS), choices=WIDTHS)
    parser.add_argument("--spins", type=int, nargs="+", default=[10000])
    parser.add_argument("--busy", type=int, default=0, help="programs that compute without end meanwhile")
    parser.add_argument("--of", type=int, nargs=2, metavar=("WIDTH", "THREADS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.of:
        print(json.dumps(measure(*arguments.of)))
        return
    cores = os.cpu_count() or 1
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(arguments.busy)]
    print(f"{cores} cores, {arguments.busy} programs beside; ms a token: one thread, {cores} threads")
    try:
        for spin in arguments.spins:
            for width in arguments.widths:
                environment = {**os.environ, "GOMP_SPINCOUNT": str(spin), "OMP_NUM_THREADS": str(cores)}
                one, all_ = (
                    json.loads(
                        subprocess.run(
                            [sys.executable, __file__, "--of", str(width), str(threads)],
                            env=environment,
                            capture_output=True,
                            text=True,
                            check=True,
                        ).stdout.splitlines()[-1]
                    )
                    for threads in (1, cores)
                )
                rows = ", ".join(f"{rows} rows {one[rows]:.1f} {all_[rows]:.1f}" for rows in ("1", "8"))
                print(f"spin {spin}, {one['weights']:.0f} M weights: {rows}", flush=True)
    finally:
        for program in busy:
            program.kill()


if __name__ == "__main__":
    main()
