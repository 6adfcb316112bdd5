"""Run `univg merge`: one plain model of a LoRA adapter and its base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from univg.cli.stages import needing_packages
from univg.cli.verbs import Command, Parameter, make_verb
from univg.errors import UnivgError
from univg.terminal import notes


class MergeCommand(Command):
    """What `univg merge` takes."""

    positional: ClassVar[str | None] = "adapter"

    adapter: Annotated[str, Parameter(metavar="ADAPTER")] = Field(
        description="A LoRA adapter's folder or hub name."
    )
    out: Annotated[Path, Parameter(metavar="DIR")] = Field(description="Folder for the model.")
    model: str | None = Field(default=None, description="The base (default: the one that the adapter names).")
    dtype: str = Field(default="bfloat16", description="bfloat16 or float32.")
    push_to_hub: Annotated[str | None, Parameter(metavar="NAME")] = Field(
        default=None, description="Push the model to this repository of the hub, such as org/name."
    )
    private: Annotated[bool, Parameter(negative="")] = Field(
        default=False, description="With --push-to-hub: the repository is private."
    )

    @model_validator(mode="after")
    def _private_is_a_repository(self) -> Self:
        if self.private and self.push_to_hub is None:
            raise UnivgError("nothing is pushed", "--private", "give --push-to-hub NAME, or leave it out")
        return self


def merge_adapter(command: MergeCommand) -> None:
    """Make one plain model of a LoRA adapter and its base, and check that it answers as the two did."""
    from univg.files import check_writable

    check_writable(command.out)
    hub, there = None, {path.name for path in command.out.glob("*")}
    if command.push_to_hub is not None:
        from univg.data.pushing import HubTarget, make_repository, push_files

        hub = make_repository(HubTarget(command.push_to_hub), "--push-to-hub", command.private or None)
    with needing_packages("merge"):
        from univg.training.merging import merge

        print(merge(command.adapter, command.out, base=command.model, dtype=command.dtype))
    print(f"model: {command.out}")
    if hub is not None:
        names = sorted(path.name for path in command.out.iterdir() if path.name not in there)
        push_files(hub, command.out, names, "univg merge", "the model is finished", notes())


app = make_verb("merge", MergeCommand, merge_adapter)
