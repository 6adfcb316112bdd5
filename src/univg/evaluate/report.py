"""From run folders to what people read: tables, Markdown, and one HTML page that needs nothing else.

Folders of one fingerprint (shards that ran on several machines) are one run. Runs of one benchmark stand
together: their tables, the paper's rows, paired differences, plots, and a gallery of samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from univg.evaluate.judging import legacy_columns
from univg.evaluate.rows import Row
from univg.evaluate.runs import Run
from univg.grounding.boxes import is_degenerate
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


def build(runs: Sequence[Run], legacy: bool = False, intervals: Sequence[str] | None = None) -> list[Section]:
    """A section for each benchmark among `runs`. `legacy`: also the reference scorers' numbers, worked out
    from the texts. `intervals`: metrics shown with their interval (default all)."""
    sections = []
    for benchmark in dict.fromkeys(run.benchmark for run in runs):
        group = [run for run in runs if run.benchmark == benchmark]
        rows = {run.label: _with_legacy(run) if legacy else list(run.rows.values()) for run in group}
        metrics = METRICS + LEGACY if legacy else METRICS
        summaries = {label: summarise(each, metrics) for label, each in rows.items()}
        shown = intervals if intervals is not None else METRICS
        tables = [build_scores_table(summaries[run.label], run.label, shown, notes_on(run)) for run in group]
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


def _with_legacy(run: Run) -> list[Row]:
    rows = []
    for row in run.rows.values():
        columns = legacy_columns(row, run.benchmark)
        rows.append(row | columns | {"legacy_hit_50": columns["legacy_iou"] >= 0.5})
    return rows


def notes_on(run: Run) -> list[str]:
    """What a reader must know beside a run's scores: samples that are not in them, and bad ground truth."""
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
    notes += [str(note) for note in run.about.get("notes", ())]
    samples = run.fingerprint["decoding"]["samples"]
    if samples > 1:
        notes.append(
            f"Each answer is the consensus (medoid) of {samples} drawn at temperature "
            f"{run.fingerprint['decoding']['temperature']:g}."
        )
    return notes


def to_markdown(sections: Sequence[Section]) -> str:
    """The tables of all sections as one Markdown page."""
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


def to_html(sections: Sequence[Section], gallery: int = 60) -> str:
    """One page with all tables, plots and `gallery` samples a run; no other file is needed to see it."""
    from univg.evaluate.gallery import cards_of
    from univg.pictures.pages import data_url, render_page
    from univg.report.plots import draw_ious

    shown = []
    for section in sections:
        plot = draw_ious({run.label: [row["iou"] for row in run.rows.values()] for run in section.runs})
        cards = [card for run in section.runs for card in cards_of(run, gallery)]
        shown.append({"section": section, "plot": data_url(plot, "png"), "cards": cards})
    return render_page("evaluate", "report.html.jinja", sections=shown, legend=_LEGEND)


def write_report(sections: Sequence[Section], out: Path, gallery: int = 60) -> list[Path]:
    """Write `report.md`, `report.html` and one `iou-<benchmark>.png` a section into `out`; returns the paths."""
    from univg.report.plots import draw_ious

    out.mkdir(parents=True, exist_ok=True)
    content = {
        "report.md": to_markdown(sections).encode(),
        "report.html": to_html(sections, gallery).encode(),
    }
    for section in sections:
        ious = {run.label: [row["iou"] for row in run.rows.values()] for run in section.runs}
        content[f"iou-{section.benchmark}.png"] = draw_ious(ious)
    paths = []
    for name, data in content.items():
        partial = out / f".{name}.partial"
        partial.write_bytes(data)
        partial.replace(out / name)
        paths.append(out / name)
    return paths
