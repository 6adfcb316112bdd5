"""Report runs: tables, Markdown, and one HTML page that needs nothing else.

Runs of one benchmark stand together: their tables, the paper's rows, paired differences, plots, and a gallery of
samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from univg.data.formats.scale import box_fault
from univg.evaluate.gallery import make_cards, make_pair_cards
from univg.evaluate.pairs import Pairing, build_differing_table, build_pairs_table, pair_runs
from univg.evaluate.published_metrics import list_published
from univg.evaluate.rows import Row, add_legacy
from univg.evaluate.runs import Run
from univg.evaluate.sets import calibrate_rows, find_task_precisions, is_set, list_truths, split_rows
from univg.files import write_whole
from univg.grounding.boxes import Box, is_degenerate
from univg.grounding.prompts import NATIVE, PUBLISHED_WORDING
from univg.pictures.pages import data_url, render_page
from univg.report.calibration import Calibration
from univg.report.plots import draw_ious, draw_reliability
from univg.report.set_tables import (
    SET_CHANGES,
    build_calibration_table,
    build_refusals_table,
    build_sets_table,
)
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
from univg.report.wordings import build_wordings_table


@dataclass(frozen=True)
class Plot:
    """A picture of a section: the name of its file without the benchmark, its title, what it shows, and a PNG."""

    name: str
    title: str
    shows: str
    png: bytes


@dataclass(frozen=True)
class Section:
    """One benchmark: its runs, and every table about them.

    `summaries`: of the answers of one box, by the runs' labels; `calibrations`: agreement as confidence, by run and
    kind of answer. `pairings`: two runs whose answers are set side by side, sample by sample.
    """

    benchmark: str
    runs: Sequence[Run]
    tables: Sequence[Table]
    summaries: Mapping[str, Summary] = field(default_factory=dict)
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    pairings: Sequence[Pairing] = ()

    @cached_property
    def plots(self) -> Sequence[Plot]:
        """The plots of all runs: of IoUs, of soft-F1 where there are sets, and of confidences where there are any."""
        kinds = {run.label: split_rows(run.rows.values()) for run in self.runs}
        plots = []
        for place, (name, score) in enumerate((("iou", "IoU"), ("soft-f1", "soft-F1"))):
            found = {
                label: [row["iou"] for row in both[place]] for label, both in kinds.items() if both[place]
            }
            if found:
                shows = f"{score} histogram, and accuracy by threshold"
                plots.append(Plot(name, score, shows, draw_ious(found, score)))
        if self.calibrations:
            shows = "share of boxes that are right by agreement, and how agreements are spread"
            png = draw_reliability(self.calibrations)
            plots.append(Plot("calibration", "Agreement as confidence", shows, png))
        return plots


def build_sections(
    runs: Sequence[Run],
    legacy: bool = False,
    intervals: Sequence[str] | None = None,
    beside: Run | None = None,
) -> list[Section]:
    """Build a section for each benchmark among `runs`; answers that are sets have tables of their own.

    `legacy`: also the reference scorers' numbers, worked out from the texts. `intervals`: metrics shown with their
    interval (default all; if given, sets show it of their main ones). `beside`: a run over the same samples, that each
    of the others is set beside (`univg.evaluate.pairs`). Raises UnivgError if they are over different samples.
    """
    pairings = [pair_runs(beside, run) for run in runs] if beside else []
    runs = [beside, *runs] if beside else runs
    sections = [
        _build_section(benchmark, [run for run in runs if run.benchmark == benchmark], legacy, intervals)
        for benchmark in dict.fromkeys(run.benchmark for run in runs)
    ]
    return [_pair_section(section, pairings) for section in sections] if pairings else sections


def _pair_section(section: Section, pairings: Sequence[Pairing]) -> Section:
    """Add the tables of what differs sample by sample."""
    tables = [*section.tables]
    for pairing in pairings:
        listed = build_differing_table(pairing)
        tables += [build_pairs_table(pairing), *([listed] if listed else [])]
    return replace(section, tables=tables, pairings=pairings)


def _build_section(
    benchmark: str, runs: Sequence[Run], legacy: bool, intervals: Sequence[str] | None
) -> Section:
    summaries: dict[str, Summary] = {}
    calibrations: dict[str, Calibration] = {}
    tables: list[Table] = []
    shown = intervals if intervals is not None else METRICS
    for run in runs:
        single, sets = split_rows(run.rows.values())
        notes = list_notes(run)
        if single:
            rows = _score_legacy(run, single) if legacy else single
            summaries[run.label] = summarise(rows, METRICS + LEGACY if legacy else METRICS)
            tables.append(build_scores_table(summaries[run.label], run.label, shown, notes))
            notes = []
            worded = build_wordings_table(single, run.label, PUBLISHED_WORDING)
            tables += [worded] if worded else []
        if sets:
            title, everything = f"{run.label}: answers that are sets", intervals is None
            tables.append(build_sets_table(sets, title, find_task_precisions(sets), everything, notes))
            tables.append(build_refusals_table(sets, f"{run.label}: nothing there, and how many", everything))
        for kind, found in calibrate_rows(run.rows.values()).items():
            calibrations[f"{run.label}, {kind}"] = found
    if legacy:
        tables += [build_legacy_table(summary, label) for label, summary in summaries.items()]
    if calibrations:
        tables.append(build_calibration_table(calibrations))
    beside = build_published_table(benchmark, summaries) if summaries else None
    tables += [beside] if beside else []
    for first, second in itertools.combinations(runs, 2):
        tables += _compare_runs(first, second)
    return Section(benchmark, runs, tables, summaries, calibrations)


def _compare_runs(first: Run, second: Run) -> list[Table]:
    """Return the tables of the paired differences of two runs, of one box and of sets, as far as there are any."""
    (single, sets), (other_single, other_sets) = (
        [{key: row for key, row in run.rows.items() if is_set(row) == kind} for kind in (False, True)]
        for run in (first, second)
    )
    tables = []
    if (compared := compare(single, other_single)).lines:
        tables.append(build_comparison_table(compared, first.label, second.label))
    if (compared := compare(sets, other_sets, tuple(SET_CHANGES))).lines:
        of, note = ": answers that are sets", "A hit is a soft-F1 of at least 0.5."
        tables.append(build_comparison_table(compared, first.label, second.label, SET_CHANGES, of, [note]))
    return tables


def _score_legacy(run: Run, rows: Sequence[Row]) -> list[Row]:
    rows = [add_legacy(row, run.benchmark) for row in rows]
    return [row | {"legacy_hit_50": row["legacy_iou"] >= 0.5} for row in rows]


def _is_strange(box: Box) -> bool:
    fault = box_fault(box)
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
    truths = [box for row in run.rows.values() for _, box in list_truths(row)]
    bad = sum(map(is_degenerate, truths))
    if bad:
        notes.append(
            f"{bad} ground-truth boxes enclose no area (inverted in the file): no answer can hit them."
        )
    strange = sum(map(_is_strange, truths))
    if strange:
        notes.append(
            f"{strange} ground-truth boxes are of another scale than their file's: their scores mean nothing."
        )
    notes += [str(note) for note in run.about.get("notes", ())]
    notes += list_published(run.benchmark, run.rows.values())
    if style := run.fingerprint.get("prompt", {}).get("style"):
        named = f"native ({style})" if style in NATIVE else style
        notes.append(
            f"Asked in style {named}; sets, and references without thinking, in the one that goes with it."
        )
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
    parts.append(_explain(sections) + "\n")
    return "\n".join(parts)


_LEGEND = (
    "Acc@t is the share of samples with an IoU of at least t, in percent, with the 95 % bootstrap interval in "
    "parentheses (samples drawn again within their task). macro is the unweighted mean over tasks, the paper's "
    "AVG; micro the mean over samples."
)
_SETS_LEGEND = (
    "Where an answer is a set, each box is matched to a true one of its image or to none, so that the sum of their IoU "
    "is greatest. soft-F1 is 2 · that sum / (boxes given + boxes true); where nothing is there, it is 100 if the "
    "answer says so and else 0. P, R and F1 at t count pairs with an IoU of at least t, in each sample. images right: "
    "the images named are exactly those that hold something, of questions about several images."
)


def _explain(sections: Sequence[Section]) -> str:
    sets = any(is_set(row) for section in sections for run in section.runs for row in run.rows.values())
    return f"{_LEGEND} {_SETS_LEGEND}" if sets else _LEGEND


def render_html_page(sections: Sequence[Section], gallery: int = 60) -> str:
    """Return one HTML page with all tables, plots and `gallery` samples a run; no other file is needed to see it."""
    shown = []
    for section in sections:
        cards = [card for pairing in section.pairings for card in make_pair_cards(pairing, gallery)]
        cards += [card for run in section.runs for card in make_cards(run, gallery)]
        plots = [{"plot": plot, "address": data_url(plot.png, "png")} for plot in section.plots]
        shown.append({"section": section, "plots": plots, "cards": cards})
    return render_page("evaluate", "report.html.jinja", sections=shown, legend=_explain(sections))


def write_report(sections: Sequence[Section], out: Path, gallery: int = 60) -> list[Path]:
    """Write `report.md`, `report.html` and the plots of each section into `out` (`iou-<benchmark>.png`; of sets
    `soft-f1-…`, of several responses `calibration-…`); return the paths."""
    pages: dict[str, str | bytes] = {
        "report.md": render_markdown_page(sections),
        "report.html": render_html_page(sections, gallery),
    }
    for section in sections:
        pages |= {f"{plot.name}-{section.benchmark}.png": plot.png for plot in section.plots}
    for name, content in pages.items():
        write_whole(out / name, content)
    return [out / name for name in pages]
