"""The outlines of the world's things, in a local frame of −1…1 (y down).

Simple shapes have one part; composites have parts with a role (cover, support, handle, body), which is what the
correspondence and reasoning families ask about. A part without a `tint` wears the thing's colour and pattern.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Polygon = tuple[tuple[float, float], ...]
RGB = tuple[int, int, int]

WOOD: RGB = (112, 74, 42)
IVORY: RGB = (236, 226, 200)
DARK: RGB = (58, 56, 62)


@dataclass(frozen=True, slots=True)
class Part:
    """Polygons drawn together; `holes` are cut out of them."""

    name: str
    role: str
    polygons: tuple[Polygon, ...]
    tint: RGB | None = None
    holes: tuple[Polygon, ...] = ()


def disc(x: float, y: float, radius: float, start: float = 0.0, stop: float = 360.0) -> Polygon:
    steps = max(6, round(28 * (stop - start) / 360))
    closed = stop - start >= 360
    angles = [
        math.radians(start + (stop - start) * i / (steps if closed else steps - 1)) for i in range(steps)
    ]
    return tuple((round(x + radius * math.cos(a), 5), round(y + radius * math.sin(a), 5)) for a in angles)


def rect(x1: float, y1: float, x2: float, y2: float) -> Polygon:
    return ((x1, y1), (x2, y1), (x2, y2), (x1, y2))


def star(points: int, inner: float) -> Polygon:
    radii = (1.0, inner)
    angles = [math.pi * i / points - math.pi / 2 for i in range(2 * points)]
    return tuple(
        (round(radii[i % 2] * math.cos(a), 5), round(radii[i % 2] * math.sin(a), 5))
        for i, a in enumerate(angles)
    )


def band(x: float, y: float, outer: float, inner: float, start: float, stop: float) -> Polygon:
    """Return a curved strip between two radii: a handle, a shackle."""
    return disc(x, y, outer, start, stop) + disc(x, y, inner, start, stop)[::-1]


def _heart() -> Polygon:
    raw = []
    for i in range(28):
        t = 2 * math.pi * i / 28
        raw.append(
            (
                16 * math.sin(t) ** 3,
                -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)),
            )
        )
    return tuple((round(x / 16, 5), round((y - 2.5) / 14.7, 5)) for x, y in raw)


_BODY = "body"
_SIMPLE: dict[str, Part] = {
    "circle": Part(_BODY, _BODY, (disc(0, 0, 1),)),
    "square": Part(_BODY, _BODY, (rect(-0.9, -0.9, 0.9, 0.9),)),
    "triangle": Part(_BODY, _BODY, (((0, -1), (1, 0.9), (-1, 0.9)),)),
    "diamond": Part(_BODY, _BODY, (((0, -1.1), (0.75, 0), (0, 1.1), (-0.75, 0)),)),
    "star": Part(_BODY, _BODY, (star(5, 0.45),)),
    "cross": Part(
        _BODY,
        _BODY,
        (
            (
                (-0.33, -1),
                (0.33, -1),
                (0.33, -0.33),
                (1, -0.33),
                (1, 0.33),
                (0.33, 0.33),
                (0.33, 1),
                (-0.33, 1),
                (-0.33, 0.33),
                (-1, 0.33),
                (-1, -0.33),
                (-0.33, -0.33),
            ),
        ),
    ),
    "ring": Part(_BODY, _BODY, (disc(0, 0, 1),), holes=(disc(0, 0, 0.5),)),
    "heart": Part(_BODY, _BODY, (_heart(),)),
}
_COMPOSITE: dict[str, tuple[Part, ...]] = {
    "house": (
        Part("wall", "body", (rect(-0.75, -0.15, 0.75, 1),)),
        Part("roof", "cover", (((-1, -0.1), (0, -1), (1, -0.1)),), DARK),
    ),
    "tree": (
        Part("trunk", "support", (rect(-0.18, 0.2, 0.18, 1),), WOOD),
        Part("crown", "cover", (disc(0, -0.32, 0.68),)),
    ),
    "mug": (
        Part("handle", "handle", (band(0.35, 0.0, 0.62, 0.38, -90, 90),), DARK),
        Part("bowl", "container", (rect(-0.85, -0.8, 0.42, 0.85),)),
    ),
    "mushroom": (
        Part("stem", "support", (rect(-0.26, -0.05, 0.26, 1),), IVORY),
        Part("cap", "cover", (disc(0, 0.0, 1.0, 180, 360),)),
    ),
    "umbrella": (
        Part("shaft", "handle", (rect(-0.08, -0.1, 0.08, 1),), DARK),
        Part("canopy", "cover", (disc(0, 0.0, 1.0, 180, 360),)),
    ),
    "pan": (
        Part("handle", "handle", (rect(0.25, -0.12, 1.15, 0.12),), DARK),
        Part("bowl", "container", (disc(-0.3, 0, 0.7),)),
    ),
    "lamp": (
        Part("stand", "support", (rect(-0.09, -0.2, 0.09, 0.9), rect(-0.55, 0.78, 0.55, 1)), DARK),
        Part("shade", "cover", (((-0.35, -1), (0.35, -1), (0.8, 0.05), (-0.8, 0.05)),)),
    ),
    "car": (
        Part("body", "body", (((-1.1, 0), (-0.6, -0.1), (-0.35, -0.6), (0.45, -0.6), (0.75, -0.1), (1.1, 0.0),
                               (1.1, 0.45), (-1.1, 0.45)),)),
        Part("wheels", "support", (disc(-0.6, 0.45, 0.3), disc(0.6, 0.45, 0.3)), DARK),
    ),
    "table": (
        Part("legs", "support", (rect(-0.85, -0.2, -0.6, 0.8), rect(0.6, -0.2, 0.85, 0.8)), WOOD),
        Part("top", "surface", (rect(-1.05, -0.55, 1.05, -0.15),)),
    ),
    "bucket": (
        Part("handle", "handle", (band(0, -0.25, 0.78, 0.6, 180, 360),), DARK),
        Part("bowl", "container", (((-0.8, -0.3), (0.8, -0.3), (0.55, 1), (-0.55, 1)),)),
    ),
    "key": (
        Part("blade", "tip", (rect(0.0, -0.12, 1.1, 0.12), rect(0.65, 0.1, 0.8, 0.42), rect(0.92, 0.1, 1.07, 0.42)),
             DARK),
        Part("bow", "handle", (disc(-0.45, 0, 0.6),), holes=(disc(-0.5, 0, 0.25),)),
    ),
    "lock": (
        Part("shackle", "handle", (band(0, -0.15, 0.62, 0.38, 180, 360),), DARK),
        Part("case", "body", (rect(-0.85, -0.2, 0.85, 1),)),
    ),
}  # fmt: skip

SHAPES: dict[str, tuple[Part, ...]] = {name: (part,) for name, part in _SIMPLE.items()} | _COMPOSITE
SIMPLE_SHAPES: tuple[str, ...] = tuple(_SIMPLE)
COMPOSITES: tuple[str, ...] = tuple(_COMPOSITE)
