"""`univg evaluate` and `univg score`: benchmarks answered by a model, and answers made elsewhere.

Arguments are checked first, then the data, then the model is loaded: each is told before the next costs time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from univg.errors import UnivgError

if TYPE_CHECKING:
    from rich.console import Console

    from univg.evaluate.benchmarks import Benchmark
    from univg.evaluate.engines import Decoding, Engine
    from univg.evaluate.runner import Outcome, Progress
    from univg.evaluate.runs import Shard

Style = Literal["think", "direct", "simple"]


def evaluate(
    benchmark: Annotated[
        str,
        typer.Option(help="mig_bench, lisa_val, …, or world, world_unseen (drawn here, no files needed)."),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The run's folder; evaluating again goes on in it.")
    ],
    model: Annotated[
        str | None,
        typer.Option(help="A checkpoint folder or hub name (default: embedded; of a server its only one)."),
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="FILE", help="The published file.")] = None,
    images: Annotated[Path | None, typer.Option(metavar="ROOT", help="The folder of its images.")] = None,
    n: Annotated[
        int | None,
        typer.Option("--n", "-n", min=1, help="Samples of each task (default: all; of a world 50)."),
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only this task; repeat for several.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the world's samples.")] = 0,
    difficulty: Annotated[float | None, typer.Option(min=0, max=1, help="Of the world's samples.")] = None,
    size: Annotated[
        int, typer.Option(min=28, max=4096, help="Longer side of the world's images, pixels.")
    ] = 120,
    samples: Annotated[
        int, typer.Option(min=1, help="Draw k responses and score the box they agree on.")
    ] = 1,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="0 is greedy (default; with --samples above 1 it is 1).")
    ] = None,
    sampling_seed: Annotated[
        int, typer.Option(min=0, help="Of the draws, where there is a temperature.")
    ] = 0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest response, in tokens.")] = 256,
    style: Annotated[
        Style | None, typer.Option(help="How to ask (default: as the checkpoint was trained).")
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(min=784, help="Pixels of an image after the resize (default: the checkpoint's)."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Responses at a time.")] = 32,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:1 (default: a GPU if there is one).")
    ] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    engine: Annotated[Literal["local", "openai"], typer.Option(help="Who answers.")] = "local",
    url: Annotated[str | None, typer.Option(help="The server's address, http://localhost:8000/v1.")] = None,
    family: Annotated[str, typer.Option(help="With --engine openai: the model's family.")] = "qwen2_vl",
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 16,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one request.")] = 600.0,
    attempts: Annotated[int, typer.Option(min=1, help="Tries for one request.")] = 6,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Every n-th sample (default: accelerate's process, else all)."),
    ] = None,
    legacy: Annotated[bool, typer.Option("--legacy", help="Also score as the reference code does.")] = False,
) -> None:
    """Evaluate a model on a benchmark; stopped at any moment, the same command finishes what is missing.

    An API key is taken from OPENAI_API_KEY. The exit code is 2 if a sample could not be evaluated.
    """
    # long because every option of the command is a parameter, with its help
    from rich.console import Console

    notes = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    with told_errors():
        decoding, part = _decoding(samples, temperature, max_new_tokens, sampling_seed), _shard(shard)
        if engine == "openai" and url is None:
            raise UnivgError("no address: --engine openai: give --url, such as http://localhost:8000/v1")
        _check_folder(out)
        opened = _open_benchmark(benchmark, data, images, n, task or [], seed, difficulty, size)
        answering: Engine
        if engine == "openai":
            answering = _remote(str(url), model, family, style, max_pixels, concurrency, timeout, attempts)
        else:
            answering = _local(model or "embedded", opened, device, dtype, max_pixels, batch_size, style)
        outcome = _run(opened, answering, out, decoding, part, legacy, notes)
    _tell(outcome, opened, out, part, legacy, notes)


def score(
    predictions: Annotated[Path, typer.Argument(metavar="PREDICTIONS.jsonl", show_default=False)],
    out: Annotated[
        Path, typer.Option(metavar="SCORES.jsonl", help="Where the scores go.", show_default=False)
    ],
    style: Annotated[Style, typer.Option(help="What the responses were asked to be.")] = "think",
    legacy: Annotated[bool, typer.Option("--legacy", help="Also score as the reference code does.")] = False,
) -> None:
    """Score responses made elsewhere: rows with `text`, `answer` (a box) and optionally `id`, `task`."""
    from univg.evaluate.predictions import (
        build_tables,
        find_scale,
        read_predictions,
        score_predictions,
        write_scores,
    )
    from univg.report.tables import print_table

    with told_errors():
        _check_folder(out.parent)
        if out.exists() and predictions.exists() and out.samefile(predictions):
            raise UnivgError("the scores would replace the responses", f"--out {out}", "name another file")
        found = read_predictions(predictions)
        scale = find_scale(one.answer for one in found)
        rows = list(score_predictions(found, scale, style, legacy))
        write_scores(out, rows)
    for table in build_tables(found, rows, scale, str(predictions)):
        print_table(table)
    typer.echo(f"scores: {out}")


@contextmanager
def told_errors() -> Iterator[None]:
    """What a person can put right, as the command's own errors."""
    from univg.evaluate.benchmarks import BenchmarkError

    try:
        yield
    except BenchmarkError as error:
        raise UnivgError(str(error)) from error
    except OSError as error:
        where = error.filename or "the output folder"
        raise UnivgError(
            f"cannot be read or written ({error.strerror or error}): {where}: check the path"
        ) from error


def _check_folder(folder: Path) -> None:
    from univg.files import check_writable

    check_writable(folder)


def _decoding(samples: int, temperature: float | None, max_new_tokens: int, seed: int) -> Decoding:
    from univg.evaluate.engines import Decoding

    if temperature is None:
        temperature = 0.0 if samples == 1 else 1.0
    if samples > 1 and temperature == 0:
        raise UnivgError(f"{samples} greedy samples would be equal: --samples: give --temperature above 0")
    return Decoding(samples, temperature, max_new_tokens, seed)


def _shard(text: str | None) -> Shard:
    from univg.evaluate.runner import parse_shard, read_shard

    return parse_shard(text) if text is not None else read_shard()


def _open_benchmark(
    name: str,
    data: Path | None,
    images: Path | None,
    n: int | None,
    tasks: Sequence[str],
    seed: int,
    difficulty: float | None,
    size: int,
) -> Benchmark:
    from univg.evaluate.benchmarks import WORLD_N, WORLDS, formats_of, open_file, open_world
    from univg.world import DEFAULT_DIFFICULTY

    if name in WORLDS:
        if data is not None or images is not None:
            raise UnivgError(
                f"{name} is drawn here, no file is read: leave out --data and --images, or give the file's --benchmark"
            )
        hardness = DEFAULT_DIFFICULTY if difficulty is None else difficulty
        return open_world(name, n or WORLD_N, seed, hardness, size, tasks)
    formats_of(name)
    if data is None or images is None:
        option = "--data FILE" if data is None else "--images ROOT"
        raise UnivgError(f"the benchmark is a published file: {name}: give {option}")
    return open_file(name, data, images, n, tasks)


def _local(
    model: str,
    benchmark: Benchmark,
    device: str | None,
    dtype: str,
    max_pixels: int | None,
    batch_size: int,
    style: Style | None,
) -> Engine:
    # Libraries warn about their own affairs; what concerns the user is said here.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from univg.evaluate.engines import load_local

    rank = os.environ.get("LOCAL_RANK")
    if device is None and rank is not None:
        import torch

        device = f"cuda:{rank}" if torch.cuda.is_available() else None
    return load_local(
        model,
        benchmark.name,
        device=device,
        dtype=dtype,
        max_pixels=max_pixels,
        batch_size=batch_size,
        style=style,
    )


def _remote(
    url: str,
    model: str | None,
    family: str,
    style: Style | None,
    max_pixels: int | None,
    concurrency: int,
    timeout: float,
    attempts: int,
) -> Engine:
    from univg.evaluate.engines import OpenAIEngine
    from univg.models.pixels import PixelBudget
    from univg.models.server import Patience

    budget = None if max_pixels is None else PixelBudget().up_to(max_pixels)
    return OpenAIEngine(
        url,
        model,
        family=family,
        style=style,
        budget=budget,
        concurrency=concurrency,
        api_key=os.environ.get("OPENAI_API_KEY") or "none",
        patience=Patience(attempts, timeout_s=timeout),
    )


def _run(
    benchmark: Benchmark,
    engine: Engine,
    out: Path,
    decoding: Decoding,
    shard: Shard,
    legacy: bool,
    notes: Console,
) -> Outcome:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    from univg.evaluate.runner import evaluate as run

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=notes, transient=True) as bar:
        line = bar.add_task(benchmark.name, total=len(benchmark.cases))

        def show(progress: Progress) -> None:
            share = 100 * progress.hits / progress.done if progress.done else 0.0
            failed = f", {progress.refused} not evaluated" if progress.refused else ""
            told = f"{benchmark.name}: Acc@0.5 {share:.1f}{failed}"
            bar.update(line, completed=progress.done, total=progress.expected, description=told)

        return run(benchmark, engine, out, decoding, shard=shard, legacy=legacy, on_progress=show)


def _tell(
    outcome: Outcome, benchmark: Benchmark, out: Path, shard: Shard, legacy: bool, notes: Console
) -> None:
    """The table on stdout; what could not be evaluated on stderr, and as the exit code."""
    if outcome.rows and (shard[1] == 1 or len(outcome.rows) >= outcome.expected):
        from univg.evaluate.report import build_sections
        from univg.evaluate.runs import read_runs
        from univg.report.tables import print_table

        for section in build_sections(read_runs([out]), legacy, intervals=("hit_50",)):
            for table in section.tables:
                print_table(table)
    typer.echo(f"{outcome.answered} new rows, {len(outcome.rows)} of {outcome.expected}: {out}")
    for fault in outcome.faults[:20]:
        notes.print(f"{'note' if fault.get('usable') else 'fault'}: {_fault_line(fault)}")
    if len(outcome.faults) > 20:
        notes.print(f"… and {len(outcome.faults) - 20} more, in {out}/state-*.json")
    failed = [fault for fault in outcome.faults if not fault.get("usable")]
    if failed:
        kinds = ", ".join(sorted({str(fault["kind"]) for fault in failed}))
        raise UnivgError(
            f"{len(failed)} samples could not be evaluated ({kinds}): {out}: "
            "put right what is said above and run the same command again"
        )


def _fault_line(fault: Mapping[str, Any]) -> str:
    return f"{fault['source'] or fault['key']}: {fault['kind']}: {fault['why']}"
