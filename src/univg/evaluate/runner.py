"""Evaluate a benchmark: ask for what has no row yet, and append; killed at any moment, it goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import univg
from univg.data.dataset import Dataset, Item, Shard, parse_shard
from univg.data.readers import RecordFault
from univg.errors import UnivgError
from univg.evaluate.benchmarks import WORLD_N, WORLDS, check_images, find_formats, open_file, open_world
from univg.evaluate.engines import Engine, LocalEngine, OpenAIEngine, load_local
from univg.evaluate.pairs import check_same_samples
from univg.evaluate.rows import Row, add_legacy, make_row
from univg.evaluate.runs import claim, open_rows, read_rows, read_runs, read_state, write_state
from univg.models.answering import Answer, Decoding, Refusal
from univg.models.keys import read_key
from univg.models.pixels import PixelBudget
from univg.models.server import KEY_VARIABLE, Patience
from univg.models.tokens import choose_longest
from univg.world import DEFAULT_DIFFICULTY, DRAWN
from univg.world.drawn import tell_missing

if TYPE_CHECKING:
    from univg.evaluate.config import BenchmarkConfig, EvaluateConfig, ModelConfig, ResponseConfig

__all__ = [
    "WHOLE",
    "Outcome",
    "Progress",
    "choose_decoding",
    "evaluate",
    "evaluate_benchmark",
    "find_engine",
    "make_fingerprint",
    "open_benchmark",
    "read_shard",
]

WHOLE: Shard = (0, 1)


@dataclass(frozen=True)
class Progress:
    """How far a run is: `done` of this shard's `expected` samples have a row, `hits` of them at IoU 0.5 (of sets at a
    soft-F1 of 0.5)."""

    done: int
    expected: int
    hits: int
    refused: int


@dataclass(frozen=True)
class Outcome:
    """What a run has come to: `answered` rows are new, `rows` are all of the benchmark's so far, over all shards.

    `faults`: the samples that could not be evaluated; `expected`: how many samples there are.
    """

    answered: int
    rows: Mapping[str, Row]
    faults: Sequence[Mapping[str, Any]]
    expected: int
    shard_complete: bool = field(default=False)


def evaluate_benchmark(
    config: EvaluateConfig,
    out: Path,
    *,
    shard: Shard = WHOLE,
    legacy: bool = False,
    beside: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Outcome:
    """Evaluate what is missing in the folder `out` of the benchmark and with the model that `config` names.

    Data are opened before the model is loaded: what is wrong is said before it costs time, to `on_note` what costs
    only some samples. `beside`: the folder of a run that this one is to be compared with; it must be over the same
    data. See :func:`evaluate`.
    """
    choose_decoding(config)  # what is wrong with it is said before the data are read
    other = None if beside is None else read_runs([beside])[0]
    benchmark = open_benchmark(config)
    if other is not None:
        check_same_samples(other, benchmark.name, benchmark.digest, benchmark.origin, f"{beside} and {out}")
    sets = any(case.sample.complete for case in benchmark.items())
    decoding = choose_decoding(config, sets)
    if config.images is not None and (missing := check_images(benchmark, config.images)):
        on_note(missing)
    if config.benchmark in WORLDS and WORLDS[config.benchmark][0] == DRAWN and (missing := tell_missing()):
        on_note(missing)
    engine = find_engine(config)
    for note in engine.notes:
        on_note(note)
    return evaluate(benchmark, engine, out, decoding, shard=shard, legacy=legacy, on_progress=on_progress)


def choose_decoding(config: ResponseConfig, sets: bool = False) -> Decoding:
    """Return how responses are drawn: several at temperature 1, one greedily, unless a temperature is given; and how
    long they may be, longer if any answer is one of `sets`."""
    temperature = config.temperature
    if temperature is None:
        temperature = 0.0 if config.samples == 1 else 1.0
    longest = choose_longest(sets) if config.max_new_tokens is None else config.max_new_tokens
    return Decoding(config.samples, temperature, longest, config.sampling_seed)


def open_benchmark(config: BenchmarkConfig) -> Dataset:
    """Open the benchmark that `config` names. Raises UnivgError: no such benchmark, or no such file."""
    name, data, images = config.benchmark, config.data, config.images
    if name in WORLDS:
        if data is not None or images is not None:
            raise UnivgError(
                f"{name} is drawn here, no file is read",
                remedy="leave out --data and --images, or give the file's --benchmark",
            )
        difficulty = DEFAULT_DIFFICULTY if config.difficulty is None else config.difficulty
        return open_world(name, config.n or WORLD_N, config.seed, difficulty, config.size, config.task)
    find_formats(name)
    if data is None or images is None:
        option = "--data FILE" if data is None else "--images ROOT"
        raise UnivgError("the benchmark is a published file", name, f"give {option}")
    return open_file(name, data, images, config.n, config.task)


def find_engine(config: EvaluateConfig) -> LocalEngine | OpenAIEngine:
    """Load the model that `config` names, or reach its server. Of several local processes, each takes its GPU."""
    if config.engine == "openai":
        return _reach_server(config)
    device, rank = config.device, os.environ.get("LOCAL_RANK")
    if device is None and rank is not None:
        import torch

        device = f"cuda:{rank}" if torch.cuda.is_available() else None
    return load_local(
        config.model or "embedded",
        config.benchmark,
        device=device,
        dtype=config.dtype,
        max_pixels=config.max_pixels,
        batch_size=config.batch_size,
        style=config.style,
    )


def _reach_server(config: ModelConfig) -> OpenAIEngine:
    most = config.max_pixels
    return OpenAIEngine(
        str(config.url),
        config.model,
        family=config.family,
        style=config.style,
        budget=None if most is None else PixelBudget().up_to(most),
        concurrency=config.concurrency,
        api_key=read_key(KEY_VARIABLE) or "none",
        patience=Patience(config.attempts, timeout_s=config.timeout),
    )


def evaluate(
    benchmark: Dataset,
    engine: Engine,
    out: Path,
    decoding: Decoding | None = None,
    *,
    shard: Shard = WHOLE,
    legacy: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Evaluate what is missing of `benchmark` in the folder `out`; killed and called again, it goes on.

    A row is on disk before the next batch is asked for. A case that cannot be evaluated (an image that is not
    there, no ground truth, a server that gives up) is a fault, never a row: it is counted in the outcome and
    tried again by the next run. `shard` (i, n) takes every n-th case; shards may run at once, on several
    machines, in one folder. `legacy` adds the reference scorers' columns to new rows.
    Raises UnivgError: the folder holds another run (OtherRun), or is being written; the engine cannot go on.
    """
    number, count = shard
    if not 0 <= number < count:
        raise UnivgError(f"no shard {number} of {count}", remedy="count shards from 0")
    decoding = decoding or Decoding()
    fingerprint = make_fingerprint(benchmark, engine, decoding)
    identity = claim(out, fingerprint, {"model": engine.name, **benchmark.origin})
    faults = [_keep_record_fault(fault) for fault in benchmark.faults] if number == 0 else []
    everything = list(benchmark.items())
    mine, keys = everything[number::count], {case.key for case in everything}
    answered = 0
    with open_rows(out, shard) as journal:
        done = read_rows(out, identity)
        hits = sum(bool(done[case.key]["hit_50"]) for case in mine if case.key in done)
        faults += [_make_fault(case, "no_truth", NO_TRUTH) for case in mine if not case.sample.is_answered]
        missing = [case for case in mine if case.key not in done and case.sample.is_answered]
        cases = {case.key: case for case in missing}
        finished, refused = sum(case.key in done for case in mine), len(faults)
        # Rows of other tasks, or of a larger --n, are the run's as well.
        expected = benchmark.total + len(done.keys() - keys)
        write_state(out, shard, expected, faults)
        on_progress(Progress(finished, len(mine), hits, refused))
        try:
            for batch in engine.answer(missing, decoding) if missing else ():
                rows = []
                for result in batch:
                    if isinstance(result, Refusal):
                        faults.append(_make_fault(cases[result.key], result.kind, result.why))
                        continue
                    rows.append(
                        _make_row(cases[result.key], result, engine, benchmark.name, identity, legacy)
                    )
                journal.append(rows)
                answered += len(rows)
                hits += sum(row["hit_50"] for row in rows)
                on_progress(Progress(finished + answered, len(mine), hits, len(faults)))
        finally:
            write_state(out, shard, expected, faults)
    rows_now = read_rows(out, identity)
    expected, standing = read_state(out, rows_now)
    complete = all(case.key in rows_now for case in mine)
    return Outcome(answered, rows_now, standing, expected, complete)


NO_TRUTH = "the sample has no ground truth: nothing to score against"


def make_fingerprint(benchmark: Dataset, engine: Engine, decoding: Decoding) -> dict[str, Any]:
    """Return all that decides a number of this run."""
    stated = engine.fingerprint()
    versions = {"univg": univg.__version__, **stated.pop("versions", {})}
    return {
        "benchmark": benchmark.name,
        "data": benchmark.digest,
        **stated,
        "decoding": decoding.fingerprint(),
        "versions": versions,
    }


def read_shard() -> Shard:
    """Return the shard that `accelerate launch` or `torchrun` gives this process; the whole without them.

    Raises UnivgError for values that are no shard.
    """
    rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    return parse_shard(f"{rank}/{world}")


def _make_row(case: Item, answer: Answer, engine: Engine, benchmark: str, identity: str, legacy: bool) -> Row:
    row = {
        "key": case.key,
        "fingerprint": identity,
        **make_row(case.sample, answer, engine.style, engine.frame),
    }
    return add_legacy(row, benchmark) if legacy else row


def _make_fault(case: Item, kind: str, why: str) -> dict[str, Any]:
    sample = case.sample
    return {"key": case.key, "source": sample.source, "task": sample.task, "kind": kind, "why": why}


def _keep_record_fault(fault: RecordFault) -> dict[str, Any]:
    """Return what is kept of a record that could not be read; one that gave a sample all the same is usable."""
    why = f"{fault.kind}: {fault.cause}: {fault.fix}"
    return {
        "key": None,
        "source": fault.record,
        "task": "",
        "kind": "record",
        "why": why,
        "usable": fault.usable,
    }
