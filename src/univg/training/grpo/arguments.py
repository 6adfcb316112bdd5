"""What TRL's trainer is given: its arguments, from the paper's recipe or a config, the rows, and their
order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets  # type: ignore[import-untyped]
import torch
import trl.trainer.grpo_trainer as trl_module
from datasets.table import InMemoryTable  # type: ignore[import-untyped]
from trl.trainer.grpo_config import GRPOConfig as TrlArguments
from trl.trainer.utils import RepeatSampler

from univg.training.config import GrpoConfig
from univg.training.grpo.plan import BatchPlan, batch_plan
from univg.training.grpo.rewards import Reward
from univg.training.run.workers import be_a_worker

__all__ = [
    "BatchPlan",
    "EpochSampler",
    "RowTable",
    "batch_plan",
    "decide_arguments",
    "paper_arguments",
    "reference_on_own_gpu",
]

PAPER: dict[str, Any] = {
    "loss_type": "grpo",
    "beta": 0.04,
    "epsilon": 0.2,
    "learning_rate": 1e-6,
    "temperature": 1.0,
    "scale_rewards": "group",
    "max_completion_length": 256,
}
OPEN: dict[str, Any] = {
    "use_bias_correction_kl": False,  # the paper's trainer takes the plain estimate
    "ddp_find_unused_parameters": False,  # every row has pictures; TRL would search in each backward pass
    "log_multimodal": False,  # it would send every picture to every process, every step
}
"""Arguments that a config's `trainer` may change, unlike those that its own keys decide."""


def paper_arguments(
    output_dir: str | Path,
    *,
    prompts_per_step: int = 16,
    rollouts: int = 8,
    micro_batch: int = 8,
    processes: int | None = None,
    **changes: Any,
) -> TrlArguments:
    """Return TRL's arguments with the paper's loss and recipe, and what makes runs repeatable; `changes` are
    TRL's own.

    TRL's defaults are another loss (token mean) and a KL term corrected by the importance ratio; the paper's
    trainer averages per rollout and takes the plain estimate.
    """
    if processes is None:
        from accelerate import PartialState  # type: ignore[import-untyped]

        use_cpu = bool(changes.get("use_cpu", not torch.cuda.is_available()))
        processes = int(PartialState(cpu=use_cpu).num_processes)
    arguments = {
        **PAPER,
        **OPEN,
        **_batch_sizes(batch_plan(prompts_per_step, rollouts, micro_batch, processes)),
        "gradient_checkpointing": False,
        "bf16": False,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": not torch.cuda.is_available(),
    }
    return TrlArguments(output_dir=str(output_dir), **(arguments | changes))


def decide_arguments(
    config: GrpoConfig, out: Path, plan: BatchPlan, rewards: Sequence[Reward]
) -> dict[str, Any]:
    """Return the arguments of TRL that follow from a config, beside those that both stages share."""
    decided = {
        **_batch_sizes(plan),
        "output_dir": str(out),
        "num_iterations": config.iterations,
        "max_completion_length": config.max_completion_tokens,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "beta": config.beta,
        "loss_type": config.loss_type,
        "scale_rewards": config.scale_rewards,
        "reward_weights": [reward.weight for reward in rewards],
        "shuffle_dataset": False,  # the rows are a mixture already
        "dataloader_num_workers": config.workers,
        "use_vllm": config.vllm != "off",
    }
    if config.vllm != "off":
        decided["vllm_mode"] = config.vllm
        if config.vllm == "colocate" and "vllm_max_model_length" not in config.trainer:
            decided["vllm_max_model_length"] = config.max_tokens  # else its cache is for the model's longest
    return decided | {name: value for name, value in OPEN.items() if name not in config.trainer}


@contextmanager
def reference_on_own_gpu(arguments: TrlArguments) -> Iterator[None]:
    """Under FSDP, let each process read the reference model to its own GPU, where TRL then shards it.

    TRL itself reads it to the processor's memory, whole and in float32: 30 GB of a 7B model, times all processes.
    """
    if os.environ.get("ACCELERATE_USE_FSDP") != "true" or arguments.device.type != "cuda":
        yield
        return
    create = trl_module.create_model_from_path

    def create_on_gpu(name: str, **settings: Any) -> Any:
        return create(name, **{**settings, "device_map": {"": arguments.device}})

    trl_module.create_model_from_path = create_on_gpu
    try:
        yield
    finally:
        trl_module.create_model_from_path = create


def _batch_sizes(plan: BatchPlan) -> dict[str, Any]:
    return {
        "num_generations": plan.rollouts,
        "per_device_train_batch_size": plan.micro_batch,
        "gradient_accumulation_steps": plan.accumulation,
        "steps_per_generation": plan.accumulation,
    }


class EpochSampler(RepeatSampler):
    """TRL's sampler, whose order follows from seed and epoch alone, so that a resumed epoch has the same."""

    epoch = 0

    @classmethod
    def like(cls, sampler: Any) -> EpochSampler:
        """Return one with the settings of TRL's."""
        names = ("data_source", "mini_repeat_count", "batch_size", "repeat_count", "shuffle", "seed")
        return cls(*(getattr(sampler, name) for name in names))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        if self.shuffle:
            self.generator.manual_seed((self.seed or 0) * 1_000_003 + self.epoch)
        return super().__iter__()


class RowTable(datasets.Dataset):
    """A `datasets.Dataset`, which TRL asks for, whose rows are those of a sequence or a map-style torch
    dataset, made when asked for.

    TRL asks for one row once a rollout and once a micro-batch; the rows of the last batch are therefore kept.
    """

    _rows: Any
    _kept: dict[int, dict[str, Any]]

    @classmethod
    def of(cls, rows: Any) -> Any:
        """Return `rows` as a table; what is one already (or None) stays as it is."""
        if rows is None or isinstance(rows, (datasets.Dataset, datasets.IterableDataset)):
            return rows
        table = cls(InMemoryTable.from_pydict({"row": range(len(rows))}), fingerprint="rows")
        table._rows, table._kept = rows, {}
        return table

    def __getitem__(self, place: Any) -> Any:
        if not isinstance(place, int):
            return super().__getitem__(place)
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[int]) -> list[dict[str, Any]]:
        be_a_worker()  # TRL's own loader gives its workers a seed and nothing else
        wanted = dict.fromkeys(places)
        self._kept = {p: self._kept[p] if p in self._kept else self._rows[p] for p in wanted}
        return [self._kept[place] for place in places]
