"""Run `univg data build`: multi-image grounding tasks of any detection set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from univg.cli.data.reading import SEED, Folder, Number, Root, print_faults
from univg.cli.verbs import Command, Parameter, make_verb


class BuildCommand(Command):
    """What `univg data build` takes."""

    positional: ClassVar[str | None] = "file"

    file: Annotated[Path, Parameter(metavar="FILE")] = Field(
        description="A COCO file, a VOC or YOLO folder, a table of boxes (CSV)."
    )
    out: Folder = Field(description="Folder to write.")
    images: Root = Field(default=None, description="The folder the images lie under.")
    n: Number = Field(default=100, ge=1, description="How many tasks.")
    seed: int = Field(default=0, description=SEED)
    family: tuple[str, ...] = Field(
        default=(), description="A task family; repeat for several (default: all)."
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
    format: Annotated[str | None, Parameter(metavar="NAME")] = Field(
        default=None, description="See `univg data formats` (default: by its fields)."
    )


def build(command: BuildCommand) -> int:
    """Make multi-image grounding tasks of any detection set: samples.jsonl, images, a contact sheet."""
    from univg.data.building.writing import SAMPLES, SHEET, BuildPlan, write_tasks
    from univg.data.published import FaultBook
    from univg.terminal import results

    out, book, console = command.out, FaultBook(), results()
    plan = BuildPlan(
        *(command.n, command.seed, command.family, command.ordered, command.rename, command.link),
        format=command.format,
    )
    written = write_tasks(command.file, command.images, out, plan, book)
    console.print(f"{written} samples  {out / SAMPLES}")
    console.print(f"images      {out / 'images'}")
    if written:
        console.print(f"to look at  {out / SHEET}")
    print_faults(book, console)
    return int(written < command.n)


app = make_verb("data build", BuildCommand, build, example="univg data build VOC2012 --out tasks --n 1000")
