"""`univg report`: tables, a Markdown page and an HTML page of one run or several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of `univg evaluate`.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where the pages go (default: the run's folder; of several univg-report)."
        ),
    ] = None,
    gallery: Annotated[int, typer.Option(min=0, help="Samples a run on the HTML page.")] = 60,
    legacy: Annotated[
        bool, typer.Option("--legacy", help="Also show the reference scorers' numbers.")
    ] = False,
) -> None:
    """Make report.md, report.html (one file, opens anywhere) and plots, and print the tables."""
    from univg.cli.evaluate import told_errors
    from univg.evaluate.report import build_sections, write_report
    from univg.evaluate.runs import read_runs
    from univg.files import check_writable
    from univg.report.tables import print_table

    folder = out or (runs[0] if len(runs) == 1 else Path("univg-report"))
    with told_errors():
        found = read_runs(runs)
        check_writable(folder)
        sections = build_sections(found, legacy)
        for section in build_sections(found, legacy, intervals=("hit_50",)):
            typer.echo(f"\n{section.benchmark}\n")
            for table in section.tables:
                print_table(table)
        for path in write_report(sections, folder, gallery):
            typer.echo(str(path))
