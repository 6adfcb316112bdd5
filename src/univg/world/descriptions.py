"""Say which things are asked for, when several may be: by kind, by attribute, or by how they stand to another thing.

A description is decided by the scene's own geometry. Where that leaves doubt (a thing hardly farther left, hardly
larger), the scene is not used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from univg.grounding.boxes import Box
from univg.world.identity import Identity
from univg.world.scene import Scene, Thing, Unplaceable

RelationWord: TypeAlias = Literal["left of", "right of", "above", "below", "larger than", "smaller than"]
RELATIONS: tuple[RelationWord, ...] = ("left of", "right of", "above", "below", "larger than", "smaller than")
CLEARLY_APART = 0.08
"""Of the image's side, between two middles; closer ones are neither left nor right of each other."""
CLEARLY_LARGER = (1.1, 1.25)
"""The longer side and the area of the box, as multiples of the other's: both, or it is not larger."""


@dataclass(frozen=True, slots=True)
class Description:
    """What fits: things of this shape, colour and pattern, each open where None, and in this relation to the one thing
    of the same image that fits `anchor`. In an image without such a thing, nothing fits."""

    shape: str | None = None
    colour: str | None = None
    pattern: str | None = None
    relation: RelationWord | None = None
    anchor: Description | None = None

    @classmethod
    def of(cls, identity: Identity) -> Description:
        """Describe an identity: the pattern is left open where it is plain, so that a "red star" may be striped."""
        pattern = None if identity.pattern == "plain" else identity.pattern
        return cls(identity.shape, identity.colour, pattern)

    def __str__(self) -> str:
        """Name one such thing: 'red striped star', 'dotted object', 'circle left of the blue key'."""
        words = (*(word for word in (self.colour, self.pattern) if word), self.shape or "object")
        beside = f" {self.relation} the {self.anchor}" if self.relation else ""
        return " ".join(words) + beside

    @property
    def plural(self) -> str:
        word = self.shape or "object"
        many = replace(self, shape=word + ("es" if word.endswith("s") else "s"))
        return str(many)

    @property
    def kind(self) -> str:
        """What it goes by: "relation", "attribute" (a colour, a pattern) or "kind" (a shape, and maybe more)."""
        return "relation" if self.relation else "kind" if self.shape else "attribute"

    @property
    def is_held_out(self) -> bool:
        """Whether it names one of the pairs of colour and shape that only the `unseen` split may ask for."""
        return bool(self.shape and self.colour and Identity(self.shape, self.colour).held_out)

    def matches(self, identity: Identity) -> bool:
        """Tell whether an identity fits, its place aside."""
        return (
            self.shape in (None, identity.shape)
            and self.colour in (None, identity.colour)
            and self.pattern in (None, identity.pattern)
        )

    def put_on(self, identity: Identity) -> Identity:
        """Return the identity with what is described in place of its own."""
        return Identity(
            self.shape or identity.shape, self.colour or identity.colour, self.pattern or identity.pattern
        )

    def find_anchor(self, scene: Scene) -> Thing | None:
        """Return what the relation is to, None if the scene has no such thing. Raises Unplaceable for several."""
        assert self.anchor is not None
        found = [thing for thing in scene.things if self.anchor.matches(thing.identity)]
        if len(found) > 1:
            raise Unplaceable
        return found[0] if found else None

    def find(self, scene: Scene) -> list[Thing]:
        """Return the things of a scene that fit, from left to right. Raises Unplaceable if that is not clear."""
        matching = [thing for thing in sort_across(scene) if self.matches(thing.identity)]
        if self.relation is None:
            return matching
        anchor = self.find_anchor(scene)
        if anchor is None:
            return []
        return [t for t in matching if t is not anchor and stands(self.relation, t, anchor, scene)]


def sort_across(scene: Scene) -> list[Thing]:
    """Return the things of a scene from left to right, by their middles."""
    return sorted(scene.things, key=lambda thing: sum(scene.box(thing)[::2]))


def stands(word: RelationWord, thing: Thing, anchor: Thing, scene: Scene) -> bool:
    """Tell whether a thing stands so to the anchor. Raises Unplaceable where neither this nor its opposite is clear."""
    one, other = scene.box(thing), scene.box(anchor)
    if word in ("larger than", "smaller than"):
        larger = _is_clearly_larger(one, other, scene.aspect)
        if larger == _is_clearly_larger(other, one, scene.aspect):
            raise Unplaceable
        return larger == (word == "larger than")
    axis = 0 if word in ("left of", "right of") else 1
    gap = (one[axis] + one[axis + 2] - other[axis] - other[axis + 2]) / 2
    if abs(gap) < CLEARLY_APART:
        raise Unplaceable
    return (gap < 0) == (word in ("left of", "above"))


def _is_clearly_larger(one: Box, other: Box, aspect: float) -> bool:
    (side, area), (least_side, least_area) = _measure(one, aspect), _measure(other, aspect)
    return side >= CLEARLY_LARGER[0] * least_side and area >= CLEARLY_LARGER[1] * least_area


def _measure(box: Box, aspect: float) -> tuple[float, float]:
    """Return the longer side and the area as they look: a unit across is `aspect` units down."""
    width, height = (box[2] - box[0]) * aspect, box[3] - box[1]
    return max(width, height), width * height
