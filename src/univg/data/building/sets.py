"""Compose tasks whose answer is a set: every object of a category on several photographs, or none where none is.

What is not annotated would count as not there. So they rest on the images that seem fully annotated (`Desk.whole`), as
"the only one" does, and ask an image for a category only if it marks no crowd of it, nothing difficult and nothing too
small to see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from univg.data.building.desk import (
    MOST_TARGETS,
    SMALLEST_SHARE,
    TRIES,
    BuiltTask,
    Compose,
    Desk,
    find_all_of,
)
from univg.data.detection import DetectionImage
from univg.grounding.boxes import Box

__all__ = ["SET_FAMILIES", "say_left_out"]

_ALIKE = 16
_NONE_OF = 1 / 6
_NAMED = 3
_EVERY = "Locate every {named} in these images."
_THE = "Locate the {named} in {these}."


def compose_find_all(desk: Desk) -> BuiltTask | str:
    """Ask two to four images for every object of a category: on each of them there may be several, one or none, and
    in one of six tasks, where the set allows it, there is none at all."""
    for category in desk.rank_categories("find_all", list(desk.holding)):
        holding = desk.holding[category]
        for _ in range(TRIES):
            n = desk.rng.choice((2, 3, 3, 4))
            lacking = desk.find_lacking(category)
            n_holding = 0 if desk.rng.random() < _NONE_OF else desk.rng.randint(1, n)
            n_holding = max(n_holding, n - len(lacking))
            if n_holding > len(holding):
                continue
            images = [*desk.draw(holding, n_holding), *desk.draw(lacking, n - n_holding)]
            desk.rng.shuffle(images)
            targets = _box_all(images, category)
            if len(targets) <= MOST_TARGETS:
                query = _EVERY.format(named=category)
                return BuiltTask("find_all", tuple(images), query, targets, category, complete=True)
    return f"no category occurs up to {MOST_TARGETS} times in two images, always large enough and outside of crowds"


def compose_absent(desk: Desk) -> BuiltTask | str:
    """Ask one to three images for the object of a category that is once on one of them, or on none: for each category
    as often the one as the other, so that its name tells nothing."""
    for category in desk.rank_categories("absent", list(desk.once)):
        lacking = desk.find_lacking(category)
        if not lacking:
            continue
        # Beside others of its kind of place: a kite is no question for a kitchen.
        [home] = desk.draw(desk.once[category], 1)
        shared = {
            image.record: len(desk.counts[image.record] & desk.counts[home.record]) for image in lacking
        }
        lacking.sort(key=lambda image: -shared[image.record])
        n = min(desk.rng.randint(1, 3), len(lacking))
        images = desk.draw(lacking[:_ALIKE], n)
        if _is_due(desk, "absent", category):
            images[desk.choose_place("absent", n)] = home
        query = _THE.format(named=category, these="the image" if n == 1 else "these images")
        return BuiltTask("absent", tuple(images), query, _box_all(images, category), category, complete=True)
    return "no category occurs exactly once in one image and not at all in another"


def _is_due(desk: Desk, family: str, category: str) -> bool:
    """Tell whether something shall be found this time: what was rarer so far, of the category, else of all."""
    answers = {key: number for key, number in desk.answers.items() if key[0] == family}
    for counted in ([category], {name for _, name, _ in answers}):
        there, not_there = (
            sum(answers.get((family, name, found), 0) for name in counted) for found in (True, False)
        )
        if there != not_there:
            return there < not_there
    return desk.rng.random() < 0.5


def say_left_out(desk: Desk) -> list[str]:
    """Say which images, or which of their categories, no set is asked of, and why."""
    told, n_left = [], len(desk.images) - len(desk.whole)
    if n_left:
        names = " or ".join(sorted(desk.expected))
        told.append(
            f"sets: {n_left} of {len(desk.images)} photographs are not used: they lack {names}, which nearly all show,"
            " and may not be fully annotated"
        )
    for category in sorted(desk.countless):
        told.append(
            f"find_all: {category} is not asked for: there are often more than {MOST_TARGETS}, and where fewer are"
            " marked, others may have been forgotten"
        )
    if desk.passed_over:
        most = desk.passed_over.most_common(_NAMED)
        names = ", ".join(f"{category} on {number}" for category, number in most)
        names += f", {len(desk.passed_over) - len(most)} more" if len(desk.passed_over) > len(most) else ""
        told.append(
            f"find_all: not asked of photographs that show a crowd of it, a difficult one, one smaller than"
            f" {SMALLEST_SHARE:.1%} of the picture, or more than {MOST_TARGETS}: {names}"
        )
    return told


def _box_all(images: Sequence[DetectionImage], category: str) -> tuple[tuple[int, Box], ...]:
    """Return the place of the image and the box of each object of a category, in each image from left to right."""
    return tuple(
        (place, box)
        for place, image in enumerate(images)
        for box in sorted(one.box for one in find_all_of(image, category))
    )


SET_FAMILIES: Mapping[str, Compose] = {"find_all": compose_find_all, "absent": compose_absent}
