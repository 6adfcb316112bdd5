"""Report runs: tables, Markdown, and one HTML page that needs nothing else.

Runs of one benchmark stand together: their tables, the paper's rows, paired differences, plots, and a gallery of
samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from univg.data.formats.scale import box_fault
from univg.evaluate.gallery import make_cards
from univg.evaluate.published_metrics import list_published
from univg.evaluate.rows import Row, add_legacy
from univg.evaluate.runs import Run
from univg.files import write_whole
from univg.grounding.boxes import is_degenerate
from univg.pictures.pages import data_url, render_page
from univg.report.plots import draw_ious
from univg.report.statistics import METRICS, Summary, compare, summarise
from univg.report.tables import (
    LEGACY,
    Table,
    build_comparison_table,
    build_legacy_table,
    build_published_table,
    build_scores_table,
    render_markdown,
)


@dataclass(frozen=True)
class Section:
    """One benchmark: its runs, and every table about them."""

    benchmark: str
    runs: Sequence[Run]
    tables: Sequence[Table]
    summaries: Mapping[str, Summary] = field(default_factory=dict)

    @cached_property
    def plot(self) -> bytes:
        """The plot of all runs' IoUs, a PNG."""
        return draw_ious({run.label: [row["iou"] for row in run.rows.values()] for run in self.runs})


def build_sections(
    runs: Sequence[Run], legacy: bool = False, intervals: Sequence[str] | None = None
) -> list[Section]:
    """Build a section for each benchmark among `runs`.

    `legacy`: also the reference scorers' numbers, worked out from the texts. `intervals`: metrics shown with their
    interval (default all).
    """
    sections = []
    for benchmark in dict.fromkeys(run.benchmark for run in runs):
        group = [run for run in runs if run.benchmark == benchmark]
        rows = {run.label: _score_legacy(run) if legacy else list(run.rows.values()) for run in group}
        metrics = METRICS + LEGACY if legacy else METRICS
        summaries = {label: summarise(each, metrics) for label, each in rows.items()}
        shown = intervals if intervals is not None else METRICS
        tables = [
            build_scores_table(summaries[run.label], run.label, shown, list_notes(run)) for run in group
        ]
        if legacy:
            tables += [build_legacy_table(summaries[run.label], run.label) for run in group]
        beside = build_published_table(benchmark, summaries)
        tables += [beside] if beside else []
        for first, second in itertools.combinations(group, 2):
            compared = compare(first.rows, second.rows)
            if compared.lines:
                tables.append(build_comparison_table(compared, first.label, second.label))
        sections.append(Section(benchmark, group, tables, summaries))
    return sections


def _score_legacy(run: Run) -> list[Row]:
    rows = [add_legacy(row, run.benchmark) for row in run.rows.values()]
    return [row | {"legacy_hit_50": row["legacy_iou"] >= 0.5} for row in rows]


def _is_strange(box: Sequence[float]) -> bool:
    x1, y1, x2, y2 = box
    fault = box_fault((x1, y1, x2, y2))
    return fault is not None and fault[0] == "wrong_scale"


def list_notes(run: Run) -> list[str]:
    """Say what a reader must know beside a run's scores: samples that are not in them, and bad ground truth."""
    notes = []
    failed = [fault for fault in run.faults if not fault.get("usable")]
    if run.missing or failed:
        kinds: dict[str, int] = {}
        for fault in failed:
            kinds[fault["kind"]] = kinds.get(fault["kind"], 0) + 1
        why = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        notes.append(
            f"NOT COMPLETE: {len(run.rows)} of {run.expected} samples are scored"
            + (f"; could not be evaluated: {why}." if why else ".")
        )
    remarked = sum(bool(fault.get("usable")) for fault in run.faults)
    if remarked:
        notes.append(f"{remarked} records have a remark from their reader and are scored as they stand.")
    bad = sum(is_degenerate(row["truth_unit"]) for row in run.rows.values())
    if bad:
        notes.append(
            f"{bad} ground-truth boxes enclose no area (inverted in the file): no answer can hit them."
        )
    strange = sum(_is_strange(row["truth_unit"]) for row in run.rows.values())
    if strange:
        notes.append(
            f"{strange} ground-truth boxes are of another scale than their file's: their scores mean nothing."
        )
    notes += [str(note) for note in run.about.get("notes", ())]
    notes += list_published(run.benchmark, run.rows.values())
    samples = run.fingerprint["decoding"]["samples"]
    if samples > 1:
        notes.append(
            f"Each answer is the consensus (medoid) of {samples} drawn at temperature "
            f"{run.fingerprint['decoding']['temperature']:g}."
        )
    return notes


def render_markdown_page(sections: Sequence[Section]) -> str:
    """Return the tables of all sections as one Markdown page."""
    parts = ["# Report\n"]
    for section in sections:
        parts.append(f"## {section.benchmark}\n")
        parts += [render_markdown(table) for table in section.tables]
    parts.append(_LEGEND + "\n")
    return "\n".join(parts)


_LEGEND = (
    "Acc@t is the share of samples with an IoU of at least t, in percent, with the 95 % bootstrap interval in "
    "parentheses (samples drawn again within their task). macro is the unweighted mean over tasks, the paper's "
    "AVG; micro the mean over samples."
)


def render_html_page(sections: Sequence[Section], gallery: int = 60) -> str:
    """Return one HTML page with all tables, plots and `gallery` samples a run; no other file is needed to see it."""
    shown = []
    for section in sections:
        cards = [card for run in section.runs for card in make_cards(run, gallery)]
        shown.append({"section": section, "plot": data_url(section.plot, "png"), "cards": cards})
    return render_page("evaluate", "report.html.jinja", sections=shown, legend=_LEGEND)


def write_report(sections: Sequence[Section], out: Path, gallery: int = 60) -> list[Path]:
    """Write `report.md`, `report.html` and one `iou-<benchmark>.png` a section into `out`; return the paths."""
    pages: dict[str, str | bytes] = {
        "report.md": render_markdown_page(sections),
        "report.html": render_html_page(sections, gallery),
        **{f"iou-{section.benchmark}.png": section.plot for section in sections},
    }
    for name, content in pages.items():
        write_whole(out / name, content)
    return [out / name for name in pages]
