"""Limit how many pixels of an image a model sees. Loads no torch; transformers only where a size is computed."""

from __future__ import annotations

from dataclasses import dataclass

from univg.grounding.boxes import SizeWH

__all__ = ["PixelBudget"]


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
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        height, width = smart_resize(size_wh[1], size_wh[0], factor, self.min_pixels, self.max_pixels)
        return width, height
