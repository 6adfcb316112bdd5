"""Say how a picture of the second world looks: its colours, finish and clutter, its lens, sensor and file.

A look is drawn once for a question, or for each of its images, and painted by `painting.py`. The names of colours hold
over the whole range in which people use them, from light to dark; where a neighbour's range begins, a gap is left.
"""

from __future__ import annotations

import colorsys
import random
from dataclasses import dataclass
from typing import Literal, TypeAlias

RGB: TypeAlias = tuple[int, int, int]
Finish: TypeAlias = Literal["flat", "shaded", "outlined", "lines", "sketched"]
FINISHES: tuple[Finish, ...] = ("flat", "shaded", "outlined", "lines", "sketched")

HUES: dict[str, tuple[float, float, float, float, float, float]] = {
    "red": (-11, 4, 0.7, 1.0, 0.52, 1.0),
    "green": (96, 140, 0.45, 1.0, 0.38, 1.0),
    "blue": (208, 243, 0.58, 1.0, 0.5, 1.0),
    "yellow": (52, 61, 0.6, 1.0, 0.9, 1.0),
    "purple": (272, 300, 0.45, 1.0, 0.45, 0.85),
    "orange": (25, 37, 0.8, 1.0, 0.9, 1.0),
    "cyan": (177, 187, 0.6, 1.0, 0.78, 1.0),
}
"""Least and greatest hue (degrees), saturation and value (0–1) that bear the name."""
GREYS = {"black": (0, 40), "white": (240, 255)}
TYPED: tuple[dict[str, RGB], ...] = (
    {
        "red": (255, 0, 0),
        "green": (0, 128, 0),
        "blue": (0, 0, 255),
        "yellow": (255, 255, 0),
        "purple": (128, 0, 128),
        "orange": (255, 165, 0),
        "cyan": (0, 255, 255),
        "black": (0, 0, 0),
        "white": (255, 255, 255),
    },
    {
        "red": (220, 38, 38),
        "green": (0, 255, 0),
        "blue": (37, 99, 235),
        "yellow": (250, 220, 21),
        "purple": (147, 51, 234),
        "orange": (250, 120, 20),
        "cyan": (34, 211, 238),
        "black": (17, 17, 17),
        "white": (255, 255, 255),
    },
)
"""What people get who write a colour's name, or pick it from a palette."""


@dataclass(frozen=True, slots=True)
class Look:
    """How one picture is drawn, its ground aside. Lengths are pixels of the picture, shares are of a thing's side.

    - `longest`: the picture's longer side; `smooth`: anti-aliased; `rim`: the colour of outlines, None for a darker
      shade of the thing's own; `rim_share`: their width.
    - `scribbles`, `labels`: marks that are no thing, under the things; `seed`: of all that is drawn by chance.
    - `blur`: a radius; `noise`: of a sensor, in levels; `grain`: its seed; `quality`: of the JPEG file that the picture
      went through, 0 for none; `tones`: the colours of a palette that it was reduced to, 0 for none.
    """

    longest: int
    palette: dict[str, RGB]
    finish: Finish = "flat"
    smooth: bool = True
    rim: RGB | None = (0, 0, 0)
    rim_share: float = 0.05
    scribbles: int = 0
    labels: int = 0
    seed: int = 0
    blur: float = 0.0
    noise: int = 0
    grain: int = 0
    quality: int = 0
    tones: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether things are flat and there is nothing else."""
        return self.finish == "flat" and not (self.scribbles or self.labels or self.blur or self.noise)


def draw_palette(rng: random.Random) -> dict[str, RGB]:
    """Draw what each colour's name stands for in one picture: as typed, or anywhere in its range."""
    if rng.random() < 0.35:
        return rng.choice(TYPED)
    return {name: draw_colour(name, rng) for name in (*HUES, *GREYS)}


def draw_colour(name: str, rng: random.Random) -> RGB:
    """Draw a colour that people call by this name."""
    if name in GREYS:
        grey = rng.randint(*GREYS[name])
        return tint(grey, rng, 4)
    low, high, *ranges = HUES[name]
    hue = rng.uniform(low, high)
    saturation, value = rng.uniform(*ranges[:2]), rng.uniform(*ranges[2:])
    if name == "blue" and hue < 214:
        value = min(value, 0.85)  # brighter, it is called cyan
    if name in ("red", "green", "purple") and value < 0.6:
        saturation = max(saturation, 0.75)  # dark and dull, it is brown or grey
    if name == "purple" and value < 0.6:
        hue = max(hue, 284)  # dark, it is called blue
    red, green, blue = colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def tint(grey: int, rng: random.Random, reach: int) -> RGB:
    """Return a grey whose channels differ from it by at most `reach`."""
    red, green, blue = (min(255, max(0, grey + rng.randint(-reach, reach))) for _ in range(3))
    return red, green, blue


def contrast(one: RGB, other: RGB) -> float:
    """Return how far two colours are apart as the eye has it: 0 for equal ones, about 765 for black and white.

    The weighted distance of T. Riemersma, "Colour metric": https://www.compuphase.com/cmetric.htm
    """
    mean = (one[0] + other[0]) / 2
    red, green, blue = (a - b for a, b in zip(one, other, strict=True))
    weighted = (2 + mean / 256) * red * red + 4 * green * green + (2 + (255 - mean) / 256) * blue * blue
    return float(weighted**0.5)


def shade(colour: RGB, factor: float) -> RGB:
    """Darken a colour by a factor below 1; above it, lighten towards white."""
    if factor <= 1:
        red, green, blue = (round(value * factor) for value in colour)
    else:
        red, green, blue = (round(value + (255 - value) * (factor - 1)) for value in colour)
    return red, green, blue
