"""Run `univg report`: tables, a Markdown page and an HTML page of one run or several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from univg.cli.verbs import Command, Parameter, make_verb


class ReportCommand(Command):
    """What `univg report` takes."""

    positional: ClassVar[str | None] = "runs"

    runs: Annotated[tuple[Path, ...], Parameter(metavar="RUN...")] = Field(
        description="Folders of `univg evaluate`."
    )
    out: Annotated[Path | None, Parameter(metavar="DIR")] = Field(
        default=None, description="Where the pages go (default: the run's folder; of several univg-report)."
    )
    compare: Annotated[Path | None, Parameter(metavar="RUN")] = Field(
        default=None, description="A run over the same data: whose answers differ from its, and by how much."
    )
    gallery: int = Field(default=60, ge=0, description="Samples a run on the HTML page.")
    legacy: Annotated[bool, Parameter(negative="")] = Field(
        default=False, description="Also show the reference scorers' numbers."
    )


def report(command: ReportCommand) -> None:
    """Make report.md, report.html (one file, opens anywhere) and plots, and print the tables."""
    from univg.evaluate.report import build_sections, write_report
    from univg.evaluate.runs import read_beside, read_runs
    from univg.files import check_writable, naming_paths
    from univg.report.tables import print_table

    folder = command.out or (command.runs[0] if len(command.runs) == 1 else Path("univg-report"))
    with naming_paths():
        found, beside = read_runs(command.runs), None
        if command.compare is not None:
            found, beside = read_beside(command.runs, command.compare)
        check_writable(folder)
        for section in build_sections(found, command.legacy, ("hit_50",), beside):
            print(f"\n{section.benchmark}\n")
            for table in section.tables:
                print_table(table)
        for path in write_report(
            build_sections(found, command.legacy, beside=beside), folder, command.gallery
        ):
            print(path)


app = make_verb("report", ReportCommand, report, example="univg report runs/first runs/second")
