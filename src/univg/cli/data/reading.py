"""Share what the verbs of `univg data` take that read a set, and how they print what is wrong with it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from univg.cli.verbs import Command, Parameter
from univg.errors import UnivgError, one_line

if TYPE_CHECKING:
    from PIL import Image
    from rich.console import Console

    from univg.data.published import FaultBook, PublishedFile

__all__ = [
    "Folder",
    "MeasureCommand",
    "Number",
    "Picture",
    "ReadCommand",
    "Root",
    "print_faults",
    "print_kinds",
    "say_replaced",
    "write_picture",
]

Root = Annotated[Path | None, Parameter(metavar="ROOT")]
Picture = Annotated[Path, Parameter(metavar="PNG")]
Folder = Annotated[Path, Parameter(metavar="DIR")]
Number = Annotated[int, Parameter(alias="-n")]
MOST_KINDS = 20
SEED = "The same seed gives the same result."


class ReadCommand(Command):
    """What every verb takes that reads a set."""

    positional: ClassVar[str | None] = "file"

    file: Annotated[Path, Parameter(metavar="FILE")] = Field(description="A published file or folder.")
    images: Root = Field(default=None, description="The folder the images lie under.")
    format: Annotated[str | None, Parameter(metavar="NAME")] = Field(
        default=None, description="See `univg data formats` (default: by its fields)."
    )
    complete: Annotated[bool, Parameter(negative="")] = Field(
        default=False, description="Answers hold all that is asked for: take them for sets."
    )

    def open(self) -> PublishedFile:
        """Open the file; UnivgError if there is none, or none of a known format, or if --out would replace it."""
        from univg.data.published import PublishedFile

        out = getattr(self, "out", None)
        if out is not None and out.exists() and self.file.exists() and out.samefile(self.file):
            raise UnivgError("this is what is read", f"--out {out}", "name another --out")
        return PublishedFile.open(self.file, self.format, self.images, self.complete)


class MeasureCommand(ReadCommand):
    """What verbs take that open images and count tokens."""

    min_pixels: int = Field(default=3136, ge=1, description="The pixel budget's lower end.")
    max_pixels: int = Field(default=401408, ge=1, description="The pixel budget's upper end.")
    tokenizer: Annotated[Path | None, Parameter(metavar="DIR")] = Field(
        default=None, description="A checkpoint whose tokenizer counts words (default: an estimate)."
    )
    workers: int = Field(default=4, ge=1, description="Images opened at once.")


def write_picture(picture: Image.Image | bytes, out: Path) -> None:
    """Write a picture (bytes: one in a file's form) of the kind that `out` ends in. Raises UnivgError if that fails."""
    from PIL import Image

    from univg.pictures.drawing import save_picture

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        save_picture(Image.open(io.BytesIO(picture)) if isinstance(picture, bytes) else picture, out)
    except (OSError, ValueError) as error:
        raise UnivgError(f"cannot be written ({error})", out, "name a .png file with --out") from error


def say_replaced(out: Path | None) -> str:
    """Return what to say behind the name of a file that will be written: that it replaces another, or nothing."""
    return " (replaced)" if out is not None and out.is_file() else ""


def print_kinds(console: Console, what: str, kinds: Mapping[str, Counter[str]]) -> None:
    """Print how many of each kind (`what`) each side holds; nothing of one kind, or of more than a screen takes in."""
    from rich.table import Table

    from univg.terminal import print_rich_table

    names = list(dict.fromkeys(name for counts in kinds.values() for name in sorted(counts)))
    if not 1 < len(names) <= MOST_KINDS:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(what)
    for side in kinds:
        table.add_column(side, justify="right")
    for name in names:
        table.add_row(name, *(str(counts[name]) for counts in kinds.values()))
    print_rich_table(console, table)


def print_faults(book: FaultBook, console: Console) -> None:
    """Print the notes of `book`, then its faults; nothing if there are none."""
    from rich.table import Table

    from univg.data.readers import FAULTS
    from univg.terminal import print_rich_table

    for note in book.notes:
        console.print(f"note: {one_line(note)}")
    if not book:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("fault")
    table.add_column("count", justify="right")
    table.add_column("what it means, and what to do")
    for kind, count in book.counts.most_common():
        meaning, fix = FAULTS[kind]
        table.add_row(kind, str(count), f"{meaning}: {book.first[kind][0].fix or fix}")
    print_rich_table(console, table)
    for kind, count in book.counts.most_common():
        for fault in book.first[kind]:
            console.print(f"  {kind}  {one_line(fault.record)}: {one_line(fault.cause)}")
        if count > len(book.first[kind]):
            console.print(f"  {kind}  … and {count - len(book.first[kind])} more")
