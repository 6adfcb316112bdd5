"""Run `univg data show`: a contact sheet of a set, to check by eye."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from univg.cli.data.reading import (
    SEED,
    Number,
    Picture,
    ReadCommand,
    Root,
    print_faults,
    say_replaced,
    write_picture,
)
from univg.cli.verbs import make_verb


class ShowCommand(ReadCommand):
    """What `univg data show` takes."""

    images: Root = Field(
        default=None, description="The folder the images lie under (default: FILE, or its folder)."
    )
    out: Picture = Field(default=Path("contact-sheet.png"), description="The picture to write.")
    n: Number = Field(default=24, ge=1, le=60, description="How many samples.")
    seed: int = Field(default=0, description=SEED)
    task: tuple[str, ...] = Field(
        default=(), description="Only this task; repeat for several (default: all)."
    )


def show(command: ShowCommand) -> int:
    """Draw a contact sheet: images, boxes and questions, to check by eye."""
    from univg.data.published import FaultBook
    from univg.data.viewing import draw_samples
    from univg.terminal import results

    book, console, replaced = FaultBook(), results(), say_replaced(command.out)
    sheet, missing = draw_samples(command.open().with_images(), command.n, command.seed, command.task, book)
    write_picture(sheet, command.out)
    for line in missing[:5]:
        console.print(f"not shown: {line}")
    console.print(f"to look at  {command.out}{replaced}")
    print_faults(book, console)
    return int(bool(missing) or bool(book.left_out))


app = make_verb("data show", ShowCommand, show)
