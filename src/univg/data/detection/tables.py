"""Read tables of boxes: CSV and TSV files, one row an object, as TensorFlow, RoboFlow, VoTT, keras-retinanet write.

A table says by its header what its columns are; the many names in use are in `_NAMES`. keras-retinanet's and Google
AutoML's have no header, and are known by their cells. What a header leaves open (whether `width` is the box's or the
image's, whether `bbox` holds corners or sides) the numbers must decide, or the table is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from univg.data.detection.images import DetectionImage
from univg.data.detection.listing import Form, ListedBox, ListedImage, gather_images
from univg.data.detection.table_cells import Table, read_cell_number, read_table
from univg.data.detection.voc import list_pictures
from univg.data.formats.faults import Unusable
from univg.data.formats.fields import clean_path, find_numbers, read_flag, shorten
from univg.data.formats.image_root import ImageRoot
from univg.data.formats.records import Source, read_stated
from univg.errors import UnivgError
from univg.grounding.boxes import Box

__all__ = ["find_table_format", "list_rows", "read_open_images", "read_table_images"]

_NAMES: dict[str, tuple[str, ...]] = {
    # what it is: the names in use, without capitals, blanks, dots and underscores; the better name first
    "image": (
        *("imagepath", "filepath", "path", "fullpath", "imageuri", "uri", "gcsfilepath", "imgpath"),
        *("filename", "imagename", "imagefilename", "imgname", "imagefile", "image", "img", "file", "imageid", "imgid"),
    ),
    "label": (
        *("classname", "labelname", "categoryname", "objectname", "class", "label", "category", "objectclass"),
        *("object", "name", "classlabel", "tag", "classid", "labelid", "categoryid", "classno"),
    ),
    "x1": ("xmin", "minx", "x1", "bboxxmin", "boxxmin", "bboxx1", "bndboxxmin", "xtl", "topleftx", "x1px"),
    "y1": ("ymin", "miny", "y1", "bboxymin", "boxymin", "bboxy1", "bndboxymin", "ytl", "toplefty"),
    "x2": ("xmax", "maxx", "x2", "bboxxmax", "boxxmax", "bboxx2", "bndboxxmax", "xbr", "bottomrightx"),
    "y2": ("ymax", "maxy", "y2", "bboxymax", "boxymax", "bboxy2", "bndboxymax", "ybr", "bottomrighty"),
    "x": ("x", "left", "bboxx", "boxx", "bboxleft"),
    "y": ("y", "top", "bboxy", "boxy", "bboxtop"),
    "right": ("right", "bboxright"),
    "bottom": ("bottom", "bboxbottom"),
    "cx": ("xcenter", "xcentre", "cx", "xc", "centerx", "centrex", "xmid", "xcentr"),
    "cy": ("ycenter", "ycentre", "cy", "yc", "centery", "centrey", "ymid"),
    "w": ("w", "bboxwidth", "boxwidth", "bboxw", "boxw", "bwidth"),
    "h": ("h", "bboxheight", "boxheight", "bboxh", "boxh", "bheight"),
    "width": ("width",),
    "height": ("height",),
    "image width": ("imagewidth", "imgwidth", "imwidth", "imagew", "imgw", "originalwidth"),
    "image height": ("imageheight", "imgheight", "imheight", "imageh", "imgh", "originalheight"),
    "box": ("bbox", "box", "boundingbox", "bndbox", "rect", "coordinates", "bboxes", "boxes"),
}
_FLAGS = {
    **{"iscrowd": "crowd", "crowd": "crowd", "isgroupof": "crowd"},
    **{"difficult": "difficult", "isdifficult": "difficult", "ignore": "to be ignored", "isignore": "to be ignored"},
}
_PREDICTED = ("confidence", "score", "conf", "probability")
_PARTS: dict[Form, tuple[str, ...]] = {
    "corners": ("x1", "y1", "x2", "y2"),
    "sides": ("x", "y", "w", "h"),
    "centre": ("cx", "cy", "w", "h"),
}
_OPEN_IMAGES = {"imageid", "labelname", "xmin", "xmax", "ymin", "ymax"}
_WITHOUT_SUFFIX = re.compile(r"[^.]*|.*\.\D*[^a-zA-Z]+")
_ADDRESS = re.compile(r"(?:gs|s3)://[^/]+(?=/)", re.IGNORECASE)


@dataclass(frozen=True)
class _Columns:
    """Which columns of a table hold what: their positions. `forms`: what the four numbers may be."""

    image: int
    names: tuple[int, ...]
    label: int
    box: tuple[int, ...]
    forms: tuple[Form, ...]
    size: tuple[int, int] | None
    flags: Mapping[int, str]


def find_table_format(path: Path) -> str | None:
    """Return the format of a CSV or TSV file that is a table of boxes; None if it holds rows of another kind."""
    table = read_table(path, _seems_header)
    if table.header is None:
        return "csv" if _find_headless(table) is not None else None
    names = {simplify(name) for name in table.header}
    if _OPEN_IMAGES <= names or {"imageid", "labelname", "boxxmin", "boxymin"} <= names:
        return "open_images"
    if names & {"regionshapeattributes"}:
        fix = "export it there as COCO or VOC"
        raise UnivgError("a table of the VGG Image Annotator, with JSON in its cells", path, fix)
    known = {kind for kind, spelt in _NAMES.items() if names.intersection(spelt)}
    numbers = known & {"x1", "y1", "x2", "y2", "x", "y", "cx", "cy", "w", "h", "width", "height", "right", "bottom"}
    return "csv" if "image" in known and "label" in known and (len(numbers) >= 3 or "box" in known) else None


def read_table_images(source: Source) -> list[DetectionImage]:
    """Return the images of a table of boxes; rows of a picture without a box make an image without objects."""
    table = read_table(source.path, _seems_header)
    columns = _find_headless(table) if table.header is None else _find_columns(table)
    if columns is None:
        fix = "write a header: image, class, xmin, ymin, xmax, ymax"
        raise UnivgError("a table without a header, of no known kind", source.path, fix)
    columns = _settle_sides(table, columns)
    return _gather(source, table, columns, lambda text: text)


def _gather(source: Source, table: Table, columns: _Columns, name_class: Callable[[str], str]) -> list[DetectionImage]:
    listed = list(list_rows(source, table, columns, name_class))
    _find_pictures(source, listed)
    empty = sum(not entry.boxes for entry in listed)
    if empty:
        source.note(f"{empty} image(s) have no box: images without objects, or all of their boxes are faults")
    forms: Form | Sequence[Form] = columns.forms[0] if len(columns.forms) == 1 else columns.forms
    return gather_images(source, listed, forms)


def list_rows(
    source: Source, table: Table, columns: _Columns, name_class: Callable[[str], str]
) -> Iterator[ListedImage]:
    """Yield the images that rows name, each with the boxes of all its rows."""
    found: dict[str, ListedImage] = {}
    broken: dict[str, str] = {}
    for number, cells in table.rows():
        record = f"csv#line {number}"
        with source.reporting(record):
            if isinstance(cells, Unusable):
                raise cells
            name = _read_name(cells, columns)
            stated = (cells[columns.size[0]], cells[columns.size[1]]) if columns.size else (None, None)
            entry = found.setdefault(name, ListedImage(f"csv#{name}", name, stated_wh=stated))
            if read_stated(entry.stated_wh) != read_stated(stated):
                broken.setdefault(name, f"{name} has two sizes: {'x'.join(map(str, entry.stated_wh))} and {'x'.join(stated)}")
            numbers = _read_box(source, table, cells, columns)
            if numbers is None:
                continue
            label = cells[columns.label].strip()
            if not label:
                raise Unusable("missing_field", "the row has a box and no class")
            passed = next((word for k, word in columns.flags.items() if _is_set(cells[k], word)), "")
            entry.boxes.append(ListedBox(record, name_class(label), numbers, passed))
    for name, entry in found.items():
        with source.reporting(entry.record):
            if name in broken:
                raise Unusable("ambiguous_id", broken[name], "correct the sizes")
            yield entry


def _is_set(cell: str, name: str) -> bool:
    return cell.strip() != "-1" and read_flag(cell, name)  # Open Images writes -1 for "nobody knows"


def _read_name(cells: Sequence[str], columns: _Columns) -> str:
    name, *others = (cells[k].strip() for k in (columns.image, *columns.names))
    if not name:
        raise Unusable("missing_field", "the row names no image")
    for other in others:
        if other and re.split(r"[/\\]", other)[-1] != re.split(r"[/\\]", name)[-1]:
            raise Unusable("other_name", f"the row names two images, {name} and {other}", "correct the row")
    return _ADDRESS.sub("", name)


def _read_box(source: Source, table: Table, cells: Sequence[str], columns: _Columns) -> Box | None:
    """Return the four numbers of a row as they are written; None if all are blank."""
    written = [cells[k].strip() for k in columns.box]
    blank = [text.lower() in ("", "nan", "none", "null", "na", "n/a", "[]") for text in written]
    if all(blank):
        return None
    if len(written) == 1:
        numbers = find_numbers(written[0])
    elif any(blank):
        raise Unusable("bad_box", f"the row has {blank.count(False)} of {len(blank)} numbers of a box")
    else:
        numbers = [read_cell_number(source, table, text) for text in written]
    if len(numbers) != 4:
        raise Unusable("bad_box", f"{shorten(written[0])} is not four numbers")
    return numbers[0], numbers[1], numbers[2], numbers[3]


# --- which column is what ---


def simplify(name: str) -> str:
    """Return a column's name without capitals, blanks and signs, as "imagewidth" of "Image_Width"."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _seems_header(cells: Sequence[str]) -> bool:
    names = {simplify(cell) for cell in cells}
    return bool(names.intersection(_NAMES["image"])) and len(names) > 1


def _find_columns(table: Table) -> _Columns:
    header, place = table.header or [], table.path
    names = [simplify(name) for name in header]
    twice = [header[k] for k, name in enumerate(names) if name and names.index(name) != k]
    if twice:
        raise UnivgError(f"two columns are called {twice[0]!r}", place, "give each a name of its own")
    at = {
        kind: [names.index(name) for name in spelt if name in names] for kind, spelt in _NAMES.items()
    }
    if {"x0", "y0", "x1", "y1"} <= set(names):  # counted from 0
        at |= {to: [names.index(name)] for to, name in zip(("x1", "y1", "x2", "y2"), ("x0", "y0", "x1", "y1"), strict=True)}
    if at["right"] and at["bottom"]:
        at |= {"x1": at["x"], "y1": at["y"], "x2": at["right"], "y2": at["bottom"]}
    fix = "name the columns image, class, xmin, ymin, xmax, ymax"
    if not at["image"]:
        raise UnivgError(f"no column of images among {', '.join(header)}", place, fix)
    if not at["label"]:
        raise UnivgError(f"no column of classes among {', '.join(header)}", place, fix)
    box, forms = _find_box_columns(at, header, place)
    used = {*box}
    size = None
    for width, height in (("image width", "image height"), ("width", "height")):
        if at[width] and at[height] and not used & {at[width][0], at[height][0]} and size is None:
            size = (at[width][0], at[height][0])
    flags = {k: _FLAGS[name] for k, name in enumerate(names) if name in _FLAGS}
    image, *others = at["image"]
    paths = tuple(k for k in others if not names[k].endswith("id"))
    return _Columns(image, paths, _choose_label(table, names, at["label"]), box, forms, size, flags)


def _choose_label(table: Table, names: Sequence[str], at: Sequence[int]) -> int:
    """Return the column of classes: a name before a number, and of two different ones none."""
    rivals = [k for k in at if not names[k].endswith(("id", "no"))] or list(at)
    rows = [cells for _, cells in table.rows() if not isinstance(cells, Unusable)]
    words = [k for k in rivals if any(re.search(r"[^\d.\s-]", cells[k]) for cells in rows)] or rivals
    if len({tuple(cells[k] for cells in rows) for k in words}) > 1:
        header = table.header or []
        what = " and ".join(header[k] for k in words)
        raise UnivgError(f"several columns may be the class: {what}", table.path, "leave one of them")
    return words[0]


def _find_box_columns(
    at: Mapping[str, Sequence[int]], header: Sequence[str], place: Path
) -> tuple[tuple[int, ...], tuple[Form, ...]]:
    """Return the columns of a box, and what they may be."""
    at = {kind: list(found) for kind, found in at.items()}
    sides = {"w": at["w"] or at["width"], "h": at["h"] or at["height"]}
    ways: list[tuple[tuple[Sequence[int], ...], tuple[Form, ...]]] = [
        ((at["x1"], at["y1"], at["x2"], at["y2"]), ("corners",)),
        ((at["cx"], at["cy"], sides["w"], sides["h"]), ("centre",)),
        ((at["x1"], at["y1"], sides["w"], sides["h"]), ("sides",)),
        ((at["x"], at["y"], sides["w"], sides["h"]), ("sides", "centre")),
        ((at["box"],), ("sides", "corners")),
    ]
    for columns, forms in ways:
        if all(columns):
            if forms == ("sides", "centre") and header[columns[0][0]].lower() not in ("x", "bbox_x", "box_x"):
                forms = ("sides",)  # "left" and "top" say it
            return tuple(found[0] for found in columns), forms
    fix = "name the columns image, class, xmin, ymin, xmax, ymax"
    raise UnivgError(f"no columns of a box among {', '.join(header)}", place, fix)


def _settle_sides(table: Table, columns: _Columns) -> _Columns:
    """Tell the sides of boxes from those of images where both may be called width and height."""
    rows = [cells for _, cells in table.rows() if not isinstance(cells, Unusable)]
    filled = [cells for cells in rows if all(cells[k].strip() for k in columns.box)]
    header = [simplify(name) for name in table.header or []]
    if columns.size is not None and columns.forms == ("corners",) and header[columns.size[0]] == "width":
        def differs(cells: Sequence[str]) -> bool:
            box = find_numbers([cells[k] for k in columns.box])
            size = find_numbers([cells[k] for k in columns.size or ()])
            return len(box) != 4 or len(size) != 2 or abs(box[2] - box[0] - size[0]) > 1 or abs(box[3] - box[1] - size[1]) > 1

        if filled and not any(map(differs, filled)):
            return _Columns(columns.image, columns.names, columns.label, columns.box, columns.forms, None, columns.flags)
    if len(columns.box) == 4 and header and header[columns.box[2]] == "width" and header[columns.box[3]] == "height":
        places: dict[str, set[tuple[str, ...]]] = {}
        sides: dict[str, set[tuple[str, ...]]] = {}
        for cells in filled:
            places.setdefault(cells[columns.image], set()).add(tuple(cells[k] for k in columns.box[:2]))
            sides.setdefault(cells[columns.image], set()).add(tuple(cells[k] for k in columns.box[2:]))
        several = [name for name, found in places.items() if len(found) > 1]
        if several and all(len(sides[name]) == 1 for name in several):
            cause = f"width and height may be the image's: all boxes of {several[0]} have the same"
            raise UnivgError(cause, table.path, "name the columns xmax, ymax, or bbox_width, bbox_height")
    return columns


def _find_headless(table: Table) -> _Columns | None:
    """Return the columns of keras-retinanet's tables (path, corners, class), or of Google AutoML's; None if neither."""
    rows = [cells for _, cells in table.rows() if not isinstance(cells, Unusable)]
    if not rows:
        return None

    def numeric(k: int) -> bool:
        return all(re.fullmatch(r"-?[\d.,]*", cells[k].strip()) for cells in rows)

    width = len(rows[0])
    if width == 6 and all(map(numeric, range(1, 5))):
        if numeric(5) and any(cells[5].strip() for cells in rows):
            cause = "a table without a header, whose class may be the second column or the last"
            raise UnivgError(cause, table.path, "write a header: image, xmin, ymin, xmax, ymax, class")
        return _Columns(0, (), 5, (1, 2, 3, 4), ("corners",), None, {})
    first = width - 10  # the part of the set, which AutoML's tables may have in front
    if first in (0, 1) and all(map(numeric, range(first + 2, width))):
        return _Columns(first, (), first + 1, tuple(first + k for k in (2, 3, 6, 7)), ("corners",), None, {})
    return None


# --- which picture ---


def _find_pictures(source: Source, listed: Sequence[ListedImage]) -> None:
    """Find what the image root does not: pictures beside a table, and those named without their suffix."""
    beside = source.images is None
    root = source.images or ImageRoot(source.path.parent)
    root.expect(lambda: [clean_path(entry.name) for entry in listed])
    pictures: dict[str, list[Path]] | None = None
    for entry in listed:
        found = root.find(clean_path(entry.name))
        if found is not None:
            entry.path = found if beside else None
        elif _WITHOUT_SUFFIX.fullmatch(re.split(r"[/\\]", entry.name)[-1]):
            pictures = _list_by_end(root.folder) if pictures is None else pictures
            same = pictures.get(entry.name, [])
            with source.reporting(entry.record):
                if len(same) > 1:
                    names = " and ".join(root.relative(path) for path in same)
                    entry.name = ""
                    raise Unusable("missing_image", f"{entry.record} may be {names}", "write folder and suffix")
            entry.path = same[0] if same else None


def _list_by_end(folder: Path) -> dict[str, list[Path]]:
    """Return pictures by their paths without suffix, and by their names alone."""
    found: dict[str, list[Path]] = {}
    for place, paths in list_pictures(folder).items():
        for name in {place, os.path.basename(place)}:
            found.setdefault(name, []).extend(paths)
    return found
