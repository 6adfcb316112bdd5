"""Boxes as models write them: the numbers in a stretch of text, and the frame they are meant in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

from univg.grounding.boxes import Box, SizeWH, px_to_unit

__all__ = ["Frame", "Quad", "read_quads", "to_unit"]

Frame: TypeAlias = Literal["permille", "pixel"]
"""What a model family writes: 0-1000 of width and height, or pixels of the image after its resize."""

Quad: TypeAlias = tuple[str, str, str, str]
"""x1 y1 x2 y2 as written: whether there is a decimal point still tells the frame."""

# Every repetition below is bounded, and no two neighbours can share a character in more than a bounded number
# of ways: that is what keeps the reading linear on any text.

_NUMBER = r"[+-]?(?:\d{1,9}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,2})?"
_SEPARATOR = r"(?:\s{0,8}[,;]\s{0,8}|\s{1,8})"
_AXIS = r"[xy][_ ]?(?:\d|min|max)?|left|top|right|bottom"
_EQUALS = r"[\"']?\s{0,2}[:=]\s{0,2}"
_LABEL = rf"(?:[\"']?(?:{_AXIS}){_EQUALS})?"
_OPEN, _CLOSE = r"[(\[{]\s{0,8}", r"\s{0,8}[)\]}]"
_POINT = rf"{_OPEN}{_LABEL}({_NUMBER}){_SEPARATOR}{_LABEL}({_NUMBER}){_CLOSE}"
# What may stand between two corners of one box. Not any word: "the cat at (1,2), a dog at (3,4)" is no box.
_BETWEEN = (
    r"(?:[\s,;:=>|<\"'*–—_-]|to\b|and\b|the\b|bottom|lower|right|corner"
    r"|box_start|box_end|\(x_?2, ?y_?2\)){0,24}"
)
_BRACKETED = re.compile(
    rf"{_POINT}{_BETWEEN}{_POINT}|{_OPEN}" + _SEPARATOR.join([rf"({_NUMBER})"] * 4) + _CLOSE, re.IGNORECASE
)
_NAMED = re.compile(
    _SEPARATOR.join([rf"(?<!\w)[\"']?({_AXIS}){_EQUALS}({_NUMBER})"] * 4),
    re.IGNORECASE,
)
_BARE_RUN = re.compile(rf"(?<![\w.]){_NUMBER}(?:{_SEPARATOR}{_NUMBER})+")
_FIND_NUMBER = re.compile(_NUMBER)
_FULL_WIDTH = str.maketrans("（）［］｛｝【】，；：−", "()[]{}[],;:-")


def read_quads(text: str, cut: bool = False) -> list[Quad]:
    """Return the groups of four numbers in ``text`` that are boxes, in its order.

    Brackets are believed first; without any, four named numbers (x1, y1, x2, y2, in either order of the
    axes); without those, a run of exactly four numbers. With ``cut`` the text was broken off at its end, so
    bare numbers that reach the end may lack digits and are not believed.

    >>> read_quads("In image 2: (10, 20), (30, 40)")
    [('10', '20', '30', '40')]
    >>> read_quads('{"xmin": 1, "xmax": 3, "ymin": 2, "ymax": 4}')
    [('1', '2', '3', '4')]
    >>> read_quads("1 2 3 4"), read_quads("1 2 3 4", cut=True), read_quads("1 2 3 4 5")
    ([('1', '2', '3', '4')], [], [])
    """
    text = text.translate(_FULL_WIDTH)
    found = [
        _take_four([group for group in match.groups() if group is not None])
        for match in _BRACKETED.finditer(text)
    ]
    found = found or [_sort_by_name(match.groups()) for match in _NAMED.finditer(text)]
    if found:
        return found
    runs = [match[0] for match in _BARE_RUN.finditer(text) if not (cut and match.end() == len(text))]
    return [_take_four(numbers) for run in runs if len(numbers := _FIND_NUMBER.findall(run)) == 4]


def _take_four(numbers: Sequence[str]) -> Quad:
    x1, y1, x2, y2 = numbers
    return x1, y1, x2, y2


def _sort_by_name(groups: Sequence[str]) -> Quad:
    """Order four numbers by the names they alternate with; x x y y is as good as x y x y."""
    named = list(zip(groups[0::2], groups[1::2], strict=True))
    across = [number for name, number in named if name[0].lower() in "xlr"]
    down = [number for name, number in named if name[0].lower() in "ytb"]
    if len(across) != 2:
        return _take_four([number for _, number in named])
    return across[0], down[0], across[1], down[1]


def to_unit(quad: Quad, frame: Frame = "permille", size_wh: SizeWH | None = None) -> Box:
    """Return the unit box that was meant; it may be inverted or lie outside 0-1.

    With a decimal point somewhere and nothing beyond 1.05 the numbers are unit floats, whatever the frame.
    Raises ``ValueError`` for the pixel frame without ``size_wh``, the size of the image as the model saw it.

    >>> to_unit(("100", "200", "300", "400")), to_unit(("0", "0.25", "1", "1"))
    ((0.1, 0.2, 0.3, 0.4), (0.0, 0.25, 1.0, 1.0))
    """
    x1, y1, x2, y2 = (float(number) for number in quad)
    fractions = any("." in number or "e" in number.lower() for number in quad)
    if fractions and all(abs(value) <= 1.05 for value in (x1, y1, x2, y2)):
        return x1, y1, x2, y2
    if frame == "permille":
        return x1 / 1000, y1 / 1000, x2 / 1000, y2 / 1000
    if size_wh is None:
        raise ValueError('frame "pixel" needs size_wh, the size of the image as the model saw it')
    return px_to_unit((x1, y1, x2, y2), size_wh)
