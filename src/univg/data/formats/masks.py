"""The extent of masks: run-length codes as COCO writes them, and mask images. Only boxes are needed here.

COCO's run lengths count pixels column by column, alternately outside and inside; compressed, they are a text of
numbers in base 32, each (from the fourth on) the difference to the one before the last. The extent follows from
the runs alone, without a mask in memory, so this needs no compiled package.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from PIL import Image

from univg.data.formats.records import Unusable, shorten
from univg.grounding.boxes import Box, SizeWH

__all__ = ["mask_extent", "rle_extent", "union"]


def rle_extent(rle: Any) -> tuple[Box, SizeWH] | None:
    """The smallest box (pixels, edges) around a COCO run-length mask, and the mask's size; None if it is empty.

    `{"size": [height, width], "counts": text or list}`, or a list of such, which is taken together.
    `Unusable` for anything else.

    >>> rle_extent({"size": [4, 5], "counts": [5, 2, 2, 2, 9]})
    ((1.0, 1.0, 3.0, 3.0), (5, 4))
    """
    if isinstance(rle, list):
        found = [extent for extent in map(rle_extent, rle) if extent is not None]
        return (union([box for box, _ in found]), found[0][1]) if found else None
    try:
        height, width = (int(side) for side in rle["size"])
        counts = rle["counts"]
        runs = _decompressed(counts) if isinstance(counts, (str, bytes)) else [int(run) for run in counts]
    except (TypeError, KeyError, ValueError, IndexError):
        raise Unusable("bad_field", f"{shorten(rle)} is no run-length mask") from None
    if height <= 0 or width <= 0 or min(runs, default=0) < 0 or sum(runs) > height * width:
        raise Unusable("bad_field", f"the run lengths do not fit a mask of {width}x{height}")
    return _extent(runs, height, width)


def _extent(runs: Sequence[int], height: int, width: int) -> tuple[Box, SizeWH] | None:
    left, top, right, bottom = width, height, 0, 0
    start = 0
    for i, run in enumerate(runs):
        if i % 2 and run:
            last = start + run - 1
            left, right = min(left, start // height), max(right, last // height + 1)
            one_column = start // height == last // height
            top = min(top, start % height if one_column else 0)
            bottom = max(bottom, last % height + 1 if one_column else height)
        start += run
    if right == 0:
        return None
    return (float(left), float(top), float(right), float(bottom)), (width, height)


def _decompressed(text: str | bytes) -> list[int]:
    codes = text.encode("ascii") if isinstance(text, str) else text
    runs: list[int] = []
    at = 0
    while at < len(codes):
        value, shift, more = 0, 0, True
        while more:
            part = codes[at] - 48
            if not 0 <= part < 64:
                raise ValueError("no run-length text")
            value |= (part & 31) << shift
            more = bool(part & 32)
            at, shift = at + 1, shift + 5
            if not more and part & 16:
                value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs


def mask_extent(path: str | os.PathLike[str]) -> tuple[Box, SizeWH] | None:
    """The same for a mask image, in which everything that is not 0 is inside."""
    with Image.open(path) as mask:
        # A palette's numbers are object numbers; converting it to grey would make them brightnesses.
        flat = mask if mask.mode in ("1", "L", "P") else mask.convert("L")
        extent = (
            flat.point(lambda value: 255 if value else 0, "L").getbbox()
            if flat.mode != "1"
            else flat.getbbox()
        )
        size = mask.size
    return None if extent is None else ((*map(float, extent),), size)  # type: ignore[return-value]


def union(boxes: Iterable[Box]) -> Box:
    """The smallest box around all of them."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)
