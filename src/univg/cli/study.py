"""Run `univg study`: the paper's ablation on the procedural world, its rows, tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from univg.cli.stages import needing_packages
from univg.cli.verbs import Command, Parameter, make_verb
from univg.study.config import StudyConfig

ROWS = Path("docs/experiments/study")
THOUGHT_ROWS = Path("docs/experiments/thoughts")


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
    out: Annotated[Path, Parameter(metavar="DIR")] = Field(
        default=Path("runs/study"), description="Checkpoints and evaluations of the arms."
    )
    rows: Annotated[Path | None, Parameter(metavar="DIR")] = Field(
        default=None,
        description=f"One JSON file an arm and seed, tables and pictures (default: {ROWS}; with --quick OUT/rows).",
    )
    quick: Annotated[bool, Parameter(negative="")] = Field(
        default=False, description="Small sizes, one seed, in minutes: shows that all of it runs."
    )
    tables: Annotated[bool, Parameter(negative="")] = Field(
        default=False, description="Draw tables from the rows; train nothing."
    )
    keep: Annotated[bool, Parameter(negative="")] = Field(
        default=False, description="Keep the checkpoints of finished seeds."
    )

    @property
    def folder(self) -> Path:
        """The folder of rows."""
        if self.rows is not None:
            return self.rows
        return self.out / "rows" if self.quick else ROWS if self.thoughts is None else THOUGHT_ROWS


def study(command: StudyCommand) -> None:
    """The paper's ablation (Table 4) on the procedural world: arms trained, evaluated and compared."""
    from univg.report.tables import print_table
    from univg.study.rows import choose_arms
    from univg.study.study import run_study, write_results

    settings = command.part(StudyConfig)
    choose_arms(settings)
    if not command.tables:
        with needing_packages("study"):
            run_study(settings, command.out, command.folder, keep=command.keep)
    tables, pictures = write_results(command.folder)
    for table in tables:
        print_table(table)
    print(f"rows, table.md and {len(pictures)} pictures: {command.folder}")


app = make_verb("study", StudyCommand, study, example="univg study --quick --out runs/study-quick")
