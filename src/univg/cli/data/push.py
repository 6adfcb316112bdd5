"""Run `univg data push`: a set on a hub, with its pictures and a card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from univg.cli.data.reading import ReadCommand, print_faults
from univg.cli.verbs import Parameter, make_verb
from univg.errors import UnivgError


class PushCommand(ReadCommand):
    """What `univg data push` takes."""

    positional: ClassVar[str | None] = "file"

    to: Annotated[str, Parameter(metavar="NAME")] = Field(
        description="The repository of data, such as org/name; it is made if it is not there."
    )
    out: Annotated[Path | None, Parameter(metavar="DIR")] = Field(
        default=None, description="The folder that is written first (default: the repository's name)."
    )
    license: str | None = Field(
        default=None, description="As the hub calls it, such as cc-by-4.0; the pictures' counts as well."
    )
    private: Annotated[bool, Parameter(negative="")] = Field(
        default=False, description="Make the repository private."
    )
    revision: str | None = Field(default=None, description="A branch, which is made.")
    split: Literal["train", "validation", "test"] = Field(
        default="train", description="Which part of the set this is."
    )
    dry_run: Annotated[bool, Parameter(negative="")] = Field(
        default=False, description="Write the folder, and push nothing."
    )


def push(command: PushCommand) -> int:
    """Write a set as Parquet with its pictures and a card, and push it to a hub. What is left out is told; exit code 1.

    Log in with `hf auth login` or HF_TOKEN. Where the push fails, the folder stays, and the error says how to push it.
    """
    from univg.data.exports.hub import HubSet, write_hub
    from univg.data.exports.settings import Export, check_folder
    from univg.data.published import FaultBook
    from univg.data.pushing import HubTarget, find_splits, make_repository, push_files
    from univg.data.readers import ImageRoot
    from univg.files import unwritable
    from univg.terminal import notes, results

    if command.images is None:
        raise UnivgError("the pictures go with the set", "--images", "say where they lie: --images ROOT")
    name = command.to.rpartition("/")[2]
    out = command.out or Path(name)
    check_folder(out)
    splits: list[str] = [command.split]
    opened, target = command.open(), HubTarget(command.to, command.revision, "dataset")
    if not command.dry_run:
        target = make_repository(target, "univg data push", command.private or None)
        splits += [split for split in find_splits(target) if split != command.split]
    book = FaultBook()
    how = Export(images=ImageRoot(command.images, command.file), on_fault=book.add, split=command.split)
    about = HubSet(name, f"`{command.file.name}`, format `{opened.format}`", command.license, splits)
    try:
        names = write_hub(out, opened.read(book, "writing"), how, about)
    except OSError as error:
        raise unwritable(out, error) from error
    console, written = results(), about.tasks.total()
    console.print(f"{written} samples  {out}")
    print_faults(book, console)
    if not written:
        raise UnivgError("no record could be written, and nothing was pushed", command.file)
    if not command.dry_run:
        older = [f"data/{command.split}-*"]  # parts of another number would count as well
        push_files(target, out, names, f"{written} samples", "the set is written", notes(), older)
    return int(bool(book.left_out))


app = make_verb(
    "data push",
    PushCommand,
    push,
    example="univg data push thoughts/samples.jsonl --images thoughts --to org/thoughts --license cc-by-4.0",
)
