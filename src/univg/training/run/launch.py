"""How a run was launched: in how many processes, what is divided between them, whether a checkpoint goes with that.

Free of torch, so that a launch that cannot be is refused before anything heavy is loaded.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from univg.errors import UnivgError
from univg.models import checkpoint
from univg.training.config import StageConfig

__all__ = [
    "LOCK",
    "RECORD",
    "check_launch",
    "check_same_launch",
    "count_processes",
    "divides_weights",
    "find_fsdp_version",
    "is_offloaded",
    "lock_folder",
    "name_division",
]

RECORD, LOCK = "run.json", ".lock"
"""Beside a run's checkpoints: its facts, and what is held by its first process as long as that lives."""
_held: dict[Path, FileLock] = {}
"""The locks of this process: one that nobody holds is given back."""


def check_launch() -> None:
    """Raise UnivgError where `accelerate launch` was asked for several processes and started one, as it does on CPUs:
    it then says where processes are to meet, but not how many there are."""
    started = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ
    if (
        started
        and not {"WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"} & os.environ.keys()
    ):
        raise UnivgError(
            "accelerate launch was asked for several processes and started one",
            remedy="on CPUs use torchrun --nproc-per-node N -m univg …; if one is meant, unset MASTER_ADDR",
        )


def count_processes() -> int:
    """Return how many processes train together (as `accelerate launch` and `torchrun` say)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def lock_folder(out: Path) -> None:
    """Keep other runs out of the folder as long as this process lives. Raises UnivgError where one is in it."""
    path = (out / LOCK).absolute()
    if path in _held:
        return
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        cause = "another run is writing here"
        raise UnivgError(cause, out, "wait for its end, or choose another --out") from None
    except (OSError, NotImplementedError):  # a file system without locks
        return
    _held[path] = lock


def name_division(config: StageConfig) -> str:
    """Return by what a run is divided between its processes: "FSDP", "ZeRO-2", …; "" where each holds all of it (one
    process, DDP)."""
    if _uses_deepspeed(config):
        stage = _read_zero(config).get("stage")
        return f"ZeRO-{os.environ.get('ACCELERATE_DEEPSPEED_ZERO_STAGE', '2') if stage is None else stage}"
    # accelerate divides nothing where there is one process.
    fsdp = config.trainer.get("fsdp") or os.environ.get("ACCELERATE_USE_FSDP") == "true"
    return "FSDP" if fsdp and count_processes() > 1 else ""


def divides_weights(config: StageConfig) -> bool:
    """Tell whether each process holds only a part of the weights."""
    return name_division(config) in ("FSDP", "ZeRO-3")


def find_fsdp_version(config: StageConfig) -> int:
    """Return which FSDP divides a run that FSDP divides: 2, or 1, which transformers and accelerate still have."""
    if config.trainer.get("fsdp"):
        return int(_read_fsdp(config).get("version", 2))
    return int(os.environ.get("FSDP_VERSION", "1"))


def is_offloaded(config: StageConfig) -> bool:
    """Tell whether a part of what is divided is kept in the machine's memory, or on its disk, instead of the card's."""
    asked = os.environ.get
    if _uses_deepspeed(config):
        zero = _read_zero(config)
        stated = [
            asked(f"ACCELERATE_DEEPSPEED_OFFLOAD_{what}_DEVICE", "none") for what in ("OPTIMIZER", "PARAM")
        ]
        parts = [zero.get(f"offload_{what}") or {} for what in ("optimizer", "param")]
        stated += [str(part.get("device", "none")) for part in parts if isinstance(part, dict)]
        return any(device != "none" for device in stated) or zero.get("cpu_offload") is True
    if name_division(config) != "FSDP":
        return False
    given = config.trainer.get("fsdp")
    if given:
        return "offload" in str(given).split() or _read_fsdp(config).get("cpu_offload") is True
    return asked("FSDP_OFFLOAD_PARAMS", "false").lower() in ("true", "1", "yes", "y", "t", "on")


def _uses_deepspeed(config: StageConfig) -> bool:
    return bool(config.trainer.get("deepspeed")) or os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"


def _read_zero(config: StageConfig) -> dict[str, Any]:
    """Return what DeepSpeed's own settings say of ZeRO; {} where accelerate's variables alone say it."""
    given = config.trainer.get("deepspeed") or os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE")
    zero = _read_given(given).get("zero_optimization")
    return zero if isinstance(zero, dict) else {}


def _read_fsdp(config: StageConfig) -> dict[str, Any]:
    given = _read_given(config.trainer.get("fsdp_config"))
    return {name.removeprefix("fsdp_"): value for name, value in given.items()}


def _read_given(given: object) -> dict[str, Any]:
    """Return settings that are given as they are, or as the path of a JSON file; {} for anything else."""
    if isinstance(given, str) and Path(given).is_file():
        given = checkpoint.read_json(Path(given))
    return given if isinstance(given, dict) else {}


def check_same_launch(config: StageConfig, out: Path, last: Path) -> str | None:
    """Return a line where a run goes on from its checkpoint `last` with another number of processes than it began with.

    Raises UnivgError where these processes cannot read its optimizer's state.
    """
    record = out / RECORD
    if not record.exists():
        return None
    facts, now, count = checkpoint.read_json(record), name_division(config), count_processes()
    before, began = facts.get("division", now), facts.get("processes", count)
    anew = f"or start anew from its weights: --out {out}-2 model={last}"
    if before != now:
        cause = f"the run began {_say(before)} and would go on {_say(now)}, which cannot read its optimizer's state"
        raise UnivgError(cause, record, f"resume with the launch config that it began with, {anew}")
    if began == count:
        return None
    cause = f"the run began with {began} process(es), not {count}"
    if now.startswith("ZeRO"):
        why = f"{cause}, and {now} keeps each one's part of the optimizer in a file of its own"
        raise UnivgError(why, record, f"resume with {began} (num_processes of the launch config), {anew}")
    if any(last.glob("rollouts-*.pt")):
        why = f"{cause}, and {last.name} holds rollouts of each that it still learns from"
        raise UnivgError(why, record, f"resume with {began}, {anew}")
    return f"{cause}: the samples are the same, sums round differently"


def _say(division: str) -> str:
    return f"under {division}" if division else "with whole weights in each process"
