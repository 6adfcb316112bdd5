"""Find out whether the boxes of a file's conversations are in pixels, 0-1000, 0-1 or percent, where nothing says so.

Qwen2-VL and Qwen3-VL write 0-1000, Qwen2.5-VL pixels of the image it sees, LLaVA 0-1; people's files come in any. A
single box seldom tells, a file does: boxes fill the frame they are written in, and stay inside it. Formats that
prescribe a scale are for `univg.data.formats.scale.decide_scale`, which keeps to it; here two are as likely, and where
neither is proven no box is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from univg.data.formats.scale import ENOUGH, PERCENT, PERMILLE, SCALES, UNIT_LIMIT, Scale
from univg.grounding.boxes import Box, SizeWH

__all__ = ["decide_chat_scale", "passes_permille"]

_SURE, _SURER, _SUREST = 2.0, 4.0, 10.0
"""Decimal orders by which one frame must be likelier than the other; the last against what a format says."""
_A_LITTLE, _FAR = 2.0, 3.0
"""Decimal orders of how unlikely a box is that passes its frame's edge, by 5 % or by more."""
_MIXED, _HALF = 0.1, 0.5


def decide_chat_scale(
    boxes: Iterable[tuple[Box, SizeWH | None]], expected: Scale | None, found: Callable[[str], None]
) -> Scale | None:
    """Return the scale in which all boxes of a file are written, and say it to `found` unless it is the `expected`;
    None if that cannot be known, which is said too.

    `boxes`: x1 y1 x2 y2 as written, with the size of the image that each lies on (None where nobody knows it).
    `expected`: "permille" where the notation says so, None where models differ.

    >>> decide_chat_scale([((120, 40, 1500, 900), (1920, 1080))] * 3, None, print)
    boxes are written in pixels (3 of 3 box(es) pass 1000, and all lie inside their image): read as such
    'pixel'
    """
    n, top, passing, fractions = 0, 0.0, 0, False
    known: set[tuple[Box, SizeWH]] = set()  # the same box twice tells no more than once
    for box, size in boxes:
        if all(map(math.isfinite, box)):
            n, top = n + 1, max(top, *map(abs, box))
            passing += passes_permille(box)
            fractions = fractions or any(value != int(value) for value in box)
            known.update([(box, size)] if size is not None else [])
    if not n:
        return expected or "permille"
    if top <= UNIT_LIMIT and fractions:
        return _tell("unit", f"no number of {n} box(es) passes {UNIT_LIMIT}", found)
    if top <= PERCENT and n >= ENOUGH and all(min(size) >= 3 * PERCENT for _, size in known):
        return _tell("percent", f"no number of {n} boxes passes 100", found)
    if not known:
        return _decide_without_sizes(n, passing, top, expected, found)
    return _decide_with_sizes(n, passing, known, expected, found)


def _decide_with_sizes(
    n: int, passing: int, known: set[tuple[Box, SizeWH]], expected: Scale | None, found: Callable[[str], None]
) -> Scale | None:
    outside = sum(_reach(box, size) > 0 for box, size in known)
    over = f"{passing} of {n} box(es) pass 1000, and"
    credible = any(passes_permille(box) and not _reach(box, size) for box, size in known)
    odds = sum(_weigh(box, size) - _weigh(box, (1000, 1000)) for box, size in known)
    if odds >= (_SUREST if expected and not credible else _SURE):
        across, down = (max(max(box[i::2]) / size[i] for box, size in known) for i in (0, 1))
        if across * down < _HALF and -len(known) * math.log10(across * down) >= _SURER:
            found(
                f"{over} all lie in the upper left {across:.0%} x {down:.0%} of their image: in pixels of a smaller "
                "copy (Qwen2.5-VL writes those of the resized image)? None is read"
            )
            return None
        inside = "all lie" if not outside else f"{len(known) - outside} of {len(known)} lie"
        return _tell("pixel", f"{over} {inside} inside their image", found)
    if passing > _MIXED * n or (credible and odds > -_SURE):
        found(
            f"{over} {outside} lie outside their image as pixels: in pixels of other sizes (Qwen2.5-VL writes those of "
            "the resized image), or mixed? None is read"
        )
        return None
    if expected is None and odds > -_SURE:
        found(
            f"{n} box(es) may be in pixels or 0-1000 alike: none is read (--format qwen_pixels or qwen_permille)"
        )
        return None
    if expected and odds >= _SURER:
        found(
            f"all {n} box(es) lie inside their image as pixels too: read as 0-1000, as the format says; pixels?"
        )
    if passing:
        found(f"{over} the others fit 0-1000: see wrong_scale")
    elif expected is None:
        why = f"{outside} of {n} box(es) lie outside their image as pixels, none as 0-1000"
        return _tell("permille", why, found)
    return "permille"


def passes_permille(box: Box) -> bool:
    """Tell whether a box passes 1000 by more than published boxes of 0-1000 do."""
    return max(map(abs, box)) > PERMILLE * UNIT_LIMIT


def _decide_without_sizes(
    n: int, passing: int, top: float, expected: Scale | None, found: Callable[[str], None]
) -> Scale | None:
    """Decide where no image can be looked at: what could be in pixels is not taken for 0-1000 without a word."""
    if passing > _MIXED * n or (expected is None and passing):
        return _tell("pixel", f"{passing} of {n} box(es) pass 1000", found)
    if expected is None:
        found(
            f"{n} box(es) may be in pixels or 0-1000: say with --images where the images lie, or name the --format"
        )
        return None
    if top > PERMILLE:
        over = f"{passing} of {n} box(es) pass 1000" if passing else f"numbers reach {top:g}"
        found(f"{over}: the rest, read as 0-1000, may be in pixels too: check with --images")
    return expected


def _tell(scale: Scale, why: str, found: Callable[[str], None]) -> Scale:
    found(f"boxes are written {SCALES[scale]} ({why}): read as such")
    return scale


def _weigh(box: Box, size_wh: SizeWH) -> float:
    """Return the logarithm of how likely a box is in a frame: even within, hardly at all beyond it."""
    reach = _reach(box, size_wh)
    return -math.log10(size_wh[0] * size_wh[1]) - (0 if reach <= 0 else _A_LITTLE if reach == 1 else _FAR)


def _reach(box: Box, size_wh: SizeWH) -> int:
    """Return 0 for a box inside its frame, 1 for one that passes the edge by up to 5 %, else 2."""
    beyond = max(max(box[0::2]) / size_wh[0], max(box[1::2]) / size_wh[1])
    return 0 if beyond <= 1 else 1 if beyond <= UNIT_LIMIT else 2
