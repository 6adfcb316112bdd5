"""Reporting a run to the real TensorBoard, Weights & Biases and Trackio: what they hold afterwards is the run's log."""

from __future__ import annotations

import io
import json
import math
import os
import socket
import sqlite3
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from runs import QUIET
from univg.config import save_config
from univg.errors import UnivgError
from univg.grounding.reading import Asked, read
from univg.pictures.drawing import TRUTH
from univg.training.config import DataSource, GrpoConfig, SftConfig, Validation
from univg.training.run.log import RunLog
from univg.training.run.prechecks import check_stage
from univg.training.run.trackers import COLOURS, Drawn, Trackers, draw_answers
from univg.world import make_sample

DEADLY = """
import os, signal

def reward(completions, trainer_state, **columns):
    '''Stop the run in its fourth step: the third is logged, the last checkpoint is of the second.'''
    if trainer_state is not None and trainer_state.global_step == 3 and "DIE" in os.environ:
        os.kill(os.getpid(), signal.SIGINT)
    return [sum(c.isalpha() for c in each[0]["content"]) / 10 for each in completions]
"""


@dataclass(frozen=True)
class Reported:
    """A run that was stopped and went on: its folder, its log, and Trackio's folder."""

    out: Path
    rows: list[dict[str, Any]]
    trackio: Path


def run(folder: Path, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "TRACKIO_DIR": str(folder / "trackio"), "HOME": str(folder), **env}
    given["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "WANDB_DIR", "WANDB_RUN_ID"):
        given.pop(name, None)
    return subprocess.run(
        [sys.executable, "-m", "univg", *command],
        capture_output=True,
        text=True,
        env=given,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=600,
    )


@pytest.fixture(scope="module")
def reported(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """All three at once, offline: that nobody is asked over the network is part of it."""
    for name in ("tensorboard", "wandb", "trackio"):
        pytest.importorskip(name)
    listening = socket.create_server(("127.0.0.1", 0))
    folder = tmp_path_factory.mktemp("reported")
    (folder / "deadly.py").write_text(DEADLY)
    data = DataSource(families=("referring", "diff"), image_px=60)
    config = GrpoConfig(
        model=str(start),
        data=(data,),
        validation=Validation(reader="world", families=("referring", "diff"), image_px=60, n=4, every=2),
        max_steps=5,
        prompts_per_step=4,
        rollouts=2,
        micro_batch=8,
        max_completion_tokens=6,
        rewards={"iou": 1.0, "format": 1.0, "deadly.reward": 0.5},
        rollout_page_every=2,
        save_every=2,
        workers=0,
        bf16=False,
        trainer={"report_to": ["tensorboard", "wandb", "trackio"]},
    )
    save_config(config, folder / "grpo.yaml")
    out = folder / "run"
    elsewhere = f"http://127.0.0.1:{listening.getsockname()[1]}"
    env = {"WANDB_MODE": "offline", "WANDB_BASE_URL": elsewhere, "HF_ENDPOINT": elsewhere}
    command = ("grpo", "--config", str(folder / "grpo.yaml"), "--out", str(out))
    stopped = run(folder, *command, DIE="1", **env)
    assert stopped.returncode == 130 and "stopped at step 3" in stopped.stderr, stopped.stderr
    ended = run(folder, *command, "--resume", **env)
    assert ended.returncode == 0, ended.stderr
    said = [
        line
        for line in ended.stdout.splitlines()
        if "WANDB offline" not in line and "real_accelerator.py" not in line
    ]  # of transformers' import, and of DeepSpeed's
    assert said == [f"model: {out}"], "what trackers say does not stand among results"
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    listening.setblocking(False)
    with listening, pytest.raises(BlockingIOError):  # nobody has called
        listening.accept()
    return Reported(out, rows, folder / "trackio")


def numbers_of(rows: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """The log, by name: (step, value)."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step" and isinstance(value, (int, float)) and not math.isnan(value):
                found.setdefault(name, []).append((row["step"], value))
    return found


@pytest.mark.slow
def test_the_log_tells_each_family_by_itself(reported: Reported) -> None:
    for row in reported.rows:
        if "loss" not in row:
            continue
        families = [name.removeprefix("iou/") for name in row if name.startswith("iou/")]
        assert families and set(families) <= {"referring", "diff"}
        assert [f"reward/{family}" for family in families] == [n for n in row if n.startswith("reward/")]
        assert min(row[f"iou/{f}"] for f in families) <= row["iou"] <= max(row[f"iou/{f}"] for f in families)
    names = {name for row in reported.rows for name in row}
    assert {"validation/acc_50/diff", "validation/iou/referring"} <= names


@pytest.mark.slow
def test_tensorboard_holds_the_log_and_the_pictures(reported: Reported) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(reported.out / "tensorboard"), {"scalars": 0, "images": 0})
    events.Reload()
    expected = numbers_of(reported.rows)
    assert set(events.Tags()["scalars"]) == set(expected)
    for name, values in expected.items():
        held = [(each.step, each.value) for each in events.Scalars(name)]
        assert [step for step, _ in held] == [step for step, _ in values], f"{name}: no step twice"
        if name != "seconds":  # of the third step those of the second try
            assert [v for _, v in held] == pytest.approx([v for _, v in values], rel=1e-5)
    pictures = [name for name in events.Tags()["images"] if name.startswith("rollouts/")]
    assert sorted(pictures) == [f"rollouts/{number}" for number in range(1, 5)]
    for name in pictures:
        assert [each.step for each in events.Images(name)] == [1, 2, 4]
    shown = Image.open(io.BytesIO(events.Images("rollouts/1")[0].encoded_image_string))
    colours = {colour for _, colour in shown.convert("RGB").getcolors(1 << 20) or []}
    assert (0, 150, 90) in colours, "the true box"
    answers = [name for name in events.Tags()["images"] if name.startswith("validation/")]
    assert sorted(answers) == [f"validation/answers/{number}" for number in range(1, 5)]
    assert [each.step for each in events.Images(answers[0])] == [0, 2, 4, 5]


def wandb_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(the run's id, a row of its history) of an offline run's file: records of a protocol in LevelDB's log format."""
    from wandb.proto import wandb_internal_pb2 as messages

    content, at, whole, run_id = path.read_bytes(), 7, b"", ""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind not in (1, 4):  # whole, or the last part
            continue
        record = messages.Record()
        record.ParseFromString(whole)
        whole = b""
        run_id = record.run.run_id or run_id
        if record.WhichOneof("record_type") == "history":
            items = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
            yield run_id, {name: json.loads(value) for name, value in items.items()}


@pytest.mark.slow
def test_wandb_goes_on_in_one_run(reported: Reported) -> None:
    files = sorted((reported.out / "wandb").glob("offline-run-*/*.wandb"))
    rows = [row for path in files for row in wandb_rows(path)]
    assert len(files) == 2 and len({run_id for run_id, _ in rows}) == 1, "two pieces of one run"
    held = [row for _, row in rows]
    assert [row["train/global_step"] for row in held if "loss" in row] == [1, 2, 3, 4, 5]
    for name, values in numbers_of(reported.rows).items():
        told = {row["train/global_step"]: row[name] for row in held if name in row}
        assert list(told) == [step for step, _ in values]
        if name not in ("seconds", "step_time", "validation/seconds"):
            assert list(told.values()) == pytest.approx([v for _, v in values], rel=1e-6), name
    pictures = [row["train/global_step"] for row in held if "rollouts/1._type" in row or "rollouts/1" in row]
    assert pictures == [1, 2, 4]
    assert len(list((reported.out / "wandb").rglob("media/images/rollouts/*.png"))) == 12


@pytest.mark.slow
def test_trackio_goes_on_in_one_run(reported: Reported) -> None:
    with sqlite3.connect(reported.trackio / "univg.db") as database:
        found = database.execute("select run_name, step, metrics from metrics order by id").fetchall()
    assert len({name for name, _, _ in found}) == 1 and found[0][0].startswith("run-")
    rows = [(step, json.loads(row)) for _, step, row in found]
    counted = Counter((step, name) for step, row in rows for name in row if not name.startswith("profiling/"))
    assert set(counted.values()) == {1}, "nothing is told twice"
    for name, values in numbers_of(reported.rows).items():
        told = [(step, row[name]) for step, row in rows if name in row]
        assert [step for step, _ in told] == [step for step, _ in values]
        if name not in ("seconds", "step_time", "validation/seconds"):
            assert [v for _, v in told] == pytest.approx([v for _, v in values], rel=1e-6), name
    pictures = [(step, row["rollouts/1"]) for step, row in rows if "rollouts/1" in row]
    assert [step for step, _ in pictures] == [1, 2, 4]
    for _, picture in pictures:
        assert (reported.trackio / "media" / picture["file_path"]).is_file()
        assert "advantage" in picture["caption"]


class Recorder:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.shown: list[tuple[int, list[str]]] = []
        self.closed = 0

    def write(self, step: int, numbers: dict[str, float]) -> None:
        self.rows.append((step, numbers))

    def show(self, step: int, pictures: list[Drawn]) -> None:
        self.shown.append((step, [name for name, _, _ in pictures]))

    def close(self) -> None:
        self.closed += 1


def test_what_was_told_before_a_resume_is_not_told_again(tmp_path: Path) -> None:
    tracker = Recorder()
    log = RunLog(tmp_path, "grpo", QUIET, trackers=(trackers := Trackers([tracker], told=3)))
    args = SimpleNamespace(logging_steps=1)
    for step in (3, 4):
        state = SimpleNamespace(global_step=step, max_steps=4, is_world_process_zero=True)
        log.on_train_begin(args, state, None)
        numbers = {"loss": 0.5 * step, "rewards/own/mean": math.nan, "epoch": 0.1, "name": "words"}
        log.on_log(args, state, None, logs=numbers)
        trackers.show(step, [("rollouts/1", Image.new("RGB", (4, 4)), "")])
    log.close()
    [(step, row)] = tracker.rows
    assert step == 4 and row.pop("seconds") >= 0 and row == {"loss": 2.0}
    assert tracker.shown == [(4, ["rollouts/1"])] and tracker.closed == 1
    assert not Trackers() and trackers


def test_a_picture_holds_the_truth_and_every_answer() -> None:
    made = make_sample("diff", index=1)
    asked = Asked.of(made.sample)
    texts = ["<answer>(100,200),(300,400)</answer>", "no box", "<answer>(500,500),(900,900)</answer>"]
    readings = [read(text, asked) for text in texts]
    drawn = draw_answers(made.sample, made.images, readings, ["below"])
    colours = {colour for _, colour in drawn.getcolors(1 << 20) or []}
    assert {TRUTH, COLOURS[0], COLOURS[2]} <= colours and COLOURS[1] not in colours


@pytest.mark.slow  # only the nightly environment has wandb
@pytest.mark.parametrize("mode", ["", "offline"])
def test_without_a_login_wandb_neither_asks_nor_starts(
    mode: str, start: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wandb = pytest.importorskip("wandb")
    wandb.teardown()
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_MODE", mode or "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    config = SftConfig(model=str(start), data=(DataSource(),), max_steps=1, trainer={"report_to": "wandb"})
    try:
        if mode:
            check_stage(config)
        else:
            with pytest.raises(
                UnivgError, match=r"report_to: wandb: nobody is logged in: .*WANDB_MODE=offline"
            ):
                check_stage(config)
    finally:
        wandb.teardown()
