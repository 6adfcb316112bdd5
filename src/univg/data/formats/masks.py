"""Find the extent of masks: run-length codes as COCO writes them, and mask images. Only boxes are needed here.

COCO's run lengths count pixels column by column, alternately outside and inside; compressed, they are a text of
numbers in base 32, each (from the fourth on) the difference to the one before the last. The extent follows from
the runs alone, without a mask in memory. COCO's own package is not used: damaged text makes it read beyond its
memory, and ends the process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from PIL import Image

from univg.data.formats.faults import Unusable
from univg.data.formats.fields import shorten
from univg.grounding.boxes import Box, SizeWH

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Extent", "mask_extent", "rle_extent", "union"]

Extent: TypeAlias = tuple[Box, SizeWH]
"""The smallest box (pixels, edges) around a mask, and the mask's size."""

_LONGEST_NUMBER = 7  # characters of 5 bits each
_MOST_PIXELS = 1 << 5 * _LONGEST_NUMBER


def rle_extent(rle: Any) -> Extent | None:
    """Return the extent of a COCO run-length mask; None if it is empty.

    `{"size": [height, width], "counts": text or list}`, or a list of such, which is taken together.
    `Unusable` for anything else.

    >>> rle_extent({"size": [4, 5], "counts": [5, 2, 2, 2, 9]})
    ((1.0, 1.0, 3.0, 3.0), (5, 4))
    """
    import numpy as np

    if isinstance(rle, list):
        found = [extent for extent in map(rle_extent, rle) if extent is not None]
        return (union([box for box, _ in found]), found[0][1]) if found else None
    try:
        height, width = (int(side) for side in rle["size"])
        counts = rle["counts"]
        as_text = isinstance(counts, (str, bytes))
        runs = _decompress(counts) if as_text else np.array([int(run) for run in counts], np.int64)
    except (TypeError, KeyError, ValueError, OverflowError):
        raise Unusable("bad_field", f"{shorten(rle)} is no run-length mask") from None
    n_pixels = height * width if min(height, width) > 0 else 0
    ends = np.cumsum(runs)
    if not 0 < n_pixels < _MOST_PIXELS or ((runs < 0) | (runs > n_pixels) | (ends > n_pixels)).any():
        raise Unusable("bad_field", f"the run lengths do not fit a mask of {width}x{height}")
    starts, ends = ends[:-1:2], ends[1::2]  # of the runs inside
    starts, ends = starts[starts < ends], ends[starts < ends]
    if not starts.size:
        return None
    first, last = starts // height, (ends - 1) // height  # columns; a run over two of them touches both edges
    top = np.where(first == last, starts % height, 0).min()
    bottom = np.where(first == last, (ends - 1) % height + 1, height).max()
    return (float(first[0]), float(top), float(last[-1] + 1), float(bottom)), (width, height)


def _decompress(text: str | bytes) -> NDArray[np.int64]:
    import numpy as np

    raw = text.encode("ascii") if isinstance(text, str) else text
    codes = np.frombuffer(raw, np.uint8).astype(np.int64) - 48
    lasts = np.flatnonzero(codes & 32 == 0)  # the last character of each number
    if not codes.size:
        return codes
    if not 0 <= codes.min() <= codes.max() < 64 or codes[-1] & 32:
        raise ValueError("no run-length text")
    firsts = np.concatenate(([0], lasts[:-1] + 1))
    lengths = lasts + 1 - firsts
    if lengths.max() > _LONGEST_NUMBER:
        raise ValueError("more pixels than any image has")
    places = np.arange(codes.size) - np.repeat(firsts, lengths)
    runs = np.add.reduceat((codes & 31) << 5 * places, firsts)
    runs -= (codes[lasts] >> 4 & 1) << 5 * lengths
    for start in (1, 2):
        runs[start::2] = np.cumsum(runs[start::2])
    return runs


def mask_extent(path: str | os.PathLike[str]) -> Extent | None:
    """Return the extent of a mask image, in which everything that is not 0 is inside; None if it is empty."""
    with Image.open(path) as mask:
        # A palette's numbers are object numbers; converting it to grey would make them brightnesses.
        flat = mask if mask.mode in ("1", "L", "P") else mask.convert("L")
        extent = (flat if flat.mode == "1" else flat.point(lambda value: 255 if value else 0, "L")).getbbox()
        size = mask.size
    return None if extent is None else ((*map(float, extent),), size)  # type: ignore[return-value]


def union(boxes: Iterable[Box]) -> Box:
    """Return the smallest box around all of them."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)
