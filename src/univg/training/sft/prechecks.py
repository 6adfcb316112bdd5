"""Check the settings of stage 1 that need no torch, as :mod:`univg.training.run.prechecks` does those of both."""

from __future__ import annotations

from univg.errors import UnivgError
from univg.training.config import SftConfig
from univg.training.run.prechecks import check_stage, count_processes

__all__ = ["check_sft"]


def check_sft(config: SftConfig, resume: bool = False) -> int:
    """Return how many micro-batches of a process make a step; raises UnivgError for what is wrong in a config."""
    at_once = config.micro_batch * count_processes()
    share, left = divmod(config.batch, at_once)
    if left:
        raise UnivgError(
            f"batch={config.batch} is not a multiple of micro_batch={config.micro_batch} × {count_processes()} "
            "process(es)",
            remedy=f"use batch={max(1, share) * at_once}, or another micro_batch",
        )
    check_stage(config, resume)
    return share
