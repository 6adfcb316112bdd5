"""Read tables of boxes: CSV and TSV files, one row an object, as TensorFlow, RoboFlow, VoTT, keras-retinanet write.

A table says by its header what its columns are (`table_columns`); keras-retinanet's and Google AutoML's have no header,
and are known by their cells. What a header leaves open (whether `width` is the box's or the image's, whether `bbox`
holds corners or sides) the numbers must decide, or the table is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from univg.data.detection.beside import choose_file, list_pictures
from univg.data.detection.images import DetectionImage
from univg.data.detection.listing import ListedImage, find_flag, gather_images, list_box
from univg.data.detection.table_cells import Table, read_cell_number, read_table
from univg.data.detection.table_columns import (
    Columns,
    find_columns,
    find_headless,
    is_table_of_boxes,
    seems_header,
    simplify,
)
from univg.data.formats.faults import Unusable
from univg.data.formats.fields import clean_path, find_numbers, shorten
from univg.data.formats.image_root import ImageRoot
from univg.data.formats.records import Source, read_stated
from univg.errors import UnivgError
from univg.grounding.boxes import Box
from univg.pictures.images import names_picture

__all__ = ["choose_table", "find_table_files", "find_table_format", "gather_rows", "read_table_images"]

_BLANK = ("", "nan", "none", "null", "na", "n/a", "[]", "<na>")
_BUCKET = re.compile(r"(?:gs|s3)://[^/]+(?=/)", re.IGNORECASE)
_SLASH = re.compile(r"[/\\]")


def find_table_format(path: Path) -> str | None:
    """Return the format of a CSV or TSV file that is a table of boxes; None if it holds rows of another kind."""
    table = read_table(path, seems_header)
    if table.header is None:
        return "csv" if find_headless(table) is not None else None
    names = {simplify(name) for name in table.header}
    if {"imageid", "labelname"} <= names and ({"xmin", "xmax"} <= names or "boxxmin" in names):
        return "open_images"
    if {"imageid", "labelname", "confidence"} == names - {"source"}:
        fix = "give the table of boxes: …-annotations-bbox.csv"
        raise UnivgError("Open Images' labels of whole images, which have no boxes", path, fix)
    return "csv" if is_table_of_boxes(table.header) else None


def find_table_files(folder: Path) -> list[Path]:
    """Return the tables of boxes below a folder."""
    files = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in (".csv", ".tsv")]
    return [file for file in files if _is_table(file)]


def choose_table(path: Path) -> Path:
    """Return the one table of boxes in a folder (a file is itself)."""
    if not path.is_dir():
        return path
    files = find_table_files(path)
    return choose_file(path, files, "table of boxes", "tables of boxes", "give a CSV file")


def _is_table(file: Path) -> bool:
    try:
        return find_table_format(file) is not None
    except UnivgError:
        return False  # whoever reads it says what is wrong with it


def read_table_images(source: Source) -> list[DetectionImage]:
    """Return the images of a table of boxes; rows of a picture without a box make an image without objects."""
    source = replace(source, path=choose_table(source.path))
    table = read_table(source.path, seems_header)
    return gather_rows(source, table, find_columns(table))


def gather_rows(
    source: Source, table: Table, columns: Columns, name_class: Callable[[str], str] = str
) -> list[DetectionImage]:
    """Return the images of a table whose columns are known; `name_class` makes a name of what stands for a class."""
    listing = _Listing(source, table, columns, name_class)
    entries = list(listing.read())
    listed = _find_pictures(source, entries, anywhere=name_class is not str)
    if listing.without:
        source.note(f"{listing.without} row(s) have no box: images without objects")
    return gather_images(
        source, listed, columns.forms[0] if len(columns.forms) == 1 else columns.forms, columns.scale
    )


@dataclass
class _Listing:
    """The rows of a table, gathered by image."""

    source: Source
    table: Table
    columns: Columns
    name_class: Callable[[str], str]
    found: dict[str, ListedImage] = field(default_factory=dict)
    sizes: dict[str, Counter[str]] = field(default_factory=dict)
    without: int = 0

    def read(self) -> Iterator[ListedImage]:
        """Yield each image with the boxes of all its rows; one that has two sizes is refused."""
        for number, cells in self.table.rows():
            with self.source.reporting(f"csv#line {number}"):
                if isinstance(cells, Unusable):
                    raise cells
                self._add(f"csv#line {number}", cells)
        for name, entry in self.found.items():
            with self.source.reporting(entry.record):
                if len(self.sizes[name]) > 1:
                    sizes = " and ".join(self.sizes[name])
                    raise Unusable("ambiguous_id", f"{name} has two sizes, {sizes}", "correct the rows")
                yield entry

    def _add(self, record: str, cells: list[str]) -> None:
        columns = self.columns
        name = _read_name(cells, columns)
        stated = (cells[columns.size[0]], cells[columns.size[1]]) if columns.size else (None, None)
        entry = self.found.setdefault(name, ListedImage(f"csv#{name}", name, stated_wh=stated))
        sizes = self.sizes.setdefault(name, Counter())
        if (size := read_stated(stated)) is not None:
            sizes[f"{size[0]}x{size[1]}"] += 1
        written = [cells[k].strip() for k in columns.box]
        if all(text.lower() in _BLANK for text in written):
            self.without += 1
            return
        label = cells[columns.label].strip()
        if not label:
            raise Unusable("missing_field", "the row has a box and no class")
        passed = find_flag(columns.flags, lambda flag: _read_mark(cells[columns.flags[flag]]))
        read = partial(_read_box, self.source, written)
        entry.boxes.append(list_box(record, self.name_class(label), read, passed))


def _read_mark(cell: str) -> str:
    return "" if cell.strip() == "-1" else cell  # Open Images writes -1 for "nobody knows"


def _read_name(cells: Sequence[str], columns: Columns) -> str:
    """Return the path of a row's image: what several columns call it must be one picture."""
    name, *others = (cells[k].strip() for k in (columns.image, *columns.names))
    name = name or next(filter(None, others), "")
    if not name:
        raise Unusable("missing_field", "the row names no image")
    for other in others:
        if other and not _is_same(_SLASH.split(other)[-1], _SLASH.split(name)[-1]):
            raise Unusable("other_name", f"the row names two images, {name} and {other}", "correct the row")
    return _BUCKET.sub("", name)


def _is_same(one: str, other: str) -> bool:
    """Tell whether two names may be of one file, of which one may be written without its suffix."""
    return one == other or other in (Path(one).stem, one) or one == Path(other).stem


def _read_box(source: Source, written: Sequence[str]) -> Box:
    """Return the four numbers of a row as they are written."""
    blank = [text.lower() in _BLANK for text in written]
    if any(blank):
        raise Unusable("bad_box", f"the row has {blank.count(False)} of {len(blank)} numbers of a box")
    if len(written) == 1:
        numbers = [] if written[0].startswith("{") else find_numbers(written[0])
    else:
        numbers = [read_cell_number(source, text) for text in written]
    if len(numbers) != 4:
        raise Unusable("bad_box", f"{shorten(written[0])} is not four numbers")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _find_pictures(source: Source, entries: Sequence[ListedImage], anywhere: bool) -> Iterator[ListedImage]:
    """Yield the images, with the pictures that the image root does not find by itself.

    Those are pictures beside a table, where no folder of images is named, and pictures whose suffix is not written. The
    latter lie where the name says or, with `anywhere` (names that are unique in the world), in any folder.
    """
    root = source.images or ImageRoot(source.path.parent)
    root.expect(lambda: [clean_path(entry.name) for entry in entries])
    without_suffix: dict[str, list[Path]] | None = None
    for entry in entries:
        name = clean_path(entry.name)
        path = root.find(name)
        if path is None and not names_picture(name):
            if without_suffix is None:
                without_suffix = _list_without_suffix(root.folder, anywhere)
            same = without_suffix.get(name, [])
            with source.reporting(entry.record):
                if len(same) > 1:
                    names = " or ".join(root.relative(path) for path in same)
                    raise Unusable(
                        "missing_image", f"{name} may be {names}", "write its suffix, and keep one"
                    )
                entry.path = same[0] if same else None
                yield entry
            continue
        entry.path = path if source.images is None else None
        yield entry


def _list_without_suffix(folder: Path, anywhere: bool) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for place, paths in list_pictures(folder).items():
        found.setdefault(place.rpartition("/")[2] if anywhere else place, []).extend(paths)
    return found
