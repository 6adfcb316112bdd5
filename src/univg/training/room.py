"""Say whether a run fits the memory there is, and what to change where it does not; refuse one that clearly does not.

What is advised is tried: each change is estimated, those that save are kept, until the run fits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from univg.errors import UnivgError
from univg.models import checkpoint
from univg.models.conventions import CONVENTIONS_FILE, read_conventions
from univg.models.devices import Device, find_devices
from univg.models.memory import Asked, Estimate, format_bytes
from univg.models.pixels import PixelBudget
from univg.models.published import PUBLISHED
from univg.models.shapes import Shapes, read_shapes
from univg.terminal import notes
from univg.training.config import GrpoConfig, LoraSettings, PixelLimits, StageConfig
from univg.training.memory import Machine, asked_by, estimate_training, sharding_of
from univg.training.run.launch import count_processes, is_offloaded

__all__ = ["REFUSED_ABOVE", "advise", "check_room", "read_stored_budget"]

REFUSED_ABOVE = 1.2
"""Times the memory there is. Measured peaks are within a fifth of what is estimated."""
IMAGES = 2
"""Pictures of the largest size that a row is taken to have before data is opened, where a line is said. Refused is by
one alone: rows may hold no more, and what they hold nobody knows yet."""
_SMALLER = 200704
_told: set[str] = set()


def check_room(config: StageConfig) -> None:
    """Raise UnivgError where a run would take much more memory than its device has; say so where it may be too much.

    `check_memory: false` lets it start. What cannot be estimated, or compared with nothing, is not refused.
    """
    if not config.check_memory:
        return
    try:
        shapes, stored = read_shapes(config.model), read_stored_budget(config.model)
    except UnivgError:
        return  # what is wrong with the model is said by those who load it
    processes = count_processes()
    device = _find_own(find_devices())
    if not device.memory:
        return  # nobody says how much there is
    here = limit = device.memory
    if device.kind == "cpu":  # what is free changes with every other program: none is refused for that alone
        here = device.free // processes
        limit = max(here, device.memory // 2 // processes)
    machine = Machine(device.kind, device.bf16, processes, sharding_of(config), here)
    asked = asked_by(config, images=IMAGES, stored=stored)
    try:
        estimate = estimate_training(config, shapes, machine, asked)
        least = estimate_training(config, shapes, machine, replace(asked, images=1)).total
    except UnivgError:
        return  # of batches that cannot be dealt, which is said elsewhere
    if estimate.total <= here:
        return
    said = f"this run takes about {format_bytes(estimate.total)} in a process ({_list_largest(estimate)})"
    has = f"{device.name} has {format_bytes(here)}{' free' if device.kind == 'cpu' else ''}"
    changes = list(advise(config, shapes, machine, asked, here))
    advice = (
        f"{' '.join(name for name, _ in changes)} takes about {format_bytes(changes[-1][1])}"
        if changes
        else ""
    )
    offloaded = is_offloaded(config)  # by how much less a card then holds is not estimated
    if least > REFUSED_ABOVE * limit and not offloaded:
        remedy = f"{advice}; " if advice else ""
        raise UnivgError(
            f"memory: {said}, and {has}",
            remedy=f"{remedy}univg fit shows the parts; check_memory=false starts all the same",
        )
    line = f"memory may be short: {said}, and {has}{f'; {advice}' if advice else ''}"
    if offloaded:
        line += "; what is offloaded is counted as if it were not"
    if line not in _told:  # the command checks, and the stage does
        notes().print(line, style="yellow")
    _told.add(line)


def _find_own(devices: list[Device]) -> Device:
    place = int(os.environ.get("LOCAL_RANK", "0"))
    return devices[place % len(devices)]


def _list_largest(estimate: Estimate) -> str:
    largest = sorted(estimate.parts.items(), key=lambda part: -part[1])[:3]
    return ", ".join(f"{name} {format_bytes(size)}" for name, size in largest)


def read_stored_budget(model: str) -> PixelBudget | None:
    """Return the pixel budget that a model's folder states; None where it states none or is not here."""
    if model in PUBLISHED and not Path(model).is_dir():
        return None
    try:
        folder = checkpoint.locate(model).folder
    except UnivgError:
        return None
    return read_conventions(folder)[1] if (folder / CONVENTIONS_FILE).is_file() else None


def advise(
    config: StageConfig, shapes: Shapes, machine: Machine, asked: Asked, memory: int
) -> Iterator[tuple[str, int]]:
    """Yield settings that make a run fit `memory`, each with the total of it and those before it; the last one fits,
    unless nothing does."""
    total = estimate_training(config, shapes, machine, asked).total
    for change in _CHANGES:
        if total <= memory:
            return
        changed = change(config)
        if changed is None:
            continue
        name, trial = changed
        limits = trial.pixel_budget
        seen = replace(asked, pixels=min(asked.pixels, limits.max_pixels)) if limits else asked
        less = estimate_training(trial, shapes, machine, seen).total
        if less < total:
            config, asked, total = trial, seen, less
            yield name, total


def _with(config: StageConfig, name: str, **values: Any) -> tuple[str, StageConfig]:
    return name, config.model_copy(update=values)


def _checkpointing(config: StageConfig) -> tuple[str, StageConfig] | None:
    if config.gradient_checkpointing:
        return None
    return _with(config, "gradient_checkpointing=true", gradient_checkpointing=True)


def _micro_batch(config: StageConfig) -> tuple[str, StageConfig] | None:
    size = config.rollouts if isinstance(config, GrpoConfig) else 1
    if getattr(config, "micro_batch", 1) <= size:
        return None
    return _with(config, f"micro_batch={size}", micro_batch=size)


def _rows_at_once(config: StageConfig) -> tuple[str, StageConfig] | None:
    if not isinstance(config, GrpoConfig) or config.vllm != "off":
        return None
    if config.rows_at_once is not None and config.rows_at_once <= config.rollouts:
        return None
    return _with(config, f"rows_at_once={config.rollouts}", rows_at_once=config.rollouts)


def _pixels(config: StageConfig) -> tuple[str, StageConfig] | None:
    limits = config.pixel_budget or PixelLimits()
    if limits.max_pixels <= _SMALLER:
        return None
    smaller = PixelLimits(min_pixels=min(limits.min_pixels, _SMALLER), max_pixels=_SMALLER)
    name = f"pixel_budget={{min_pixels: {smaller.min_pixels}, max_pixels: {_SMALLER}}}"
    return _with(config, f"'{name}'", pixel_budget=smaller)


def _adapters(config: StageConfig) -> tuple[str, StageConfig] | None:
    if config.lora is not None or not config.freeze_vision:
        return None
    return _with(config, "lora.r=16", lora=LoraSettings())


def _four_bits(config: StageConfig) -> tuple[str, StageConfig] | None:
    if config.lora is None or config.lora.quantize != "none":
        return None
    return _with(config, "lora.quantize=nf4", lora=config.lora.model_copy(update={"quantize": "nf4"}))


_CHANGES: tuple[Callable[[StageConfig], tuple[str, StageConfig] | None], ...] = (
    *(_checkpointing, _micro_batch, _rows_at_once),
    *(_adapters, _four_bits, _pixels),
)
"""What may be changed, first what costs time alone, then what learns otherwise, last what sees less."""
