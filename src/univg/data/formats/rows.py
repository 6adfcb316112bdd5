"""Rows out of whatever holds them: JSON lists, JSON Lines, Parquet and Arrow files, `datasets` folders.

All are read as streams. Parquet and Arrow need pyarrow, which comes with `datasets` (`pip install univg[train]`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from univg.data.formats.json_stream import read_items
from univg.data.formats.records import ReadError, Row, Unusable

__all__ = ["Container", "container_of", "read_rows"]

Container: TypeAlias = Literal["array", "object", "lines", "parquet", "arrow", "folder"]

_FIRST_LINE = 1 << 24
_BATCH_ROWS = 256


def container_of(path: Path) -> Container:
    """What kind of file or folder this is, by its content; a Parquet or Arrow file by its suffix.

    Raises `ReadError` for a file that is missing, empty or of another kind.
    """
    if path.is_dir():
        return "folder"
    if path.suffix == ".parquet":
        return "parquet"
    if path.suffix == ".arrow":
        return "arrow"
    try:
        with path.open("rb") as file:
            line = file.readline(_FIRST_LINE)
            while line and not line.removeprefix(b"\xef\xbb\xbf").strip():
                line = file.readline(_FIRST_LINE)
            more = bool(file.read(1 << 16).strip())
    except FileNotFoundError:
        raise ReadError(f"no such file: {path}: check the path") from None
    except OSError as error:
        raise ReadError(f"cannot be read ({error.strerror}): {path}: check its permissions") from None
    start = line.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"["):
        return "array"
    if start.startswith(b"{"):
        return "lines" if path.suffix == ".jsonl" or (more and _is_object(start)) else "object"
    what = "an empty file" if not start else "neither JSON nor JSON Lines"
    raise ReadError(f"{what}: {path}: give a published JSON, JSONL, Parquet or Arrow file")


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def read_rows(path: str | os.PathLike[str]) -> Iterator[tuple[str, Row | Unusable]]:
    """`(position, row)` of every row, positions counted from 0 (lines from 1, as editors do).

    A line of a JSON Lines file that is not JSON comes as `Unusable`; any other damage is a `ReadError`, as
    nothing after it can be trusted. One object alone is one row.
    """
    path = Path(path)
    container = container_of(path)
    if container == "lines":
        yield from _lines(path)
    elif container == "array":
        for position, (_, row) in enumerate(read_items(path)):
            yield str(position), row
    elif container == "object":
        yield path.stem, dict(_whole(path))
    else:
        yield from _tables(path, container)


def _whole(path: Path) -> Mapping[str, Any]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            value = json.load(file)
    except (ValueError, RecursionError) as error:
        raise ReadError(f"not JSON ({error}): {path}: download or write it again") from None
    return value if isinstance(value, dict) else {}


def _lines(path: Path) -> Iterator[tuple[str, Row | Unusable]]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if not line.strip():
                continue
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                yield f"line {number}", Unusable("not_json", f"not complete JSON ({error})")


def _tables(path: Path, container: Container) -> Iterator[tuple[str, Row | Unusable]]:
    position = 0
    for file in _table_files(path) if container == "folder" else [path]:
        for batch in _batches(file):
            for row in batch.to_pylist():
                yield str(position), row
                position += 1


def _table_files(folder: Path) -> list[Path]:
    """The tables of a folder: those a saved `datasets` set lists, or all there are, splits and shards in order."""
    state = folder / "state.json"
    if state.is_file():
        try:
            listed = json.loads(state.read_text("utf-8"))["_data_files"]
            return [folder / entry["filename"] for entry in listed]
        except (ValueError, KeyError, TypeError):
            pass  # a layout of another version: the files themselves are as good
    files = sorted(
        file for suffix in ("*.parquet", "*.arrow") for file in folder.rglob(suffix) if _is_data(file)
    )
    if not files:
        raise ReadError(f"no Parquet or Arrow file in this folder: {folder}: name a file, or --format")
    return files


def _is_data(file: Path) -> bool:
    return not file.name.startswith("cache-")  # what `datasets` leaves behind after map and filter


def _batches(file: Path) -> Iterator[Any]:
    try:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError:
        raise ReadError(f"Parquet and Arrow files need pyarrow: {file}: pip install 'univg[train]'") from None
    try:
        if file.suffix == ".parquet":
            with pyarrow.parquet.ParquetFile(file) as table:
                yield from table.iter_batches(batch_size=_BATCH_ROWS)
            return
        with pyarrow.memory_map(str(file)) as mapped:
            try:
                reader = pyarrow.ipc.open_stream(mapped)
            except pyarrow.ArrowInvalid:
                whole = pyarrow.ipc.open_file(mapped)
                reader = (whole.get_batch(i) for i in range(whole.num_record_batches))
            for batch in reader:
                for start in range(0, batch.num_rows, _BATCH_ROWS):
                    yield batch.slice(start, _BATCH_ROWS)
    except (pyarrow.ArrowException, OSError) as error:
        cause = str(error).splitlines()[0][:120]
        raise ReadError(f"not a readable table ({cause}): {file}: download or write it again") from None
