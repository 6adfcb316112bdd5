"""GRPO with difficulty-aware weights: every override of TRL's trainer, in one class.

    from univg.models.loading import load
    from univg.grounding.prompts import render_chat
    from univg.training.grpo.arguments import paper_arguments
    from univg.training.grpo.trainer import GroundingGRPOTrainer
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

What is called from here never sees a trainer: rewards (:mod:`univg.training.grpo.rewards`), weights
(:mod:`univg.training.grpo.difficulty`), drawing (:mod:`univg.training.grpo.rollouts`), shared prompts
(:mod:`univg.training.grpo.sharing`), the step's numbers (:mod:`univg.training.grpo.metrics`). Advantages,
loss, reference model, vLLM, processes and logs are TRL's. A test holds the signatures of what is overridden.
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object  # type: ignore[import-untyped]
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.grpo_config import GRPOConfig as TrlArguments
from trl.trainer.grpo_trainer import GRPOTrainer

from univg.grounding.scoring import score
from univg.training.grpo.arguments import EpochSampler, RowTable, paper_arguments, reference_on_own_gpu
from univg.training.grpo.difficulty import find_weighting, weights_of
from univg.training.grpo.local_images import keep_local, take_whole
from univg.training.grpo.metrics import Generation, GroupScores, RolloutCallback, family_metrics, step_metrics
from univg.training.grpo.rewards import RolloutReader, format_reward, iou_reward, text_of
from univg.training.grpo.rollouts import (
    draw_in_parts,
    find_forbidden,
    find_runs,
    pad_left,
    sampling_bans,
    stream,
    take_rows,
)
from univg.training.grpo.sharing import (
    PromptsNotShared,
    Sharing,
    find_groups,
    regroup,
    share_or_say_why,
)
from univg.training.grpo.vllm import TOLERANCE, EngineCheck, engine_folder, server_faults
from univg.training.run.checkpoints import Checkpoints, load_whole_model

__all__ = ["GroundingGRPOTrainer"]

BUFFER_FILE = "rollouts-{rank}.pt"


class GroundingGRPOTrainer(GRPOTrainer):
    """Train a grounding model by TRL's `GRPOTrainer`, with the paper's difficulty weights.

    `train_dataset` holds rows (any sequence, map-style torch dataset, or a `datasets.Dataset`): `prompt` (chat
    messages), `images` (PIL), `sample` (a GroundingSample), and optionally `style`, how that prompt asks.
    Further columns reach the rewards. `weighting` is a name of `difficulty.WEIGHTINGS`, a dotted path, or a function;
    `even_weights` divides those of a step by their mean. `reader` reads rollouts; by default as the model's family
    writes, asked for thoughts. `rows_at_once`: rollouts drawn together (None: all of a generation). `shared_prefix`
    says whether a group's prompt and images are encoded once: "auto" where that can be, "on" or not at all, "off".
    `checkpoints` makes them whole or absent; None leaves them to TRL. `vllm_tolerance`: how far vLLM's first
    log-probabilities may be from the model's (`vllm.EngineCheck`).

    Rewards are the IoU and the format unless `reward_funcs` names others (weights: `args.reward_weights`). Of
    `callbacks`, a `RolloutCallback` is told of every generation (pages of rollouts: `pages.RolloutPages`).
    """

    args: Any
    model: Any
    accelerator: Any
    ref_model: Any
    num_generations: Any
    num_generations_eval: Any
    processing_class: Any
    _buffered_inputs: Any
    vllm_importance_sampling_correction: Any

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: TrlArguments | None = None,
        train_dataset: Any = None,
        *,
        processing_class: Any = None,
        weighting: str | Callable[[float], float] = "exp",
        power_w: float = 1.0,
        even_weights: bool = False,
        reader: RolloutReader | None = None,
        rows_at_once: int | None = None,
        shared_prefix: Sharing = "auto",
        checkpoints: Checkpoints | None = None,
        vllm_tolerance: float = TOLERANCE,
        **others: Any,
    ) -> None:
        # long because its parameters are the class's public face
        args = copy.copy(args) if args is not None else paper_arguments("grounding-grpo")
        self.weighting = find_weighting(weighting, power_w) if isinstance(weighting, str) else weighting
        self.reader = reader or RolloutReader.of(model, processing_class)
        self.even_weights, self.rows_at_once, self.checkpoints = even_weights, rows_at_once, checkpoints
        self._generation: Generation | None = None
        if processing_class is not None:
            # TRL pads prompts on the left itself and takes it for granted that the processor does so too: token
            # types padded on the other side would put images where text is, without an error.
            getattr(processing_class, "tokenizer", processing_class).padding_side = "left"
        if processing_class is not None and not isinstance(model, str):
            bans = sampling_bans(find_forbidden(model, processing_class), args.use_vllm)
            given: Any = args.generation_kwargs
            args.generation_kwargs = {**bans, **(given or {})}
        rewards: Any = [iou_reward, format_reward] if reward_funcs is None else reward_funcs
        rows = RowTable.of(train_dataset)
        with (
            reference_on_own_gpu(args),
            server_faults(),
            engine_folder(model, processing_class, args.use_vllm) as self._engine_folder,
        ):
            super().__init__(model, rewards, args, rows, processing_class=processing_class, **others)
        self.engine = None
        if args.use_vllm:
            processor = self.processing_class
            self.engine = EngineCheck(self.vllm_generation, self.model, processor, vllm_tolerance)
        writes = "a rollout function gives prompts of its own" if self.rollout_func is not None else None
        if getattr(self, "tools", None) or getattr(self, "environment_factories", None):
            writes = "tools may put images into rollouts"
        self.shared, self.sharing_line = share_or_say_why(
            self.model, self.ref_model, shared_prefix, self._is_sharded, writes
        )
        if self.shared is None and shared_prefix == "auto" and self.accelerator.is_main_process:
            warnings.warn(PromptsNotShared(self.sharing_line), stacklevel=2)

    # --- from a group's rewards to its weighted advantage ---

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> torch.Tensor:
        """Read every rollout once, score it once, and hand both to the rewards as columns."""
        inputs = take_whole(inputs)
        ends = {*self.eos_token_ids, self._tokenizer.pad_token_id}
        cut_off = [not ids or ids[-1] not in ends for ids in completion_ids_list]
        readings = [
            self.reader.read(row, text_of(completion), cut)
            for row, completion, cut in zip(inputs, completions, cut_off, strict=True)
        ]
        scores = [score(row["sample"], reading) for row, reading in zip(inputs, readings, strict=True)]
        judged = list(zip(scores, readings, strict=True))
        rows = [{**row, "score": s, "reading": r} for row, (s, r) in zip(inputs, judged, strict=True)]
        rewards_NF = super()._calculate_rewards(rows, prompts, completions, completion_ids_list)
        rewards_N = (rewards_NF * self.reward_weights.to(rewards_NF)).nansum(dim=1)
        numbers = torch.tensor([GroupScores.row(*each) for each in judged], dtype=torch.float64)
        numbers = self.accelerator.gather(numbers.to(self.accelerator.device))
        names, size = self.reward_func_names, self._group_size
        self._generation = Generation(
            step=self.state.global_step + 1,
            size=size,
            rows=inputs,
            tokens=[len(ids) for ids in completion_ids_list],
            readings=readings,
            scores=scores,
            rewards=[dict(zip(names, each, strict=True)) for each in self._take_own(rewards_NF).tolist()],
            rewards_PG=rewards_N.cpu().numpy().reshape(-1, size),
            groups=GroupScores.of(numbers.cpu().numpy(), size),
            tasks=gather_object([row["sample"].task for row in inputs])[::size],
        )
        return rewards_NF

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        """Draw rollouts, reward them, and multiply each group's advantages by its difficulty weight.

            advantage = (reward - mean of the group) / (its standard deviation + 1e-4)  TRL, in super()
            weighted  = weight(mean IoU of the group) x advantage                       here
            loss      = -min(ratio x weighted, clipped ratio x weighted) + beta x KL    TRL, _compute_loss

        For positive weights this equals weighting the clipped policy term, and it leaves the KL term alone,
        as the paper's trainer does.
        """
        if not (self.log_multimodal or (self.engine is not None and self.engine.gathers_images)):
            inputs = keep_local(inputs)
        with self._images_read_once(), self._engine_compared():
            output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        generation, self._generation = self._generation, None
        assert generation is not None
        agreement = self.engine.judge(output, self.accelerator) if self.engine else None
        weights_P = weights_of(self.weighting, generation.groups.mean_iou_P, self.even_weights)
        weights_N = self._take_own(weights_P.repeat(generation.size))
        output["advantages"] = output["advantages"] * torch.as_tensor(weights_N).to(output["advantages"])
        metrics = step_metrics(generation.groups, generation.rewards_PG, weights_P)
        for name, value in {**metrics, **family_metrics(generation)}.items():
            self._metrics[self._mode][name].append(value)
        if self._mode == "train":
            worth = {"weights": weights_N.tolist(), "advantages": output["advantages"].tolist()}
            generation = replace(generation, **worth, metrics=metrics, agreement=agreement)
            for callback in self.callback_handler.callbacks:
                if isinstance(callback, RolloutCallback):
                    callback.on_rollouts(self.args, self.state, generation)
        return output

    @contextmanager
    def _engine_compared(self) -> Iterator[None]:
        """Let TRL compute its own log-probabilities of vLLM's first rollouts, also where it will not correct by
        them."""
        corrects = self.vllm_importance_sampling_correction
        self.vllm_importance_sampling_correction = corrects or not getattr(self.engine, "compared", True)
        try:
            yield
        finally:
            self.vllm_importance_sampling_correction = corrects

    def _take_own(self, values_N: Any) -> Any:
        """Return this process's part of the values of all rollouts."""
        share = len(values_N) // self.accelerator.num_processes
        return values_N[self.accelerator.process_index * share :][:share]

    @property
    def _mode(self) -> str:
        return "train" if self.model.training else "eval"

    @property
    def _group_size(self) -> int:
        return int(self.num_generations if self.model.training else self.num_generations_eval)

    # --- rollouts ---

    def _generate_single_turn(
        self,
        prompt_ids: Any,
        images: Any,
        multimodal_fields: Any,
        num_generations: int,
        has_tool_images: bool = False,
    ) -> tuple[list[list[int]], Any]:
        """Draw as TRL does, but each rollout from its own stream, and with a group's prompt read once."""
        if self.use_vllm or self.use_transformers_continuous_batching or has_tool_images:
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
        device, first = self.accelerator.device, self.accelerator.process_index * len(prompt_ids)
        streams = [
            stream(self.args.seed, self.state.global_step, first + place, ids, device)
            for place, ids in enumerate(prompt_ids)
        ]
        batch = pad_left(prompt_ids, multimodal_fields, self._tokenizer.pad_token_id, device)
        counts = [len(each or ()) for each in images] if images is not None else None
        group = functools.partial(find_runs, prompt_ids, images)
        if self.shared is not None:
            group = functools.partial(find_groups, batch, counts)
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

            def take(rows: Any) -> dict[str, Any]:
                taken = take_rows(batch, counts, rows)
                return taken if self.shared is None else self.shared.image_inputs(model, taken)

            config, size, sharded = self.generation_config, self.rows_at_once, self._is_sharded
            return draw_in_parts(
                model, take, group, streams, config, size, self.shared is not None, sharded
            ), None

    @property
    def _is_sharded(self) -> bool:
        """Whether a forward pass needs all processes."""
        zero_3 = self.is_deepspeed_enabled and not self.args.ds3_gather_for_generation
        return bool(self.is_fsdp_enabled or zero_3)

    # --- shared prompts ---

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Any,
        attention_mask: Any,
        logits_to_keep: Any,
        batch_size: Any = None,
        compute_entropy: Any = False,
        **fields: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Return what TRL's does; `pixel_values` are places of patches. Without gradients, a batch is taken
        in parts of whole groups, equally many in every process."""
        if self.shared is None:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **fields
            )
        prompt = input_ids.shape[1] - logits_to_keep
        prompts = {"input_ids": input_ids[:, :prompt], "attention_mask": attention_mask[:, :prompt]}
        if fields.get("image_grid_thw") is not None:
            prompts |= {name: fields[name] for name in ("pixel_values", "image_grid_thw")}
            prompts["mm_token_type_ids"] = fields["mm_token_type_ids"][:, :prompt]
        size = batch_size or len(input_ids)
        size += -size % self.num_generations
        ids_BC, mask_BC = input_ids[:, prompt:], attention_mask[:, prompt:]
        with self.accelerator.autocast():
            logps, entropies = self.shared.logps(
                model, prompts, fields.get("num_images"), ids_BC, mask_BC, size
            )
        return logps, entropies if compute_entropy else None, None

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """Put the rollouts of each update in groups: TRL's shuffle, which decides what an update sees, is
        left as it is, and only the order within the update is not."""
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self.shared is None:
            return inputs
        self.shared.turn_to(self._mode)
        if self.model.training and self._buffered_inputs is not before:
            self._buffered_inputs = regroup(self._buffered_inputs, self.args.gradient_accumulation_steps)
            inputs = self._buffered_inputs[self._step % self.args.steps_per_generation]
        return inputs

    @contextmanager
    def _images_read_once(self) -> Iterator[None]:
        """Let TRL's processor give places of patches, each image being read once in a generation."""
        processor: Any = self.processing_class
        if self.shared is None:
            yield
            return
        self.shared.begin(self._mode)
        if hasattr(processor, "image_processor"):
            self.processing_class = self.shared.patches.placing(processor)
        try:
            yield
        finally:
            self.processing_class = processor

    def current_batches(self) -> list[dict[str, Any]]:
        """Return the micro-batches that the current step learns from, with their pixels."""
        count, per_generation = self.args.gradient_accumulation_steps, self.args.steps_per_generation
        places = dict.fromkeys((self._step - 1 - back) % per_generation for back in reversed(range(count)))
        batches = [self._buffered_inputs[place] for place in places] if self._buffered_inputs else []
        return [
            dict(each) if self.shared is None else self.shared.patches.with_pixels(each) for each in batches
        ]

    # --- data and checkpoints ---

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        """Return a sampler whose order does not depend on the epochs before."""
        return EpochSampler.like(super()._get_train_sampler(dataset))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save the checkpoint, whole or not at all, with the rollouts that later steps still learn from:
        without them a run resumed between two generations would draw others."""
        step = self.state.global_step
        plain = nullcontext(Path(str(self.args.output_dir)) / f"checkpoint-{step}")
        with self.checkpoints.write(self.args, step) if self.checkpoints else plain as folder:
            super()._save_checkpoint(model, trial)
            if self._step % (self.args.steps_per_generation * self.num_iterations):
                patches = self.shared.patches_of["train"].state() if self.shared else None
                state = {"step": self._step, "rollouts": self._buffered_inputs, "pictures": patches}
                torch.save(state, folder / BUFFER_FILE.format(rank=self.accelerator.process_index))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Read the weights of a whole model as any checkpoint is read."""
        if not load_whole_model(model or self.model, resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model=model)

    def _load_rng_state(self, checkpoint: Any) -> None:
        """Restore the random numbers, and the rollouts that the next steps learn from."""
        super()._load_rng_state(checkpoint)
        path = Path(checkpoint or "") / BUFFER_FILE.format(rank=self.accelerator.process_index)
        if checkpoint is not None and path.is_file():
            state = torch.load(path, map_location=self.accelerator.device, weights_only=True)
            self._step, self._buffered_inputs = state["step"], state["rollouts"]
            if self.shared is not None:
                self.shared.patches_of["train"].restore(state["pictures"])

    def _send_telemetry(self) -> None:
        """Report nothing of a run unless `report_to` says where."""
