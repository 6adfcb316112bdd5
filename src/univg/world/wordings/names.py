"""What people call things: other words for shapes, colours, patterns, sides and relations, where they mean the same.

Every name is exact: whoever hears it finds what the first word of its row means and nothing else of the world. Thoughts
and answers keep that first word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from univg.world.descriptions import Description
from univg.world.identity import Identity
from univg.world.scene import Thing

SHAPES: dict[str, tuple[str, ...]] = {
    "circle": ("disc",),
    "diamond": ("rhombus",),
    "star": ("five-pointed star",),
    "cross": ("plus sign",),
    "ring": ("hoop",),
    "heart": ("heart shape",),
    "mug": ("cup",),
    "mushroom": ("toadstool",),
    "pan": ("frying pan",),
    "car": ("vehicle",),
    "bucket": ("pail",),
    "lock": ("padlock",),
}
THING_WORDS = ("object", "thing", "shape", "item")
"""What anything is called whose shape is not said."""
COLOURS: dict[str, tuple[str, ...]] = {"purple": ("violet",), "cyan": ("turquoise",)}
PATTERNS: dict[str, tuple[str, ...]] = {"dotted": ("spotted",), "checked": ("checkered",)}
WITH_PATTERN: dict[str, tuple[str, ...]] = {
    "striped": ("with stripes",),
    "dotted": ("with dots", "with spots"),
    "checked": ("with a check pattern",),
    "plain": ("without a pattern",),
}
SIDES: dict[str, tuple[str, ...]] = {
    "left": ("left {}", "{} on the left", "left-hand {}", "{} on the left side", "{} further left"),
    "right": ("right {}", "{} on the right", "right-hand {}", "{} on the right side", "{} further right"),
    "upper": ("upper {}", "top {}", "higher {}", "{} higher up", "{} further up"),
    "lower": ("lower {}", "bottom {}", "{} lower down", "{} further down"),
}
"""Of two things of one name, that which stands more to this side."""
EXTREMES: dict[str, tuple[str, ...]] = {
    "leftmost": (
        "leftmost {}",
        "left-most {}",
        "{} furthest left",
        "{} farthest to the left",
        "first {} from the left",
    ),
    "rightmost": (
        *(
            "rightmost {}",
            "right-most {}",
            "{} furthest right",
            "{} farthest to the right",
            "first {} from the right",
        ),
    ),
    "topmost": ("topmost {}", "top-most {}", "uppermost {}", "highest {}", "{} highest up"),
    "lowest": ("lowest {}", "bottom-most {}", "{} lowest down", "{} furthest down"),
    "largest": ("largest {}", "biggest {}"),
    "smallest": ("smallest {}", "tiniest {}"),
}
RELATIONS: dict[str, tuple[str, ...]] = {
    "left of": ("to the left of", "on the left of", "further left than"),
    "right of": ("to the right of", "on the right of", "further right than"),
    "above": ("higher than", "higher up than", "further up than"),
    "below": ("lower than", "lower down than", "further down than"),
    "larger than": ("bigger than",),
    "smaller than": ("not as large as",),
}
USUAL = 0.6
"""How often a thing, side or relation is called by its first word."""


@dataclass(frozen=True, slots=True)
class Name:
    """What one is called, and several, both without an article."""

    one: str
    many: str


def name_things(rng: Random, described: Description) -> Name:
    """Draw a name for what is described, its relation included: 'red star with stripes', 'things left of the ring'."""
    word = _draw(rng, described.shape, SHAPES) if described.shape else _draw_first(rng, THING_WORDS)
    colour = _draw(rng, described.colour, COLOURS)
    before, behind = [colour] if colour else [], ""
    if described.pattern:
        pattern, form = _draw(rng, described.pattern, PATTERNS), rng.random()
        if form < USUAL:
            before.append(pattern)
        elif (
            form < 0.8 and described.pattern != "plain"
        ):  # "plain red star", but "red striped star" either way
            before.insert(0, pattern)
        else:
            behind = f" {rng.choice(WITH_PATTERN[described.pattern])}"
    elif colour and described.shape and rng.random() > 0.85:
        before, behind = [], f" {rng.choice(('in', 'that {be}'))} {colour}"
    if described.pattern == "plain":
        before.sort(key=lambda adjective: adjective != "plain")
    if described.relation and described.anchor:
        relation = _draw(rng, described.relation, RELATIONS)
        behind += f" {relation} the {name_things(rng, described.anchor).one}"
    many = word + ("es" if word.endswith("s") else "s")
    return Name(
        " ".join((*before, word)) + behind.replace("{be}", "is"),
        " ".join((*before, many)) + behind.replace("{be}", "are"),
    )


def name_one(rng: Random, target: Thing, things: Sequence[Thing]) -> str:
    """Draw a name, without an article, that fits `target` and no other of `things`: 'red star', 'ring', 'red thing'."""
    me = target.identity
    others = [thing.identity for thing in things if thing is not target]
    usual = Description.of(me)
    if any(usual.matches(other) for other in others):
        usual = Description(me.shape, me.colour, me.pattern)
    if rng.random() < USUAL:
        return name_things(rng, usual).one
    fitting = [one for one in _describe(me) if not any(one.matches(other) for other in others)]
    return name_things(rng, rng.choice(fitting or [usual])).one


def names_solid_or_ring(query: str) -> bool:
    """Tell whether a query names rings, or circles by a word that has them filled: drawn in lines they look alike."""
    return any(re.search(rf"\b{word}s?\b", query) for word in ("ring", *SHAPES["ring"], *SHAPES["circle"]))


def _describe(me: Identity) -> list[Description]:
    """List what a person may say of a thing. Black and white alone is not said: parts of other things are as dark."""
    pattern = None if me.pattern == "plain" else me.pattern
    listed = [Description(me.shape), Description(me.shape, me.colour)]
    if me.colour not in ("black", "white"):
        listed.append(Description(colour=me.colour))
    if pattern:
        listed += [Description(pattern=pattern), Description(me.shape, pattern=pattern)]
    return listed


def place(rng: Random, word: str, name: str) -> str:
    """Put a name to its side or extreme: 'left' and 'red star' make 'red star on the left'."""
    forms = SIDES.get(word) or EXTREMES[word]
    if re.search(r" (?:in|that|with|without) ", name):  # more behind a name would be hard to follow
        forms = tuple(form for form in forms if form.endswith("{}"))
    return _draw_first(rng, forms).format(name)


def _draw(rng: Random, word: str | None, others: dict[str, tuple[str, ...]]) -> str:
    return _draw_first(rng, (word, *others.get(word, ()))) if word else ""


def _draw_first(rng: Random, words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 or rng.random() < USUAL else rng.choice(words[1:])
