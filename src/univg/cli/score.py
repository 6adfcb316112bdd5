"""Run `univg score`: responses made elsewhere, scored without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from univg.cli.verbs import Command, Parameter, make_verb
from univg.errors import UnivgError
from univg.grounding.prompts import PromptStyle


class ScoreCommand(Command):
    """What `univg score` takes."""

    positional: ClassVar[str | None] = "predictions"

    predictions: Annotated[Path, Parameter(metavar="PREDICTIONS.jsonl")] = Field(
        description="One JSON object a line."
    )
    out: Annotated[Path, Parameter(metavar="SCORES.jsonl")] = Field(description="Where the scores go.")
    style: PromptStyle = Field(default="think", description="What the responses were asked to be.")
    legacy: Annotated[bool, Parameter(negative="")] = Field(
        default=False, description="Also score as the reference code does."
    )


def score(command: ScoreCommand) -> None:
    """Score responses made elsewhere: rows with `text`, `answer` (a box) and optionally `id`, `task`."""
    from univg.evaluate.predictions import (
        build_tables,
        find_scale,
        read_predictions,
        score_predictions,
        suggest_style,
        write_scores,
    )
    from univg.files import check_writable, naming_paths
    from univg.report.tables import print_table

    source, out = command.predictions, command.out
    with naming_paths():
        check_writable(out.parent)
        if out.exists() and source.exists() and out.samefile(source):
            raise UnivgError("the scores would replace the responses", f"--out {out}", "name another file")
        predictions = read_predictions(source)
        scale = find_scale(one.answer for one in predictions)
        rows = list(score_predictions(predictions, scale, command.style, command.legacy))
        write_scores(out, rows)
        hint = suggest_style(predictions, rows, scale, command.style)
    for table in build_tables(predictions, rows, scale, str(source)):
        print_table(table)
    if hint:
        print(hint)
    print(f"scores: {out}")


app = make_verb("score", ScoreCommand, score, example="univg score predictions.jsonl --out scores.jsonl")
