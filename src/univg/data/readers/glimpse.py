"""Look at a file or folder just long enough to tell what it is: first bytes, names of fields, one record."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from univg.data.formats.json_stream import read_items
from univg.data.formats.opening import opening
from univg.errors import UnivgError

__all__ = ["Glimpse", "peek_object", "take_glimpse"]

_BYTES = 4096
_ITEMS = 2000
_NAMES, _FOLDERS, _DEEP = 100, 100, 4
"""Names of each folder, folders, and folders within folders, that are looked at."""


@dataclass(frozen=True)
class Glimpse:
    """What shows of a file or folder at first sight.

    - `head`: the first bytes; `lines`: the first lines, if it is text, not JSON.
    - `record`: the object itself if the file is one, with the first item of each of its lists; of a list, or of lines,
      the first record; `listed` says which.
    - `names`: of a folder, what is in it and in its folders.
    """

    path: Path
    suffix: str = ""
    head: bytes = b""
    lines: list[str] = field(default_factory=list)
    record: Mapping[str, Any] = field(default_factory=dict)
    listed: bool = False
    names: frozenset[str] = frozenset()

    @property
    def value(self) -> Mapping[str, Any]:
        """The first value of the record that is itself an object: entries by their ids."""
        return next((value for value in self.record.values() if isinstance(value, Mapping)), {})


def take_glimpse(path: Path) -> Glimpse:
    """Look at a file or folder; whatever cannot be read shows as nothing."""
    head = b""
    if path.is_dir():
        return Glimpse(path, names=frozenset(_list_names(path)))
    try:
        with path.open("rb") as raw:
            head = raw.read(_BYTES)
        with opening(path) as data:
            text = data.file.read(_BYTES).decode(data.encoding, "replace").removeprefix("\ufeff")
    except (OSError, UnivgError):
        text = ""  # whoever reads it says what is wrong with it
    start = text.lstrip()[:1]
    no_text = "\0" in text or start in ("[", "{")
    lines = [] if no_text else [line for line in text.splitlines() if line.strip()]
    record, listed = (_peek(path, start)) if start in ("[", "{") else ({}, False)
    return Glimpse(path, path.suffix.lower(), head, lines, record, listed)


def _list_names(path: Path) -> Iterator[str]:
    folders = [path]
    for folder in islice(folders, _FOLDERS):  # it grows as it is gone through
        for found in islice(folder.iterdir(), _NAMES) if os.access(folder, os.R_OK | os.X_OK) else ():
            yield found.relative_to(path).as_posix()
            if found.is_dir() and len(found.relative_to(path).parts) < _DEEP:
                folders.append(found)


def _peek(path: Path, start: str) -> tuple[Mapping[str, Any], bool]:
    if start == "{":
        return peek_object(path), False
    try:
        first = next((value for _, value in read_items(path)), None)
    except UnivgError:
        return {}, True  # whoever reads it says what is wrong with it
    return (first if isinstance(first, Mapping) else {}), True


def peek_object(path: Path) -> dict[str, Any]:
    """Return the fields of a file's one object, as far as they show early; of a list the first item that is an object.

    Of JSON Lines it is the first record.
    """
    seen: dict[str, Any] = {}
    try:
        for key, value in islice(read_items(path), _ITEMS):
            if key is not None:
                seen.setdefault(key, value)
    except UnivgError:
        pass  # whoever reads it says what is wrong with it
    return seen
