"""Compose tasks before their pictures exist: what `univg.data.building.build` works with."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from univg.data.detection import DetectionImage, Instance
from univg.grounding.boxes import Box, area
from univg.grounding.samples import GroundingSample

__all__ = [
    "MOST_TARGETS",
    "SMALLEST_SHARE",
    "TRIES",
    "BuiltTask",
    "Compose",
    "Crop",
    "Desk",
    "Shown",
    "find_all_of",
    "find_only",
]

SMALLEST_SHARE = 0.004
"""Of the image's area: a smaller target is hardly seen once the image is resized for the model."""
MOST_TARGETS = 12
"""Of a set: a longer list is hardly written to its end."""
OFTEN = 0.2
"""Of the images in which a category occurs, and more than two."""
TRIES = 60
NEARLY_ALL = 0.8
"""A category in more of the images than this is expected in each of them."""


@dataclass(frozen=True)
class Crop:
    """A piece of an image, shown as an image of its own; `box` in the unit frame of `image`."""

    image: DetectionImage
    box: Box


Shown: TypeAlias = "DetectionImage | Crop"


@dataclass(frozen=True)
class BuiltTask:
    """A task before its pictures are written: what is shown, the question, the place of each target among what is
    shown, from 0, and its box. `complete`: the targets are a set, which may be empty; else there is one."""

    family: str
    shown: tuple[Shown, ...]
    query: str
    targets: tuple[tuple[int, Box], ...]
    category: str
    complete: bool = False

    @property
    def box(self) -> Box:
        """The first box."""
        return self.targets[0][1]

    @property
    def target(self) -> int:
        """The place of the first box."""
        return self.targets[0][0]

    @property
    def records(self) -> list[str]:
        """The annotated image behind each of those shown."""
        return [(shot.image if isinstance(shot, Crop) else shot).record for shot in self.shown]

    def sample(self, names: Sequence[str], source: str) -> GroundingSample:
        """Make the sample, once every image shown has a path."""
        return GroundingSample(
            tuple(names),
            self.query,
            self.family,
            tuple(box for _, box in self.targets),
            box_images=tuple(on for on, _ in self.targets),
            complete=self.complete,
            source=source,
            extra={"category": self.category, "from": self.records},
        )


@dataclass
class Desk:
    """Hold the images, sorted by what may be asked of them, and an account of what has been asked so far."""

    images: list[DetectionImage]
    rng: random.Random
    whole: list[DetectionImage] = field(default_factory=list)
    """The images that seem fully annotated: they show every category that nearly all images show."""
    once: dict[str, list[DetectionImage]] = field(default_factory=dict)
    """By category: the whole images in which it occurs exactly once, large enough, and no crowd of it."""
    holding: dict[str, list[DetectionImage]] = field(default_factory=dict)
    """By category: the whole images in which it occurs up to `MOST_TARGETS` times, always large enough, and no crowd
    of it. Of a category that often occurs more times there are none: where few are marked, others were forgotten."""
    passed_over: Counter[str] = field(default_factory=Counter)
    """By category: how many other whole images it occurs in."""
    countless: frozenset[str] = frozenset()
    """The categories that often occur more than `MOST_TARGETS` times."""
    expected: frozenset[str] = frozenset()
    """The categories that nearly all images show."""
    alone: list[tuple[str, DetectionImage]] | None = None
    """The categories and images of `once` that were not asked for by themselves; None before the first was."""
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    """By image record: how often each category is annotated; a crowd of it may be one or many."""
    families_categories: Counter[tuple[str, str]] = field(default_factory=Counter)
    places: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    shots: Counter[str] = field(default_factory=Counter)
    answers: Counter[tuple[str, str, bool]] = field(default_factory=Counter)
    """By family and category: how often something was to be found, and how often nothing."""

    def __post_init__(self) -> None:
        for image in self.images:
            self.counts[image.record] = Counter(instance.category for instance in image.instances)
        in_images: Counter[str] = Counter(name for counts in self.counts.values() for name in counts)
        self.expected = frozenset(
            name for name, number in in_images.items() if number > NEARLY_ALL * len(self.images)
        )
        many = Counter(
            name
            for counts in self.counts.values()
            for name, number in counts.items()
            if number > MOST_TARGETS
        )
        self.countless = frozenset(
            name for name, number in many.items() if number > max(2, OFTEN * in_images[name])
        )
        self.whole = [image for image in self.images if self.counts[image.record].keys() >= self.expected]
        for image in self.whole:
            counts = self.counts[image.record]
            for category, number in counts.items():
                clear = (
                    one.alone and area(one.box) >= SMALLEST_SHARE for one in find_all_of(image, category)
                )
                if category in self.countless:
                    continue
                if number <= MOST_TARGETS and all(clear):
                    self.holding.setdefault(category, []).append(image)
                else:
                    self.passed_over[category] += 1
            for instance in image.instances:
                lone = instance.alone and counts[instance.category] == 1
                if lone and area(instance.box) >= SMALLEST_SHARE:
                    self.once.setdefault(instance.category, []).append(image)

    def record(self, task: BuiltTask) -> None:
        """Keep account of a task, so that the next ones use other categories, places and images."""
        self.families_categories[task.family, task.category] += 1
        self.answers[task.family, task.category, bool(task.targets)] += 1
        if len(task.targets) == 1:
            self.places[task.family, len(task.shown), task.target] += 1
        self.shots.update(task.records)

    def rank_categories(self, family: str, possible: Sequence[str]) -> list[str]:
        """Return the categories, the one used least first; ties are drawn."""
        shuffled = self.rng.sample(sorted(possible), len(possible))
        return sorted(shuffled, key=lambda category: self.families_categories[family, category])

    def find_lacking(self, category: str) -> list[DetectionImage]:
        """Return whole images, with objects in them, in which a category does not occur: of 256 that are drawn."""
        # Enough images to hold what is looked for, few enough to look through often.
        some = self.rng.sample(self.whole, min(256, len(self.whole)))
        return [image for image in some if image.instances and not self.counts[image.record][category]]

    def choose_place(self, family: str, n: int, first: int = 0) -> int:
        """Return the place among `n` images that has held the target least often."""
        order = self.rng.sample(range(first, n), n - first)
        return min(order, key=lambda place: self.places[family, n, place])

    def draw(self, images: Sequence[DetectionImage], k: int) -> list[DetectionImage]:
        """Return `k` different images, of twice as many drawn those shown least often."""
        pool = self.rng.sample(images, min(2 * k, len(images)))
        return sorted(pool, key=lambda image: self.shots[image.record])[:k]


Compose: TypeAlias = Callable[[Desk], "BuiltTask | str"]
"""What returns a task, or says why the set allows none."""


def find_all_of(image: DetectionImage, category: str) -> list[Instance]:
    """Return the instances of a category."""
    return [instance for instance in image.instances if instance.category == category]


def find_only(image: DetectionImage, category: str) -> Instance:
    """Return the instance of a category that occurs once."""
    return next(instance for instance in image.instances if instance.category == category)
