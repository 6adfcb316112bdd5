"""How thoughts name what pictures show: thing by thing from left to right, each judged where it is named.

A small model reads pictures well and compares two lists badly, so a thought writes down what it finds as it goes ("a
blue star at the right: new"), and its conclusion repeats what is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from univg.world.descriptions import sort_across
from univg.world.scene import Scene, Thing, place_name


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


def shown(scene: Scene, notes: Mapping[Thing, str] | None = None) -> str:
    """Say where things are, from left to right: 'a red circle at the upper left, a blue star at the right'.

    `notes` are said of some as they are named, 'a red circle at the left; a blue star at the right: new', so that a
    thought judges each thing where it is seen, and concludes from what it has written and not from two lists at once.
    """
    names = [f"{a(t)} at the {place_name(scene.box(t))}" for t in sort_across(scene)]
    return ", ".join(names) if notes is None else _note(names, scene, notes)


def name_all(scene: Scene, notes: Mapping[Thing, str] | None = None) -> str:
    """Name all things from left to right: 'a red circle, a blue star and a green key'; with notes as `shown` does."""
    names = [a(t) for t in sort_across(scene)]
    return listing(names) if notes is None else _note(names, scene, notes)


def _note(names: Sequence[str], scene: Scene, notes: Mapping[Thing, str]) -> str:
    noted = (f": {notes[t]}" if t in notes else "" for t in sort_across(scene))
    return "; ".join(map("".join, zip(names, noted, strict=True)))


def note_new(scene: Scene, before: Scene) -> dict[Thing, str]:
    """Return a note of each thing of a scene whose like is not in the scene before."""
    known = {t.identity for t in before.things}
    return {t: "new" for t in scene.things if t.identity not in known}


def note_kept(shots: Sequence[Scene]) -> dict[Thing, str] | None:
    """Return a note of each thing of the last scene that all scenes before it show; none for the first scene."""
    if len(shots) == 1:
        return None
    kept = set.intersection(*({t.identity for t in shot.things} for shot in shots))
    return {t: "again" for t in shots[-1].things if t.identity in kept}
