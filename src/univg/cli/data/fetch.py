"""Run `univg data fetch`: published sets from the hub, their sizes and checksums shown before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from univg.cli.data.reading import Folder
from univg.cli.verbs import Command, Parameter, make_verb


class FetchCommand(Command):
    """What `univg data fetch` takes."""

    positional: ClassVar[str | None] = "name"

    name: Annotated[str | None, Parameter(metavar="NAME")] = Field(
        default=None, description="A set; none lists them."
    )
    out: Folder = Field(default=Path("data"), description="Folder to download to.")
    yes: Annotated[bool, Parameter(negative="")] = Field(
        default=False, description="Download, once the sizes are known."
    )
    only: Annotated[tuple[str, ...], Parameter(metavar="PATTERN")] = Field(
        default=(), description="Only files called so, such as '*.json'; repeat for several."
    )


def fetch(command: FetchCommand) -> None:
    """Show a published set's files with sizes and checksums; with --yes, download and check them."""
    from rich.table import Table

    from univg.data.fetching import SETS, download, find_set, list_files, say_size
    from univg.terminal import print_rich_table, progress, results

    console, out = results(), command.out
    table = Table(box=None, pad_edge=False, header_style="bold")
    if command.name is None:
        for column in ("name", "what", "hub repository", "--format"):
            table.add_column(column)
        for key, one in SETS.items():
            table.add_row(key, one.title, one.repository, one.formats)
        print_rich_table(console, table)
        return
    chosen = find_set(command.name)
    revision, files = list_files(chosen.repository, command.only or chosen.files)
    for column in ("file", "size", "sha256"):
        table.add_column(column, justify="right" if column == "size" else "left")
    for file in files:
        table.add_row(file.name, say_size(file.size), file.sha256 or "- (small; checked by size)")
    print_rich_table(console, table)
    total = say_size(sum(file.size for file in files))
    console.print(f"{len(files)} files, {total}, of {chosen.repository} at revision {revision[:12]}")
    if not command.yes:
        again = f"univg data fetch {command.name} --out {out} --yes"
        console.print(f"nothing was downloaded; to do so: {again}")
        return
    with progress() as bar:
        for file in bar.track(files, description="files"):
            download(chosen.repository, revision, file, out)
    console.print(f"downloaded and checked  {out}")
    console.print(f"next: univg data validate FILE --images {out}")


app = make_verb("data fetch", FetchCommand, fetch)
