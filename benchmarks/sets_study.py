"""Ask whether sets are learnt on the world, and what it costs: the embedded model, stage 1, and four arms of stage 2.

    python benchmarks/sets_study.py --out runs/sets-study            # all of it: some hours on two CPU cores
    python benchmarks/sets_study.py --out runs/sets-study --arm grpo # one arm
    python benchmarks/sets_study.py --out runs/sets-study --steps 4 --n 4   # whether it runs at all

Each arm is trained and evaluated by the command (`univg sft --config sets-sft`, `univg grpo --config sets-grpo`, `univg
evaluate`) in a folder of its own. Stopped at any moment, the same line goes on where it was. At the end, and whenever
it is called again, it prints two tables from all arms that are evaluated, and writes them to OUT/table.md:

- families of sets: soft-F1, F1 at 0.5, the images named, refusals where nothing is there and where something is;
- families of one box: Acc@0.5 and mean IoU, and what changed since before, sample by sample.

Intervals are 95 %: of means by bootstrap over samples within their task, of shares by Wilson.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from univg.evaluate.benchmarks import open_world
from univg.evaluate.runs import read_rows, read_run
from univg.grounding.reading import Asked, read
from univg.grounding.samples import GroundingSample
from univg.grounding.scoring import score
from univg.report.markdown import table
from univg.report.statistics import MACRO, compare, summarise, wilson_interval

SETS = ("find_all", "absent", "odd_one_out")
LONGEST = 320  # tokens of an answer; the longest exact ones take 272
ARMS: Mapping[str, Sequence[str]] = {
    "before": (),
    "sft": (),
    "grpo": (),
    "grpo-no-image": ("rewards={set_f1: 1.0, format: 1.0}",),
    "grpo-no-weights": ("weighting=none",),
    "grpo-no-image-no-weights": ("rewards={set_f1: 1.0, format: 1.0}", "weighting=none"),
}
"""What an arm changes of `sets-grpo`; `before` is the embedded model, `sft` where all of stage 2 start."""
Rows = dict[str, dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/sets-study"), help="folder of all runs")
    parser.add_argument("--arm", action="append", choices=ARMS, help="only this arm; repeat for several")
    parser.add_argument("--n", type=int, default=100, help="samples of each family (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the runs (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="fewer steps of each stage than the presets'")
    settings = parser.parse_args()
    for name in settings.arm or ARMS:
        evaluate(train(name, settings), name, settings)
    text = describe({name: rows for name in ARMS if (rows := read_arm(settings, name))})
    (settings.out / "table.md").write_text(text, encoding="utf-8")
    print(text)


def train(name: str, settings: argparse.Namespace) -> str:
    """Train an arm as far as it is not, and return its model."""
    if name == "before":
        return "embedded"
    folder = settings.out / f"{name}-seed{settings.seed}"
    if (folder / "model.safetensors").exists():
        return str(folder)
    changes = [f"seed={settings.seed}", *ARMS[name]]
    if settings.steps:
        changes.append(f"max_steps={settings.steps}")
    stage, preset = ("sft", "sets-sft") if name == "sft" else ("grpo", "sets-grpo")
    if stage == "grpo":
        changes.append(f"model={train('sft', settings)}")
    run([stage, "--config", preset, "--out", str(folder), "--resume", *changes])
    return str(folder)


def evaluate(model: str, name: str, settings: argparse.Namespace) -> None:
    """Answer the test worlds, as far as they are not answered: families of one box, then those of sets."""
    for kind, tasks in (("one-box", ()), ("sets", SETS)):
        command = ["evaluate", "--benchmark", "world", "--model", model, "--n", str(settings.n)]
        command += [part for task in tasks for part in ("--task", task)]
        command += ["--max-new-tokens", str(LONGEST), "--out", str(place(settings, name, kind))]
        run(command)


def place(settings: argparse.Namespace, name: str, kind: str) -> Path:
    return Path(settings.out) / f"{name}-seed{settings.seed}-{kind}"


def run(arguments: Sequence[str]) -> None:
    print("univg", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "univg", *arguments], check=True)


def read_arm(settings: argparse.Namespace, name: str) -> dict[str, Rows]:
    """Return an arm's rows by kind and key; nothing where it is not evaluated."""
    found = {}
    for kind, tasks in (("one-box", ()), ("sets", SETS)):
        folder = place(settings, name, kind)
        if not (folder / "run.json").exists():
            return {}
        samples = {item.key: item.sample for item in open_world("world", settings.n, tasks=tasks).items()}
        rows = read_rows(folder, read_run(folder)["id"])
        found[kind] = {key: judge(samples[key], row) for key, row in rows.items() if key in samples}
    return found if all(found.values()) else {}


def judge(sample: GroundingSample, row: Mapping[str, Any]) -> dict[str, Any]:
    """Score an answer anew, from its text, by all that the tables need."""
    asked = replace(Asked.of(sample), style=row["style"])
    reading = read(row["text"], asked, truncated=row["truncated"])
    result = score(sample, reading)
    return {
        "task": sample.task,
        "fault": reading.fault,
        "truncated": reading.truncated,
        "format_ok": result.format_ok,
        "iou": result.iou,
        "hit_50": result.hit_50,
        "f1_50": result.match.f1(0.5) if reading.boxes or reading.says_none else 0.0,
        "images": result.match.image_f1,
        "refuses": reading.says_none,
        "there": bool(sample.boxes),
        "count_error": abs(len(reading.boxes) - len(sample.boxes)),
    }


def describe(arms: Mapping[str, Mapping[str, Rows]]) -> str:
    """Write both tables."""
    header = ("arm", "n", "soft-F1", "F1@0.5", "find_all: F1@0.5", "images (F1)", "count error")
    refusals = ("refuses where nothing is there", "refuses where something is")
    of_sets = [(name, *describe_sets(list(arm["sets"].values()))) for name, arm in arms.items()]
    one_box = []
    for name, arm in arms.items():
        total = summarise(list(arm["one-box"].values()), ("hit_50", "iou")).total
        since = ["", ""]
        if name != "before" and "before" in arms:
            lines = compare(arms["before"]["one-box"], arm["one-box"]).lines
            macro = next(line for line in lines if line.name == MACRO)
            since = [points(macro.estimates[key], sign="+") for key in ("hit_50", "iou")]
        both = [points(total.estimates[key]) for key in ("hit_50", "iou")]
        one_box.append((name, len(arm["one-box"]), both[0], since[0], both[1], since[1]))
    columns = ("arm", "n", "Acc@0.5", "since before", "mean IoU", "since before")
    return (
        f"### Families of sets\n\n{table((*header, *refusals), of_sets)}\n\n"
        f"### Families of one box\n\n{table(columns, one_box)}\n"
    )


def describe_sets(rows: Sequence[Mapping[str, Any]]) -> tuple[Any, ...]:
    total = summarise(rows, ("iou", "f1_50", "count_error"))
    find_all = summarise([row for row in rows if row["task"] == "find_all"], ("f1_50",)).total
    placed = [row for row in rows if row["images"] is not None and row["there"]]
    mean = total.total.estimates
    return (
        len(rows),
        points(mean["iou"]),
        points(mean["f1_50"]),
        points(find_all.estimates["f1_50"]),
        f"{100 * sum(row['images'] for row in placed) / max(1, len(placed)):.1f}",
        f"{mean['count_error'].value:.2f}",
        share([row["refuses"] for row in rows if not row["there"]]),
        share([row["refuses"] for row in rows if row["there"]]),
    )


def points(estimate: Any, sign: str = "") -> str:
    value, low, high = (100 * each for each in (estimate.value, estimate.low, estimate.high))
    return f"{value:{sign}.1f} ({low:{sign}.1f} … {high:{sign}.1f})"


def share(told: Sequence[bool]) -> str:
    if not told:
        return "–"
    low, high = wilson_interval(sum(told), len(told))
    return f"{100 * sum(told) / len(told):.0f} % ({100 * low:.0f} … {100 * high:.0f}; n = {len(told)})"


if __name__ == "__main__":
    main()
