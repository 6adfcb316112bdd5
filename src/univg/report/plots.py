"""Draw plots as PNG with matplotlib: a benchmark's IoUs, counts as bars, and how a run learns."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from univg.report.calibration import Calibration

__all__ = ["draw_bars", "draw_ious", "draw_learning", "draw_reliability", "encode_png", "make_figure"]

_COLOURS = ("#1f6feb", "#d9480f", "#2b8a3e", "#9c36b5", "#e67700", "#0b7285")
_DASHES = ("-", "--", "-.", ":")


def make_figure(
    width: float, height: float, columns: int = 1, rows: int = 1, dpi: int = 130
) -> tuple[Figure, list[Axes]]:
    """Return a figure of ``width`` x ``height`` inches and its empty panels, row by row; needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    panels: list[Axes] = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e9ecef", linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, panels


def encode_png(figure: Figure) -> bytes:
    """Return a figure as PNG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def draw_bars(title: str, panels: Mapping[str, Mapping[str, float]]) -> bytes:
    """Draw one panel of horizontal bars for each entry of ``panels`` (its title -> bar's label -> length), two in a
    row, the length written beside each bar.

    >>> draw_bars("data.json", {"images per sample": {"1": 20, "2": 80}})[1:4]
    b'PNG'
    """
    rows = -(-len(panels) // 2)
    tallest = max((len(bars) for bars in panels.values()), default=1)
    figure, axes_of_all = make_figure(11, (0.3 * tallest + 0.9) * rows + 0.6, min(2, len(panels)), rows)
    figure.suptitle(title)
    for axes, (name, bars) in zip(axes_of_all, panels.items(), strict=False):
        drawn = axes.barh([label[:24] for label in bars], list(bars.values()), color=_COLOURS[0])
        axes.bar_label(drawn, fmt="{:,.6g}", padding=4, fontsize=9)
        axes.set(title=name, xticks=[], xmargin=0.12, ylim=(max(len(bars), 6) - 0.5, -0.5))
        axes.spines["bottom"].set_visible(False)
        axes.grid(visible=False)
    for unused in axes_of_all[len(panels) :]:
        unused.set_axis_off()
    return encode_png(figure)


def draw_ious(ious: Mapping[str, Sequence[float]], name: str = "IoU") -> bytes:
    """Draw two panels, one line a run: how IoUs are spread, and the share of samples at or above each threshold.

    `name`: what the numbers are, if not IoUs.
    """
    figure, (spread, above) = make_figure(9.6, 3.6, columns=2, dpi=150)
    edges = np.linspace(0, 1, 21)
    thresholds = np.linspace(0.01, 1, 100)
    for number, (label, values) in enumerate(ious.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        dashes = _DASHES[number // len(_COLOURS) % len(_DASHES)]
        array = np.asarray(values, dtype=np.float64)
        counts, _ = np.histogram(array, bins=edges)
        percent = 100 * counts / max(1, len(array))
        spread.stairs(percent, edges, color=colour, linestyle=dashes, linewidth=1.6, fill=False)
        spread.stairs(percent, edges, color=colour, alpha=0.15, fill=True)
        # the tolerance of the scorer: an IoU of one half between integers may come out a last bit lower
        share = 100 * (array[None, :] >= thresholds[:, None] - 1e-9).mean(axis=1)
        above.plot(thresholds, share, color=colour, linestyle=dashes, linewidth=1.6, label=label)
    spread.set(xlabel=name, ylabel="share of samples, %", xlim=(0, 1), title=f"{name} histogram")
    above.set(
        xlabel=f"{name} threshold",
        ylabel="accuracy, %" if name == "IoU" else "share of samples at or above, %",
        xlim=(0, 1),
        ylim=(0, 100),
        title="Accuracy by threshold" if name == "IoU" else f"{name} at or above a threshold",
    )
    for threshold in (0.3, 0.5, 0.7):
        above.axvline(threshold, color="#adb5bd", linewidth=0.8, zorder=0)
    for axes in (spread, above):
        axes.grid(visible=False, axis="x")
    above.legend(frameon=False, fontsize=8)
    return encode_png(figure)


def draw_reliability(calibrations: Mapping[str, Calibration]) -> bytes:
    """Draw two panels, one line for each kind of answers: the share that is right by confidence, beside the diagonal
    on which a confidence means what it says; and how many answers have which confidence.

    >>> from univg.report.calibration import calibrate
    >>> draw_reliability({"boxes": calibrate([0.9, 0.2], [True, False])})[1:4]
    b'PNG'
    """
    figure, (right, spread) = make_figure(9.6, 3.9, columns=2, dpi=150)
    right.plot([0, 1], [0, 100], color="#adb5bd", linewidth=1, linestyle=":")
    for number, (label, found) in enumerate(calibrations.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        dashes = _DASHES[number // len(_COLOURS) % len(_DASHES)]
        at, shares = [one.confidence for one in found.bins], [100 * one.hits for one in found.bins]
        told = f"{label}: ECE {100 * found.error:.1f} %"
        right.plot(at, shares, color=colour, linestyle=dashes, linewidth=1.6, label=told)
        right.scatter(at, shares, [12 + 160 * one.n / found.n for one in found.bins], color=colour, alpha=0.6)
        edges = [edge for one in found.bins for edge in (one.low, one.low, one.high, one.high)]
        percent = [value for one in found.bins for value in (0, *(2 * [100 * one.n / found.n]), 0)]
        spread.plot(edges, percent, color=colour, linestyle=dashes, linewidth=1.4)
        spread.fill_between(edges, percent, color=colour, alpha=0.12, linewidth=0)
    right.set(xlabel="agreement", ylabel="right at IoU 0.5, %", title="Agreement as confidence")
    right.set(xlim=(-0.02, 1.02), ylim=(-2, 102))
    spread.set(xlabel="agreement", ylabel="share of boxes, %", title="How boxes are spread")
    spread.set(xlim=(0, 1), ylim=(0, None))
    # Lines go from corner to corner: inside the panel a legend would lie on them.
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=min(3, len(calibrations)))
    return encode_png(figure)


def draw_learning(rows: Sequence[Mapping[str, Any]], best: int | None = None) -> bytes:
    """Draw two panels of a training run's log over its steps: what it learns by (the loss, in GRPO the mean IoU of its
    rollouts), and its validation; ``best`` is a step to mark.

    >>> rows = [{"step": 1, "loss": 2.0}, {"step": 1, "validation/acc_50": 0.4, "validation/iou": 0.3}]
    >>> draw_learning(rows, best=1)[1:4]
    b'PNG'
    """
    figure, (learns, scored) = make_figure(9.6, 3.6, columns=2)
    name = "iou" if any("iou" in row for row in rows) else "loss"
    steps = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    if steps:
        at, values = np.asarray(steps, dtype=np.float64).T
        learns.plot(at, values, color=_COLOURS[0], linewidth=0.8, alpha=0.5)
        width = max(1, len(values) // 20)
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        learns.plot(at[len(at) - len(smooth) :], smooth, color=_COLOURS[0], linewidth=1.8)
    learns.set(title="mean IoU of rollouts" if name == "iou" else "loss", xlabel="step", xlim=(0, None))
    for colour, key, label in ((2, "acc_50", "Acc@0.5"), (3, "iou", "mean IoU")):
        found = {row["step"]: 100 * row[f"validation/{key}"] for row in rows if f"validation/{key}" in row}
        scored.plot(list(found), list(found.values()), ".-", color=_COLOURS[colour], label=label)
        if key == "acc_50" and best is not None and best in found:
            scored.plot([best], [found[best]], "o", color=_COLOURS[1], label=f"best, step {best}")
    scored.set(title="validation, %", xlabel="step", xlim=(0, None), ylim=(0, None))
    scored.legend(frameon=False, fontsize=8)
    return encode_png(figure)
