"""Run `univg evaluate`: a benchmark answered by a model.

Arguments are checked first, then the data, then the model is loaded: what is wrong is said before the next costs time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from univg.cli.verbs import Command, Parameter, make_verb
from univg.errors import UnivgError
from univg.evaluate.config import EvaluateConfig

if TYPE_CHECKING:
    from rich.console import Console

    from univg.evaluate.runner import Outcome, Progress

SHOWN_OF_EACH = 5


class EvaluateCommand(Command, EvaluateConfig):
    """What `univg evaluate` takes."""

    flags: ClassVar[Mapping[str, Parameter]] = {
        "data": Parameter(metavar="FILE"),
        "images": Parameter(metavar="ROOT"),
        "n": Parameter(alias="-n"),
    }

    out: Annotated[Path, Parameter(metavar="DIR")] = Field(
        description="The run's folder; evaluating again goes on in it."
    )
    shard: Annotated[str | None, Parameter(metavar="I/N")] = Field(
        default=None, description="Every n-th sample (default: accelerate's process, else all)."
    )
    legacy: Annotated[bool, Parameter(negative="")] = Field(
        default=False, description="Also score as the reference code does."
    )
    compare: Annotated[Path | None, Parameter(metavar="RUN")] = Field(
        default=None, description="A run over the same data: whose answers differ, where and by how much."
    )


def evaluate(command: EvaluateCommand) -> None:
    """Evaluate a model on a benchmark; stopped at any moment, the same command finishes what is missing.

    An API key is taken from OPENAI_API_KEY. The exit code is 2 if a sample could not be evaluated.
    """
    # Libraries warn about their own affairs; what concerns the user is said here.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from univg.data.dataset import parse_shard
    from univg.evaluate.runner import evaluate_benchmark, read_shard
    from univg.files import check_writable, naming_paths
    from univg.terminal import notes, progress

    console, name = notes(), command.benchmark
    with naming_paths():
        shard = read_shard() if command.shard is None else parse_shard(command.shard)
        check_writable(command.out)
        if command.compare is not None and command.compare.resolve() == command.out.resolve():
            raise UnivgError("a run is not compared with itself", command.compare, "give another --out")
        with progress(console) as bar:
            line = bar.add_task(name, total=None, visible=False)

            def show(done: Progress) -> None:
                share = 100 * done.hits / done.done if done.done else 0.0
                failed = f", {done.refused} not evaluated" if done.refused else ""
                text = f"{name}: Acc@0.5 {share:.1f}{failed}"
                bar.update(line, completed=done.done, total=done.expected, description=text, visible=True)

            outcome = evaluate_benchmark(
                command.part(EvaluateConfig),
                command.out,
                shard=shard,
                legacy=command.legacy,
                beside=command.compare,
                on_progress=show,
                on_note=lambda note: console.print(f"note: {note}"),
            )
        if outcome.rows and (shard[1] == 1 or len(outcome.rows) >= outcome.expected):
            _print_tables(command)
    if cut := sum(row["truncated"] for row in outcome.rows.values()):
        console.print(
            f"note: {cut} of {len(outcome.rows)} responses were cut off at the token limit: a larger "
            "--max-new-tokens, in another folder, lets them end"
        )
    print(f"{outcome.answered} new rows, {len(outcome.rows)} of {outcome.expected}: {command.out}")
    _print_faults(outcome, command.out, console)


def _print_tables(command: EvaluateCommand) -> None:
    from univg.evaluate.report import build_sections
    from univg.evaluate.runs import read_beside, read_runs
    from univg.report.tables import print_table

    runs, beside = read_runs([command.out]), None
    if command.compare is not None:
        runs, beside = read_beside([command.out], command.compare)
    for section in build_sections(runs, command.legacy, ("hit_50",), beside):
        for table in section.tables:
            print_table(table)


def _print_faults(outcome: Outcome, out: Path, console: Console) -> None:
    """Say what could not be evaluated, and end with an error if anything could not."""
    of_kind: dict[str, list[Mapping[str, Any]]] = {}
    for fault in outcome.faults:
        of_kind.setdefault(str(fault["kind"]), []).append(fault)
    for kind, faults in of_kind.items():
        for fault in faults[:SHOWN_OF_EACH]:
            console.print(f"{'note' if fault.get('usable') else 'fault'}: {_describe_fault(fault)}")
        if len(faults) > SHOWN_OF_EACH:
            console.print(f"{kind}: {len(faults) - SHOWN_OF_EACH} more, in {out}/state-*.json")
    failed = [fault for fault in outcome.faults if not fault.get("usable")]
    if failed:
        kinds = ", ".join(sorted({str(fault["kind"]) for fault in failed}))
        raise UnivgError(
            f"{len(failed)} samples could not be evaluated ({kinds})",
            out,
            "put right what is said above and run the same command again",
        )


def _describe_fault(fault: Mapping[str, Any]) -> str:
    return f"{fault['source'] or fault['key']}: {fault['kind']}: {fault['why']}"


app = make_verb(
    "evaluate", EvaluateCommand, evaluate, example="univg evaluate --benchmark world --out runs/world -n 20"
)
