"""The procedural world: scenes with exact identity, place and reasoning, for every task family."""

# The families register themselves, in this order: seeded mixtures of them depend on it.
# isort: off
from univg.world import multi_image as multi_image
from univg.world import cross_image as cross_image
from univg.world import single_image as single_image

# isort: on
from univg.world.questions import (
    DEFAULT_DIFFICULTY,
    FAMILIES,
    SOURCE,
    Family,
    Question,
    WorldSample,
    make_sample,
    stream,
)
from univg.world.scene import SPLITS, Scene, Split

__all__ = [
    "DEFAULT_DIFFICULTY",
    "FAMILIES",
    "SOURCE",
    "SPLITS",
    "Family",
    "Question",
    "Scene",
    "Split",
    "WorldSample",
    "make_sample",
    "stream",
]
