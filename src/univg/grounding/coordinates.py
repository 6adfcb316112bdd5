"""Boxes as models write them: the numbers in a stretch of text, and the frame they are meant in."""

from __future__ import annotations

from typing import Literal, TypeAlias

from univg.grounding.boxes import Box, SizeWH, px_to_unit
from univg.grounding.notations import find_written
from univg.grounding.shapes import Quad, are_fractions

__all__ = ["Frame", "Quad", "read_quads", "to_unit"]

Frame: TypeAlias = Literal["permille", "pixel"]
"""What a model family writes: 0-1000 of width and height, or pixels of the image after its resize."""


def read_quads(text: str, cut: bool = False) -> list[Quad]:
    """Return x1 y1 x2 y2 of each box in ``text``, as written, in its order; :mod:`univg.grounding.notations` says how
    they are found. What can be read in several ways is left out.

    With ``cut`` the text was broken off at its end, so bare numbers that reach the end may lack digits and are not
    believed.

    >>> read_quads("In image 2: (10, 20), (30, 40)")
    [('10', '20', '30', '40')]
    >>> read_quads('{"xmin": 1, "xmax": 3, "ymin": 2, "ymax": 4}')
    [('1', '2', '3', '4')]
    >>> read_quads("1 2 3 4"), read_quads("1 2 3 4", cut=True), read_quads("1 2 3 4 5")
    ([('1', '2', '3', '4')], [], [])
    """
    return [written.quad for written in find_written(text, cut).boxes if not written.several_ways]


def to_unit(quad: Quad, frame: Frame = "permille", size_wh: SizeWH | None = None) -> Box:
    """Return the unit box that was meant; it may be inverted or lie outside 0-1.

    Fractions (:func:`univg.grounding.shapes.are_fractions`) are the unit frame, whatever ``frame``. Raises
    ``ValueError`` for the pixel frame without ``size_wh``, the size of the image as the model saw it.

    >>> to_unit(("100", "200", "300", "400")), to_unit(("0", "0.25", "1", "1"))
    ((0.1, 0.2, 0.3, 0.4), (0.0, 0.25, 1.0, 1.0))
    """
    x1, y1, x2, y2 = (float(number) for number in quad)
    if are_fractions(quad):
        return x1, y1, x2, y2
    if frame == "permille":
        return x1 / 1000, y1 / 1000, x2 / 1000, y2 / 1000
    if size_wh is None:
        raise ValueError('frame "pixel" needs size_wh, the size of the image as the model saw it')
    return px_to_unit((x1, y1, x2, y2), size_wh)
