"""The boxes of an answer in every notation that models write, found in one pass over its tokens.

What a name says goes before what a position says: four numbers under ``bbox_2d`` before other brackets, ``box_2d`` with
y first, x1 and y1 in any order. Then brackets are believed, and only without any of those a bare run of four numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

from univg.grounding.lexing import Lexed, Token, lex, straighten
from univg.grounding.naming import Edges, find_named
from univg.grounding.shapes import (
    BOX_KEYS,
    Bracket,
    Choice,
    ImageNumber,
    Point,
    Shape,
    Written,
    are_fractions,
    are_two_boxes,
    goes_round,
    is_rectangle,
    measure,
    write,
)

__all__ = ["Answer", "find_written"]


class Answer(NamedTuple):
    """What stands in an answer: its boxes, whether one was broken off, its text without labels and the like, and
    whether beside its boxes stands one that cannot be read."""

    boxes: list[Written]
    broken_off: bool
    text: str
    unread: bool = False


def find_written(text: str, cut: bool = False) -> Answer:
    """Find the boxes of an answer. A number that reaches the end of a bracket never closed, or with ``cut`` (it was
    broken off) of the answer, may lack digits and is not believed."""
    text = straighten(text)
    lexed = lex(text)
    if not any(token.kind in ("number", "loc") for token in lexed.tokens):
        return Answer([], False, lexed.text)
    walk = _Walk(lexed, cut)
    last = lexed.tokens[-1]
    lacking = last.kind == "number" and (walk.broken_off or (cut and last.end == len(text)))
    naming = find_named(lexed.tokens[:-1] if lacking else lexed.tokens)
    choice = Choice(walk.shapes, walk.bare, walk.failed, naming, walk.owners, walk.tops)
    boxes = choice.make()
    unread = walk.unread or naming.unread or (walk.odd and not choice.keyed)
    return Answer(boxes, walk.broken_off, lexed.text, unread and bool(boxes))


_BRIDGES = {"filler", "dash", "joiner", "separator", "template"}
_LIST_SIGNS = {",", ";", "\n", "_", '"', "'", "\\", "|", "*", "`"}
_PAIR = ["n", ",", "n"]
_Y_NAMES = {"y", "y0", "y1", "y2", "top", "bottom", "cy"}


class _Walk:
    """One walk over the tokens, with the brackets that are open."""

    def __init__(self, lexed: Lexed, cut: bool) -> None:
        self.end_of_text, self.cut = len(lexed.text), cut
        self.shapes: list[Shape] = []
        self.bare: list[Shape] = []
        self.failed = self.broken_off = self.finishing = False
        self.unread = self.odd = False  # a box under a key, or a list beside boxes, that is none
        self.here = Bracket()
        self.after_name = False
        self.token: Token | None = None
        self.before = ""  # the kind of the token read last, and how many things its line names before
        self.words = 0
        self.locs: list[Token] = []
        self.owners: dict[int, Bracket] = {}
        self.tops: list[tuple[int, ImageNumber]] = []  # numbers of images outside all brackets
        for token in lexed.tokens:
            self.take(token)
        self.finish()

    def take(self, token: Token) -> None:
        here, kind = self.here, token.kind
        self.token = token
        if kind == "loc":
            self.locs.append(token)
            return
        self.end_locs()
        if token.kind in ("end", "open", "close") or token.text == "\n":
            self.words = 0
        elif kind in ("thing", "noun"):
            self.words += 1
        if kind == "number":
            self.owners[token.start] = here
            self.end_points()
            if not here.numbers:
                few = self.words < 2 and self.before != "noun"
                here.led = 0 if self.before not in ("thing", "noun") else 1 if few else 2
            here.numbers.append(token)
            here.signs.append("n")
        elif kind == "open":
            self.end_numbers()
            self.here = Bracket(token.text, token.start, here, here.force)
        elif kind == "close":
            if here.parent is not None:
                self.close(here, here.parent, token.end)
        elif kind == "slot":
            if here.sign:
                here.names.append(token.text)
            else:
                self.end_numbers()
            if token.text in ("left", "top", "center"):
                self.end_points()
        elif kind in _BRIDGES:
            if token.text in _LIST_SIGNS:
                here.signs += [token.text] if here.numbers else []
            elif kind in ("dash", "joiner") and here.signs == _PAIR:
                here.signs.append("to")
            elif here.numbers and not self.after_name:
                self.end_numbers()
        else:
            self.take_other(token)
        if token.text not in ('"', "'", "*", "`"):
            self.before = kind
        self.after_name = kind == "slot" or (self.after_name and kind in _BRIDGES)

    def take_other(self, token: Token) -> None:
        here = self.here
        self.end_run()
        here.mixed = True
        if token.kind == "key":
            here.key = (token.text, token.start)
        elif token.kind in ("thing", "end", "noun"):
            here.key = ("", 0)
        elif token.kind == "image":
            number = ImageNumber(int(token.text), token.mark)
            if here.sign == "{":
                here.image = number if here.image is None else here.image.join(number)
            elif here.sign:
                here.image = number
            else:
                self.tops.append((token.start, number))

    def close(self, here: Bracket, parent: Bracket, end: int) -> None:
        """End a bracket: it was a point, a box, a list of something, or nothing of the kind."""
        if here.names and not (here.numbers or here.points or here.mixed):
            self.here = parent  # nothing but names, (x2, y2): it may stand between two corners
            return
        if here.numbers and not here.mixed and len(here.numbers) == 2 and len(here.names) in (0, 2):
            x, y = (
                here.numbers if here.names[:1] == [] or here.names[0] not in _Y_NAMES else here.numbers[::-1]
            )
            self.here = parent
            self.end_numbers()
            parent.points.append(Point(x, y, here.start, end))
            return
        if here.numbers and not here.mixed:
            self.close_numbers(here, end)
        elif here.points and not here.mixed:
            self.add_points(here, whole=True)
        elif not (here.mixed or here.names) and here.force[0] in BOX_KEYS:
            self.failed = True  # "bbox_2d": [] says that there is none
        self.end_run()
        self.here = parent
        self.end_run()
        parent.mixed = True

    def close_numbers(self, here: Bracket, end: int) -> None:
        numbers, signs = here.numbers, here.signs
        here.numbers, here.signs = [], []
        key = here.force[0]
        parts = _split(numbers, signs, ";")
        if here.names:
            return  # left to their names
        if len(parts) > 1 and all(len(part) == 4 for part in parts):
            for part in parts:
                self.add_flat(part, part[0].start, part[-1].end, self.shapes)
        elif len(numbers) == 4:
            self.add_flat(numbers, here.start, end, self.shapes)
        elif len(numbers) % 2 == 0 and (len(numbers) == 8 or (key == "polygon" and len(numbers) > 4)):
            self.add_outline(numbers)
        elif key in BOX_KEYS:
            self.failed = self.unread = True
        elif (
            key in ("", "other")
            and len(numbers) > 2
            and "[" in (here.sign, here.parent.sign if here.parent else "")
        ):
            self.odd = True

    def end_run(self) -> None:
        self.end_numbers()
        self.end_points()

    def end_points(self) -> None:
        if self.here.points:
            self.here.mixed = True
            self.add_points(self.here, whole=False)

    def end_numbers(self) -> None:
        """End a run of numbers that fills no bracket by itself: bare, four of them are a box."""
        here = self.here
        if not here.numbers:
            return
        numbers, signs = here.numbers, here.signs
        here.numbers, here.signs = [], []
        here.mixed = True
        if "to" in signs and (signs[:4] != [*_PAIR, "to"] or len(numbers) != 4):
            return
        lines = [numbers] if len(numbers) == 4 else [part for part in _split(numbers, signs, ";\n") if part]
        keyed = here.force[0] in BOX_KEYS and here.key[0] in BOX_KEYS
        if self.cut and numbers[-1].end == self.end_of_text:
            return
        if keyed and len(numbers) > 4 and (len(numbers) == 8 or here.force[0] == "polygon"):
            self.add_outline(numbers)
            return
        alone = here.led == 0 or (here.led == 1 and (self.finishing or signs[-1] == "\n"))
        if not (keyed or here.sign or alone):
            return
        if not all(len(line) == 4 for line in lines):
            rows = any(len(line) == 4 for line in lines)
            listed = here.sign in ("[", "(") and here.force[0] in BOX_KEYS and not here.names
            self.unread = self.unread or rows or listed or (keyed and len(numbers) > 2)
            return
        for line in lines:
            self.add_flat(line, line[0].start, line[-1].end, self.shapes if keyed else self.bare)

    def finish(self) -> None:
        self.finishing = True
        self.end_locs()
        while self.here.parent is not None:
            if self.here.numbers:
                self.broken_off = True
                self.failed = self.failed or self.here.force[0] in BOX_KEYS
                self.here.numbers.clear()
            self.end_run()
            self.here = self.here.parent
        self.end_run()

    # --- shapes ---

    def add(self, written: Written | None, into: list[Shape], numbers: Sequence[Token] = ()) -> None:
        here = self.here
        key, key_at = here.force
        if written is not None:
            own = here.image if here.sign != "{" else None
            into.append(Shape(written, key, key_at, here, own, tuple(numbers)))
        elif key in BOX_KEYS:
            self.failed = self.unread = True

    def add_flat(self, numbers: Sequence[Token], start: int, end: int, into: list[Shape]) -> None:
        a, b, c, d = numbers
        if self.here.force[0] == "box_2d":  # Gemini's: y first, 0-1000 whatever the model's own frame
            per = 1 if are_fractions([token.text for token in numbers]) else 1000
            self.add(write((b, a, d, c), start, end, per), into, numbers)
        else:
            self.add(write((a, b, c, d), start, end), into, numbers)

    def add_points(self, here: Bracket, whole: bool) -> None:
        """Add the boxes of a run of points: pairs of corners, or the four corners of one box."""
        points, here.points = here.points, []
        key = here.force[0]
        if len(points) == 5 and (points[0].x.text, points[0].y.text) == (points[4].x.text, points[4].y.text):
            points.pop()  # an outline that is closed
        if len(points) < 2:
            ended = whole or self.finishing or (self.token is not None and self.token.kind == "end")
            self.unread = self.unread or (key in BOX_KEYS and ended)
            return
        fours = [points[at : at + 4] for at in range(0, len(points), 4)]
        if key == "polygon" and len(points) > 2:
            self.add_polygon(points, whole=True)
        elif len(fours) > 1 and all(is_rectangle(four) for four in fours):
            for four in fours:
                self.add_polygon(four, whole=True)
        elif len(points) == 4 and (
            whole or is_rectangle(points) or (goes_round(points) and not are_two_boxes(points))
        ):
            self.add_polygon(points, whole)
        elif len(points) % 2 and not (self.finishing and (self.cut or self.broken_off)):
            self.add_pair(points[0], points[1], several_ways=True)
        else:
            for one, other in zip(points[0::2], points[1::2], strict=False):
                self.add_pair(one, other, several_ways=key == "box_2d" or (whole and len(points) > 4))

    def add_pair(self, one: Point, other: Point, several_ways: bool) -> None:
        numbers = (one.x, one.y, other.x, other.y)
        self.add(write(numbers, one.start, other.end, several_ways=several_ways), self.shapes, numbers)

    def add_polygon(self, points: list[Point], whole: bool) -> None:
        """Add the extent of four corners, or of an outline that a key names."""
        sure = self.here.force[0] == "polygon" or is_rectangle(points) or (whole and goes_round(points))
        written = measure(points, several_ways=not sure)
        self.add(written, self.shapes, [number for point in points for number in (point.x, point.y)])

    def add_outline(self, numbers: Sequence[Token]) -> None:
        """Add the extent of the points that a run of numbers makes."""
        pairs = zip(numbers[0::2], numbers[1::2], strict=False)
        points = [Point(x, y, x.start, y.end) for x, y in pairs]
        if len(numbers) % 2:
            self.unread = True
        else:
            self.add_polygon(points, whole=self.here.force[0] in BOX_KEYS)

    def end_locs(self) -> None:
        """Add the boxes of location tokens: <loc0123> is PaliGemma's (y first, 1024 steps), <loc_12> is Florence's,
        <patch_index_0123> Kosmos-2's (two cells of 32 by 32)."""
        locs, self.locs = self.locs, []
        if not locs:
            return
        here, key = self.here, self.here.key
        here.key = ("box", locs[0].start)
        numbers = [Token("number", token.start, token.end, token.text) for token in locs]
        step = 2 if locs[0].mark else 4
        fours = [numbers[at : at + step] for at in range(0, len(numbers) - len(numbers) % step, step)]
        if len(numbers) % step:
            self.broken_off = self.broken_off or (self.finishing and self.cut)
            self.failed = self.unread = True
        points = [Point(x, y, x.start, y.end) for x, y in zip(numbers[0::2], numbers[1::2], strict=False)]
        if len(locs) == 8 and len(locs[0].text) < 4 and not locs[0].mark and not are_two_boxes(points):
            self.add_polygon(points, whole=True)
            fours = []
        for four in fours:
            start, end = four[0].start, four[-1].end
            if step == 2:
                self.add(write(four, start, end, edges=_find_cells(*four)), self.shapes)
            elif all(len(number.text) == 4 for number in four):
                y1, x1, y2, x2 = four
                self.add(write((x1, y1, x2, y2), start, end, per=1024), self.shapes)
            else:
                self.add(write(four, start, end, per=1000), self.shapes)
        here.key = key


def _find_cells(one: Token, other: Token) -> Edges:
    """Return the box between the middles of two cells of 32 by 32, or around them where they stand in one line."""
    (y1, x1), (y2, x2) = (divmod(int(token.text), 32) for token in (one, other))
    half = Decimal(0 if x1 == x2 or y1 == y2 else "0.5")
    return (x1 + half) / 32, (y1 + half) / 32, (x2 + 1 - half) / 32, (y2 + 1 - half) / 32


def _split(numbers: Sequence[Token], signs: Sequence[str], at: str) -> list[list[Token]]:
    """Divide a run where one of the signs ``at`` stands between two of its numbers."""
    parts: list[list[Token]] = [[]]
    rest: Iterator[Token] = iter(numbers)
    for sign in signs:
        if sign == "n":
            parts[-1].append(next(rest))
        elif sign in at and parts[-1]:
            parts.append([])
    return parts
