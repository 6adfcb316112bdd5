"""MIG-Bench's families in which a thing is found again: in another picture, another frame, another view.

In that benchmark's own wording and with its image counts. Wordings under "seen" are the benchmark's; those under
"unseen" say the same otherwise and appear in the `unseen` split of the world's first version alone. The second version
has many more, in `univg.world.wordings`.
"""

from __future__ import annotations

from dataclasses import replace

from univg.grounding.boxes import Box
from univg.world.identity import Identity
from univg.world.questions import ORDINALS, Question, ask, box_text, family, number, refer, shuffled
from univg.world.scene import Camera, Crop, Scene, Studio, Thing, Unplaceable, bounds, overlap, place_name
from univg.world.telling import a, capital, compared, name_all, shown
from univg.world.wordings.names import name_one

FIND = " Find it and locate it in the second image. "
WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "diff": {
        "seen": ("Compare these two images carefully and give me the coordinates of their difference. ",),
        "unseen": ("One thing is not the same in these two pictures. Where is it? ",),
    },
    "view_diff": {
        "seen": (
            "Compare these two images carefully and give me the coordinates of their real difference in the second "
            "image. " + FIND,
        ),
        "unseen": ("The camera moved, and one thing really changed. Locate it in the second image. ",),
    },
    "common_object": {
        "seen": (
            "These images share one object in common. Recognize and locate this object in the {n}th image. ",
        ),
        "unseen": ("Exactly one object turns up in every picture. Where is it in the {n}th image? ",),
    },
    "object_tracking": {
        "seen": (
            "These are a sequence of images containing moving objects. For the object in the first image marked with "
            "red bounding box({box}), please locate it in the {n}th image. ",
        ),
        "unseen": (
            "Follow the object in the red frame({box}) of the first image. Where is it in the {n}th image? ",
        ),
    },
    "multi_view": {
        "seen": (
            "These images share one object in common(the object marked with red bounding box in the first image"
            "({box}). Recognize and locate this object in the {n}th image. ",
        ),
        "unseen": (
            "One scene, several cameras. The first image frames an object({box}). Box it in the {n}th image. ",
        ),
    },
    "region": {
        "seen": (
            "You are given a source image followed by its several regions. Please locate the {n}th region picture in "
            "the source image. ",
        ),
        "unseen": (
            "Cut-outs follow a source image. From where in the source image was the {n}th cut-out taken? ",
        ),
    },
    "refer_grounding": {
        "seen": ("Find and locate where does the object in image-1 locate in the image-2.",),
        "unseen": ("Spot the object of image-1 again: box it in image-2.",),
    },
    "group_grounding": {
        "seen": (
            "Please find the bounding box coordinates for the area described by: {ref}.",
            "Identify the bounding box of the region described by the following expression: {ref}.",
            "Please locate the bounding box of the region described in this sentence: {ref}.",
            "Please determine the bounding box coordinates for the area described here: {ref}.",
            "Give the bounding box of the region that this sentence refers to: {ref}.",
        ),
        "unseen": ("One of these pictures contains it: {ref}. Box it there.",),
    },
}


# ---- two pictures of one scene -----------------------------------------------------------------------------


def _changed(studio: Studio, scene: Scene, target: Thing) -> Thing:
    """The same place, another colour or another shape."""
    old = target.identity
    for _ in range(50):
        new = studio.identity([t.identity for t in scene.things], target=True)
        if studio.chance(0.5):
            new = replace(new, shape=old.shape, pattern=old.pattern)
        else:
            new = replace(new, colour=old.colour, pattern=old.pattern)
        allowed = not new.held_out or studio.split == "unseen"
        if allowed and new != old and new not in [t.identity for t in scene.things]:
            return replace(target, identity=new)
    raise Unplaceable


@family("diff", images=(2, 2))
def diff(studio: Studio) -> Question:
    target_identity = studio.identity(target=True)
    scene = shuffled(
        studio, studio.scene([target_identity, *studio.distractors(target_identity, studio.count(2) - 1)])
    )
    target = next(t for t in scene.things if t.identity == target_identity)
    rest = tuple(t for t in scene.things if t is not target)
    kind = studio.rng.choice(("appears", "vanishes", "changes"))
    shots: tuple[Scene, Scene]
    if kind == "appears":
        shots = (replace(scene, things=rest), scene)
        box, where = scene.box(target), 1
        why = f"Only the second image shows {a(target)}"
    elif kind == "vanishes":
        shots = (scene, replace(scene, things=rest))
        box, where = scene.box(target), 0
        why = f"In turn the first image shows {compared(shots[0], shots[1])}. Only the first image shows {a(target)}"
    else:
        new = _changed(studio, scene, target)
        after = replace(scene, things=tuple(new if t is target else t for t in scene.things))
        shots, where = (scene, after), 1
        one, two = scene.box(target), after.box(new)
        box = (min(one[0], two[0]), min(one[1], two[1]), max(one[2], two[2]), max(one[3], two[3]))
        why = f"The {target} of the first image is {a(new)} in the second image"
    thought = (
        f"The first image shows {shown(shots[0])}. The second image shows {compared(shots[1], shots[0])}. "
        f"{why}. The difference is at the {place_name(box)}."
    )
    return Question(shots, ask(studio, WORDINGS, "diff"), box, where, thought, {"kind": kind})


@family("view_diff", images=(2, 2))
def view_diff(studio: Studio) -> Question:
    target_identity = studio.identity(target=True)
    scene = studio.scene(
        [target_identity, *studio.distractors(target_identity, studio.count(3, 3) - 1)], aspect=1.0
    )
    target, rest = scene.things[0], scene.things[1:]
    kind = studio.rng.choice(("appears", "changes"))
    if kind == "appears":
        before = replace(scene, things=rest)
        after, thing = scene, target
        why = f"Only the second image has {a(target)}"
    else:
        thing = _changed(studio, scene, target)
        before, after = scene, replace(scene, things=(thing, *rest))
        why = f"The {target} of the first image is {a(thing)} in the second image"
    after = studio.seen_from(shuffled(studio, after), studio.camera(), thing)
    box = after.box(thing)
    thought = (
        f"The first image shows {name_all(before)}. "
        f"The second image shows from another viewpoint {compared(after, before, places=False)}. "
        f"{why}, at the {place_name(box)}."
    )
    return Question((before, after), ask(studio, WORDINGS, "view_diff"), box, 1, thought, {"kind": kind})


# ---- one identity in several pictures -----------------------------------------------------------------------


@family("common_object", images=(3, 5))
def common_object(studio: Studio) -> Question:
    """One identity stands in every image; every other identity misses from at least one."""
    n = studio.rng.choice((3, 4, 4, 5))
    common = studio.identity(target=True)
    used: list[Identity] = []
    shots: list[Scene] = []
    for _ in range(n):
        others = studio.distractors(common, studio.count(2, 3) - 1, exclude=used)
        used += others
        if len(shots) % 2 and studio.chance(0.4):
            # Something is shared by two images, so that seeing a thing twice is not yet the answer.
            repeated = studio.rng.choice([t.identity for t in shots[-1].things])
            if repeated != common:
                others[0] = repeated
        shots.append(shuffled(studio, studio.scene([common, *others])))
    where = studio.rng.randrange(n)
    target = next(t for t in shots[where].things if t.identity == common)
    box = shots[where].box(target)
    views = " ".join(f"The {ORDINALS[i]} image shows {name_all(s)}." for i, s in enumerate(shots))
    thought = studio.rng.choice(
        (
            f"{views} Only the {common} is in all of them. "
            f"In the {ORDINALS[where]} image it is at the {place_name(box)}.",
            f"I look for what all images share. {views} The common object is the {common}. "
            f"It is at the {place_name(box)} of the {ORDINALS[where]} image.",
        )
    )
    return Question(
        tuple(shots), ask(studio, WORDINGS, "common_object", **number(where)), box, where, thought, {}
    )


@family("refer_grounding", images=(2, 2))
def refer_grounding(studio: Studio) -> Question:
    """The first image shows a thing alone, as another picture of it would; it is found in the second."""
    target_identity = studio.identity(target=True)
    scene = shuffled(
        studio, studio.scene([target_identity, *studio.distractors(target_identity, studio.count(2) - 1)])
    )
    extent = studio.rng.uniform(0.28, 0.42)
    portrait = Thing(target_identity, 0.5, 0.5, extent, studio.rng.uniform(-0.3, 0.3) * studio.difficulty)
    alone = Scene((portrait,), studio.background())
    x1, y1, x2, y2 = bounds(alone.outlines(portrait))
    if min(x1, y1) < 0 or max(x2, y2) > 1:
        raise Unplaceable
    box = scene.box(next(t for t in scene.things if t.identity == target_identity))
    thought = (
        f"The first image shows {a(target_identity)}. The second image shows {shown(scene)}. "
        f"The {target_identity} is at the {place_name(box)}."
    )
    return Question((alone, scene), ask(studio, WORDINGS, "refer_grounding"), box, 1, thought, {})


@family("group_grounding", images=(3, 5))
def group_grounding(studio: Studio) -> Question:
    """A description that fits one thing of one image of the group."""
    n = studio.rng.choice((3, 3, 4, 5))
    target_identity = studio.identity(target=True)
    where = studio.rng.randrange(n)
    used: list[Identity] = []
    shots: list[Scene] = []
    for i in range(n):
        others = studio.distractors(target_identity, studio.count(2, 2) - (i == where), exclude=used)
        used += others
        shots.append(shuffled(studio, studio.scene([target_identity, *others] if i == where else others)))
    target = next(t for t in shots[where].things if t.identity == target_identity)
    phrase = refer(target, [t for s in shots for t in s.things])
    box = shots[where].box(target)
    ref = f"<|object_ref_start|>{a(phrase)}<|object_ref_end|>"
    named = name_one(studio.words, target, [t for s in shots for t in s.things])
    views = " ".join(f"The {ORDINALS[i]} image shows {name_all(s)}." for i, s in enumerate(shots))
    only = f"{capital(a(phrase))} is only in the {ORDINALS[where]} image."
    thought = f"{views} {only} It is at the {place_name(box)} there."
    return Question(
        tuple(shots),
        ask(studio, WORDINGS, "group_grounding", ref=ref, one=named, a=a(named)),
        box,
        where,
        thought,
        {"phrase": phrase},
    )


# ---- one scene over time, or from several sides --------------------------------------------------------------


@family("object_tracking", images=(6, 6))
def object_tracking(studio: Studio) -> Question:
    """Six frames; everything moves on its own straight path; the first frame marks one thing."""
    frames = 6
    target_identity = studio.identity(target=True)
    stage = studio.scene(
        [target_identity, *studio.distractors(target_identity, studio.count(2, 2) - 1)],
        aspect=studio.film_aspect(),
    )
    steps = []
    for _ in stage.things:
        reach = 0.03 + 0.06 * studio.difficulty
        steps.append((studio.rng.uniform(-reach, reach), studio.rng.uniform(-reach, reach)))
    shots = []
    for i in range(frames):
        moved = tuple(
            replace(t, x=round(t.x + i * dx, 4), y=round(t.y + i * dy, 4))
            for t, (dx, dy) in zip(stage.things, steps, strict=True)
        )
        shots.append(replace(stage, things=moved))
        boxes = [bounds(shots[-1].outlines(t)) for t in moved]
        if any(min(b) < 0 or max(b) > 1 for b in boxes):
            raise Unplaceable
        if any(overlap(boxes[0], b) > 0.25 for b in boxes[1:]):
            raise Unplaceable
    where = studio.rng.randrange(1, frames)
    start, box = shots[0].box(shots[0].things[0]), shots[where].box(shots[where].things[0])
    shots[0] = shots[0].marked(start)
    middle = shots[where // 2].box(shots[where // 2].things[0])
    thought = (
        f"The marked object in the first image is {a(target_identity)} at the {place_name(start)}. "
        + (f"In the {ORDINALS[where // 2]} image it is at the {place_name(middle)}. " if where >= 2 else "")
        + f"In the {ORDINALS[where]} image it is at the {place_name(box)}."
    )
    query = ask(studio, WORDINGS, "object_tracking", box=box_text(start), **number(where))
    return Question(tuple(shots), query, box, where, thought, {})


@family("multi_view", images=(2, 6))
def multi_view(studio: Studio) -> Question:
    """One scene from several cameras; the first image marks one thing."""
    n = studio.rng.choice((2, 3, 3, 4, 4, 4, 5, 6))
    target_identity = studio.identity(target=True)
    scene = studio.scene(
        [target_identity, *studio.distractors(target_identity, studio.count(2, 3) - 1)], aspect=1.0
    )
    target = scene.things[0]
    scene = shuffled(studio, scene)
    where = studio.rng.randrange(1, n)
    shots = [scene]
    while len(shots) < n:
        shots.append(_another_view(studio, scene, target))
    start, box = scene.box(target), shots[where].box(target)
    shots[0] = scene.marked(start)
    thought = (
        f"The marked object in the first image is {a(target)} at the {place_name(start)}. "
        f"The {ORDINALS[where]} image shows {shown(shots[where])}. The {target} is at the {place_name(box)} there."
    )
    query = ask(studio, WORDINGS, "multi_view", box=box_text(start), **number(where))
    return Question(tuple(shots), query, box, where, thought, {})


def _another_view(studio: Studio, scene: Scene, target: Thing) -> Scene:
    for attempt in range(12):
        camera: Camera = studio.camera(1.3 - 0.1 * attempt)
        try:
            return studio.seen_from(scene, camera, target)
        except Unplaceable:
            continue
    raise Unplaceable


@family("region", images=(2, 4))
def region(studio: Studio) -> Question:
    """A source image, then cut-outs of it; one of them is put back."""
    n = studio.rng.choice((1, 2, 3, 3))
    first = studio.identity(target=True)
    scene = studio.scene([first, *studio.distractors(first, max(n, studio.count(2)) - 1)])
    picked = [scene.things[0], *studio.rng.sample(scene.things[1:], n - 1)]
    studio.rng.shuffle(picked)
    regions = [_around(studio, scene.box(thing)) for thing in picked]
    which = picked.index(scene.things[0])
    box = regions[which]
    thing = picked[which]
    thought = (
        f"The source image shows {shown(scene)}. The {ORDINALS[which]} region picture shows {a(thing)}. "
        f"In the source image the {thing} is at the {place_name(box)}."
    )
    shots: tuple[Scene | Crop, ...] = (scene, *(Crop(0, r) for r in regions))
    return Question(shots, ask(studio, WORDINGS, "region", **number(which)), box, 0, thought, {})


def _around(studio: Studio, box: Box) -> Box:
    """The thing with a little of its ground: what a cropped region shows."""
    pad = studio.rng.uniform(0.0, 0.06)
    width, height = (box[2] - box[0]) * pad, (box[3] - box[1]) * pad
    grown = (box[0] - width, box[1] - height, box[2] + width, box[3] + height)
    x1, y1, x2, y2 = (round(min(1.0, max(0.0, v)), 6) for v in grown)
    return (x1, y1, x2, y2)
