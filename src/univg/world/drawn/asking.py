"""Ask about pages as a person would: a split that is measured on and never trained on.

The families go by the names of the world's where they ask the same; the words are others.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import ImageColor

from univg.grounding.boxes import Box
from univg.world.drawn.pages import PAGES, Item, NoRoom, Page, lay_out, list_visible
from univg.world.drawn.programs import ALL_SHAPES, PROGRAMS, list_programs, measure_page
from univg.world.drawn.words import ALL, IF_ANY, ONE, WORDS

DRAWN = "drawn"
"""The name of the split."""
Wanted = list[tuple[str, str]]


@dataclass(frozen=True)
class DrawnQuestion:
    """One question about pages. `targets`: image and exact box of each, left to right; `is_set`: whether all that fit
    are asked for."""

    shots: tuple[Page, ...]
    query: str
    targets: tuple[tuple[int, Box], ...]
    is_set: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


class Desk:
    """Draw pages from one random stream."""

    def __init__(
        self, family: str, seed: int, index: int, difficulty: float, size: int | tuple[int, int]
    ) -> None:
        digest = hashlib.sha256(f"{DRAWN}/{family}/{seed}/{index}/{difficulty:.6f}".encode()).digest()
        self.rng = random.Random(int.from_bytes(digest[:16], "big"))
        self.difficulty = difficulty
        self.size = size
        self.alone = family in ("referring", "find_all")
        self.program = self.rng.choice(list_programs())

    def count(self, least: int) -> int:
        return least + self.rng.randint(0, 1 + round(4 * self.difficulty))

    def blank(self, program: str = "") -> Page:
        """Draw an empty page: its program, size, ground and palette."""
        rng, name = self.rng, program or self.program
        maker = PROGRAMS[name]
        low, high = (self.size, self.size) if isinstance(self.size, int) else self.size
        sizes = [page for page in PAGES if low <= max(page) <= high]
        size = rng.choice(sizes) if sizes else _resize(rng.choice(PAGES), high)
        ground = ImageColor.getrgb(rng.choice(maker.grounds))[:3]
        area = (0.0, 0.0, float(size[0]), float(size[1]))
        if name == "matplotlib" and min(size) >= 200 and rng.random() < 0.5:  # with axes
            area = (0.12 * size[0], 0.12 * size[1], 0.95 * size[0], 0.9 * size[1])
        return Page(name, size, ground, rng.choice(maker.palettes), area, seed=rng.getrandbits(31))

    def draw(
        self, page: Page, n: int, without: Sequence[tuple[str, str]] = (), shapes: Sequence[str] = ()
    ) -> Wanted:
        """Draw `n` different shapes in colours that show on the page, none of those in `without`."""
        pool = [s for s in PROGRAMS[page.program].shapes if not shapes or s in shapes]
        colours = list_visible(page)
        pairs = [(s, c) for s in pool for c in colours if (s, c) not in without]
        if len(pairs) < n:
            raise NoRoom
        return self.rng.sample(pairs, n)

    def fill(self, page: Page, wanted: Sequence[tuple[str, str]]) -> Page:
        """Put shapes on the page; now and then only their lines, where no circle is taken for a ring."""
        shapes = [shape for shape, _ in wanted]
        hollow = self.rng.random() < 0.15 and "ring" not in shapes and (self.alone or "circle" not in shapes)
        return replace(page, items=lay_out(self.rng, page, wanted, hollow))


def _resize(size: tuple[int, int], longest: int) -> tuple[int, int]:
    factor = longest / max(size)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def compose_drawn(
    family: str, seed: int, index: int, difficulty: float, size: int | tuple[int, int]
) -> DrawnQuestion:
    """Compose question `index` of a family of `DRAWN_FAMILIES`. Raises ValueError for another."""
    if family not in DRAWN_FAMILIES:
        known = ", ".join(DRAWN_FAMILIES)
        raise ValueError(f"the split {DRAWN} has no task family {family!r}: choose from {known}")
    if not 0.0 <= difficulty <= 1.0:
        raise ValueError(f"difficulty {difficulty}: give a number from 0 to 1")
    desk = Desk(family, seed, index, difficulty, size)
    for _ in range(2000):
        try:
            asked = DRAWN_FAMILIES[family](desk)
        except NoRoom:
            continue
        programs = [page.program for page in asked.shots]
        return replace(asked, extra={"programs": list(dict.fromkeys(programs)), **asked.extra})
    raise RuntimeError(f"task family {family!r}: no page found in 2000 draws; report this seed: {seed}")


# ---- one picture -------------------------------------------------------------------------------------------------


def _referring(desk: Desk) -> DrawnQuestion:
    """By colour and shape, by one of them, by an extreme, by what it is beside, or by a side."""
    kind = desk.rng.choice(("name", "name", "shape", "colour", "extreme", "relation", "side"))
    page = desk.blank()
    wanted = desk.draw(page, desk.count(2 if kind in ("extreme", "relation", "side") else 1))
    if kind == "extreme" and desk.rng.random() < 0.6:  # of several of one shape
        colours = list_visible(page)
        wanted = [(wanted[0][0], desk.rng.choice(colours)) for _ in range(desk.rng.randint(2, 3))] + wanted[
            2:
        ]
    page = desk.fill(page, wanted)
    boxes = measure_page(page)
    options = _DESCRIBE[kind](page.items, boxes, page)
    if not options:
        raise NoRoom
    at, phrase = desk.rng.choice(options)
    query = desk.rng.choice(ONE).format(phrase)
    return DrawnQuestion((page,), query, ((0, boxes[at]),), extra={"kind": kind})


Options = list[tuple[int, str]]


def _by_name(items: Sequence[Item], boxes: Sequence[Box], page: Page) -> Options:
    names = [str(item) for item in items]
    return [(i, name) for i, name in enumerate(names) if names.count(name) == 1]


def _by_shape(items: Sequence[Item], boxes: Sequence[Box], page: Page) -> Options:
    shapes = [item.shape for item in items]
    return [(i, shape) for i, shape in enumerate(shapes) if shapes.count(shape) == 1]


def _by_colour(items: Sequence[Item], boxes: Sequence[Box], page: Page) -> Options:
    colours = [item.colour for item in items]
    word = "one" if len(items) % 2 else "shape"
    return [(i, f"{colour} {word}") for i, colour in enumerate(colours) if colours.count(colour) == 1]


def _by_extreme(items: Sequence[Item], boxes: Sequence[Box], page: Page) -> Options:
    """The largest or smallest of a shape of which there are several, or of all, by a clear margin."""
    areas = [_area(box) for box in boxes]
    found: Options = []
    for shape in (None, *dict.fromkeys(item.shape for item in items)):
        of = [i for i, item in enumerate(items) if shape in (None, item.shape)]
        order = sorted(of, key=lambda i: areas[i])
        if len(of) > 1 and areas[order[-1]] > 1.5 * areas[order[-2]]:
            found += [(order[-1], f"{word} {shape or 'shape'}") for word in ("largest", "biggest")]
        if len(of) > 1 and areas[order[1]] > 1.5 * areas[order[0]]:
            found.append((order[0], f"smallest {shape or 'shape'}"))
    return found


def _by_relation(items: Sequence[Item], boxes: Sequence[Box], page: Page) -> Options:
    """The only thing to one side of a shape that there is once; nothing else is near the line between the sides."""
    found: Options = []
    for anchor, shape in _by_shape(items, boxes, page):
        for axis, words in enumerate((("left of", "right of"), ("above", "below"))):
            gaps = {
                i: _middle(boxes[i], axis) - _middle(boxes[anchor], axis)
                for i in range(len(items))
                if i != anchor
            }
            for sign, word in zip((-1, 1), words, strict=True):
                there = [i for i, gap in gaps.items() if sign * gap > 0]
                if len(there) == 1 and all(abs(gap) > 0.1 for gap in gaps.values()):
                    found.append((there[0], f"thing {word} the {shape}"))
    return found


def _by_side(items: Sequence[Item], boxes: Sequence[Box], page: Page) -> Options:
    found: Options = []
    for axis, words in enumerate((("leftmost", "rightmost"), ("topmost", "lowest"))):
        order = sorted(range(len(items)), key=lambda i: _middle(boxes[i], axis))
        middles = [_middle(boxes[i], axis) for i in order]
        if middles[1] - middles[0] > 0.1:
            found.append((order[0], f"{words[0]} shape"))
        if middles[-1] - middles[-2] > 0.1:
            found.append((order[-1], f"{words[1]} shape"))
    return found


_DESCRIBE: dict[str, Callable[[Sequence[Item], Sequence[Box], Page], Options]] = {
    "name": _by_name,
    "shape": _by_shape,
    "colour": _by_colour,
    "extreme": _by_extreme,
    "relation": _by_relation,
    "side": _by_side,
}


def _middle(box: Box, axis: int) -> float:
    return (box[axis] + box[axis + 2]) / 2


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _find_all(desk: Desk) -> DrawnQuestion:
    page = desk.blank()
    n = desk.rng.randint(1, 4)
    (shape, colour), *others = desk.draw(page, 1 + desk.count(1))
    kind = desk.rng.choice(("shape", "colour", "name"))
    colours, shapes = list_visible(page), PROGRAMS[page.program].shapes
    more = [
        (
            shape if kind != "colour" else desk.rng.choice(shapes),
            colour if kind != "shape" else desk.rng.choice(colours),
        )
        for _ in range(n - 1)
    ]
    page = desk.fill(page, [(shape, colour), *more, *others])
    boxes = measure_page(page)

    def fits(item: Item) -> bool:
        same = {"shape": item.shape == shape, "colour": item.colour == colour}
        return same[kind] if kind in same else all(same.values())

    many = _plural(shape)
    phrase = {"shape": many, "colour": f"{colour} shapes", "name": f"{colour} {many}"}[kind]
    found = sorted(
        (boxes[i] for i, item in enumerate(page.items) if fits(item)), key=lambda box: box[0] + box[2]
    )
    query = desk.rng.choice(ALL).format(phrase)
    return DrawnQuestion((page,), query, tuple((0, box) for box in found), True, {"kind": kind})


def _absent(desk: Desk) -> DrawnQuestion:
    """One thing by its name, there half of the time; something of its shape or colour always is."""
    page = desk.blank()
    (asked, *others) = desk.draw(page, 1 + desk.count(1))
    shape, colour = asked
    near = [
        (shape, desk.rng.choice([c for c in list_visible(page) if c != colour])),
        (desk.rng.choice([s for s in PROGRAMS[page.program].shapes if s != shape]), colour),
    ]
    there = desk.rng.random() < 0.5
    others = [pair for pair in [desk.rng.choice(near), *others[1:]] if pair != asked]
    page = desk.fill(page, [*([asked] if there else []), *others])
    targets = ((0, measure_page(page)[0]),) if there else ()
    query = desk.rng.choice(IF_ANY).format(f"{colour} {shape}")
    return DrawnQuestion((page,), _article(query), targets, True, {"there": there})


# ---- several pictures --------------------------------------------------------------------------------------------


def _diff(desk: Desk) -> DrawnQuestion:
    """One drawing twice; the second time with one more thing, one less, or one in another colour."""
    page = desk.blank()
    n = desk.count(2)
    after = desk.fill(page, desk.draw(page, n))
    kind = desk.rng.choice(("appears", "vanishes", "changes"))
    which = desk.rng.randrange(n)
    rest = tuple(item for i, item in enumerate(after.items) if i != which)
    if kind == "changes":
        colours = [c for c in list_visible(page) if c not in (after.items[which].colour, "black", "white")]
        other = replace(after.items[which], colour=desk.rng.choice(colours))
        before = replace(
            after, items=tuple(other if i == which else item for i, item in enumerate(after.items))
        )
    else:
        before = replace(after, items=rest)
    box = measure_page(after)[which]
    shots, where = ((after, before), 0) if kind == "vanishes" else ((before, after), 1)
    words = WORDS["diff"] + (WORDS["only"][:2] if kind == "appears" else ())
    return DrawnQuestion(shots, desk.rng.choice(words), ((where, box),), extra={"kind": kind})


def _reasoning(desk: Desk) -> DrawnQuestion:
    """What is new in the second picture, where all things lie elsewhere."""
    page, other = desk.blank(), desk.blank()
    other = replace(other, ground=page.ground, palette=page.palette)
    wanted = desk.draw(page, desk.count(2))
    first, second = desk.fill(page, wanted[1:]), desk.fill(other, wanted)
    query = desk.rng.choice(WORDS["only"])
    return DrawnQuestion((first, second), query, ((1, measure_page(second)[0]),), extra={"kind": "missing"})


def _common_object(desk: Desk) -> DrawnQuestion:
    """Two or three pictures; one thing is in all of them, and everything else in one."""
    n = desk.rng.choice((2, 3))
    blanks = [desk.blank() for _ in range(n)]
    seen = [set(list_visible(page)) for page in blanks]
    colours = sorted(set.intersection(*seen))
    if not colours:
        raise NoRoom
    common = (desk.rng.choice(PROGRAMS[desk.program].shapes), desk.rng.choice(colours))
    used: Wanted = [common]
    shots = []
    for page in blanks:
        others = desk.draw(page, desk.count(1), used)
        used += others
        shots.append(desk.fill(page, [common, *others]))
    where = desk.rng.randrange(n)
    query = desk.rng.choice(WORDS["common_object"]).format(n={2: "both", 3: "all three"}[n], k=where + 1)
    return DrawnQuestion(tuple(shots), query, ((where, measure_page(shots[where])[0]),))


def _group_grounding(desk: Desk) -> DrawnQuestion:
    blanks = [desk.blank(desk.rng.choice(list_programs())) for _ in range(3)]
    where = desk.rng.randrange(3)
    asked = desk.draw(blanks[where], 1)
    shots = []
    for i, page in enumerate(blanks):
        others = desk.draw(page, desk.count(1), asked)
        shots.append(desk.fill(page, [*asked, *others] if i == where else others))
    query = desk.rng.choice(WORDS["group_grounding"]).format(x=f"{asked[0][1]} {asked[0][0]}")
    return DrawnQuestion(tuple(shots), _article(query), ((where, measure_page(shots[where])[0]),))


def _refer_grounding(desk: Desk) -> DrawnQuestion:
    alone, page = desk.blank(), desk.blank(desk.rng.choice(list_programs()))
    both = sorted(set(list_visible(alone)) & set(list_visible(page)))
    shapes = [s for s in ALL_SHAPES if all(s in PROGRAMS[one.program].shapes for one in (alone, page))]
    if not both:
        raise NoRoom
    thing = (desk.rng.choice(shapes), desk.rng.choice(both))
    second = desk.fill(page, [thing, *desk.draw(page, desk.count(1), [thing])])
    first = desk.fill(alone, [thing])
    return DrawnQuestion(
        (first, second), desk.rng.choice(WORDS["refer_grounding"]), ((1, measure_page(second)[0]),)
    )


def _article(text: str) -> str:
    return text.replace(" a orange", " an orange")


def _plural(shape: str) -> str:
    return shape + ("es" if shape.endswith("s") else "s")


DRAWN_FAMILIES: dict[str, Callable[[Desk], DrawnQuestion]] = {
    "diff": _diff,
    "common_object": _common_object,
    "refer_grounding": _refer_grounding,
    "group_grounding": _group_grounding,
    "reasoning": _reasoning,
    "referring": _referring,
    "find_all": _find_all,
    "absent": _absent,
}
"""The families that the split has; the last two ask for sets."""
