"""Say what a thing of the world is: its shape, colour and pattern, and which pairs of them are held out."""

from __future__ import annotations

from dataclasses import dataclass

from univg.world.shapes import SHAPES

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 32, 36),
    "green": (36, 150, 48),
    "blue": (32, 70, 214),
    "yellow": (246, 220, 40),
    "purple": (138, 40, 168),
    "orange": (246, 134, 22),
    "cyan": (40, 205, 214),
    "black": (22, 22, 24),
    "white": (250, 250, 250),
}
PATTERNS = ("plain", "striped", "dotted", "checked")
COLOUR_NAMES = tuple(COLOURS)
_SHAPE_NAMES = tuple(SHAPES)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a thing is, wherever it stands and however it is seen."""

    shape: str
    colour: str
    pattern: str = "plain"

    def __str__(self) -> str:
        pattern = "" if self.pattern == "plain" else f"{self.pattern} "
        return f"{self.colour} {pattern}{self.shape}"

    @property
    def held_out(self) -> bool:
        """Whether this is one of the pairs of colour and shape (one in nine) that only the `unseen` split may show."""
        return (COLOUR_NAMES.index(self.colour) + 2 * _SHAPE_NAMES.index(self.shape)) % 9 == 0
