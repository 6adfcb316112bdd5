"""Compose tasks before their pictures exist: what `univg.data.building.build` works with."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from univg.data.detection import DetectionImage, Instance
from univg.grounding.boxes import Box, area
from univg.grounding.samples import GroundingSample

__all__ = ["SMALLEST_SHARE", "BuiltTask", "Crop", "Desk", "Shown", "find_only"]

SMALLEST_SHARE = 0.004
"""Of the image's area: a smaller target is hardly seen once the image is resized for the model."""
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
    """A task before its pictures are written: what is shown, the question, the box and the image it lies on."""

    family: str
    shown: tuple[Shown, ...]
    query: str
    box: Box
    target: int
    category: str

    @property
    def records(self) -> list[str]:
        """The annotated image behind each of those shown."""
        return [(shot.image if isinstance(shot, Crop) else shot).record for shot in self.shown]

    def sample(self, names: Sequence[str], source: str) -> GroundingSample:
        """Make the sample, once every image shown has a path."""
        extra = {"category": self.category, "from": self.records}
        return GroundingSample(
            tuple(names), self.query, self.family, (self.box,), self.target, source=source, extra=extra
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
    alone: list[tuple[str, DetectionImage]] | None = None
    """The categories and images of `once` that were not asked for by themselves; None before the first was."""
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    """By image record: how often each category is annotated; a crowd of it may be one or many."""
    families_categories: Counter[tuple[str, str]] = field(default_factory=Counter)
    places: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    shots: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        for image in self.images:
            self.counts[image.record] = Counter(instance.category for instance in image.instances)
        in_images: Counter[str] = Counter(name for counts in self.counts.values() for name in counts)
        expected = {name for name, number in in_images.items() if number > NEARLY_ALL * len(self.images)}
        self.whole = [image for image in self.images if self.counts[image.record].keys() >= expected]
        for image in self.whole:
            counts = self.counts[image.record]
            for instance in image.instances:
                lone = instance.alone and counts[instance.category] == 1
                if lone and area(instance.box) >= SMALLEST_SHARE:
                    self.once.setdefault(instance.category, []).append(image)

    def record(self, task: BuiltTask) -> None:
        """Keep account of a task, so that the next ones use other categories, places and images."""
        self.families_categories[task.family, task.category] += 1
        self.places[task.family, len(task.shown), task.target] += 1
        self.shots.update(task.records)

    def rank_categories(self, family: str, possible: Sequence[str]) -> list[str]:
        """Return the categories, the one used least first; ties are drawn."""
        shuffled = self.rng.sample(sorted(possible), len(possible))
        return sorted(shuffled, key=lambda category: self.families_categories[family, category])

    def choose_place(self, family: str, n: int, first: int = 0) -> int:
        """Return the place among `n` images that has held the target least often."""
        order = self.rng.sample(range(first, n), n - first)
        return min(order, key=lambda place: self.places[family, n, place])

    def draw(self, images: Sequence[DetectionImage], k: int) -> list[DetectionImage]:
        """Return `k` different images, of twice as many drawn those shown least often."""
        pool = self.rng.sample(images, min(2 * k, len(images)))
        return sorted(pool, key=lambda image: self.shots[image.record])[:k]


def find_only(image: DetectionImage, category: str) -> Instance:
    """Return the instance of a category that occurs once."""
    return next(instance for instance in image.instances if instance.category == category)
