"""Read rows out of whatever holds them: JSON lists, JSON Lines, tables as text, Parquet, Arrow, `datasets` folders.

All are read as streams. Parquet and Arrow need pyarrow, which comes with `datasets` (`pip install univg[train]`).
"""

from __future__ import annotations

import ast
import csv
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

from univg.data.formats.faults import Unusable
from univg.data.formats.fields import Row
from univg.data.formats.json_stream import Decoder, explain, is_cut, read_items, read_values
from univg.data.formats.opening import PACKED_SUFFIXES, opening, tell_encoding
from univg.errors import UnivgError

__all__ = [
    "Container",
    "Rows",
    "detect_container",
    "holds_object",
    "import_pyarrow",
    "list_paths",
    "read_rows",
]

Container: TypeAlias = Literal["array", "object", "objects", "lines", "table", "parquet", "arrow", "folder"]
Rows: TypeAlias = Iterator[tuple[str, "Row | Unusable"]]
"""The position of every row, as a person would find it, and the row, or what is wrong with it."""

_LONGEST_LINE = 1 << 24
_LINES = (".jsonl", ".ndjson")
_BATCH_ROWS = 256
_LONGEST_CELL = 1 << 28  # a picture in base 64
_DELIMITERS = {".csv": ",;\t", ".tsv": "\t"}
_TABLES: dict[bytes, Container] = {b"PAR1": "parquet", b"ARROW1": "arrow"}


def detect_container(path: Path) -> Container:
    """Tell what kind of file or folder this is, by its content; a Parquet or Arrow file by its suffix too.

    Raises `UnivgError` for a file that is missing, empty or of another kind.
    """
    if path.is_dir():
        return "folder"
    suffix = _find_suffix(path)
    with opening(path) as data:
        for magic, kind in _TABLES.items():
            if data.head.startswith(magic) or suffix == f".{kind}":
                return kind
        lines = filter(None, (line.strip() for line in data.lines(_LONGEST_LINE)))
        first = next(lines, b"")
        if suffix in _DELIMITERS and first[:1] not in (b"", b"[", b"{"):
            return "table"
        if first.startswith(b"["):
            return "array"
        some = [first, *islice(lines, 1)]
    complete = [_is_value(line) for line in some]
    if first.startswith(b"{"):
        if complete == [True] and suffix not in _LINES:
            return "object"
        # Of a .jsonl file's first line much may be wrong; one that stands open is an object over several lines.
        alone = len(some) < 2 and b"\r" not in first  # old Macs end lines so
        if complete[0] or (suffix in _LINES and (alone or complete[-1])):
            return "lines"
        return "objects" if _go_on_behind_first(path) else "object"
    if len(some) == 2 and complete[0]:
        return "lines"  # null, a number: whoever reads it will say so
    cause = "neither JSON nor JSON Lines" if first else "an empty file"
    raise UnivgError(cause, path, "give a published JSON, JSONL, Parquet or Arrow file")


def holds_object(folder: Path) -> bool:
    """Tell whether a JSON file of a folder is one object, as that of each image is in some sets; not rows of any."""
    for file in sorted(folder.rglob("*.json")):
        with suppress(UnivgError):  # whoever reads it will say what is wrong with it
            if detect_container(file) == "object":
                return True
    return False


def _go_on_behind_first(path: Path) -> bool:
    """Tell whether more objects stand behind the first. One too long to be a record is the only one of its file."""
    with opening(path) as data, suppress(ValueError, RecursionError):
        text = data.file.read(_LONGEST_LINE).decode(data.encoding, "replace").removeprefix("\ufeff").lstrip()
        return text[json.JSONDecoder().raw_decode(text)[1] :].strip(", \t\r\n").startswith("{")
    return False


def _find_suffix(path: Path) -> str:
    """Return the suffix without that of packing, in small letters: .jsonl of a.JSONL.gz."""
    packed = path.suffix.lower() in PACKED_SUFFIXES
    return (path.with_suffix("") if packed else path).suffix.lower()


def _is_value(line: bytes) -> bool:
    try:
        json.loads(line.rstrip(b","))
    except (ValueError, RecursionError):
        return False
    return True


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
    elif container in ("object", "objects"):
        yield from _read_objects(path)
    else:
        files = _list_tables(path) if container == "folder" else [path]
        if files and files[0].suffix.lower() not in (".parquet", ".arrow"):
            yield from _read_parts(path, files)
            return
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


def _read_objects(path: Path) -> Rows:
    """Yield the object of a file, under the file's name; of several, one after the other, each under its number."""
    values = read_values(path)
    some = list(islice(values, 2))
    if len(some) == 1:
        yield path.stem, some[0]
        return
    yield from ((str(position), row) for position, row in enumerate(chain(some, values)))


def _read_lines(path: Path) -> Rows:
    decoder = Decoder()
    with opening(path) as data:
        for number, raw in enumerate(data.lines(), start=1):
            if line := raw.strip():
                yield f"line {number}", _parse_line(decoder, line, raw.endswith(b"\n"), path)


def _parse_line(decoder: Decoder, raw: bytes, whole: bool, path: Path) -> Any:
    """Return the value of a line (a comma behind it is no matter), or what is wrong with it."""
    try:
        line = raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        return Unusable("not_json", *tell_encoding(error, path))
    try:
        value, end = decoder.scan(line, 0)
        if line[end:].strip() not in ("", ","):
            raise json.JSONDecodeError("Extra data", line, end)
        return decoder.check(value)
    except json.JSONDecodeError as error:
        decoder.repeated = None
        if not whole and is_cut(line, error):
            cause = "the file ends in the middle of this line, so more records may be missing"
            return Unusable("not_json", cause, "download or copy the file again")
        return Unusable("not_json", *(explain(line, error) or (f"not complete JSON ({error})",)))
    except (ValueError, RecursionError) as error:
        return Unusable("not_json", f"not complete JSON ({error})")


def _read_table(path: Path) -> Rows:
    """Yield the rows of a CSV or TSV file under the names of its first line, every cell a text (see `_read_cell`)."""
    csv.field_size_limit(_LONGEST_CELL)
    with opening(path) as data:
        lines = (line.decode() for line in data.lines())
        head = next(lines, "")
        delimiter = max(_DELIMITERS[_find_suffix(path)], key=head.count)
        cells = csv.reader(chain([head], lines), delimiter=delimiter)
        try:
            names = [name.strip() for name in next(cells)]
            for values in cells:
                if not values:
                    continue
                if len(values) != len(names):
                    cause = f"{len(values)} cell(s), and the first line names {len(names)}"
                    yield f"line {cells.line_num}", Unusable("bad_field", cause, "write the row again")
                else:
                    yield f"line {cells.line_num}", dict(zip(names, map(_read_cell, values), strict=True))
        except (csv.Error, UnicodeDecodeError) as error:
            told = (f"not a readable table ({error})", "export it again")
            cause, fix = tell_encoding(error, path) if isinstance(error, UnicodeDecodeError) else told
            raise UnivgError(cause, f"{path}, line {cells.line_num + 1}", fix) from None


_NESTED = re.compile(r"""\s*(?:\[\s*["'{]|\{\s*["'])""")


def _read_cell(cell: str) -> Any:
    """Return a cell's text; of a list of texts or objects, as JSON or as Python writes it, what it holds.

    >>> _read_cell("['a.jpg']"), _read_cell("[1, 2, 3, 4]")
    (['a.jpg'], '[1, 2, 3, 4]')
    """
    if _NESTED.match(cell):
        for parse in (json.loads, ast.literal_eval):
            with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                return parse(cell)
    return cell


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
    if parts := [file for file in folder.iterdir() if _find_suffix(file) in (".json", *_LINES)]:
        return sorted(parts, key=_number_parts)
    raise UnivgError("no Parquet, Arrow or JSON file in this folder", folder, "name a file, or --format")


def _number_parts(file: Path) -> list[tuple[int, str]]:
    """Sort part-2 before part-10."""
    return [(int(digits or 0), other) for digits, other in re.findall(r"(\d+)|(\D+)", file.name)]


def _read_parts(folder: Path, files: list[Path]) -> Rows:
    for file in files:
        for position, row in read_rows(file):
            yield f"{file.relative_to(folder).as_posix()}/{position}", row


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
