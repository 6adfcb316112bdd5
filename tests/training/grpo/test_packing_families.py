"""Packed groups of each family, with its published processor and pictures of odd sizes, against a row a rollout.

In float32. `test_packing.py` has many shapes of one family; here is what the others have of their own: windows of the
vision tower that odd sizes leave ragged, sections of rotary positions, features added to the first layers.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from test_packing import Case, _gradient, _loss, _packed, _prepared, _row_by_row
from torch import Tensor

import families
from univg.grounding.prompts import render_chat
from univg.models.generation.decoding import decode, prefill
from univg.models.generation.shared_attention import why_not
from univg.models.generation.shared_cache import shared
from univg.models.loading import Loaded, load
from univg.models.pixels import PixelBudget
from univg.training.grpo.packing import completion_logps, pack
from univg.training.grpo.patches import Patches

LOGP, GRADIENT = 1e-6, 2e-6
"""Of log-probabilities and entropies relative to the largest, of gradients relative to their norm."""
SIDES = ((150, 90), (61, 210), (33, 33), (199, 57), (120, 121))

CASES = {
    "frozen tower": Case((2, 1), (3, 2), frozen=True),
    "trained tower": Case((3, 2), (2, 3)),
    "LoRA": Case((1, 2), (4, 2), lora=True, frozen=True, seed=1),
    "checkpointing, trained tower": Case((2, 0), (2, 2), checkpointing=True, seed=2),
    "LoRA, checkpointing": Case((2, 3), (2, 2), lora=True, checkpointing=True, frozen=True, seed=3),
}


@pytest.fixture(scope="module", params=families.FAMILIES)
def start(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: str = request.param
    return families.save_family(tmp_path_factory.mktemp("family") / folder, folder, scale=3.0)


def _load(start: Path) -> Loaded:
    loaded = load(start, dtype="float32", device="cpu", pixel_budget=PixelBudget(56 * 56, 150 * 150))
    loaded.model.config.use_cache = False
    return loaded


def _make(loaded: Loaded, case: Case) -> tuple[dict[str, Tensor], list[int], Tensor, Tensor]:
    """Prompts as the family renders and tokenizes them, and completions of random lengths, one of them empty."""
    chance = random.Random(case.seed)
    images, texts = [], []
    for p, count in enumerate(case.images):
        sides = [SIDES[(p + k) % len(SIDES)] for k in range(count)]
        images.append(
            [Image.frombytes("RGB", side, chance.randbytes(3 * side[0] * side[1])) for side in sides]
        )
        chat = render_chat(count, "Where is the dog?"[: 9 + 4 * p])
        texts.append(loaded.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
    loaded.processor.tokenizer.padding_side = "left"
    prompts = dict(loaded.processor(images=images, text=texts, padding=True, return_tensors="pt"))
    sources = [p for p, count in enumerate(case.rollouts) for _ in range(count)]
    lengths = [chance.randint(1, case.longest) for _ in sources]
    lengths[:3] = [1, case.longest, 0]
    ids = torch.tensor([[chance.randrange(1000, 90000) for _ in range(case.longest)] for _ in sources])
    mask = (torch.arange(case.longest) < torch.tensor(lengths)[:, None]).long()
    return prompts, sources, ids, mask


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_packed_groups_equal_a_row_for_each_rollout(name: str, start: Path) -> None:
    case, loaded = CASES[name], _load(start)
    prompts, sources, ids, mask = _make(loaded, case)
    stock, ours = _prepared(loaded.model, case)
    logps, entropies = _row_by_row(stock, prompts, case.images, sources, ids, mask)
    packed, packed_entropies = _packed(ours, prompts, sources, ids, mask)
    for one, other in ((logps, packed), (entropies, packed_entropies)):
        assert float((one - other).detach().abs().max() / one.detach().abs().max()) < LOGP
    for result in (logps, packed):
        _loss(result, mask).backward()
    one, other = _gradient(stock), _gradient(ours)
    assert one.shape == other.shape and one.norm() > 1e-4
    assert float((one - other).norm() / one.norm()) < GRADIENT
    towers = [w.grad is not None for n, w in ours.named_parameters() if ".visual." in f".{n}"]
    assert not any(towers) if case.frozen or case.lora else any(towers)
    _check_features(ours, case, prompts, sources, ids, mask, packed)


def _check_features(
    ours: Any, case: Case, prompts: dict[str, Tensor], sources: Any, ids: Any, mask: Any, packed: Any
) -> None:
    """What a frozen tower made once, an image at a time, gives the same."""
    if not case.frozen:
        return
    patches = Patches()
    patches.restore({"pixels": prompts["pixel_values"], "features": {}})
    places = torch.arange(len(prompts["pixel_values"]))[:, None]
    held = patches.with_features(ours, {"pixel_values": places, "image_grid_thw": prompts["image_grid_thw"]})
    again, _ = completion_logps(ours, pack(ours, prompts, sources, ids, mask, held))
    assert float((again - packed).detach().abs().max() / packed.detach().abs().max()) < LOGP


@pytest.mark.slow
def test_responses_are_the_same_with_one_copy_of_the_prompt(start: Path) -> None:
    loaded, case = _load(start), Case((2, 1), (3, 2))
    prompts, sources, _, _ = _make(loaded, case)
    model = loaded.model.eval()
    apart = prefill(model, prompts)
    apart.keep(sources)

    def choose(logits_RV: Tensor, rows: Any) -> Tensor:
        chosen = logits_RV[:, 1000:90000].clone()
        chosen[torch.arange(len(rows)), torch.tensor(rows) + 7] += 3  # rows of a group part ways
        return chosen.argmax(dim=-1) + 1000

    plain = decode(model, apart, choose, [], 8)
    assert decode(model, shared(model, prefill(model, prompts), sources), choose, [], 8) == plain
    assert len({tuple(row) for row in plain}) > 2


@pytest.mark.slow
def test_sliding_windows_are_refused(tmp_path: Path) -> None:
    """Published checkpoints switch them off; one that has them says why its prompts are not shared."""
    text = {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}
    for name in ("qwen2_vl", "qwen2_5_vl"):
        loaded = _load(families.save_family(tmp_path / name, name, text=text))
        assert "sliding-window" in str(why_not(loaded.model)), name
