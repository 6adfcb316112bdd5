"""Read the cells of a CSV or TSV file: its encoding, what parts its cells, whether its first line is a header."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from univg.data.formats.faults import Unusable
from univg.data.formats.fields import NUMBER, shorten
from univg.data.formats.records import Source
from univg.errors import UnivgError

__all__ = ["Table", "read_cell_number", "read_table"]

_DELIMITERS = ",;\t|"
_COMMA = re.compile(r"([+-]?\d*),(\d+)")
_LOOK_AT = 50


@dataclass(frozen=True)
class Table:
    """A table: its header (None if it has none), and what parts its cells."""

    path: Path
    encoding: str
    delimiter: str
    header: list[str] | None

    def rows(self, first: int | None = None) -> Iterator[tuple[int, list[str] | Unusable]]:
        """Yield each row (the `first` ones only) with the number of its line; a row of another width is unusable."""
        return islice(self._rows(), first)

    def _rows(self) -> Iterator[tuple[int, list[str] | Unusable]]:
        width = len(self.header or ())
        for number, cells in _read_cells(self.path, self.encoding, self.delimiter):
            if not any(map(str.strip, cells)) or (self.header is not None and _strip(cells) == self.header):
                continue  # also a header in the middle, where tables were put one behind the other
            width = width or len(cells)
            while len(cells) > width and not cells[-1].strip():
                cells.pop()
            if len(cells) != width:
                cause = f"{len(cells)} cell(s), and the first line has {width}"
                yield (
                    number,
                    Unusable("bad_field", cause, "write the row again, texts with a comma in quotes"),
                )
            else:
                yield number, cells


def read_table(path: Path, seems_header: Callable[[Sequence[str]], bool]) -> Table:
    """Find out how a table is written; `UnivgError` if it is none.

    What parts its cells is the sign by which the first line is a header, else the one that makes most cells.
    """
    encoding = _find_encoding(path)
    found: list[tuple[bool, int, str, list[str]]] = []
    for delimiter in _DELIMITERS:
        rows = [
            _strip(cells)
            for _, cells in islice(_read_cells(path, encoding, delimiter), _LOOK_AT)
            if any(cells)
        ]
        if rows:
            found.append((seems_header(rows[0]), len(rows[0]), delimiter, rows[0]))
    if not found:
        raise UnivgError("an empty file", path, "give a table of boxes")
    is_header, _, delimiter, first = max(found, key=lambda one: one[:2])
    return Table(path, encoding, delimiter, _strip(first) if is_header else None)


def _strip(cells: Sequence[str]) -> list[str]:
    """Return cells without blanks around them, nor blank ones behind them."""
    stripped = [cell.strip() for cell in cells]
    while stripped and not stripped[-1]:
        stripped.pop()
    return stripped


def _find_encoding(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(1 << 10)
    except OSError as error:
        raise UnivgError(f"cannot be read ({error.strerror})", path, "check its permissions") from None
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if b"\0" in start:
        return "utf-16-le" if start[1::2].count(0) > start[0::2].count(0) else "utf-16-be"
    return "utf-8-sig"


def _read_cells(path: Path, encoding: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(1 << 28)
    number = 0
    try:
        with path.open(encoding=encoding, newline="") as file:
            if re.fullmatch(r"sep=.\s*", file.readline(8)):  # Excel's word for what parts the cells
                number = 1
            else:
                file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
            for cells in reader:
                yield number + reader.line_num, cells
    except (csv.Error, UnicodeError, io.UnsupportedOperation) as error:
        what = "not UTF-8" if isinstance(error, UnicodeError) else f"no table ({error})"
        raise UnivgError(what, path, "export it again, as UTF-8") from None


def read_cell_number(source: Source, text: str) -> float:
    """Return the number in a cell; a comma in it is a decimal one, which is noted, unless it may part thousands."""
    if NUMBER.fullmatch(text):
        return float(text)
    found = _COMMA.fullmatch(text)
    if found is None:
        raise Unusable("bad_box", f"{shorten(text)} is no finite number")
    if len(found[2]) == 3 and found[1].lstrip("+-") not in ("", "0"):
        cause = f"{shorten(text)} may be {found[1]}{found[2]} or {found[1]}.{found[2]}"
        raise Unusable("bad_box", cause, "write numbers with a decimal point")
    source.note("numbers are written with a decimal comma: read as such")
    return float(f"{found[1]}.{found[2]}")
