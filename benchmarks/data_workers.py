"""Measure what data workers of stage 1 hold and give: shared memory, processes' memory, steps a second.

    python benchmarks/data_workers.py --workers 2 --steps 12

Steps of `--batch` samples of 2 to 4 pictures of noise, each of 401,408 pixels once resized, are taken from the workers
as a run takes them. After the first one `--pause` seconds pass, in which the workers run ahead as far as they may.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from univg.grounding.samples import GroundingSample, write_jsonl
from univg.models.loading import load
from univg.models.pixels import PixelBudget
from univg.training.config import DataSource, SftConfig
from univg.training.run.batches import load_steps
from univg.training.run.rows import StageRows
from univg.training.sft.stage import Steps

SIDES = (800, 560)


def write_samples(folder: Path, count: int = 24) -> Path:
    """Write samples with 2 to 4 pictures each, as JPEG files of 800 x 560 pixels."""
    draw = np.random.default_rng(0)
    for number in range(12):
        noise = draw.integers(0, 256, (SIDES[1] // 8, SIDES[0] // 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize(SIDES).save(folder / f"{number}.jpg")
    samples = [
        GroundingSample(
            tuple(f"{(i + k) % 12}.jpg" for k in range(2 + i % 3)),
            "the thing",
            "diff",
            ((0.1, 0.1, 0.5, 0.5),),
            0,
            "It is here.",
            source=f"noise#{i}",
        )
        for i in range(count)
    ]
    write_jsonl(folder / "samples.jsonl", samples)
    return folder / "samples.jsonl"


class Watch(threading.Thread):
    """Look at /dev/shm and at this process and its children until it is stopped; keep the largest of each."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.shared = self.workers = self.run_itself = 0.0
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.05):
            self.shared = max(self.shared, _read("/proc/meminfo", "Shmem:"))
            children = (
                Path(f"/proc/self/task/{threading.main_thread().native_id}/children").read_text().split()
            )
            private = [_read(f"/proc/{child}/smaps_rollup", "Private_Dirty:") for child in children]
            self.workers = max(self.workers, sum(private))
            self.run_itself = max(self.run_itself, _read("/proc/self/status", "VmRSS:"))


def _read(path: str, name: str) -> float:
    """Return a number of a file of the kernel's, in MB."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:  # a worker that has just ended
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith(name)), 0.0)


def measure(workers: int, batch: int, steps: int, pause_s: float) -> str:
    """Take `steps` steps from `workers` workers and say what it cost."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_samples(Path(folder))
        source = DataSource(reader="univg", path=str(path), images=folder)
        config = SftConfig(data=(source,), batch=batch, micro_batch=1, workers=workers)
        processor = load("embedded-base").processor
        processor.set_pixel_budget(PixelBudget())
        rows = StageRows(config, processor, batch * steps)
        before, watch = _read("/proc/meminfo", "Shmem:"), Watch()
        watch.start()
        started = time.perf_counter()
        batches = load_steps(Steps(config, rows, 0, 1), 0, steps, workers)
        next(batches)
        time.sleep(pause_s)
        for _ in batches:
            pass
        seconds = time.perf_counter() - started
        del batches  # which ends the workers, so that their time is known
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        watch.stopped.set()
        watch.join()
    speed = f", {steps / seconds:.2f} steps/s" if not pause_s else ""
    return (
        f"{workers} worker(s), {steps} steps of {batch} samples: shared memory {watch.shared - before:.0f} MB, "
        f"workers {watch.workers:.0f} MB of their own, the run {watch.run_itself:.0f} MB{speed}, "
        f"{(spent.ru_utime + spent.ru_stime) / steps:.2f} s of the workers' processor time a step"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds after the first step")
    options = parser.parse_args()
    print(measure(options.workers, options.batch, options.steps, options.pause))
