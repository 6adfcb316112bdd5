"""A page of simple shapes, as a person puts them down before any program draws them: what, where, how large."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from univg.grounding.boxes import Box, SizeWH
from univg.world.looks import RGB, contrast

Fill: TypeAlias = Literal["filled", "edged", "hollow"]
PAGES: tuple[SizeWH, ...] = (
    (400, 300), (640, 480), (500, 500), (256, 256), (200, 200), (320, 240), (800, 600), (600, 300), (300, 600),
    (1000, 500), (400, 600), (100, 100), (128, 96), (160, 160),
)  # fmt: skip
"""Sizes that people give a new picture, in pixels."""
CLEAR = 240.0
"""How far a colour is from the ground (see `contrast`) that a person would draw with."""


@dataclass(frozen=True)
class Item:
    """A shape at a place: its middle and half its size in pixels, y down."""

    shape: str
    colour: str
    x: float
    y: float
    reach: float
    fill: Fill = "filled"

    def __str__(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Page:
    """What one picture shows, and the program that draws it. `area`: the part that items may lie in, in pixels."""

    program: str
    size_wh: SizeWH
    ground: RGB
    palette: dict[str, RGB]
    area: Box
    items: tuple[Item, ...] = ()
    seed: int = 0


LINES = ("red", "green", "blue", "purple", "orange")
"""Colours of things that are drawn as lines alone: black ones would be called white."""


class NoRoom(Exception):
    """Report that the items wanted do not fit on the page; the caller draws again."""


def lay_out(
    rng: random.Random, page: Page, wanted: Sequence[tuple[str, str]], hollow: bool
) -> tuple[Item, ...]:
    """Put (shape, colour) pairs on the page, apart from one another. Raises NoRoom."""
    left, top, right, bottom = page.area
    short = min(right - left, bottom - top)
    most = {1: 0.36, 2: 0.27, 3: 0.22, 4: 0.19}.get(len(wanted), 0.15) * short
    least = max(6.0, 0.035 * short)
    scale = rng.uniform(0.3, 1.0)
    even = rng.random() < 0.4  # people often make all of one size
    fill: Fill = rng.choice(("filled", "filled", "edged"))
    items: list[Item] = []
    for shape, colour in wanted:
        style: Fill = "hollow" if hollow and colour in LINES else fill
        for _ in range(80):
            reach = max(least, most * (scale if even else rng.uniform(0.3, 1.0)))
            x, y = rng.uniform(left + reach, right - reach), rng.uniform(top + reach, bottom - reach)
            if all(max(abs(x - o.x), abs(y - o.y)) > 1.12 * (reach + o.reach) + 2 for o in items):
                items.append(Item(shape, colour, round(x), round(y), round(reach), style))
                break
        else:
            raise NoRoom
    return tuple(items)


def list_visible(page: Page) -> list[str]:
    """Name the colours of the page's palette that can be seen on its ground."""
    return [name for name, colour in page.palette.items() if contrast(colour, page.ground) > CLEAR]
