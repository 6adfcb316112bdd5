"""Hold the boxes of a whole file of conversations while what they tell is counted."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any, TypeAlias

from univg.grounding.boxes import Box

__all__ = ["ManyBoxes", "NamedImage"]

NamedImage: TypeAlias = tuple[str, tuple[Any, Any]]
"""A name, with the size that the file states."""


class ManyBoxes:
    """Boxes as written, each with its image or None; forty bytes a box, as a set has a million."""

    def __init__(self) -> None:
        self._numbers, self._places = array("d"), array("q")
        self._images: dict[NamedImage, int] = {}

    def add(self, box: Box, image: NamedImage | None) -> None:
        self._numbers.extend(box)
        self._places.append(-1 if image is None else self._images.setdefault(image, len(self._images)))

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[tuple[Box, NamedImage | None]]:
        images, numbers = list(self._images), iter(self._numbers)
        for box, place in zip(
            zip(numbers, numbers, numbers, numbers, strict=True), self._places, strict=True
        ):
            yield box, None if place < 0 else images[place]
