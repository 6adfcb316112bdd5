"""What both stages do around TRL's trainer: start or resume, arguments, the plan, the log, the finished model.

out/resolved.yaml     the config with every default
out/run.json          versions and the data's digest
out/log.jsonl         one row a step
out/left-out.jsonl    samples that were shrunk or left out, where there were any
out/checkpoint-N/     whole or not there (`univg.training.run.checkpoints`)
out/                  at the end the model itself: weights, processor, univg.json, README.md
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.metadata
import json
import os
import platform
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging

from univg.config import ConfigError, load_config, save_config
from univg.models import checkpoint
from univg.models.loading import Loaded, load, plain_model, write_conventions
from univg.models.processor import PixelBudget
from univg.training.config import LANGUAGE_LINEAR, StageConfig
from univg.training.run.card import write_stage_card
from univg.training.run.checkpoints import (
    STAGING,
    Checkpoints,
    StopAtNonFinite,
    find_checkpoints,
    find_last_good,
    writing,
)
from univg.training.run.cpu_layers import PatchLinear
from univg.training.run.rows import StageError, StageRows, data_digest

__all__ = [
    "RunLog",
    "begin",
    "checkpoints_of",
    "finish",
    "lora_config",
    "note_left_out",
    "plan",
    "quietly",
    "record",
    "start_model",
    "train",
    "trainer_arguments",
    "world_size",
]

RESOLVED, RECORD, LOG, LEFT_OUT = "resolved.yaml", "run.json", "log.jsonl", "left-out.jsonl"
FREE_TO_CHANGE = {"save_every", "keep_checkpoints", "workers", "save_bf16", "rollout_page_every"}
"""Keys that a resumed run may have otherwise: they do not change what is learnt."""
VERSIONS = ("univg", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "numpy")

A = TypeVar("A", bound=TrainingArguments)


def world_size() -> int:
    """How many processes train together (as `accelerate launch` and `torchrun` say)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def begin(config: StageConfig, out: Path, resume: bool, console: Console) -> Path | None:
    """Make `out` ready; returns the checkpoint to go on from.

    Errors: StageError when a run is here and `resume` is not given, or was made by another config, or all of
    its checkpoints are torn.
    """
    with writing("the run's folder", out.parent):
        out.mkdir(parents=True, exist_ok=True)
    found = find_checkpoints(out)
    if found and not resume:
        raise StageError(f"{out}: a run is here already: continue it with --resume, or choose another --out")
    if is_main():
        shutil.rmtree(out / STAGING, ignore_errors=True)  # of a run that was killed while it wrote
    last, reports = find_last_good(out)
    for line in reports:
        console.print(line, style="yellow", highlight=False, markup=False)
    if resume and last is None:
        if reports:
            raise StageError(f"{out}: every checkpoint is torn: delete the folder and start anew")
        console.print(f"no checkpoint in {out}: starting from step 0", highlight=False)
    if last is not None:
        _check_same(config, out)
        console.print(f"resuming from {last.name}", highlight=False)
    return last


def _check_same(config: StageConfig, out: Path) -> None:
    try:
        before = load_config(type(config), out / RESOLVED)
    except ConfigError as error:
        raise StageError(
            f"{out / RESOLVED}: not a config of this stage ({error}): choose another --out"
        ) from None
    old, new = before.model_dump(mode="json"), config.model_dump(mode="json")
    changed = [key for key in new if old.get(key) != new[key] and key not in FREE_TO_CHANGE]
    if changed:
        raise StageError(
            f"{out}: the run was made by another config (differs in {', '.join(changed)}): "
            "give the same key=value overrides again, or choose another --out"
        )


def trainer_arguments(cls: type[A], config: StageConfig, ours: Mapping[str, Any]) -> A:
    """TRL's arguments: `ours`, which follow from the config, and those passed through under `trainer`.

    Errors: StageError for an unknown name (with the nearest), one that the config already decides, or a value
    that TRL refuses.
    """
    known = [field.name for field in dataclasses.fields(cls) if field.init]
    cpu = not torch.cuda.is_available() and not torch.backends.mps.is_available()
    decided = {**_shared(config), "use_cpu": cpu, **ours}
    for name in config.trainer:
        if name in decided and name not in _OPEN:
            raise StageError(f"trainer.{name}: univg decides it, by its own keys: leave it out of trainer")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "see the arguments of TRL and transformers"
            raise StageError(f"trainer.{name}: {cls.__name__} has no such argument; {hint}")
    try:
        with quietly():
            return cls(**{**decided, **config.trainer})
    except (ValueError, TypeError, ImportError) as error:
        raise StageError(
            f"trainer: {cls.__name__} refuses its arguments: {' '.join(str(error).split())}"
        ) from error


_OPEN = {
    "logging_steps",
    "report_to",
    "lr_scheduler_type",
    "dataloader_num_workers",
    "use_cpu",
    "ddp_find_unused_parameters",
}
"""Names that univg gives a default and the config's `trainer` may replace."""


def _shared(config: StageConfig) -> dict[str, Any]:
    return {
        "seed": config.seed,
        "learning_rate": config.learning_rate,
        "warmup_steps": config.warmup_ratio if config.warmup_ratio < 1 else 0.999,
        "bf16": config.bf16,
        "gradient_checkpointing": config.gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": config.save_every,
        "save_total_limit": None,  # whole_checkpoints keeps count
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
    }


def start_model(config: StageConfig) -> Loaded:
    """The start checkpoint, with its frozen parts frozen. To be called after the trainer's arguments exist:
    under ZeRO-3 they decide how weights are read. Errors: UnivgError."""
    source = checkpoint.locate(config.model)
    if config.lora is not None and checkpoint.is_adapter(source.folder):
        raise StageError(
            f"model: {config.model} is a LoRA adapter, and a new one cannot stand on it: "
            f"merge it first: univg merge {config.model} --out FOLDER"
        )
    budget = config.pixel_budget and PixelBudget(**config.pixel_budget.model_dump())
    dtype = torch.bfloat16 if config.lora is not None and config.bf16 else torch.float32
    loaded = load(config.model, dtype=dtype, device="cpu", pixel_budget=budget or None)
    if loaded.family.frame != "permille":
        raise StageError(
            f"model: {config.model}: {loaded.family.model_type} writes boxes in pixels, and both stages teach "
            "permille: start from a Qwen2-VL or Qwen3-VL checkpoint"
        )
    loaded.model.config.use_cache = False
    embedding = loaded.model.model.visual.patch_embed
    if (
        not torch.cuda.is_available()
        and isinstance(embedding.proj, nn.Conv3d)
        and embedding.proj.bias is None
    ):
        embedding.proj = PatchLinear(embedding.proj)
    if config.freeze_vision:
        loaded.model.model.visual.requires_grad_(False)
    return loaded


def lora_config(config: StageConfig, loaded: Loaded) -> Any:
    """PEFT's settings for the config's adapters; None without. Errors: StageError for names that fit nothing."""
    if config.lora is None:
        return None
    from peft import LoraConfig

    names = [name for name, module in loaded.model.named_modules() if isinstance(module, nn.Linear)]
    target: str | list[str]
    if config.lora.target == LANGUAGE_LINEAR:
        leaves = {name.rpartition(".")[2] for name in names if ".language_model." in f".{name}"}
        target = rf"(.*\.)?language_model\..*\.({'|'.join(sorted(leaves))})"
    else:
        target = [config.lora.target] if isinstance(config.lora.target, str) else list(config.lora.target)
        unknown = [t for t in target if not any(n == t or n.endswith(f".{t}") for n in names)]
        if unknown:
            leaves = {name.rpartition(".")[2] for name in names}
            raise StageError(
                f"lora.target: no linear layer named {unknown[0]!r}: use {LANGUAGE_LINEAR!r} or some of "
                f"{', '.join(sorted(leaves))}"
            )
    source = checkpoint.locate(config.model)
    base = (
        config.model
        if config.model in checkpoint.EMBEDDED or source.repository
        else str(source.folder.absolute())
    )
    return LoraConfig(
        r=config.lora.r,
        lora_alpha=config.lora.alpha,  # type: ignore[arg-type]  # PEFT divides it by r
        lora_dropout=config.lora.dropout,
        target_modules=target,
        base_model_name_or_path=base,
    )


def record(
    config: StageConfig, out: Path, rows: StageRows, resumed: Path | None, steps: int
) -> dict[str, Any]:
    """Save config, versions and data digest beside the checkpoints; a resumed run's data must be the same."""
    facts: dict[str, Any] = {
        "stage": type(config).__name__.removesuffix("Config").lower(),
        "steps": steps,
        "data_digest": data_digest(rows),
        "versions": {name: _version(name) for name in VERSIONS},
        "python": platform.python_version(),
        "processes": world_size(),
        "left_out_when_read": sum(source.dropped for source in rows.sources),
    }
    path = out / RECORD
    if resumed is not None and path.exists():
        before = checkpoint.read_json(path)
        if before.get("data_digest") != facts["data_digest"]:
            raise StageError(
                f"data: not what the run began with: {path}: restore the files, or choose another --out"
            )
        if before.get("processes") != facts["processes"]:
            raise StageError(
                f"{path}: the run began with {before.get('processes')} processes, not {facts['processes']}: "
                "resume with as many"
            )
    if is_main():
        with writing("the run's record", out):
            save_config(config, out / RESOLVED)
            path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return facts


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def plan(trainer: Trainer, steps: int, lines: Sequence[str], console: Console) -> None:
    """Print what will be done: `lines` of the stage, then parameters and memory."""
    args, model = trainer.args, trainer.model
    assert model is not None
    parameters = list(model.parameters())
    trained = [p for p in parameters if p.requires_grad]
    count, learnt = sum(p.numel() for p in parameters), sum(p.numel() for p in trained)
    weights = sum(p.numel() * p.element_size() for p in parameters)
    moving = sum(p.numel() * (p.element_size() + 8) for p in trained)  # gradient, two moments of AdamW
    for line in (
        *lines,
        f"{count / 1e6:.2f} M parameters, {learnt / 1e6:.2f} M of them trained; {steps} steps on "
        f"{args.world_size} process(es), {args.device.type}",
        f"memory: weights {weights / 1e9:.2f} GB, gradients and AdamW {moving / 1e9:.2f} GB, without activations"
        + (", over all processes where they are sharded" if args.world_size > 1 else ""),
    ):
        console.print(line, highlight=False, markup=False)


class RunLog(TrainerCallback):
    """A row of `log.jsonl` each step, and a progress bar."""

    def __init__(self, out: Path, title: str, console: Console, shown: Sequence[str] = ("loss",)) -> None:
        self.path, self.title, self.console, self.shown = out / LOG, title, console, shown
        self.progress: Progress | None = None
        self._bar: Any = None
        self._at = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._at = time.perf_counter()
        if not state.is_world_process_zero:
            return
        _forget_after(self.path, state.global_step)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, TextColumn("{task.fields[shown]}"), console=self.console)
        self._bar = self.progress.add_task(
            self.title, total=state.max_steps, completed=state.global_step, shown=""
        )
        self.progress.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if self.progress is None or not logs or "train_runtime" in logs:
            return
        now = time.perf_counter()
        row = {"step": state.global_step, **{k: v for k, v in logs.items() if k != "epoch"}}
        row["seconds"] = round((now - self._at) / max(1, int(args.logging_steps)), 4)
        self._at = now
        with writing("the log", self.path.parent), self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps({k: _number(v) for k, v in row.items()}) + "\n")
        shown = " ".join(f"{name} {row[name]:.3g}" for name in self.shown if name in row)
        self.progress.update(self._bar, completed=state.global_step, shown=shown)

    def close(self) -> None:
        if self.progress is not None:
            self.progress.stop()


def _number(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _forget_after(path: Path, step: int) -> None:
    """Drop the rows of steps that a resumed run takes again, and a torn last one."""
    if path.exists():
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def note_left_out(out: Path, step: int, notes: Sequence[str], console: Console) -> None:
    """Log samples that were shrunk or left out, by id; the first few are shown as well."""
    path = out / LEFT_OUT
    before = path.stat().st_size if path.exists() else 0
    with writing("the log", out), path.open("a", encoding="utf-8") as handle:
        for note in notes:
            handle.write(json.dumps({"step": step, "note": note}, ensure_ascii=False) + "\n")
    if before < 1000:
        for note in notes:
            console.print(f"step {step}: {note}", highlight=False, markup=False)


def checkpoints_of(config: StageConfig, loaded: Loaded) -> Checkpoints:
    """Return how the run's checkpoints are kept: each carries the conventions of the model."""
    return Checkpoints(
        config.keep_checkpoints,
        lambda folder: write_conventions(folder, config.prompt_style, loaded.pixel_budget),
    )


def train(trainer: Trainer, log: RunLog, resumed: Path | None, batches: Callable[[], Sequence[Any]]) -> None:
    """Run the trainer from the start or a checkpoint; `batches` gives the current step's micro-batches."""
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(log)
    trainer.add_callback(StopAtNonFinite(log.path.parent, batches))
    try:
        with quietly():
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    finally:
        log.close()


@contextmanager
def quietly() -> Iterator[None]:
    """Hold back what the libraries show in the midst of ours: a bar for each checkpoint, notes to one another
    on names that will change."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if shown:
            logging.enable_progress_bar()


def finish(
    trainer: Trainer,
    config: StageConfig,
    out: Path,
    loaded: Loaded,
    facts: Mapping[str, Any],
    console: Console,
) -> Path:
    """Write the finished model to `out`: weights (or the adapter), processor, conventions, card.

    In one process full weights are saved as bf16 if the config says so; under FSDP or ZeRO-3 as they are gathered.
    """
    staged = out / ".final"
    model = plain_model(trainer.model)
    if config.lora is None and config.bf16 and config.save_bf16 and trainer.args.world_size == 1:
        model.to(torch.bfloat16)
    model.config.use_cache = True
    with writing("the finished model", out), quietly():
        if is_main():
            shutil.rmtree(staged, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()
        trainer.save_model(str(staged))
        trainer.accelerator.wait_for_everyone()
        if not is_main():
            return out
        (staged / "training_args.bin").unlink(missing_ok=True)
        loaded.processor.save_pretrained(staged)
        write_conventions(staged, config.prompt_style, loaded.pixel_budget)
        write_stage_card(staged, out.name, config, facts, out / LOG)
        for file in staged.iterdir():
            file.chmod(0o644)  # safetensors makes files that only their owner reads; a checkpoint is shared
        for file in sorted(staged.iterdir(), key=lambda path: path.suffix == ".safetensors"):
            os.replace(file, out / file.name)  # the weights last: without them it is no checkpoint
        staged.rmdir()
    (checkpoint.adapter_folder if config.lora else lambda p: checkpoint.weight_files(checkpoint.locate(p)))(
        out
    )
    console.print(f"finished: {out}", highlight=False)
    return out
