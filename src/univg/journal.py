"""Files that only grow: whole JSON lines, each on disk before its writer goes on, whoever is killed when.

What a killed process leaves behind is whole lines and at most one cut-off line, which the next writer removes
before it appends. A line counts only with its newline.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: two writers of one file are then not noticed
    fcntl = None  # type: ignore[assignment]

__all__ = ["Journal", "JournalBusy", "canonical", "whole_lines"]


class JournalBusy(ValueError):
    """Another process writes the file; one line with what, which and what to do."""


def canonical(value: Any) -> str:
    """JSON text that is equal for equal values.

    >>> canonical({"b": 1, "a": [2]})
    '{"a":[2],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


class Journal:
    """Appends JSON objects to one file; no other process can write to it meanwhile.

    What `append` was given is on disk when it returns. Entering raises `JournalBusy` if another process has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = -1

    def __enter__(self) -> Journal:
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lifts it if we are killed
            self._cut_torn_line()
        except BlockingIOError:
            self._close()
            raise JournalBusy(f"another process writes here: {self.path}: wait for it to end") from None
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        lines = [json.dumps(row, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n" for row in rows]
        rest = memoryview(b"".join(lines))
        while rest:
            rest = rest[os.write(self._file, rest) :]
        os.fsync(self._file)

    def _close(self) -> None:
        os.close(self._file)
        self._file = -1

    def _cut_torn_line(self) -> None:
        size = os.fstat(self._file).st_size
        end, block = size, 1 << 16
        while end > 0:
            start = max(0, end - block)
            at = os.pread(self._file, end - start, start).rfind(b"\n")
            if at >= 0:
                end = start + at + 1
                break
            end = start
        if end < size:
            os.ftruncate(self._file, end)


def whole_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file that end in a newline."""
    with open(path, "rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line
