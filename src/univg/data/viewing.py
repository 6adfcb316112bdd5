"""Look at a set: its numbers, charts of them, and a contact sheet of its samples."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image

from univg.data.published import FaultBook, PublishedFile
from univg.data.readers import ImageRoot
from univg.data.validating import CountTokens, ImageState, sizes_of
from univg.errors import UnivgError
from univg.grounding.boxes import area
from univg.grounding.mentions import decide_image
from univg.grounding.samples import GroundingSample
from univg.pictures.drawing import (
    OTHERS,
    THUMB_PX,
    SheetCell,
    count_targets,
    draw_contact_sheet,
    draw_targets,
    fit,
)
from univg.pictures.images import ImageFault, open_picture

__all__ = ["Counts", "count_samples", "count_tokens", "draw_samples", "find_quantile", "list_panels"]

_AREAS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
_TOKENS = (256, 512, 1024, 1536, 2048, 3072, 4096, 6000)


@dataclass
class Counts:
    """A set in numbers: samples by task and by how many images they have, images by name, and the areas of the first
    boxes by task (of answers that are sets, of all), as shares of their images; and how many boxes answers have that
    are sets."""

    tasks: Counter[str] = field(default_factory=Counter)
    per_sample: Counter[int] = field(default_factory=Counter)
    images: dict[str, None] = field(default_factory=dict)
    areas_of: dict[str, list[float]] = field(default_factory=dict)
    per_set: Counter[int] = field(default_factory=Counter)

    @property
    def areas(self) -> list[float]:
        return [value for values in self.areas_of.values() for value in values]


def count_samples(file: PublishedFile, book: FaultBook) -> Counts:
    """Read a file and count. Raises UnivgError if it holds no sample."""
    counts = Counts()
    for sample in file.read(book):
        counts.tasks[sample.task] += 1
        counts.per_sample[len(sample.images)] += 1
        counts.images.update(dict.fromkeys(sample.images))
        if sample.complete:
            counts.per_set[len(sample.boxes)] += 1
        if sample.boxes:
            scored = sample.boxes if sample.complete else sample.boxes[:1]
            counts.areas_of.setdefault(sample.task, []).extend(map(area, scored))
    if not counts.tasks:
        raise UnivgError("no sample could be read", file.path, "see `univg data validate`")
    return counts


def count_tokens(file: PublishedFile, states: Mapping[str, ImageState], count: CountTokens) -> list[int]:
    """Return the lengths of the prompts of all samples whose images are there."""
    found = ((sample, sizes_of(sample, states)) for sample in file.read(doing="counting"))
    return [count(sample, sizes) for sample, sizes in found if len(sizes) == len(sample.images)]


def find_quantile(values: Sequence[float], q: float) -> float | None:
    """Return the value below which a share `q` of the others lies; None of no values.

    >>> find_quantile([3, 1, 2, 4], 0.5)
    3
    """
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else None


def list_panels(counts: Counts, tokens: Sequence[int], max_pixels: int) -> dict[str, dict[str, int]]:
    """Return what bar charts of the counts show: each chart's title, and its bars."""
    areas = _bin(counts.areas, _AREAS, lambda share: f"{share:.1%}".replace(".0", ""))
    panels = {
        "samples per task": dict(counts.tasks.most_common(14)),
        "images per sample": {str(k): v for k, v in sorted(counts.per_sample.items())},
        "target's share of its image": areas,
    }
    if counts.per_set:
        panels["boxes of answers that are sets"] = {str(k): v for k, v in sorted(counts.per_set.items())}
    if tokens:
        panels[f"prompt tokens at {max_pixels} pixels an image"] = _bin(tokens, _TOKENS, str)
    return panels


def draw_samples(
    file: PublishedFile, n: int, seed: int, tasks: Sequence[str], book: FaultBook
) -> tuple[Image.Image, list[str]]:
    """Draw a contact sheet of `n` samples chosen by `seed`, of `tasks` (default: all).

    Returns it, and a line for each sample that could not be shown. Raises UnivgError if none could.
    """
    rng, seen = random.Random(f"univg show {seed}"), 0
    kept: list[tuple[int, GroundingSample]] = []
    for sample in file.read(book):
        if tasks and sample.task not in tasks:
            continue
        seen += 1
        if len(kept) < n:
            kept.append((seen, sample))
        elif (place := rng.randrange(seen)) < n:  # every sample is as likely, without holding them all
            kept[place] = (seen, sample)
    if not kept:
        asked = f" of the task {', '.join(tasks)}" if tasks else ""
        first = next((fault.cause for faults in book.first.values() for fault in faults), None)
        why = f" ({first})" if first else ""
        raise UnivgError(f"no sample{asked}{why}", file.path, "see `univg data validate`")
    root, missing = ImageRoot(file.images or ".", file.path), []
    cells: list[SheetCell] = []
    for _, sample in sorted(kept, key=lambda pair: pair[0]):
        try:
            cells.append(_draw_cell(root, sample))
        except ImageFault as error:
            missing.append(f"{sample.source}: {error}")
    if not cells:
        raise UnivgError(f"none of {len(kept)} samples could be shown: {missing[0]}")
    title = f"{file.path.name} · {len(cells)} of {seen} samples · seed {seed}"
    sheet, shown = draw_contact_sheet(cells, title)
    if shown < len(cells):
        book.notes.append(
            f"the sheet shows the first {shown} of the {len(cells)} chosen: more would be too high"
        )
    return sheet, missing


def _draw_cell(root: ImageRoot, sample: GroundingSample) -> SheetCell:
    thumbs = [fit(open_picture(root.path(name)).image, THUMB_PX) for name in sample.images]
    target, rule = decide_image(len(thumbs), sample.target_image, sample.query, sample.thought)
    placed = [(target if image is None else image, box) for image, box in sample.targets]
    on = [image for image, _ in sample.targets]
    stated = rule == "target" or (None not in on and (bool(on) or sample.complete))
    place = "" if stated else f" · image by {'the last' if rule == 'last' else rule}"
    if sample.complete:
        title = f"{sample.task} · {count_targets(placed)}{place}"
        return (
            draw_targets(thumbs, placed),
            None,
            {image for image, _ in placed},
            _list_lines(sample, title),
        )
    first = placed[0] if placed else (target, None)
    thumbs = draw_targets(thumbs, placed[1:], OTHERS)
    return thumbs, first[1], first[0], _list_lines(sample, sample.task + place)


def _list_lines(sample: GroundingSample, title: str) -> list[str]:
    return [line for line in (title, sample.query, sample.thought, sample.source) if line]


def _bin(values: Sequence[float], edges: Sequence[float], name: Callable[[float], str]) -> dict[str, int]:
    """Count the values up to each edge, and beyond the last; empty bins at the end are left out."""
    counts = [0] * (len(edges) + 1)
    for value in values:
        counts[sum(value > edge for edge in edges)] += 1
    names = [*(f"to {name(edge)}" for edge in edges), f"over {name(edges[-1])}"]
    last = max((i for i, count in enumerate(counts) if count), default=0)
    return dict(zip(names[: last + 1], counts[: last + 1], strict=True))
