"""Checkpoints that are whole or not there, and runs that stop where a number is no longer finite.

A trainer writes a checkpoint into a folder with another name. It is sealed (a list of its files with their sizes and
digests, everything flushed to the disk) and only then renamed to `checkpoint-N`. A trainer's class delegates to this
module in two overrides, and stops at a non-finite number through a callback:

    class SftTrainer(SFTTrainer):
        checkpoints = Checkpoints()

        def _save_checkpoint(self, model, trial):
            with self.checkpoints.write(self.args, self.state.global_step):
                super()._save_checkpoint(model, trial)

        def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
            if not load_whole_model(model or self.model, resume_from_checkpoint):
                super()._load_from_checkpoint(resume_from_checkpoint, model=model)

    trainer.add_callback(StopAtNonFinite(out, batches))
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

from univg.config import Config
from univg.errors import UnivgError, one_line
from univg.files import digest_blocks, write_whole
from univg.models.checkpoint import WEIGHTS_FILE, WEIGHTS_INDEX_FILE
from univg.terminal import is_first_process

__all__ = [
    "SEAL",
    "STAGING",
    "Checkpoints",
    "StopAtNonFinite",
    "check_same_config",
    "find_checkpoints",
    "find_fault",
    "find_last_good",
    "load_whole_model",
    "say_kept",
    "seal",
    "writing",
]

SEAL = "whole.json"
STAGING = ".saving"
_PREFIX = "checkpoint-"
_EDGE = 1 << 20
"""Bytes at each end of a file that its digest covered in seals of older versions."""

_FSDP_COPY = "pytorch_model_fsdp.bin"
"""What accelerate saves of a whole model under FSDP beside transformers' own file: the same weights once more."""
_CUT_SHORT = ("inline_container.cc", "iostream error")
"""What torch.save raises, as a RuntimeError, where the disk takes no more."""


@dataclass
class Checkpoints:
    """Keep the `keep` latest checkpoints of a run; `complete` adds files to one before it is sealed."""

    keep: int = 2
    complete: Callable[[Path], None] | None = None

    @contextmanager
    def write(self, args: TrainingArguments, step: int) -> Iterator[Path]:
        """Make what the block saves to `args.output_dir` the run's whole `checkpoint-N`; older ones are removed.

        Gives the folder that the checkpoint is written to until it is whole; every process may add files of its own.
        While the block runs, `args.output_dir` is that folder's parent, so drafts that a trainer writes beside its
        checkpoints are dropped. Raises UnivgError where the disk is full; no checkpoint is then lost.
        """
        from accelerate import PartialState  # type: ignore[import-untyped]

        out, name = Path(str(args.output_dir)), f"{_PREFIX}{step}"
        staging, final = out / STAGING, out / name
        args.output_dir = str(staging)
        try:
            with writing(f"checkpoint {step}", out):
                yield staging / name
                PartialState().wait_for_everyone()
                if args.should_save:
                    if _holds_whole(staging / name):
                        (staging / name / _FSDP_COPY).unlink(missing_ok=True)
                    if self.complete is not None:
                        self.complete(staging / name)
                    seal(staging / name)
                    if final.exists():  # torn, or of a run that was killed before it could go on from there
                        shutil.rmtree(final)
                    os.replace(staging / name, final)
                    _flush(out)
                    for old in find_checkpoints(out)[self.keep :]:
                        shutil.rmtree(old)
        finally:
            args.output_dir = str(out)
            if args.should_save:
                shutil.rmtree(staging, ignore_errors=True)
        PartialState().wait_for_everyone()


def load_whole_model(model: Any, folder: str | Path) -> bool:
    """Read a checkpoint's weights into a model as any checkpoint is read; False for an adapter, and for a sharded
    model whose parts are kept apart.

    transformers' trainer loads the file's names as they stand: of a Qwen2-VL, which is saved under the names that it
    had in older versions, not one weight, with no more than a warning. Of a model sharded by FSDP2 the first process
    reads the weights and sends each process its part; all must come here.
    """
    if not isinstance(model, PreTrainedModel):
        return False
    kinds = {type(weight).__name__ for weight in model.parameters()}
    if "DTensor" in kinds and _holds_whole(Path(folder)) and not (Path(folder) / _FSDP_COPY).exists():
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_model_state_dict(
            model, _read_weights(model, folder) if is_first_process() else {}, options=options
        )
        return True
    if "DTensor" in kinds or any(hasattr(weight, "ds_id") for weight in model.parameters()):
        return False
    model.load_state_dict(_read_weights(model, folder))
    return True


def _read_weights(model: PreTrainedModel, folder: str | Path) -> dict[str, Any]:
    plain: Any = next(each for each in type(model).__mro__ if not each.__name__.startswith("FSDP"))
    weights: dict[str, Any] = plain.from_pretrained(folder, dtype=model.dtype).state_dict()
    return weights


def _holds_whole(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (WEIGHTS_FILE, WEIGHTS_INDEX_FILE))


class StopAtNonFinite(TrainerCallback):
    """End a run before a gradient that is not finite moves the weights, and save the step's batches to look at.

    `batches` gives the micro-batches of the current step; where they have `samples`, the ids are saved with them.
    """

    def __init__(self, out: Path, batches: Callable[[], Sequence[Any]]) -> None:
        self.out, self.batches = out, batches

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        if not gradients:  # DeepSpeed keeps them to itself: the log tells
            return
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if not math.isfinite(norm):
            self._stop("the gradient's norm", norm, state.global_step + 1, args.process_index)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Stop at what gradients may not show: a loss of infinity, or a norm that overflowed and was clipped to 0."""
        for name, what in (("loss", "the loss"), ("grad_norm", "the gradient's norm")):
            value = float((logs or {}).get(name, 0.0))
            if not math.isfinite(value):
                self._stop(what, value, state.global_step, args.process_index)

    def _stop(self, what: str, value: float, step: int, rank: int) -> None:
        path = self.out / "non-finite" / f"step-{step}-process-{rank}.pt"
        batches = self.batches()
        content = {
            "step": step,
            "batches": [dict(batch) if isinstance(batch, dict) else batch for batch in batches],
            "samples": [getattr(batch, "samples", None) for batch in batches],
        }
        with writing("the batch", self.out):
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(content, path)
        raise UnivgError(
            f"step {step}: {what} is {value}",
            f"{path} holds the batch",
            "look at it, then lower learning_rate and start anew, or --resume from the last checkpoint",
        )


def seal(folder: Path) -> None:
    """Flush every file of a folder to the disk and list them in `SEAL`, which is written last."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    for file in files:
        _flush(file)
    listed = {
        file.relative_to(folder).as_posix(): [file.stat().st_size, digest]
        for file, digest in zip(files, digest_blocks(files), strict=True)
    }
    write_whole(folder / SEAL, json.dumps(listed, indent=1) + "\n")
    _flush(folder)


def find_fault(folder: Path, contents: bool = True) -> str | None:
    """Return what is wrong with a sealed checkpoint; None if it is whole. Without `contents` only sizes are
    compared, which takes no time."""
    try:
        listed = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        for name, (size, _) in listed.items():
            file = folder / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != size:
                return f"{name} has {file.stat().st_size} of {size} bytes"
        if not contents:
            return None
        entire = [name for name, (_, digest) in listed.items() if len(digest) == 64]
        found = dict(zip(entire, digest_blocks([folder / name for name in entire]), strict=True))
        for name, (_, digest) in listed.items():
            if (found.get(name) or _digest_ends(folder / name)) != digest:
                return f"{name} is damaged"
    except FileNotFoundError:
        return f"there is no {SEAL} in it"
    except (OSError, ValueError, AttributeError, TypeError) as error:
        return f"it cannot be read ({one_line(str(error))})"
    return None


def find_checkpoints(out: Path) -> list[Path]:
    """Return the folders `checkpoint-N` of a run, the latest first."""
    found = [path for path in out.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(_PREFIX)), reverse=True)


def find_last_good(out: Path, contents: bool = True) -> tuple[Path | None, list[str]]:
    """Return the latest whole checkpoint of a run (None: there is none), and a line on each torn one after it.

    `contents` as for :func:`find_fault`.
    """
    reports: list[str] = []
    for folder in find_checkpoints(out):
        fault = find_fault(folder, contents)
        if fault is None:
            return folder, reports
        reports.append(f"torn checkpoint passed over ({fault}): {folder}: it will be replaced")
    return None, reports


def say_kept(out: Path) -> str:
    """Say where a run that stops now can go on."""
    last, _ = find_last_good(out, contents=False)
    return f"continue with --resume from {last.name}" if last else "no checkpoint is there yet (save_every)"


def check_same_config(
    before: Mapping[str, Any], config: Config, place: Path, free: Collection[str] = ()
) -> None:
    """Raise UnivgError where a run is to go on under another config than the one it began with, dumped in `before`.

    Keys in `free` may differ.
    """
    changed = [
        key
        for key, value in config.model_dump(mode="json").items()
        if before.get(key) != value and key not in free
    ]
    if changed:
        raise UnivgError(
            f"the run was made by another config (differs in {', '.join(changed)})",
            place,
            "give the same key=value overrides again, or choose another --out",
        )


@contextmanager
def writing(what: str, out: Path) -> Iterator[None]:
    """Raise what libraries say of a full disk, or of a file that cannot be written, as one UnivgError."""
    try:
        yield
    except UnivgError:
        raise
    except Exception as error:  # the tokenizers' library raises no other class
        text = one_line(" ".join(str(getattr(error, "strerror", None) or error).split()))[:120]
        if not isinstance(error, (OSError, SafetensorError)):
            if any(sign in text for sign in _CUT_SHORT):
                text = "the file was cut short"
            elif "gloo" in text or ("write" not in text.lower() and "No space left" not in text):
                raise  # gloo: another process has gone
        free = shutil.disk_usage(out).free / 1e9
        raise UnivgError(
            f"{what} cannot be written ({text}; {free:.1f} GB free)", out, f"make room; {say_kept(out)}"
        ) from error


def _digest_ends(file: Path) -> str:
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
