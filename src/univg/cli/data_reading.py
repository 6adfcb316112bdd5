"""What the verbs of `univg data` share: reading a file with a progress line, and keeping account of faults."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from univg.data.readers import FAULTS, READERS, RecordFault, detect, read
from univg.errors import UnivgError, one_line
from univg.grounding.samples import GroundingSample

SHOWN_OF_EACH = 5


class FaultBook:
    """Faults by kind: all counted, the first few of each kept, and each written to a file if one is given."""

    def __init__(self, file: IO[str] | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, list[RecordFault]] = {}
        self.left_out = 0
        self.notes: list[str] = []
        self._file = file

    def fault(self, fault: RecordFault) -> None:
        self.counts[fault.kind] += 1
        self.left_out += not fault.usable
        kept = self.first.setdefault(fault.kind, [])
        if len(kept) < SHOWN_OF_EACH:
            kept.append(fault)
        if self._file is not None:
            self._file.write(json.dumps(fault.to_json(), ensure_ascii=False) + "\n")

    def note(self, text: str) -> None:
        self.notes.append(text)

    def __len__(self) -> int:
        return self.counts.total()

    def tell(self, console: Console) -> None:
        """Notes, then a table of the faults with the first of each kind."""
        for note in self.notes:
            console.print(f"note: {one_line(note)}")
        if not self.counts:
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name, side in (("fault", "left"), ("count", "right"), ("what it means, and what to do", "left")):
            table.add_column(name, justify=side, overflow="fold")  # type: ignore[arg-type]
        for kind, count in self.counts.most_common():
            meaning, fix = FAULTS[kind]
            table.add_row(kind, str(count), f"{meaning}: {self.first[kind][0].fix or fix}")
        console.print(table)
        for kind, count in self.counts.most_common():
            for fault in self.first[kind]:
                console.print(f"  {kind}  {one_line(fault.record)}: {one_line(fault.cause)}")
            if count > len(self.first[kind]):
                console.print(f"  {kind}  … and {count - len(self.first[kind])} more")


def screen() -> Console:
    return Console(soft_wrap=True, highlight=False, markup=False)


@contextmanager
def told() -> Iterator[None]:
    """Reading errors become the command's own."""
    try:
        yield
    except UnivgError as error:
        raise UnivgError(str(error)) from error


def chosen_format(file: Path, name: str | None) -> str:
    """The format named, or the one found out. `UnivgError` if it does not exist, or none fits."""
    with told():
        if name is not None and name not in READERS:
            raise UnivgError(f"no such format: --format {name}: choose from {', '.join(READERS)}")
        if not file.exists():
            raise UnivgError(f"no such file: {file}: check the path")
        return name or detect(file)


def samples_of(
    file: Path, name: str, images: Path | None, book: FaultBook, say: str = "reading"
) -> Iterator[GroundingSample]:
    """The samples of `file`, its faults and notes in `book`, a counter on stderr."""
    with told():
        yield from counted(read(file, name, images, book.fault, book.note), say)


def _progress(*columns: ProgressColumn) -> Progress:
    """On stderr while somebody looks, gone afterwards; a log file gets none of it."""
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def counted(samples: Iterable[GroundingSample], say: str) -> Iterator[GroundingSample]:
    columns = (TextColumn(say), TextColumn("{task.completed} records"))
    with _progress(*columns) as progress:
        bar = progress.add_task(say, total=None)
        for sample in samples:
            yield sample
            progress.advance(bar)


@contextmanager
def progress_bar(say: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr; call what it gives once for each thing done."""
    columns = (TextColumn(say), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with _progress(*columns) as progress:
        bar = progress.add_task(say, total=total)
        yield lambda: progress.advance(bar)
