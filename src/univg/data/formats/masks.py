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

from PIL import Image, UnidentifiedImageError

from univg.data.formats.faults import Unusable
from univg.data.formats.fields import shorten
from univg.grounding.boxes import Box, SizeWH

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Extent", "find_inside", "mask_extent", "rle_extent", "rle_extents", "union", "unite"]

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
        return unite(rle_extents(rle))
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
    if ends.size and ends[-1] != n_pixels:
        raise Unusable("bad_field", f"the run lengths end after {ends[-1]} of {width}x{height} pixels")
    starts, ends = ends[:-1:2], ends[1::2]  # of the runs inside
    starts, ends = starts[starts < ends], ends[starts < ends]
    if not starts.size:
        return None
    first, last = starts // height, (ends - 1) // height  # columns; a run over two of them touches both edges
    top = np.where(first == last, starts % height, 0).min()
    bottom = np.where(first == last, (ends - 1) % height + 1, height).max()
    return (float(first[0]), float(top), float(last[-1] + 1), float(bottom)), (width, height)


def rle_extents(rle: Any) -> list[Extent]:
    """Return the extents of a mask, or of each mask of a list, without those that are empty."""
    masks = rle if isinstance(rle, list) else [rle]
    return [extent for extent in map(rle_extent, masks) if extent is not None]


def unite(extents: Iterable[Extent]) -> Extent | None:
    """Return the extent of masks of one image, taken together; None if there are none."""
    found = list(extents)
    sizes = sorted({size for _, size in found})
    if len(sizes) > 1:
        (w, h), (other_w, other_h) = sizes[:2]
        raise Unusable("frame_mismatch", f"masks of one image are {w}x{h} and {other_w}x{other_h}")
    return (union([box for box, _ in found]), sizes[0]) if found else None


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
    """Return the extent of a mask image, in which everything that is not 0 is inside; None if it is empty.

    What is transparent is outside. `Unusable` for what cannot be decoded, and for JPEG, whose edges are blurred.
    """
    name = os.path.basename(path)
    try:
        with Image.open(path) as mask:
            if mask.format == "JPEG":
                raise Unusable(
                    "bad_image", f"the mask {name} is a JPEG, whose edges are blurred", "save it as PNG"
                )
            extent, size = find_inside(mask), mask.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Unusable("bad_image", f"the mask {name} cannot be decoded ({error})") from None
    return None if extent is None else ((*map(float, extent),), size)  # type: ignore[return-value]


def find_inside(mask: Image.Image) -> tuple[int, int, int, int] | None:
    """Return the smallest box around everything that is not 0, nor transparent; None if there is nothing."""
    if mask.mode == "P" and "transparency" not in mask.info:
        # A palette's numbers are object numbers, whatever their colours, and 0 is none; unless 0 is not black.
        palette = mask.getpalette() or [0, 0, 0]
        return (mask.convert("RGB") if any(palette[:3]) else mask).getbbox()
    if mask.mode.startswith("I;16"):
        return mask.convert("I").getbbox()  # Pillow 12 looks for numbers of 16 bits in the wrong places
    if mask.mode in ("1", "L", "I", "F", "RGB"):
        return mask.getbbox()  # of numbers: as grey, dark colours would become 0
    whole = mask.convert("RGBA")
    alpha = whole.getchannel("A").point(lambda value: 255 if value else 0)
    seen = Image.composite(whole.convert("RGB"), Image.new("RGB", mask.size), alpha)
    opaque = alpha.getextrema() == (255, 255)
    return seen.getbbox() or (None if opaque else alpha.getbbox())


def union(boxes: Iterable[Box]) -> Box:
    """Return the smallest box around all of them."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)
