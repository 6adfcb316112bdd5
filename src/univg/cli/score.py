"""Run `univg score`: responses made elsewhere, scored without a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from univg.cli.verbs import Command, Parameter, make_verb
from univg.errors import UnivgError
from univg.grounding.prompts import PromptStyle

if TYPE_CHECKING:
    from univg.data.published import FaultBook
    from univg.evaluate.predictions import Prediction, Scale
    from univg.evaluate.rows import Row
    from univg.grounding.samples import GroundingSample


class ScoreCommand(Command):
    """What `univg score` takes."""

    positional: ClassVar[str | None] = "predictions"

    predictions: Annotated[Path, Parameter(metavar="ANSWERS")] = Field(
        description="JSON Lines, a list, a table, or a map of ids: each with its response."
    )
    data: Annotated[Path | None, Parameter(metavar="FILE")] = Field(
        default=None, description="The samples that were asked (default: each answer holds its truth)."
    )
    images: Annotated[Path | None, Parameter(metavar="ROOT")] = Field(
        default=None, description="The folder of the data's images; only boxes in pixels need it."
    )
    format: Annotated[str | None, Parameter(metavar="NAME")] = Field(
        default=None, description="Of --data; see `univg data formats` (default: by its fields)."
    )
    complete: Annotated[bool, Parameter(negative="")] = Field(
        default=False, description="Answers of --data hold all that is asked for: take them for sets."
    )
    task: tuple[str, ...] = Field(default=(), description="Only this task of --data; repeat for several.")
    out: Annotated[Path | None, Parameter(metavar="SCORES.jsonl")] = Field(
        default=None, description="Where the score of each answer goes."
    )
    style: PromptStyle = Field(default="think", description="What the responses were asked to be.")
    legacy: Annotated[bool, Parameter(negative="")] = Field(
        default=False, description="Also score as the reference code does."
    )


def score(command: ScoreCommand) -> int:
    """Score responses made elsewhere: each beside its truth (`text`, `answer`), or by id against --data.

    Exit code 1 if an answer could not be used, or a sample has none: it is not in the scores, and said.
    """
    from univg.cli.data.reading import print_faults
    from univg.data.published import FaultBook
    from univg.evaluate.predictions import (
        build_tables,
        describe_missing,
        find_scale,
        score_predictions,
        write_scores,
    )
    from univg.files import check_writable, naming_paths
    from univg.report.tables import print_table
    from univg.terminal import notes

    source, out, book = command.predictions, command.out, FaultBook()
    with naming_paths():
        if out is not None:
            check_writable(out.parent)
            if out.exists() and source.exists() and out.samefile(source):
                raise UnivgError(
                    "the scores would replace the responses", f"--out {out}", "name another file"
                )
        predictions, samples, told = _read(command, book)
        scale = "unit" if samples else find_scale(one.answer for one in predictions if one.answer)
        rows = list(score_predictions(predictions, scale, command.style, command.legacy))
        if out is not None:
            write_scores(out, rows)
    missing = describe_missing(predictions, rows, samples)
    told += [*filter(None, [missing]), *_list_hints(predictions, rows, scale, command.style)]
    for table in build_tables(predictions, rows, scale, str(source), told):
        print_table(table)
    if out is not None:
        print(f"scores: {out}")
    print_faults(book, notes())
    return int(bool(book) or bool(missing))


def _read(
    command: ScoreCommand, book: FaultBook
) -> tuple[list[Prediction], list[GroundingSample], list[str]]:
    """Read the answers, the samples of --data that can be scored, and what there is to say of them."""
    from univg.evaluate.predictions import match_predictions, read_predictions

    source = command.predictions
    if command.data is None:
        for name in ("images", "format", "complete", "task"):
            if getattr(command, name):
                raise UnivgError(f"--{name} is about a file of samples", "univg score", "name it with --data")
        return read_predictions(source, book.add), [], []
    samples, told, whole = _read_samples(command, command.data)
    predictions, (how, *notes) = match_predictions(source, samples, book.add, whole)
    return predictions, samples, [f"Answers matched with {command.data} {how}.", *told, *notes]


def _read_samples(command: ScoreCommand, data: Path) -> tuple[list[GroundingSample], list[str], bool]:
    """Read the samples of --data that have a truth; say what was left out, and whether nothing was."""
    from univg.data.published import FaultBook, PublishedFile
    from univg.evaluate.benchmarks import choose_tasks

    faults = FaultBook()
    opened = PublishedFile.open(data, command.format, command.images, command.complete)
    found = list(opened.read(faults))
    if not found:
        why = next((f"; the first: {one[0].cause}: {one[0].fix}" for one in faults.first.values()), "")
        raise UnivgError(f"no usable sample ({len(faults)} faults{why})", data, "see `univg data validate`")
    tasks = choose_tasks(command.task, list(dict.fromkeys(sample.task for sample in found)))
    samples = [sample for sample in found if sample.is_answered and sample.task in tasks]
    bare = sum(not sample.is_answered for sample in found)
    if not samples:
        raise UnivgError("no sample has a box to score against", data, "name the file with the answers")
    told = [f"{faults.left_out} records of {data} cannot be used: see `univg data validate`."] * bool(
        faults.left_out
    )
    told += [f"{bare} samples of {data} have no box to score against."] * bool(bare)
    return samples, told, not faults.left_out and len(samples) == len(found)


def _list_hints(
    predictions: list[Prediction], rows: list[Row], scale: Scale, style: PromptStyle
) -> list[str]:
    from univg.evaluate.hints import count_unnamed, describe_style, pair_boxes, suggest_scale
    from univg.grounding.reading import Asked, read

    size = 1.0 if scale == "unit" else 1000.0
    single = [
        (row, one.answer) for row, one in zip(rows, predictions, strict=True) if not row.get("complete")
    ]
    truths = [
        (x1 / size, y1 / size, x2 / size, y2 / size) for x1, y1, x2, y2 in (box for _, box in single if box)
    ]
    of_sets = pair_boxes(rows)
    scaled = suggest_scale(
        [*(row for row, _ in single), *(row for row, _ in of_sets)], [*truths, *(box for _, box in of_sets)]
    )
    unnamed = count_unnamed(
        read(one.text, Asked.of(one.sample, style))
        for one in predictions
        if one.sample and one.sample.complete and len(one.sample.images) > 1
    )
    said = describe_style([one.text for one in predictions], rows, style)
    return [said, *filter(None, [scaled, unnamed])]


app = make_verb("score", ScoreCommand, score, example="univg score answers.jsonl --data MIG_data.json")
