"""Run `univg data build`: multi-image grounding tasks of any detection set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from univg.cli.data.reading import SEED, Folder, Number, Root, print_faults, print_kinds
from univg.cli.verbs import Command, Parameter, make_verb


class BuildCommand(Command):
    """What `univg data build` takes."""

    positional: ClassVar[str | None] = "file"

    file: Annotated[Path, Parameter(metavar="FILE")] = Field(
        description="A COCO file, a VOC or YOLO folder, a table of boxes (CSV)."
    )
    out: Folder = Field(description="Folder to write.")
    images: Root = Field(
        default=None, description="The folder the images lie under (default: FILE, or its folder)."
    )
    n: Number = Field(default=100, ge=1, description="How many tasks, of all sides together.")
    test: float = Field(
        default=0, ge=0, lt=1, description="Share of the photographs, and of the tasks, to test on."
    )
    validation: float = Field(default=0, ge=0, lt=1, description="The same for watching a training run.")
    seed: int = Field(default=0, description=SEED)
    family: tuple[str, ...] = Field(
        default=(),
        description="A task family; repeat for several (default: all but referring, find_all and absent).",
    )
    ordered: Annotated[bool, Parameter(negative="")] = Field(
        default=False, description="The files of each folder are frames, in order of their names."
    )
    rename: Annotated[tuple[str, ...], Parameter(metavar="OLD=NEW")] = Field(
        default=(), description="Call a category otherwise, as people say it; repeat for several."
    )
    link: Annotated[bool, Parameter(negative="")] = Field(
        default=False, description="Hard-link images instead of copying them."
    )
    longest: int | None = Field(
        default=None,
        ge=64,
        description="Shrink pictures whose longer side has more pixels (training opens each many times).",
    )
    format: Annotated[str | None, Parameter(metavar="NAME")] = Field(
        default=None, description="See `univg data formats` (default: by its fields)."
    )


def build(command: BuildCommand) -> int:
    """Make multi-image grounding tasks of any detection set: samples.jsonl, images, a contact sheet.

    With --test (and --validation) the photographs are divided first, copies and frames of one video together, and
    train.jsonl, test.jsonl are made of photographs of their own.
    """
    from univg.data.building.writing import BuildPlan, write_tasks
    from univg.data.published import FaultBook
    from univg.terminal import results

    out, book, console = command.out, FaultBook(), results()
    plan = BuildPlan(
        *(command.n, command.seed, command.family, command.ordered, command.rename, command.link),
        *(command.format, command.validation, command.test, command.longest),
    )
    sides = write_tasks(command.file, command.images, out, plan, book)
    for side in sides:
        of = f" of {side.photographs} photographs" if plan.shares else ""
        console.print(f"{side.families.total()} samples{of}  {side.file}")
    console.print(f"images      {out / 'images'}")
    for side in sides:
        if side.families:
            console.print(f"to look at  {side.sheet}")
    if plan.shares:
        print_kinds(console, "family", {side.name: side.families for side in sides})
    print_faults(book, console)
    short = any(side.families.total() < side.wanted for side in sides)
    return int(short or bool(book.left_out))


app = make_verb(
    "data build", BuildCommand, build, example="univg data build VOC2012 --out tasks --n 1000 --test 0.2"
)
