"""Check the settings of stage 1 that need no torch, as :mod:`univg.training.run.prechecks` does those of both."""

from __future__ import annotations

from univg.errors import UnivgError
from univg.training.config import SftConfig
from univg.training.run.launch import count_processes, divides_weights
from univg.training.run.prechecks import check_stage

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
    if config.matrix_learning_rate is not None:
        if divides_weights(config):
            raise UnivgError(
                "matrix_learning_rate: Muon needs whole matrices, and here weights are divided between processes",
                remedy="leave it out: AdamW learns all weights then",
            )
        if "optim" in config.trainer:
            raise UnivgError(
                f"matrix_learning_rate: it means Muon and AdamW, and trainer.optim={config.trainer['optim']}",
                remedy="leave one of them out",
            )
    check_stage(config, resume)
    return share
