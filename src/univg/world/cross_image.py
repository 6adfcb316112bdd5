"""MIG-Bench's families in which the answer must be thought of: reasoning across images, correspondence of parts."""

from __future__ import annotations

from dataclasses import replace

from univg.world.identity import Identity
from univg.world.multi_image import FIND
from univg.world.questions import Question, ask, family, shuffled
from univg.world.scene import Scene, Studio, Thing, Unplaceable, bounds, place_name
from univg.world.shapes import COMPOSITES, SHAPES, SIMPLE_SHAPES
from univg.world.telling import a, compared, name_all, shown

WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "reasoning, same": {
        "seen": ("Which object of Image-2 has the same {attribute} as the object in Image-1?" + FIND,),
        "unseen": (
            "Only one thing in Image-2 agrees in {attribute} with what Image-1 shows. Ground it." + FIND,
        ),
    },
    "reasoning, missing": {
        "seen": ("Which object in Image-2 is missing in Image-1?" + FIND,),
        "unseen": ("Something has joined the objects of Image-1. What is new in Image-2?" + FIND,),
    },
    "reasoning, partner": {
        "seen": ("Which object in Image-2 goes together with the object in Image-1?" + FIND,),
        "unseen": ("Image-1 shows one half of a pair. Which object in Image-2 completes it?" + FIND,),
    },
    "correspondence": {
        "seen": (
            "You are now presented with two objects. For the area marked by the red bounding box in the first image, "
            "identify and locate the corresponding area in the second image that serves a similar function or shares "
            "a similar meaning. ",
        ),
        "unseen": (
            "Which area of the second image does the same job as the one framed in the first image? ",
        ),
    },
}


@family("reasoning", images=(2, 2))
def reasoning(studio: Studio) -> Question:
    """The first image sets a condition, the second holds the one thing that meets it."""
    kind = studio.rng.choice(("same colour", "same shape", "same pattern", "missing", "partner"))
    compose = {"missing": _missing, "partner": _partner}.get(kind, _same)
    first, second, target, why = compose(studio, kind)
    second = shuffled(studio, second)
    box = second.box(target)
    seen = compared(second, first, places=False) if kind == "missing" else shown(second)
    thought = (
        f"The first image shows {name_all(first)}. {why} The second image shows {seen}. "
        f"That is the {target}, at the {place_name(box)}."
    )
    asked = kind if kind in ("missing", "partner") else "same"
    query = ask(studio, WORDINGS, f"reasoning, {asked}", attribute=kind.split()[-1])
    return Question((first, second), query, box, 1, thought, {"kind": kind})


Composed = tuple[Scene, Scene, Thing, str]


def _same(studio: Studio, kind: str) -> Composed:
    attribute = kind.split()[1]
    key = studio.identity(shapes=SIMPLE_SHAPES)
    if attribute == "pattern" and key.pattern == "plain":
        raise Unplaceable
    value = getattr(key, attribute)
    target_identity = replace(studio.identity([key], shapes=SIMPLE_SHAPES, target=True), **{attribute: value})
    if target_identity == key or target_identity.held_out != (studio.split == "unseen"):
        raise Unplaceable
    # The other attributes differ, so that the one asked for decides.
    free = {"colour", "shape"} - {attribute}
    if any(getattr(target_identity, f) == getattr(key, f) for f in free):
        raise Unplaceable
    others: list[Identity] = []
    for _ in range(studio.count(2) - 1):
        other = studio.identity([target_identity, *others], shapes=SIMPLE_SHAPES)
        if getattr(other, attribute) == value:
            raise Unplaceable
        others.append(other)
    first = Scene((Thing(key, 0.5, 0.5, studio.rng.uniform(0.22, 0.36)),), studio.background())
    second = studio.scene([target_identity, *others])
    wanted = f"another {value} object" if attribute != "shape" else f"another {value}"
    return first, second, second.things[0], f"I need {wanted}."


def _missing(studio: Studio, kind: str) -> Composed:
    target_identity = studio.identity(target=True)
    shared = studio.distractors(target_identity, max(1, studio.count(2, 3) - 1))
    first = studio.scene(shared)
    second = studio.scene([target_identity, *shared])
    return first, second, second.things[0], "I look for what is not there."


def _partner(studio: Studio, kind: str) -> Composed:
    """Things that belong together: what opens what, what waters what…"""
    clue, partner, why = studio.rng.choice(
        (
            ("lock", "key", "A lock is opened with a key."),
            ("key", "lock", "A key opens a lock."),
            ("tree", "bucket", "A tree is watered with a bucket."),
            ("umbrella", "mushroom", "Rain, which an umbrella is for, makes mushrooms grow."),
            ("mug", "table", "A mug is set down on a table."),
            ("house", "key", "The door of a house is opened with a key."),
        )
    )
    key = studio.identity(shapes=[clue])
    target_identity = studio.identity(shapes=[partner], target=True)
    pool = [s for s in COMPOSITES if s != partner]
    others: list[Identity] = []
    for _ in range(studio.count(2) - 1):
        others.append(
            studio.identity([target_identity, *others], shapes=pool if studio.chance(0.6) else SIMPLE_SHAPES)
        )
    first = Scene((Thing(key, 0.5, 0.5, studio.rng.uniform(0.24, 0.36)),), studio.background())
    second = studio.scene([target_identity, *others])
    return first, second, second.things[0], why


JOBS = {
    "cover": ("covers it from above", "cover it from above"),
    "support": ("carries it from below", "carry it from below"),
    "handle": ("is where a hand holds it", "are where a hand holds it"),
    "container": ("holds what is put in", "hold what is put in"),
}
"""Of one part and of several (wheels)."""


@family("correspondence", images=(2, 2))
def correspondence(studio: Studio) -> Question:
    """Two composites of different kinds; the part that does the marked part's job is found on the second."""
    role = studio.rng.choice(tuple(JOBS))
    kinds = [shape for shape in COMPOSITES if any(part.role == role for part in SHAPES[shape])]
    one = studio.identity(shapes=kinds)
    two = studio.identity(shapes=[k for k in kinds if k != one.shape], target=True)
    scenes = []
    for identity in (one, two):
        extent = studio.rng.uniform(0.26, 0.4)
        angle = studio.rng.uniform(-0.4, 0.4) * studio.difficulty
        thing = Thing(identity, 0.5, 0.5, extent, angle)
        x1, y1, x2, y2 = bounds(Scene((thing,), studio.background()).outlines(thing))
        if x2 - x1 > 0.92 or y2 - y1 > 0.92:
            raise Unplaceable
        thing = replace(
            thing,
            x=round(studio.rng.uniform(0.54 - x1, 0.46 + 1 - x2), 4),
            y=round(studio.rng.uniform(0.54 - y1, 0.46 + 1 - y2), 4),
        )
        scenes.append(Scene((thing,), studio.background()))
    parts = [next(p for p in SHAPES[i.shape] if p.role == role) for i in (one, two)]
    start = scenes[0].box(scenes[0].things[0], parts[0].name)
    box = scenes[1].box(scenes[1].things[0], parts[1].name)
    jobs = [JOBS[role][part.name.endswith("s")] for part in parts]
    thought = (
        f"The red box in the first image marks the {parts[0].name} of the {one.shape}, which {jobs[0]}. "
        f"The second image shows {a(two)}. Its {parts[1].name} {jobs[1]}, at the {place_name(box)}."
    )
    shots = (scenes[0].marked(start), scenes[1])
    return Question(shots, ask(studio, WORDINGS, "correspondence"), box, 1, thought, {"role": role})
