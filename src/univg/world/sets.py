"""Families whose answer is a set: every thing that fits, on whichever images, or none.

None of them is drawn where no family is named: `univg world --family sets`. The thought goes through the images,
says what is where, and concludes with the place and image of each target, or that there is none. Of a kind or an
attribute, it names in each image what fits first; of odd ones, what is like the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, TypeAlias

from univg.grounding.boxes import Box
from univg.world.descriptions import RELATIONS, Description, sort_across
from univg.world.identity import PATTERNS, Identity
from univg.world.questions import ORDINALS, SetQuestion, ask, family, shuffled
from univg.world.scene import Scene, Studio, Thing, Unplaceable, place_name
from univg.world.shapes import SIMPLE_SHAPES
from univg.world.telling import a, listing, set_apart, shown
from univg.world.wordings.names import Name, name_things

NUMBERS = ("none", "one", "two", "three", "four")
MOST_THINGS = 5
"""In one image, beside the anchor of a relation: more leave no room."""
TRIES = 40
Found: TypeAlias = tuple[int, Thing]
"""The place of an image, from 0, and a thing in it."""

WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "find_all": {
        "seen": (
            "Find every {one}.",
            "Locate all {many} in {these}.",
            "Box each {one} that {these} may show.",
            "Which {many} do you see in {these}? Box them all.",
            "Every {one}.",
        ),
        "unseen": (
            "Leave out no {one}: box whatever is in {these} of that kind.",
            "I count {many}. Point out each and every one.",
            "However many {many} there are, if any, mark them.",
        ),
    },
    "absent": {
        "seen": (
            "Locate the {one} in {these}.",
            "Find the {one}.",
            "Where is the {one}?",
            "Box the {one} in {these}, if it is there.",
            "The {one}.",
        ),
        "unseen": (
            "Can you point out the {one} for me?",
            "Someone says there is {a} here. Mark the spot.",
            "I am looking for the {one}; box it if you see it.",
        ),
    },
    "odd_one_out": {
        "seen": (
            "Nearly all objects in {these} share something. Locate each one that does not.",
            "Find what does not fit in with the rest of {these}.",
            "Which objects in {these} are the odd ones out? Box each of them.",
        ),
        "unseen": (
            "Spot whatever breaks the rule that the others keep in {these}.",
            "Box the misfits among all that there is in {these}.",
        ),
    },
    "odd_one_out, told": {
        "seen": (
            "Nearly all objects in {these} have the same {attribute}. Locate each one that has another.",
            "Which objects in {these} are the odd ones out by {attribute}? Box each of them.",
        ),
        "unseen": ("By {attribute}, something breaks the rule that the others keep in {these}. Box it.",),
    },
}


@family("find_all", images=(1, 4), in_mig_bench=False, asks_for_set=True)
def find_all(studio: Studio) -> SetQuestion:
    """One to four images, and every thing in them that fits a description: none to four."""
    n, wanted = studio.rng.randint(1, 4), studio.rng.randint(0, 4)
    described, base = _describe(studio)
    counts = [0] * n
    for _ in range(wanted):
        counts[studio.rng.randrange(n)] += 1
    first = studio.rng.choice([i for i, count in enumerate(counts) if count or not wanted])
    scenes = tuple(_fill(studio, described, base, count, i == first) for i, count in enumerate(counts))
    fitting = [described.find(scene) for scene in scenes]
    found = [(i, thing) for i, things in enumerate(fitting) for thing in things]
    views = _name_related(scenes, described) if described.relation else _set_apart(scenes, fitting)
    told = f"I find {_name_places(found, scenes)}: {NUMBERS[len(found)]}." if found else "There is none."
    need = studio.rng.choice(("I need", "I look for"))
    thought = f"{need} every {described}. {views} {told}"
    extra = {"kind": described.kind, "asked": _write(described)}
    named = _name(studio, described)
    query = _ask(studio, "find_all", n, one=named.one, many=named.many)
    return SetQuestion(scenes, query, _box_all(found, scenes), thought, extra)


def _describe(studio: Studio) -> tuple[Description, Identity]:
    """Draw what to ask for, and one identity that fits it: held out in the unseen split."""
    base = studio.identity(target=True)
    if base.pattern == "plain" and studio.chance(0.3):
        base = replace(base, pattern=studio.rng.choice(PATTERNS[1:]))
    whole = Description.of(base)
    kind = studio.rng.choice(("kind", "attribute", "relation"))
    if kind == "kind":
        options = [Description(base.shape), replace(whole, pattern=None), replace(whole, colour=None), whole]
    elif kind == "attribute":
        options = [Description(colour=base.colour)]
        if whole.pattern:
            options += [Description(pattern=base.pattern), replace(whole, shape=None)]
    else:
        anchor = Description.of(studio.identity([base], shapes=SIMPLE_SHAPES))
        if anchor.matches(base):
            raise Unplaceable
        shape = base.shape if studio.chance(0.5 * studio.difficulty) else None
        options = [Description(shape, relation=studio.rng.choice(RELATIONS), anchor=anchor)]
    return studio.rng.choice(options), base


def _fill(studio: Studio, described: Description, base: Identity, count: int, first: bool) -> Scene:
    """Compose an image in which exactly `count` things fit the description, and at least one does not.

    In the `first` one the identity that the description was made of is among those that fit. Where none shall, the
    unseen split shows another held-out one there.
    """
    compose = _surround if described.relation else _mix
    for _ in range(TRIES):
        extras = studio.rng.randint(1, min(1 + round(2 * studio.difficulty), MOST_THINGS - count))
        try:
            scene = compose(studio, described, base, count, extras, first)
            found = [thing.identity for thing in described.find(scene)]
        except Unplaceable:
            continue
        if len(found) == count and (base in found or not (first and found)):
            return scene
    raise Unplaceable


def _mix(
    studio: Studio, described: Description, base: Identity, count: int, extras: int, first: bool
) -> Scene:
    fitting = [_draw(studio, described, base) for _ in range(count)]
    if first and fitting:
        fitting[0] = base
    others = [_draw_other(studio, described, base) for _ in range(extras)]
    if first and not fitting and studio.split == "unseen":
        others[0] = studio.identity(target=True)
    return shuffled(studio, studio.scene([*fitting, *others]))


def _surround(
    studio: Studio, described: Description, base: Identity, count: int, extras: int, first: bool
) -> Scene:
    """Put things around the anchor of a relation; where nothing shall fit, half of the time there is no anchor."""
    asked = described.anchor
    assert asked is not None
    anchor = Identity(str(asked.shape), str(asked.colour), asked.pattern or "plain")
    kind = Description(described.shape)
    around = [_draw(studio, kind, base) for _ in range(count)]
    around += [_draw_other(studio, asked, anchor) for _ in range(extras)]
    if first:
        around[0] = base
    sizes: list[str | None] = [None] * len(around)
    if described.relation in ("larger than", "smaller than"):
        fitting, other = ("large", "small") if described.relation == "larger than" else ("small", "large")
        sizes = [fitting if i < count else other for i in range(len(around))]
    if count or studio.chance(0.5):
        around.append(anchor)
        sizes.append("medium" if sizes[0] else None)
    return shuffled(studio, studio.scene(around, sizes))


def _draw(studio: Studio, described: Description, base: Identity) -> Identity:
    """Draw an identity that fits."""
    drawn = described.put_on(studio.identity())
    if drawn.held_out and studio.split != "unseen":
        # The pair that the description came from is always allowed.
        return described.put_on(base)
    return drawn


def _draw_other(studio: Studio, described: Description, like: Identity) -> Identity:
    """Draw an identity that does not fit, but is like one that does: the more often, the harder the world."""
    for _ in range(TRIES):
        alike = studio.chance(0.3 + 0.6 * studio.difficulty)
        drawn = studio.identity(like=like if alike else None)
        if not described.matches(drawn):
            return drawn
    raise Unplaceable


@family("absent", images=(1, 3), in_mig_bench=False, asks_for_set=True)
def absent(studio: Studio) -> SetQuestion:
    """One to three images and one thing by its name, which half of the time is not there: only what is nearly it, of
    the same shape in another colour, of the same colour in another shape. Those stand there in the other half too."""
    n, there = studio.rng.randint(1, 3), studio.chance(0.5)
    asked = studio.identity(target=True)
    described = Description.of(asked)
    near = _draw_near(studio, described, asked)
    shots: list[list[Identity]] = [[] for _ in range(n)]
    for identity in near:
        studio.rng.choice(shots).append(identity)
    for shot in shots:
        more = max(1, studio.count(1, 2) - len(shot))
        shot += [_draw_other(studio, described, asked) for _ in range(more)]
    if there:  # in the place of another thing: how many there are tells nothing
        studio.rng.choice(shots)[-1] = asked
    scenes = tuple(shuffled(studio, studio.scene(shot)) for shot in shots)
    found = [(i, thing) for i, scene in enumerate(scenes) for thing in described.find(scene)]
    views = _name_views(scenes)
    told = _name_closest(scenes, described)
    need = studio.rng.choice(("I need", "I look for"))
    thought = f"{need} {a(described)}. {views} {told}"
    extra = {"kind": "there" if found else "not there", "asked": _write(described)}
    named = _name(studio, described).one
    query = _ask(studio, "absent", n, one=named, a=a(named))
    return SetQuestion(scenes, query, _box_all(found, scenes), thought, extra)


def _draw_near(studio: Studio, described: Description, asked: Identity) -> list[Identity]:
    """Draw one or two things that are nearly the one asked for: each has another colour, shape or pattern."""
    other = studio.identity()
    near = [replace(asked, colour=other.colour), replace(asked, shape=other.shape)]
    if described.pattern:
        near.append(replace(asked, pattern=other.pattern))
    near = [one for one in near if not described.matches(one)]
    if studio.split != "unseen":
        near = [one for one in near if not one.held_out]
    if not near:
        raise Unplaceable
    return studio.rng.sample(near, min(len(near), 2 if studio.chance(studio.difficulty) else 1))


def _name_closest(scenes: Sequence[Scene], described: Description) -> str:
    """Name the thing that is most like what is asked for, and say that it is that, or why it is not."""
    wanted = [(name, value) for name in ATTRIBUTES if (value := getattr(described, name))]

    def count_like(found: Found) -> int:
        return sum(getattr(found[1].identity, name) == value for name, value in wanted)

    closest = max(((i, t) for i, scene in enumerate(scenes) for t in sort_across(scene)), key=count_like)
    told = f"The closest is {_name_places([closest], scenes)}"
    missing = next((value for name, value in wanted if getattr(closest[1].identity, name) != value), None)
    if missing is None:
        return f"{told}: that is it."
    return (
        f"{told}: that is {'no' if missing == described.shape else 'not'} {missing}. There is no {described}."
    )


ATTRIBUTES = ("colour", "shape", "pattern")


@family("odd_one_out", images=(1, 4), in_mig_bench=False, asks_for_set=True)
def odd_one_out(studio: Studio) -> SetQuestion:
    """One to four images in which all things have one colour, shape or pattern, but one to three that have another.
    No other colour, shape or pattern is that of most things and not of all."""
    attribute, n_odd = studio.rng.choice(ATTRIBUTES), studio.rng.randint(1, 3)
    n_things = 2 * n_odd + 2 + studio.rng.randint(0, round(2 * studio.difficulty))
    n = studio.rng.randint(-(-n_things // MOST_THINGS), 4)
    shared, identities = _draw_misfits(studio, attribute, n_odd, n_things)
    cuts = [n_things * i // n for i in range(n + 1)]
    scenes = tuple(studio.scene(identities[cuts[i] : cuts[i + 1]]) for i in range(n))
    found = [
        (i, thing)
        for i, scene in enumerate(scenes)
        for thing in sort_across(scene)
        if getattr(thing.identity, attribute) != shared
    ]
    rule = f"of the shape {shared}" if attribute == "shape" else shared
    kept = [[t for t in sort_across(scene) if getattr(t.identity, attribute) == shared] for scene in scenes]
    begin = studio.rng.choice(("", "I look for what most of them share. "))
    thought = (
        f"{begin}Most are {rule}. {_set_apart(scenes, kept)} The odd ones out: {_name_places(found, scenes)}."
    )
    # The easier the world, the more often the question says where to look.
    name = "odd_one_out, told" if studio.chance(0.6 * (1 - studio.difficulty)) else "odd_one_out"
    query = _ask(studio, name, n, attribute=attribute)
    extra = {"kind": attribute, "shared": shared}
    return SetQuestion(scenes, query, _box_all(found, scenes), thought, extra)


def _draw_misfits(studio: Studio, attribute: str, n_odd: int, n_things: int) -> tuple[str, list[Identity]]:
    """Draw things of which all but `n_odd` have one value of the attribute; return it, and them in any order."""
    for _ in range(TRIES):
        kept = studio.identity()
        pattern = studio.rng.choice(("plain", None)) if attribute != "pattern" else None
        if attribute == "pattern":
            kept = replace(kept, pattern=studio.rng.choice(PATTERNS[1:]))
        shared = str(getattr(kept, attribute))
        drawn = [studio.identity(target=not i) for i in range(n_things)]
        drawn = [replace(one, pattern=pattern or studio.rng.choice(PATTERNS)) for one in drawn]
        drawn[n_odd:] = [replace(one, **{attribute: shared}) for one in drawn[n_odd:]]
        if any(one.held_out for one in drawn) and studio.split != "unseen":
            continue
        values = [(name, str(getattr(one, name))) for one in drawn for name in ATTRIBUTES]
        most = {value for value in values if n_things / 2 < values.count(value) < n_things}
        if most == {(attribute, shared)} and values.count((attribute, shared)) == n_things - n_odd:
            studio.rng.shuffle(drawn)
            return shared, drawn
    raise Unplaceable


# ---- what they share -------------------------------------------------------------------------------------------


def _ask(studio: Studio, name: str, n: int, **values: object) -> str:
    word = "picture" if studio.version > 1 and studio.words.random() < 0.3 else "image"
    return ask(studio, WORDINGS, name, these=f"this {word}" if n == 1 else f"these {word}s", **values)


def _name(studio: Studio, described: Description) -> Name:
    if studio.version == 1:
        return Name(str(described), described.plural)
    return name_things(studio.words, described)


def _box_all(found: Sequence[Found], scenes: Sequence[Scene]) -> tuple[tuple[int, Box], ...]:
    return tuple((i, scenes[i].box(thing)) for i, thing in found)


def _name_views(scenes: Sequence[Scene]) -> str:
    """Say what each image shows and where."""
    return " ".join(f"{_name_image(i, scenes)} shows {shown(scene)}." for i, scene in enumerate(scenes))


def _set_apart(scenes: Sequence[Scene], kept: Sequence[Sequence[Thing]]) -> str:
    """Say what each image shows and where, those of its things that are `kept` first."""
    pairs = enumerate(zip(scenes, kept, strict=True))
    return " ".join(f"{_name_image(i, scenes)} shows {set_apart(scene, like)}." for i, (scene, like) in pairs)


def _name_image(place: int, scenes: Sequence[Scene]) -> str:
    return "The image" if len(scenes) == 1 else f"The {ORDINALS[place]} image"


def _name_related(scenes: Sequence[Scene], described: Description) -> str:
    """Say what each image shows and where, and what stands so to the relation's anchor."""
    views = []
    for i, scene in enumerate(scenes):
        views.append(f"{_name_image(i, scenes)} shows {shown(scene)}.")
        anchor = described.find_anchor(scene)
        if anchor is None:
            views.append(f"No {described.anchor} is there.")
            continue
        names = listing([f"the {thing}" for thing in described.find(scene)] or ["none"])
        kind = Description(described.shape).plural
        at = place_name(scene.box(anchor))
        views.append(f"The {described.anchor} is at the {at}; {kind} {described.relation} it: {names}.")
    return " ".join(views)


def _name_places(found: Sequence[Found], scenes: Sequence[Scene]) -> str:
    """Name things with their places and images: 'the red star at the left of the first image'."""
    places = [(i, thing, place_name(scenes[i].box(thing))) for i, thing in found]
    images = ["" if len(scenes) == 1 else f" of the {ORDINALS[i]} image" for i, *_ in places]
    return listing([f"the {t} at the {at}{of}" for (_, t, at), of in zip(places, images, strict=True)])


def _write(described: Description) -> dict[str, Any]:
    """Return what is described as JSON, without what it leaves open."""
    said = {name: value for name, value in asdict(described).items() if value}
    if described.anchor:
        said["anchor"] = _write(described.anchor)
    return said
