"""Run `univg world`: samples of the procedural world, written where a person can look at them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from univg.cli.verbs import Command, Parameter, make_verb


class WorldCommand(Command):
    """What `univg world` takes."""

    out: Annotated[Path, Parameter(metavar="DIR")] = Field(description="Folder to write.")
    n: Annotated[int, Parameter(alias="-n")] = Field(
        default=13, ge=1, description="How many samples, the families in turn."
    )
    split: Literal["train", "test", "unseen", "drawn"] = Field(
        default="train", description="Which disjoint part; drawn: by other programs, never trained on."
    )
    seed: int = Field(default=0, ge=0, description="The same seed gives the same pixels and words.")
    family: tuple[str, ...] = Field(
        default=(),
        description="A task family; repeat for several (default: all of one box; sets: all of sets).",
    )
    size: int | None = Field(
        default=None,
        ge=28,
        le=4096,
        description="Images' longer side in pixels (default: 60 to 1000; of version 1 448).",
    )
    difficulty: float | None = Field(
        default=None, ge=0, le=1, description="Distractors, object size, viewpoint change."
    )
    world_version: Literal[1, 2] = Field(
        default=2, description="1: the first world, kept for comparison to the last pixel."
    )


def write(command: WorldCommand) -> None:
    """Write samples of the procedural world: samples.jsonl, images, and a contact sheet to check by eye."""
    from univg.terminal import notes
    from univg.world import DEFAULT_DIFFICULTY, DRAWN
    from univg.world.drawn import tell_missing
    from univg.world.writing import SAMPLES, SHEET, write_world

    out = command.out
    difficulty = DEFAULT_DIFFICULTY if command.difficulty is None else command.difficulty
    if command.split == DRAWN and (missing := tell_missing()):
        notes().print(f"note: {missing}")
    written = write_world(
        out,
        command.n,
        command.split,
        command.seed,
        command.family,
        command.size,
        difficulty,
        command.world_version,
    )
    print(f"{written} samples  {out / SAMPLES}")
    print(f"images      {out / 'images'}")
    print(f"to look at  {out / SHEET}")


app = make_verb("world", WorldCommand, write)
