"""Finished or running evaluations, read back from their folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from univg.evaluate.rows import Row, RunError, read_rows, read_run, read_state


@dataclass(frozen=True)
class Run:
    """One run as its folders tell it. `expected`: how many samples its benchmark has; `faults`: those that
    could not be evaluated, and records that needed a remark."""

    label: str
    benchmark: str
    fingerprint: Mapping[str, Any]
    about: Mapping[str, Any]
    rows: Mapping[str, Row]
    expected: int
    faults: Sequence[Mapping[str, Any]] = ()

    @property
    def missing(self) -> int:
        return max(0, self.expected - len(self.rows))


def read_runs(folders: Iterable[Path]) -> list[Run]:
    """The runs in `folders`, labelled by their models (and where two would be alike, by their folders).

    Raises RunError for a folder that holds no run, or no row yet.
    """
    found: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for folder in dict.fromkeys(folders):
        stored = read_run(folder)
        found.setdefault(stored["id"], []).append((folder, stored))
    labels = _labels(list(found.values()))
    return [_merged(label, places) for label, places in zip(labels, found.values(), strict=True)]


def _merged(label: str, places: Sequence[tuple[Path, dict[str, Any]]]) -> Run:
    stored = places[0][1]
    rows: dict[str, Row] = {}
    for folder, _ in places:
        for key, row in read_rows(folder, stored["id"]).items():
            rows.setdefault(key, row)
    if not rows:
        raise RunError(f"no row yet: {places[0][0]}: let `univg evaluate` run first")
    expected = 0
    faults: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for folder, _ in places:
        count, standing = read_state(folder, rows)
        expected = max(expected, count)
        faults |= {(one.get("key"), one["source"], one["kind"], one["why"]): one for one in standing}
    fingerprint = stored["fingerprint"]
    ordered = dict(sorted(rows.items(), key=lambda item: (item[1]["task"], item[1]["source"], item[0])))
    return Run(
        label,
        fingerprint["benchmark"],
        fingerprint,
        stored["about"],
        ordered,
        expected,
        list(faults.values()),
    )


def _labels(runs: Sequence[Sequence[tuple[Path, dict[str, Any]]]]) -> list[str]:
    """The shortest names that tell the runs of one benchmark apart."""
    models = [str(places[0][1]["about"].get("model", "model")).rstrip("/") for places in runs]
    benchmarks = [places[0][1]["fingerprint"]["benchmark"] for places in runs]
    short = [model.rpartition("/")[2] for model in models]
    folders = [f"{name} ({places[0][0].name})" for name, places in zip(short, runs, strict=True)]
    paths = [f"{name} ({places[0][0]})" for name, places in zip(short, runs, strict=True)]
    for names in (short, models, folders, paths):
        pairs = list(zip(benchmarks, names, strict=True))
        if len(set(pairs)) == len(pairs):
            return names
    return paths
