"""Make one plain model of a LoRA adapter and its base, checked to answer as the two did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from univg.errors import UnivgError
from univg.models import checkpoint
from univg.models.conventions import CONVENTIONS_FILE, read_conventions, write_conventions
from univg.models.generation.generate import Chat, generate
from univg.models.layout import publish_layout
from univg.models.loading import Loaded, load
from univg.report.cards import write_card
from univg.terminal import notes
from univg.training.run.checkpoints import writing
from univg.training.run.quiet import silence_libraries
from univg.world import make_sample

__all__ = ["merge"]

TOLERANCE = 1e-3
"""Of the largest logit, in float32: what adding B·A into a weight, instead of beside it, may change."""
ASKED_OF = ("referring", "diff", "common_object", "multi_view")
"""The world's families that both models answer a question of."""


def merge(adapter: str | Path, out: Path, base: str | Path | None = None, dtype: str = "bfloat16") -> str:
    """Merge `adapter` into its base and write the model to `out`; return what was compared, in one line.

    In float32 the merged model's next-token scores must equal those of base and adapter side by side; the saved
    weights are read back and must be those in memory. Raises UnivgError if not, if `out` holds a model, or for an
    adapter or base that cannot be used.
    """
    if dtype not in ("bfloat16", "float32"):
        raise UnivgError(f"dtype {dtype!r}", remedy="give bfloat16 or float32")
    folder = checkpoint.adapter_folder(adapter)
    if (out / checkpoint.CONFIG_FILE).exists() or checkpoint.is_adapter(out):
        raise UnivgError("a model is here already", out, "name another folder with --out")
    started_from = str(base) if base is not None else _name_source(checkpoint.base_of(folder))
    loaded = load(started_from, dtype=torch.float32)
    style, budget = loaded.prompt_style, loaded.pixel_budget
    if (folder / CONVENTIONS_FILE).exists():
        style, budget = read_conventions(folder)
        loaded.processor.set_pixel_budget(budget)
    elif loaded.style_note:
        told = f"{loaded.style_note}; {CONVENTIONS_FILE} of the merged model will say so: correct it if it was taught"
        notes().print(f"note: {told} otherwise")
    merged, apart = _merge_checked(loaded, folder, adapter)
    for weight in merged.parameters():  # no buffers: rotary frequencies stay float32, as loading leaves them
        weight.data = weight.data.to(getattr(torch, dtype))
    final = Loaded(merged.eval(), loaded.processor, loaded.family, style, str(out))
    answers = _answer(final)
    with writing("the merged model", out.parent), silence_libraries():
        merged.save_pretrained(out)
        loaded.processor.save_pretrained(out)
        write_conventions(out, style, budget)
        publish_layout(out)
        write_card(
            out,
            f"# {out.name}\n\n`{started_from}` with the LoRA adapter `{adapter}` merged into it by `univg merge`: a "
            f"plain model. In float32 the scores of the two differ by at most {apart:.1e} of the largest.",
            tags=(),
        )
    again = load(out, dtype=getattr(torch, dtype))
    _check_saved(final, again, out)
    if (same := sum(a == b for a, b in zip(answers, _answer(again), strict=True))) < len(ASKED_OF):
        cause = f"the weights read back are equal, but only {same} of {len(ASKED_OF)} answers are"
        raise UnivgError(cause, out, "do not use it, and report this")
    return (
        f"merged and unmerged scores differ by at most {apart:.1e} of the largest over {len(ASKED_OF)} questions; "
        f"read back, its weights and its answers to them are equal"
    )


def _name_source(source: checkpoint.Source) -> str:
    if source.repository is not None:
        return f"{source.repository}@{source.revision}"
    return str(source.folder)


def _merge_checked(loaded: Loaded, folder: Path, adapter: str | Path) -> tuple[Any, float]:
    """Return the merged model, and how far its scores are from the unmerged ones, as a share of the largest."""
    draw_side_by_side = _put_side_by_side(loaded, folder)
    before = _score_tokens(loaded, draw_side_by_side)
    merged = draw_side_by_side.merge_and_unload()
    after = _score_tokens(loaded, merged)
    largest = max(float(x.abs().max()) for x in before)
    apart = max(float((x - y).abs().max()) for x, y in zip(before, after, strict=True)) / largest
    if not apart <= TOLERANCE:
        raise UnivgError(
            f"merged and unmerged differ by {apart:.1e} of the largest score",
            adapter,
            "the adapter may be of another base, or of a kind that cannot be merged: nothing was written",
        )
    return merged, apart


def _put_side_by_side(loaded: Loaded, folder: Path) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise UnivgError(
            "a LoRA adapter needs the peft package", remedy="pip install 'univg[train]'"
        ) from error
    try:
        with silence_libraries():
            return PeftModel.from_pretrained(loaded.model, str(folder)).eval()
    except (ValueError, RuntimeError, KeyError) as error:
        cause = f"the adapter does not fit its base ({checkpoint.brief(error)})"
        raise UnivgError(cause, folder, "give the base with --model") from error


def _ask(loaded: Loaded) -> list[Chat]:
    """Ask questions of the world, at a size that the model's budget leaves as it is."""
    size = min(448, int(loaded.pixel_budget.max_pixels**0.5))
    made = [make_sample(name, "test", 0, 0, size=size) for name in ASKED_OF]
    return [Chat.ask(each.images, each.sample.query, loaded.prompt_style) for each in made]


@torch.no_grad()
def _score_tokens(loaded: Loaded, model: Any) -> list[torch.Tensor]:
    """Return the next-token scores at every place of the prompts, each (tokens, vocabulary)."""
    found = []
    for chat in _ask(loaded):
        messages = [dict(message) for message in chat.messages]
        text = loaded.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        inputs = loaded.processor(images=[list(chat.images)], text=[text], return_tensors="pt").to(
            loaded.device
        )
        found.append(model(**inputs, use_cache=False).logits[0].float().cpu())
    return found


def _answer(loaded: Loaded) -> list[str]:
    return [texts[0].text for texts in generate(loaded, _ask(loaded), max_new_tokens=48)]


def _check_saved(final: Loaded, again: Loaded, out: Path) -> None:
    saved = again.model.state_dict()
    for name, value in final.model.state_dict().items():
        if name not in saved or not torch.equal(saved[name], value):
            cause = f"the saved weights are not those in memory ({name})"
            raise UnivgError(cause, out, "check the disk, merge again")
