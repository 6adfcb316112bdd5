"""Turn scenes into samples: what a task family is, and how one sample is drawn.

A family is one function `Studio -> Question`. It composes scenes, asks, knows the exact box and writes the chain
of thought that a person would have followed. To add one: write the function, put it under `@family(...)` in
`single_image.py` or `multi_image.py`; one that asks for a set returns a `SetQuestion` and stands in `sets.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

from PIL import Image

from univg.grounding.boxes import Box, SizeWH
from univg.grounding.prompts import PUBLISHED_WORDING
from univg.grounding.samples import GroundingSample
from univg.world.drawn import DRAWN, DRAWN_FAMILIES, DrawnQuestion, Page, compose_drawn, draw_page
from univg.world.dressing import dress
from univg.world.render import render, size_for
from univg.world.scene import (
    WORLD_VERSION,
    Crop,
    Scene,
    Split,
    Studio,
    Thing,
    Unplaceable,
    name_version,
)
from univg.world.wider import WideStudio, draw_size
from univg.world.wordings.choosing import NOT_PUBLISHED, choose_wording, write_as_typed

Size: TypeAlias = int | tuple[int, int]
"""The longer side of pictures in pixels: one for all, or the least and the greatest."""
FIRST_PX = 120
"""Of the first world's pictures."""
SIZES = (60, 1000)
"""Of the second's where they are looked at and measured on: what people draw."""
TRAINED_SIZES = (60, 240)
"""Of the second's elsewhere, in training above all: a small model sees larger pictures shrunk to about this."""
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
DEFAULT_DIFFICULTY = 0.5
SOURCE = "world#"
"""How the source of a world's sample begins, wherever it was stored in between."""


@dataclass(frozen=True)
class Question:
    """One task before it is drawn. `box` is exact, unit coordinates of image `target`."""

    shots: tuple[Scene | Crop, ...]
    query: str
    box: Box
    target: int
    thought: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SetQuestion:
    """One task whose answer is a set, before it is drawn. `targets`: the image and the exact box (unit coordinates) of
    every thing that fits, by image and there from left to right; empty where nothing fits."""

    shots: tuple[Scene | Crop, ...]
    query: str
    targets: tuple[tuple[int, Box], ...]
    thought: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """A task family: its composer, how many images it may show, and whether MIG-Bench has it."""

    name: str
    compose: Callable[[Studio], Question | SetQuestion]
    images: tuple[int, int]
    in_mig_bench: bool


FAMILIES: dict[str, Family] = {}
"""The families that ask for one box: what is meant where none is named."""
SET_FAMILIES: dict[str, Family] = {}
"""Those whose answer is a set of boxes; they are drawn where they are named."""
ALL_FAMILIES: dict[str, Family] = {}
SETS = "sets"
"""Stands for all of `SET_FAMILIES` where families are named."""

Compose = TypeVar("Compose", bound=Callable[[Studio], Question | SetQuestion])


def family(
    name: str, images: tuple[int, int], in_mig_bench: bool = True, asks_for_set: bool = False
) -> Callable[[Compose], Compose]:
    """Register the decorated composer under `name`."""

    def register(compose: Compose) -> Compose:
        ALL_FAMILIES[name] = Family(name, compose, images, in_mig_bench)
        (SET_FAMILIES if asks_for_set else FAMILIES)[name] = ALL_FAMILIES[name]
        return compose

    return register


def list_families(wanted: Sequence[str] = (), split: str = "test") -> tuple[str, ...]:
    """Return the names of the families `wanted`: those of one box if none is named; "sets" are all of sets.

    Names that do not exist stay: `make_sample` refuses them, and whoever knows where they were written. Of the split
    `drawn`, which has some of the families, a group of them stands for those.

    >>> list_families(["diff", "sets"])
    ('diff', 'find_all', 'absent', 'odd_one_out')
    """
    named = [each for name in wanted for each in (SET_FAMILIES if name == SETS else (name,))]
    if split == DRAWN and not set(wanted) - {SETS}:
        return tuple(name for name in named or FAMILIES if name in DRAWN_FAMILIES)
    return tuple(named) or tuple(FAMILIES)


@dataclass(frozen=True)
class WorldSample:
    """A sample, and what its pictures show: the scenes to draw, the longer side of each `size` pixels, where a scene's
    look says nothing else; or the pages that other programs draw."""

    sample: GroundingSample
    shots: tuple[Scene | Crop | Page, ...]
    size: int

    @cached_property
    def images(self) -> tuple[Image.Image, ...]:
        """The pictures, drawn when they are first asked for."""
        return self.draw()

    def draw(self) -> tuple[Image.Image, ...]:
        """Draw the pictures without keeping them: tens of thousands of scenes are small, their pictures are not."""
        pictures: list[Image.Image | None] = [
            render(shot, self.size)
            if isinstance(shot, Scene)
            else draw_page(shot)
            if isinstance(shot, Page)
            else None
            for shot in self.shots
        ]
        for i, shot in enumerate(self.shots):
            if isinstance(shot, Crop):
                source = pictures[shot.of]
                assert source is not None
                pictures[i] = source.crop(crop_pixels(shot.box, source.size))
        return tuple(picture for picture in pictures if picture is not None)

    @property
    def sizes_wh(self) -> list[SizeWH]:
        """Width and height of each picture in pixels; nothing is drawn for it."""
        sizes = [
            size_for(shot.aspect, shot.look.longest if shot.look else self.size)
            if isinstance(shot, Scene)
            else shot.size_wh
            if isinstance(shot, Page)
            else (0, 0)
            for shot in self.shots
        ]
        for i, shot in enumerate(self.shots):
            if isinstance(shot, Crop):
                left, top, right, bottom = crop_pixels(shot.box, sizes[shot.of])
                sizes[i] = right - left, bottom - top
        return sizes


def make_sample(
    family_name: str,
    split: Split = "train",
    seed: int = 0,
    index: int = 0,
    difficulty: float = DEFAULT_DIFFICULTY,
    size: Size | None = None,
    version: int = WORLD_VERSION,
) -> WorldSample:
    """Draw sample `index` of a family: the same arguments give the same pixels and text on every machine.

    `difficulty` 0–1 sets the number and likeness of distractors, object size, overlap and viewpoint change;
    `size` is the longer side of each image in pixels, or in version 2 the least and the greatest; without it, 120 in
    version 1 and `TRAINED_SIZES` in version 2. Errors: `ValueError` naming the known families, splits or versions.
    """
    known = ALL_FAMILIES.get(family_name)
    if known is None:
        raise ValueError(f"task family {family_name!r}: choose from {', '.join(ALL_FAMILIES)}")
    given = settle_size(size, version)
    if split == DRAWN:
        return _draw_elsewhere(family_name, seed, index, difficulty, given, version)
    studio, longest = _open_studio(split, seed, index, family_name, difficulty, version, given)
    for _ in range(2000):
        try:
            question = known.compose(studio)
        except Unplaceable:
            continue
        break
    else:  # pragma: no cover - a family whose demands cannot be met
        raise RuntimeError(
            f"task family {family_name!r}: no layout found in 2000 draws; report this seed: {seed}"
        )
    shots = question.shots
    if isinstance(studio, WideStudio):
        shots = dress(
            shots, studio, family_name, question.query, given if isinstance(given, int) else given[1]
        )
    name = f"{split}-{family_name}-{seed}-{index}"
    if version > 1:
        name = f"{name_version(version)}-{name}"
    sample = GroundingSample(
        images=tuple(f"images/{name}-{i + 1}.png" for i in range(len(question.shots))),
        query=question.query,
        task=family_name,
        **_answer(question),
        thought=question.thought,
        source=f"{SOURCE}{name}",
        extra={"difficulty": round(difficulty, 6), **_note_wording(studio), **question.extra},
    )
    return WorldSample(sample, shots, longest)


def _draw_elsewhere(
    family: str, seed: int, index: int, difficulty: float, size: Size, version: int
) -> WorldSample:
    """Make a sample of the split that other programs draw."""
    if version == 1:
        raise ValueError(f"the split {DRAWN} is newer than world version 1: leave the version out")
    asked = compose_drawn(family, seed, index, difficulty, size)
    name = f"{name_version(version)}-{DRAWN}-{family}-{seed}-{index}"
    sample = GroundingSample(
        images=tuple(f"images/{name}-{i + 1}.png" for i in range(len(asked.shots))),
        query=asked.query,
        task=family,
        **_answer(asked),
        source=f"{SOURCE}{name}",
        extra={"difficulty": round(difficulty, 6), **asked.extra},
    )
    return WorldSample(sample, asked.shots, max(asked.shots[0].size_wh))


def settle_size(size: Size | None, version: int = WORLD_VERSION) -> Size:
    """Return the longer side that pictures of a version have, one number or a range. Raises ValueError."""
    if size is None:
        return FIRST_PX if version == 1 else TRAINED_SIZES
    if isinstance(size, int):
        return size
    if version == 1 or not 0 < size[0] <= size[1]:
        raise ValueError(f"size {size}: give one number, or in version 2 the least and the greatest")
    return size


def _open_studio(
    split: Split, seed: int, index: int, family: str, difficulty: float, version: int, size: Size
) -> tuple[Studio, int]:
    """Return the studio of a sample, and the longer side of its pictures in pixels."""
    if version == 1:
        assert isinstance(size, int)
        return Studio(split, seed, index, family, difficulty, version), size
    studio = WideStudio(split, seed, index, family, difficulty, version)
    studio.longest = draw_size(studio.rng, size)
    return studio, studio.longest


def _note_wording(studio: Studio) -> dict[str, str]:
    return {"wording": studio.wording} if studio.wording else {}


def _answer(question: Question | SetQuestion | DrawnQuestion) -> dict[str, Any]:
    if isinstance(question, Question):
        return {"boxes": (question.box,), "target_image": question.target}
    if isinstance(question, DrawnQuestion) and not question.is_set:
        ((target, box),) = question.targets
        return {"boxes": (box,), "target_image": target}
    on, boxes = tuple(image for image, _ in question.targets), tuple(box for _, box in question.targets)
    return {"boxes": boxes, "box_images": on, "complete": True}


def stream(
    split: Split = "train",
    seed: int = 0,
    families: Sequence[str] | None = None,
    difficulty: float = DEFAULT_DIFFICULTY,
    size: Size | None = None,
    version: int = WORLD_VERSION,
) -> Iterator[WorldSample]:
    """Yield samples without end, the families in turn (default: all of one box; "sets": all of sets)."""
    names = list_families(families or (), split)
    index = 0
    while True:
        for name in names:
            yield make_sample(name, split, seed, index, difficulty, size, version)
        index += 1


def crop_pixels(box: Box, size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return a region in pixels, at least four each way."""
    left, top = int(box[0] * size_wh[0]), int(box[1] * size_wh[1])
    right, bottom = -int(-box[2] * size_wh[0] // 1), -int(-box[3] * size_wh[1] // 1)
    return left, top, max(right, left + 4), max(bottom, top + 4)


# ---- words that families share -------------------------------------------------------------------------------


def refer(target: Thing, things: Sequence[Thing]) -> str:
    """Return the shortest honest name that fits `target` and no other of `things`: 'plain' is said where it decides."""
    me = target.identity
    rivals = [t.identity for t in things if t is not target and t.identity.shape == me.shape]
    same_colour = [r for r in rivals if r.colour == me.colour]
    if me.pattern == "plain" and same_colour:
        return f"plain {me.colour} {me.shape}"
    return str(me)


def ask(
    studio: Studio, wordings: Mapping[str, Mapping[str, Sequence[str]]], name: str, **values: object
) -> str:
    """Word the question of the family `name`, as the studio's split may ask it.

    `values` fill the wording in. Of the first version all wordings are in `wordings`, there under "seen" and "unseen";
    later ones keep those under "seen" as the published ones, and have the tables of `univg.world.wordings` beside them.
    The studio keeps which wording it was, for the sample's `extra`.
    """
    first = wordings[name]
    if studio.version == 1:
        return studio.rng.choice(first["unseen" if studio.split == "unseen" else "seen"]).format(**values)
    wording, published = choose_wording(studio.words, name, first["seen"], studio.split)
    studio.wording = PUBLISHED_WORDING if published and name not in NOT_PUBLISHED else wording
    text = wording.format(**values)
    return text if published else write_as_typed(studio.words, text)


def number(place: int) -> dict[str, object]:
    """Return what wordings call the image at a place from 0: `n`, from 1, and `nth`, 'third'."""
    return {"n": place + 1, "nth": ORDINALS[place]}


def shuffled(studio: Studio, scene: Scene) -> Scene:
    """Return the scene in another drawing order, so that a place in it tells nothing of who is asked for."""
    order = list(scene.things)
    studio.rng.shuffle(order)
    return replace(scene, things=tuple(order))


def box_text(box: Box) -> str:
    """Write a box as the benchmark's questions do."""
    from univg.grounding.prompts import render_response

    return render_response(box, style="direct")
