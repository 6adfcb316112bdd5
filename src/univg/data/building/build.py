"""Build multi-image grounding tasks out of any detection set, in the way MGrounding-630k was made from Objects365.

A family looks at the annotated images, picks some, and asks a question whose only right answer is one annotated
box. What makes the target unique is stated with each family; where the annotations cannot warrant it (crowds,
difficult objects, several instances) the image is not used for that question. Annotations also forget things: an
image without a category that nearly all the others have is taken as not fully annotated, and no question that
rests on what an image does not show is asked of it.

    common_object     exactly one kind of object occurs exactly once in every image
    region            an image, then pieces cut out of it: where was the k-th cut out?
    refer_grounding   a piece of one picture shows an object: find the one of its kind in another picture
    group_grounding   several images, a description that fits one object in all of them
    object_tracking   ordered frames: an object is boxed in the first, find it in a later one

Made only where they are asked for:

    referring         one image: find the only object of its category
    find_all          several images: find every object of a category, on each of them several, one or none
    absent            one image or more: find the object of a category, which half of the time none of them shows
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from univg.data.building.desk import TRIES, BuiltTask, Compose, Crop, Desk
from univg.data.building.families import ALL_FAMILIES, TASK_FAMILIES
from univg.data.building.sets import SET_FAMILIES, say_left_out
from univg.data.detection import DetectionImage

__all__ = ["ALL_FAMILIES", "TASK_FAMILIES", "BuiltTask", "Crop", "Shortfall", "build"]


@dataclass(frozen=True)
class Shortfall:
    """A family that could not make as many tasks as asked, and why."""

    family: str
    made: int
    wanted: int
    why: str

    def __str__(self) -> str:
        return f"{self.family}: {self.made} of {self.wanted} tasks: {self.why}"


def build(
    images: Sequence[DetectionImage],
    n: int,
    seed: int = 0,
    families: Sequence[str] | None = None,
    on_shortfall: Callable[[Shortfall], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Iterator[BuiltTask]:
    """Yield `n` tasks, as many of each family as the set allows, the families in turn.

    Within a family the categories are balanced (the one used least comes first), and so are the places of the
    target among the images. No question is asked twice. The same images and seed give the same tasks.
    A family that runs dry leaves its share to the others, and goes to `on_shortfall`. What no set is asked of goes to
    `on_note`.

    Raises ValueError for a family that does not exist.
    """
    names = list(families or TASK_FAMILIES)
    for name in names:
        if name not in ALL_FAMILIES:
            raise ValueError(f"no such family: {name}: choose from {', '.join(ALL_FAMILIES)}")
    desk = Desk(list(images), random.Random(f"univg build {seed}"))
    if on_note is not None and SET_FAMILIES.keys() & set(names):
        for note in say_left_out(desk):
            on_note(note)
    made: Counter[str] = Counter()
    why: dict[str, str] = {}
    asked: set[tuple[object, ...]] = set()
    while made.total() < n and len(why) < len(names):
        for name in names:
            if name in why or made.total() >= n:
                continue
            task = _compose_new(ALL_FAMILIES[name], desk, asked)
            if isinstance(task, str):
                why[name] = task
                continue
            desk.record(task)
            made[name] += 1
            yield task
    share = -(-n // len(names))
    for name, reason in why.items():
        if made[name] < share and on_shortfall is not None:
            on_shortfall(Shortfall(name, made[name], share, reason))


def _compose_new(compose: Compose, desk: Desk, asked: set[tuple[object, ...]]) -> BuiltTask | str:
    """Return a task that was not asked before, or why there is none."""
    for _ in range(TRIES):
        task = compose(desk)
        if isinstance(task, str):
            return task
        shown = tuple((s.image.record, s.box) if isinstance(s, Crop) else s.record for s in task.shown)
        if (task.family, shown, task.query) not in asked:
            asked.add((task.family, shown, task.query))
            return task
        if task.complete:  # the other categories of the family have their turn first
            desk.families_categories[task.family, task.category] += 1
    return "the set holds no further combination that was not asked already"
