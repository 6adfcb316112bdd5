"""The runner: resumed, sharded, killed; faults are counted and never become numbers."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from univg.data.dataset import parse_shard
from univg.errors import UnivgError
from univg.evaluate.benchmarks import open_file, open_world
from univg.evaluate.rows import drop_timings
from univg.evaluate.runner import evaluate, read_shard
from univg.evaluate.runs import OtherRun, read_run
from univg.models.answering import Decoding

KILLS = 25


def timeless(rows: Any) -> dict[str, Any]:
    return {key: drop_timings(row) for key, row in rows.items()}


def test_a_row_says_everything(scripted: ModuleType, tmp_path: Path) -> None:
    benchmark = scripted.world(1)
    outcome = evaluate(benchmark, scripted.ScriptedEngine(), tmp_path)
    assert (outcome.answered, outcome.expected, len(outcome.rows)) == (benchmark.total,) * 3
    assert outcome.shard_complete and not outcome.faults
    for case in benchmark.items():
        row = outcome.rows[case.key]
        assert row["task"] == case.sample.task
        assert row["truth_unit"] == list(case.sample.boxes[0])
        assert row["hit_50"] == (row["iou"] >= 0.5 - 1e-9)
        assert (row["fault"] == "no_answer") == (not row["boxes_unit"])
    assert {row["hit_50"] for row in outcome.rows.values()} == {True, False}


def test_a_rerun_repeats_nothing_and_more_samples_extend_it(scripted: ModuleType, tmp_path: Path) -> None:
    evaluate(scripted.world(1), scripted.ScriptedEngine(), tmp_path)
    again = scripted.ScriptedEngine()
    assert evaluate(scripted.world(1), again, tmp_path).answered == 0 and not again.asked
    longer = scripted.ScriptedEngine()
    outcome = evaluate(scripted.world(2), longer, tmp_path)
    assert outcome.answered == len(longer.asked) == len(outcome.rows) // 2


class Cut(Exception):
    pass


def test_what_was_answered_before_a_failure_stays(scripted: ModuleType, tmp_path: Path) -> None:
    def stop(progress: Any) -> None:
        if progress.done >= 8:
            raise Cut

    with pytest.raises(Cut):
        evaluate(scripted.world(2), scripted.ScriptedEngine(), tmp_path / "a", on_progress=stop)
    rest = scripted.ScriptedEngine()
    resumed = evaluate(scripted.world(2), rest, tmp_path / "a")
    whole = evaluate(scripted.world(2), scripted.ScriptedEngine(), tmp_path / "b")
    assert len(rest.asked) == len(whole.rows) - 8
    assert timeless(resumed.rows) == timeless(whole.rows)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("model", "model: another content under the same name"),
        ("decoding", "decoding.max_new_tokens: 256 -> 9"),
        ("data", "seed: 0 -> 5"),
        ("style", 'prompt.style: "think" -> "direct"'),
    ],
)
def test_another_fingerprint_never_mixes(
    change: str, told: str, scripted: ModuleType, tmp_path: Path
) -> None:
    evaluate(scripted.world(1), scripted.ScriptedEngine(), tmp_path)
    engine, decoding, benchmark = scripted.ScriptedEngine(), Decoding(), scripted.world(1)
    if change == "model":
        engine = scripted.ScriptedEngine(version=2)
    elif change == "style":
        engine = scripted.ScriptedEngine(style="direct")
    elif change == "decoding":
        decoding = Decoding(max_new_tokens=9)
    else:
        benchmark = scripted.world(1, seed=5)
    with pytest.raises(OtherRun, match=rf"rows of another run \({told}"):
        evaluate(benchmark, engine, tmp_path, decoding)


def test_shards_make_the_whole(scripted: ModuleType, tmp_path: Path) -> None:
    whole = evaluate(scripted.world(2), scripted.ScriptedEngine(), tmp_path / "whole")
    first = evaluate(scripted.world(2), scripted.ScriptedEngine(), tmp_path / "parts", shard=(0, 3))
    assert first.shard_complete and first.expected == len(whole.rows) > len(first.rows)
    for number in (1, 2):
        last = evaluate(scripted.world(2), scripted.ScriptedEngine(), tmp_path / "parts", shard=(number, 3))
    assert timeless(last.rows) == timeless(whole.rows)
    engine = scripted.ScriptedEngine()
    evaluate(scripted.world(2), engine, tmp_path / "parts")
    assert not engine.asked, "another division of the work finds what is done"


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "a/b", "0/0"])
def test_no_shard(text: str) -> None:
    with pytest.raises(UnivgError, match="no shard"):
        parse_shard(text)


def test_the_shard_of_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert read_shard() == (0, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert read_shard() == (2, 4)


def test_a_missing_image_is_a_fault_and_comes_back(
    scripted: ModuleType, tmp_path: Path, own_set: Callable[..., tuple[Path, Path]]
) -> None:
    data, root = own_set(5)
    hidden = (root / "2-b.png").rename(tmp_path / "hidden.png")
    (root / "3-a.png").write_bytes(b"no image")
    outcome = evaluate(open_file("univg", data, root), scripted.ScriptedEngine(), tmp_path / "run")
    assert len(outcome.rows) == 3 and outcome.expected == 5
    assert [(fault["source"], fault["kind"]) for fault in outcome.faults] == [
        ("own#2", "image"),
        ("own#3", "image"),
    ]
    assert "2-b.png" in outcome.faults[0]["why"] and not outcome.shard_complete
    hidden.rename(root / "2-b.png")
    again = evaluate(open_file("univg", data, root), scripted.ScriptedEngine(), tmp_path / "run")
    assert again.answered == 1
    assert [fault["source"] for fault in again.faults] == ["own#3"]


def test_a_sample_without_ground_truth_is_a_fault(
    scripted: ModuleType, tmp_path: Path, own_set: Callable[..., tuple[Path, Path]]
) -> None:
    data, root = own_set(2, boxes=())
    engine = scripted.ScriptedEngine()
    outcome = evaluate(open_file("univg", data, root), engine, tmp_path / "run")
    assert not engine.asked and not outcome.rows
    assert {fault["kind"] for fault in outcome.faults} == {"no_truth"}


def test_equal_samples_are_each_counted(
    scripted: ModuleType, tmp_path: Path, own_set: Callable[..., tuple[Path, Path]]
) -> None:
    data, root = own_set(2)
    data.write_text(data.read_text() * 2)
    outcome = evaluate(open_file("univg", data, root), scripted.ScriptedEngine(), tmp_path / "run")
    assert len(outcome.rows) == 4
    assert sorted(key.partition("-")[2] for key in outcome.rows) == ["", "", "2", "2"]


def test_the_consensus_of_several_samples(scripted: ModuleType, tmp_path: Path) -> None:
    outcome = evaluate(scripted.world(1), scripted.ScriptedEngine(), tmp_path, Decoding(4, temperature=1.0))
    for row in outcome.rows.values():  # of four draws two are right, one is half a box and one is no box
        assert row["iou"] > 0.95 and len(row["texts"]) == 4
        assert row["confidence"] == pytest.approx((1 + 0.5 + 0) / 3, abs=0.03)


def test_the_first_samples_of_a_world_do_not_depend_on_their_number() -> None:
    few, many = open_world("world_unseen", 1, size_px=32), open_world("world_unseen", 2, size_px=32)
    assert few.digest == many.digest
    assert [case.key for case in few.items()] == [case.key for case in many.items()][: few.total]
    assert open_world("world", 1, size_px=32).digest != few.digest


def test_an_engine_that_gives_up_leaves_its_rows(scripted: ModuleType, tmp_path: Path) -> None:
    class Failing(scripted.ScriptedEngine):  # type: ignore[name-defined, misc]
        def answer(self, cases: Any, decoding: Any) -> Any:
            yield next(super().answer(cases, decoding))
            raise UnivgError("gone", "somewhere", "start it")

    with pytest.raises(UnivgError, match="gone"):
        evaluate(scripted.world(1), Failing(), tmp_path)
    assert (
        evaluate(scripted.world(1), scripted.ScriptedEngine(), tmp_path).answered
        == scripted.world(1).total - 4
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes of another kind")
def test_killed_at_any_moment_it_ends_with_the_same_rows(scripted: ModuleType, tmp_path: Path) -> None:
    benchmark, fork = scripted.world(8), multiprocessing.get_context("fork")
    whole = evaluate(benchmark, scripted.ScriptedEngine(), tmp_path / "whole")
    rng, out, killed = random.Random(0), tmp_path / "killed", 0
    slow = scripted.ScriptedEngine(batch_size=1, pause_s=0.02)
    for number in range(KILLS):
        process = fork.Process(target=evaluate, args=(benchmark, slow, out))
        process.start()
        before = written(out)
        while process.is_alive() and written(out) == before and number % 4:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.02 if number % 4 else 0.1))  # every fourth may not have begun
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
    assert killed >= 10, "the run must still be going when it is killed"
    last = evaluate(benchmark, scripted.ScriptedEngine(), out)
    assert timeless(last.rows) == timeless(whole.rows)
    stored = (out / "rows-0-of-1.jsonl").read_bytes()
    assert stored.count(b"\n") == len(whole.rows), "nothing was repeated"
    assert read_run(out) == read_run(tmp_path / "whole")


def written(out: Path) -> int:
    try:
        return os.stat(out / "rows-0-of-1.jsonl").st_size
    except FileNotFoundError:
        return -1
