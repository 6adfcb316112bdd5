"""Choose what a run is scored on while it learns: questions that it is not taught, or a line on those that it is."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from univg.data.dataset import ENDLESS, Dataset, FileItem, Item, digest_parts
from univg.data.splitting import list_origins, split_by_image
from univg.errors import UnivgError
from univg.files import digest_file
from univg.grounding.samples import GroundingSample
from univg.training.config import StageConfig, Validation
from univg.training.run.dropped import Dropped, tell_dropped
from univg.training.run.sources import Source, open_source, open_sources

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["HeldOut", "hold_out", "open_data"]


@dataclass(frozen=True)
class HeldOut:
    """Questions with their sources' settings. `lines` say of them what a user has to know, `warnings` what is wrong."""

    items: Sequence[tuple[Item, Source]]
    lines: Sequence[str]
    warnings: Sequence[str] = ()
    dropped: Sequence[Dropped] = ()

    @property
    def digest(self) -> str:
        return digest_parts(item.key for item, _ in self.items)


def open_data(config: StageConfig, teach: bool, console: Console) -> tuple[Sequence[Source], HeldOut | None]:
    """Open a stage's data, and say what was found in them; return what is taught and what is held out.

    Needs no model, so that what is wrong with a file or its pictures is told before one is loaded. Raises UnivgError.
    """
    sources, held = hold_out(config, opened := open_sources(config, teach))
    tell_dropped([each.dropped for each in opened if each.dropped], console)
    if held is not None:
        tell_dropped(held.dropped, console)
        for line in held.lines:
            console.print(line)
        for line in held.warnings:
            console.print(line, style="yellow")
    return sources, held


def hold_out(config: StageConfig, sources: Sequence[Source]) -> tuple[Sequence[Source], HeldOut | None]:
    """Return what remains to be taught of a run's `sources`, and the questions that its config holds out; None if none.

    Raises UnivgError where there is no question that can be asked.
    """
    wanted = config.validation
    if wanted is None:
        return sources, None
    if wanted.share is not None:
        return _split(config, wanted, wanted.share, sources)
    opened = open_source(wanted, config, False, "validation", wanted.n if wanted.reader == "world" else None)
    found = [(item, opened) for item in opened.data.items()]
    chosen, warnings = _choose(found, wanted.n, config.seed)
    about = wanted.path or f"the world, split {wanted.split}"
    line = f"validation: {len(chosen)} of {len(found)} questions of {about}"
    if wanted.reader != "world":
        shared = _count_shared(chosen, sources)
        line += "" if shared else ", no picture of theirs is trained on"
        if shared:
            what = f"{shared} of {len(chosen)} questions show a picture that is also trained on"
            warnings.append(
                f"validation: {what}: scores on them are too good (validation.share divides by picture)"
            )
    dropped = [opened.dropped] if opened.dropped else []
    return sources, HeldOut(chosen, [line], warnings, dropped)


def _split(
    config: StageConfig, wanted: Validation, share: float, sources: Sequence[Source]
) -> tuple[Sequence[Source], HeldOut]:
    """Divide the samples of the sources that are files, so that no picture is on both sides."""
    files = [source for source in sources if source.settings.reader != "world"]
    found = [(item, source) for source in files for item in source.data.items()]
    if not found:
        raise UnivgError(
            "validation.share: the world has no end, and nothing to hold out",
            remedy="give validation.reader=world, which asks of its test split",
        )
    seen = _name_pictures([item for item, _ in found])
    samples = [
        replace(item.sample, images=tuple(names)) for (item, _), names in zip(found, seen, strict=True)
    ]
    try:
        split = split_by_image(samples, share, config.seed)
    except UnivgError as error:
        raise UnivgError(f"validation.share: {error.cause}", error.place, error.remedy) from error
    on_test = [split.is_test(sample) for sample in samples]
    if not 0 < sum(on_test) < len(found):
        what = f"validation.share: {share:g} of {len(found)} samples leaves {sum(on_test)} to ask"
        raise UnivgError(
            what, remedy="give more data, another share, or validation.path with a file of its own"
        )
    chosen, warnings = _choose(
        [each for each, test in zip(found, on_test, strict=True) if test], wanted.n, config.seed
    )
    held = sum(on_test)
    line = f"validation: {held} of {len(found)} samples ({100 * held / len(found):.1f} %) are held out, and share no "
    line += "picture with those trained on" + (
        f"; {len(chosen)} of them are asked" if len(chosen) < held else ""
    )
    if split.misses_share():
        what = (
            f"{100 * share:g} % was asked for, but {split.largest} samples hang together by shared pictures"
        )
        warnings.append(f"validation: {what}: {_DIVIDE_FIRST}")
    tests = iter(on_test)
    taught = [_drop(source, tests) if source in files else source for source in sources]
    return taught, HeldOut(chosen, [line], warnings)


_DIVIDE_FIRST = (
    "divide the photographs before tasks are made (univg data build --test), and give validation.path"
)


def _drop(source: Source, tests: Iterator[bool]) -> Source:
    kept = [k for k in range(source.data.total) if not next(tests)]
    if not kept:
        raise UnivgError(
            "validation.share: it holds out all samples of a file",
            source.settings.path,
            "give validation.path with a file of its own",
        )
    return replace(source, data=replace(source.data, total=len(kept), item=partial(_pick, source.data, kept)))


def _pick(data: Dataset, kept: Sequence[int], k: int) -> Item:
    return data.item(kept[k])


def _choose(
    found: Sequence[tuple[Item, Source]], n: int, seed: int
) -> tuple[list[tuple[Item, Source]], list[str]]:
    """Draw `n` questions whose pictures can be opened, and keep them in the order of the file.

    Raises UnivgError where there is none.
    """
    chosen: list[int] = []
    missing: list[str] = []
    for k in random.Random(f"{seed}/validation").sample(range(len(found)), len(found)):
        if len(chosen) == n:
            break
        item, _ = found[k]
        if item.drawn or (0, 0) not in item.sizes_wh():
            chosen.append(k)
        else:
            missing.append(item.sample.name)
    if not chosen:
        raise UnivgError(
            f"validation: none of {len(found)} questions has all its pictures",
            f"the first is {missing[0]}" if missing else None,
            "check validation.images",
        )
    warnings = (
        [f"validation: left out for missing pictures: {len(missing)}, first {missing[0]}"] if missing else []
    )
    return [found[k] for k in sorted(chosen)], warnings


def _count_shared(chosen: Sequence[tuple[Item, Source]], sources: Sequence[Source]) -> int:
    """Count the questions that show a picture that the sources teach, too."""
    taught = [item for source in sources if source.data.total != ENDLESS for item in source.data.items()]
    names = _name_pictures([*(item for item, _ in chosen), *taught])
    seen = {name for row in names[len(chosen) :] for name in row}
    seen |= {name for item in taught for name in list_origins(item.sample)}
    asked = zip(chosen, names, strict=False)
    return sum(not seen.isdisjoint([*row, *list_origins(item.sample)]) for (item, _), row in asked)


def _name_pictures(items: Sequence[Item]) -> list[list[str]]:
    """Return for each item its pictures' names: one name for files of equal content, and by content only where two
    files are of one size, as reading all of a large set would take minutes."""
    known: dict[tuple[int, str], Path | str] = {}  # a picture stands in many samples
    found = [_find_files(item, known) for item in items]
    sizes = {path: path.stat().st_size for path in {p for row in found for p in row if isinstance(p, Path)}}
    alike = Counter(sizes.values())
    names = {path: digest_file(path) if alike[size] > 1 else str(path) for path, size in sizes.items()}
    return [[names[each] if isinstance(each, Path) else each for each in row] for row in found]


def _find_files(item: Item, known: dict[tuple[int, str], Path | str]) -> list[Path | str]:
    """Return an item's files, resolved; for what is no file, its name. `known`: those found so far."""
    sample: GroundingSample = item.sample
    if not isinstance(item, FileItem):
        return list(sample.images)
    for name in sample.images:
        if (id(item.root), name) not in known:
            path = item.root.find(name)
            known[id(item.root), name] = name if path is None else path.resolve()
    return [known[id(item.root), name] for name in sample.images]
