"""What both stages do around TRL's trainer: start or resume, record, plan, train, write the finished model.

out/resolved.yaml     the config with every default
out/run.json          versions and the data's digest
out/log.jsonl         one row a step
out/left-out.jsonl    samples that were shrunk or left out, where there were any
out/checkpoint-N/     whole or not there (`univg.training.run.checkpoints`)
out/                  at the end the model itself: weights, processor, univg.json, README.md
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list  # type: ignore[import-untyped]
from rich.console import Console
from transformers import PrinterCallback, Trainer

from univg.config import load_config, save_config
from univg.errors import UnivgError, one_line
from univg.files import write_whole
from univg.models import checkpoint
from univg.models.conventions import write_conventions
from univg.models.loading import Loaded
from univg.terminal import is_first_process, notes, waiting
from univg.training.config import StageConfig
from univg.training.run.checkpoints import (
    STAGING,
    Checkpoints,
    StopAtNonFinite,
    check_same_config,
    find_checkpoints,
    find_last_good,
    say_kept,
    writing,
)
from univg.training.run.finished import save_weights
from univg.training.run.held_out import HeldOut
from univg.training.run.launch import (
    RECORD,
    check_same_launch,
    count_processes,
    lock_folder,
    name_division,
)
from univg.training.run.log import RunLog
from univg.training.run.precision import computes_in_bf16
from univg.training.run.quiet import silence_libraries
from univg.training.run.rows import StageRows, data_digest
from univg.training.run.settings import mend_settings
from univg.training.run.start import digest_start
from univg.training.run.validation import Best, Validator, keep_best_with
from univg.training.run.workers import naming_dead_workers

__all__ = [
    "make_checkpoints",
    "make_validator",
    "print_plan",
    "record_run",
    "start_run",
    "train",
]

RESOLVED = "resolved.yaml"
LENGTH = ("max_steps", "epochs")
FREE_TO_CHANGE = {
    *("save_every", "keep_checkpoints", "workers", "save_bf16", "rollout_page_every", "max_dropped"),
    "check_memory",
    *("micro_batch", "rows_at_once", "gradient_checkpointing"),
}
"""Keys that a resumed run may have otherwise: they do not change what is learnt, but for rounding."""
VERSIONS = ("univg", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "numpy")


def start_run(config: StageConfig, out: Path, resume: bool, console: Console) -> Path | None:
    """Make `out` ready; return the checkpoint to go on from, if there is one.

    Raises UnivgError when a run is here and `resume` is not given, or was made by another config, or all of its
    checkpoints are torn.
    """
    with writing("the run's folder", out.parent):
        out.mkdir(parents=True, exist_ok=True)
    if find_checkpoints(out) and not resume:
        raise UnivgError("a run is here already", out, "continue it with --resume, or choose another --out")
    if is_first_process():
        lock_folder(out)
        shutil.rmtree(out / STAGING, ignore_errors=True)  # of a run that was killed while it wrote
    # One process reads all bytes of a checkpoint; the others are told in `train` what it found.
    last, reports = find_last_good(out, contents=is_first_process())
    for line in reports:
        console.print(line, style="yellow")
    if resume and last is None:
        if reports:
            raise UnivgError("every checkpoint is torn", out, "delete the folder and start anew")
        console.print(f"no checkpoint in {out}: starting from step 0")
    if last is not None:
        _check_config(config, out)
        if changed := check_same_launch(config, out, last):
            console.print(changed, style="yellow")
        console.print(f"resuming from {last.name}")
    return last


def _check_config(config: StageConfig, out: Path) -> None:
    """Raise UnivgError unless the run in `out` was made by this config."""
    try:
        before = load_config(type(config), out / RESOLVED)
    except UnivgError as error:
        raise UnivgError(
            f"not a config of this stage ({error})", out / RESOLVED, "choose another --out"
        ) from None
    # Between two updates on the same rollouts a checkpoint holds these, in micro-batches.
    fixed = {"micro_batch"} if getattr(config, "iterations", 1) > 1 else set()
    told, now = before.model_dump(mode="json"), config.model_dump(mode="json")
    if told != now and told | {name: now[name] for name in LENGTH} == now:
        raise _refuse_length(config, out)
    check_same_config(told, config, out, FREE_TO_CHANGE - fixed)


def _refuse_length(config: StageConfig, out: Path) -> UnivgError:
    """Make the error for a run that is to go on for longer, or less long, than it was planned."""
    verb = type(config).__name__.removesuffix("Config").lower()
    last = find_checkpoints(out)[0]
    start = out if (out / checkpoint.CONFIG_FILE).exists() else last
    more = (config.max_steps or 0) - int(last.name.rpartition("-")[2])
    length = f" max_steps={more}" if more > 0 else ""
    return UnivgError(
        "a run keeps its max_steps and epochs, as its learning rate falls towards its end",
        out,
        f"to train its model further: univg {verb} --config {out / RESOLVED} --out {out}-2 model={start}{length}",
    )


def record_run(
    config: StageConfig,
    out: Path,
    rows: StageRows,
    resumed: Path | None,
    steps: int,
    held: HeldOut | None = None,
    functions: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Save config, versions and digests beside the checkpoints, and return what was saved.

    `functions`: digests of the user's own, by name. Raises UnivgError where a resumed run's data, what is `held` out of
    them, functions or start model is another.
    """
    facts: dict[str, Any] = {
        "stage": type(config).__name__.removesuffix("Config").lower(),
        "steps": steps,
        "data_digest": data_digest(rows),
        "versions": {name: _find_version(name) for name in VERSIONS},
        "python": platform.python_version(),
        "processes": count_processes(),
        "division": name_division(config),
        "precision": "bfloat16" if computes_in_bf16(config.bf16) else "float32",
        "left_out_when_read": [found.to_json() for found in rows.dropped if found.book.left_out],
    }
    if held is not None:
        facts["validation_digest"] = held.digest
    if functions:
        facts["functions"] = dict(functions)
    path = out / RECORD
    before = checkpoint.read_json(path) if resumed is not None and path.exists() else None
    digests = ("data_digest", "validation_digest")
    if before is not None and any(before.get(name) != facts.get(name) for name in digests):
        raise UnivgError(
            "the data is not what the run began with", path, "restore the files, or choose another --out"
        )
    now = facts.get("functions", {})
    if before is not None and before.get("functions", now) != now:
        changed = ", ".join(
            sorted(name for name, digest in now.items() if before["functions"].get(name) != digest)
        )
        cause = f"the file of {changed} is not what the run began with"
        raise UnivgError(cause, path, "restore it, or choose another --out")
    if before is not None and before.get("precision", facts["precision"]) != facts["precision"]:
        began = f"the run began in {before['precision']} and goes on in {facts['precision']}, which rounds differently"
        notes().print(began, style="yellow")
    if is_first_process():
        with waiting(notes(), "reading the start model for its digest"):
            facts["start_model"] = digest_start(config.model)
        if before is not None:
            _check_start(before.get("start_model", {}), facts["start_model"], config, path)
        with writing("the run's record", out):
            save_config(config, out / RESOLVED)
            write_whole(path, json.dumps(facts, indent=2) + "\n")
    return facts


def _check_start(before: Mapping[str, str], now: Mapping[str, str], config: StageConfig, path: Path) -> None:
    """Raise UnivgError unless the start model's files, by their digests, are those that the run began with.

    They are the reference of GRPO's KL term, and what an adapter stands on. Runs of older versions recorded none.
    """
    differing = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if before and differing:
        raise UnivgError(
            f"model: {config.model} is not what the run began with (differs in {', '.join(differing)})",
            path,
            "restore the files, or choose another --out",
        )


def _find_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def print_plan(trainer: Trainer, steps: int, lines: Sequence[str], console: Console) -> None:
    """Print what will be done: `lines` of the stage, then parameters and memory."""
    args, model = trainer.args, trainer.model
    assert model is not None
    parameters = list(model.parameters())
    trained = [p for p in parameters if p.requires_grad]
    count, learnt = sum(map(_count_numbers, parameters)), sum(map(_count_numbers, trained))
    weights = sum(_count_bytes(p) for p in parameters)
    # Autocast keeps what it has cast until a pass is over.
    cast = sum(2 * _count_numbers(p) for p in parameters if args.bf16 and p.dtype == torch.float32)
    moving = sum(_count_numbers(p) * (p.element_size() + 8) for p in trained)  # gradient, AdamW's two moments
    for line in (
        *lines,
        f"{count / 1e6:.2f} M parameters, {learnt / 1e6:.2f} M of them trained; {steps} steps on "
        f"{args.world_size} process(es), {args.device.type}",
        f"memory: weights {weights / 1e9:.2f} GB"
        + (f", cast to bfloat16 {cast / 1e9:.2f} GB" if cast else "")
        + f", gradients and AdamW {moving / 1e9:.2f} GB, without activations"
        + (", over all processes where they are sharded" if args.world_size > 1 else ""),
    ):
        console.print(line)


def _count_numbers(weight: torch.Tensor) -> int:
    """Return how many numbers a weight holds over all processes; under ZeRO-3 the tensor itself is empty."""
    packed = getattr(weight, "quant_state", None)  # of bitsandbytes' 4 bits, two to a byte
    return int(getattr(weight, "ds_numel", weight.numel() if packed is None else packed.shape.numel()))


def _count_bytes(weight: torch.Tensor) -> int:
    packed = getattr(weight, "quant_state", None) is not None
    return (weight.numel() if packed else _count_numbers(weight)) * weight.element_size()


def make_checkpoints(config: StageConfig, out: Path, loaded: Loaded) -> Checkpoints:
    """Make what keeps a run's checkpoints; each is a model that loads like the finished one."""

    def complete(folder: Path) -> None:
        _complete(folder, config, loaded)
        keep_best_with(folder, out)

    return Checkpoints(config.keep_checkpoints, complete)


def _complete(folder: Path, config: StageConfig, loaded: Loaded) -> None:
    write_conventions(folder, config.prompt_style, loaded.pixel_budget)
    mend_settings(folder, config.model)


def make_validator(
    trainer: Trainer,
    config: StageConfig,
    held: HeldOut | None,
    loaded: Loaded,
    log: RunLog,
    resumed: Path | None,
) -> Validator | None:
    """Make what scores a run on the questions that are `held` out; None without."""
    if held is None:
        return None

    def save(folder: Path) -> None:
        save_weights(trainer, folder, False, config.lora is not None)
        if is_first_process():
            loaded.processor.save_pretrained(folder)
            _complete(folder, config, loaded)

    return Validator(config, held, loaded, log, resumed, trainer, save)


def train(
    trainer: Trainer,
    log: RunLog,
    resumed: Path | None,
    batches: Callable[[], Sequence[Any]],
    validator: Validator | None = None,
) -> Best | None:
    """Run the trainer from the start or a checkpoint; `batches` gives the current step's micro-batches.

    Return what the `validator` found; the trainer's model is then that of the best step, if that is wanted.
    """
    trainer.remove_callback(PrinterCallback)
    if log.trackers is not None:
        log.trackers.follow(trainer)
    trainer.add_callback(log)
    if validator is not None:
        trainer.add_callback(validator)
    trainer.add_callback(StopAtNonFinite(log.path.parent, batches))
    resumed = broadcast_object_list([resumed])[0]
    try:
        with silence_libraries(), naming_dead_workers():
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
            best = validator.finish() if validator is not None else None
    except KeyboardInterrupt:
        log.close()
        log.console.print(f"stopped at step {trainer.state.global_step}: {say_kept(log.path.parent)}")
        raise
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        raise UnivgError(
            f"memory ran out in step {trainer.state.global_step + 1} ({one_line(str(error))[:120]})",
            remedy="lower micro_batch (univg grpo: rows_at_once too), or set gradient_checkpointing=true; "
            + say_kept(log.path.parent),
        ) from error
    finally:
        log.close()
    if validator is not None and best is not None and is_first_process():
        validator.tell_best(best)
    return best


def _is_out_of_memory(error: Exception) -> bool:
    """Tell whether a GPU's or the machine's memory has run out; of the latter torch says so in words only."""
    signs = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        sign in str(error) for sign in signs
    )
