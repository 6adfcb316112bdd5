"""Find out which column of a table of boxes holds what, by its header, or by its cells where it has none."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from univg.data.detection.listing import Form
from univg.data.detection.table_cells import Table
from univg.data.formats.faults import Unusable
from univg.data.formats.fields import find_numbers
from univg.data.formats.scale import Scale
from univg.errors import UnivgError, one_line

__all__ = ["Columns", "find_columns", "find_headless", "is_table_of_boxes", "seems_header", "simplify"]

_NAMES: dict[str, tuple[str, ...]] = {
    # what it is: the names in use, without capitals, blanks, dots and underscores; the better name first
    "image": (
        *("imagepath", "filepath", "path", "fullpath", "imageuri", "uri", "gcsfilepath"),
        *("imgpath", "filename", "imagename", "imagefilename", "imgname", "imagefile", "image"),
        *("img", "file", "frame", "imageid", "imgid"),
    ),
    "label": (
        *("classname", "labelname", "categoryname", "objectname", "class", "label", "category"),
        *("objectclass", "object", "name", "classlabel", "tag", "classid", "labelid"),
        *("categoryid", "classno"),
    ),
    "x1": ("xmin", "minx", "x1", "bboxxmin", "boxxmin", "bboxx1", "bndboxxmin", "xtl", "topleftx", "x1px"),
    "y1": ("ymin", "miny", "y1", "bboxymin", "boxymin", "bboxy1", "bndboxymin", "ytl", "toplefty"),
    "x2": ("xmax", "maxx", "x2", "bboxxmax", "boxxmax", "bboxx2", "bndboxxmax", "xbr", "bottomrightx"),
    "y2": ("ymax", "maxy", "y2", "bboxymax", "boxymax", "bboxy2", "bndboxymax", "ybr", "bottomrighty"),
    "x0": ("x0",),
    "y0": ("y0",),
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
_FLAGS = ("iscrowd", "crowd", "isgroupof", "difficult", "isdifficult", "ignore")
_ENOUGH = 10_000
"""Rows that tell what a column holds."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what: their positions.

    - `names`: further columns that name the image; `size`: those of the image's sides; `flags`: those of flags.
    - `forms`: what the four numbers may be; `scale`: what they are by the kind of table.
    """

    image: int
    names: tuple[int, ...]
    label: int
    box: tuple[int, ...]
    forms: tuple[Form, ...]
    size: tuple[int, int] | None
    flags: Mapping[str, int]
    scale: Scale = "pixel"


def is_table_of_boxes(header: Sequence[str]) -> bool:
    """Tell whether a header names images, classes and the numbers of boxes."""
    names = {simplify(name) for name in header}
    known = {kind for kind, spelt in _NAMES.items() if names.intersection(spelt)}
    return {"image", "label"} <= known and (len(known - {"image", "label", "box"}) >= 3 or "box" in known)


def find_columns(table: Table) -> Columns:
    """Return the columns of a table of boxes; `UnivgError` if it leaves open which is which."""
    if table.header is not None:
        return _settle_sides(table, _find_columns(table))
    columns = find_headless(table)
    if columns is None:
        fix = "write a header: image, class, xmin, ymin, xmax, ymax"
        raise UnivgError("a table without a header, of no known kind", table.path, fix)
    return columns


def simplify(name: str) -> str:
    """Return a column's name without capitals, blanks and signs, as "imagewidth" of "Image_Width"."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def seems_header(cells: Sequence[str]) -> bool:
    names = {simplify(cell) for cell in cells}
    return bool(names.intersection(_NAMES["image"])) and len(names) > 1


def _find_columns(table: Table) -> Columns:
    header, place = table.header or [], table.path
    names = [simplify(name) for name in header]
    twice = [header[k] for k, name in enumerate(names) if name and names.index(name) != k]
    if twice:
        raise UnivgError(f"two columns are called {twice[0]!r}", place, "give each a name of its own")
    at = {kind: [names.index(name) for name in spelt if name in names] for kind, spelt in _NAMES.items()}
    if at["x0"] and at["y0"]:  # counted from 0
        at |= {"x1": at["x0"], "y1": at["y0"], "x2": at["x1"], "y2": at["y1"]}
    if at["right"] and at["bottom"]:
        at |= {"x1": at["x"], "y1": at["y"], "x2": at["right"], "y2": at["bottom"]}
    fix = "name the columns image, class, xmin, ymin, xmax, ymax"
    if not at["image"]:
        raise UnivgError(f"no column of images among {one_line(', '.join(header))}", place, fix)
    if not at["label"]:
        raise UnivgError(f"no column of classes among {one_line(', '.join(header))}", place, fix)
    box, forms = _find_box_columns(at, header, place)
    used = {*box}
    size = None
    for width, height in (("image width", "image height"), ("width", "height")):
        if at[width] and at[height] and not used & {at[width][0], at[height][0]} and size is None:
            size = (at[width][0], at[height][0])
    flags = {name: k for k, name in enumerate(names) if name in _FLAGS}
    image, *others = at["image"]
    paths = tuple(k for k in others if not names[k].endswith("id"))
    return Columns(image, paths, _choose_label(table, names, at["label"]), box, forms, size, flags)


def _choose_label(table: Table, names: Sequence[str], at: Sequence[int]) -> int:
    """Return the column of classes: a name before a number, and of two different ones none."""
    rivals = [k for k in at if not names[k].endswith(("id", "no"))] or list(at)
    rows = [cells for _, cells in table.rows(_ENOUGH) if not isinstance(cells, Unusable)]
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
    raise UnivgError(f"no columns of a box among {one_line(', '.join(header))}", place, fix)


def _settle_sides(table: Table, columns: Columns) -> Columns:
    """Tell the sides of boxes from those of images where both may be called width and height."""
    header = [simplify(name) for name in table.header or []]
    rows = [cells for _, cells in table.rows(_ENOUGH) if not isinstance(cells, Unusable)]
    filled = [cells for cells in rows if all(cells[k].strip() for k in columns.box)]
    if columns.size is not None and columns.forms == ("corners",) and header[columns.size[0]] == "width":
        if filled and all(_are_sides(cells, columns.box, columns.size) for cells in filled):
            return replace(columns, size=None)
    elif len(columns.box) == 4 and header[columns.box[2]] == "width":
        boxes: dict[str, set[tuple[str, ...]]] = {}
        for cells in filled:
            boxes.setdefault(cells[columns.image], set()).add(tuple(cells[k] for k in columns.box))
        several = [name for name, found in boxes.items() if len(found) > 1]
        if several and all(len({box[2:] for box in boxes[name]}) == 1 for name in several):
            cause = f"width and height may be the image's: all boxes of {several[0]} have the same"
            raise UnivgError(cause, table.path, "name the columns xmax, ymax, or bbox_width, bbox_height")
    return columns


def _are_sides(cells: Sequence[str], box: Sequence[int], size: Sequence[int]) -> bool:
    corners, sides = (find_numbers([cells[k] for k in columns]) for columns in (box, size))
    return (len(corners), len(sides)) == (4, 2) and all(
        abs(corners[axis + 2] - corners[axis] - sides[axis]) <= 1 for axis in (0, 1)
    )


def find_headless(table: Table) -> Columns | None:
    """Return the columns of a table as keras-retinanet, SKU-110K or Google AutoML write it; None if it is none."""
    rows = [cells for _, cells in table.rows(_ENOUGH) if not isinstance(cells, Unusable)]
    if not rows:
        return None

    def numeric(k: int) -> bool:
        return all(re.fullmatch(r"-?[\d.,]*", cells[k].strip()) for cells in rows)

    width = len(rows[0])
    if width == 6 and all(map(numeric, range(1, 5))):
        if numeric(5) and any(cells[5].strip() for cells in rows):
            cause = "a table without a header, whose class may be the second column or the last"
            raise UnivgError(cause, table.path, "write a header: image, xmin, ymin, xmax, ymax, class")
        return Columns(0, (), 5, (1, 2, 3, 4), ("corners",), None, {})
    if width == 8 and all(map(numeric, (1, 2, 3, 4, 6, 7))) and not numeric(5):
        return Columns(0, (), 5, (1, 2, 3, 4), ("corners",), (6, 7), {})
    first = width - 10  # the part of the set, which AutoML's tables may have in front
    if first in (0, 1) and all(map(numeric, range(first + 2, width))):
        return Columns(
            first, (), first + 1, tuple(first + k for k in (2, 3, 6, 7)), ("corners",), None, {}, "unit"
        )
    return None
