"""A benchmark run that can be killed at any moment and resumed: asks for what has no row yet, and appends."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import univg
from univg.evaluate.benchmarks import Benchmark, Case
from univg.evaluate.engines import Answer, Decoding, Engine, Refusal
from univg.evaluate.judging import judge, legacy_columns
from univg.evaluate.rows import (
    Row,
    RowWriter,
    RunError,
    Shard,
    claim,
    read_rows,
    read_state,
    write_state,
)

WHOLE: Shard = (0, 1)


@dataclass(frozen=True)
class Progress:
    """How far a run is: `done` of this shard's `expected` samples have a row, `hits` of them at IoU 0.5."""

    done: int
    expected: int
    hits: int
    refused: int


@dataclass(frozen=True)
class Outcome:
    """`answered` rows are new. `rows` are all of the benchmark's so far, over all shards; `faults` the samples
    that could not be evaluated, `expected` how many there are."""

    answered: int
    rows: Mapping[str, Row]
    faults: Sequence[Mapping[str, Any]]
    expected: int
    shard_complete: bool = field(default=False)


def evaluate(
    benchmark: Benchmark,
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
    Raises RunError (the folder holds another run, or is being written), UnivgError (the engine cannot go on).
    """
    number, count = shard
    if not 0 <= number < count:
        raise RunError(f"no shard {number} of {count}: count shards from 0")
    decoding = decoding or Decoding()
    fingerprint = fingerprint_of(benchmark, engine, decoding)
    identity = claim(out, fingerprint, {"model": engine.name, **benchmark.about})
    faults: list[dict[str, Any]] = [dict(fault) for fault in benchmark.faults] if number == 0 else []
    mine = benchmark.cases[number::count]
    answered = 0
    with RowWriter(out, shard) as writer:
        done = read_rows(out, identity)
        hits = sum(bool(done[case.key]["hit_50"]) for case in mine if case.key in done)
        faults += [_fault(case, "no_truth", NO_TRUTH) for case in mine if not case.sample.boxes]
        missing = [case for case in mine if case.key not in done and case.sample.boxes]
        cases = {case.key: case for case in missing}
        finished, refused = sum(case.key in done for case in mine), len(faults)
        write_state(out, shard, len(benchmark.cases), faults)
        on_progress(Progress(finished, len(mine), hits, refused))
        try:
            for batch in engine.answer(missing, decoding) if missing else ():
                rows = []
                for result in batch:
                    if isinstance(result, Refusal):
                        faults.append(_fault(cases[result.key], result.kind, result.why))
                        continue
                    rows.append(_row(cases[result.key], result, engine, benchmark.name, identity, legacy))
                writer.append(rows)
                answered += len(rows)
                hits += sum(row["hit_50"] for row in rows)
                on_progress(Progress(finished + answered, len(mine), hits, len(faults)))
        finally:
            write_state(out, shard, len(benchmark.cases), faults)
    rows_now = read_rows(out, identity)
    expected, standing = read_state(out, rows_now)
    complete = all(case.key in rows_now for case in mine)
    return Outcome(answered, rows_now, standing, expected, complete)


NO_TRUTH = "the sample has no ground truth: nothing to score against"


def fingerprint_of(benchmark: Benchmark, engine: Engine, decoding: Decoding) -> dict[str, Any]:
    """All that decides a number of this run."""
    stated = engine.fingerprint()
    versions = {"univg": univg.__version__, **stated.pop("versions", {})}
    return {
        "benchmark": benchmark.name,
        "data": benchmark.digest,
        **stated,
        "decoding": decoding.fingerprint(),
        "versions": versions,
    }


def shard_from_environment() -> Shard:
    """The shard that `accelerate launch` or `torchrun` gives this process; the whole without them.

    Raises RunError for values that are no shard.
    """
    rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    return parse_shard(f"{rank}/{world}")


def parse_shard(text: str) -> Shard:
    """`"i/n"`, i counted from 0.

    >>> parse_shard("1/4")
    (1, 4)
    """
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise RunError(f"no shard {text!r}: write i/n with i from 0 to n-1, such as 0/4")
    return int(number), int(count)


def _row(case: Case, answer: Answer, engine: Engine, benchmark: str, identity: str, legacy: bool) -> Row:
    row = {"key": case.key, "fingerprint": identity}
    row |= judge(case.sample, answer, engine.style, engine.frame)
    return row | legacy_columns(row, benchmark) if legacy else row


def _fault(case: Case, kind: str, why: str) -> dict[str, Any]:
    sample = case.sample
    return {"key": case.key, "source": sample.source, "task": sample.task, "kind": kind, "why": why}
