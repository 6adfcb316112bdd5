"""Coordinates by name: x1 and y1, corners told in a sentence, a range of x, a place with width and height.

Names are bound to the numbers behind them in one pass over the tokens. A box is complete when left, right, top and
bottom follow from what is bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from univg.grounding.lexing import Token
from univg.grounding.vocabulary import JOINERS

__all__ = ["Edges", "Named", "find_named", "take_layout"]

Edges = tuple[Decimal, Decimal, Decimal, Decimal]


class Named(NamedTuple):
    """A box whose coordinates are named: their values, the tokens they were made of, and where they stand."""

    edges: Edges
    tokens: tuple[Token, ...]
    start: int
    end: int
    of_place: bool
    """Whether it is told by x, y, width and height."""


class Naming(NamedTuple):
    """What names say about an answer: whole boxes, orders in which four numbers stand, and lone pairs of sides."""

    boxes: list[Named]
    layouts: list[tuple[int, tuple[str, ...]]]
    sizes: list[tuple[Decimal, Decimal]]
    unread: bool
    """Whether there is a box of which a name is missing."""


_CORNERS = {"topleft", "topright", "bottomleft", "bottomright", "center"}
_RANGE_SIGNS = {"..", "...", "-", "–", "—", "~", "<", "→"}
_IS = {"is", "for", "as", "was", "为", "是"}
_SIDES = {"left": "x", "right": "x", "top": "y", "bottom": "y"}
_PATIENCE = 8  # words in "the top-left corner of the big red cup on the table is at"


def find_named(tokens: Sequence[Token]) -> Naming:
    """Find every box told by names, each number used once."""
    binder = _Binder()
    for token in tokens:
        binder.take(token)
    binder.finish()
    return Naming(binder.boxes, binder.layouts, binder.sizes, binder.unread)


def value_of(token: Token) -> Decimal:
    """Return a number token's value; percent as the fraction it is."""
    value = Decimal(token.text)
    return value / 100 if token.mark == "%" else value


def take_layout(slots: Sequence[str], numbers: Sequence[Token]) -> Edges | None:
    """Return the edges of four numbers that stand in a stated order, such as x y w h; None if it makes no box."""
    bound = dict(zip(slots, numbers, strict=True))
    return _find_edges(bound) if len(bound) == 4 else None


class _Binder:
    """The names that wait for a number, and the numbers bound so far."""

    def __init__(self) -> None:
        self.boxes: list[Named] = []
        self.layouts: list[tuple[int, tuple[str, ...]]] = []
        self.sizes: list[tuple[Decimal, Decimal]] = []
        self.bound: dict[str, Token] = {}
        self.weak = self.unread = False
        self.owner: list[str] = []
        self.forget()
        self.gap: list[str] = []  # since the last number
        self.dirty = self.of_image = self.in_range = self.within = False
        self.last = ""  # the slot bound last, or "" if the last number has none
        self.loose: Token | None = None
        self.free: list[Token] = []  # the numbers of the bracket read last that have no name

    def forget(self) -> None:
        self.pending: list[tuple[str, bool]] = []
        self.corner = ""
        self.whose: list[str] = []
        self.of = False

    def take(self, token: Token) -> None:
        if token.kind == "number":
            self.take_number(token)
            self.gap.clear()
            return
        if len(self.gap) < 8:
            self.gap.append(token.text)
        if token.kind == "slot":
            self.take_slot(token)
        elif token.kind in ("thing", "noun"):
            self.take_thing(token)
        elif token.kind == "template":
            self.layouts.append((token.start, tuple(token.text.split())))
        elif token.kind == "open":
            self.free.clear()
            self.in_range = len(self.pending) == 1 and self.pending[0][0] in "xy"
        elif token.kind == "close" or token.kind == "end":
            self.in_range = False
            if token.text == "}" or token.kind == "end":
                self.emit()
        elif token.kind in ("key", "image", "loc"):
            self.keep_layout(token.start)
            self.forget()
            if self.bound.keys() <= {"w", "h"}:  # those of the image, before a box
                self.restart()
        elif token.text == ".":
            self.of_image = False
        elif token.text == "of":
            self.of = bool(self.corner)
        elif token.text in ("in", "within", "near", "inside"):
            self.within = True
            return
        if token.text not in ("the", "its", "a"):
            self.within = False

    def take_slot(self, token: Token) -> None:
        slot = token.text
        if self.of_image and slot in ("w", "h"):
            self.pending = [("", False)]
            return
        self.of_image = False
        if slot in _CORNERS:
            if self.within and slot != "center":  # a thing in that corner of the image, no corner of a box
                self.forget()
                return
            self.forget()
            if len(self.free) == 2 and not _IS.isdisjoint(self.gap):  # (1, 2) is the top-left corner
                x, y = self.free
                self.bind(f"{slot} x", x, token.firm)
                self.bind(f"{slot} y", y, token.firm)
                self.gap.clear()
                return
            self.corner = slot
            return
        if slot in "xy" and self.loose is not None and "<" in self.gap and slot not in self.bound:
            self.bind(slot, self.loose, token.firm)  # 100 < x < 300
            self.gap.clear()
            return
        before, was_firm = self.pending[-1] if self.pending else ("", False)
        if before == slot or (
            before in _SIDES and slot.rstrip("012") == _SIDES[before]
        ):  # left edge at x=100
            self.pending[-1] = (before, was_firm or token.firm)
        elif slot in _SIDES and before[:1] == _SIDES[slot]:  # x1 (left): 100
            self.pending[-1] = (slot, was_firm or token.firm)
        elif len(self.pending) < 4:
            self.pending.append((slot, token.firm))

    def take_thing(self, token: Token) -> None:
        self.keep_layout(token.start)
        self.pending = []
        self.of_image = token.kind == "noun" or (self.of_image and token.kind != "thing")
        if self.corner:
            self.whose.append(token.text)
            if len(self.whose) <= _PATIENCE and self.of:
                return
            self.corner = ""
        self.dirty = True

    def keep_layout(self, at: int) -> None:
        if len(self.pending) == 4:
            self.layouts.append((at, tuple(slot for slot, _ in self.pending)))

    def take_number(self, token: Token) -> None:
        self.loose = None
        self.keep_layout(token.start)
        if token.mark == "bad":
            self.forget()
            self.last = ""
        elif self.pending:
            slot, firm = self.pending.pop(0)
            if not slot:
                return
            if self.corner and slot in ("x", "y"):
                slot = f"{self.corner} {slot}"
                self.corner = self.corner if slot.endswith("x") else ""
            self.bind(slot, token, firm)
        elif self.corner:
            axis = "y" if f"{self.corner} x" == self.last else "x"
            slot = f"{self.corner} {axis}"
            self.corner = self.corner if axis == "x" else ""
            self.bind(slot, token, False)
        elif self.last in ("x", "y") and f"{self.last} end" not in self.bound and self.is_range():
            self.bind(f"{self.last} end", token, True)
        else:
            self.loose, self.last = token, ""
            self.free.append(token)
            return
        self.free.clear()

    def is_range(self) -> bool:
        joined = [text for text in self.gap if text not in ("(", "[", " ", "=", '"', "'")]
        if self.in_range and joined == [","]:
            return True
        signs = [text for text in joined if text in _RANGE_SIGNS or text in JOINERS]
        return bool(signs) and len(signs) == len(joined)

    def bind(self, slot: str, token: Token, firm: bool) -> None:
        if (self.dirty and (self.weak or not firm)) or (
            self.whose and self.owner and self.whose != self.owner
        ):
            self.emit()
            self.restart()
        if slot in self.bound:
            slot = self.find_second(slot)
        if not self.bound:
            self.weak = False
        self.weak = self.weak or not firm
        self.bound[slot] = token
        self.owner = self.whose or self.owner
        self.last, self.dirty = slot, False

    def find_second(self, slot: str) -> str:
        """Return the slot of a name that comes again: the end of a range or, in a new box, the same."""
        joined = any(text in JOINERS or text in _RANGE_SIGNS for text in self.gap)
        if slot in ("x", "y") and f"{slot} end" not in self.bound and (joined or self.last == "x end"):
            return f"{slot} end"
        self.emit()
        self.restart()
        return slot

    def restart(self) -> None:
        if {"w", "h"} == self.bound.keys():
            self.sizes.append((value_of(self.bound["w"]), value_of(self.bound["h"])))
        lone = bool(self.boxes) and any(name.split()[0] in _CORNERS - {"center"} for name in self.bound)
        self.unread = self.unread or lone or len(self.bound) > 2
        self.bound, self.weak, self.last, self.owner = {}, False, "", []

    def emit(self) -> None:
        """Yield the box that is bound, if it is one."""
        edges = _find_edges(self.bound)
        if edges is None:
            return
        used = tuple(self.bound.values())
        start, end = min(token.start for token in used), max(token.end for token in used)
        self.boxes.append(Named(edges, used, start, end, self.bound.keys() == {"x", "y", "w", "h"}))
        self.bound, self.weak, self.owner = {}, False, []

    def finish(self) -> None:
        self.emit()
        self.restart()
        if len(self.pending) == 4:
            self.layouts.append((0, tuple(slot for slot, _ in self.pending)))


def _find_edges(bound: dict[str, Token]) -> Edges | None:
    across = _find_extent(bound, "x", ("left", "right"), "w", "cx")
    down = _find_extent(bound, "y", ("top", "bottom"), "h", "cy") if across else None
    return (across[0], down[0], across[1], down[1]) if across and down else None


def _find_extent(
    bound: dict[str, Token], axis: str, sides: tuple[str, str], length: str, middle: str
) -> tuple[Decimal, Decimal] | None:
    """Return where a box begins and ends on one axis, if that follows from what is bound."""
    if bound.keys() & {"x3", "y3", "x4", "y4"}:  # four corners
        first = 0 if f"{axis}0" in bound else 1
        four = [f"{axis}{place}" for place in range(first, first + 4)]
        places = [value_of(bound[name]) for name in four if name in bound]
        return (min(places), max(places)) if len(places) == 4 else None
    numbered = (f"{axis}0", f"{axis}1") if f"{axis}0" in bound else (f"{axis}1", f"{axis}2")
    ends = []
    for at, side in enumerate(sides):
        own = [side, numbered[at], axis if at == 0 else f"{axis} end"]
        plain = [value_of(bound[name]) for name in own if name in bound]
        corners = [
            value_of(bound[name]) for name in bound if name.endswith(f" {axis}") and side in name.split()[0]
        ]
        ends.append(plain[:1] or ([min(corners) if at == 0 else max(corners)] if corners else []))
    (begin, end), size = ends, [value_of(bound[length])] if length in bound else []
    centre = [value_of(bound[name]) for name in (middle, f"center {axis}") if name in bound]
    if begin and end:
        return begin[0], end[0]
    if not size:
        return None
    if centre:
        return centre[0] - size[0] / 2, centre[0] + size[0] / 2
    if begin:
        return begin[0], begin[0] + size[0]
    return (end[0] - size[0], end[0]) if end else None
