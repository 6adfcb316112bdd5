"""Read Open Images' tables of boxes, whose classes stand in a table beside: https://storage.googleapis.com/openimages.

`ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,…`: x before y, in 0-1; `LabelName` is a code as `/m/01yrx`.
`IsGroupOf` marks what is more than one object: a crowd.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from univg.data.detection.images import DetectionImage
from univg.data.detection.table_cells import read_table
from univg.data.detection.table_columns import find_columns, seems_header
from univg.data.detection.tables import choose_table, gather_rows
from univg.data.formats.faults import Unusable
from univg.data.formats.records import Source
from univg.errors import UnivgError

__all__ = ["read_open_images"]


def read_open_images(source: Source) -> list[DetectionImage]:
    """Return the images of Open Images' boxes; pictures are called by their ids, in any folder of the image root."""
    source = replace(source, path=choose_table(source.path))
    table = read_table(source.path, seems_header)
    names, file = _read_names(source.path)

    def name_class(code: str) -> str:
        if code not in names:
            if not code.startswith("/"):
                return code  # written as a name
            raise Unusable(
                "unknown_class", f"{code} is not in {file.name if file else 'any list of classes'}"
            )
        return names[code]

    columns = replace(find_columns(table), scale="unit")
    codes = (cells[columns.label] for _, cells in table.rows(1) if not isinstance(cells, Unusable))
    if file is None and any(code.startswith("/") for code in codes):
        fix = "put class-descriptions-boxable.csv of Open Images beside it"
        raise UnivgError("the names of its classes are not beside it", source.path, fix)
    return gather_rows(source, table, columns, name_class)


def _read_names(path: Path) -> tuple[dict[str, str], Path | None]:
    """Return the classes by their codes, and the file that names them, beside the table or one folder above."""
    for folder in (
        path.parent,
        path.parent / "metadata",
        path.parent.parent,
        path.parent.parent / "metadata",
    ):
        files = sorted(folder.glob("*class-descriptions*.csv"), key=lambda file: "boxable" not in file.name)
        for file in files:
            table = read_table(file, lambda cells: "LabelName" in cells)
            names: dict[str, str] = {}
            for number, cells in table.rows():
                if isinstance(cells, Unusable) or len(cells) < 2:
                    continue  # whose boxes have this class are told so
                code, name = cells[0].strip(), cells[1].strip()
                if names.setdefault(code, name) != name:
                    cause = f"{code} is {names[code]} and {name}"
                    raise UnivgError(cause, f"{file}, line {number}", "leave the right one")
            return names, file
    return {}, None
