"""Build the study's tables and draw its pictures, from its rows alone.

Two kinds of interval stand side by side: over seeds (Student's t on the seeds' averages: would another training run
agree?), and over samples (bootstrap of the questions within families: would other questions agree?).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from univg.files import write_whole
from univg.report.plots import encode_png, make_figure
from univg.report.statistics import MACRO, MICRO, compare, student_reach
from univg.report.tables import Table
from univg.study.rows import ARMS, CLAIMS, ArmRow

__all__ = ["average_accuracy", "build_study_tables", "format_over_seeds", "write_pictures"]

_TITLES = {
    "world": "test worlds",
    "world_unseen": "unseen combinations",
    "world_drawn": "drawn by other programs",
    "world_v1": "test worlds of version 1",
    "world_v1_unseen": "unseen combinations of version 1",
}
_COLOURS = {"none": "#495057", "exp": "#1f6feb", "power": "#2b8a3e", "log": "#d9480f"}
_LEVELS = (("easy", "#2b8a3e"), ("medium", "#e67700"), ("hard", "#c92a2a"))


def build_study_tables(rows: Sequence[ArmRow]) -> list[Table]:
    """Build scores an arm on each split, the claims as paired differences, scores a family and what a last stage did to
    each, rollouts, compute."""
    splits = list(dict.fromkeys(split for row in rows for split in row["ious"]))
    claims = [table for split in splits if (table := _build_claims(rows, split)).rows]
    gains = [table for split in splits if (table := _build_gains(rows, split)).rows]
    rollouts = [table for table in (_build_rollouts(rows),) if table.rows]
    families = _build_families(rows, splits[0])
    return [_build_scores(rows, splits), *claims, families, *gains, *rollouts, _build_compute(rows)]


def average_accuracy(row: ArmRow, split: str) -> float:
    """Return Acc@0.5 averaged over families, 0 to 100: the paper's AVG."""
    return 100 * float(np.mean([np.mean(np.asarray(ious) >= 0.5) for ious in row["ious"][split].values()]))


def format_over_seeds(values: Sequence[float]) -> str:
    """Return the mean and half the 95 % interval of the mean over seeds.

    >>> format_over_seeds([50.0, 52.0, 54.0])
    '52.0 ± 5.0'
    >>> format_over_seeds([50.0])
    '50.0'
    """
    mean = f"{np.mean(values):.1f}"
    return f"{mean} ± {student_reach(values):.1f}" if len(values) > 1 else mean


def _group_by_arm(rows: Sequence[ArmRow]) -> dict[str, dict[int, ArmRow]]:
    found: dict[str, dict[int, ArmRow]] = {}
    for row in rows:
        found.setdefault(row["arm"], {})[row["seed"]] = row
    return found


def _build_scores(rows: Sequence[ArmRow], splits: Sequence[str]) -> Table:
    head = [f"Acc@0.5, {_TITLES[split]}" for split in splits]
    lines = []
    for arm, of_seed in _group_by_arm(rows).items():
        each = list(of_seed.values())
        cells = [format_over_seeds([average_accuracy(row, split) for row in each]) for split in splits]
        mean = 100 * np.mean([_join(row["ious"][splits[0]]).mean() for row in each])
        faults = 100 * np.mean([row["faults"][splits[0]] for row in each])
        lines.append((ARMS[arm].title, str(len(each)), *cells, f"{mean:.1f}", f"{faults:.1f} %"))
    headings = ("arm", "seeds", *head, "mean IoU", "faults")
    note = "Averages over families (the paper's AVG); ± is half the 95 % interval over seeds (Student's t)."
    about_thoughts = any(row["arm"].startswith("thoughts-") for row in rows)
    title = "Thoughts from several sources" if about_thoughts else "The paper's ablation in miniature"
    return Table(title, headings, tuple(lines), notes=(note,))


def _build_claims(rows: Sequence[ArmRow], split: str) -> Table:
    by_arm = _group_by_arm(rows)
    lines = []
    for claim, arm, against in CLAIMS:
        seeds = sorted(by_arm.get(arm, {}).keys() & by_arm.get(against, {}).keys())
        if not seeds:
            continue
        pairs = [(by_arm[against][seed], by_arm[arm][seed]) for seed in seeds]
        gains = [average_accuracy(second, split) - average_accuracy(first, split) for first, second in pairs]
        low, high = _estimate_differences(pairs, split)[MACRO][1:]
        reading = "holds" if low > 0 else "contradicted" if high < 0 else "not shown"
        if reading != "not shown" and len(gains) == 1:
            reading += ", one seed"
        elif reading != "not shown" and student_reach(gains) >= abs(np.mean(gains)):
            reading += ", not over seeds"
        lines.append(
            (claim, str(len(seeds)), format_over_seeds(gains), f"{low:+.1f} to {high:+.1f}", reading)
        )
    headings = ("claim", "seeds", "difference ± over seeds", "95 % over samples", "reading")
    title = f"Paired differences on {_TITLES[split]}, points of Acc@0.5"
    note = (
        "It holds where both intervals lie above 0, is contradicted where both lie below, and is not shown where that "
        'over samples holds 0; "not over seeds": only that over seeds does.'
    )
    return Table(title, headings, tuple(lines), notes=(note,))


def _estimate_differences(
    pairs: Sequence[tuple[ArmRow, ArmRow]], split: str
) -> dict[str, tuple[float, float, float]]:
    """Return by family, and as MACRO of their average, the difference in points and its 95 % interval: questions drawn
    again in families, each with all seeds."""
    first, second = (_average_over_seeds([pair[arm] for pair in pairs], split) for arm in (0, 1))
    lines = compare(first, second, metrics=("hit_50",)).lines
    found = {line.name: line.estimates["hit_50"] for line in lines}
    points = {name: (100 * one.value, 100 * one.low, 100 * one.high) for name, one in found.items()}
    return {MACRO: next(iter(points.values()))} | points  # one family is its own average


def _average_over_seeds(rows: Sequence[ArmRow], split: str) -> dict[str, Mapping[str, Any]]:
    """Return by question the share of seeds that hit it. All seeds are asked the same questions, so that a question
    drawn again is drawn again for all of them; five answers to it are not five questions."""
    averages: dict[str, Mapping[str, Any]] = {}
    for family in rows[0]["ious"][split]:
        hits_SN = np.array([row["ious"][split][family] for row in rows]) >= 0.5
        for index, share in enumerate(hits_SN.mean(axis=0)):
            averages[f"{family}/{index}"] = {"task": family, "hit_50": float(share)}
    return averages


def _build_families(rows: Sequence[ArmRow], split: str) -> Table:
    families = list(dict.fromkeys(family for row in rows for family in row["ious"][split]))
    lines = []
    for arm, of_seed in _group_by_arm(rows).items():
        cells = []
        for family in families:
            shares = [np.mean(np.asarray(row["ious"][split][family]) >= 0.5) for row in of_seed.values()]
            cells.append(f"{100 * float(np.mean(shares)):.0f}")
        lines.append((ARMS[arm].title, *cells))
    title = f"Acc@0.5 a family on {_TITLES[split]}, mean over seeds"
    return Table(title, ("arm", *families), tuple(lines))


def _build_gains(rows: Sequence[ArmRow], split: str) -> Table:
    """Build what the last stage of each arm did to each family: a line a family, a column an arm."""
    by_arm = _group_by_arm(rows)
    columns: dict[str, dict[str, tuple[float, float, float]]] = {}
    for arm, of_seed in by_arm.items():
        before = next((name for name in by_arm if ARMS[name].stages == ARMS[arm].stages[:-1]), arm)
        if before != arm and (seeds := sorted(of_seed.keys() & by_arm[before].keys())):
            pairs = [(by_arm[before][seed], of_seed[seed]) for seed in seeds]
            columns[ARMS[arm].title] = _estimate_differences(pairs, split)
    families = list(
        dict.fromkeys(name for found in columns.values() for name in found if name not in (MACRO, MICRO))
    )
    lines = [
        ("average" if name == MACRO else name, *(_format_gain(found.get(name)) for found in columns.values()))
        for name in (*families, MACRO)
        if families
    ]
    title = f"What an arm's last stage did to each family on {_TITLES[split]}, points of Acc@0.5"
    note = "Against the arm that ends before it, means over seeds; in brackets 95 % over samples."
    return Table(title, ("family", *columns), tuple(lines), notes=(note,))


def _format_gain(gain: tuple[float, float, float] | None) -> str:
    """Write points and their interval.

    >>> _format_gain((-0.04, -2.0, 1.5))
    '+0.0 (-2.0 to +1.5)'
    """
    if gain is None:
        return ""
    value, low, high = (f"{round(points, 1) + 0.0:+}" for points in gain)  # no -0.0
    return f"{value} ({low} to {high})"


def _build_rollouts(rows: Sequence[ArmRow]) -> Table:
    """Build what rollouts were at the beginning and at the end of the last stage, where it is GRPO."""
    lines = []
    for arm, of_seed in _group_by_arm(rows).items():
        curves = [row["curve"] for row in of_seed.values() if row.get("curve")]
        if not curves or not ARMS[arm].stages[-1].startswith("grpo-"):
            continue
        first, last = (100 * _average_fifth(curves, "iou", end) for end in (False, True))
        kl = _average_fifth(curves, "kl", True).mean()
        weight = np.mean([point.get("weight", math.nan) for curve in curves for point in curve])
        lines.append(
            (
                ARMS[arm].title,
                f"{first.mean():.1f}",
                f"{last.mean():.1f}",
                format_over_seeds(list(last - first)),
                f"{100 * _average_fifth(curves, 'format', True).mean():.1f} %",
                "" if math.isnan(kl) else f"{kl:.5f}",
                "" if math.isnan(weight) else f"{weight:.2f}",
            )
        )
    headings = (
        "arm",
        "first fifth",
        "last fifth",
        "difference ± over seeds",
        "format, last",
        "KL a token, last",
        "mean weight",
    )
    note = "Arms draw the same prompts at the same step and seed; from one step to another prompts differ."
    return Table("Mean IoU × 100 of rollouts over a GRPO stage", headings, tuple(lines), notes=(note,))


def _average_fifth(
    curves: Sequence[Sequence[Mapping[str, float]]], key: str, end: bool
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return a seed's mean of a logged number over the first, or the last, fifth of its steps; NaN where it is not."""
    means = []
    for curve in curves:
        fifth = max(1, len(curve) // 5)
        part = curve[-fifth:] if end else curve[:fifth]
        means.append(np.mean([point.get(key, math.nan) for point in part]))
    return np.array(means)


def _build_compute(rows: Sequence[ArmRow]) -> Table:
    lines = []
    for arm, of_seed in _group_by_arm(rows).items():
        stages = [row["stages"] for row in of_seed.values()]
        if stages[0]:
            facts = [
                " + ".join(str(stage[key]) for stage in stages[0]) for key in ("name", "steps", "samples")
            ]
            minutes = [sum(stage["seconds"] for stage in each) / 60 for each in stages]
            lines.append((ARMS[arm].title, *facts, f"{np.mean(minutes):.1f}"))
    headings = ("arm", "stages", "steps", "samples", "minutes")
    return Table("Training, minutes as a mean over seeds", headings, tuple(lines))


def _join(ious: Mapping[str, Sequence[float]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.concatenate([np.asarray(values, dtype=np.float64) for values in ious.values()])


def write_pictures(rows: Sequence[ArmRow], folder: Path) -> list[Path]:
    """Write `arms.png` (scores an arm), `curves.png` and `shares.png` (the RL stage over time); those with data."""
    drawn = {"arms": _draw_arms(rows), "curves": _draw_curves(rows), "shares": _draw_shares(rows)}
    written = {folder / f"{name}.png": image for name, image in drawn.items() if image is not None}
    for path, image in written.items():
        write_whole(path, image)
    return list(written)


def _draw_arms(rows: Sequence[ArmRow]) -> bytes:
    by_arm = _group_by_arm(rows)
    splits = list(dict.fromkeys(split for row in rows for split in row["ious"]))
    figure, panels = make_figure(5.2 * len(splits), 0.42 * len(by_arm) + 1.2, len(splits))
    for axes, split in zip(panels, splits, strict=True):
        for place, (_, of_seed) in enumerate(by_arm.items()):
            values = [average_accuracy(row, split) for row in of_seed.values()]
            axes.barh(place, np.mean(values), color="#a5d8ff", height=0.7)
            axes.plot(values, [place] * len(values), "o", color="#1864ab", markersize=4)
        axes.set(title=_TITLES[split], xlabel="Acc@0.5, average over families", xlim=(0, 100))
        axes.set_yticks(range(len(by_arm)), [ARMS[arm].title for arm in by_arm], fontsize=8)
        axes.invert_yaxis()
    return encode_png(figure)


def _average_curves(rows: Sequence[ArmRow], key: str) -> tuple[Any, Any]:
    """Return (steps, mean over seeds) of a logged number of the last stage, smoothed over a tenth of the run."""
    curves = [row["curve"] for row in rows if row.get("curve")]
    if not curves:
        return np.array([]), np.array([])
    length = min(len(curve) for curve in curves)
    values = np.array([[float(point.get(key, math.nan)) for point in curve[:length]] for curve in curves])
    window = max(1, length // 10)
    kernel = np.ones(window) / window
    mean = np.convolve(np.nanmean(values, axis=0), kernel, mode="valid")
    steps = np.array([point["step"] for point in curves[0][:length]], dtype=np.float64)
    return steps[window - 1 :], mean


def _group_by_weighting(rows: Sequence[ArmRow]) -> dict[str, list[ArmRow]]:
    """Group the rows of those arms that turn to GRPO after the cold start, by weighting."""
    found: dict[str, list[ArmRow]] = {}
    for row in rows:
        stages = ARMS[row["arm"]].stages
        if len(stages) == 2 and stages[1].startswith("grpo-"):
            found.setdefault(stages[1].removeprefix("grpo-"), []).append(row)
    return found


def _draw_curves(rows: Sequence[ArmRow]) -> bytes | None:
    groups = _group_by_weighting(rows)
    if not groups:
        return None
    wanted = (("iou", "mean IoU of rollouts"), ("format", "format rate"), ("length", "tokens a rollout"))
    figure, panels = make_figure(12, 3.4, len(wanted))
    for axes, (key, title) in zip(panels, wanted, strict=True):
        for weighting, group in groups.items():
            name, _, even = weighting.partition("-")
            axes.plot(
                *_average_curves(group, key),
                color=_COLOURS.get(name, "#868e96"),
                linestyle="--" if even else "-",
                label=f"{name}, mean 1" if even else name,
            )
        axes.set(title=title, xlabel="GRPO step")
    panels[0].legend(frameon=False, title="weights", fontsize=8)
    return encode_png(figure)


def _draw_shares(rows: Sequence[ArmRow]) -> bytes | None:
    groups = _group_by_weighting(rows)
    if not groups:
        return None
    figure, panels = make_figure(3.6 * len(groups), 3.2, len(groups))
    for axes, (weighting, group) in zip(panels, groups.items(), strict=True):
        for level, colour in _LEVELS:
            axes.plot(*_average_curves(group, level), color=colour, label=level)
        axes.set(title=f"weights {weighting}", xlabel="GRPO step", ylim=(0, 1))
    panels[0].set_ylabel("share of groups")
    panels[0].legend(frameon=False, fontsize=8)
    return encode_png(figure)
