"""A run's folder: rows that are only ever appended, and the fingerprint that says what they belong to.

    DIR/run.json                 the fingerprint: all that decides a number; and where the data were found
    DIR/rows-0-of-1.jsonl        one row a sample, appended as answers come; one file for each shard
    DIR/state-0-of-1.json        how many samples the benchmark has, and those that could not be evaluated

A process may be killed at any moment. What it leaves behind is whole rows and at most one cut-off line, which
the next run removes before it appends. A row counts only with its newline.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from univg.errors import UnivgError
from univg.files import Journal, canonical, whole_lines

Row: TypeAlias = dict[str, Any]
Shard: TypeAlias = tuple[int, int]
"""(number from 0, how many)."""

RUN_FILE = "run.json"
_TIMINGS = frozenset({"seconds"})
"""What may differ between two runs of the same fingerprint."""
_SETTINGS = {"model": ("model",), "data": ("data", "split", "seed", "difficulty", "size_px")}
"""For what stands in a fingerprint as a digest: the entries of a run's `about` that tell it in words."""


class RunError(ValueError):
    """A run's folder that cannot be used as asked; one line with what, where and what to do."""


def fingerprint_id(fingerprint: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that stand for a fingerprint, whatever the order of its entries.

    >>> fingerprint_id({"a": 1, "b": 2}) == fingerprint_id({"b": 2, "a": 1}) != fingerprint_id({"a": 1})
    True
    """
    return hashlib.sha256(canonical(fingerprint).encode("ascii")).hexdigest()[:16]


def claim(folder: Path, fingerprint: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """Make `folder` the place of this fingerprint's rows, or check that it is; returns the fingerprint's id.

    `about` is what a report needs but no number depends on (where the images are); that of the first run stays.
    Raises RunError if the folder holds rows of another fingerprint, naming what differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RUN_FILE
    identity = fingerprint_id(fingerprint)
    if not path.exists():
        if any(_row_files(folder)):
            raise RunError(f"rows without a {RUN_FILE}: {folder}: give another --out")
        text = json.dumps({"id": identity, "fingerprint": fingerprint, "about": about}, indent=2) + "\n"
        _create(path, text)
    stored = read_run(folder)
    if stored["id"] != identity:
        changed = "; ".join(_changes(stored, fingerprint, about))
        raise RunError(f"rows of another run ({changed}): {folder}: give another --out")
    return identity


def read_run(folder: Path) -> dict[str, Any]:
    """The `run.json` of a run's folder: `id`, `fingerprint`, `about`. Raises RunError if it is not one."""
    path = folder / RUN_FILE
    try:
        stored = json.loads(path.read_bytes())
        if fingerprint_id(stored["fingerprint"]) != stored["id"] or not isinstance(stored["about"], dict):
            raise ValueError("its id is not that of its fingerprint")
    except FileNotFoundError:
        raise RunError(f"no run here: {folder}: give a folder that `univg evaluate` wrote") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"the run's description cannot be read ({error}): {path}: evaluate anew") from None
    return stored


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Where two fingerprints differ, in words.

    >>> differences({"pixels": {"max": 9}, "seed": 0}, {"pixels": {"max": 5}, "seed": 0})
    ['pixels.max: 9 -> 5']
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        names = list(dict.fromkeys([*before, *now]))
        return [
            line
            for key in names
            for line in differences(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
        ]
    return [] if before == now else [f"{name}: {_short(before)} -> {_short(now)}"]


def _changes(
    stored: Mapping[str, Any], fingerprint: Mapping[str, Any], about: Mapping[str, Any]
) -> list[str]:
    """What differs, from the folder's rows to those asked for now. Model and data stand in a fingerprint as
    digests, which tell nobody anything; what they were called, or drawn by, does."""
    before, lines = stored["fingerprint"], []
    for digest, settings in _SETTINGS.items():
        if before.get(digest) != fingerprint.get(digest):
            there, here = (
                {name: each[name] for name in settings if name in each} for each in (stored["about"], about)
            )
            unlike = (
                f"{digest}: another content under the same name ({here.get(digest, 'the same settings')})"
            )
            lines += differences(there, here) or [unlike]
    there, here = (
        {name: value for name, value in each.items() if name not in _SETTINGS}
        for each in (before, fingerprint)
    )
    return [*lines, *differences(there, here)]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}…"


def read_rows(folder: Path, identity: str) -> dict[str, Row]:
    """All whole rows of a run by key, over all its shards, the first of a key counting.

    A last line without its newline is passed over (a run may be writing it, or was killed there). Raises
    RunError for a line in between that is no row, and for a row of another fingerprint.
    """
    rows: dict[str, Row] = {}
    for path in _row_files(folder):
        for number, line in enumerate(whole_lines(path), start=1):
            try:
                row = json.loads(line)
                key, origin = row["key"], row["fingerprint"]
            except (ValueError, KeyError, TypeError):
                where = f"{path}, line {number}"
                raise RunError(f"a damaged row: {where}: remove that line and evaluate again") from None
            if origin != identity:
                raise RunError(f"a row of another run: {path}, line {number}: evaluate into another --out")
            rows.setdefault(key, row)
    return rows


def without_timings(row: Row) -> Row:
    """What two runs of one fingerprint agree on to the last bit."""
    return {name: value for name, value in row.items() if name not in _TIMINGS}


def write_state(folder: Path, shard: Shard, expected: int, faults: Sequence[Mapping[str, Any]]) -> None:
    """How many samples the benchmark holds, and which of this shard's could not be evaluated."""
    path = folder / f"state-{shard[0]}-of-{shard[1]}.json"
    _replace(path, json.dumps({"expected": expected, "faults": list(faults)}, indent=1) + "\n")


def read_state(folder: Path, done: Mapping[str, Row]) -> tuple[int, list[dict[str, Any]]]:
    """(samples expected, faults that still stand) over all shards. A fault whose sample has a row by now, and
    one that several shards reported, are counted once or not at all."""
    expected, faults = 0, {}
    for path in sorted(folder.glob("state-*-of-*.json")):
        state = json.loads(path.read_bytes())
        expected = max(expected, state["expected"])
        for fault in state["faults"]:
            if fault.get("key") not in done:
                faults[fault.get("key"), fault["source"], fault["kind"]] = fault
    return expected, list(faults.values())


class RowWriter(Journal):
    """Appends rows to one shard's file. Entering raises RunError if another process writes it."""

    def __init__(self, folder: Path, shard: Shard) -> None:
        super().__init__(folder / f"rows-{shard[0]}-of-{shard[1]}.jsonl")

    def __enter__(self) -> RowWriter:
        try:
            super().__enter__()
        except UnivgError:
            raise RunError(f"another process writes these rows: {self.path}: wait for it to end") from None
        return self


def _row_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("rows-*.jsonl"))


def _create(path: Path, text: str) -> None:
    """Write a new file, whole or not at all; if another process was first, its file stays."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        try:
            os.link(partial, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            if not path.exists():
                os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
