"""Run `univg merge`: one plain model of a LoRA adapter and its base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from univg.cli.stages import needing_packages
from univg.cli.verbs import Command, Parameter, make_verb


class MergeCommand(Command):
    """What `univg merge` takes."""

    positional: ClassVar[str | None] = "adapter"

    adapter: Annotated[str, Parameter(metavar="ADAPTER")] = Field(
        description="A LoRA adapter's folder or hub name."
    )
    out: Annotated[Path, Parameter(metavar="DIR")] = Field(description="Folder for the model.")
    model: str | None = Field(default=None, description="The base (default: the one that the adapter names).")
    dtype: str = Field(default="bfloat16", description="bfloat16 or float32.")


def merge_adapter(command: MergeCommand) -> None:
    """Make one plain model of a LoRA adapter and its base, and check that it answers as the two did."""
    from univg.files import check_writable

    check_writable(command.out)
    with needing_packages("merge"):
        from univg.training.merging import merge

        print(merge(command.adapter, command.out, base=command.model, dtype=command.dtype))
    print(f"model: {command.out}")


app = make_verb("merge", MergeCommand, merge_adapter)
