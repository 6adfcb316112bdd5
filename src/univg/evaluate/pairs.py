"""Set two runs over the same samples side by side: whose texts and boxes differ, where, and by how much.

Two engines, dtypes or versions that answer with one model should say the same; this counts where they do not. What
is worth more is a comparison of scores (:func:`univg.report.statistics.compare`); here no truth is needed.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from univg.errors import UnivgError
from univg.evaluate.runs import Run, list_differences
from univg.evaluate.sets import is_set, list_boxes
from univg.files import canonical
from univg.grounding.sets import OnImage, match_sets
from univg.report.statistics import MICRO, group_by_task
from univg.report.tables import Table

__all__ = ["Pair", "Pairing", "build_differing_table", "build_pairs_table", "check_same_samples", "pair_runs"]

_SAME_EDGE = 1e-6  # of a side: two texts with the same numbers, of whichever notation, lie closer
_BEFORE, _AFTER = 12, 36
SHOWN = 5
"""How many differing samples are listed."""


@dataclass(frozen=True)
class Pair:
    """The answers of two runs to one sample, as rows."""

    key: str
    first: Mapping[str, Any]
    second: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What the sample is called in its file."""
        return str(self.second["source"] or self.key)

    @cached_property
    def parts_at(self) -> int | None:
        """The first character, from 0, at which the texts differ; None where they are equal."""
        one, other = self.first["text"], self.second["text"]
        if one == other:
            return None
        shared = min(len(one), len(other))
        return next((at for at in range(shared) if one[at] != other[at]), shared)

    @cached_property
    def boxes(self) -> tuple[list[OnImage], list[OnImage]]:
        """The boxes of both answers that count: all of a set, else the first."""
        one, other = list_boxes(self.first), list_boxes(self.second)
        return (one, other) if is_set(self.second) else (one[:1], other[:1])

    @cached_property
    def edges_off(self) -> list[float]:
        """How far apart the two boxes of a thing are, one number for each: the largest distance of an edge, in
        thousandths of the image's width or height. Of sets, boxes are paired by their overlap."""
        one, other = self.boxes
        if is_set(self.second):
            pairs = [(a, b) for a, b, _ in match_sets(one, other).pairs]
        else:
            pairs = [(0, 0)] if one and other and one[0][0] == other[0][0] else []
        return [1000 * max(abs(x - y) for x, y in zip(one[a][1], other[b][1], strict=True)) for a, b in pairs]

    @cached_property
    def overlap(self) -> float:
        """The IoU of the two answers, of sets their soft-F1: 0.0 on different images, or where only one has a box,
        and 1.0 where both have none and mean the same by it."""
        one, other = self.boxes
        if not one and not other:
            return float(self.first.get("refused") == self.second.get("refused"))
        return match_sets(one, other).soft_f1

    @property
    def boxes_differ(self) -> bool:
        """Whether the answers are not the same boxes on the same images (nor both none)."""
        if self.lacks_box or not self.boxes[0]:
            return self.overlap < 1
        matched = len(self.edges_off) == len(self.boxes[0]) == len(self.boxes[1])
        return not matched or max(self.edges_off) > 1000 * _SAME_EDGE

    @property
    def lacks_box(self) -> bool:
        """Whether one of the answers has a box and the other has none."""
        return bool(self.boxes[0]) != bool(self.boxes[1])


@dataclass(frozen=True)
class Pairing:
    """Two runs over the same samples: `first` is the one compared with, `pairs` are the samples that both have."""

    first: Run
    second: Run
    pairs: Sequence[Pair]

    @property
    def differing(self) -> list[Pair]:
        """The pairs that are not the same to the letter: first those whose boxes are furthest apart."""
        found = [pair for pair in self.pairs if pair.boxes_differ or pair.parts_at is not None]
        return sorted(found, key=lambda pair: (not pair.boxes_differ, pair.overlap, pair.key))


def pair_runs(first: Run, second: Run) -> Pairing:
    """Pair two runs by their samples. Raises UnivgError if they are over different ones."""
    place = f"{first.label} and {second.label}"
    check_same_samples(first, second.benchmark, second.fingerprint["data"], second.about, place)
    pairs = [Pair(key, first.rows[key], row) for key, row in second.rows.items() if key in first.rows]
    if not pairs:
        cause = "none of its samples is among the other run's"
        raise UnivgError(cause, second.label, "evaluate the same tasks, and as many samples, in both")
    return Pairing(first, second, pairs)


def check_same_samples(first: Run, benchmark: str, digest: str, about: Mapping[str, Any], place: str) -> None:
    """Check that a run is over the benchmark with the data of this `digest`. Raises UnivgError that says what differs.

    `about`: where these data come from, as a run keeps it; `place`: what both are called.
    """
    told = [f"benchmark: {first.benchmark} and {benchmark}"] if first.benchmark != benchmark else []
    if not told and first.fingerprint["data"] != digest:
        here, there = (  # as they are kept: a pair of sizes is a list there
            json.loads(
                canonical({name: value for name, value in each.items() if name not in ("model", "notes")})
            )
            for each in (about, first.about)
        )
        told = list_differences(there, here) or [
            "the file's content, or the tasks that the world was asked for"
        ]
    if told:
        cause = f"runs over different samples cannot be compared ({'; '.join(told)})"
        raise UnivgError(cause, place, "evaluate both on the same data")


def build_pairs_table(pairing: Pairing) -> Table:
    """Show by task on how many samples the texts and boxes of two runs differ, and how far apart they are."""
    rows = [{"task": pair.second["task"], "pair": pair} for pair in pairing.pairs]
    groups = {name: [row["pair"] for row in group] for name, group in group_by_task(rows).items()}
    if len(groups) > 1:
        groups[MICRO] = list(pairing.pairs)
    cells = tuple((name, *_count(group)) for name, group in groups.items())
    headings = (
        *("task", "n", "texts differ", "boxes differ", "one has no box"),
        *("mean IoU", "lowest IoU", "edges off: mean", "median", "max"),
    )
    first, second = pairing.first.label, pairing.second.label
    notes = [
        "IoU: of the answers of the two runs, over samples whose boxes differ (of sets the soft-F1). An edge is off "
        "by thousandths of the image's width or height; of each box that both have and that differs, its worst edge "
        "counts."
    ]
    unpaired = len(pairing.first.rows) + len(pairing.second.rows) - 2 * len(pairing.pairs)
    if unpaired:
        notes.append(f"{unpaired} samples that only one of the runs has are left out.")
    settings = _list_settings(pairing)
    notes.append(f"What differs in the settings: {'; '.join(settings) or 'nothing'}.")
    strong = frozenset({len(groups) - 1} if len(groups) > 1 else ())
    return Table(f"{second} beside {first}: the same answers?", headings, cells, strong, tuple(notes))


def build_differing_table(pairing: Pairing, most: int = SHOWN) -> Table | None:
    """List up to `most` of the samples that differ, those furthest apart first; None where none does."""
    differing = pairing.differing
    if not differing:
        return None
    cells = []
    for pair in differing[:most]:
        at = pair.parts_at
        off = f"{max(pair.edges_off):.1f}" if pair.edges_off else "–"
        texts = [_quote(row["text"], at) for row in (pair.first, pair.second)]
        where = "–" if at is None else str(at + 1)
        cells.append((pair.name, f"{pair.overlap:.3f}", off, where, *texts))
    first, second = pairing.first.label, pairing.second.label
    headings = ("sample", "IoU", "edges off", "texts part at character", first, second)
    title = f"Where {second} and {first} differ: {len(cells)} of {len(differing)} samples"
    return Table(title, headings, tuple(cells))


def _count(pairs: Sequence[Pair]) -> tuple[str, ...]:
    differing = [pair for pair in pairs if pair.boxes_differ]
    overlaps = [pair.overlap for pair in differing]
    off = [edge for pair in differing for edge in pair.edges_off if edge > 1000 * _SAME_EDGE]
    return (
        str(len(pairs)),
        _share(sum(pair.parts_at is not None for pair in pairs), len(pairs)),
        _share(len(differing), len(pairs)),
        str(sum(pair.lacks_box for pair in pairs)),
        *(_apply(of, overlaps, 3) for of in (statistics.fmean, min)),
        *(_apply(of, off, 1) for of in (statistics.fmean, statistics.median, max)),
    )


def _share(count: int, n: int) -> str:
    return f"{count} ({100 * count / n:.1f} %)" if count else "0"


def _apply(of: Callable[[Sequence[float]], float], values: Sequence[float], digits: int) -> str:
    return f"{of(values):.{digits}f}" if values else "–"


def _list_settings(pairing: Pairing) -> list[str]:
    """Say what decided the numbers of one run and not of the other, from the first to the second."""
    before, now = dict(pairing.first.fingerprint), dict(pairing.second.fingerprint)
    told = list_differences(pairing.first.about.get("model"), pairing.second.about.get("model"), "model")
    if told or before.get("engine") != now.get(
        "engine"
    ):  # digests say nothing to a reader, and servers give none
        before.pop("model", None), now.pop("model", None)
    return [*told, *list_differences(before, now)]


def _quote(text: str, at: int | None) -> str:
    """Return what of a text stands around the character `at`, in one line; from its begin without one."""
    start = max(0, (at or 0) - _BEFORE)
    shown = text[start : (at or 0) + _AFTER]
    before, behind = "…" if start else "", "…" if start + len(shown) < len(text) else ""
    return f"{before}{' '.join(shown.split())}{behind}"
