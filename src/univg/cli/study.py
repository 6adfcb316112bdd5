"""Run `univg study`: the paper's ablation on the procedural world, its rows, tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from univg.cli.stages import needing_packages
from univg.cli.verbs import Command, Parameter, make_verb
from univg.study.config import StudyConfig


class StudyCommand(Command, StudyConfig):
    """What `univg study` takes."""

    presets: ClassVar[Mapping[str, str]] = {"quick": "study-quick"}
    flags: ClassVar[Mapping[str, Parameter]] = {
        "seeds": Parameter(name="--seed", help="Only this seed; repeat for several."),
        "arms": Parameter(name="--arm", help="Only this arm; repeat for several."),
    }

    config: Annotated[str, Parameter(metavar="FILE")] = Field(
        default="study", description="YAML file or preset."
    )
    out: Annotated[Path | None, Parameter(metavar="DIR")] = Field(
        default=None,
        description="Checkpoints and evaluations of the arms (default: runs/ and the config's name).",
    )
    rows: Annotated[Path | None, Parameter(metavar="DIR")] = Field(
        default=None,
        description="One JSON file an arm and seed, tables and pictures (default: OUT/rows).",
    )
    quick: Annotated[bool, Parameter(negative="")] = Field(
        default=False, description="Small sizes, one seed, in minutes: shows that all of it runs."
    )
    tables: Annotated[bool, Parameter(negative="")] = Field(
        default=False, description="Draw tables from the rows; train nothing."
    )
    keep: Annotated[bool, Parameter(negative="")] = Field(
        default=False,
        description="Keep the checkpoints of finished seeds (those of only some arms are always kept).",
    )

    def place(self) -> Path:
        """Return the folder of checkpoints: each study has its own, for arms of two have the same names."""
        return self.out or Path("runs") / Path(self.config).stem


def study(command: StudyCommand) -> None:
    """The paper's ablation (Table 4) on the procedural world: arms trained, evaluated and compared."""
    from univg.report.tables import print_table
    from univg.study.rows import choose_arms
    from univg.study.study import run_study, write_results

    settings = command.part(StudyConfig)
    choose_arms(settings)
    rows = command.rows or command.place() / "rows"
    if not command.tables:
        with needing_packages("study"):
            run_study(settings, command.place(), rows, keep=command.keep)
    tables, pictures = write_results(rows)
    for table in tables:
        print_table(table)
    print(f"rows, table.md and {len(pictures)} pictures: {rows}")


app = make_verb("study", StudyCommand, study, example="univg study --quick --out runs/study-quick")
