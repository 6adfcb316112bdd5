"""Run `univg data convert`: a set in the format of another framework."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from univg.cli.data.reading import ReadCommand, print_faults
from univg.cli.verbs import Parameter, make_verb
from univg.errors import UnivgError


class ConvertCommand(ReadCommand):
    """What `univg data convert` takes."""

    to: Literal["jsonl", "sharegpt", "llamafactory", "trl", "verl", "easyr1"] = Field(
        description="The format to write."
    )
    out: Annotated[Path, Parameter(metavar="FILE")] = Field(description="The file to write.")
    style: Literal["think", "direct"] = Field(
        default="think", description="Ask for a thought and a box, or for a box alone."
    )
    embed_images: Annotated[bool, Parameter(negative="")] = Field(
        default=False, description="Put images into the rows (verl, easyr1)."
    )


def convert(command: ConvertCommand) -> int:
    """Write a set in another framework's format. What cannot be written is told; exit code 1 then."""
    from univg.data.exports import SUFFIXES, Export, export
    from univg.data.published import FaultBook
    from univg.data.readers import ImageRoot
    from univg.files import unwritable
    from univg.terminal import results

    to, out = command.to, command.out
    if out.suffix != SUFFIXES[to]:
        remedy = f"name it {out.with_suffix(SUFFIXES[to])}"
        raise UnivgError(f"{to} files end in {SUFFIXES[to]}", f"--out {out}", remedy)
    if command.embed_images and (command.images is None or to not in ("verl", "easyr1")):
        cause = "images can be embedded for verl and easyr1, with --images"
        raise UnivgError(cause, "--embed-images", "leave it out")
    book, root = FaultBook(), None if command.images is None else ImageRoot(command.images, command.file)
    samples = command.open().read(book, "converting")
    try:
        written = export(samples, to, out, Export(command.style, root, command.embed_images, book.add))
    except OSError as error:
        raise unwritable(out, error) from error
    console = results()
    console.print(f"{written} samples  {out}")
    if to == "llamafactory":
        console.print(f"entry       {out.with_name('dataset_info.json')} (dataset: {out.stem})")
    print_faults(book, console)
    if not written:
        console.print("no record could be written: the file is empty")
    return int(bool(book.left_out) or not written)


app = make_verb(
    "data convert",
    ConvertCommand,
    convert,
    example="univg data convert MIG_data.json --to trl --out mig.jsonl",
)
