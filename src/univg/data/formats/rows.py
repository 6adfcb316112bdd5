"""Read rows out of whatever holds them: JSON lists, JSON Lines, tables as text, Parquet, Arrow, `datasets` folders.

All are read as streams. Parquet and Arrow need pyarrow, which comes with `datasets` (`pip install univg[train]`).
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from univg.data.formats.faults import Unusable
from univg.data.formats.fields import Row
from univg.data.formats.json_stream import read_items
from univg.errors import UnivgError

__all__ = ["Container", "Rows", "detect_container", "import_pyarrow", "list_paths", "read_rows"]

Container: TypeAlias = Literal["array", "object", "lines", "table", "parquet", "arrow", "folder"]
Rows: TypeAlias = Iterator[tuple[str, "Row | Unusable"]]
"""The position of every row, as a person would find it, and the row, or what is wrong with it."""

_FIRST_LINE = 1 << 24
_BATCH_ROWS = 256
_LONGEST_CELL = 1 << 28  # a picture in base 64
_DELIMITERS = {".csv": ",;\t", ".tsv": "\t"}
_BOM = b"\xef\xbb\xbf"


def detect_container(path: Path) -> Container:
    """Tell what kind of file or folder this is, by its content; a Parquet or Arrow file by its suffix.

    Raises `UnivgError` for a file that is missing, empty or of another kind.
    """
    if path.is_dir():
        return "folder"
    if path.suffix in (".parquet", ".arrow"):
        return "parquet" if path.suffix == ".parquet" else "arrow"
    try:
        with path.open("rb") as file:
            line = file.readline(_FIRST_LINE)
            while line and not line.removeprefix(_BOM).strip():
                line = file.readline(_FIRST_LINE)
            more = bool(file.read(1 << 16).strip())
    except FileNotFoundError:
        raise UnivgError("no such file", path, "check the path") from None
    except OSError as error:
        raise UnivgError(f"cannot be read ({error.strerror})", path, "check its permissions") from None
    start = line.removeprefix(_BOM).lstrip()
    if path.suffix.lower() in _DELIMITERS and start[:1] not in (b"", b"[", b"{"):
        return "table"
    if start.startswith(b"["):
        return "array"
    if start.startswith(b"{"):
        return "lines" if path.suffix == ".jsonl" or (more and _is_object(start)) else "object"
    cause = "an empty file" if not start else "neither JSON nor JSON Lines"
    raise UnivgError(cause, path, "give a published JSON, JSONL, Parquet or Arrow file")


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def read_rows(path: str | os.PathLike[str]) -> Rows:
    """Yield `(position, row)` of every row, positions counted from 0 (lines from 1, as editors do).

    A line of a JSON Lines file that is not JSON comes as `Unusable`; any other damage is a `UnivgError`, as
    nothing after it can be trusted. One object alone is one row.
    """
    path = Path(path)
    container = detect_container(path)
    if container == "lines":
        yield from _read_lines(path)
    elif container == "array":
        for position, (_, row) in enumerate(read_items(path)):
            yield str(position), row
    elif container == "table":
        yield from _read_table(path)
    elif container == "object":
        yield path.stem, _read_object(path)
    else:
        files = _list_tables(path) if container == "folder" else [path]
        rows = (row for file in files for batch in _read_batches(file) for row in batch.to_pylist())
        yield from ((str(position), row) for position, row in enumerate(rows))


_PATH_FIELDS = ("images", "image", "image_path", "image_list", "img", "file_name")


def list_paths(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the image paths that the rows of a file name in the usual fields, whatever the format; none if unreadable.

    A path that readers find elsewhere (in a chat message, say) is not listed: this is for telling paths apart.
    """
    try:
        for _, row in read_rows(path):
            if isinstance(row, Mapping):
                for name in _PATH_FIELDS:
                    yield from _list_texts(row.get(name))
    except UnivgError:
        return  # whoever reads the file itself tells what is wrong with it


def _list_texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _list_texts(one.get("path") if isinstance(one, Mapping) else one)


def _read_object(path: Path) -> Row:
    try:
        value = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UnivgError(f"not JSON ({error})", path, "download or write it again") from None
    return value if isinstance(value, dict) else {}


def _read_lines(path: Path) -> Rows:
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            line = raw.removeprefix(_BOM) if number == 1 else raw
            if not line.strip():
                continue
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                cause, fix = f"not complete JSON ({error})", ""
                if not raw.endswith(b"\n"):
                    cause = "the file ends in the middle of this line, so more records may be missing"
                    fix = "download or copy the file again"
                yield f"line {number}", Unusable("not_json", cause, fix)


def _read_table(path: Path) -> Rows:
    """Yield the rows of a CSV or TSV file under the names of its first line, every cell a text."""
    csv.field_size_limit(_LONGEST_CELL)
    with path.open(encoding="utf-8-sig", newline="") as file:
        head = file.readline()
        file.seek(0)
        delimiter = max(_DELIMITERS[path.suffix.lower()], key=head.count)
        cells = csv.reader(file, delimiter=delimiter)
        try:
            names = [name.strip() for name in next(cells)]
            for values in cells:
                if not values:
                    continue
                if len(values) != len(names):
                    cause = f"{len(values)} cell(s), and the first line names {len(names)}"
                    yield f"line {cells.line_num}", Unusable("bad_field", cause, "write the row again")
                else:
                    yield f"line {cells.line_num}", dict(zip(names, values, strict=True))
        except (csv.Error, UnicodeDecodeError) as error:
            cause = f"not a readable table ({error})"
            raise UnivgError(cause, f"{path}, line {cells.line_num}", "export it again, as UTF-8") from None


def _list_tables(folder: Path) -> list[Path]:
    """List the tables that a saved `datasets` set names, or all that are there, splits and shards in order."""
    state = folder / "state.json"
    if state.is_file():
        try:
            return [
                folder / entry["filename"] for entry in json.loads(state.read_text("utf-8"))["_data_files"]
            ]
        except (ValueError, KeyError, TypeError):
            pass  # a layout of another version: the files themselves are as good
    files = [file for suffix in ("*.parquet", "*.arrow") for file in folder.rglob(suffix)]
    # cache-*: what `datasets` leaves behind after map and filter
    if files := sorted(file for file in files if not file.name.startswith("cache-")):
        return files
    raise UnivgError("no Parquet or Arrow file in this folder", folder, "name a file, or --format")


def import_pyarrow(what: str, place: object = "") -> Any:
    """Return the module pyarrow; raise `UnivgError` saying that `what` needs it if it is not installed."""
    try:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError:
        raise UnivgError(f"{what} need pyarrow", place, "pip install 'univg[train]'") from None
    return pyarrow


def _read_batches(file: Path) -> Iterator[Any]:
    pyarrow = import_pyarrow("Parquet and Arrow files", file)
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
        raise UnivgError(f"not a readable table ({cause})", file, "download or write it again") from None
