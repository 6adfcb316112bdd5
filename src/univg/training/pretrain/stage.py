"""Base training of the embedded model: dense supervision on the procedural world, then its task mixture.

It plays the part that web-scale pretraining plays for Qwen2-VL-7B; the two stages of the paper start from its
result. One process, CPU or one GPU, resumable: the state is written whole or not at all, a batch depends on its
step alone, and a resumed run continues as if it had not stopped.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2VLForConditionalGeneration

from univg.config import PretrainConfig, save_config
from univg.errors import UnivgError
from univg.models.loading import MODEL_FAMILIES, Loaded, load
from univg.models.processor import GroundingProcessor
from univg.models.tiny import build_tiny, save_tiny
from univg.training.pretrain.batches import (
    IGNORED,
    MicroBatch,
    draw_samples,
    phase_at,
    prompt_and_response,
    step_loader,
)
from univg.training.pretrain.card import held_out_scores, write_card
from univg.training.pretrain.dense_head import BoxHead, DenseHead
from univg.training.run.cpu_layers import ATTENTION, PatchLinear

STATE = "state.pt"
QUIET_S = 20
"""Seconds without a word after which a run whose bar nobody sees says how far it is."""


class PretrainError(UnivgError):
    """A run that cannot start or go on; the text says what, where and what to do."""


@dataclass
class Run:
    """Everything that changes while training."""

    config: PretrainConfig
    model: Qwen2VLForConditionalGeneration
    processor: GroundingProcessor
    head: nn.ModuleDict  # auxiliary heads, "dense" and "box"; dropped at the end
    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.config.phases)


def run(config: PretrainConfig, out: Path, resume: bool = False, console: Console | None = None) -> Path:
    """Train as `config` says and write the checkpoint to `out`; returns `out`.

    `out/state.pt` holds the run while it lasts. Errors: `PretrainError` when `out` holds another run's state and
    `resume` is not given, when the state was made by another config, or when the loss is no longer finite.
    """
    console = console or Console(stderr=True)
    out.mkdir(parents=True, exist_ok=True)
    state = out / STATE
    if state.exists() and not resume:
        raise PretrainError(
            f"{state}: a run is here already: continue it with --resume, or choose another --out"
        )
    training = _prepare(config)
    if state.exists():
        _restore(training, state)
        _forget_after(out / "log.jsonl", training.step)
        console.print(f"resuming at step {training.step} of {training.steps}")
    elif resume:
        console.print(f"no saved state in {out}: starting from step 0")
    save_config(config, out / "pretrain.yaml")
    parameters = sum(p.numel() for p in training.model.parameters())
    console.print(f"{parameters / 1e6:.2f} M parameters, {training.steps} steps of {config.batch} samples")
    _train(training, out, console)
    finish(training, out)
    if config.card_samples:
        console.print(f"measuring {config.card_samples} held-out samples a family for the model card")
        loaded = load(out)
        scores = held_out_scores(loaded, config.prompt_style, config.card_samples, config.image_px)
        write_card(out, config, loaded, scores)
    return out


def _prepare(config: PretrainConfig) -> Run:
    torch.manual_seed(config.seed)
    if config.start is None:
        model, processor = build_tiny(config.seed, _corpus(config), text=config.text)
    else:
        model, processor = _start_from(config.start)
    layers = len(model.model.language_model.layers)
    for name, layer in (("dense_layer", config.dense_layer), ("box_layer", config.box_layer)):
        if layer > layers:
            raise PretrainError(f"{name}={layer}: the text model has {layers} layers: give at most {layers}")
    model.train()
    width = int(model.lm_head.in_features)
    head = nn.ModuleDict({"dense": DenseHead(width), "box": BoxHead(width)})
    patch_embed = model.model.visual.patch_embed
    patch_embed.proj = PatchLinear(patch_embed.proj)
    model.set_attn_implementation(ATTENTION)
    return Run(config, model, processor, head, _optimizers(config, model, head))


def _start_from(name: str) -> tuple[Any, GroundingProcessor]:
    loaded = load(name, dtype="float32")
    return loaded.model, loaded.processor


def _corpus(config: PretrainConfig) -> Iterable[str]:
    """Texts of the world from which the tokenizer learns its merges."""
    from univg.config import Phase

    phase = Phase(name="corpus", steps=1, mixture={"*/think": 1.0})
    drawing = config.model_copy(update={"phases": (phase,), "batch": 1500, "image_px": 32})
    for world_sample, _ in draw_samples(drawing, 0):
        for style in ("think", "direct", "simple", "describe"):
            chat, response = prompt_and_response(world_sample, style)
            yield chat[0]["content"][-1]["text"]
            yield response


def _optimizers(config: PretrainConfig, model: nn.Module, head: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the rest (embeddings, norms, biases, first and last maps)."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inner = parameter.ndim == 2 and ("layers." in name or "blocks." in name or "merger." in name)
        (matrices if inner else rest).append(parameter)
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
    """The learning rates' factor: linear warm-up, the phase's own, linear to zero where the phase or the run ends."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    phase, left_of_phase = phase_at(config, step), steps - step
    decay, length = config.decay, steps
    if phase.decay is not None:
        ends = accumulate(each.steps for each in config.phases)
        left_of_phase = next(end for end in ends if end > step) - step
        decay, length = phase.decay, phase.steps
    return min(warm, 1.0, left_of_phase / max(1.0, decay * length)) * phase.rate


def _train(training: Run, out: Path, console: Console) -> None:
    config = training.config
    batches = step_loader(config, training.processor, training.step, training.steps)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}"),
    )
    told = time.monotonic()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("pretrain", total=training.steps, completed=training.step, shown="")
        for batch in batches:
            started = time.perf_counter()
            terms = _update(training, batch)
            training.step += 1
            terms |= {"step": training.step, "seconds": time.perf_counter() - started}
            terms["phase"] = phase_at(config, training.step - 1).name
            training.log.append(terms)
            _append(out / "log.jsonl", terms)
            shown = f"{terms['phase']} loss {terms['loss']:.3f} box {terms['box_token']:.3f}"
            progress.update(bar, completed=training.step, shown=shown)
            if training.step % 50 == 0:
                mean = _mean(training.log[-50:])
                console.print(
                    " ".join(f"{k}={v:.3f}" if isinstance(v, float) else f"{k}={v}" for k, v in mean.items())
                )
                told = time.monotonic()
            elif not console.is_terminal and time.monotonic() - told > QUIET_S:
                console.print(f"step {training.step} of {training.steps}: {shown}")
                told = time.monotonic()
            if training.step % config.save_every == 0 and training.step < training.steps:
                _save_state(training, out / STATE)
            if (
                config.eval_every
                and training.step % config.eval_every == 0
                and training.step < training.steps
            ):
                scores = _progress_scores(training)
                training.log.append({"step": training.step, **scores})
                _append(out / "log.jsonl", training.log[-1])
                console.print(f"step {training.step} held-out Acc@0.5 {scores}")
    _save_state(training, out / STATE)


def _mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    rows = [row for row in rows if "loss" in row]
    return {
        key: sum(row[key] for row in rows) / len(rows) if isinstance(rows[-1][key], float) else rows[-1][key]
        for key in rows[-1]
    }


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a") as handle:
        handle.write(json.dumps(row) + "\n")


def _forget_after(path: Path, step: int) -> None:
    """Drop the rows of steps that a resumed run will take again, and a torn last one."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
        path.write_text("".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= step))


def _update(training: Run, batch: list[MicroBatch]) -> dict[str, Any]:
    """One optimizer step over the micro-batches; the loss is a mean over the whole batch's weighted tokens."""
    config, model = training.config, training.model
    factor = rate_at(config, training.step, training.steps)
    for optimizer in training.optimizers:
        optimizer.zero_grad(set_to_none=True)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
    total_weight = sum(float(part.weights_BT[:, 1:].sum()) for part in batch)
    total_tokens = sum(len(part.dense.known_N) for part in batch)
    sums: dict[str, float] = {"loss": 0.0, "box_token": 0.0}
    for part in batch:
        loss, box_token, dense, terms = _losses(training, part)
        share = len(part.dense.known_N) / total_tokens
        (loss / total_weight + config.dense_weight * share * dense).backward()
        sums["loss"] += float(loss.detach()) / total_weight
        sums["box_token"] += box_token / len(batch)
        for name, term in terms.items():
            sums[f"dense_{name}"] = sums.get(f"dense_{name}", 0.0) + term * share
    norm = float(nn.utils.clip_grad_norm_([*model.parameters(), *training.head.parameters()], 1.0))
    if not math.isfinite(sums["loss"]) or not math.isfinite(norm):
        raise PretrainError(
            f"step {training.step}: loss {sums['loss']}, gradient norm {norm}: no longer finite; "
            "lower lr and matrix_lr and resume from the last state"
        )
    for optimizer in training.optimizers:
        optimizer.step()
    return {**sums, "grad_norm": norm, "rate": factor}


def _losses(training: Run, part: MicroBatch) -> tuple[Tensor, float, Tensor, dict[str, float]]:
    """Summed weighted token loss, mean loss of box digits (to watch), the dense head's loss and its terms."""
    config, model = training.config, training.model
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.bf16):
        outputs = model.model(**part.inputs, output_hidden_states=True, use_cache=False)
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
    """All or nothing: a kill or a full disk leaves the state that was there."""
    partial = path.with_suffix(".partial")
    try:
        torch.save(
            {
                "config": training.config.model_dump(mode="json"),
                "step": training.step,
                "model": training.model.state_dict(),
                "head": training.head.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in training.optimizers],
            },
            partial,
        )
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _restore(training: Run, path: Path) -> None:
    try:
        state = torch.load(path, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise PretrainError(
            f"{path}: the state cannot be read ({type(error).__name__}): delete it and start again"
        ) from None
    if state["config"] != training.config.model_dump(mode="json"):
        changed = [
            k for k, v in training.config.model_dump(mode="json").items() if state["config"].get(k) != v
        ]
        raise PretrainError(
            f"{path}: made by another config (differs in {', '.join(changed)}): "
            "give the same key=value overrides again, or choose another --out"
        )
    training.model.load_state_dict(state["model"])
    training.head.load_state_dict(state["head"])
    for optimizer, saved in zip(training.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    training.step = state["step"]


def finish(training: Run, out: Path) -> None:
    """Write the checkpoint in the standard layout: bf16 weights, processor, pixel budget, prompt style."""
    model = training.model
    weights = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
    plain = Qwen2VLForConditionalGeneration(model.config)
    plain.generation_config = model.generation_config
    plain.load_state_dict({k: v.float() for k, v in weights.items()})
    plain.bfloat16()
    save_tiny(plain, training.processor, out, training.config.prompt_style)


def _progress_scores(training: Run) -> dict[str, float]:
    """Acc@0.5 a family on the way, a few held-out samples each, asked in the config's prompt style."""
    config, model = training.config, training.model
    loaded = Loaded(model, training.processor, MODEL_FAMILIES["qwen2_vl"], config.prompt_style, "in training")
    model.eval()
    # Decoding pads on the left, which needs the mask that the training attention does without.
    model.set_attn_implementation("sdpa")
    try:
        scores = held_out_scores(loaded, config.prompt_style, config.eval_samples, config.image_px)
    finally:
        model.set_attn_implementation(ATTENTION)
        model.train()
    shares = {name: round(sum(s.hit_50 for s, _ in found) / len(found), 3) for name, found in scores.items()}
    return shares | {"mean": round(sum(shares.values()) / len(shares), 3)}
