"""Gather samples for people to look at: what is shown together, what is asked, and what is boxed on each picture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from univg.data.exports.pictures import Pictures, Shot
from univg.data.exports.settings import Export
from univg.data.exports.targets import clip_targets, find_category
from univg.grounding.boxes import Box
from univg.grounding.samples import GroundingSample

__all__ = ["UNNAMED", "Scene", "gather_scenes"]

UNNAMED = "target"
"""The label of what a question asks for without a category's name: the question stands beside it."""


@dataclass
class Scene:
    """What is shown together: the pictures and their names in samples, the samples, and what they box, where."""

    names: tuple[str, ...]
    shots: list[Shot]
    samples: list[GroundingSample] = field(default_factory=list)
    boxes: list[tuple[int, str, Box, GroundingSample]] = field(default_factory=list)
    """(image, label, box, whose it is)."""

    @property
    def question(self) -> str:
        return "\n".join(dict.fromkeys(sample.query for sample in self.samples))


def gather_scenes(samples: Iterable[GroundingSample], how: Export) -> list[Scene]:
    """Return a scene for each sample; one for all that a detection set says of a picture.

    A sample without boxes is a scene as well: somebody may draw them.
    """
    pictures = Pictures(how)
    scenes: dict[object, Scene] = {}
    for number, sample in enumerate(samples):
        with how.reporting(sample):
            label = find_category(sample, how) or UNNAMED
            shots = [pictures.find(name) for name in sample.images]
            targets = clip_targets(sample, how) if sample.boxes else []
            if sample.boxes and not targets:
                continue
            key = shots[0].file if sample.task == "detection" and len(shots) == 1 else number
            scene = scenes.setdefault(key, Scene(sample.images, shots))
            scene.samples.append(sample)
            scene.boxes += [(image, label, box, sample) for image, box in targets]
    return list(scenes.values())
