"""Families beside MIG-Bench: single-image referring, implicit reasoning, and video with the third frame asked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import product

from univg.grounding.boxes import Box
from univg.grounding.prompts import ZERO_SHOT_IMAGE, ZERO_SHOT_VIDEO
from univg.world.descriptions import RELATIONS, Description, sort_across
from univg.world.identity import Identity
from univg.world.questions import Question, ask, family, refer, shuffled
from univg.world.scene import Scene, Studio, Thing, Unplaceable, bounds, overlap, place_name
from univg.world.shapes import COMPOSITES, SIMPLE_SHAPES
from univg.world.telling import a, capital, set_apart, shown
from univg.world.wordings.choosing import FILM, ODD_ONE, Wordings, choose_phrase
from univg.world.wordings.names import name_one, name_things, place
from univg.world.wordings.single import MORE_USES

WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "referring": {
        "seen": (
            "Locate the {one}.",
            "Find the {one}.",
            "Where is the {one}?",
            "Give the bounding box of the {one}.",
            "The {one}.",
        ),
        "unseen": (
            "Can you point out the {one} for me?",
            "I am looking for the {one}; box it.",
            "Mark the spot with the {one}.",
        ),
    },
    "implicit": {"seen": (ZERO_SHOT_IMAGE,), "unseen": (ZERO_SHOT_IMAGE,)},
    "video": {"seen": (ZERO_SHOT_VIDEO,), "unseen": (ZERO_SHOT_VIDEO,)},
}

# What a thing is for: (as training asks, as only the unseen split asks). The second version has `MORE_USES` too.
USES: dict[str, tuple[tuple[str, ...], str]] = {
    "house": (("a place where a family could live", "what keeps a whole family warm in winter"), "someone's home"),
    "tree": (("what has a trunk and grows leaves", "something birds build their nests in"), "a living plant with bark"),
    "mug": (("something to drink hot tea from", "what you would pour coffee into"), "what holds a morning drink"),
    "mushroom": (("what grows on the forest floor after rain", "a fungus with a cap"), "what a forager picks"),
    "umbrella": (("what keeps you dry in the rain", "something to open when it rains"), "a roof for a wet walk"),
    "pan": (("what you would fry an egg in", "a tool to cook pancakes with"), "what sizzles on the stove"),
    "lamp": (("what gives light at night", "something to switch on when it is dark"), "help for reading late"),
    "car": (("what could drive you to work", "a vehicle with wheels"), "what needs a driver and a road"),
    "table": (("where you would set down the dinner plates", "furniture to eat at"), "what stands between chairs"),
    "bucket": (("what carries water to the garden", "something to mop the floor with water from"), "a pail"),
    "key": (("what opens a locked door", "something that turns in a keyhole"), "what you need when locked out"),
    "lock": (("what keeps a gate shut against thieves", "something that only a key opens"), "what secures a bicycle"),
}  # fmt: skip


@family("referring", images=(1, 1), in_mig_bench=False)
def referring(studio: Studio) -> Question:
    """One image, one description: by attributes, by place among twins, by an extreme, or (from the second version on)
    by how it stands to another thing."""
    kinds = {"attributes": 6, "twins": 2, "extreme": 2, "relation": 2 if studio.version > 1 else 0}
    kind = studio.rng.choices(tuple(kinds), tuple(kinds.values()))[0]
    target_identity = studio.identity(target=True)
    n = studio.count()
    if kind == "twins":
        others = studio.distractors(target_identity, max(0, n - 2))
        scene = studio.scene([target_identity, target_identity, *others])
        target, phrase, why, named = _tell_twins(studio, scene)
    else:
        scene = studio.scene([target_identity, *studio.distractors(target_identity, n - 1)])
        target = scene.things[0]
        phrase = refer(target, scene.things)
        why = f"Only one of them is {a(phrase)}."
        named = name_one(studio.words, target, scene.things)
        if kind == "extreme":
            phrase, why, named = _extreme(studio, scene, target)
        elif kind == "relation":
            phrase, why, named = _relate(studio, scene, target)
    scene = shuffled(studio, scene)
    query = ask(studio, WORDINGS, "referring", one=named if studio.version > 1 else phrase)
    box = scene.box(target)
    thought = studio.rng.choice(
        (
            f"The image shows {shown(scene)}. {why} The {phrase} is at the {place_name(box)}.",
            f"I look for the {phrase}. I see {shown(scene)}. {why} It is at the {place_name(box)}.",
        )
    )
    return Question((scene,), query, box, 0, thought, {"kind": kind})


def _tell_twins(studio: Studio, scene: Scene) -> tuple[Thing, str, str, str]:
    """Return which of the pair is asked for, its phrase, why it fits, and a name for it."""
    one, two = (scene.box(t) for t in scene.things[:2])
    axis = studio.rng.randrange(2)
    gap = (one[axis] + one[axis + 2]) / 2 - (two[axis] + two[axis + 2]) / 2
    if abs(gap) < 0.18:
        raise Unplaceable
    if studio.version > 1 and (one[axis] < two[axis]) != (one[axis + 2] < two[axis + 2]):
        raise Unplaceable  # the larger of the two is on both sides of the other
    me = scene.things[0].identity
    # Nothing but the pair may carry the name that the phrase uses.
    if any((t.identity.shape, t.identity.colour) == (me.shape, me.colour) for t in scene.things[2:]):
        raise Unplaceable
    name = str(me)
    side = studio.rng.randrange(2)
    words = (("left", "right"), ("upper", "lower"))[axis]
    target = scene.things[0] if (gap < 0) == (side == 0) else scene.things[1]
    why = f"There are two, and the {words[side]} one is asked for."
    named = place(studio.words, words[side], name_things(studio.words, Description.of(me)).one)
    return target, f"{words[side]} {name}", why, named


def _relate(studio: Studio, scene: Scene, target: Thing) -> tuple[str, str, str]:
    """Return the phrase for a target by how it alone stands to another thing, why it fits, and a name for it."""
    me, found = target.identity, []
    for anchor in (thing for thing in scene.things if thing is not target):
        one = Description.of(anchor.identity)
        for named, shape, relation in product((one, Description(one.shape)), (me.shape, None), RELATIONS):
            described = Description(shape, relation=relation, anchor=named)
            with suppress(Unplaceable):
                beside = _is_beside(scene.box(target), scene.box(anchor), relation)
                if beside and described.find(scene) == [target]:
                    found.append(described)
    if not found:
        raise Unplaceable
    described = studio.rng.choice(found)
    why = f"Only the {target} is {described.relation} the {described.anchor}."
    return str(described), why, name_things(studio.words, described).one


def _is_beside(one: Box, other: Box, relation: str) -> bool:
    """Tell whether both edges of a box stand so to those of another, not its middle alone."""
    if relation in ("larger than", "smaller than"):
        return True
    axis = 0 if relation in ("left of", "right of") else 1
    way = -1 if relation in ("left of", "above") else 1
    return all(way * (one[at] - other[at]) > 0 for at in (axis, axis + 2))


def _extreme(studio: Studio, scene: Scene, target: Thing) -> tuple[str, str, str]:
    """Return the phrase for a target that is the most of something, why it fits, and a name for it. From the second
    version on it may be the most of its shape alone: "largest circle"."""
    alike = [thing for thing in scene.things if thing.identity.shape == target.identity.shape]
    of_shape = studio.version > 1 and len(alike) > 1 and studio.chance(0.5)
    mine = scene.box(target)
    rest = [scene.box(t) for t in (alike if of_shape else scene.things) if t is not target]
    if not rest:
        raise Unplaceable
    strict = studio.version > 1
    true = _list_extremes(mine, rest, scene.aspect if strict else 1.0, strict)
    if not true:
        raise Unplaceable
    # The last true one: sizes are rarer than sides, so they are said when they hold.
    described = Description(target.identity.shape if of_shape else None)
    among = f"The {true[-1]} of {f'the {described.plural}' if of_shape else 'them'} is the {target}."
    named = place(studio.words, true[-1], name_things(studio.words, described).one)
    return f"{true[-1]} {described}", among, named


def _list_extremes(mine: Box, rest: Sequence[Box], aspect: float, strict: bool) -> list[str]:
    """List what a box is the most of, clearly: by its middle and its longer side.

    `strict`: also by its near edge and its area, since a large thing's middle and edge may tell different tales.
    """

    def leads(axis: int, way: int) -> bool:
        middle = mine[axis] + mine[axis + 2]
        edge = axis if way < 0 else axis + 2
        return all(
            way * (middle - box[axis] - box[axis + 2]) > 0.2
            and (not strict or way * (mine[edge] - box[edge]) > 0)
            for box in rest
        )

    def sides(box: Box) -> tuple[float, float]:
        width, height = (box[2] - box[0]) * aspect, box[3] - box[1]
        return max(width, height), width * height if strict else 1.0

    side, area = sides(mine)
    measured = [sides(box) for box in rest]
    least = 1.25 if strict else 0.0
    claims = {
        "leftmost": leads(0, -1),
        "rightmost": leads(0, 1),
        "topmost": leads(1, -1),
        "lowest": leads(1, 1),
        "largest": all(side > 1.25 * other and area > least * size for other, size in measured),
        "smallest": all(1.25 * side < other and least * area < size for other, size in measured),
    }
    return [word for word, holds in claims.items() if holds]


@family("implicit", images=(1, 1), in_mig_bench=False)
def implicit(studio: Studio) -> Question:
    """One image, nothing named: a use to be met, or the one thing unlike the rest."""
    use = studio.chance(0.6)
    if use:
        identity = studio.identity(shapes=COMPOSITES, target=True)
        others: list[Identity] = []
        for _ in range(studio.count() - 1):
            pool = [s for s in COMPOSITES if s != identity.shape] if studio.chance(0.6) else SIMPLE_SHAPES
            others.append(studio.identity([identity, *others], shapes=pool))
        scene = studio.scene([identity, *others])
        instruction = _choose_use(studio, identity.shape)
        why = f"That fits the {identity.shape}"
    else:
        scene, instruction, why = _odd_one(studio)
    target = scene.things[0]
    scene = shuffled(studio, scene)
    box = scene.box(target)
    seen = shown(scene) if use else set_apart(scene, [t for t in sort_across(scene) if t is not target])
    found = f"the {target.identity} at the {place_name(box)}"
    thought = f"The image shows {seen}. I need {instruction}. {why}: {found}."
    extra = {"kind": "use" if use else "odd one", "instruction": instruction}
    query = ask(studio, WORDINGS, "implicit", instruction=instruction)
    return Question((scene,), query, box, 0, thought, extra)


def _choose_use(studio: Studio, shape: str) -> str:
    seen, unseen = USES[shape]
    if studio.version == 1:
        return unseen if studio.split == "unseen" else studio.rng.choice(seen)
    more_seen, more_unseen = MORE_USES[shape]
    return choose_phrase(studio.words, Wordings(seen + more_seen, more_unseen), studio.split)


def _odd_one(studio: Studio) -> tuple[Scene, str, str]:
    """All share a colour (or a shape) but one, which differs in that alone."""
    common = studio.identity(shapes=SIMPLE_SHAPES)
    n = max(3, studio.count(3, 3))
    by_colour = studio.chance(0.5)
    target = studio.identity(shapes=SIMPLE_SHAPES, target=True)
    rest: list[Identity] = []
    for _ in range(60):
        if len(rest) == n - 1:
            break
        drawn = studio.identity([target, *rest], shapes=SIMPLE_SHAPES)
        drawn = replace(drawn, colour=common.colour) if by_colour else replace(drawn, shape=common.shape)
        if drawn.held_out and studio.split != "unseen":
            continue
        if drawn not in rest:
            rest.append(drawn)
    same = [r for r in rest if (r.colour == target.colour if by_colour else r.shape == target.shape)]
    if len(rest) < n - 1 or same or len({r.shape if by_colour else r.colour for r in rest}) < 2:
        raise Unplaceable
    word = "colour" if by_colour else "shape"
    first = ODD_ONE.unseen if studio.split == "unseen" else ODD_ONE.seen
    chosen = first[0] if studio.version == 1 else choose_phrase(studio.words, ODD_ONE, studio.split)
    wording = chosen.format(word=word)
    shared = f"are {common.colour}" if by_colour else f"are of the shape {common.shape}"
    return studio.scene([target, *rest]), wording, f"All others {shared}, and one is not"


@family("video", images=(4, 6), in_mig_bench=False)
def video(studio: Studio) -> Question:
    """A short film; the box is asked in the third frame."""
    frames = studio.rng.randint(4, 5 if studio.difficulty < 0.7 else 6)
    kind = studio.rng.choice(("mover", "direction", "recolour"))
    first = studio.identity(target=True)
    cast = [first, *studio.distractors(first, studio.count(2, 2) - 1)]
    stage = studio.scene(cast, aspect=studio.film_aspect())
    hero, rest = stage.things[0], stage.things[1:]
    turn = studio.rng.randint(1, 2)
    changed = studio.identity(cast, shapes=[first.shape])
    if changed.colour == first.colour:
        raise Unplaceable
    changed = replace(changed, pattern=first.pattern)
    if changed.held_out and studio.split != "unseen":
        raise Unplaceable
    moving = kind != "recolour"
    path, way = _path(studio, frames) if moving else (((0.0, 0.0),) * frames, "")
    back = tuple((-0.8 * x, -0.8 * y) for x, y in path) if kind == "direction" else ((0.0, 0.0),) * frames
    shots = []
    for i in range(frames):
        actor = replace(hero, x=round(hero.x + path[i][0], 4), y=round(hero.y + path[i][1], 4))
        if kind == "recolour" and i >= turn:
            actor = replace(actor, identity=changed)
        others = tuple(replace(t, x=round(t.x + back[i][0], 4), y=round(t.y + back[i][1], 4)) for t in rest)
        shots.append(replace(stage, things=(*others, actor)))
        _check_frame(shots[-1])
    box = shots[2].box(shots[2].things[-1])
    instruction = _choose_film(studio, kind).format(way=way)
    why = _tell_film(kind, way, first, changed, turn)
    actor = shots[-1].things[-1]
    last = set_apart(shots[-1], [thing for thing in sort_across(shots[-1]) if thing is not actor])
    thought = (
        f"The first frame shows {shown(shots[0])}. The last frame shows {last}. "
        f"{capital(why)}. In the third frame it is at the {place_name(box)}."
    )
    extra = {"kind": kind, "instruction": instruction}
    query = ask(studio, WORDINGS, "video", instruction=instruction)
    return Question(tuple(shots), query, box, 2, thought, extra)


def _path(studio: Studio, frames: int) -> tuple[tuple[tuple[float, float], ...], str]:
    dx, dy, way = studio.rng.choice(
        ((1, 0, "to the right"), (-1, 0, "to the left"), (0, 1, "downwards"), (0, -1, "upwards"))
    )
    step = studio.rng.uniform(0.07, 0.12)
    return tuple((dx * step * i, dy * step * i) for i in range(frames)), way


def _check_frame(scene: Scene) -> None:
    """Everything wholly in the picture, nothing hidden."""
    boxes = [bounds(scene.outlines(t)) for t in scene.things]
    if any(min(b) < 0.0 or max(b) > 1.0 for b in boxes):
        raise Unplaceable
    if any(overlap(x, y) > 0.15 for i, x in enumerate(boxes) for y in boxes[i + 1 :]):
        raise Unplaceable


def _choose_film(studio: Studio, kind: str) -> str:
    """Choose what the film's question calls its object; the first version knew one phrase, and one for `unseen`."""
    if studio.version == 1:
        return (FILM[kind].unseen if studio.split == "unseen" else FILM[kind].seen)[0]
    return choose_phrase(studio.words, FILM[kind], studio.split)


def _tell_film(kind: str, way: str, first: Identity, changed: Identity, turn: int) -> str:
    """Say what happens in the film."""
    if kind == "mover":
        return f"the {first} moves {way} and the others stay still"
    if kind == "direction":
        return f"the {first} moves {way} and the others go the other way"
    when = ("second", "third")[turn - 1]
    return f"the {first} becomes {changed.colour} in the {when} frame"
