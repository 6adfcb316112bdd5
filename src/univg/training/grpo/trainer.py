"""GRPO with difficulty-aware weights: TRL's trainer, extended narrowly.

    from univg.models.loading import load
    from univg.grounding.prompts import render_chat
    from univg.training.grpo.trainer import GroundingGRPOTrainer, paper_arguments
    from univg.world import make_sample

    drawn = [make_sample("referring", index=index) for index in range(8)]
    rows = [{"prompt": render_chat(len(d.images), d.sample.query), "images": list(d.images), "sample": d.sample}
            for d in drawn]
    loaded = load("embedded")
    trainer = GroundingGRPOTrainer(
        loaded.model,
        args=paper_arguments("runs/mine", prompts_per_step=2, rollouts=4, max_steps=1, max_completion_length=128),
        train_dataset=rows,
        processing_class=loaded.processor,
        weighting="exp",
    )
    trainer.train()

What is ours: the weights (:mod:`univg.training.grpo.difficulty`), the rewards (:mod:`univg.training.grpo.rewards`), how
rollouts are drawn (:mod:`univg.training.grpo.rollouts`) and logged (:mod:`univg.training.grpo.rollout_log`).
The loss, the advantages, the reference model, vLLM, processes and logs are TRL's. Its private methods that are
overridden here have their signatures held by a test.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.utils import RepeatSampler, pad

from univg.grounding.reading import Reading
from univg.grounding.scoring import Score, score
from univg.models.generation.generate import forbidden_ids, stop_ids
from univg.models.loading import MODEL_FAMILIES
from univg.training.grpo.difficulty import find_weighting, weight_of
from univg.training.grpo.rewards import Judge, format_reward, iou_reward, text_of
from univg.training.grpo.rollout_log import Group, Judged, Rollout, RolloutPages, step_metrics
from univg.training.grpo.rollouts import draw, draw_sharded, runs_of, sampling_bans, stream, take_rows
from univg.training.grpo.row_table import RowTable
from univg.training.grpo.sharing import SharedGroups, Sharing, groups_of

__all__ = ["BatchPlan", "GroundingGRPOTrainer", "batch_plan", "paper_arguments"]

BUFFER_FILE = "rollouts-{rank}.pt"
PAGE_GROUPS = 8


@dataclass(frozen=True)
class BatchPlan:
    """How a step's rollouts are divided: `prompts` × `rollouts` = `processes` × `accumulation` × `micro_batch`."""

    prompts: int
    rollouts: int
    processes: int
    micro_batch: int
    accumulation: int

    def __str__(self) -> str:
        return (
            f"{self.prompts} prompts × {self.rollouts} rollouts a step = {self.processes} "
            f"{'process' if self.processes == 1 else 'processes'} × {self.accumulation} "
            f"micro-batch{'es' * (self.accumulation > 1)} of {self.micro_batch}"
        )


def batch_plan(prompts: int, rollouts: int, micro_batch: int, processes: int = 1) -> BatchPlan:
    """Batch sizes that give `prompts` × `rollouts` a step; micro-batches of at most `micro_batch` rollouts.

    >>> print(batch_plan(prompts=16, rollouts=8, micro_batch=8, processes=8))
    16 prompts × 8 rollouts a step = 8 processes × 2 micro-batches of 8

    Errors: ValueError where the prompts cannot be dealt evenly to the processes.
    """
    if prompts % processes:
        raise ValueError(
            f"{prompts} prompts a step cannot be dealt to {processes} processes: "
            f"use {max(1, prompts // processes) * processes}, or another multiple of {processes}"
        )
    rows = prompts * rollouts // processes
    size = next(size for size in range(min(micro_batch, rows), 0, -1) if rows % size == 0)
    return BatchPlan(prompts, rollouts, processes, size, rows // size)


def paper_arguments(
    output_dir: str | Path,
    *,
    prompts_per_step: int = 16,
    rollouts: int = 8,
    micro_batch: int = 8,
    processes: int | None = None,
    **changes: Any,
) -> GRPOConfig:
    """TRL's arguments with the paper's loss and recipe, and what makes runs repeatable; `changes` are TRL's own.

    TRL's defaults are another loss (token mean) and a KL term corrected by the importance ratio; the paper's
    trainer averages per rollout and takes the plain estimate.
    """
    if processes is None:
        from accelerate import PartialState  # type: ignore[import-untyped]

        use_cpu = bool(changes.get("use_cpu", not torch.cuda.is_available()))
        processes = int(PartialState(cpu=use_cpu).num_processes)
    plan = batch_plan(prompts_per_step, rollouts, micro_batch, processes)
    arguments: dict[str, Any] = {
        "loss_type": "grpo",
        "beta": 0.04,
        "epsilon": 0.2,
        "learning_rate": 1e-6,
        "temperature": 1.0,
        "scale_rewards": "group",
        "use_bias_correction_kl": False,
        "max_completion_length": 256,
        "num_generations": rollouts,
        "per_device_train_batch_size": plan.micro_batch,
        "gradient_accumulation_steps": plan.accumulation,
        "steps_per_generation": plan.accumulation,
        "gradient_checkpointing": False,
        "bf16": False,
        "logging_steps": 1,
        "log_multimodal": False,  # it would send every picture to every process, every step
        "report_to": "none",
        "use_cpu": not torch.cuda.is_available(),
    }
    return GRPOConfig(output_dir=str(output_dir), **(arguments | changes))


class EpochSampler(RepeatSampler):
    """TRL's sampler, whose order follows from seed and epoch alone, so that a resumed epoch has the same."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Any:
        if self.shuffle:
            self.generator.manual_seed((self.seed or 0) * 1_000_003 + self.epoch)
        return super().__iter__()  # type: ignore[no-untyped-call]


class GroundingGRPOTrainer(SharedGroups):
    """TRL's `GRPOTrainer` for grounding, with the paper's difficulty weights.

    `train_dataset` holds rows (any sequence, map-style torch dataset, or a `datasets.Dataset`): `prompt` (chat
    messages), `images` (PIL), `sample` (a GroundingSample), and optionally `style`, how that prompt asks. Further
    columns reach the rewards. `weighting` is a name of `difficulty.WEIGHTINGS`, a dotted path, or a function.
    `judge` says how rollouts are read; by default as the model's family writes, asked for thoughts.
    `pages` is a folder for pages of rollouts, one every `page_every` steps. `shared_prefix` says whether a group's
    prompt and images are encoded once: "auto" where that can be, "on" or not at all, "off".

    Rewards are the IoU and the format unless `reward_funcs` names others (weights: `args.reward_weights`).
    """

    args: Any
    model: Any

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: GRPOConfig | None = None,
        train_dataset: Any = None,
        *,
        processing_class: Any = None,
        weighting: str | Callable[[float], float] = "exp",
        power_w: float = 1.0,
        judge: Judge | None = None,
        pages: str | Path | None = None,
        page_every: int = 50,
        rows_at_once: int | None = None,
        shared_prefix: Sharing = "auto",
        **others: Any,
    ) -> None:
        args = copy.copy(args) if args is not None else paper_arguments("grounding-grpo")
        self.weighting = find_weighting(weighting, power_w) if isinstance(weighting, str) else weighting
        self.judge = judge or _judge_of(model, processing_class)
        self.pages = RolloutPages(pages) if pages is not None and page_every > 0 else None
        self.page_every, self.rows_at_once = page_every, rows_at_once
        self._last: _Scored | None = None
        if processing_class is not None:
            # TRL pads prompts on the left itself and takes it for granted that the processor does so too: token
            # types padded on the other side would put images where text is, without an error.
            getattr(processing_class, "tokenizer", processing_class).padding_side = "left"
        if processing_class is not None and not isinstance(model, str):
            bans = sampling_bans(_forbidden(model, processing_class), args.use_vllm)
            given: Any = args.generation_kwargs
            args.generation_kwargs = {**bans, **(given or {})}
        rewards: Any = [iou_reward, format_reward] if reward_funcs is None else reward_funcs
        super().__init__(
            model,
            rewards,
            args,
            RowTable.of(train_dataset),
            processing_class=processing_class,
            **others,
        )
        self.shared_prefix = shared_prefix
        self._start_sharing()

    # --- difficulty ---

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> torch.Tensor:
        """Score every rollout once, hand the scores to the rewards as a column, and keep all of it."""
        texts = [text_of(completion) for completion in completions]
        ends = {*self.eos_token_ids, self._tokenizer.pad_token_id}
        cut = [not ids or ids[-1] not in ends for ids in completion_ids_list]
        readings = [
            self.judge.read(row, text, truncated)
            for row, text, truncated in zip(inputs, texts, cut, strict=True)
        ]
        scores = [score(row["sample"], reading) for row, reading in zip(inputs, readings, strict=True)]
        rows = [
            {**row, "score": each, "reading": reading}
            for row, each, reading in zip(inputs, scores, readings, strict=True)
        ]
        rewards = super()._calculate_rewards(rows, prompts, completions, completion_ids_list)
        table = [Judged.row(each, reading) for each, reading in zip(scores, readings, strict=True)]
        gathered = self.accelerator.gather(
            torch.tensor(table, dtype=torch.float64, device=self.accelerator.device)
        )
        lengths = [len(ids) for ids in completion_ids_list]
        self._last = _Scored(inputs, lengths, readings, scores, rewards, gathered.cpu().numpy())
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        """TRL's, then the advantages times the weight of their group.

        For positive weights this equals weighting the clipped policy term, and it leaves the KL term alone, as the
        paper's trainer does.
        """
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        training = self.model.training
        generations: Any = self.num_generations if training else self.num_generations_eval
        scored, self._last = self._last, None
        assert scored is not None
        judged = Judged.of(scored.table_NK, generations)
        weights_P = np.array([weight_of(self.weighting, float(m)) for m in judged.mean_iou_P])
        local = slice(self.accelerator.process_index * len(inputs), None)
        weights_N = weights_P.repeat(generations)[local][: len(inputs)]
        advantages = output["advantages"]
        output["advantages"] = advantages * torch.as_tensor(weights_N).to(advantages)
        rewards = (scored.rewards_NF * self.reward_weights.to(scored.rewards_NF)).nansum(dim=1)
        rewards_PG = rewards.cpu().numpy().reshape(-1, generations)
        metrics = step_metrics(judged, rewards_PG, weights_P)
        for name, value in metrics.items():
            self._metrics["train" if training else "eval"][name].append(value)
        if training and self._page_is_due():
            groups = self._groups(scored, weights_N, output["advantages"].tolist(), generations)
            assert self.pages is not None
            self.pages.write(self.state.global_step + 1, groups, metrics)
        return output

    # --- rollouts ---

    def _generate_single_turn(
        self,
        prompt_ids: Any,
        images: Any,
        multimodal_fields: Any,
        num_generations: int,
        has_tool_images: bool = False,
    ) -> tuple[list[list[int]], Any]:
        """As TRL's, but each rollout draws from its own stream, and a group's prompt is read once."""
        if self.use_vllm or self.use_transformers_continuous_batching or has_tool_images:
            return super()._generate_single_turn(  # type: ignore[no-untyped-call]
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
        device = self.accelerator.device
        first = self.accelerator.process_index * len(prompt_ids)
        streams = [
            stream(self.args.seed, self.state.global_step, first + place, ids, device)
            for place, ids in enumerate(prompt_ids)
        ]
        inputs = self._left_padded(prompt_ids, multimodal_fields)
        counts = [len(each or ()) for each in images] if images is not None else None
        size = self.rows_at_once or len(prompt_ids)
        responses: list[list[int]] = []
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                generation_kwargs=self.generation_kwargs,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
            torch.no_grad(),
            self._dist.summon_full_params(self.model_wrapped, recurse=False),
            self.accelerator.autocast(),  # around all of it: else every token casts all weights anew
        ):
            for start in range(0, len(prompt_ids), size):
                rows = range(start, min(start + size, len(prompt_ids)))
                if self._is_sharded():
                    part = self._pictures_for(model, take_rows(inputs, counts, rows))
                    responses += draw_sharded(model, part, streams[start : rows.stop], self.generation_config)
                    continue
                firsts, sources = self._groups_among(rows, inputs, prompt_ids, images)
                part = self._pictures_for(model, take_rows(inputs, counts, firsts))
                drawing = streams[start : rows.stop]
                responses += draw(model, part, sources, drawing, self.generation_config, self.is_sharing)
        return responses, None

    def _groups_among(
        self, rows: range, inputs: Mapping[str, Any], prompt_ids: Any, images: Any
    ) -> tuple[list[int], list[int]]:
        """(the first row of each prompt among `rows`, for each of them its prompt's number)."""
        if self.is_sharing:
            counts = [len(each or ()) for each in images] if images is not None else None
            return groups_of(inputs, counts, rows)
        firsts, sources = runs_of(
            [prompt_ids[row] for row in rows], None if images is None else [images[row] for row in rows]
        )
        return [rows[row] for row in firsts], sources

    def _left_padded(self, prompt_ids: Any, fields: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The model's inputs: what comes as lists stands per token and is padded as the prompts are."""

        def padded(rows: Any, fill: int) -> torch.Tensor:
            return pad([torch.as_tensor(row) for row in rows], padding_value=fill, padding_side="left")

        inputs = {
            "input_ids": padded(prompt_ids, self._tokenizer.pad_token_id),
            "attention_mask": padded([torch.ones(len(ids), dtype=torch.long) for ids in prompt_ids], 0),
        }
        for name, value in fields.items():
            inputs[name] = value if isinstance(value, torch.Tensor) else padded(value, 0)
        return {name: value.to(self.accelerator.device) for name, value in inputs.items()}

    # --- data and resuming ---

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        sampler: Any = super()._get_train_sampler(dataset)
        return EpochSampler(
            sampler.data_source,
            sampler.mini_repeat_count,
            sampler.batch_size,
            sampler.repeat_count,
            sampler.shuffle,
            sampler.seed,
        )

    def _save_rng_state(self, output_dir: str) -> None:
        """With the random numbers, the rollouts that later steps still learn from: without them a run resumed
        between two generations would draw others."""
        super()._save_rng_state(output_dir)
        if self._step % (self.args.steps_per_generation * self.num_iterations):
            state = {
                "step": self._step,
                "rollouts": self._buffered_inputs,
                "pictures": self._all_pictures["train"].state(),
            }
            torch.save(state, Path(output_dir) / BUFFER_FILE.format(rank=self.accelerator.process_index))

    def _load_rng_state(self, checkpoint: Any) -> None:
        super()._load_rng_state(checkpoint)
        path = Path(checkpoint or "") / BUFFER_FILE.format(rank=self.accelerator.process_index)
        if checkpoint is not None and path.is_file():
            state = torch.load(path, map_location=self.accelerator.device, weights_only=True)
            self._step, self._buffered_inputs = state["step"], state["rollouts"]
            self._all_pictures["train"].restore(state["pictures"])

    def _send_telemetry(self) -> None:
        """Nothing is reported of a run unless `report_to` says where."""

    # --- pages ---

    def _page_is_due(self) -> bool:
        if self.pages is None or not self.accelerator.is_main_process:
            return False
        step = self.state.global_step + 1
        steps_between = self.args.steps_per_generation * self.num_iterations
        stride = max(1, steps_between // self.args.gradient_accumulation_steps)
        return step == 1 or step % self.page_every < stride

    def _groups(
        self, scored: _Scored, weights_N: np.ndarray, advantages: Sequence[float], generations: int
    ) -> list[Group]:
        """The first groups of this process, as far as they are whole here."""
        rewards = scored.rewards_NF[: len(scored.rows)].tolist()  # the main process stands first
        groups = []
        for start in range(0, len(scored.rows) - generations + 1, generations)[:PAGE_GROUPS]:
            rollouts = []
            for at in range(start, start + generations):
                rollouts.append(
                    Rollout(
                        reading=scored.readings[at],
                        tokens=scored.lengths[at],
                        score=scored.scores[at],
                        rewards=dict(zip(self.reward_func_names, rewards[at], strict=True)),
                        advantage=advantages[at],
                    )
                )
            row = scored.rows[start]
            groups.append(Group(row["sample"], row["images"], float(weights_N[start]), rollouts))
        return groups


@dataclass(frozen=True)
class _Scored:
    """One generation of this process: its rows, rollouts and scores; rewards and `table_NK` are of all processes."""

    rows: Sequence[Mapping[str, Any]]
    lengths: Sequence[int]
    readings: Sequence[Reading]
    scores: Sequence[Score]
    rewards_NF: torch.Tensor
    table_NK: np.ndarray


def _judge_of(model: Any, processor: Any) -> Judge:
    """How the model's family writes; the path of a model says nothing."""
    family = MODEL_FAMILIES.get(getattr(getattr(model, "config", None), "model_type", ""))
    if family is None:
        return Judge()
    budget = getattr(processor, "pixel_budget", None)
    resized = None if budget is None else lambda size_wh: budget.resized(size_wh, processor.factor)
    return Judge(frame=family.frame, resized=resized)


def _forbidden(model: Any, processor: Any) -> list[int]:
    """Vision, padding and chat tokens: in a response they would be taken for images, or for a turn of the chat."""
    tokenizer = processor.tokenizer
    vocab_size = model.get_input_embeddings().weight.shape[0]
    return forbidden_ids(tokenizer, vocab_size, stop_ids(model, tokenizer))
