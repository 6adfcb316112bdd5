"""Keep a run in its folder and read it back: rows that are only ever appended, under a fingerprint.

    DIR/run.json                 the fingerprint: all that decides a number; and where the data were found
    DIR/rows-0-of-1.jsonl        one row a sample, appended as answers come; one file for each shard
    DIR/state-0-of-1.json        how many samples the benchmark has, and those that could not be evaluated

A process may be killed at any moment: every whole row it leaves behind counts (:class:`univg.files.Journal`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from univg.data.dataset import Shard
from univg.errors import UnivgError
from univg.evaluate.rows import Row
from univg.files import Journal, canonical, create_whole, whole_lines, write_whole

__all__ = [
    "OtherRun",
    "Run",
    "claim",
    "fingerprint_id",
    "list_differences",
    "open_rows",
    "read_beside",
    "read_rows",
    "read_run",
    "read_runs",
    "read_state",
    "write_state",
]

RUN_FILE = "run.json"
_SETTINGS = {"model": ("model",), "data": ("data", "split", "seed", "difficulty", "size_px")}
"""For what stands in a fingerprint as a digest: the entries of a run's `about` that tell it in words."""


class OtherRun(UnivgError):
    """A folder holds rows of another fingerprint. The study catches it, and evaluates an arm trained anew."""


def fingerprint_id(fingerprint: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that stand for a fingerprint, whatever the order of its entries.

    >>> fingerprint_id({"a": 1, "b": 2}) == fingerprint_id({"b": 2, "a": 1}) != fingerprint_id({"a": 1})
    True
    """
    return hashlib.sha256(canonical(fingerprint).encode("ascii")).hexdigest()[:16]


def claim(folder: Path, fingerprint: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """Make `folder` the place of this fingerprint's rows, or check that it is; return the fingerprint's id.

    `about` is what a report needs but no number depends on (where the images are); that of the first run stays.
    Raises OtherRun if the folder holds rows of another fingerprint, naming what differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RUN_FILE
    identity = fingerprint_id(fingerprint)
    if not path.exists():
        if any(_list_row_files(folder)):
            raise UnivgError(f"rows without a {RUN_FILE}", folder, "give another --out")
        text = json.dumps({"id": identity, "fingerprint": fingerprint, "about": about}, indent=2)
        create_whole(path, text + "\n")  # if another process was first, its fingerprint counts
    stored = read_run(folder)
    if stored["id"] != identity:
        changed = "; ".join(_list_changes(stored, fingerprint, about))
        raise OtherRun(f"rows of another run ({changed})", folder, "give another --out")
    return identity


def read_run(folder: Path) -> dict[str, Any]:
    """Read the `run.json` of a run's folder: `id`, `fingerprint`, `about`. Raises UnivgError if it is not one."""
    path = folder / RUN_FILE
    try:
        stored = json.loads(path.read_bytes())
        if isinstance(stored, dict) and not stored.keys() & {"id", "fingerprint"}:
            remedy = f"evaluate it first: univg evaluate --model {folder} --benchmark world --out runs/world"
            raise UnivgError("a run of training, not of `univg evaluate`", folder, remedy)
        if fingerprint_id(stored["fingerprint"]) != stored["id"] or not isinstance(stored["about"], dict):
            raise ValueError("its id is not that of its fingerprint")
    except FileNotFoundError:
        raise UnivgError("no run here", folder, "give a folder that `univg evaluate` wrote") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnivgError(f"the run's description cannot be read ({error})", path, "evaluate anew") from None
    return stored


def list_differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Say where two fingerprints differ, an entry a line.

    >>> list_differences({"pixels": {"max": 9}, "seed": 0}, {"pixels": {"max": 5}, "seed": 0})
    ['pixels.max: 9 -> 5']
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        names = list(dict.fromkeys([*before, *now]))
        return [
            line
            for key in names
            for line in list_differences(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
        ]
    return [] if before == now else [f"{name}: {_shorten(before)} -> {_shorten(now)}"]


def _list_changes(
    stored: Mapping[str, Any], fingerprint: Mapping[str, Any], about: Mapping[str, Any]
) -> list[str]:
    """Say what differs, from the folder's rows to those asked for now.

    Model and data stand in a fingerprint as digests, which say nothing to a reader; what they were called, or drawn
    by, does.
    """
    before, lines = stored["fingerprint"], []
    for digest, settings in _SETTINGS.items():
        if before.get(digest) != fingerprint.get(digest):
            there, here = (
                {name: each[name] for name in settings if name in each} for each in (stored["about"], about)
            )
            name = here.get(digest, "the same settings")
            lines += list_differences(there, here) or [
                f"{digest}: another content under the same name ({name})"
            ]
    there, here = (
        {name: value for name, value in each.items() if name not in _SETTINGS}
        for each in (before, fingerprint)
    )
    return [*lines, *list_differences(there, here)]


def _shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}…"


def open_rows(folder: Path, shard: Shard) -> Journal:
    """Return the journal of one shard's rows; entering it raises UnivgError if another process writes them."""
    return Journal(folder / f"rows-{shard[0]}-of-{shard[1]}.jsonl")


def read_rows(folder: Path, identity: str) -> dict[str, Row]:
    """Read all whole rows of a run by key, over all its shards, the first of a key counting.

    A last line without its newline is passed over (a run may be writing it, or was killed there). Raises UnivgError
    for a line in between that is no row, and for a row of another fingerprint.
    """
    rows: dict[str, Row] = {}
    for path in _list_row_files(folder):
        for number, line in enumerate(whole_lines(path), start=1):
            try:
                row = json.loads(line)
                key, origin = row["key"], row["fingerprint"]
            except (ValueError, KeyError, TypeError):
                place = f"{path}, line {number}"
                raise UnivgError("a damaged row", place, "remove that line and evaluate again") from None
            if origin != identity:
                raise UnivgError(
                    "a row of another run", f"{path}, line {number}", "evaluate into another --out"
                )
            rows.setdefault(key, row)
    return rows


def write_state(folder: Path, shard: Shard, expected: int, faults: Sequence[Mapping[str, Any]]) -> None:
    """Write how many samples the benchmark holds, and which of this shard's could not be evaluated."""
    state = json.dumps({"expected": expected, "faults": list(faults)}, indent=1)
    write_whole(folder / f"state-{shard[0]}-of-{shard[1]}.json", state + "\n")


def read_state(folder: Path, done: Mapping[str, Row]) -> tuple[int, list[dict[str, Any]]]:
    """Read (samples expected, faults that still stand) over all shards.

    A fault whose sample has a row by now does not stand; one that several shards reported is counted once.
    """
    expected, faults = 0, {}
    for path in sorted(folder.glob("state-*-of-*.json")):
        state = json.loads(path.read_bytes())
        expected = max(expected, state["expected"])
        for fault in state["faults"]:
            if fault.get("key") not in done:
                faults[fault.get("key"), fault["source"], fault["kind"]] = fault
    return expected, list(faults.values())


def _list_row_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("rows-*.jsonl"))


@dataclass(frozen=True)
class Run:
    """Holds one run, finished or not, as its folders have it.

    `expected`: how many samples its benchmark has; `faults`: those that could not be evaluated, and records that
    needed a remark.
    """

    label: str
    benchmark: str
    fingerprint: Mapping[str, Any]
    about: Mapping[str, Any]
    rows: Mapping[str, Row]
    expected: int
    faults: Sequence[Mapping[str, Any]] = ()

    @property
    def missing(self) -> int:
        """How many samples have no row."""
        return max(0, self.expected - len(self.rows))


_Places: TypeAlias = list[tuple[Path, dict[str, Any]]]
"""The folders of one fingerprint, each with its `run.json`."""


def read_runs(folders: Iterable[Path]) -> list[Run]:
    """Read the runs in `folders`, labelled by their models (and where two would be alike, by their folders).

    Folders of one fingerprint (shards that ran on several machines) are one run. Raises UnivgError for a folder that
    holds no run, or no row yet.
    """
    groups = _group_folders(folders)
    labels = _label_runs(groups)
    return [_merge_folders(label, places) for label, places in zip(labels, groups, strict=True)]


def read_beside(folders: Sequence[Path], other: Path) -> tuple[list[Run], Run]:
    """Read the runs in `folders`, and the one in `other` that they are to be compared with, labelled apart.

    The other is a run of its own also where its fingerprint is theirs. Raises UnivgError as `read_runs` does, and if
    `other` is one of the folders.
    """
    if other.resolve() in [folder.resolve() for folder in folders]:
        raise UnivgError("a run is not compared with itself", other, "give the folder of another run")
    groups = [*_group_folders(folders), *_group_folders([other])]
    labels = _label_runs(groups)
    *runs, beside = [_merge_folders(label, places) for label, places in zip(labels, groups, strict=True)]
    return runs, beside


def _group_folders(folders: Iterable[Path]) -> list[_Places]:
    found: dict[str, _Places] = {}
    for folder in dict.fromkeys(folders):
        stored = read_run(folder)
        found.setdefault(stored["id"], []).append((folder, stored))
    return list(found.values())


def _merge_folders(label: str, places: _Places) -> Run:
    first, stored = places[0]
    rows: dict[str, Row] = {}
    for folder, _ in places:
        rows = read_rows(folder, stored["id"]) | rows
    if not rows:
        raise UnivgError("no row yet", first, "let `univg evaluate` run first")
    states = [read_state(folder, rows) for folder, _ in places]
    faults = {
        (one.get("key"), one["source"], one["kind"], one["why"]): one
        for _, standing in states
        for one in standing
    }
    fingerprint = stored["fingerprint"]
    ordered = dict(sorted(rows.items(), key=lambda item: (item[1]["task"], item[1]["source"], item[0])))
    return Run(
        label,
        fingerprint["benchmark"],
        fingerprint,
        stored["about"],
        ordered,
        max(count for count, _ in states),
        list(faults.values()),
    )


def _label_runs(runs: Sequence[_Places]) -> list[str]:
    """Return the shortest names that tell the runs of one benchmark apart."""
    models = [str(places[0][1]["about"].get("model", "model")).rstrip("/") for places in runs]
    benchmarks = [places[0][1]["fingerprint"]["benchmark"] for places in runs]
    short = [model.rpartition("/")[2] for model in models]
    folders = [f"{name} ({places[0][0].name})" for name, places in zip(short, runs, strict=True)]
    paths = [f"{name} ({places[0][0]})" for name, places in zip(short, runs, strict=True)]
    for names in (short, models, folders):
        if len(set(zip(benchmarks, names, strict=True))) == len(runs):
            return names
    return paths
