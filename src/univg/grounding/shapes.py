"""What four numbers, or the corners of a box, come to; and which of an answer's boxes are the ones that are meant."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple, TypeAlias, TypeVar

from univg.grounding.lexing import Token
from univg.grounding.naming import Edges, Named, Naming, take_layout, value_of

__all__ = [
    "BOX_KEYS",
    "Bracket",
    "Choice",
    "ImageNumber",
    "Point",
    "Quad",
    "Shape",
    "Written",
    "are_fractions",
    "are_two_boxes",
    "goes_round",
    "is_rectangle",
    "measure",
    "write",
]

Quad: TypeAlias = tuple[str, str, str, str]
"""x1 y1 x2 y2 as written: whether there is a decimal point still tells the frame."""

BOX_KEYS = ("box", "box_2d", "polygon")


class ImageNumber(NamedTuple):
    """The number of an image beside a box, as written, and where its key counts from: "0", "1", or "?" (not known).
    A number below 0: two numbers contradict one another."""

    number: int
    counts: str

    def join(self, other: ImageNumber) -> ImageNumber:
        """Return what two numbers in one object say together: an index goes before a number, a number before an id."""
        if self.counts != other.counts:
            return min(self, other, key=lambda one: "01?".index(one.counts))
        return self if self.number == other.number else ImageNumber(-1, self.counts)


class Written(NamedTuple):
    """One box of an answer: its numbers, where they stand, and what their names and signs say of them.

    ``fraction``: the numbers are 0-1, whatever they look like. ``pixel``: "px" stands behind them. ``image``: the
    number of an image under a key beside it. ``several_ways``: two readings are as good as each other; none is taken.
    """

    quad: Quad
    start: int
    end: int
    fraction: bool = False
    pixel: bool = False
    several_ways: bool = False
    image: ImageNumber | None = None


class Point(NamedTuple):
    """Two numbers in a bracket, and where that stands."""

    x: Token
    y: Token
    start: int
    end: int


@dataclass(slots=True, eq=False)
class Bracket:
    """An open bracket (or the whole answer): the key in force, and the run of numbers or points read last."""

    sign: str = ""
    start: int = 0
    parent: Bracket | None = None
    inherited: tuple[str, int] = ("", 0)
    key: tuple[str, int] = ("", 0)
    points: list[Point] = field(default_factory=list)
    numbers: list[Token] = field(default_factory=list)
    signs: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    led: int = 0
    """Whether a word stands right before the numbers: 0, 1 (perhaps their label), or 2 ("The plate reads 1 2")."""
    mixed: bool = False
    """Whether it holds anything but one run of numbers or of points."""
    image: ImageNumber | None = None

    @property
    def force(self) -> tuple[str, int]:
        """The nearest key that says what numbers are, and where it stands; "other" says nothing by itself."""
        return self.key if self.key[0] in BOX_KEYS or not self.inherited[0] else self.inherited


class Shape(NamedTuple):
    """A box with the key in force where it stands, and the image named before it in its list."""

    written: Written
    key: str
    key_at: int
    bracket: Bracket
    image: ImageNumber | None
    numbers: tuple[Token, ...]


def write(
    numbers: Sequence[Token],
    start: int,
    end: int,
    per: int = 0,
    several_ways: bool = False,
    edges: Edges | None = None,
) -> Written | None:
    """Return the box of four numbers, or of ``edges`` that follow from them; None if one is no coordinate.

    ``per``: what the numbers count to, where their notation says so.
    """
    marks = {number.mark for number in numbers if value_of(number) or number.mark}
    if "bad" in marks:
        return None
    several_ways = several_ways or ("%" in marks and any(n.mark != "%" and value_of(n) for n in numbers))
    if edges is None and not per and "%" not in marks:
        a, b, c, d = (number.text for number in numbers)
    else:
        values = edges or [value_of(number) for number in numbers]
        a, b, c, d = (str(value / per if per else value) for value in values)
    fraction = bool(per) or "%" in marks
    if fraction:  # a point, by which whoever is given the numbers alone knows it
        a, b, c, d = (text if "." in text or "E" in text else f"{text}.0" for text in (a, b, c, d))
    return Written((a, b, c, d), start, end, fraction, "px" in marks, several_ways)


def measure(points: Sequence[Point], several_ways: bool) -> Written | None:
    """Return the extent of points."""
    xs, ys = [point.x for point in points], [point.y for point in points]
    if any(number.mark == "bad" for number in (*xs, *ys)):
        return None
    corners = min(xs, key=value_of), min(ys, key=value_of), max(xs, key=value_of), max(ys, key=value_of)
    return write(corners, points[0].start, points[-1].end, several_ways=several_ways)


_FRACTION_LIMIT = Decimal("1.5")
"""Up to here fractions may pass 1, for a box that reaches beyond the image; as thousandths it would be a speck."""


def are_fractions(numbers: Sequence[str]) -> bool:
    """Tell whether numbers as written are meant 0-1: one has a decimal point, and none passes 1 by more than half.

    >>> are_fractions(["0.12", "0.2", "0.9", "1.1"]), are_fractions(["0", "0", "1", "1"])
    (True, False)
    """
    pointed = any("." in number or "e" in number.lower() for number in numbers)
    return pointed and all(abs(Decimal(number)) <= _FRACTION_LIMIT for number in numbers)


def is_rectangle(points: Sequence[Point]) -> bool:
    """Tell whether four points are the four corners of an upright box, in any order."""
    corners = {(value_of(point.x), value_of(point.y)) for point in points}
    return (
        len(points) == len(corners) == 4
        and len({x for x, _ in corners}) == 2
        and len({y for _, y in corners}) == 2
    )


def goes_round(points: Sequence[Point]) -> bool:
    """Tell whether four points go round a convex shape."""
    at = [(value_of(point.x), value_of(point.y)) for point in points]
    turns = []
    for i in range(len(at)):
        (ax, ay), (bx, by), (cx, cy) = at[i - 2], at[i - 1], at[i]
        turns.append((bx - ax) * (cy - by) - (by - ay) * (cx - bx))
    return len(at) == 4 and (all(turn > 0 for turn in turns) or all(turn < 0 for turn in turns))


def are_two_boxes(points: Sequence[Point]) -> bool:
    """Tell whether four points are twice an upper left and a lower right corner."""
    return all(
        value_of(one.x) < value_of(other.x) and value_of(one.y) < value_of(other.y)
        for one, other in (points[:2], points[2:])
    )


Found = TypeVar("Found")


class Choice:
    """The boxes found in an answer, of which those are chosen that are meant."""

    def __init__(
        self,
        shapes: list[Shape],
        bare: list[Shape],
        failed: bool,
        naming: Naming,
        owners: Mapping[int, Bracket],
        tops: Sequence[tuple[int, ImageNumber]],
    ) -> None:
        self.named, self.owners, self.failed = naming.boxes, owners, failed
        used = {token.start for one in naming.boxes for token in one.tokens}
        self.keyed, self.tops = False, tops
        starts = [one.start for one in naming.boxes] + [shape.written.start for shape in (*shapes, *bare)]
        self.before = bool(tops and starts) and tops[0][0] < min(starts)
        self.shapes = [shape for shape in shapes if not any(n.start in used for n in shape.numbers)]
        self.bare = [shape for shape in bare if not any(n.start in used for n in shape.numbers)]
        self.layouts = sorted(naming.layouts)
        self.orders = {slots for _, slots in naming.layouts}
        self.sizes = set(naming.sizes)
        self.objects: dict[int, Bracket | None] = {}
        self.images: dict[int, ImageNumber | None] = {}
        self.described: set[int] = set()
        self.around: dict[int, Bracket | None] = {}

    def make(self) -> list[Written]:
        """Return the boxes that are meant: by name or key if there are any, else by brackets, else bare ones."""
        keyed = [shape for shape in self.shapes if shape.key in BOX_KEYS]
        keyed += filter(None, map(self.place, self.named))
        keyed.sort(key=lambda shape: shape.written.start)
        self.keyed = bool(keyed)
        if keyed:
            boxes = [*self.settle(keyed)]
            said = {_value(box) for box in boxes}
            further = [*self.shapes, *(self.bare if self.layouts else [])]
            loose = [self.put(shape) for shape in further if self.is_loose(shape)]
            return boxes + [box for box in loose if _value(box) not in said]
        if self.failed:
            return []
        return [self.put(shape) for shape in self.shapes or self.bare]

    def place(self, one: Named) -> Shape | None:
        """Return the shape of a named box."""
        # A place and its size, in an answer that speaks of centres: the place may be either.
        centred = one.of_place and any("cx" in slots for slots in self.orders)
        written = write(one.tokens, one.start, one.end, several_ways=centred, edges=one.edges)
        bracket = self.owners[one.tokens[0].start]
        return Shape(written, "named", one.start, bracket, None, one.tokens) if written else None

    def settle(self, keyed: Iterable[Shape]) -> Iterator[Written]:
        """Yield the boxes of keys and names; two that differ, under different keys of one object, are none."""
        by_object: dict[int, list[Shape]] = {}
        for shape in keyed:
            owner = self.find_around(
                shape.bracket, self.objects, lambda one: one if one.sign == "{" else None
            )
            if owner:
                self.described.add(id(owner))
            by_object.setdefault(id(owner) if owner else -shape.written.start - 1, []).append(shape)
        for shapes in by_object.values():
            boxes: dict[int, list[Written]] = {}
            for shape in [shape for shape in shapes if shape.key != "polygon"] or shapes:
                boxes.setdefault(shape.key_at, []).append(self.put(shape))
            first, *others = boxes.values()
            agree = all({_value(box) for box in other} == {_value(box) for box in first} for other in others)
            yield from first if agree else [box._replace(several_ways=True) for box in first]

    def is_loose(self, shape: Shape) -> bool:
        """Tell whether a shape without a box's key stands by itself, and is no further list of an object with one."""
        if shape.key in BOX_KEYS:
            return False
        ask = self.find_around(
            shape.bracket, self.around, lambda one: one if id(one) in self.described else None
        )
        return not shape.key or ask is None

    def put(self, shape: Shape) -> Written:
        """Return the box of a shape with the image beside it, in the order that the answer says its numbers have."""
        around = self.find_around(
            shape.bracket, self.images, lambda one: one.image if one.sign == "{" else None
        )
        written = shape.written._replace(image=shape.image or around or self.find_top(shape.written))
        if len(shape.numbers) != 4 or shape.key in ("box_2d", "named"):
            return written
        before = bisect_right(self.layouts, written.start, key=lambda layout: layout[0])
        if not before and len(self.orders) > 1:
            return written._replace(several_ways=True)
        plain = ("x1", "y1", "x2", "y2")
        stated = self.layouts[max(before - 1, 0)][1] if self.layouts else plain
        slots = ("x", "y", "w", "h") if stated == plain and self.has_size(shape.numbers) else stated
        edges = take_layout(slots, shape.numbers) if slots != plain else None
        made = write(shape.numbers, written.start, written.end, edges=edges) if edges else None
        return made._replace(image=written.image) if made else written

    def find_top(self, written: Written) -> ImageNumber | None:
        """Return the number of an image outside all brackets that goes with a box: that before it or, where the first
        box stands before the first number, that behind it."""
        place = bisect_right(self.tops, written.start, key=lambda top: top[0]) - (1 if self.before else 0)
        return self.tops[place][1] if 0 <= place < len(self.tops) else None

    def has_size(self, numbers: Sequence[Token]) -> bool:
        """Tell whether the last two of four numbers are a width and a height that the answer names besides."""
        x, y, width, height = (value_of(number) for number in numbers)
        return (width, height) in self.sizes and (width - x, height - y) not in self.sizes

    def find_around(
        self, bracket: Bracket | None, found: dict[int, Found | None], ask: Callable[[Bracket], Found | None]
    ) -> Found | None:
        """Return what the nearest bracket around has to say, each asked once."""
        passed: list[Bracket] = []
        said = None
        while bracket is not None and said is None:
            if id(bracket) in found:
                said = found[id(bracket)]
                break
            passed.append(bracket)
            said = ask(bracket)
            bracket = bracket.parent
        found.update((id(one), said) for one in passed)
        return said


def _value(box: Written) -> tuple[Decimal, ...]:
    return tuple(Decimal(number) for number in box.quad)
