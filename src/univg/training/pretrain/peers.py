"""Processes that learn from one batch together: each takes its share of the samples, and all take the same step.

A process on its own asks nobody: then every method gives back what it is given.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from univg.errors import UnivgError
from univg.training.run.launch import check_launch, count_processes, lock_folder

__all__ = ["ALONE", "Peers", "joined"]

_PATIENCE = timedelta(hours=2)
"""The others wait for the first process while it scores held-out samples; one that dies ends the run at once."""


@dataclass(frozen=True)
class Peers:
    """This process's place, from 0, among those of the run, and their count."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def take_first(self, number: int) -> int:
        """Return the first process's number."""
        if self.count == 1:
            return number
        told = torch.tensor([number])
        distributed.broadcast(told, 0)
        return int(told.item())

    def add_up(self, numbers: Sequence[float]) -> list[float]:
        """Return each number's sum over the processes."""
        if self.count == 1:
            return list(numbers)
        sums = torch.tensor(numbers, dtype=torch.float64)
        distributed.all_reduce(sums)
        return sums.tolist()

    def add_gradients(
        self, weights: Sequence[nn.Parameter], terms: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Make the gradients their sums over the processes; return the sums of the terms (without dimensions).

        A weight that has a gradient nowhere keeps none: an optimizer leaves it alone then.
        """
        if self.count == 1:
            return dict(terms)
        found = self.add_up([float(weight.grad is not None) for weight in weights])
        summed = [weight for weight, anywhere in zip(weights, found, strict=True) if anywhere]
        for weight in summed:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        gradients = [weight.grad for weight in summed if weight.grad is not None]
        device = gradients[0].device
        told = [term.to(device, torch.float).reshape(1) for term in terms.values()]
        flat = torch.cat([*(gradient.float().flatten() for gradient in gradients), *told])
        distributed.all_reduce(flat)
        pieces = flat.split([*(gradient.numel() for gradient in gradients), *(1 for _ in told)])
        for gradient, piece in zip(gradients, pieces, strict=False):
            gradient.copy_(piece.view_as(gradient))
        return {name: piece[0] for name, piece in zip(terms, pieces[len(gradients) :], strict=True)}


ALONE = Peers()


@contextmanager
def joined(batch: int, out: Path) -> Iterator[Peers]:
    """Join the processes that a launcher started, by gloo on processors and NCCL on GPUs; without a launch, none.

    The first one, or the only one, keeps other runs out of the folder `out`. Raises UnivgError where `batch` is too
    small for all to get a sample, where there are too few GPUs, or where another run is in the folder.
    """
    check_launch()
    count, rank = count_processes(), int(os.environ.get("RANK", "0"))
    if count == 1:
        lock_folder(out)
        yield ALONE
        return
    if batch < count:
        raise UnivgError(
            f"batch={batch}: {count} processes cannot divide it", remedy="give at least one sample to each"
        )
    backend = "gloo"
    if torch.cuda.is_available():
        local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= there:
            raise UnivgError(
                f"process {local} of this machine has no GPU of its own",
                f"it has {there}",
                f"start {there} processes on it, or none with CUDA_VISIBLE_DEVICES empty",
            )
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=_PATIENCE)
    peers, refusal = Peers(rank, count), None
    if peers.first:
        try:
            lock_folder(out)
        except UnivgError as error:
            refusal = error
    if peers.take_first(int(refusal is not None)):  # else the others would wait for a process that has ended
        raise refusal or UnivgError(
            "another run is writing here", out, "wait for its end, or choose another --out"
        )
    yield peers
    # After an error it is left to the process's end, which tells the others: they wait in a sum that never comes.
    distributed.destroy_process_group()
