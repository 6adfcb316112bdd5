"""How quick is base training? Samples a second of the whole command, and of one data worker.

    python benchmarks/pretrain_step.py --config tiny-base --phase mixture --steps 8
    python benchmarks/pretrain_step.py --config tiny-base --phase mixture --data 2 --image-px 160

The first runs `univg pretrain` on one phase for a few steps and then for `--steps` more, and divides what the second
took longer: wall time, and processor time of the run and its workers (which says more on a busy machine). It uses
nothing but the command's own function, so that another revision can be measured by it (PYTHONPATH). `--data N` takes
steps from N workers and computes nothing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from univg.config import load_config
from univg.terminal import notes
from univg.training.config import PretrainConfig
from univg.training.pretrain.stage import pretrain

CONFIGS = Path(__file__).parents[1] / "configs"
WARM_UP = 2


def read_config(options: argparse.Namespace) -> PretrainConfig:
    """Return the config cut down to one phase without warm-up, scores and card."""
    config = load_config(PretrainConfig, CONFIGS / f"{options.config}.yaml")
    phase = next(each for each in config.phases if each.name == options.phase)
    changes: dict[str, Any] = {
        "warmup": 0,
        "eval_every": 0,
        "card_samples": 0,
        "save_every": 10**9,
        "start": options.start,
    }
    for name in ("batch", "micro_batch", "workers", "image_px"):
        if getattr(options, name) is not None:
            changes[name] = getattr(options, name)
    return config.model_copy(update={**changes, "phases": (phase,)})


def run(config: PretrainConfig, steps: int) -> tuple[float, float]:
    """Run so many steps; return wall and processor seconds, those of the workers as well."""
    phases = (config.phases[0].model_copy(update={"steps": steps}),)
    itself = psutil.Process()

    def spent() -> float:
        times = itself.cpu_times()
        return times.user + times.system + times.children_user + times.children_system

    with tempfile.TemporaryDirectory() as folder:
        wall, used = time.perf_counter(), spent()
        pretrain(
            config.model_copy(update={"phases": phases}), Path(folder) / "run", console=notes(quiet=True)
        )
        return time.perf_counter() - wall, spent() - used


def measure_run(config: PretrainConfig, steps: int) -> str:
    """Say how quick the whole command is."""
    few, many = run(config, WARM_UP), run(config, WARM_UP + steps)
    wall, used = (b - a for a, b in zip(few, many, strict=True))
    samples = steps * config.batch
    return (
        f"{samples / wall:.1f} samples/s, {used / steps:.2f} s of processor time for a step of {config.batch} "
        f"({samples / used:.1f} samples/s of one core), {torch.get_num_threads()} threads, {config.workers} worker(s)"
    )


def measure_data(config: PretrainConfig, steps: int, workers: int) -> str:
    """Say how many samples workers hand over that nobody learns from."""
    from univg.models.loading import load
    from univg.models.pixels import PixelBudget
    from univg.training.pretrain.batches import Clock, WorldSteps
    from univg.training.run.batches import load_steps

    processor = load(config.start or "embedded-base").processor
    processor.set_pixel_budget(PixelBudget(3600, config.image_px**2))
    itself = psutil.Process()
    batches = load_steps(WorldSteps(config, processor, Clock(10**9)), 0, WARM_UP * workers + steps, workers)
    for _ in range(WARM_UP * workers):
        next(batches)
    started = time.perf_counter()
    count, size = 0, 0
    for _, parts in batches:
        count += config.batch
        size += sum(part.patches_PF.nbytes for part in parts)
    wall = time.perf_counter() - started
    del batches
    times = itself.cpu_times()
    everything = count * (WARM_UP * workers + steps) / steps
    return (
        f"{workers} worker(s), pictures of {config.image_px} pixels: {count / wall:.0f} samples/s, "
        f"{everything / (times.children_user + times.children_system):.0f} a second of a worker's processor time, "
        f"{size / count / 1000:.0f} kB of pictures a sample"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="tiny-base", help="one of configs/")
    parser.add_argument("--phase", default="mixture", help="its name")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--start", default="embedded-base")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--micro-batch", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--image-px", type=int)
    parser.add_argument("--data", type=int, metavar="WORKERS", help="measure so many data workers alone")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    config = read_config(options)
    print(
        measure_data(config, options.steps, options.data)
        if options.data
        else measure_run(config, options.steps)
    )


if __name__ == "__main__":
    main()
