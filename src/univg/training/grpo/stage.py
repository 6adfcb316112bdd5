"""Stage 2, GRPO: the run around :class:`univg.training.grpo.trainer.GroundingGRPOTrainer` (paper, section 3.3).

Before the first step ground truth is fed back through reading and rewards and must come out perfect, and the
memory is estimated; the first rollouts, drawn before any update, show whether the start model knows the format.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from trl.trainer.grpo_config import GRPOConfig as TrlArguments

from univg.models import checkpoint
from univg.models.loading import Loaded
from univg.terminal import is_first_process
from univg.training.config import GrpoConfig
from univg.training.grpo.checks import check_oracle, memory_lines, start_lines
from univg.training.grpo.difficulty import DifficultyError, check_weighting
from univg.training.grpo.dotted import DottedPathError
from univg.training.grpo.rewards import Judge, Reward, RewardError, find_rewards
from univg.training.grpo.sharing import CannotShare, PromptsNotShared
from univg.training.grpo.trainer import BatchPlan, GroundingGRPOTrainer, batch_plan, paper_arguments
from univg.training.run.arguments import make_arguments
from univg.training.run.checkpoints import Checkpoints, load_whole_model
from univg.training.run.cpu_layers import PatchLinear
from univg.training.run.log import RunLog, log_left_out
from univg.training.run.rows import StageError, StageRows, steps_of
from univg.training.run.stage import (
    count_processes,
    make_checkpoints,
    print_plan,
    record_run,
    start_run,
    train,
    write_model,
)
from univg.training.run.start import load_start, make_lora

__all__ = ["GroundingGRPOTrainer", "paper_arguments", "run"]

PAGES = "rollouts"
SHOWN = ("iou", "format", "kl", "groups/weight")


class StageTrainer(GroundingGRPOTrainer):
    """The trainer with whole checkpoints, a word on the start model, and notes on samples left out."""

    console: Console
    checkpoints = Checkpoints()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with self.checkpoints.write(self.args, self.state.global_step):
            super()._save_checkpoint(model, trial)  # type: ignore[no-untyped-call]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not load_whole_model(model or self.model, resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model=model)

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        fresh = self.state.global_step == 0 and self.model.training
        output = super()._generate_and_score_completions(inputs)
        notes = list(dict.fromkeys(note for row in inputs for note in row.get("notes", ())))
        if notes and is_first_process():
            log_left_out(Path(self.args.output_dir), self.state.global_step + 1, notes, self.console)
        if fresh and is_first_process():
            latest = {name: values[-1] for name, values in self._metrics["train"].items() if values}
            for line, style in start_lines(latest):
                self.console.print(line, style=style, highlight=False, markup=False)
        return output

    def current_rollouts(self) -> list[dict[str, Any]]:
        """Return the rollouts that the current step learns from, with their pixels."""
        buffered: Any = self._buffered_inputs or []
        return [self._whole(each) for each in buffered]


class TrainingRows:
    """The rows of a stage as the trainer takes them."""

    def __init__(self, rows: StageRows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> dict[str, Any]:
        row = self.rows[place]
        return {
            "prompt": row.prompt,
            "images": list(row.images),
            "sample": row.sample,
            "style": row.style,
            "notes": row.notes,
        }


def run(config: GrpoConfig, out: Path, resume: bool = False, console: Console | None = None) -> Path:
    """Train as `config` says and write the model to `out`; returns `out`.

    With `resume` the last whole checkpoint in `out` is continued; on a CPU the result is bit-identical to that of
    a run that was never interrupted. Pages of rollouts are in `out/rollouts`. Errors: UnivgError.
    """
    out = Path(out)
    console = console or Console(stderr=True, quiet=not is_first_process())
    batches, rewards = _settled(config)
    resumed = start_run(config, out, resume, console)
    arguments = make_arguments(TrlArguments, config, _ours(config, out, batches, rewards))
    loaded = load_start(config)
    rows = StageRows(config, loaded.processor, teach=False)
    steps = steps_of(config, rows, config.prompts_per_step) * (1 if config.max_steps else config.iterations)
    rows.resize(-(-steps // config.iterations) * config.prompts_per_step)
    arguments.max_steps = steps
    facts = record_run(config, out, rows, resumed, steps)
    examples = TrainingRows(rows)
    judge = Judge(config.prompt_style, loaded.family.frame, loaded.resized)
    console.print(check_oracle(examples, rewards, judge, loaded.processor), highlight=False, markup=False)
    trainer = _trainer(config, out, loaded, arguments, examples, rewards, judge)
    memory = memory_lines(config, loaded, examples, batches, trainer.is_sharing)
    lines = [str(batches), trainer.sharing_line(), *memory]
    trainer.console = console
    _embed_alike(trainer)
    print_plan(trainer, steps, lines, console)
    trainer.checkpoints = make_checkpoints(config, loaded)
    train(trainer, RunLog(out, "grpo", console, SHOWN), resumed, trainer.current_rollouts)
    return write_model(trainer, config, out, loaded, facts, console)


def _embed_alike(trainer: StageTrainer) -> None:
    """Where the policy embeds patches by a matrix product (on CPUs), the reference does so too: in bf16 the two ways
    round differently, and a convolution is slower."""
    if trainer.ref_model is not None and isinstance(trainer.model.model.visual.patch_embed.proj, PatchLinear):
        embedding: Any = trainer.accelerator.unwrap_model(trainer.ref_model).model.visual.patch_embed
        embedding.proj = PatchLinear(embedding.proj)


def _trainer(
    config: GrpoConfig,
    out: Path,
    loaded: Loaded,
    arguments: TrlArguments,
    examples: TrainingRows,
    rewards: Sequence[Reward],
    judge: Judge,
) -> StageTrainer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PromptsNotShared)  # the plan says it
        try:
            return StageTrainer(
                loaded.model,
                [reward.function for reward in rewards],
                arguments,
                examples,
                processing_class=loaded.processor,
                weighting=config.weighting,
                power_w=config.power_w,
                judge=judge,
                pages=out / PAGES,
                page_every=config.rollout_page_every,
                peft_config=make_lora(config, loaded),
                shared_prefix=config.shared_prefix,
            )
        except CannotShare as error:
            raise StageError(str(error)) from error


def _settled(config: GrpoConfig) -> tuple[BatchPlan, Sequence[Reward]]:
    """What can be wrong in a config is told before a model is loaded."""
    try:
        batches = batch_plan(config.prompts_per_step, config.rollouts, config.micro_batch, count_processes())
        rewards = find_rewards(config.rewards)
        check_weighting(config.weighting, config.power_w)
    except (DifficultyError, DottedPathError, RewardError, ValueError) as error:
        raise StageError(str(error)) from error
    if config.beta and config.lora is None and checkpoint.is_adapter(checkpoint.locate(config.model).folder):
        raise StageError(
            f"model: {config.model} is a LoRA adapter, so the reference of the KL term would be its base: "
            f"merge it first: univg merge {config.model} --out FOLDER"
        )
    return batches, rewards


def _ours(config: GrpoConfig, out: Path, batches: BatchPlan, rewards: Sequence[Reward]) -> dict[str, Any]:
    decided = {
        "output_dir": str(out),
        "per_device_train_batch_size": batches.micro_batch,
        "gradient_accumulation_steps": batches.accumulation,
        "steps_per_generation": batches.accumulation,
        "num_generations": config.rollouts,
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
    open_to_change = {
        "use_bias_correction_kl": False,  # the paper's trainer takes the plain estimate
        "log_multimodal": False,  # it would send every picture to every process, every step
    }
    return decided | {name: value for name, value in open_to_change.items() if name not in config.trainer}
