"""Build tables as plain data, and show them: in a terminal, as Markdown, and (through a page's template) as HTML."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from univg.report import markdown
from univg.report.statistics import MACRO, METRICS, MICRO, Comparison, Estimate, Summary
from univg.terminal import print_rich_table, results

if TYPE_CHECKING:
    from rich.table import Table as RichTable

HEADINGS: Mapping[str, str] = {
    "hit_30": "Acc@0.3",
    "hit_50": "Acc@0.5",
    "hit_70": "Acc@0.7",
    "iou": "mean IoU",
    "legacy_hit_50": "Acc@0.5",
    "legacy_iou": "mean IoU",
    "legacy_reward_iou": "IoU reward",
    "legacy_reward_format": "format reward",
}
LEGACY = ("legacy_hit_50", "legacy_iou", "legacy_reward_iou", "legacy_reward_format")
"""Columns of rows that hold what the reference code gives."""


@dataclass(frozen=True)
class Table:
    """Holds text cells; the first column is left-aligned, the others right-aligned.

    `strong` rows are averages or this project's own runs; `notes` stand below.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()


def build_scores_table(
    summary: Summary,
    title: str,
    intervals: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    metrics: Sequence[str] = METRICS,
) -> Table:
    """Set tasks against metrics, in percent; `intervals` names the metrics shown with theirs (default: all).

    Fault, truncation and format rates stand beside every score.
    """
    shown = metrics if intervals is None else intervals
    rows, strong = [], set()
    for number, line in enumerate(summary.lines):
        scores = [format_percent(line.estimates[name], name in shown) for name in metrics]
        rates = [format_rate(line.fault_rate), format_rate(line.truncated), format_rate(line.formatted)]
        rows.append((line.name, str(line.n), *scores, *rates))
        if line.name in (MACRO, MICRO):
            strong.add(number)
    named = [HEADINGS.get(name, name) for name in metrics]
    headings = ("task", "n", *named, "faults", "truncated", "format ok")
    faults = ", ".join(f"{name} {format_rate(share)}" for name, share in summary.lines[-1].faults.items())
    by_kind = (f"Faults by kind, of all responses: {faults}.",) if faults else ()
    return Table(title, headings, tuple(rows), frozenset(strong), (*by_kind, *notes))


def build_legacy_table(summary: Summary, title: str, notes: Sequence[str] = ()) -> Table:
    """Show what the reference code's scorer and rewards give for the same texts."""
    rows = tuple(
        (line.name, str(line.n), *(format_percent(line.estimates[name], False) for name in LEGACY))
        for line in summary.lines
    )
    strong = frozenset(n for n, line in enumerate(summary.lines) if line.name in (MACRO, MICRO))
    headings = ("task", "n", *(HEADINGS[name] for name in LEGACY))
    return Table(f"{title}, scored as the reference code does", headings, rows, strong, tuple(notes))


CHANGES: Mapping[str, str] = {"hit_50": "Acc@0.5", "iou": "mean IoU"}
"""What two runs are compared by, and what it is called."""


def build_comparison_table(
    comparison: Comparison,
    first: str,
    second: str,
    changes: Mapping[str, str] = CHANGES,
    of: str = "",
    notes: Sequence[str] = (),
) -> Table:
    """Show second minus first, in points of a percent; `of`: which of their samples, for the title."""
    rows, strong = [], set()
    for number, line in enumerate(comparison.lines):
        points = [format_points(line.estimates[name]) for name in changes]
        rows.append((line.name, str(line.n), *points, str(line.only_first), str(line.only_second)))
        if line.name in (MACRO, MICRO):
            strong.add(number)
    headings = ("task", "n", *changes.values(), f"hits of {first} only", f"hits of {second} only")
    told = [*notes, "An interval that does not hold 0 is a difference beyond chance at 95 %."]
    if comparison.unpaired:
        told.append(f"{comparison.unpaired} samples that only one of the runs has are left out.")
    return Table(f"{second} minus {first}{of}", headings, tuple(rows), frozenset(strong), tuple(told))


def build_published_table(benchmark: str, runs: Mapping[str, Summary]) -> Table | None:
    """Set Acc@0.5 of `runs` (label -> numbers) above the paper's rows; None where the paper has no such benchmark."""
    published = read_published()
    if benchmark == "mig_bench":
        return _build_mig_bench_table(published["mig_bench"], runs)
    zero_shot = published["zero_shot"]
    if benchmark not in zero_shot["columns"]:
        return None
    at = zero_shot["columns"].index(benchmark)
    rows = [
        (label, f"{100 * summary.total.estimates['hit_50'].value:.2f}") for label, summary in runs.items()
    ]
    strong = frozenset(range(len(rows)))
    rows += [(f"{name} (paper)", f"{values[at]:.2f}") for name, values in zero_shot["rows"].items()]
    return Table("Beside the paper", ("", "Acc@0.5"), tuple(rows), strong, tuple(zero_shot["notes"]))


def _build_mig_bench_table(published: Mapping[str, Any], runs: Mapping[str, Summary]) -> Table:
    columns = published["columns"]
    rows: list[tuple[str, ...]] = []
    differing: list[str] = []
    for label, summary in runs.items():
        cells = []
        for task in columns:
            line = summary.line(task)
            cells.append("–" if line is None else f"{100 * line.estimates['hit_50'].value:.2f}")
            if line is not None and line.n != published["n"][task]:
                differing.append(f"{task} {line.n} here, {published['n'][task]} there")
        # An average over fewer tasks is not the paper's AVG.
        macro = summary.line(MACRO)
        whole = macro is not None and all(summary.line(task) for task in columns)
        cells.append(f"{100 * macro.estimates['hit_50'].value:.2f}" if macro and whole else "–")
        rows.append((label, *cells))
    strong = frozenset(range(len(rows)))
    rows += [
        (f"{name} (paper)", *(f"{value:.2f}" for value in values))
        for name, values in published["rows"].items()
    ]
    notes = list(published["notes"])
    if differing:
        notes.append(f"Samples: {'; '.join(dict.fromkeys(differing))}.")
    return Table("Beside the paper, Acc@0.5", ("", *columns, "AVG"), tuple(rows), strong, tuple(notes))


@cache
def read_published() -> dict[str, Any]:
    """Return the paper's numbers (arXiv 2505.14231, Tables 1, 2 and 4), Acc@0.5 in percent."""
    text = files("univg.report").joinpath("published.json").read_text(encoding="utf-8")
    return json.loads(text)


def format_percent(estimate: Estimate, interval: bool = True) -> str:
    """Return a share in percent, with its interval.

    >>> format_percent(Estimate(0.5, 0.4567, 0.6)), format_percent(Estimate(0.5, 0.4, 0.6), interval=False)
    ('50.0 (45.7–60.0)', '50.0')
    """
    text = f"{100 * estimate.value:.1f}"
    return f"{text} ({100 * estimate.low:.1f}–{100 * estimate.high:.1f})" if interval else text


def format_points(estimate: Estimate) -> str:
    """Return a difference of shares in points of a percent, with its interval.

    >>> format_points(Estimate(0.051, -0.01, 0.1))
    '+5.1 (-1.0 to +10.0)'
    """
    return f"{100 * estimate.value:+.1f} ({100 * estimate.low:+.1f} to {100 * estimate.high:+.1f})"


def format_rate(share: float) -> str:
    """Return a share in percent, such that only a true zero shows as 0.

    >>> format_rate(0.0), format_rate(0.0004), format_rate(0.123)
    ('0 %', '<0.1 %', '12.3 %')
    """
    if share <= 0:
        return "0 %"
    return "<0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"


def print_table(table: Table) -> None:
    """Print a table on stdout, its title above and its notes below."""
    console = results()
    console.print(table.title)
    print_rich_table(console, build_rich_table(table))
    for note in table.notes:
        console.print(note)
    console.print()


def build_rich_table(table: Table) -> RichTable:
    """Return a table as Rich draws it in a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, heading in enumerate(table.headings):
        shown.add_column(Text(heading), justify="right" if number else "left", no_wrap=number == 0)
    for number, row in enumerate(table.rows):
        shown.add_row(*map(Text, row), style="bold" if number in table.strong else "")
    return shown


def render_markdown(table: Table) -> str:
    """Return a GitHub table under a heading, notes below."""
    rows = [
        [f"**{cell}**" if number in table.strong and cell else cell for cell in row]
        for number, row in enumerate(table.rows)
    ]
    head = f"### {markdown.escape(table.title)}\n\n{markdown.table(table.headings, rows, numbers=True)}"
    return "\n\n".join([head, *map(markdown.escape, table.notes)]) + "\n"
