"""`univg data stats` and `univg data show`: a set in numbers, and before one's eyes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw
from rich.table import Table

from univg.cli.data_reading import FaultBook, chosen_format, samples_of, screen
from univg.cli.data_tokens import TokenCounter
from univg.cli.data_validate import ImageState, check_images
from univg.data.readers import READERS, ImageRoot
from univg.errors import UnivgError
from univg.grounding.boxes import area
from univg.grounding.mentions import which_image
from univg.grounding.samples import GroundingSample
from univg.pictures.drawing import (
    FAINT,
    HAIRLINE,
    INK,
    OTHERS,
    WHITE,
    SheetCell,
    beside,
    contact_sheet,
    draw_box,
    fit,
    padded,
    save_atomically,
    stack,
    text_block,
)
from univg.pictures.images import ImageFault, open_picture

THUMB_PX = 220
MOST_CELLS = 60

_AREAS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
_TOKENS = (256, 512, 1024, 1536, 2048, 3072, 4096, 6000)


def stats(
    file: Path,
    images: Path | None,
    name: str | None,
    out: Path | None,
    budget: tuple[int, int],
    tokenizer: Path | None,
    workers: int,
) -> int:
    """Print the tables, write the picture; returns how many records could not be used."""
    kind, book, console = chosen_format(file, name), FaultBook(), screen()
    tasks: Counter[str] = Counter()
    per_sample: Counter[int] = Counter()
    by_task: dict[str, list[float]] = {}
    names: dict[str, None] = {}
    for sample in samples_of(file, kind, images, book):
        tasks[sample.task] += 1
        per_sample[len(sample.images)] += 1
        names.update(dict.fromkeys(sample.images))
        if sample.boxes:
            by_task.setdefault(sample.task, []).append(area(sample.boxes[0]))
    if not tasks:
        raise UnivgError(f"no sample could be read: {file}: see `univg data validate`")
    tokens: list[int] = []
    if images is not None:
        states = check_images(names, images, workers, headers_only=True)
        tokens = _tokens(samples_of(file, kind, images, FaultBook(), "counting"), states, budget, tokenizer)
    areas = [value for values in by_task.values() for value in values]
    console.print(f"{file}: {kind} ({READERS[kind].title})")
    console.print(f"{tasks.total()} samples, {len(names)} images, {book.left_out} records unusable")
    console.print(_task_table(tasks, by_task))
    for title, value in _lines(per_sample, areas, tokens, budget):
        console.print(f"{title:18} {value}")
    book.tell(console)
    if images is None:
        console.print("note: prompt tokens need the images: name their folder with --images")
    if out is not None:
        panels = [("samples per task", dict(tasks.most_common(14)))]
        panels.append(("images per sample", {str(k): v for k, v in sorted(per_sample.items())}))
        panels.append(
            ("target's share of its image", _binned(areas, _AREAS, lambda v: f"{v:.1%}".replace(".0", "")))
        )
        if tokens:
            panels.append((f"prompt tokens at {budget[1]} pixels an image", _binned(tokens, _TOKENS, str)))
        console.print(f"picture  {_save(_charts(f'{file.name} · {tasks.total()} samples', panels), out)}")
    return book.left_out


def _tokens(
    samples: Iterable[GroundingSample],
    states: Mapping[str, ImageState],
    budget: tuple[int, int],
    tokenizer: Path | None,
) -> list[int]:
    """Of the samples whose images are all there."""
    counter = TokenCounter(*budget, tokenizer)
    counts = []
    for sample in samples:
        sizes = [size for name in sample.images if (size := states[name].size_wh) is not None]
        if len(sizes) == len(sample.images):
            counts.append(counter.prompt(sample, sizes))
    return counts


def _task_table(tasks: Counter[str], by_task: Mapping[str, Sequence[float]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("task", "samples", "share", "median target area"):
        table.add_column(name, justify="left" if name == "task" else "right")
    for task, count in tasks.most_common():
        middle = _quantile(by_task.get(task, ()), 0.5)
        share = f"{count / tasks.total():.1%}"
        table.add_row(task, str(count), share, "-" if middle is None else f"{middle:.1%}")
    return table


def _lines(
    per_sample: Counter[int], areas: Sequence[float], tokens: Sequence[int], budget: tuple[int, int]
) -> list[tuple[str, str]]:
    shown = ", ".join(f"{count} with {k}" for k, count in sorted(per_sample.items()))
    lines = [("images per sample", shown)]
    if areas:
        parts = [f"{q:.0%}: {_quantile(areas, q) or 0:.2%}" for q in (0.05, 0.25, 0.5, 0.75, 0.95)]
        lines.append(("target areas", ", ".join(parts)))
    if tokens:
        parts = [f"{q:.0%}: {_quantile(tokens, q) or 0:.0f}" for q in (0.05, 0.5, 0.95)]
        lines.append(
            ("prompt tokens", ", ".join(parts) + f", most: {max(tokens)} ({budget[0]}–{budget[1]} pixels)")
        )
    return lines


def _quantile(values: Sequence[float], q: float) -> float | None:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else None


def _binned(values: Sequence[float], edges: Sequence[float], name: Callable[[float], str]) -> dict[str, int]:
    """How many values lie up to each edge, and beyond the last."""
    counts = [0] * (len(edges) + 1)
    for value in values:
        counts[sum(value > edge for edge in edges)] += 1
    names = [*(f"to {name(edge)}" for edge in edges), f"over {name(edges[-1])}"]
    last = max((i for i, count in enumerate(counts) if count), default=0)
    return dict(zip(names[: last + 1], counts[: last + 1], strict=True))


def _charts(title: str, panels: Sequence[tuple[str, Mapping[str, int]]]) -> Image.Image:
    """Bar charts, two in a row."""
    drawn = [_bars(name, bars) for name, bars in panels]
    rows = [beside(drawn[i : i + 2], 48) for i in range(0, len(drawn), 2)]
    head = text_block([title], max(row.width for row in rows), 26, INK)
    return padded(stack([head, *rows], 32), 32)


def _bars(title: str, bars: Mapping[str, int], width: int = 560) -> Image.Image:
    step, label_width, number_width = 30, 190, 70
    most = max(bars.values(), default=1) or 1
    chart = Image.new("RGB", (width, step * max(1, len(bars))), WHITE)
    pen = ImageDraw.Draw(chart)
    long = width - label_width - number_width
    for i, (label, count) in enumerate(bars.items()):
        y = i * step
        chart.paste(text_block([label[:24]], label_width - 12, 16, INK), (0, y + 3))
        pen.line((label_width, y, label_width, y + step), fill=HAIRLINE)
        if count:
            pen.rectangle(
                (label_width, y + 5, label_width + max(2, long * count // most), y + step - 6), fill=OTHERS
            )
        chart.paste(
            text_block([str(count)], number_width - 8, 15, FAINT),
            (label_width + long * count // most + 8, y + 4),
        )
    return stack([text_block([title], width, 18, INK), chart], 8)


# --- show ---


def show(
    file: Path, images: Path, name: str | None, out: Path, n: int, seed: int, tasks: Sequence[str]
) -> int:
    """Write a contact sheet of `n` samples drawn with `seed`; returns how many could not be shown."""
    kind, book, console = chosen_format(file, name), FaultBook(), screen()
    rng, seen = random.Random(f"univg show {seed}"), 0
    kept: list[tuple[int, GroundingSample]] = []
    for sample in samples_of(file, kind, images, book):
        if tasks and sample.task not in tasks:
            continue
        seen += 1
        if len(kept) < n:
            kept.append((seen, sample))
        elif (place := rng.randrange(seen)) < n:  # every sample is as likely, without holding them all
            kept[place] = (seen, sample)
    if not kept:
        asked = f" of the task {', '.join(tasks)}" if tasks else ""
        raise UnivgError(f"no sample{asked}: {file}: see `univg data stats`")
    root, cells, missing = ImageRoot(images), [], []
    for _, sample in sorted(kept, key=lambda pair: pair[0]):
        try:
            cells.append(_cell(root, sample))
        except ImageFault as error:
            missing.append(f"{sample.source}: {error}")
    for line in missing[:5]:
        console.print(f"not shown: {line}")
    if not cells:
        raise UnivgError(f"none of {len(kept)} samples could be shown: {missing[0]}")
    title = f"{file.name} · {len(cells)} of {seen} samples · seed {seed}"
    console.print(f"to look at  {_save(contact_sheet(cells, 2, THUMB_PX, title), out)}")
    book.tell(console)
    return len(missing)


def _cell(root: ImageRoot, sample: GroundingSample) -> SheetCell:
    thumbs = [fit(open_picture(root.path(name)).image, THUMB_PX) for name in sample.images]
    target, rule = which_image(len(thumbs), sample.target_image, sample.query, sample.thought)
    for box in sample.boxes[1:]:
        thumbs[target] = draw_box(thumbs[target], box, colour=OTHERS)
    place = "" if rule == "target" else f" · image by {'the last' if rule == 'last' else rule}"
    lines = [f"{sample.task}{place}", sample.query, sample.thought or "", sample.source]
    return thumbs, sample.boxes[0] if sample.boxes else None, target, [line for line in lines if line]


def _save(image: Image.Image, out: Path) -> Path:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return save_atomically(image, out)
    except (OSError, ValueError) as error:
        raise UnivgError(f"cannot be written ({error}): {out}: name a .png file with --out") from error
