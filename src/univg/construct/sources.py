"""Open what a config names: the teacher, and the judge who picks among its chains."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from univg.construct.config import SERVER, WORLD, ConstructConfig
from univg.errors import UnivgError, offer

if TYPE_CHECKING:
    from univg.construct.teacher import Teacher

__all__ = ["open_teachers"]


def open_teachers(config: ConstructConfig) -> tuple[Teacher, Teacher | None]:
    """Return the teacher and the judge, which may be the same; None for no judge. Checkpoints are loaded, servers
    asked for what they serve. Raises UnivgError for what cannot be reached."""
    teacher = _open_teacher(config, "--teacher", config.teacher)
    if config.judge_name is None:
        return teacher, None
    if config.judge in (None, "same") or (config.judge == config.teacher and config.judge_url is None):
        return teacher, teacher
    return teacher, _open_teacher(config, "--judge", config.judge_name)


def _open_teacher(config: ConstructConfig, option: str, name: str) -> Teacher:
    """Open what `option` names."""
    from univg.construct.teacher import WorldTeacher

    if name == WORLD:
        return WorldTeacher()
    if name.startswith(SERVER):
        return _reach_server(config, option, name.removeprefix(SERVER))
    return _load_checkpoint(config, name)


def _load_checkpoint(config: ConstructConfig, name: str) -> Teacher:
    # Libraries warn about their own affairs; what concerns the user is said here.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from univg.construct.teacher import LocalTeacher
    from univg.models.loading import load

    loaded = load(name, device=config.device, dtype=config.dtype)
    if config.max_pixels is not None:
        loaded.processor.set_pixel_budget(loaded.pixel_budget.up_to(config.max_pixels))
    return LocalTeacher(loaded, config.batch_size)


def _reach_server(config: ConstructConfig, option: str, model: str) -> Teacher:
    from univg.construct.teacher import RemoteTeacher
    from univg.models.families import MODEL_FAMILIES
    from univg.models.keys import read_key
    from univg.models.pixels import PixelBudget
    from univg.models.server import KEY_VARIABLE, Patience, Server

    if config.family is not None and config.family not in MODEL_FAMILIES:
        remedy = offer(config.family, MODEL_FAMILIES)
        raise UnivgError("no such family", f"--family {config.family}", remedy)
    server = Server(
        str(config.find_url(option)),
        read_key(KEY_VARIABLE) or "none",
        Patience(config.attempts, timeout_s=config.timeout, failures=max(8, config.concurrency)),
        config.rpm,
        url_option="--base-url",
        model_option=f"{option} {SERVER}MODEL",
    )
    name = model or server.served(None)[0]
    budget = PixelBudget() if config.max_pixels is None else PixelBudget().up_to(config.max_pixels)
    return RemoteTeacher(
        server, name, budget, config.family, config.concurrency, config.fields, config.stream
    )
