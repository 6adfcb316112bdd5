"""The procedural world: scenes with exact identity, place and reasoning, for every task family."""

# The families register themselves, in this order: seeded mixtures of them depend on it.
# isort: off
from univg.world import multi_image as multi_image
from univg.world import cross_image as cross_image
from univg.world import single_image as single_image
from univg.world import sets as sets

# isort: on
from univg.world.drawn import DRAWN, DRAWN_FAMILIES, list_programs
from univg.world.questions import (
    ALL_FAMILIES,
    DEFAULT_DIFFICULTY,
    FAMILIES,
    SET_FAMILIES,
    SETS,
    SIZES,
    SOURCE,
    TRAINED_SIZES,
    Family,
    Question,
    SetQuestion,
    Size,
    WorldSample,
    list_families,
    make_sample,
    settle_size,
    stream,
)
from univg.world.scene import SPLITS, VERSIONS, WORLD_VERSION, Scene, Split

FAMILY_NAMES = (*ALL_FAMILIES, SETS)
"""What may be asked for by name."""

__all__ = [
    "ALL_FAMILIES",
    "DEFAULT_DIFFICULTY",
    "DRAWN",
    "DRAWN_FAMILIES",
    "FAMILIES",
    "FAMILY_NAMES",
    "SETS",
    "SET_FAMILIES",
    "SIZES",
    "SOURCE",
    "SPLITS",
    "TRAINED_SIZES",
    "VERSIONS",
    "WORLD_VERSION",
    "Family",
    "Question",
    "Scene",
    "SetQuestion",
    "Size",
    "Split",
    "WorldSample",
    "list_families",
    "list_programs",
    "make_sample",
    "settle_size",
    "stream",
]
