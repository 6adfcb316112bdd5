"""`univg construct`: chains of thought for any data, proposed by a teacher, verified, selected, accounted for.

Arguments are checked first, then the data, then the teacher is found: each is told before the next costs anything.
Exit codes: 0 done; 2 some samples could not be decided, or the teacher failed (run again); 3 the budget is used up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from univg.cli.construct_report import (
    end,
    last_manifest,
    notes,
    progress_shown,
    report,
    tell_replaced,
)
from univg.errors import UnivgError

if TYPE_CHECKING:
    from univg.construct.ledger import Ledger
    from univg.construct.pipeline import Plan
    from univg.construct.teacher import Teacher
    from univg.data.dataset import Dataset

Truth = Literal["auto", "shown", "hidden"]
SERVER = "openai:"
WORLD_N = 26
"""Two of each of the world's families."""


@dataclass(frozen=True)
class Asking:
    """How servers and models are reached; the options of the same names."""

    base_url: str | None
    judge_url: str | None
    family: str
    max_pixels: int | None
    concurrency: int
    rpm: float | None
    timeout: float
    attempts: int
    stream: bool
    fields: Sequence[str]
    device: str | None
    dtype: str
    batch_size: int


def construct(
    teacher: Annotated[
        str,
        typer.Option(
            help="openai:MODEL (with --base-url), a checkpoint folder or hub name, embedded, or world.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="The run's folder; the same command goes on in it.", show_default=False
        ),
    ],
    data: Annotated[
        str, typer.Option(metavar="FILE", help="Any file that `univg data` reads, or world.")
    ] = "world",
    images: Annotated[Path | None, typer.Option(metavar="ROOT", help="The folder of its images.")] = None,
    format: Annotated[
        str | None, typer.Option(metavar="NAME", help="See `univg data formats` (default: by its fields).")
    ] = None,
    n: Annotated[
        int | None, typer.Option("--n", "-n", min=1, help="Only the first n samples (of a world 26).")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only this task; repeat for several.")] = None,
    split: Annotated[Literal["train", "test", "unseen"], typer.Option(help="Of the world.")] = "train",
    seed: Annotated[int, typer.Option(min=0, help="Of the world's samples.")] = 0,
    difficulty: Annotated[float | None, typer.Option(min=0, max=1, help="Of the world's samples.")] = None,
    size: Annotated[int, typer.Option(min=28, max=4096, help="Of the world's images, pixels.")] = 120,
    chains: Annotated[int, typer.Option(min=1, max=16, help="Proposals a sample.")] = 3,
    together: Annotated[
        bool,
        typer.Option("--together", help="All in one request, where the server can: images are paid once."),
    ] = False,
    truth: Annotated[
        Truth,
        typer.Option(
            help="Whether the teacher sees the ground truth (auto: a server's does, others do not)."
        ),
    ] = "auto",
    judge: Annotated[
        str | None,
        typer.Option(
            help="Who picks among the verified: same, none, or as --teacher (default: a server's teacher same)."
        ),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Your own texts in place of the package's.")
    ] = None,
    min_iou: Annotated[float, typer.Option(min=0, max=1, help="Least IoU with the ground truth.")] = 0.5,
    min_words: Annotated[int, typer.Option(min=0, help="Shortest thought.")] = 8,
    max_words: Annotated[int, typer.Option(min=1, help="Longest thought.")] = 300,
    language: Annotated[Literal["en", "zh", "any"], typer.Option(help="Of the thoughts.")] = "en",
    copies: Annotated[
        float, typer.Option(min=0, max=1, help="Likeness from which a thought is a copy (0: none).")
    ] = 0.9,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Of the proposals (default: 1, with one chain 0).")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer (default: 1024 of a server, else 256).")
    ] = None,
    sampling_seed: Annotated[int, typer.Option(min=0, help="Another seed draws other proposals.")] = 0,
    base_url: Annotated[
        str | None,
        typer.Option(help="The server's address, http://localhost:8000/v1.", envvar="OPENAI_BASE_URL"),
    ] = None,
    judge_url: Annotated[str | None, typer.Option(help="The judge's, if it is another server.")] = None,
    family: Annotated[str, typer.Option(help="Of the server's model: how it resizes.")] = "qwen2_vl",
    max_pixels: Annotated[
        int | None,
        typer.Option(min=784, help="Pixels of an image as it is sent (default: the checkpoint's)."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 8,
    rpm: Annotated[float | None, typer.Option(min=0.01, help="Most requests a minute.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one request.")] = 300.0,
    attempts: Annotated[int, typer.Option(min=1, help="Tries for one request.")] = 6,
    stream: Annotated[bool, typer.Option("--stream", help="Take answers piece by piece.")] = False,
    field: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=JSON", help="A field more in each request; null takes one out."),
    ] = None,
    price_in: Annotated[float, typer.Option(min=0, help="Of a million tokens sent.")] = 0.0,
    price_out: Annotated[float, typer.Option(min=0, help="Of a million tokens written.")] = 0.0,
    budget_cost: Annotated[
        float | None, typer.Option(min=0, help="The most the folder may cost, at those prices.")
    ] = None,
    budget_tokens: Annotated[
        int | None, typer.Option(min=1, help="The most tokens, in and out, for the folder.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Of a checkpoint: cpu, cuda, cuda:1.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Of a checkpoint: responses at a time.")] = 16,
) -> None:
    """Write chains of thought: a teacher proposes, each is verified, the best is kept, all is accounted for.

    An API key is taken from OPENAI_API_KEY and from nowhere else. Stopped at any moment, the same command goes on
    and asks nothing twice. The exit code is 3 when the budget is used up, 2 when samples are undecided.
    """
    # long because every option of the command is a parameter, with its help
    from univg.files import check_writable

    asking = Asking(
        base_url, judge_url, family, max_pixels, concurrency, rpm, timeout, attempts, stream, field or [],
        device, dtype, batch_size,
    )  # fmt: skip
    check_writable(out)
    remote = teacher.startswith(SERVER)
    _check(teacher, judge, images, data, budget_cost, price_in, price_out)
    if min_words > max_words:
        raise UnivgError(
            f"no thought is that long: --min-words {min_words}: give at most --max-words {max_words}"
        )
    with _told():
        from univg.construct.ledger import Budget, Ledger, Prices
        from univg.construct.pipeline import Plan
        from univg.construct.prompts import Prompts
        from univg.construct.verify import Rules

        texts = Prompts.load(prompts)
        plan = Plan(
            chains=1 if teacher == "world" else chains,
            together=together or not remote,
            shown=truth == "shown" or (truth == "auto" and remote),
            rules=Rules(min_iou, min_words, max_words, language, copies),
            temperature=(1.0 if chains > 1 else 0.0) if temperature is None else temperature,
            max_new_tokens=max_new_tokens or (1024 if remote else 256),
            seed=sampling_seed,
        )
        opened = _open_data(data, images, format, n, task or [], split, seed, difficulty, size)
        who = _teacher(teacher, asking, "--teacher")
        picker = _judge(judge, teacher, who, asking)
        out.mkdir(parents=True, exist_ok=True)
        prices, budget = Prices(price_in, price_out), Budget(budget_tokens, budget_cost)
        with Ledger(out, prices, budget) as ledger:
            _run(opened, who, picker, texts, plan, ledger, out)


def _check(
    teacher: str,
    judge: str | None,
    images: Path | None,
    data: str,
    budget_cost: float | None,
    price_in: float,
    price_out: float,
) -> None:
    if budget_cost is not None and not (price_in or price_out):
        raise UnivgError(
            "a budget in money needs prices: --budget-cost: give --price-in and --price-out, "
            "per million tokens, or --budget-tokens"
        )
    if data != "world" and images is None and not (teacher == "world" and judge in (None, "none")):
        raise UnivgError(f"a teacher must see the images: --data {data}: give --images ROOT")
    if teacher == "world" and judge == "same":
        raise UnivgError("the world judges nothing: --judge same: leave it out, or name a judge")
    if images is not None and not images.is_dir():
        raise UnivgError(f"no such folder: --images {images}: name the folder of the images")


@contextmanager
def _told() -> Iterator[None]:
    """What a person can put right, as the command's own errors."""
    from univg.construct.ledger import LedgerError
    from univg.construct.prompts import PromptError

    try:
        yield
    except (LedgerError, PromptError) as error:
        raise UnivgError(str(error)) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        where = error.filename or "the output folder"
        raise UnivgError(
            f"cannot be read or written ({error.strerror or error}): {where}: check the path and the disk"
        ) from error


def _open_data(
    data: str,
    images: Path | None,
    format: str | None,
    n: int | None,
    tasks: Sequence[str],
    split: Literal["train", "test", "unseen"],
    seed: int,
    difficulty: float | None,
    size: int,
) -> Dataset:
    from univg.data.dataset import Dataset
    from univg.world import DEFAULT_DIFFICULTY, FAMILIES

    if data == "world":
        unknown = sorted(set(tasks) - set(FAMILIES))
        if unknown:
            raise UnivgError(f"no such task family: --task {unknown[0]}: choose from {', '.join(FAMILIES)}")
        return Dataset.from_world(
            n or WORLD_N, split, seed, tasks, DEFAULT_DIFFICULTY if difficulty is None else difficulty, size
        )
    from univg.cli.data.reading import print_faults
    from univg.data.published import FaultBook, PublishedFile

    file, book = Path(data), FaultBook()
    opened = PublishedFile.open(file, format, images)
    samples = []
    found = set()
    for sample in opened.read(book):
        found.add(sample.task)
        if not tasks or sample.task in tasks:
            samples.append(sample)
        if n is not None and len(samples) == n:
            break
    print_faults(book, notes())
    if not samples:
        tasks_there = f" (its tasks: {', '.join(sorted(found))})" if tasks and found else ""
        raise UnivgError(f"no usable sample{tasks_there}: {file}: see `univg data validate`")
    return Dataset.from_samples(f"{file.name} ({opened.format})", samples, images)


def _teacher(name: str, asking: Asking, option: str) -> Teacher:
    """The teacher, or the judge, behind a name; `option` is the one that named it."""
    from univg.construct.teacher import LocalTeacher, WorldTeacher

    if name == "world":
        return WorldTeacher()
    if name.startswith(SERVER):
        return _server(name.removeprefix(SERVER), asking, option)
    # Libraries warn about their own affairs; what concerns the user is said here.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from univg.models.loading import load

    loaded = load(name, device=asking.device, dtype=asking.dtype)
    if asking.max_pixels is not None:
        loaded.processor.set_pixel_budget(loaded.pixel_budget.up_to(asking.max_pixels))
    return LocalTeacher(loaded, asking.batch_size)


def _server(model: str, asking: Asking, option: str) -> Teacher:
    from univg.construct.teacher import RemoteTeacher
    from univg.models.loading import MODEL_FAMILIES
    from univg.models.pixels import PixelBudget
    from univg.models.server import KEY_VARIABLE, Patience, Server

    url = (asking.judge_url if option == "--judge" else None) or asking.base_url
    if not url:
        raise UnivgError(
            f"no address: {option} {SERVER}{model}: give --base-url, such as http://localhost:8000/v1"
        )
    if asking.family not in MODEL_FAMILIES:
        raise UnivgError(f"no such family: --family {asking.family}: choose from {', '.join(MODEL_FAMILIES)}")
    fields = _fields(asking.fields)
    most = asking.max_pixels
    patience = Patience(asking.attempts, timeout_s=asking.timeout, failures=max(8, asking.concurrency))
    server = Server(
        url,
        os.environ.get(KEY_VARIABLE) or "none",
        patience,
        asking.rpm,
        url_option="--base-url",
        model_option=f"{option} {SERVER}MODEL",
    )
    return RemoteTeacher(
        server,
        model or server.served(None)[0],
        PixelBudget() if most is None else PixelBudget().up_to(most),
        asking.family,
        asking.concurrency,
        fields,
        asking.stream,
    )


def _fields(texts: Sequence[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            if not (name and equals):
                raise ValueError
            fields[name] = json.loads(value)
        except ValueError:
            raise UnivgError(
                f"not NAME=JSON: --field {text}: write it as --field enable_thinking=false"
            ) from None
    if "messages" in fields or "model" in fields or "stream" in fields:
        raise UnivgError("messages, model and stream are ours: --field: leave them out")
    return fields


def _judge(name: str | None, teacher: str, who: Teacher, asking: Asking) -> Teacher | None:
    if name is None:
        name = "same" if teacher.startswith(SERVER) else "none"
    if name == "none":
        return None
    if name == "same" or (name == teacher and asking.judge_url is None):
        return who
    if name == "world":
        raise UnivgError("the world judges nothing: --judge world: name another judge, or none")
    return _teacher(name, asking, "--judge")


def _run(
    data: Dataset, who: Teacher, picker: Teacher | None, texts: Any, plan: Plan, ledger: Ledger, out: Path
) -> None:
    from univg.construct.pipeline import Constructor
    from univg.construct.results import Results

    stopped: BaseException | None = None
    before = last_manifest(out)
    with Results(out, ledger, who.name) as results, progress_shown(data.total) as show:
        try:
            Constructor(data, who, picker, texts, plan, ledger, results, show).run()
        except (UnivgError, KeyboardInterrupt) as error:
            if not results.reached:
                raise
            stopped = error
        results.leave(data.total - sum(results.counts.values()))
    facts = {
        "teacher": who.about(),
        "judge": None if picker is None else picker.about(),
        "prompts": texts.digests()
        if plan.shown or picker is not None
        else {"question": "the paper's wording"},
        "data": {"name": data.name, "about": data.about, "digest": data.digest, "samples": data.total},
    }
    manifest = results.finish(facts, plan)
    report(manifest, ledger, out)
    tell_replaced(before, manifest, out)
    end(manifest, ledger, out, stopped)
