"""How thoughts name what pictures show, from left to right, and how they compare pictures.

What is new is named last, after what is there again: a model that writes knows what it has named and what is left, and
finds in two finished lists what only one of them has much less surely.
"""

from __future__ import annotations

from collections.abc import Sequence

from univg.world.descriptions import sort_across
from univg.world.scene import Scene, Thing, place_name

THOUGHTS_VERSION = 2
"""Of all thoughts of the world; 2 names what is new last. What was trained on others is not mixed with these."""


def a(name: object) -> str:
    """Put the article before a name: 'an orange star'."""
    text = str(name)
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def listing(names: Sequence[str]) -> str:
    """Join names: 'one, another and a third'."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def capital(text: str) -> str:
    """Begin a text with a capital letter."""
    return text[0].upper() + text[1:]


def shown(scene: Scene) -> str:
    """Say where things are, from left to right: 'a red circle at the upper left, a blue star at the right'."""
    return ", ".join(_place(scene, thing) for thing in sort_across(scene))


def name_all(scene: Scene) -> str:
    """Name all things from left to right: 'a red circle, a blue star and a green key'."""
    return listing([a(thing) for thing in sort_across(scene)])


def compared(scene: Scene, before: Scene, places: bool = True) -> str:
    """Name what a scene shows again, in the order in which the scene before was named, and then what it shows besides:
    'again a red circle at the left, and besides a blue star at the right'. Without `places`, what is there again has
    none."""
    known = {thing.identity: thing for thing in scene.things}
    kept = [known[old.identity] for old in sort_across(before) if old.identity in known]
    told = set_apart(scene, kept, places)
    return f"again {told}" if kept else told


def set_apart(scene: Scene, kept: Sequence[Thing], places: bool = True) -> str:
    """Name some of a scene's things and last the others: 'a red circle at the left, and besides a blue star at the
    right', or 'something else: a blue star at the right' where all are others. Without `places`, the first have
    none."""
    first = ", ".join(_place(scene, thing) if places else a(thing) for thing in kept)
    others = ", ".join(_place(scene, thing) for thing in sort_across(scene) if thing not in kept) or "nothing"
    return f"{first}, and besides {others}" if first else f"something else: {others}"


def _place(scene: Scene, thing: Thing) -> str:
    return f"{a(thing)} at the {place_name(scene.box(thing))}"
