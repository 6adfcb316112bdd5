"""Checkpoints that are whole or not there, and steps that stop where a number is no longer finite.

A trainer writes a checkpoint into a folder with another name; it is sealed (a list of its files with their sizes
and digests, everything flushed to the disk) and only then renamed to `checkpoint-N`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel, Trainer

from univg.errors import one_line
from univg.training.run.rows import StageError

__all__ = ["SEAL", "STAGING", "NonFinite", "WholeCheckpoints", "find_last_good", "seal", "writing"]

SEAL = "whole.json"
STAGING = ".saving"
_PREFIX = "checkpoint-"
_EDGE = 1 << 20
"""Bytes at each end of a file that its digest covers: enough to tell a torn file, and quick on tens of gigabytes."""


class NonFinite(StageError):
    """A loss or gradient that is no longer a finite number; the batch has been saved."""


def seal(folder: Path) -> None:
    """Flush every file of a folder to the disk and list them in `SEAL`, which is written last."""
    listed = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL):
        _flush(file)
        listed[file.relative_to(folder).as_posix()] = [file.stat().st_size, _digest(file)]
    (folder / SEAL).write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    _flush(folder / SEAL)
    _flush(folder)


def fault_of(folder: Path) -> str | None:
    """What is wrong with a sealed checkpoint; None if it is whole."""
    try:
        listed = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        for name, (size, digest) in listed.items():
            file = folder / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != size:
                return f"{name} has {file.stat().st_size} of {size} bytes"
            if _digest(file) != digest:
                return f"{name} is damaged"
    except FileNotFoundError:
        return f"there is no {SEAL} in it"
    except (OSError, ValueError, AttributeError, TypeError) as error:
        return f"it cannot be read ({one_line(str(error))})"
    return None


def checkpoints_in(out: Path) -> list[Path]:
    """The folders `checkpoint-N` of a run, the latest first."""
    found = [path for path in out.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(_PREFIX)), reverse=True)


def find_last_good(out: Path) -> tuple[Path | None, list[str]]:
    """The latest whole checkpoint of a run (None: there is none), and a line on each torn one after it."""
    reports: list[str] = []
    for folder in checkpoints_in(out):
        fault = fault_of(folder)
        if fault is None:
            return folder, reports
        reports.append(f"torn checkpoint passed over ({fault}): {folder}: it will be replaced")
    return None, reports


@contextmanager
def writing(what: str, out: Path) -> Iterator[None]:
    """Turn what libraries raise when a disk is full, or a file cannot be written, into one line."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        text = one_line(" ".join(str(getattr(error, "strerror", None) or error).split()))[:120]
        kind = isinstance(error, (OSError, SafetensorError)) or "write" in text.lower()
        if isinstance(error, StageError) or not kind:
            raise
        free = shutil.disk_usage(out).free / 1e9
        last, _ = find_last_good(out)
        kept = f"continue with --resume from {last.name}" if last else "no checkpoint is there yet"
        raise StageError(
            f"{what} cannot be written ({text}; {free:.1f} GB free): {out}: make room; {kept}"
        ) from error


class WholeCheckpoints(Trainer):
    """To stand before a trainer's class among the bases: `class SftTrainer(WholeCheckpoints, SFTTrainer)`."""

    keep_checkpoints: int = 2
    complete: Callable[[Path], None] | None = None
    """Adds to a checkpoint's folder what belongs to it before it is sealed."""
    _saving: Path | None = None
    _seen: tuple[Any, ...] = ()  # the micro-batches of this step so far

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._saving) if self._saving is not None else super()._get_output_dir(trial)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """univg writes the card, when the run is done."""

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        out = Path(str(self.args.output_dir))
        final = out / f"{_PREFIX}{self.state.global_step}"
        self._saving = out / STAGING
        try:
            with writing(f"checkpoint {self.state.global_step}", out):
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    staged = self._saving / final.name
                    if self.complete is not None:
                        self.complete(staged)
                    seal(staged)
                    if final.exists():  # torn, or of a run that was killed before it could go on from there
                        shutil.rmtree(final)
                    os.replace(staged, final)
                    _flush(out)
                    for old in checkpoints_in(out)[self.keep_checkpoints :]:
                        shutil.rmtree(old)
        finally:
            if self.args.should_save:
                shutil.rmtree(self._saving, ignore_errors=True)
            self._saving = None
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Whole models are read as any checkpoint is. transformers would load the file's names as they stand: of a
        Qwen2-VL, which is saved under the names that it had in older versions, not one weight, with no more than
        a warning."""
        held = self.model if model is None else model
        if self.is_fsdp_enabled or self.is_deepspeed_enabled or not isinstance(held, PreTrainedModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model=model)
            return
        saved = type(held).from_pretrained(resume_from_checkpoint, dtype=held.dtype)
        held.load_state_dict(saved.state_dict())

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        self._seen = (*self._seen, inputs)
        loss = super().training_step(model, inputs, *args, **kwargs)
        if not math.isfinite(float(loss)):
            self._stop("the loss", float(loss))
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The last word before the optimizer moves the weights."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[no-untyped-call]
        if norm is not None and not math.isfinite(float(norm)):
            self._stop("the gradient's norm", float(norm))
        self._seen = ()
        return norm

    def _stop(self, what: str, value: float) -> None:
        """Save the step's batches so far and end the run; the weights are still those of the step before."""
        out = Path(str(self.args.output_dir))
        step, rank = self.state.global_step + 1, self.args.process_index
        path = out / "non-finite" / f"step-{step}-process-{rank}.pt"
        rows = [getattr(batch, "samples", None) for batch in self._seen]
        with writing("the batch", out):
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"step": step, "batches": [_plain(b) for b in self._seen], "samples": rows}, path)
        raise NonFinite(
            f"step {step}: {what} is {value}: {path} holds the batch: look at it, then lower learning_rate "
            "and start anew, or --resume from the last checkpoint"
        )


def _plain(batch: Any) -> Any:
    return dict(batch) if isinstance(batch, dict) else batch


def _digest(file: Path) -> str:
    sha = hashlib.sha256()
    with file.open("rb") as handle:
        sha.update(handle.read(_EDGE))
        size = file.stat().st_size
        if size > 2 * _EDGE:
            handle.seek(-_EDGE, os.SEEK_END)
        sha.update(handle.read(_EDGE))
    return sha.hexdigest()[:32]


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
