"""Base training of the embedded model: dense supervision on the procedural world, then its task mixture.

It plays the part that web-scale pretraining plays for Qwen2-VL-7B; the two stages of the paper start from its
result. It is resumable: the state is written whole or not at all, a batch depends on its step alone, and a resumed run
continues as if it had not stopped. A run with a time limit goes through its phases in that time, in as many steps as
the machine makes of it. It runs in one process, on a CPU or one GPU, or in several that torchrun starts, which divide
each batch; the first of them writes and speaks.
"""

from __future__ import annotations

import math
import pickle
import time
import zlib
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress, TaskID
from torch import Tensor, nn
from transformers import Qwen2VLForConditionalGeneration

from univg.config import save_config
from univg.errors import UnivgError
from univg.files import replacing
from univg.models.families import MODEL_FAMILIES
from univg.models.loading import Loaded, load
from univg.models.tiny import build_tiny, save_tiny
from univg.terminal import notes, progress
from univg.training.config import Phase, PretrainConfig
from univg.training.pretrain.batches import (
    Clock,
    MicroBatch,
    WorldSteps,
    draw_samples,
    phase_at,
    render_dialogue,
)
from univg.training.pretrain.card import score_held_out, write_pretrain_card
from univg.training.pretrain.dense_head import BoxHead, DenseHead
from univg.training.pretrain.learning import Run, rate_at, read_numbers, update
from univg.training.pretrain.packed import ByteEmbedding
from univg.training.pretrain.peers import Peers, joined
from univg.training.run.batches import PixelTable, load_steps
from univg.training.run.checkpoints import check_same_config
from univg.training.run.log import LOG, Pace, append_rows, drop_rows_after
from univg.training.run.muon import Muon, divide_weights
from univg.training.run.precision import computes_in_bf16, describe_precision
from univg.training.run.quiet import silence_libraries
from univg.training.run.workers import made_ahead, naming_dead_workers
from univg.world.telling import THOUGHTS_VERSION

__all__ = ["pretrain", "rate_at", "say_saved"]

STATE = "state.pt"
MEAN_STEPS = 50
"""Steps between two lines with the means of the log's numbers."""


def pretrain(config: PretrainConfig, out: Path, resume: bool = False, console: Console | None = None) -> Path:
    """Train as `config` says and write the checkpoint to `out`; return `out`.

    `out/state.pt` holds the run while it lasts. Raises UnivgError when `out` holds another run's state and `resume`
    is not given, when the state was made by another config, or when the loss is no longer finite.
    """
    console = console or notes()
    out.mkdir(parents=True, exist_ok=True)
    with joined(config.batch, out) as peers:
        training = _begin(config, out, resume, console, peers)
        try:
            with naming_dead_workers():
                _train(training, out, console)
        except KeyboardInterrupt:
            console.print(f"stopped at step {training.step}: {say_saved(out)}")
            raise
    if not peers.first:
        return out
    _write_model(training, out)
    if config.card_samples:
        console.print(
            f"the checkpoint is written; measuring {config.card_samples} held-out samples a family for its card "
            "(card_samples=0 leaves that out)"
        )
        loaded = load(out)
        scores = score_held_out(
            loaded, config.prompt_style, config.card_samples, config.image_px, version=config.world_version
        )
        write_pretrain_card(out, config, loaded, scores)
    return out


def say_saved(out: Path) -> str:
    """Say where a run that stops now can go on."""
    if (out / STATE).exists():
        return "continue with --resume, from the last step that save_every saved"
    return "no state is saved yet (save_every): start again"


def _begin(config: PretrainConfig, out: Path, resume: bool, console: Console, peers: Peers) -> Run:
    """Make the run, at the step of its saved state if there is one, and say what it is."""
    state = out / STATE
    if state.exists() and not resume:
        raise UnivgError("a run is here already", state, "continue it with --resume, or choose another --out")
    saved = _read_state(config, state) if state.exists() else None
    training = _prepare(config)
    training.peers = peers
    if saved is not None:
        _restore(training, saved)
        console.print(f"resuming at step {training.step} of {training.steps}")
    elif resume:
        console.print(f"no saved state in {out}: starting from step 0")
    if peers.count > 1 and peers.take_first(own := _sum_up(training)) != own:
        raise UnivgError(
            "the processes do not begin with the same config, step and weights",
            state,
            "give all of them one config, one start and one folder, on a shared disk",
        )
    if peers.first:
        drop_rows_after(out / LOG, training.step)  # of a run that was killed before it saved, all
        save_config(config, out / "pretrain.yaml")
    parameters = sum(p.numel() for p in training.model.parameters())
    limit = f", {config.max_minutes:g} minutes at most" if config.max_minutes else ""
    shared = f"{peers.count} processes, " if peers.count > 1 else ""
    console.print(
        f"{parameters / 1e6:.2f} M parameters, {training.steps} steps of {config.batch} samples{limit}, "
        f"{shared}{training.device.type}; {describe_precision(config.bf16)}"
    )
    return training


def _sum_up(training: Run) -> int:
    """Return a number that tells runs with another config, step or weights."""
    found = zlib.crc32(f"{training.step} {training.config.model_dump_json()}".encode())
    for weight in training.weights:
        found = zlib.crc32(weight.detach().cpu().contiguous().numpy().tobytes(), found)
    return found


def _prepare(config: PretrainConfig) -> Run:
    torch.manual_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if config.start is None:
        model, processor = build_tiny(config.seed, _list_texts(config), text=config.text)
    else:
        loaded: Any = load(config.start, dtype="float32", device="cpu")
        model, processor = loaded.model, loaded.processor
    layers = len(model.model.language_model.layers)
    for name, layer in (("dense_layer", config.dense_layer), ("box_layer", config.box_layer)):
        if layer > layers:
            raise UnivgError(
                f"{name}={layer}: the text model has {layers} layers", remedy=f"give at most {layers}"
            )
    model.train()
    width = int(model.lm_head.in_features)
    head = nn.ModuleDict({"dense": DenseHead(width), "box": BoxHead(width)})
    model.model.visual.patch_embed = ByteEmbedding(model.model.visual.patch_embed, PixelTable(processor))
    model.to(device)
    head.to(device)
    torch.backends.cuda.enable_cudnn_sdp(False)  # the other kernels take a mask of images of many sizes
    optimizers = _make_optimizers(config, model, head)
    limit_s = config.max_minutes * 60 if config.max_minutes else None
    clock = Clock(sum(phase.steps for phase in config.phases), limit_s, time.monotonic())
    return Run(config, model, processor, head, optimizers, clock, bf16=computes_in_bf16(config.bf16))


def _list_texts(config: PretrainConfig) -> Iterable[str]:
    """Yield texts of the world, from which the tokenizer learns its merges."""
    phase = Phase(name="corpus", steps=1, mixture={"*/think": 1.0})
    drawing = config.model_copy(update={"phases": (phase,), "batch": 1500, "image_px": 32})
    for world_sample, _ in draw_samples(drawing, 0):
        for style in ("think", "direct", "simple", "describe"):
            chat, response = render_dialogue(world_sample, style)
            yield chat[0]["content"][-1]["text"]
            yield response


def _make_optimizers(
    config: PretrainConfig, model: nn.Module, head: nn.Module
) -> list[torch.optim.Optimizer]:
    """Make Muon for the matrices inside the layers, AdamW for the rest (embeddings, norms, biases, outer maps)."""
    matrices, rest = divide_weights(model)
    muon = Muon(matrices, config.matrix_lr, config.weight_decay)
    adam = torch.optim.AdamW(
        [*rest, *head.parameters()],
        lr=config.lr,
        betas=(0.9, 0.98),
        weight_decay=config.weight_decay,
        fused=True,
    )
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return [muon, adam]


def _train(training: Run, out: Path, console: Console) -> None:
    config, steps, clock, peers = training.config, training.steps, training.clock, training.peers
    drawn = WorldSteps(config, training.processor, clock, peers)
    batches = load_steps(drawn, training.step, steps, config.workers)
    teller = Teller(training, out, console)
    with progress(console, times=False, note=True) as teller.bar, ExitStack() as stack:
        if config.workers:
            batches = stack.enter_context(closing(made_ahead(batches, partial(_pin, training.device))))
        for place, batch in batches:
            now = clock.place(training.step)
            if clock.limit_s is not None:  # by the clock of one: all end with the same step
                now = peers.take_first(now)
            if now >= steps:
                break
            terms = update(training, batch, now)
            training.step += 1
            teller.tell(training.step, phase_at(config, place).name, terms)
            if training.step == steps:
                break
            if training.step % config.save_every == 0:
                teller.finish()
                _save_state(training, out / STATE)
            # The others wait for the first one in the next step's sums.
            if peers.first and config.eval_every and training.step % config.eval_every == 0:
                teller.finish()
                scores = _score_on_the_way(training)
                append_rows(out / LOG, [{"step": training.step, **scores}])
                console.print(f"step {training.step} held-out Acc@0.5 {scores}")
        teller.finish()
    _save_state(training, out / STATE)


def _pin(device: torch.device, step: tuple[int, list[MicroBatch]]) -> tuple[int, list[MicroBatch]]:
    place, batch = step
    if device.type == "cuda":
        torch.cuda.set_device(device)  # which a thread does not inherit
    return place, [part.pin() for part in batch] if device.type == "cuda" else batch


class Teller:
    """Write what steps tell of themselves, each when the next one is under way: so the device never waits for it."""

    bar: Progress

    def __init__(self, training: Run, out: Path, console: Console) -> None:
        self.training, self.out, self.console = training, out, console
        self.pace, self.rows = Pace(training.steps), deque[dict[str, Any]](maxlen=MEAN_STEPS)
        self.task: TaskID | None = None
        self.unread: tuple[int, str, dict[str, Tensor], float] | None = None
        self.last = time.perf_counter()

    def tell(self, step: int, phase: str, terms: dict[str, Tensor]) -> None:
        """Take what a step tells, and write what the last one did."""
        self.finish()
        now, before = time.perf_counter(), self.last
        self.unread, self.last = (step, phase, terms, now - before), now

    def finish(self) -> None:
        """Write what is not written yet; raise UnivgError where the loss is no longer finite."""
        if self.unread is None:
            return
        (step, phase, terms, seconds), self.unread = self.unread, None
        numbers = read_numbers(terms)
        if not math.isfinite(numbers["loss"]) or not math.isfinite(numbers["grad_norm"]):
            raise UnivgError(
                f"step {step}: loss {numbers['loss']}, gradient norm {numbers['grad_norm']}: no longer finite",
                remedy="lower lr and matrix_lr and resume from the last state",
            )
        if not self.training.peers.first:
            return
        row = {**numbers, "step": step, "seconds": seconds, "phase": phase}
        self.rows.append(row)
        append_rows(self.out / LOG, [row])
        self._show(row)

    def _show(self, row: dict[str, Any]) -> None:
        step, steps = row["step"], self.training.steps
        self.pace.add(row["seconds"])
        note = f"{row['phase']} · loss {row['loss']:.3f} · box {row['box_token']:.3f} · {self._describe_rest(step)}"
        if self.task is None:
            self.task = self.bar.add_task("pretrain", total=steps, note="")
        self.bar.update(self.task, completed=step, note=note)
        if step % MEAN_STEPS == 0:
            self.console.print(_describe_means(self.rows))
        if not self.console.is_terminal and self.pace.is_due(step):
            self.console.print(f"step {step}/{steps} · {note}")

    def _describe_rest(self, step: int) -> str:
        left_s = self.training.clock.left_s()
        return self.pace.describe(step) if left_s is None else f"{left_s / 60:.1f} min left"


def _describe_means(rows: Sequence[dict[str, Any]]) -> str:
    """Write the means of the rows' numbers, and the last row's other values, on one line."""
    means = {
        key: f"{sum(row[key] for row in rows) / len(rows):.3f}" if isinstance(value, float) else value
        for key, value in rows[-1].items()
    }
    return " ".join(f"{key}={value}" for key, value in means.items())


def _save_state(training: Run, path: Path) -> None:
    if not training.peers.first:
        return
    state = {
        "config": training.config.model_dump(mode="json"),
        "thoughts_version": THOUGHTS_VERSION,
        "step": training.step,
        "seconds": time.monotonic() - training.clock.began,
        "model": training.model.state_dict(),
        "head": training.head.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in training.optimizers],
    }
    with replacing(path) as partial:
        torch.save(state, partial)


def _read_state(config: PretrainConfig, path: Path) -> dict[str, Any]:
    """Read a saved state; raise UnivgError for one that is torn, of another config or of other thoughts."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise UnivgError(
            f"the state cannot be read ({type(error).__name__})", path, "delete it and start again"
        ) from None
    check_same_config(state["config"], config, path)
    if (told := state.get("thoughts_version", THOUGHTS_VERSION)) != THOUGHTS_VERSION:
        raise UnivgError(
            f"the run learnt version {told} of the world's thoughts, and this univg tells version {THOUGHTS_VERSION}",
            path,
            "finish it with the univg that began it, or choose another --out",
        )
    return state


def _restore(training: Run, state: dict[str, Any]) -> None:
    training.model.load_state_dict(state["model"])
    training.head.load_state_dict(state["head"])
    for optimizer, saved in zip(training.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    training.step = state["step"]
    training.clock = replace(training.clock, began=time.monotonic() - state["seconds"])


def _write_model(training: Run, out: Path) -> None:
    """Write the checkpoint in the standard layout: bf16 weights, processor, pixel budget, prompt style."""
    model = training.model
    weights = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
    plain = Qwen2VLForConditionalGeneration(model.config)
    plain.generation_config = model.generation_config
    plain.load_state_dict({k: v.float() for k, v in weights.items()})
    plain.bfloat16()
    with silence_libraries():
        save_tiny(plain, training.processor, out, training.config.prompt_style)


def _score_on_the_way(training: Run) -> dict[str, float]:
    """Return Acc@0.5 of every family on a few held-out samples, asked in the config's prompt style."""
    config, model = training.config, training.model
    loaded = Loaded(model, training.processor, MODEL_FAMILIES["qwen2_vl"], config.prompt_style, "in training")
    model.eval()
    scores = score_held_out(
        loaded, config.prompt_style, config.eval_samples, config.image_px, version=config.world_version
    )
    model.train()
    shares = {name: round(sum(s.hit_50 for s, _ in found) / len(found), 3) for name, found in scores.items()}
    return shares | {"mean": round(sum(shares.values()) / len(shares), 3)}
