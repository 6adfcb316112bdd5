"""Lay scenes out for the second world: any aspect, and things from a twentieth of the side to four fifths of it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

from univg.grounding.boxes import Box
from univg.world.identity import Identity
from univg.world.scene import Split, Studio, Thing, Unplaceable, bounds, outline, overlap
from univg.world.shapes import COMPOSITES

LARGEST = {1: 0.4, 2: 0.3, 3: 0.25, 4: 0.21}
"""Half the height of a thing, by how many there are: few may be large."""
LARGEST_OF_MANY = 0.18
SMALLEST = 0.025
GAP = 0.015
LEAST_PX = {"simple": 8, "composite": 15, "patterned": 16}
"""Pixels that a thing's height needs for a person to say what it is."""
CLOSER = {"region": 1.6, "view_diff": 1.3, "multi_view": 1.3, "correspondence": 1.5}
"""Families that cut things out or move the camera back need more."""
LEAST_SIDE = 56
ASPECTS = (4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9, 9 / 16)


class WideStudio(Studio):
    """A studio of version 2; `longest`, the longer side of its pictures in pixels, bounds how small things are.

    Nearly half of its questions are `simple`: few patterns and composites, more often in a plain look.
    """

    def __init__(
        self, split: Split, seed: int, index: int, family: str, difficulty: float, version: int
    ) -> None:
        super().__init__(split, seed, index, family, difficulty, version)
        self.longest = 120
        self.closer = CLOSER.get(family, 1.0)
        self.simple = self.chance(0.45)
        if self.simple:
            self.simple_share, self.plain_share = 0.93, 0.96

    def aspect(self) -> float:
        """Draw width per height: often 1, else 1:3 to 3:1, with no side under 56 pixels where that is possible."""
        most = min(3.0, max(1.0, self.longest / LEAST_SIDE))
        kind = self.rng.random()
        if kind < 0.35:
            return 1.0
        reach = math.log(most)
        drawn = self.rng.choice(ASPECTS) if kind < 0.65 else math.exp(self.rng.uniform(-reach, reach))
        return round(min(most, max(1 / most, drawn)), 4)

    def count(self, least: int | None = None, more: float = 4.0) -> int:
        """Draw how many things a scene holds; where nothing is said of the least, now and then one alone."""
        return 1 if least is None and self.chance(0.2) else super().count(least, more)

    def film_aspect(self) -> float:
        return self.aspect()

    def lay_out(
        self,
        identities: Sequence[Identity],
        sizes: Sequence[str | None] | None = None,
        aspect: float = 1.0,
        margin: float = 0.02,
        crowd: float | None = None,
    ) -> tuple[Thing, ...]:
        """Put things down, all about as large as one another or not at all; two of one colour never overlap."""
        limit = 0.12 * self.difficulty if crowd is None else crowd
        short = self.longest * min(aspect, 1 / aspect)
        top = LARGEST.get(len(identities), LARGEST_OF_MANY)
        scale = self._draw_scale(top)
        things: list[Thing] = []
        boxes: list[Box] = []
        for identity, size in zip(identities, sizes or [None] * len(identities), strict=True):
            least = min(0.13, self.closer * _least_px(identity) / (2 * short))
            extent = self.extent(size) if size else min(top, scale * self.rng.uniform(0.7, 1.35))
            extent = max(least, extent)
            angle = self.rng.uniform(-0.35, 0.35) * self.difficulty
            for attempt in range(60):
                if attempt % 12 == 11 and size is None:
                    extent = max(least, 0.8 * extent)
                thing = Thing(identity, 0.0, 0.0, extent, angle, round(self.rng.random(), 3))
                box = self._place(bounds(outline(thing, aspect=aspect)), margin)
                if box is not None and all(
                    _overlap_well(box[0], other, limit, identity.colour == thing.identity.colour)
                    for thing, other in zip(things, boxes, strict=True)
                ):
                    things.append(replace(thing, x=box[1][0], y=box[1][1]))
                    boxes.append(box[0])
                    break
            else:
                raise Unplaceable
        return tuple(things)

    def _draw_scale(self, top: float) -> float:
        """Draw how large the things of a scene are: smaller, and now and then tiny, the harder the world."""
        low = SMALLEST if self.chance(0.25 * self.difficulty) else 0.11 - 0.06 * self.difficulty
        if self.chance(0.3):
            return self.rng.uniform(low, top)
        return math.exp(self.rng.uniform(math.log(low), math.log(top)))

    def _place(self, extent: Box, margin: float) -> tuple[Box, tuple[float, float]] | None:
        """Move a box to anywhere in the picture; None where it is too large for it."""
        x1, y1, x2, y2 = extent
        if x2 - x1 + 2 * margin >= 1 or y2 - y1 + 2 * margin >= 1:
            return None
        x = round(self.rng.uniform(margin - x1, 1 - margin - x2), 4)
        y = round(self.rng.uniform(margin - y1, 1 - margin - y2), 4)
        return (x + x1, y + y1, x + x2, y + y2), (x, y)


def _overlap_well(box: Box, other: Box, limit: float, same_colour: bool) -> bool:
    """Tell whether two things can be told apart: by a gap, where they have one colour."""
    if not same_colour:
        return overlap(box, other) <= limit
    return overlap((box[0] - GAP, box[1] - GAP, box[2] + GAP, box[3] + GAP), other) == 0


def _least_px(identity: Identity) -> int:
    if identity.pattern != "plain":
        return LEAST_PX["patterned"]
    return LEAST_PX["composite" if identity.shape in COMPOSITES else "simple"]


def draw_size(rng: random.Random, size: int | tuple[int, int]) -> int:
    """Draw the longer side of a picture: evenly in its logarithm between the two, or as it is given."""
    if isinstance(size, int):
        return size
    low, high = size
    return round(math.exp(rng.uniform(math.log(low), math.log(high))))
