"""Plots of a benchmark's IoUs, as PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np

_COLOURS = ("#1f6feb", "#d9480f", "#2b8a3e", "#9c36b5", "#e67700", "#0b7285")
_DASHES = ("-", "--", "-.", ":")


def iou_plot(ious: Mapping[str, Sequence[float]]) -> bytes:
    """Two panels, one line a run: how IoUs are spread, and the share of samples at or above each threshold."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    spread, above = figure.subplots(1, 2)
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
    spread.set(xlabel="IoU", ylabel="share of samples, %", xlim=(0, 1), title="IoU histogram")
    above.set(
        xlabel="IoU threshold",
        ylabel="accuracy, %",
        xlim=(0, 1),
        ylim=(0, 100),
        title="Accuracy by threshold",
    )
    for threshold in (0.3, 0.5, 0.7):
        above.axvline(threshold, color="#adb5bd", linewidth=0.8, zorder=0)
    for axes in (spread, above):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e9ecef", linewidth=0.8)
        axes.set_axisbelow(True)
    above.legend(frameon=False, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
