"""Run `univg construct`: chains of thought for any data, proposed by a teacher, verified, selected, accounted for.

Arguments are checked first, then the data is read, then the teacher is found: what is wrong is said before the next
step costs anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from univg.cli.construct_report import note_replaced, print_report, read_manifest, show_progress
from univg.cli.verbs import Command, Parameter, make_verb
from univg.construct.config import WORLD, WORLD_N, ConstructConfig
from univg.errors import UnivgError
from univg.files import check_writable
from univg.terminal import notes

if TYPE_CHECKING:
    from univg.data.dataset import Dataset


class ConstructCommand(Command, ConstructConfig):
    """What `univg construct` takes."""

    flags: ClassVar[Mapping[str, Parameter]] = {
        "out": Parameter(metavar="DIR"),
        "data": Parameter(metavar="FILE"),
        "images": Parameter(metavar="ROOT"),
        "format": Parameter(metavar="NAME"),
        "n": Parameter(alias="-n"),
        "prompts": Parameter(metavar="DIR"),
        "field": Parameter(metavar="NAME=JSON"),
    }

    shard: Annotated[str | None, Parameter(metavar="I/N")] = Field(
        default=None,
        description="Ask for every n-th sample only, in a folder of its own under --out; without it, all are put "
        "together there.",
    )


def construct(command: ConstructCommand) -> None:
    """Write chains of thought: proposed by a teacher, verified, the best kept, all accounted for.

    An API key is taken from OPENAI_API_KEY and from nowhere else. Stopped at any moment, the same command goes on
    and asks nothing twice. The exit code is 3 when the budget is used up, 2 when samples are undecided.
    """
    from univg.construct.ledger import Budget, Ledger, Prices, shard_folder
    from univg.construct.prompts import Prompts
    from univg.data.dataset import parse_shard

    shard = None if command.shard is None else parse_shard(command.shard)
    out = command.out if shard is None else shard_folder(command.out, shard)
    check_writable(out)
    prompts = Prompts.load(command.prompts)
    data = open_data(command)
    if shard is not None:
        data = data.part(shard)

    from univg.construct.pipeline import construct as construct_chains
    from univg.construct.sources import open_teachers

    teacher, judge = open_teachers(command)
    before = read_manifest(out)
    prices = Prices(command.price_in, command.price_out)
    budget = Budget(command.budget_tokens, command.budget_cost)
    with Ledger(out, prices, budget) as ledger, show_progress(data.total) as show:
        outcome = construct_chains(data, teacher, ledger, command.plan, judge, prompts, show)
    print_report(outcome, ledger)
    note_replaced(before, outcome)
    if isinstance(outcome.stopped, KeyboardInterrupt):
        remain = outcome.manifest["undecided"]
        notes().print(f"note: stopped; {remain} samples remain: {out}: the same command goes on")
    outcome.check()


def open_data(config: ConstructConfig) -> Dataset:
    """Open the data; of a file, show how far it is read and what could not be."""
    from univg.cli.data.reading import print_faults
    from univg.data.dataset import Dataset
    from univg.data.published import FaultBook, PublishedFile
    from univg.world import DEFAULT_DIFFICULTY

    if config.data == WORLD:
        difficulty = DEFAULT_DIFFICULTY if config.difficulty is None else config.difficulty
        return Dataset.from_world(
            config.n or WORLD_N,
            config.split,
            config.seed,
            config.task,
            difficulty,
            config.size,
            config.world_version,
        )
    file, book, samples, found = Path(config.data), FaultBook(), [], set()
    opened = PublishedFile.open(file, config.format, config.images)
    for sample in opened.read(book):
        found.add(sample.task)
        if not config.task or sample.task in config.task:
            samples.append(sample)
        if len(samples) == config.n:
            break
    print_faults(book, notes())
    if not samples and found:
        remedy = f"choose from its tasks: {', '.join(sorted(found))}"
        raise UnivgError(f"no sample of the task {' or '.join(config.task)}", file, remedy)
    if not samples:
        cause = (
            f"none of its {book.left_out} records can be used"
            if book.left_out
            else "there is no record in it"
        )
        raise UnivgError(cause, file, "see `univg data validate`")
    return Dataset.from_samples(f"{file.name} ({opened.format})", samples, config.images)


app = make_verb(
    "construct", ConstructCommand, construct, example="univg construct --teacher world --out thoughts"
)
