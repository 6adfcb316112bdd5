"""Limit how many pixels of an image a model sees; loads neither torch nor transformers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from univg.grounding.boxes import SizeWH

__all__ = ["PixelBudget", "is_resizable"]

LONGEST = 200
"""The processors take no image that is more than so many times as long as it is short."""


def is_resizable(size_wh: SizeWH) -> bool:
    """Tell whether the processors take an image of this shape.

    >>> is_resizable((200, 1)), is_resizable((201, 1))
    (True, False)
    """
    return max(size_wh) <= LONGEST * min(size_wh)


@dataclass(frozen=True)
class PixelBudget:
    """How many pixels an image may have once resized (its shape is kept, its sides are rounded to the factor).

    The default is the paper's: 3136 to 401408 pixels in SFT, RL and on MIG-Bench.
    """

    min_pixels: int = 3136
    max_pixels: int = 401408

    def __post_init__(self) -> None:
        if not 0 < self.min_pixels <= self.max_pixels:
            raise ValueError(
                f"pixel budget: min_pixels={self.min_pixels}, max_pixels={self.max_pixels}: "
                "give 0 < min_pixels <= max_pixels"
            )

    def up_to(self, max_pixels: int) -> PixelBudget:
        """Return this budget with another upper limit; the lower one gives way where it is above that.

        >>> PixelBudget().up_to(640_000), PixelBudget().up_to(784)
        (PixelBudget(min_pixels=3136, max_pixels=640000), PixelBudget(min_pixels=784, max_pixels=784))
        """
        return PixelBudget(min(self.min_pixels, max_pixels), max_pixels)

    def resized(self, size_wh: SizeWH, factor: int) -> SizeWH:
        """Return the size that the image processor gives an image of ``size_wh``; both sides are multiples of
        ``factor``. Raises ValueError for a side that is more than 200 times the other.

        >>> PixelBudget().resized((1920, 1080), 28)
        (840, 448)
        """
        # The processors' rule, written again because a client of a server would wait seconds for transformers, which
        # has it; a test holds the two equal.
        width, height = size_wh
        if not is_resizable(size_wh):
            raise ValueError(f"an image of {width}x{height} is longer than {LONGEST}:1: crop it")
        sides = [round(width / factor) * factor, round(height / factor) * factor]
        if sides[0] * sides[1] > self.max_pixels:
            shrink = math.sqrt(width * height / self.max_pixels)
            sides = [max(factor, math.floor(side / shrink / factor) * factor) for side in size_wh]
        elif sides[0] * sides[1] < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (width * height))
            sides = [math.ceil(side * grow / factor) * factor for side in size_wh]
        return sides[0], sides[1]

    def prepared(self, size_wh: SizeWH, factor: int) -> SizeWH:
        """Return the size to which an image may be resized before the processor is given it, so that the model sees it
        as it would have: the processor's own, or where that is a shape that it would not take, the image's as it is.

        >>> PixelBudget().prepared((1920, 1080), 28), PixelBudget().prepared((10000, 50), 28)
        ((840, 448), (10000, 50))
        """
        seen_wh = self.resized(size_wh, factor)
        again = is_resizable(seen_wh) and self.resized(seen_wh, factor) == seen_wh
        return seen_wh if again else size_wh
