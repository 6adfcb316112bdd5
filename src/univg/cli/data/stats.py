"""Run `univg data stats`: a set in numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from univg.cli.data.reading import MeasureCommand, Picture, print_faults, say_replaced, write_picture
from univg.cli.verbs import make_verb

if TYPE_CHECKING:
    from rich.table import Table

    from univg.data.viewing import Counts


class StatsCommand(MeasureCommand):
    """What `univg data stats` takes."""

    out: Picture | None = Field(default=None, description="Draw the counts there.")


def count(command: StatsCommand) -> int:
    """Count: samples per task, images per sample, box sizes, prompt tokens for a pixel budget."""
    from univg.cli.data.tokens import make_counter
    from univg.data.published import FaultBook
    from univg.data.readers import READERS
    from univg.data.validating import check_images
    from univg.data.viewing import count_samples, count_tokens, list_panels
    from univg.report.plots import draw_bars
    from univg.terminal import print_rich_table, results

    opened, book, console = command.open(), FaultBook(), results()
    replaced = say_replaced(command.out)
    counts, tokens = count_samples(opened, book), []
    if command.images is not None:
        counter = make_counter(command.min_pixels, command.max_pixels, command.tokenizer)
        states = check_images(counts.images, command.images, command.workers, headers_only=True)
        tokens = count_tokens(opened, states, counter)
    total = counts.tasks.total()
    console.print(f"{command.file}: {opened.format} ({READERS[opened.format].title})")
    console.print(f"{total} samples, {len(counts.images)} images, {book.left_out} records unusable")
    print_rich_table(console, _make_table(counts))
    for title, value in _describe(counts, tokens, f"{command.min_pixels}–{command.max_pixels} pixels"):
        console.print(f"{title:18} {value}")
    print_faults(book, console)
    if command.images is None:
        console.print("note: prompt tokens need the images: name their folder with --images")
    if command.out is not None:
        title = f"{command.file.name} · {total} samples"
        write_picture(draw_bars(title, list_panels(counts, tokens, command.max_pixels)), command.out)
        console.print(f"picture  {command.out}{replaced}")
    return int(bool(book.left_out))


def _make_table(counts: Counts) -> Table:
    from rich.table import Table

    from univg.data.viewing import find_quantile

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("task", "samples", "share", "median target area"):
        table.add_column(name, justify="left" if name == "task" else "right")
    for task, number in counts.tasks.most_common():
        middle = find_quantile(counts.areas_of.get(task, ()), 0.5)
        share = f"{number / counts.tasks.total():.1%}"
        table.add_row(task, str(number), share, "-" if middle is None else f"{middle:.1%}")
    return table


def _describe(counts: Counts, tokens: Sequence[int], budget: str) -> Iterator[tuple[str, str]]:
    from univg.data.viewing import find_quantile

    yield "images per sample", ", ".join(f"{n} with {k}" for k, n in sorted(counts.per_sample.items()))
    if counts.per_set:
        yield "boxes of sets", ", ".join(f"{n} with {k}" for k, n in sorted(counts.per_set.items()))
    if areas := counts.areas:
        parts = [f"{q:.0%}: {find_quantile(areas, q):.2%}" for q in (0.05, 0.25, 0.5, 0.75, 0.95)]
        yield "target areas", ", ".join(parts)
    if tokens:
        parts = [f"{q:.0%}: {find_quantile(tokens, q):.0f}" for q in (0.05, 0.5, 0.95)]
        yield "prompt tokens", ", ".join([*parts, f"most: {max(tokens)} ({budget})"])


app = make_verb("data stats", StatsCommand, count)
