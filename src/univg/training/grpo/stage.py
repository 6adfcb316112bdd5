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
from torch.distributed.tensor import DTensor
from trl.trainer.grpo_config import GRPOConfig as TrlArguments

from univg.models.loading import Loaded, plain_model
from univg.terminal import notes
from univg.training.config import GrpoConfig
from univg.training.grpo.arguments import decide_arguments, paper_arguments
from univg.training.grpo.checks import (
    CheapAnswers,
    StartReport,
    check_oracle,
    describe_memory,
    describe_packing,
)
from univg.training.grpo.difficulty import WEIGHTINGS
from univg.training.grpo.metrics import Generation, RolloutCallback
from univg.training.grpo.named import digest_functions, find_function
from univg.training.grpo.pages import RolloutPages, RolloutPictures
from univg.training.grpo.prechecks import check_grpo
from univg.training.grpo.rewards import Reward, RolloutReader, watch_reward
from univg.training.grpo.sharing import PromptsNotShared
from univg.training.grpo.trainer import GroundingGRPOTrainer
from univg.training.run.arguments import make_arguments
from univg.training.run.cpu_layers import PatchLinear
from univg.training.run.finished import write_model
from univg.training.run.held_out import open_data
from univg.training.run.log import RunLog, log_left_out, sum_up_left_out
from univg.training.run.precision import describe_precision
from univg.training.run.push import take_push
from univg.training.run.quiet import silence_libraries
from univg.training.run.rows import StageRows, count_steps
from univg.training.run.stage import (
    make_checkpoints,
    make_validator,
    print_plan,
    record_run,
    start_run,
    train,
)
from univg.training.run.start import load_start, make_lora, mend_adapters
from univg.training.run.trackers import open_trackers
from univg.training.run.validation import AnswerPictures

__all__ = ["GroundingGRPOTrainer", "TrainingRows", "paper_arguments", "train_grpo"]

PAGES = "rollouts"
SHOWN = ("iou", "format", "kl")


class TrainingRows:
    """The rows of a stage as the trainer takes them."""

    def __init__(self, rows: StageRows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> dict[str, Any]:
        row = self.rows[place]
        fields = {name: getattr(row, name) for name in ("prompt", "sample", "style", "notes")}
        return {**fields, "images": list(row.images)}


class LeftOutNotes(RolloutCallback):
    """Note the samples that were shrunk or left out to make a generation's rows."""

    def __init__(self, out: Path, console: Console) -> None:
        self.out, self.console = out, console

    def on_rollouts(self, args: Any, state: Any, generation: Generation) -> None:
        left_out = list(dict.fromkeys(note for row in generation.rows for note in row.get("notes", ())))
        if left_out:
            log_left_out(self.out, generation.step, left_out, self.console)


def train_grpo(config: GrpoConfig, out: Path, resume: bool = False, console: Console | None = None) -> Path:
    """Train as `config` says and write the model to `out`; returns `out`.

    With `resume` the last whole checkpoint in `out` is continued; on a CPU the result is bit-identical to
    that of a run that was never interrupted. Pages of rollouts are in `out/rollouts`. Raises UnivgError.
    """
    out = Path(out)
    console = console or notes()
    batches, rewards = check_grpo(config, resume)
    resumed = start_run(config, out, resume, console)
    console.print("opening data and model, drawing the first samples")
    sources, held = open_data(config, False, console)
    arguments = make_arguments(TrlArguments, config, decide_arguments(config, out, batches, rewards))
    hub = take_push(arguments, out)
    trackers = open_trackers(arguments, out, resumed)
    loaded = load_start(config)
    rows = StageRows(config, loaded.processor, teach=False, frame=loaded.family.frame, sources=sources)
    steps = count_steps(config, rows, config.prompts_per_step) * (
        1 if config.max_steps else config.iterations
    )
    rows.resize(-(-steps // config.iterations) * config.prompts_per_step)
    arguments.max_steps = steps
    functions = {reward.name: reward.function for reward in rewards}
    functions[config.weighting] = find_function(config.weighting, WEIGHTINGS, "weighting")
    facts = record_run(config, out, rows, resumed, steps, held, digest_functions(functions))
    examples = TrainingRows(rows)
    reader = RolloutReader(config.prompt_style, loaded.family.frame, loaded.resized)
    console.print(check_oracle(examples, rewards, reader, loaded.processor))
    trainer = _make_trainer(config, out, loaded, arguments, examples, rewards, reader)
    for callback in (LeftOutNotes(out, console), StartReport(console), CheapAnswers(console)):
        trainer.add_callback(callback)
    if config.rollout_page_every:
        trainer.add_callback(RolloutPages(out / PAGES, config.rollout_page_every))
        trainer.add_callback(RolloutPictures(trackers, config.rollout_page_every))
    trainer.add_callback(AnswerPictures(trackers))
    memory = describe_memory(config, loaded, examples, batches, trainer.shared is not None)
    packing = describe_packing(batches) if trainer.shared is not None else []
    lines = [str(batches), trainer.sharing_line, *packing, describe_precision(config.bf16), memory]
    print_plan(trainer, steps, lines, console)
    log = RunLog(out, "grpo", console, SHOWN, trackers)
    validator = make_validator(trainer, config, held, loaded, log, resumed)
    best = train(trainer, log, resumed, trainer.current_batches, validator)
    sum_up_left_out(out, len(rows), console)
    return write_model(trainer, config, out, loaded, facts, hub, console, best)


def _make_trainer(
    config: GrpoConfig,
    out: Path,
    loaded: Loaded,
    arguments: TrlArguments,
    examples: TrainingRows,
    rewards: Sequence[Reward],
    reader: RolloutReader,
) -> GroundingGRPOTrainer:
    with silence_libraries(), warnings.catch_warnings():
        warnings.simplefilter("ignore", PromptsNotShared)  # the plan says it
        trainer = GroundingGRPOTrainer(
            loaded.model,
            [watch_reward(reward) for reward in rewards],
            arguments,
            examples,
            processing_class=loaded.processor,
            weighting=config.weighting,
            power_w=config.power_w,
            even_weights=config.even_weights,
            reader=reader,
            peft_config=make_lora(config, loaded),
            rows_at_once=config.rows_at_once,
            shared_prefix=config.shared_prefix,
            checkpoints=make_checkpoints(config, out, loaded),
        )
    mend_adapters(trainer.model)
    _embed_alike(trainer.model, trainer.ref_model)
    return trainer


def _embed_alike(policy: Any, reference: Any) -> None:
    """Let the reference embed patches by a matrix product where the policy does so (on CPUs): in bf16 it rounds
    differently from a convolution, which is slower too."""
    if reference is not None and isinstance(policy.model.visual.patch_embed.proj, PatchLinear):
        embedding: Any = plain_model(reference).model.visual.patch_embed
        if not isinstance(embedding.proj.weight, DTensor):  # FSDP has it already, in the layer that it was in
            embedding.proj = PatchLinear(embedding.proj)
