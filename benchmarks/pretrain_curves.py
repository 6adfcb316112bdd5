"""Draw how runs of base training learnt, from their logs: the loss, the digits of boxes, the auxiliary heads.

    python benchmarks/pretrain_curves.py LABEL=runs/base/log.jsonl LABEL=runs/think/log.jsonl --out curves.png

Each point is the mean of 20 steps. Logs of several runs that followed each other may be given as LABEL=FIRST,SECOND.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt

TERMS = {
    "loss": "loss of all tokens",
    "box_token": "loss of a box's digits",
    "dense_box": "box under an image token",
}
STEPS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+", help="LABEL=LOG or LABEL=LOG,LOG")
    parser.add_argument("--batch", type=int, default=256, help="samples a step (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("curves.png"))
    settings = parser.parse_args()
    figure, axes = plt.subplots(1, len(TERMS), figsize=(12, 3.2), layout="constrained")
    for run in settings.runs:
        label, _, logs = run.partition("=")
        rows = [row for log in logs.split(",") for row in read(Path(log))]
        for axis, (term, title) in zip(axes, TERMS.items(), strict=True):
            means = [mean([row[term] for row in rows[at : at + STEPS]]) for at in range(0, len(rows), STEPS)]
            seen = [(at + 0.5) * STEPS * settings.batch / 1000 for at in range(len(means))]
            axis.plot(seen, means, label=label)
            axis.set(title=title, xlabel="thousand samples", yscale="log")
    axes[0].legend()
    figure.savefig(settings.out, dpi=110)
    print(settings.out)


def read(log: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if "loss" in row]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
