"""Stage 1, CoT-SFT: TRL's SFTTrainer on samples with thoughts (paper, section 3.2).

A step's samples are drawn and preprocessed in a data worker, sorted by length and split into micro-batches, so
that little of them is padding. The loss is the mean over the response's tokens of the whole step, whatever its
split; prompts, pictures and padding have no part in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset as TrlDataset  # type: ignore[import-untyped]
from rich.console import Console
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from trl.trainer.sft_config import SFTConfig as TrlArguments
from trl.trainer.sft_trainer import SFTTrainer

from univg.models.loading import plain_model
from univg.models.processor import GroundingProcessor
from univg.training.config import SftConfig
from univg.training.run.checkpoints import Checkpoints, load_whole_model
from univg.training.run.cpu_layers import ATTENTION
from univg.training.run.rows import Row, StageError, StageRows, prompt_text, steps_of
from univg.training.run.stage import (
    RunLog,
    begin,
    checkpoints_of,
    finish,
    is_main,
    lora_config,
    note_left_out,
    plan,
    quietly,
    record,
    start_model,
    train,
    trainer_arguments,
    world_size,
)

__all__ = ["SftTrainer", "encode", "join", "run"]

IGNORED = -100


class Batch(dict[str, Tensor]):
    """The model's inputs for one micro-batch, padded on the right, with the ids of its samples."""

    samples: tuple[str, ...] = ()


@dataclass
class StepBatch:
    """One process's share of a step, and what is to be told of its samples."""

    parts: list[Batch] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def encode(processor: GroundingProcessor, row: Row) -> dict[str, Any]:
    """A row's tokens and pixels. The answer's tokens are appended to the prompt's as generation would do it;
    `labels` are IGNORED before it."""
    assert row.response is not None
    prompt = prompt_text(processor, row)
    encoded = processor(images=[list(row.images)], text=[prompt], return_tensors="pt")
    ids = encoded["input_ids"][0].tolist()
    answer = [*processor.tokenizer.encode(row.response), _end_of_turn(processor)]
    return {
        "ids": ids + answer,
        "labels": [IGNORED] * len(ids) + answer,
        "types": encoded["mm_token_type_ids"][0].tolist() + [0] * len(answer),
        "pixels": encoded["pixel_values"],
        "grids": encoded["image_grid_thw"],
        "sample": row.sample.source or row.sample.key,
    }


def _end_of_turn(processor: GroundingProcessor) -> int:
    tokenizer = processor.tokenizer
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")  # a base model's own end mark is another token
    return int(end if end is not None and end != tokenizer.unk_token_id else tokenizer.eos_token_id)


def join(encoded: Sequence[dict[str, Any]], pad_id: int) -> Batch:
    """Encoded rows as one micro-batch; shapes (rows, longest row), pixels one after the other."""
    longest = max(len(row["ids"]) for row in encoded)

    def padded(name: str, fill: int) -> Tensor:
        return torch.tensor([row[name] + [fill] * (longest - len(row[name])) for row in encoded])

    batch = Batch(
        input_ids=padded("ids", pad_id),
        labels=padded("labels", IGNORED),
        mm_token_type_ids=padded("types", 0),
        attention_mask=torch.tensor([[1] * len(r["ids"]) + [0] * (longest - len(r["ids"])) for r in encoded]),
        pixel_values=torch.cat([row["pixels"] for row in encoded]),
        image_grid_thw=torch.cat([row["grids"] for row in encoded]),
    )
    batch.samples = tuple(row["sample"] for row in encoded)
    return batch


class _Steps(Dataset[StepBatch]):
    """Step number -> this process's micro-batches of it."""

    def __init__(self, config: SftConfig, rows: StageRows, steps: int, rank: int, processes: int) -> None:
        self.config, self.rows, self.steps, self.rank, self.processes = config, rows, steps, rank, processes

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> StepBatch:
        first = step * self.config.batch
        rows = [self.rows[i] for i in range(first + self.rank, first + self.config.batch, self.processes)]
        encoded = sorted((encode(self.rows.processor, row) for row in rows), key=lambda row: len(row["ids"]))
        pad, size = self.rows.processor.tokenizer.pad_token_id, self.config.micro_batch
        parts = [join(encoded[i : i + size], pad) for i in range(0, len(encoded), size)]
        return StepBatch(parts, [note for row in rows for note in row.notes])


class StepLoader:
    """Micro-batches from the trainer's step on, in order, whatever the number of workers."""

    def __init__(self, steps: _Steps, accumulation: int, trainer: SftTrainer) -> None:
        self.steps, self.accumulation, self.trainer = steps, accumulation, trainer
        self.current: list[Batch] = []

    def __len__(self) -> int:
        return len(self.steps) * self.accumulation

    def __iter__(self) -> Iterator[Batch]:
        start, workers = self.trainer.state.global_step, self.steps.config.workers
        loader: Any = DataLoader(
            self.steps,
            batch_size=None,
            sampler=range(start, len(self.steps)),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            worker_init_fn=_quiet_worker if workers else None,
            generator=torch.Generator(),  # its own: the run's random numbers stay where the checkpoint has them
        )
        for step, found in enumerate(loader, start + 1):
            if found.notes and is_main():
                note_left_out(
                    Path(str(self.trainer.args.output_dir)), step, found.notes, self.trainer.console
                )
            self.current = found.parts
            yield from found.parts


def _quiet_worker(number: int) -> None:
    torch.set_num_threads(1)


class SftTrainer(SFTTrainer):
    """TRL's trainer on the step's own batches."""

    args: TrlArguments
    console: Console
    steps: _Steps
    checkpoints = Checkpoints()
    loader: StepLoader

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with self.checkpoints.write(self.args, self.state.global_step):
            super()._save_checkpoint(model, trial)  # type: ignore[no-untyped-call]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not load_whole_model(model or self.model, resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model=model)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss; on one CPU the same number, with the head applied at the response alone.

        TRL's own head leaves other positions out on GPUs only.
        """
        simple = self.args.loss_type == "nll" and not self.args.label_smoothing_factor
        alone = self.args.device.type == "cpu" and self.args.world_size == 1
        if return_outputs or num_items_in_batch is None or not (simple and alone):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[no-untyped-call]
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

    def get_train_dataloader(self) -> Any:
        self.loader = StepLoader(self.steps, self.args.gradient_accumulation_steps, self)
        return self.loader

    def num_examples(self, dataloader: Any) -> int:
        return len(self.steps) * self.steps.config.batch


def run(config: SftConfig, out: Path, resume: bool = False, console: Console | None = None) -> Path:
    """Train as `config` says and write the model to `out`; returns `out`.

    With `resume` the last whole checkpoint in `out` is continued; on a CPU the result is bit-identical to that of
    a run that was never interrupted. Errors: UnivgError.
    """
    console = console or Console(stderr=True, quiet=not is_main())
    processes = world_size()
    share, left = divmod(config.batch, config.micro_batch * processes)
    if left:
        raise StageError(
            f"batch={config.batch} is not a multiple of micro_batch={config.micro_batch} × {processes} process(es)"
        )
    resumed = begin(config, out, resume, console)
    arguments = trainer_arguments(TrlArguments, config, _ours(config, out, share))
    loaded = start_model(config)
    rows = StageRows(config, loaded.processor)
    steps = steps_of(config, rows, config.batch)
    rows.resize(steps * config.batch)
    arguments.max_steps = steps
    facts = record(config, out, rows, resumed, steps)
    on_cpu = arguments.device.type == "cpu"
    if on_cpu and config.lora is None:
        loaded.model.set_attn_implementation(ATTENTION)
    with quietly():
        trainer = SftTrainer(
            model=loaded.model,
            args=arguments,
            train_dataset=TrlDataset.from_dict(
                {"row": range(len(rows))}
            ),  # TRL asks for one and takes no row
            processing_class=loaded.processor,
            data_collator=_as_they_are,  # steps come as micro-batches
            peft_config=lora_config(config, loaded),
        )
    trainer.console = console
    trainer.steps = _Steps(config, rows, steps, arguments.process_index, processes)
    line = (
        f"{config.batch} samples a step = {config.micro_batch} at once × {share} accumulated × "
        f"{processes} process(es)"
    )
    plan(trainer, steps, [line], console)
    trainer.checkpoints = checkpoints_of(config, loaded)
    log = RunLog(out, "sft", console, ("loss", "mean_token_accuracy"))
    train(trainer, log, resumed, lambda: trainer.loader.current)
    return finish(trainer, config, out, loaded, facts, console)


def _as_they_are(batch: Any) -> Any:
    return batch


def _ours(config: SftConfig, out: Path, accumulation: int) -> dict[str, Any]:
    return {
        "output_dir": str(out),
        "max_steps": 1,  # set once the data has been read
        "per_device_train_batch_size": config.micro_batch,
        "gradient_accumulation_steps": accumulation,
        "lr_scheduler_type": "cosine",
        "max_length": None,  # nothing is cut; max_tokens shrinks pictures or leaves samples out
        "packing": False,
        "ddp_find_unused_parameters": False,  # every row has pictures
        "ignore_data_skip": True,  # the loader itself begins at the right step
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
