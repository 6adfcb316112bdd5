"""Run `univg data split`: training and test samples that share no picture."""

from __future__ import annotations

from pydantic import Field

from univg.cli.data.reading import SEED, Folder, ReadCommand, print_faults, print_kinds
from univg.cli.verbs import make_verb


class SplitCommand(ReadCommand):
    """What `univg data split` takes."""

    out: Folder = Field(description="Folder to write.")
    test: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Share of the samples (of a detection set: photographs) to test on.",
    )
    seed: int = Field(default=0, description=SEED)


def split(command: SplitCommand) -> int:
    """Write train and test files that share no picture (with --images: no picture's content).

    Of a detection set they are COCO files of the photographs of each side, for `univg data build` and `convert`.
    Exit code 1 if the share is missed by more than half, or a task family is missing on a side.
    """
    from univg.data.detection import DETECTION
    from univg.data.published import FaultBook
    from univg.data.splitting import write_split
    from univg.terminal import results

    book, console, opened = FaultBook(), results(), command.open()
    photographs = opened.format in DETECTION
    if photographs and opened.path.is_dir():
        opened = opened.with_images()
    found, files = write_split(opened, command.out, command.test, command.seed, book)
    for side, file in files.items():
        console.print(f"{found.sizes[side]} {'photographs' if photographs else 'samples'}  {file}")
    how = "path" if opened.images is None else "file content"
    alike = "copies and frames of one video" if photographs else "samples that share pictures"
    share = found.sizes["test"] / max(1, found.total)
    console.print(
        f"{found.groups} groups of {alike} (compared by {how}), the largest of {found.largest}; "
        f"test share {share:.1%}, asked for {command.test:.1%}"
    )
    print_kinds(console, "category" if photographs else "family", found.kinds)
    missing = [] if photographs else found.list_missing()
    if found.total and (missing or found.misses_share()):
        said = f"{command.test:.1%} were to be split off, and {share:.1%} are"
        console.print(f"NOT AS ASKED: {'; '.join([said, *missing])}")
        console.print(
            f"  why: {alike} stay together, and the largest group holds {found.largest} of {found.total}"
        )
        first = (
            f"divide photographs before tasks are made of them: univg data build SET --test {command.test:g}"
        )
        console.print(f"  what helps: {'' if photographs else f'{first}; else '}another --test or --seed")
    if photographs and found.total:
        console.print(
            f"next: univg data build {files['train']} --images {opened.images or 'ROOT'} --out tasks"
        )
    print_faults(book, console)
    return int(bool(book.left_out) or bool(missing) or found.misses_share() or not found.total)


app = make_verb(
    "data split", SplitCommand, split, example="univg data split MIG_data.json --out split --test 0.2"
)
