"""Measure how long an answer takes while other programs use the cores, with and without OpenMP's long waiting loops.

    python benchmarks/busy_machine.py --busy 3 --rounds 2

Printed for each setting and round: seconds that `univg ground` says an answer took. As many programs as
`--busy` says compute without end meanwhile, at the same priority.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile

from univg.files import EXAMPLES
from univg.grounding.samples import read_jsonl

PATIENCE_S = 100
SETTINGS = {
    "OpenMP as it comes": {"GOMP_SPINCOUNT": "300000"},
    "univg": {},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def measure(command: list[str], environment: dict[str, str]) -> str:
    try:
        told = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE_S
        ).stdout
    except subprocess.TimeoutExpired:
        return f"> {PATIENCE_S}"
    found = re.search(r"embedded, (\S+) s", told)
    return found[1] if found else "?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--busy", type=int, default=3, help="programs that compute without end")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    sample = next(iter(read_jsonl(EXAMPLES / "samples.jsonl")))
    images = [str(EXAMPLES / name) for name in sample.images]
    spinning = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(spinning) for _ in range(arguments.busy)]
    try:
        with tempfile.TemporaryDirectory() as out:
            command = [
                sys.executable,
                "-m",
                "univg",
                "ground",
                *images,
                "-q",
                sample.query,
            ]
            for _ in range(arguments.rounds):
                for name, variables in SETTINGS.items():
                    environment = {**os.environ, **variables}
                    print(f"{name:24} {measure([*command, '--out', out], environment):>8} s", flush=True)
    finally:
        for one in busy:
            one.kill()
            one.wait()


if __name__ == "__main__":
    main()
