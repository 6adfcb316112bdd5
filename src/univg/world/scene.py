"""Compose scenes of the procedural world: things with an identity, a place and an exact outline.

Everything is in unit coordinates (0–1 of width and height, y down); `render.py` turns a scene into pixels at
any size. A thing is a handful of polygons, so its box is exact under every camera: the extent of the polygons
that are drawn. No torch, no numpy: a scene is cheap to make and the same on every machine.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from univg.grounding.boxes import Box
from univg.world.identity import COLOUR_NAMES, PATTERNS, Identity
from univg.world.looks import Look
from univg.world.shapes import COMPOSITES, SHAPES, SIMPLE_SHAPES, Part, Polygon

WORLD_VERSION = 2
"""The world that is drawn where no version is named. 1 is the first one, kept to the last pixel and word."""
VERSIONS = (1, 2)
Split = Literal["train", "test", "unseen", "drawn"]
SPLITS: tuple[Split, ...] = ("train", "test", "unseen")
"""What our own renderer draws; `drawn` is what other programs do (`univg.world.drawn`)."""


@dataclass(frozen=True, slots=True)
class Thing:
    """An identity at a place: centre in unit coordinates, `extent` = half its height per image side."""

    identity: Identity
    x: float
    y: float
    extent: float
    angle: float = 0.0
    depth: float = 0.5

    def __str__(self) -> str:
        return str(self.identity)


@dataclass(frozen=True, slots=True)
class Camera:
    """A projective view: zoom and turn about the image's middle, shift, tilt, and parallax by depth."""

    zoom: float = 1.0
    turn: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    tilt_x: float = 0.0
    tilt_y: float = 0.0
    parallax: float = 0.0

    def project(self, x: float, y: float, depth: float) -> tuple[float, float]:
        x, y = x - 0.5, y - 0.5
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        x, y = self.zoom * (cos * x - sin * y), self.zoom * (sin * x + cos * y)
        w = 1.0 + self.tilt_x * x + self.tilt_y * y
        x, y = x / w + self.shift_x + self.parallax * (depth - 0.5), y / w + self.shift_y
        return x + 0.5, y + 0.5


STRAIGHT = Camera()


@dataclass(frozen=True, slots=True)
class Background:
    """A ground of two muted tones. Its first tone's sum modulo 4 names the split (see `Studio.background`)."""

    tone: tuple[int, int, int]
    second: tuple[int, int, int]
    kind: str
    seed: int


@dataclass(frozen=True, slots=True)
class Scene:
    """What one image shows. `marks` are boxes painted on it in red, as the benchmark's first images have.

    `look`: how it is painted; without one, as the first version of the world was.
    """

    things: tuple[Thing, ...]
    background: Background
    camera: Camera = STRAIGHT
    aspect: float = 1.0
    marks: tuple[Box, ...] = ()
    look: Look | None = None
    _seen: dict[Thing, tuple[Outline, ...]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def outlines(self, thing: Thing) -> tuple[Outline, ...]:
        """Return the thing's parts as seen by the camera; kept, since box and picture both ask."""
        known = self._seen.get(thing)
        if known is None:
            known = self._seen[thing] = outline(thing, self.camera, self.aspect)
        return known

    def box(self, thing: Thing, part: str | None = None) -> Box:
        """Return the exact box of a thing (or of one named part), unit coordinates, clipped to the image."""
        return clipped(bounds([o for o in self.outlines(thing) if part is None or o.part.name == part]))

    def in_look(self, background: Background, look: Look) -> Scene:
        """Return the scene on another ground, painted in another way: things and boxes are what they were."""
        other = replace(self, background=background, look=look)
        other._seen.update(self._seen)
        return other

    def marked(self, *boxes: Box) -> Scene:
        return replace(self, marks=tuple(boxes))


@dataclass(frozen=True)
class Crop:
    """A region of another image of the same question, shown as an image of its own."""

    of: int
    box: Box


@dataclass(frozen=True, slots=True)
class Outline:
    """A part's polygons, and the holes cut out of them, in unit coordinates."""

    part: Part
    polygons: tuple[Polygon, ...]
    holes: tuple[Polygon, ...] = ()


def outline(thing: Thing, camera: Camera = STRAIGHT, aspect: float = 1.0) -> tuple[Outline, ...]:
    """Project a thing's parts, holes too: local frame -> turn, scale, place -> camera."""
    cos, sin = math.cos(thing.angle), math.sin(thing.angle)
    # One unit of extent is the same length in pixels along both sides, so that a circle stays round.
    scale_x = thing.extent * (1.0 if aspect <= 1 else 1.0 / aspect)
    scale_y = thing.extent * (1.0 if aspect >= 1 else aspect)
    straight = camera == STRAIGHT

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x, y = point
        u = thing.x + scale_x * (cos * x - sin * y)
        v = thing.y + scale_y * (sin * x + cos * y)
        return (u, v) if straight else camera.project(u, v, thing.depth)

    return tuple(
        Outline(
            part,
            tuple(tuple(map(place, polygon)) for polygon in part.polygons),
            tuple(tuple(map(place, polygon)) for polygon in part.holes),
        )
        for part in SHAPES[thing.identity.shape]
    )


def bounds(outlines: Sequence[Outline]) -> Box:
    """Return the extent of the solid polygons, not clipped."""
    xs = [x for o in outlines for polygon in o.polygons for x, _ in polygon]
    ys = [y for o in outlines for polygon in o.polygons for _, y in polygon]
    return (min(xs), min(ys), max(xs), max(ys))


def clipped(box: Box) -> Box:
    x1, y1, x2, y2 = (round(min(1.0, max(0.0, value)), 6) for value in box)
    return (x1, y1, x2, y2)


def overlap(a: Box, b: Box) -> float:
    """Return the shared area as a part of the smaller box: 1 when one hides in the other."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return width * height / smaller if smaller > 0 else 1.0


def place_name(box: Box) -> str:
    """Say where a box's middle lies on a three-by-three grid: 'upper left', 'top', … 'center'."""
    column = min(2, int((box[0] + box[2]) / 2 * 3))
    row = min(2, int((box[1] + box[3]) / 2 * 3))
    names = (("upper left", "top", "upper right"), ("left", "center", "right"))
    return (*names, ("lower left", "bottom", "lower right"))[row][column]


def name_version(version: int, prefix: str = "v") -> str:
    """Return what tells a version in a name: nothing for the first, whose names are older than versions.

    >>> name_version(1), name_version(2, "-v")
    ('', '-v2')
    """
    return "" if version == 1 else f"{prefix}{version}"


class Unplaceable(Exception):
    """Report that the numbers drawn leave no room for the things wanted; the caller draws again."""


class Studio:
    """Draw identities, grounds and layouts from one random stream.

    The split decides what may be shown: `held_out` identities appear in `unseen` alone, and a ground's first
    tone is ≡ 0 (mod 4) in test, 1 in unseen, 2 or 3 in train. So no image of one split is an image of another.
    """

    simple_share, plain_share = 0.8, 0.7

    def __init__(
        self,
        split: Split,
        seed: int,
        index: int,
        family: str,
        difficulty: float,
        version: int = 1,
    ) -> None:
        if version not in VERSIONS:
            raise ValueError(f"world version {version!r}: choose from {', '.join(map(str, VERSIONS))}")
        if split not in SPLITS:
            raise ValueError(f"split {split!r}: choose one of {', '.join(SPLITS)}")
        if not 0.0 <= difficulty <= 1.0:
            raise ValueError(f"difficulty {difficulty}: give a number from 0 to 1")
        drawn = f"{split}/{family}/{seed}/{index}/{difficulty:.6f}{name_version(version, '/v')}"
        digest = hashlib.sha256(drawn.encode()).digest()
        self.rng = random.Random(int.from_bytes(digest[:16], "big"))
        # Words have a stream of their own, so that the scenes stay what they are when wordings are added.
        self.words = random.Random(int.from_bytes(digest[16:], "big"))
        self.wording: str | None = None
        self.split = split
        self.version = version
        self.difficulty = difficulty

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def count(self, least: int | None = None, more: float = 4.0) -> int:
        """Draw how many things a scene holds: `least` (two) to `least + more * difficulty`."""
        return (2 if least is None else least) + self.rng.randint(0, round(more * self.difficulty))

    def identity(
        self,
        exclude: Sequence[Identity] = (),
        like: Identity | None = None,
        shapes: Sequence[str] | None = None,
        target: bool = False,
    ) -> Identity:
        """Draw a new identity. `like` shares one or two attributes with another (a distractor), `target` in the
        unseen split is always a held-out pair."""
        rng = self.rng
        pool = shapes or (SIMPLE_SHAPES if rng.random() < self.simple_share else COMPOSITES)
        taken = set(exclude)
        for _ in range(400):
            drawn = Identity(
                rng.choice(pool),
                rng.choice(COLOUR_NAMES),
                "plain" if rng.random() < self.plain_share else rng.choice(PATTERNS[1:]),
            )
            if like is not None:
                kept = rng.randrange(3 if self.plain_share < 0.9 else 2)
                if kept != 0 and (shapes is None or like.shape in shapes):
                    drawn = replace(drawn, shape=like.shape)
                if kept != 1:
                    drawn = replace(drawn, colour=like.colour)
                    if kept == 2:  # same colour and shape: only the pattern tells them apart
                        drawn = replace(drawn, pattern=rng.choice([p for p in PATTERNS if p != like.pattern]))
            allowed = drawn.held_out if target and self.split == "unseen" else True
            if drawn.held_out and self.split != "unseen":
                allowed = False
            if allowed and drawn not in taken:
                return drawn
        raise Unplaceable

    def distractors(
        self, target: Identity, n: int, exclude: Sequence[Identity] = (), shapes: Sequence[str] | None = None
    ) -> list[Identity]:
        """Draw `n` identities other than the target, more of them alike the harder the world."""
        drawn: list[Identity] = []
        for _ in range(n):
            like = target if self.chance(0.15 + 0.6 * self.difficulty) else None
            drawn.append(self.identity([target, *exclude, *drawn], like, shapes))
        return drawn

    def background(self) -> Background:
        rng = self.rng
        grey = rng.randint(96, 176)
        tone = [min(255, max(0, grey + rng.randint(-22, 22))) for _ in range(3)]
        wanted = {"test": 0, "unseen": 1}.get(self.split, rng.choice((2, 3)))
        tone[2] += (wanted - sum(tone)) % 4
        second = tuple(min(255, max(0, value + rng.randint(-20, 20))) for value in tone)
        kind = rng.choice(("flat", "gradient", "gradient", "noise", "noise", "bands"))
        return Background((tone[0], tone[1], tone[2]), second, kind, rng.getrandbits(31))  # type: ignore[arg-type]

    def aspect(self) -> float:
        return self.rng.choice((1.0, 1.0, 1.0, 1.5, 2 / 3))

    def film_aspect(self) -> float:
        """Draw the aspect of a scene that moves before a camera that does not."""
        return 1.0

    def extent(self, size: str | None = None) -> float:
        """Draw half the height of a thing: small 0.075–0.11, medium 0.12–0.13, large 0.15–0.2; free: what the
        difficulty allows."""
        if size == "small":
            return self.rng.uniform(0.075, 0.105)
        if size == "medium":
            return self.rng.uniform(0.12, 0.13)
        if size == "large":
            return self.rng.uniform(0.15, 0.2)
        return self.rng.uniform(0.14 - 0.06 * self.difficulty, 0.2)

    def lay_out(
        self,
        identities: Sequence[Identity],
        sizes: Sequence[str | None] | None = None,
        aspect: float = 1.0,
        margin: float = 0.02,
        crowd: float | None = None,
    ) -> tuple[Thing, ...]:
        """Put things down so that none hides more than a bounded part of another.

        `crowd` bounds the overlap of any two boxes (share of the smaller); default: up to 0.2 when hardest.
        """
        limit = 0.2 * self.difficulty if crowd is None else crowd
        things: list[Thing] = []
        boxes: list[Box] = []
        for identity, size in zip(identities, sizes or [None] * len(identities), strict=True):
            extent = self.extent(size)
            angle = self.rng.uniform(-0.35, 0.35) * self.difficulty
            for attempt in range(80):
                if attempt % 20 == 19 and size is None:
                    extent *= 0.85
                thing = Thing(identity, 0.0, 0.0, extent, angle, round(self.rng.random(), 3))
                x1, y1, x2, y2 = bounds(outline(thing, aspect=aspect))
                if x2 - x1 + 2 * margin >= 1 or y2 - y1 + 2 * margin >= 1:
                    continue
                x = round(self.rng.uniform(margin - x1, 1 - margin - x2), 4)
                y = round(self.rng.uniform(margin - y1, 1 - margin - y2), 4)
                box = (x + x1, y + y1, x + x2, y + y2)
                if all(overlap(box, other) <= limit for other in boxes):
                    things.append(replace(thing, x=x, y=y))
                    boxes.append(box)
                    break
            else:
                raise Unplaceable
        return tuple(things)

    def scene(
        self,
        identities: Sequence[Identity],
        sizes: Sequence[str | None] | None = None,
        aspect: float | None = None,
    ) -> Scene:
        """Compose a scene of these identities, `things` in their order (later ones lie on top)."""
        chosen = self.aspect() if aspect is None else aspect
        return Scene(self.lay_out(identities, sizes, chosen), self.background(), aspect=chosen)

    def seen_from(self, scene: Scene, camera: Camera, *inside: Thing) -> Scene:
        """Return the scene from another viewpoint; the things named stay wholly in the picture and none leaves it."""
        other = replace(scene, camera=camera, marks=())
        for thing in other.things:
            x1, y1, x2, y2 = bounds(other.outlines(thing))
            width, height = min(1.0, x2) - max(0.0, x1), min(1.0, y2) - max(0.0, y1)
            shown = max(0.0, width) * max(0.0, height) / ((x2 - x1) * (y2 - y1))
            if shown < (0.999 if thing in inside else 0.6):
                raise Unplaceable
        for i, a in enumerate(other.things):
            for b in other.things[i + 1 :]:
                if overlap(other.box(a), other.box(b)) > 0.3:
                    raise Unplaceable
        return other

    def camera(self, strength: float = 1.0) -> Camera:
        """Draw another viewpoint; the harder the world, the farther it is."""
        reach = strength * (0.35 + 0.65 * self.difficulty)
        draw = self.rng.uniform
        return Camera(
            zoom=1.0 + reach * draw(-0.2, 0.15),
            turn=reach * draw(-0.25, 0.25),
            shift_x=reach * draw(-0.1, 0.1),
            shift_y=reach * draw(-0.1, 0.1),
            tilt_x=reach * draw(-0.25, 0.25),
            tilt_y=reach * draw(-0.25, 0.25),
            parallax=reach * draw(-0.15, 0.15),
        )
