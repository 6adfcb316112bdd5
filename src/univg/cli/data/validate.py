"""Run `univg data validate`: everything about a file that would stop or spoil a run, before any GPU starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

from pydantic import Field

from univg.cli.data.reading import MeasureCommand, print_faults, say_replaced
from univg.cli.verbs import Parameter, make_verb
from univg.errors import UnivgError


class ValidateCommand(MeasureCommand):
    """What `univg data validate` takes."""

    headers_only: Annotated[bool, Parameter(negative="")] = Field(
        default=False, description="Read images' headers without decoding them."
    )
    max_tokens: int = Field(default=6000, ge=1, description="Longest prompt, in tokens.")
    out: Annotated[Path | None, Parameter(metavar="JSONL")] = Field(
        default=None, description="Write every fault there, one a line."
    )


def validate(command: ValidateCommand) -> int:
    """Find what would stop or spoil a run: boxes, images, tags, scale, prompt length. Exit code 1 on faults."""
    from univg.cli.data.tokens import make_counter
    from univg.data.published import FaultBook
    from univg.data.readers import READERS
    from univg.data.validating import check_images, check_prompts, check_samples
    from univg.terminal import results

    opened, replaced = command.open(), say_replaced(command.out)
    with _open_list(command.out) as file:
        book = FaultBook(file)
        count, images = check_samples(opened, book)
        spoilt = 0
        if command.images is not None:
            count_tokens = make_counter(command.min_pixels, command.max_pixels, command.tokenizer)
            states = check_images(images, command.images, command.workers, command.headers_only)
            spoilt = check_prompts(opened, states, count_tokens, command.max_tokens, book)
        else:
            book.notes.append("images and prompt lengths were not checked: name their folder with --images")
    console = results()
    console.print(f"{command.file}: {opened.format} ({READERS[opened.format].title})")
    found = "1 fault" if len(book) == 1 else f"{len(book)} faults" if book else "no faults"
    lost = f" and {spoilt} for a missing or bad image" if spoilt else ""
    console.print(f"{count} samples of {len(images)} images, {book.left_out} unusable{lost}, {found}")
    print_faults(book, console)
    if count == spoilt:
        console.print("no sample is left: nothing of this file can be taught or asked")
    if command.out is not None:
        console.print(f"all faults, one a line: {command.out}{replaced}")
    return int(bool(book) or not count)


@contextmanager
def _open_list(out: Path | None) -> Iterator[IO[str] | None]:
    """Open the file for faults, which is there once it is whole."""
    from univg.files import replacing

    if out is None:
        yield None
        return
    try:
        if not out.parent.is_dir():
            raise NotADirectoryError(20, "no such folder")
        with (
            replacing(out) as partial,
            partial.open("w", encoding="utf-8", errors="backslashreplace") as file,
        ):
            yield file
    except OSError as error:
        raise UnivgError(f"cannot be written ({error.strerror})", out, "name another --out") from error


app = make_verb(
    "data validate",
    ValidateCommand,
    validate,
    example="univg data validate MIG_data.json --images MIG-Bench",
)
