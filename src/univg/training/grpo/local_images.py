"""Images that stay in their process: TRL sends every prompt, with its pictures, to all processes in each step.

It gathers prompts only to print them (`log_completions`), without their pictures, and copies them on the way. With
128 rollouts of three pictures that was 154 MB a step over eight processes. Rewards and callbacks are given the
pictures themselves (`take_whole`), which they may send wherever they like.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image

__all__ = ["LocalImage", "keep_local", "take_whole"]


class LocalImage(Image.Image):
    """An image that is not copied within its process, and arrives in another as a single black pixel.

    `whole` is the image that it stands for.
    """

    whole: Image.Image

    @classmethod
    def of(cls, image: Image.Image) -> LocalImage:
        """Return the image with the same pixels, in the same memory."""
        image.load()
        local = cls()
        local.__dict__.update(image.__dict__)
        local.whole = image
        return local

    def __copy__(self) -> LocalImage:
        return self

    def __deepcopy__(self, memo: Any) -> LocalImage:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Image.new, (self.mode, (1, 1))


def keep_local(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows whose `images` are local; the rollouts of a group keep theirs in common."""
    local: dict[int, LocalImage] = {}

    def keep(image: Any) -> Any:
        if not isinstance(image, Image.Image):
            return image
        return local.setdefault(id(image), LocalImage.of(image))

    return [_with_images(row, keep) for row in rows]


def take_whole(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with the images that local ones stand for."""
    return [_with_images(row, lambda image: getattr(image, "whole", image)) for row in rows]


def _with_images(row: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    return {**row, "images": [change(image) for image in row["images"]]} if row.get("images") else row
