"""Stage 1, CoT-SFT: TRL's SFTTrainer on samples with thoughts (paper, section 3.2).

A step's samples are drawn and preprocessed in a data worker, sorted by length and split into micro-batches, so that
little of them is padding. The loss is the mean over the response's tokens of the whole step, however it is split;
prompts, pictures and padding have no part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset as TrlDataset  # type: ignore[import-untyped]
from rich.console import Console
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset
from trl.trainer.sft_config import SFTConfig as TrlArguments
from trl.trainer.sft_trainer import SFTTrainer

from univg.models.loading import Loaded, plain_model
from univg.models.processor import GroundingProcessor
from univg.terminal import notes
from univg.training.config import SftConfig
from univg.training.run.arguments import make_arguments
from univg.training.run.batches import (
    IGNORED,
    PixelTable,
    encode_row,
    join_inputs,
    load_steps,
    pad_right,
    split_by_length,
)
from univg.training.run.checkpoints import Checkpoints, load_whole_model
from univg.training.run.cpu_layers import ATTENTION
from univg.training.run.finished import write_model
from univg.training.run.held_out import open_data
from univg.training.run.launch import count_processes
from univg.training.run.log import RunLog, log_left_out, sum_up_left_out
from univg.training.run.muon import MuonAndAdamW
from univg.training.run.precision import describe_precision
from univg.training.run.push import take_push
from univg.training.run.quiet import silence_libraries
from univg.training.run.rows import Row, StageRows, count_steps, render_prompt_text
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
from univg.training.sft.lessons import check_lessons
from univg.training.sft.prechecks import check_sft

__all__ = ["SftTrainer", "encode", "join", "train_sft"]


class Batch(dict[str, Tensor]):
    """The model's inputs for one micro-batch, padded on the right, with the ids of its samples."""

    samples: tuple[str, ...] = ()

    @classmethod
    def of(cls, inputs: Mapping[str, Tensor], samples: Sequence[str]) -> Batch:
        batch = cls(inputs)
        batch.samples = tuple(samples)
        return batch


@dataclass(frozen=True)
class StepBatch:
    """One process's share of a step, and notes on samples that were shrunk or left out."""

    parts: Sequence[Batch]
    notes: Sequence[str]


def encode(processor: GroundingProcessor, row: Row) -> dict[str, Any]:
    """Encode a row that carries a response, as :func:`univg.training.run.batches.encode_row` does, with its id."""
    assert row.response is not None
    fields = encode_row(processor, row.images, render_prompt_text(processor, row), row.response)
    return {**fields, "sample": row.sample.name}


def join(rows: Sequence[Mapping[str, Any]], pad_id: int) -> Batch:
    """Join encoded rows to one micro-batch; shapes (rows, longest row), patches one after the other."""
    batch = Batch.of(join_inputs(rows, pad_id), [row["sample"] for row in rows])
    batch["labels"] = pad_right(rows, "labels", IGNORED)
    batch["attention_mask"] = pad_right([{"ones": [1] * len(row["ids"])} for row in rows], "ones", 0)
    return batch


class Steps(Dataset[StepBatch]):
    """Step number -> this process's micro-batches of it."""

    def __init__(self, config: SftConfig, rows: StageRows, rank: int, processes: int) -> None:
        self.config, self.rows, self.rank, self.processes = config, rows, rank, processes

    def __len__(self) -> int:
        return len(self.rows) // self.config.batch

    def __getitem__(self, step: int) -> StepBatch:
        first = step * self.config.batch
        rows = [self.rows[i] for i in range(first + self.rank, first + self.config.batch, self.processes)]
        processor = self.rows.processor
        parts = split_by_length([encode(processor, row) for row in rows], self.config.micro_batch)
        pad_id = processor.tokenizer.pad_token_id
        return StepBatch([join(part, pad_id) for part in parts], [note for row in rows for note in row.notes])


class StepLoader:
    """Micro-batches from step `start()` on, in order; `current` holds those of the step last begun."""

    def __init__(
        self, steps: Steps, parts: int, start: Callable[[], int], note: Callable[[int, Sequence[str]], None]
    ) -> None:
        self.steps, self.parts, self.start, self.note = steps, parts, start, note
        self.current: Sequence[Batch] = ()
        self.pixels = PixelTable(steps.rows.processor)

    def __len__(self) -> int:
        return len(self.steps) * self.parts

    def list_current(self) -> list[Batch]:
        """Return the micro-batches of the step last begun as the model is given them."""
        return [Batch.of(self.pixels.spread(batch), batch.samples) for batch in self.current]

    def __iter__(self) -> Iterator[Batch]:
        start = self.start()
        batches = load_steps(self.steps, start, len(self.steps), self.steps.config.workers)
        for step, batch in enumerate(batches, start + 1):
            if batch.notes:
                self.note(step, batch.notes)
            self.current = batch.parts
            yield from batch.parts


class SftTrainer(SFTTrainer):
    """TRL's trainer on the step's own batches."""

    args: TrlArguments
    loader: StepLoader
    checkpoints = Checkpoints()

    def __init__(self, matrix_rate: float | None = None, **settings: Any) -> None:
        self.matrix_rate = matrix_rate  # first: the optimizer is made before this returns
        super().__init__(**settings)
        # Qwen2.5-VL and Qwen3-VL say that they take no count of tokens: each micro-batch would weigh as much as another
        # then, whatever its answers' length. They take it all the same, and so does the loss below.
        self.model_accepts_loss_kwargs = True

    def get_train_dataloader(self) -> Any:
        return self.loader

    def create_optimizer(self, model: Any = None) -> Any:
        """Make Muon with AdamW where there is a rate for the matrices, else what the arguments name."""
        if self.matrix_rate is None:
            return super().create_optimizer(model)
        args, betas = self.args, (self.args.adam_beta1, self.args.adam_beta2)
        self.optimizer: Any = MuonAndAdamW(
            model or self.model, self.matrix_rate, args.learning_rate, betas, args.weight_decay
        )
        return self.optimizer

    def num_examples(self, dataloader: Any) -> int:
        return len(self.loader.steps.rows)

    def _prepare_inputs(self, inputs: Any) -> Any:
        """Make the pictures of this micro-batch numbers, and no others: as bytes they take an eighth."""
        return super()._prepare_inputs(self.loader.pixels.spread(inputs))

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return TRL's loss; on one CPU the same number, with the head applied at the response alone.

        TRL's own head leaves other positions out on GPUs only.
        """
        simple = self.args.loss_type == "nll" and not self.args.label_smoothing_factor
        alone = self.args.device.type == "cpu" and self.args.world_size == 1
        if return_outputs or num_items_in_batch is None or not (simple and alone):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        plain = plain_model(model)
        labels = inputs["labels"][:, 1:]
        answered = labels != IGNORED
        with self.accelerator.autocast():
            asked = {name: value for name, value in inputs.items() if name != "labels"}
            hidden = plain.model(**asked, use_cache=False).last_hidden_state[:, :-1]
            logits = plain.lm_head(hidden[answered]).float()
        total = functional.cross_entropy(logits, labels[answered], reduction="sum")
        with torch.no_grad():
            scores = logits.log_softmax(dim=-1)
            seen = self._metrics["train"]
            seen["entropy"].append(float(-(scores.exp() * scores).sum(dim=-1).mean()))
            seen["mean_token_accuracy"].append(
                float((scores.argmax(dim=-1) == labels[answered]).float().mean())
            )
            self._total_train_tokens += int(inputs["attention_mask"].sum())
            seen["num_tokens"] = [self._total_train_tokens]
        return total / num_items_in_batch

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.state.num_input_tokens_seen = self._total_train_tokens
        with self.checkpoints.write(self.args, self.state.global_step):
            super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not load_whole_model(model or self.model, resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model=model)

    def _load_rng_state(self, checkpoint: Any) -> None:
        """Restore the random numbers, and TRL's count of tokens, which it begins anew."""
        super()._load_rng_state(checkpoint)
        self._total_train_tokens = self.state.num_input_tokens_seen

    def _send_telemetry(self) -> None:
        """Report nothing of a run unless `report_to` says where."""


def train_sft(config: SftConfig, out: Path, resume: bool = False, console: Console | None = None) -> Path:
    """Train as `config` says and write the model to `out`; return `out`.

    With `resume` the last whole checkpoint in `out` is continued; on a CPU the result is bit-identical to that of
    a run that was never interrupted. Raises UnivgError.
    """
    console = console or notes()
    share = check_sft(config, resume)
    processes = count_processes()
    resumed = start_run(config, out, resume, console)
    console.print("opening data and model, drawing the first samples")
    sources, held = open_data(config, True, console)
    arguments = make_arguments(TrlArguments, config, _decide_arguments(config, out, share))
    hub = take_push(arguments, out)
    trackers = open_trackers(arguments, out, resumed)
    loaded = load_start(config)
    rows = StageRows(config, loaded.processor, frame=loaded.family.frame, sources=sources)
    steps = count_steps(config, rows, config.batch)
    rows.resize(steps * config.batch)
    arguments.max_steps = steps
    facts = record_run(config, out, rows, resumed, steps, held)
    console.print(check_lessons(rows))
    trainer = _make_trainer(config, out, loaded, arguments, rows, console)
    line = (
        f"{config.batch} samples a step = {config.micro_batch} at once × {share} accumulated × "
        f"{processes} process(es)"
    )
    print_plan(trainer, steps, [line, describe_precision(config.bf16)], console)
    log = RunLog(out, "sft", console, trackers=trackers)
    trainer.add_callback(AnswerPictures(trackers))
    validator = make_validator(trainer, config, held, loaded, log, resumed)
    best = train(trainer, log, resumed, trainer.loader.list_current, validator)
    sum_up_left_out(out, len(rows), console)
    return write_model(trainer, config, out, loaded, facts, hub, console, best)


def _make_trainer(
    config: SftConfig, out: Path, loaded: Loaded, arguments: TrlArguments, rows: StageRows, console: Console
) -> SftTrainer:
    if arguments.device.type == "cpu" and config.lora is None:
        loaded.model.set_attn_implementation(ATTENTION)
    with silence_libraries():
        trainer = SftTrainer(
            matrix_rate=config.matrix_learning_rate,
            model=loaded.model,
            args=arguments,
            train_dataset=TrlDataset.from_dict(
                {"row": range(len(rows))}
            ),  # TRL asks for one; no row is taken
            processing_class=loaded.processor,
            data_collator=_keep,
            peft_config=make_lora(config, loaded),
        )
    mend_adapters(trainer.model)

    def note(step: int, lines: Sequence[str]) -> None:
        log_left_out(out, step, lines, console)

    trainer.loader = StepLoader(
        Steps(config, rows, arguments.process_index, arguments.world_size),
        arguments.gradient_accumulation_steps,
        lambda: trainer.state.global_step,
        note,
    )
    trainer.checkpoints = make_checkpoints(config, out, loaded)
    return trainer


def _keep(batch: Any) -> Any:
    """Return what the loader gives: it comes as micro-batches."""
    return batch


def _decide_arguments(config: SftConfig, out: Path, accumulation: int) -> dict[str, Any]:
    return {
        "output_dir": str(out),
        "per_device_train_batch_size": config.micro_batch,
        "gradient_accumulation_steps": accumulation,
        "lr_scheduler_type": "cosine",
        "max_length": None,  # nothing is cut; max_tokens shrinks pictures or leaves samples out
        "packing": False,
        "ddp_find_unused_parameters": False,  # every row has pictures
        "ignore_data_skip": True,  # the loader itself begins at the right step
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
