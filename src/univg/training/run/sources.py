"""Open what a config says of its samples: worlds and files, without the records that are of no use to the stage."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from univg.data.dataset import ENDLESS, Dataset, Item, WorldItem
from univg.data.formats.marks import mark_fault
from univg.data.formats.scale import lesson_fault
from univg.data.readers import READERS, ImageRoot, RecordFault
from univg.data.validating import find_placeless
from univg.errors import UnivgError, offer
from univg.grounding.prompts import ONE_BOX, SETS, THINKING, PromptStyle, choose_style
from univg.grounding.samples import GroundingSample
from univg.pictures.images import ImageFault
from univg.training.config import StageConfig
from univg.training.run.dropped import Dropped
from univg.training.sources import SampleSource
from univg.world import ALL_FAMILIES, FAMILY_NAMES, list_families, make_sample

__all__ = ["Source", "choose_prompt_style", "open_source", "open_sources"]

DIGEST_SAMPLES = 32  # of the world; files count whole
LOOKED_AT = 32
"""Samples of a file whose pictures are looked for before the model is loaded."""


@dataclass(frozen=True)
class Source:
    """One part of the mixture, opened. `dropped`: the file's records that are of no use to this stage."""

    settings: SampleSource
    data: Dataset
    dropped: Dropped | None = None


def open_sources(config: StageConfig, teach: bool) -> list[Source]:
    """Open a stage's `data`; `teach`: samples that are asked for a thought must have one.

    Raises UnivgError for settings that cannot be, a file that cannot be read or of which more than the share
    `max_dropped` is of no use, and for one whose pictures are not there.
    """
    return [
        open_source(settings, config, teach, f"data.{index}", settings.count)
        for index, settings in enumerate(config.data)
    ]


def open_source(
    settings: SampleSource, config: StageConfig, teach: bool, key: str, count: int | None = None
) -> Source:
    """Open what `settings`, those at `key` of `config`, describe; at most `count` samples. Raises as `open_sources`."""
    if settings.reader == "world":
        return Source(settings, _open_world(settings, 1000 * config.seed + settings.seed, count))
    assert settings.path is not None
    reader = None if settings.reader == "auto" else settings.reader
    if reader is not None and reader not in READERS:
        raise UnivgError(f"data: no reader {reader!r}", remedy=offer(reader, ["world", "auto", *READERS]))
    flaws: list[RecordFault] = []

    def keep(sample: GroundingSample) -> bool:
        flaw = _find_flaw(sample, choose_prompt_style(sample, settings, config), teach)
        flaws.extend([flaw] if flaw else [])
        return flaw is None

    data = Dataset.from_file(settings.path, reader, settings.images, keep, count)
    notes = data.origin.get("notes", ())
    dropped = Dropped.of(settings.path, data.total, [*data.faults, *flaws], notes)
    dropped.check(config.max_dropped)
    if lost := _look_for_pictures(data, settings, key):
        dropped = replace(dropped, notes=(*dropped.notes, lost))
    content = partial(_list_content, data.item, data.total)
    return Source(settings, replace(data, content=content), dropped)


def choose_prompt_style(sample: GroundingSample, settings: SampleSource, config: StageConfig) -> PromptStyle:
    """Return how a sample of a source is asked: as the source says, else as the stage. An answer that is a set is
    always asked for in a style of sets; one box so only where its own source says it, since the stage may have both."""
    if sample.complete or settings.prompt_style is None:
        style = settings.prompt_style or config.prompt_style
        return choose_style(sample, style if sample.complete else ONE_BOX.get(style, style))
    return settings.prompt_style


def _look_for_pictures(data: Dataset, settings: SampleSource, key: str) -> str:
    """Return a note on some samples' pictures that are not there; "" if all are. Raise UnivgError where none is: the
    folder is wrong, and a model would be loaded for nothing."""
    looked_at = range(0, data.total, -(-data.total // LOOKED_AT))
    lost = sum((0, 0) in data.item(k).sizes_wh() for k in looked_at)
    if not lost:
        return ""
    if lost < len(looked_at):
        return (
            f"pictures are missing for {lost} of {len(looked_at)} samples looked at, which are left out when their "
            "turn comes: see univg data validate"
        )
    try:
        data.item(0).pictures()
    except ImageFault as fault:
        said = "all that were looked for" if len(looked_at) < data.total else "all"
        beside = Path(str(settings.path)).parent
        names = data.item(0).sample.images
        found = all(ImageRoot(beside, settings.path).find(name) for name in names)
        there = f"the first sample's are under {beside}: " if found else f"now {settings.images or '.'}: "
        raise UnivgError(
            f"{key}.images: pictures are missing, {said} ({len(looked_at)} of {data.total} samples); the first: "
            f"{fault.path}: {fault.cause}",
            settings.path,
            f"give the folder that image paths are relative to; {there}{key}.images={beside if found else 'FOLDER'}",
        ) from fault
    return ""


def _find_flaw(sample: GroundingSample, style: PromptStyle, teach: bool) -> RecordFault | None:
    name = sample.name
    if not sample.is_answered:
        return RecordFault(name, "no_answer", "it has no box")
    if style in SETS and not sample.complete:
        fix = 'mark samples that have all boxes ("complete": true), or leave prompt_style out'
        return RecordFault(name, "no_answer", f"{style} asks for every box, and it may not have all", fix)
    for box in sample.boxes if sample.complete else sample.boxes[:1]:
        if fault := lesson_fault(box):
            return RecordFault(name, *fault)
    if teach and (placeless := find_placeless(sample)):
        return RecordFault(name, *placeless)
    thinks = teach and style in THINKING
    if fault := mark_fault(sample, thinks):
        return RecordFault(name, *fault)
    if thinks and not sample.thought:
        fix = "add thoughts (univg construct), or set prompt_style: direct to learn boxes alone"
        return RecordFault(name, "no_thought", "it has no thought", fix)
    return None


def _open_world(settings: SampleSource, seed: int, count: int | None) -> Dataset:
    """Open the world; sample k is drawn from its number, in family and difficulty too."""
    families = settings.families or ()
    shares: dict[str, float] = {}
    if isinstance(families, dict):
        for name, share in families.items():
            each = list_families([name])
            shares |= {one: shares.get(one, 0.0) + share / len(each) for one in each}
    else:
        shares = dict.fromkeys(list_families(families), 1.0)
    unknown = [name for name in shares if name not in ALL_FAMILIES]
    if unknown:
        raise UnivgError(f"data: no task family {unknown[0]!r}", remedy=offer(unknown[0], FAMILY_NAMES))
    if any(share < 0 for share in shares.values()) or not sum(shares.values()):
        raise UnivgError("data: families: shares are not negative, and one is above zero")
    item = partial(_draw_item, settings, seed, shares)
    total = count or ENDLESS
    return Dataset("world", total, item, partial(_list_content, item, min(total, DIGEST_SAMPLES)))


def _draw_item(settings: SampleSource, seed: int, shares: dict[str, float], k: int) -> Item:
    rng = random.Random(f"{seed}/{k}")
    family = rng.choices(list(shares), list(shares.values()))[0]
    difficulty = round(rng.uniform(*settings.difficulty), 3)
    size, version = settings.image_px, settings.world_version
    return WorldItem.of(make_sample(family, settings.split, seed, k, difficulty, size, version))


def _list_content(item: Callable[[int], Item], n: int) -> Iterator[str | bytes]:
    """Yield what the digest of a source stands for: its first samples, with their pixels if we draw them."""
    for one in map(item, range(n)):
        yield json.dumps(one.sample.to_json(), sort_keys=True)
        if one.drawn:
            yield from (image.tobytes() for image in one.pictures())
