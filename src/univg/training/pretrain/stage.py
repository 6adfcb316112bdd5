"""Base training of the embedded model: dense supervision on the procedural world, then its task mixture.

It plays the part that web-scale pretraining plays for Qwen2-VL-7B; the two stages of the paper start from its
result. One process, CPU or one GPU, resumable: the state is written whole or not at all, a batch depends on its
step alone, and a resumed run continues as if it had not stopped.
"""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2VLForConditionalGeneration

from univg.config import save_config
from univg.errors import UnivgError
from univg.files import replacing
from univg.models.loading import MODEL_FAMILIES, Loaded, load
from univg.models.processor import GroundingProcessor
from univg.models.tiny import build_tiny, save_tiny
from univg.terminal import notes, progress
from univg.training.config import Phase, PretrainConfig
from univg.training.pretrain.batches import (
    MicroBatch,
    WorldSteps,
    draw_samples,
    phase_at,
    render_dialogue,
)
from univg.training.pretrain.card import score_held_out, write_pretrain_card
from univg.training.pretrain.dense_head import BoxHead, DenseHead
from univg.training.run.batches import IGNORED, PixelTable, load_steps
from univg.training.run.checkpoints import check_same_config
from univg.training.run.cpu_layers import ATTENTION, embed_by_product
from univg.training.run.log import LOG, Pace, append_rows, drop_rows_after
from univg.training.run.muon import divide_weights
from univg.training.run.precision import computes_in_bf16, describe_precision
from univg.training.run.quiet import silence_libraries
from univg.training.run.workers import naming_dead_workers

__all__ = ["pretrain", "rate_at"]

STATE = "state.pt"
MEAN_STEPS = 50
"""Steps between two lines with the means of the log's numbers."""


@dataclass
class Run:
    """Everything that changes while training."""

    config: PretrainConfig
    model: Qwen2VLForConditionalGeneration
    processor: GroundingProcessor
    pixels: PixelTable
    head: nn.ModuleDict  # auxiliary heads, "dense" and "box"; dropped at the end
    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)
    bf16: bool = False

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.config.phases)


def pretrain(config: PretrainConfig, out: Path, resume: bool = False, console: Console | None = None) -> Path:
    """Train as `config` says and write the checkpoint to `out`; return `out`.

    `out/state.pt` holds the run while it lasts. Raises UnivgError when `out` holds another run's state and `resume`
    is not given, when the state was made by another config, or when the loss is no longer finite.
    """
    console = console or notes()
    out.mkdir(parents=True, exist_ok=True)
    state = out / STATE
    if state.exists() and not resume:
        raise UnivgError("a run is here already", state, "continue it with --resume, or choose another --out")
    saved = _read_state(config, state) if state.exists() else None
    training = _prepare(config)
    if saved is not None:
        _restore(training, saved)
        drop_rows_after(out / LOG, training.step)
        console.print(f"resuming at step {training.step} of {training.steps}")
    elif resume:
        console.print(f"no saved state in {out}: starting from step 0")
    save_config(config, out / "pretrain.yaml")
    parameters = sum(p.numel() for p in training.model.parameters())
    console.print(
        f"{parameters / 1e6:.2f} M parameters, {training.steps} steps of {config.batch} samples, "
        f"{training.device.type}; {describe_precision(config.bf16)}"
    )
    try:
        with naming_dead_workers():
            _train(training, out, console)
    except KeyboardInterrupt:
        console.print(f"stopped at step {training.step}: continue with --resume")
        raise
    _write_model(training, out)
    if config.card_samples:
        console.print(f"measuring {config.card_samples} held-out samples a family for the model card")
        loaded = load(out)
        scores = score_held_out(
            loaded, config.prompt_style, config.card_samples, config.image_px, version=config.world_version
        )
        write_pretrain_card(out, config, loaded, scores)
    return out


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
    embed_by_product(model)
    model.set_attn_implementation(ATTENTION)
    model.to(device)
    head.to(device)
    optimizers = _make_optimizers(config, model, head)
    pixels, bf16 = PixelTable(processor), computes_in_bf16(config.bf16)
    return Run(config, model, processor, pixels, head, optimizers, bf16=bf16)


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
    muon = torch.optim.Muon(
        matrices, lr=config.matrix_lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    adam = torch.optim.AdamW(
        [*rest, *head.parameters()], lr=config.lr, betas=(0.9, 0.98), weight_decay=config.weight_decay
    )
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return [muon, adam]


def rate_at(config: PretrainConfig, step: int, steps: int) -> float:
    """Return the learning rates' factor: linear warm-up, the phase's own, linear to zero where phase or run ends."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    phase, left_of_phase = phase_at(config, step), steps - step
    decay, length = config.decay, steps
    if phase.decay is not None:
        ends = accumulate(each.steps for each in config.phases)
        left_of_phase = next(end for end in ends if end > step) - step
        decay, length = phase.decay, phase.steps
    return min(warm, 1.0, left_of_phase / max(1.0, decay * length)) * phase.rate


def _train(training: Run, out: Path, console: Console) -> None:
    config, steps = training.config, training.steps
    batches = load_steps(WorldSteps(config, training.processor), training.step, steps, config.workers)
    pace = Pace(steps)
    with progress(console, times=False, note=True) as bar:
        task = bar.add_task("pretrain", total=steps, completed=training.step, note="")
        for batch in batches:
            started = time.perf_counter()
            terms = _update(training, batch)
            training.step += 1
            terms |= {"step": training.step, "seconds": time.perf_counter() - started}
            terms["phase"] = phase_at(config, training.step - 1).name
            _log(training, out, terms)
            pace.add(terms["seconds"])
            numbers = f"{terms['phase']} · loss {terms['loss']:.3f} · box {terms['box_token']:.3f}"
            note = f"{numbers} · {pace.describe(training.step)}"
            bar.update(task, completed=training.step, note=note)
            if training.step % MEAN_STEPS == 0:
                console.print(_describe_means(training.log[-MEAN_STEPS:]))
            if not console.is_terminal and pace.is_due(training.step):
                console.print(f"step {training.step}/{steps} · {note}")
            if training.step == steps:
                break
            if training.step % config.save_every == 0:
                _save_state(training, out / STATE)
            if config.eval_every and training.step % config.eval_every == 0:
                scores = _score_on_the_way(training)
                _log(training, out, {"step": training.step, **scores})
                console.print(f"step {training.step} held-out Acc@0.5 {scores}")
    _save_state(training, out / STATE)


def _log(training: Run, out: Path, row: dict[str, Any]) -> None:
    training.log.append(row)
    append_rows(out / LOG, [row])


def _describe_means(rows: Sequence[dict[str, Any]]) -> str:
    """Write the means of the rows' numbers, and the last row's other values, on one line."""
    rows = [row for row in rows if "loss" in row]
    means = {
        key: f"{sum(row[key] for row in rows) / len(rows):.3f}" if isinstance(value, float) else value
        for key, value in rows[-1].items()
    }
    return " ".join(f"{key}={value}" for key, value in means.items())


def _update(training: Run, batch: list[MicroBatch]) -> dict[str, Any]:
    """Take one optimizer step over the micro-batches; the loss is a mean over the batch's weighted tokens."""
    config, model = training.config, training.model
    factor = rate_at(config, training.step, training.steps)
    for optimizer in training.optimizers:
        optimizer.zero_grad(set_to_none=True)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
    total_weight = sum(float(part.weights_BT[:, 1:].sum()) for part in batch)
    total_tokens = sum(len(part.dense.known_N) for part in batch)
    sums: dict[str, float] = {"loss": 0.0, "box_token": 0.0}
    for part in (each.to(training.device) for each in batch):
        loss, box_token, dense, terms = _compute_losses(training, part)
        share = len(part.dense.known_N) / total_tokens
        (loss / total_weight + config.dense_weight * share * dense).backward()
        sums["loss"] += float(loss.detach()) / total_weight
        sums["box_token"] += box_token / len(batch)
        for name, term in terms.items():
            sums[f"dense_{name}"] = sums.get(f"dense_{name}", 0.0) + term * share
    norm = float(nn.utils.clip_grad_norm_([*model.parameters(), *training.head.parameters()], 1.0))
    if not math.isfinite(sums["loss"]) or not math.isfinite(norm):
        raise UnivgError(
            f"step {training.step}: loss {sums['loss']}, gradient norm {norm}: no longer finite",
            remedy="lower lr and matrix_lr and resume from the last state",
        )
    for optimizer in training.optimizers:
        optimizer.step()
    return {**sums, "grad_norm": norm, "rate": factor}


def _compute_losses(training: Run, part: MicroBatch) -> tuple[Tensor, float, Tensor, dict[str, float]]:
    """Return the summed weighted token loss, the mean loss of box digits (to watch), the heads' loss and its terms."""
    config, model = training.config, training.model
    with torch.autocast(training.device.type, dtype=torch.bfloat16, enabled=training.bf16):
        outputs = model.model(
            **training.pixels.spread(part.inputs), output_hidden_states=True, use_cache=False
        )
        answered = part.labels_BT[:, 1:] != IGNORED
        logits = model.lm_head(outputs.last_hidden_state[:, :-1][answered]).float()
    token_loss = functional.cross_entropy(logits, part.labels_BT[:, 1:][answered], reduction="none")
    weights = part.weights_BT[:, 1:][answered]
    in_box = weights != 1.0
    image_tokens = part.inputs["mm_token_type_ids"] == 1
    heads, hidden = training.head, outputs.hidden_states
    dense, terms = heads["dense"](hidden[config.dense_layer][image_tokens], part.dense)
    rows, columns = part.box_places_N2.unbind(1)
    pointed = heads["box"](hidden[config.box_layer][rows, columns], part.box_N4)
    terms["pointed"] = float(pointed.detach())
    box_token = float(token_loss.detach()[in_box].mean()) if in_box.any() else 0.0
    return (token_loss * weights).sum(), box_token, dense + config.pointed_weight * pointed, terms


def _save_state(training: Run, path: Path) -> None:
    state = {
        "config": training.config.model_dump(mode="json"),
        "step": training.step,
        "model": training.model.state_dict(),
        "head": training.head.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in training.optimizers],
    }
    with replacing(path) as partial:
        torch.save(state, partial)


def _read_state(config: PretrainConfig, path: Path) -> dict[str, Any]:
    """Read a saved state; raise UnivgError for one that is torn or of another config."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise UnivgError(
            f"the state cannot be read ({type(error).__name__})", path, "delete it and start again"
        ) from None
    check_same_config(state["config"], config, path)
    return state


def _restore(training: Run, state: dict[str, Any]) -> None:
    training.model.load_state_dict(state["model"])
    training.head.load_state_dict(state["head"])
    for optimizer, saved in zip(training.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    training.step = state["step"]


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
    # Decoding pads on the left, which needs the mask that the training attention does without.
    model.set_attn_implementation("sdpa")
    try:
        scores = score_held_out(
            loaded, config.prompt_style, config.eval_samples, config.image_px, version=config.world_version
        )
    finally:
        model.set_attn_implementation(ATTENTION)
        model.train()
    shares = {name: round(sum(s.hit_50 for s, _ in found) / len(found), 3) for name, found in scores.items()}
    return shares | {"mean": round(sum(shares.values()) / len(shares), 3)}
