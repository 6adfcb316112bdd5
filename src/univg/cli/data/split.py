"""Run `univg data split`: training and test samples that share no picture."""

from __future__ import annotations

from pydantic import Field

from univg.cli.data.reading import SEED, Folder, ReadCommand, print_faults
from univg.cli.verbs import make_verb


class SplitCommand(ReadCommand):
    """What `univg data split` takes."""

    out: Folder = Field(description="Folder to write.")
    test: float = Field(default=0.1, ge=0, le=1, description="Share of the samples to test on.")
    seed: int = Field(default=0, description=SEED)


def split(command: SplitCommand) -> int:
    """Write train.jsonl and test.jsonl that share no picture (with --images: no picture's content)."""
    from univg.data.published import FaultBook
    from univg.data.splitting import write_split
    from univg.terminal import results

    book, console = FaultBook(), results()
    found = write_split(command.open(), command.out, command.test, command.seed, book)
    console.print(f"{found.train} samples  {command.out / 'train.jsonl'}")
    console.print(f"{found.test} samples  {command.out / 'test.jsonl'}")
    share = found.test / max(1, found.train + found.test)
    how = "file content" if command.images is not None else "path"
    console.print(
        f"{found.groups} groups of samples that share pictures (compared by {how}), the largest of "
        f"{found.largest}; test share {share:.1%}, asked for {command.test:.1%}"
    )
    print_faults(book, console)
    return int(bool(book.left_out) or not found.train + found.test)


app = make_verb("data split", SplitCommand, split)
