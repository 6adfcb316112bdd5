"""`univg data …`: read, check, convert, count, look at, split, fetch and build data sets.

Exit codes: 0 done, 1 faults were found (or records left out), 2 what the caller can put right.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(
    name="data",
    help="Data sets: check, convert, count, look at, split, fetch, build.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="A published file or folder.", show_default=False)]
Images = Annotated[
    Path | None,
    typer.Option("--images", metavar="ROOT", help="The folder the images lie under.", show_default=False),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="See `univg data formats` (default: by its fields).",
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option(help="The same seed gives the same result.")]
MinPixels = Annotated[int, typer.Option(min=1, help="The pixel budget's lower end.")]
MaxPixels = Annotated[int, typer.Option(min=1, help="The pixel budget's upper end.")]
Tokenizer = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="A checkpoint whose tokenizer counts words (default: an estimate).",
        show_default=False,
    ),
]
Workers = Annotated[int, typer.Option(min=1, help="Images opened at once.")]


def _end(faults: int) -> None:
    if faults:
        raise typer.Exit(1)


@app.command()
def formats() -> None:
    """List the formats that can be read, and those that can be written."""
    from univg.data.exports import EXPORTS
    from univg.data.readers import READERS

    for name, reader in READERS.items():
        typer.echo(f"{name:18} {reader.title}{' (needs --images)' if reader.needs_images else ''}")
    typer.echo(f"\nconvert --to: {', '.join(EXPORTS)}")


@app.command(epilog="Example: univg data validate MIG_data.json --images MIG-Bench")
def validate(
    file: File,
    images: Images = None,
    format: Format = None,
    workers: Workers = 4,
    headers_only: Annotated[
        bool, typer.Option("--headers-only", help="Read images' headers without decoding them.")
    ] = False,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest prompt, in tokens.")] = 6000,
    min_pixels: MinPixels = 3136,
    max_pixels: MaxPixels = 401408,
    tokenizer: Tokenizer = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="JSONL", help="Write every fault there, one a line.", show_default=False),
    ] = None,
) -> None:
    """Find what would stop or spoil a run: boxes, images, tags, scale, prompt length. Exit code 1 on faults."""
    from univg.cli.data_validate import Check, run

    check = Check(
        file, images, format, workers, headers_only, max_tokens, min_pixels, max_pixels, tokenizer, out
    )
    _end(run(check))


@app.command(epilog="Example: univg data convert MIG_data.json --to trl --out mig.jsonl")
def convert(
    file: File,
    to: Annotated[
        Literal["jsonl", "sharegpt", "llamafactory", "trl", "verl", "easyr1"],
        typer.Option(help="The format to write.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file to write.", show_default=False)],
    images: Images = None,
    format: Format = None,
    style: Annotated[
        Literal["think", "direct"],
        typer.Option(help="Ask for a thought and a box, or for a box alone."),
    ] = "think",
    embed_images: Annotated[
        bool, typer.Option("--embed-images", help="Put images into the rows (verl, easyr1).")
    ] = False,
) -> None:
    """Write a set in another framework's format. What cannot be written is told; exit code 1 then."""
    from univg.cli.data_write import convert

    _end(convert(file, to, out, format, images, style, embed_images))


@app.command()
def stats(
    file: File,
    images: Images = None,
    format: Format = None,
    out: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw the counts there.", show_default=False)
    ] = None,
    min_pixels: MinPixels = 3136,
    max_pixels: MaxPixels = 401408,
    tokenizer: Tokenizer = None,
    workers: Workers = 4,
) -> None:
    """Count: samples per task, images per sample, box sizes, prompt tokens for a pixel budget."""
    from univg.cli.data_look import stats

    _end(stats(file, images, format, out, (min_pixels, max_pixels), tokenizer, workers))


@app.command()
def show(
    file: File,
    images: Annotated[
        Path,
        typer.Option("--images", metavar="ROOT", help="The folder the images lie under.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(metavar="PNG", help="The picture to write.")] = Path(
        "contact-sheet.png"
    ),
    n: Annotated[int, typer.Option("--n", "-n", min=1, max=60, help="How many samples.")] = 24,
    seed: Seed = 0,
    task: Annotated[
        list[str] | None,
        typer.Option(help="Only this task; repeat for several (default: all).", show_default=False),
    ] = None,
    format: Format = None,
) -> None:
    """Draw a contact sheet: images, boxes and questions, to check by eye."""
    from univg.cli.data_look import show

    _end(show(file, images, format, out, n, seed, task or []))


@app.command()
def split(
    file: File,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write.", show_default=False)],
    test: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the samples to test on.")] = 0.1,
    seed: Seed = 0,
    images: Images = None,
    format: Format = None,
) -> None:
    """Write train.jsonl and test.jsonl that share no picture (with --images: no picture's content)."""
    from univg.cli.data_write import split

    _end(split(file, out, test, seed, format, images))


@app.command()
def fetch(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A set; none lists them.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to download to.")] = Path("data"),
    yes: Annotated[bool, typer.Option("--yes", help="Download, once the sizes are known.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Only files called so, such as '*.json'.", show_default=False),
    ] = None,
) -> None:
    """Show a published set's files with sizes and checksums; with --yes, download and check them."""
    from univg.cli.data_fetch import fetch

    fetch(name, out, yes, only or [])


@app.command(epilog="Example: univg data build VOC2012 --out tasks --n 1000")
def build(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A COCO JSON file or a VOC folder.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write.", show_default=False)],
    images: Images = None,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="How many tasks.")] = 100,
    seed: Seed = 0,
    family: Annotated[
        list[str] | None,
        typer.Option(help="A task family; repeat for several (default: all).", show_default=False),
    ] = None,
    ordered: Annotated[
        bool, typer.Option("--ordered", help="The files of each folder are frames, in order of their names.")
    ] = False,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OLD=NEW", help="Call a category otherwise, as people say it; repeat.", show_default=False
        ),
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Hard-link images instead of copying them.")] = False,
) -> None:
    """Make multi-image grounding tasks of any detection set: samples.jsonl, images, a contact sheet."""
    from univg.cli.data_write import build_tasks

    _end(build_tasks(file, images, out, n, seed, family or [], ordered, link, rename or []))
