"""Turn what annotation tools draw into boxes: the extent of polygons, ellipses and rectangles that are turned."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from univg.data.formats.faults import Unusable
from univg.data.formats.fields import find_numbers, shorten
from univg.grounding.boxes import Box

__all__ = [
    *("Point", "circle_extent", "ellipse_extent", "extent", "polygon_extent", "read_number", "read_points"),
    *("read_rotation", "to_sides", "turn"),
]

Point: TypeAlias = tuple[float, float]


def read_number(fields: Mapping[str, Any], name: str) -> float:
    """Return a field that must be one finite number, or a text of one."""
    return _one_number(fields.get(name), repr(name))


def _one_number(value: Any, what: str) -> float:
    numbers = [] if isinstance(value, (list, Mapping)) else find_numbers(value)
    if len(numbers) != 1 or not abs(numbers[0]) < 1e12:
        raise Unusable("bad_box", f"{what} is {shorten(value)}, not a finite number")
    return numbers[0]


def read_points(value: Any) -> list[Point]:
    """Return the points of a list of pairs, or of a text such as CVAT's "1,2;3,4".

    >>> read_points([[1, 2], [3.5, 4]]), read_points("1,2;3.5,4")
    ([(1.0, 2.0), (3.5, 4.0)], [(1.0, 2.0), (3.5, 4.0)])
    """
    if isinstance(value, str):
        value = [pair.split(",") for pair in value.split(";") if pair.strip()]
    if not isinstance(value, list):
        raise Unusable("bad_box", f"the points are {shorten(value)}, not a list")
    points = []
    for pair in value:
        both = [pair.get("x"), pair.get("y")] if isinstance(pair, Mapping) else pair
        if not isinstance(both, Sequence) or isinstance(both, str) or len(both) != 2:
            raise Unusable("bad_box", f"the point {shorten(pair)} is not an x and a y")
        points.append((_one_number(both[0], "a point's x"), _one_number(both[1], "a point's y")))
    return points


def read_rotation(fields: Mapping[str, Any]) -> float:
    """Return by how many degrees a shape is turned: 0 where nothing is said."""
    return read_number(fields, "rotation") if fields.get("rotation") else 0.0


def polygon_extent(value: Any) -> Box:
    """Return the smallest box around a polygon, as `read_points` reads it."""
    points = read_points(value)
    if len(points) < 3:
        raise Unusable("bad_box", f"a polygon of {len(points)} points")
    return extent(points)


def circle_extent(centre: Point, rim: Point) -> Box:
    """Return the smallest box around a circle through `rim`."""
    (x, y), radius = centre, math.dist(centre, rim)
    return x - radius, y - radius, x + radius, y + radius


def to_sides(box: Box) -> Box:
    """Return x y width height of corners."""
    return box[0], box[1], box[2] - box[0], box[3] - box[1]


def extent(points: Iterable[Point]) -> Box:
    """Return the smallest box around points, in whatever order they come."""
    across, down = zip(*points, strict=True)
    return min(across), min(down), max(across), max(down)


def turn(points: Iterable[Point], pivot: Point, degrees: float) -> list[Point]:
    """Return points turned clockwise, as one sees it, about a pivot; in a frame with square units such as pixels.

    >>> [(round(x), round(y)) for x, y in turn([(3, 1)], (1, 1), 90)]
    [(1, 3)]
    """
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    from_pivot = ((x - pivot[0], y - pivot[1]) for x, y in points)
    return [(pivot[0] + x * cos - y * sin, pivot[1] + x * sin + y * cos) for x, y in from_pivot]


def ellipse_extent(centre: Point, radii: Point, degrees: float = 0.0) -> Box:
    """Return the smallest box around an ellipse that is turned about its centre.

    >>> [round(edge) for edge in ellipse_extent((10, 10), (4, 2), 90)]
    [8, 6, 12, 14]
    """
    if min(radii) <= 0:
        raise Unusable(
            "degenerate_box", f"an ellipse with the radii {radii[0]:g} and {radii[1]:g} has no area"
        )
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    half_width = math.hypot(radii[0] * cos, radii[1] * sin)
    half_height = math.hypot(radii[0] * sin, radii[1] * cos)
    return centre[0] - half_width, centre[1] - half_height, centre[0] + half_width, centre[1] + half_height
