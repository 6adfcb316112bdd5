"""How the rollouts of a step are divided between processes and micro-batches; free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from univg.errors import UnivgError

__all__ = ["BatchPlan", "batch_plan"]


@dataclass(frozen=True)
class BatchPlan:
    """How a step's rollouts are divided: `prompts` × `rollouts` = `processes` × `accumulation` ×
    `micro_batch`."""

    prompts: int
    rollouts: int
    processes: int
    micro_batch: int
    accumulation: int

    @property
    def prompts_at_once(self) -> list[int]:
        """Of each micro-batch of one process, how many prompts its rollouts are of: a shared prompt is encoded so
        often.

        >>> batch_plan(prompts=2, rollouts=8, micro_batch=2).prompts_at_once
        [1, 1, 1, 1, 1, 1, 1, 1]
        >>> batch_plan(prompts=2, rollouts=8, micro_batch=8).prompts_at_once
        [1, 1]
        """
        starts = range(0, self.micro_batch * self.accumulation, self.micro_batch)
        return [(at + self.micro_batch - 1) // self.rollouts - at // self.rollouts + 1 for at in starts]

    def __str__(self) -> str:
        return (
            f"{self.prompts} prompts × {self.rollouts} rollouts a step = {self.processes} "
            f"{'process' if self.processes == 1 else 'processes'} × {self.accumulation} "
            f"micro-batch{'es' * (self.accumulation > 1)} of {self.micro_batch}"
        )


def batch_plan(prompts: int, rollouts: int, micro_batch: int, processes: int = 1) -> BatchPlan:
    """Return batch sizes that give `prompts` × `rollouts` a step, in micro-batches of at most `micro_batch`
    rollouts.

    Raises UnivgError where the prompts cannot be dealt evenly to the processes.

    >>> print(batch_plan(prompts=16, rollouts=8, micro_batch=8, processes=8))
    16 prompts × 8 rollouts a step = 8 processes × 2 micro-batches of 8
    """
    if prompts % processes:
        raise UnivgError(
            f"{prompts} prompts a step cannot be dealt to {processes} processes",
            remedy=f"use {max(1, prompts // processes) * processes}, or another multiple of {processes}",
        )
    rows = prompts * rollouts // processes
    size = next(size for size in range(min(micro_batch, rows), 0, -1) if rows % size == 0)
    return BatchPlan(prompts, rollouts, processes, size, rows // size)
