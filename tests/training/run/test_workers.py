"""Data workers: they end with their run, hand over what they made without shared memory, and are named if they die."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from univg.config import save_config
from univg.errors import UnivgError
from univg.models.loading import load
from univg.models.processor import PixelBudget
from univg.training.config import DataSource, GrpoConfig, SftConfig
from univg.training.run.batches import PixelTable, encode_row, load_steps
from univg.training.run.workers import made_ahead, naming_dead_workers

LONGEST_WAIT_S = 60

RUN = """
import multiprocessing, time
from univg.training.run.batches import load_steps

class Steps:
    def __getitem__(self, step):
        return bytes(1 << 22)  # more than a pipe holds, so that handing it over waits for the run

steps = load_steps(Steps(), 0, 100, workers=2)
next(steps)
print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
time.sleep(600)
"""


class Steps(Dataset[dict[str, Any]]):
    def __getitem__(self, step: int) -> dict[str, Any]:
        if step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"ids": torch.arange(step + 1), "pixels": torch.full((2, 3), step, dtype=torch.uint8)}


def has_ended(process: int) -> bool:
    """Wait for the end of a process that `os.pidfd_open` names."""
    return bool(select.select([process], [], [], LONGEST_WAIT_S)[0])


def watch_children(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [os.pidfd_open(int(child)) for child in children]


def test_workers_end_with_a_run_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        workers = [os.pidfd_open(int(pid)) for pid in run.stdout.readline().split()]
        run.kill()
    assert len(workers) == 2 and all(map(has_ended, workers))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_nothing_is_left_of_a_stopped_run(stage: str, name: str, start: Path, tmp_path: Path) -> None:
    """A run of the command, its rows full of pictures, stopped after two steps; Ctrl-C as a terminal sends it."""
    shared: dict[str, Any] = {"model": str(start), "data": (DataSource(image_px=900),), "bf16": False}
    shared |= {"max_steps": 10_000, "save_every": 10_000, "workers": 2}
    grpo = {"prompts_per_step": 2, "rollouts": 2, "max_completion_tokens": 4}
    config = SftConfig(batch=4, **shared) if stage == "sft" else GrpoConfig(**grpo, **shared)
    save_config(config, tmp_path / "config.yaml")
    command = [sys.executable, "-m", "univg", stage, "--config", str(tmp_path / "config.yaml")]
    command += ["--out", str(tmp_path / "run"), "trainer.logging_steps=2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as run:
        assert run.stderr is not None
        log = tmp_path / "run" / "log.jsonl"
        while run.poll() is None and not (log.exists() and log.read_text()):
            select.select([], [], [], 0.05)
        workers = watch_children(run.pid)
        (os.killpg if name == "SIGINT" else os.kill)(run.pid, signal.Signals[name])
        said = run.stderr.read()
    assert workers and all(map(has_ended, workers))
    assert "Traceback" not in said
    if name == "SIGINT":
        assert run.returncode == 130 and said.splitlines()[-1].startswith("stopped at step ")
        assert said.endswith(": no checkpoint is there yet (save_every)\n")


def test_a_worker_that_dies_is_named() -> None:
    steps = load_steps(Steps(), 0, 5, workers=1)
    how = r"a data worker \(process \d+\) (was killed by signal|exited unexpectedly)"
    with pytest.raises(UnivgError, match=how) as told, naming_dead_workers():
        list(steps)
    assert "fewer workers" in str(told.value) and "\n" not in str(told.value)
    with pytest.raises(RuntimeError, match="of its own"), naming_dead_workers():
        raise RuntimeError("an error of its own")


def test_what_workers_make_takes_no_shared_memory() -> None:
    for alone, handed in zip(load_steps(Steps(), 0, 3, 0), load_steps(Steps(), 0, 3, 2), strict=True):
        for name, value in handed.items():
            assert torch.equal(value, alone[name]) and value.dtype == alone[name].dtype
            assert not value.is_shared()


@pytest.mark.parametrize("budget", [PixelBudget(20 * 20, 60 * 60), PixelBudget(3136, 401408)])
def test_pictures_travel_as_bytes_and_are_to_the_bit_what_the_processor_makes(
    start: Path, budget: PixelBudget
) -> None:
    processor = load(start).processor
    processor.set_pixel_budget(budget)
    draw = np.random.default_rng(0)
    images = [
        Image.fromarray(draw.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in ((90, 64), (33, 200))
    ]
    text = "<|vision_start|><|image_pad|><|vision_end|>" * 2
    row = encode_row(processor, images, text, "a")
    made = processor(images=[images], text=[text], return_tensors="pt")
    seen = PixelTable(processor).spread({"pixel_bytes": row["bytes"], "image_grid_thw": row["grids"]})
    assert seen.keys() == {"pixel_values", "image_grid_thw"}
    assert torch.equal(seen["pixel_values"], made["pixel_values"])
    assert row["bytes"].nbytes * 8 == seen["pixel_values"].nbytes


def test_items_are_made_ahead_in_order_and_what_goes_wrong_is_told() -> None:
    def numbers() -> Iterator[int]:
        yield from range(5)
        raise OSError("no more")

    made = made_ahead(numbers(), lambda number: number * 10)
    assert [next(made) for _ in range(5)] == [0, 10, 20, 30, 40]
    with pytest.raises(OSError, match="no more"):
        next(made)
    assert list(made_ahead(range(3), str)) == ["0", "1", "2"]


def test_making_ahead_ends_when_nobody_asks_any_more() -> None:
    before, asked = threading.active_count(), []
    made = made_ahead(iter(int, 1), asked.append, ahead=2)
    next(made)
    made.close()
    assert threading.active_count() == before
    assert len(asked) <= 5, "no more than it was to be ahead"
