"""Log-probabilities, entropies, losses and gradients of packed groups against a row for every rollout, in float32."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpo_parts as parts
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from trl.trainer.utils import add_fused_lm_head

from univg.models.generation.decoding import decode, prefill
from univg.models.generation.shared_attention import share_prompts
from univg.models.generation.shared_cache import shared
from univg.models.tiny import build_tiny
from univg.training.grpo.packing import completion_logps, pack
from univg.training.grpo.patches import Patches
from univg.training.grpo.rollouts import take_rows

TEXT = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [4, 4, 4]},
}
TEMPERATURE = 0.9
LOGP, GRADIENT = 1e-5, 2e-5
"""Absolute on log-probabilities (of about −8) and entropies; on gradients relative to their norm."""


@dataclass(frozen=True)
class Case:
    """One random shape. `images` and `rollouts`: of each prompt."""

    images: tuple[int, ...]
    rollouts: tuple[int, ...]
    longest: int = 9
    lora: bool = False
    checkpointing: bool = False
    frozen: bool = False  # the vision tower
    seed: int = 0


CASES = {
    "one image, two rollouts": Case((1,), (2,)),
    "six images": Case((6,), (3,), frozen=True),
    "sixteen rollouts": Case((2,), (16,), longest=5),
    "several groups": Case((1, 3, 2), (2, 5, 3), seed=1),
    "several groups, LoRA, checkpointing": Case((2, 1), (4, 4), lora=True, checkpointing=True, seed=2),
    "checkpointing, trained vision": Case((4,), (4,), checkpointing=True, seed=3),
    "checkpointing, frozen vision": Case((3, 1), (2, 4), checkpointing=True, frozen=True, seed=4),
    "LoRA": Case((1, 2), (8, 2), lora=True, longest=14, seed=5),
    "no image in one prompt": Case((0, 2), (3, 3), seed=6),
    "no image at all": Case((0, 0), (2, 2), seed=7),
    "long rollouts": Case((1,), (4,), longest=70, seed=8),
}


def _make(case: Case) -> tuple[Any, dict[str, Tensor], list[int], Tensor, Tensor]:
    """A model, prompts, and completions of random lengths: of no, one, and most tokens among them."""
    model, processor = build_tiny(case.seed, text=TEXT)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(3)
    prompts = _prompts(processor, case)
    sources = [p for p, count in enumerate(case.rollouts) for _ in range(count)]
    chance = random.Random(case.seed)
    lengths = [chance.randint(1, case.longest) for _ in sources]
    lengths[:2] = [1, case.longest]
    if len(lengths) > 4:
        lengths[3] = 0  # a rollout that was cut off and does not count
    generator = torch.Generator().manual_seed(case.seed)
    ids_BC = torch.randint(5, 250, (len(sources), case.longest), generator=generator)
    mask_BC = (torch.arange(case.longest) < torch.tensor(lengths)[:, None]).long()
    return model, prompts, sources, ids_BC, mask_BC


def _prompts(processor: Any, case: Case) -> dict[str, Tensor]:
    rng = np.random.default_rng(case.seed)
    mark = f"<|vision_start|>{processor.image_token}<|vision_end|>"
    images, texts = [], []
    for p, count in enumerate(case.images):
        sides = rng.choice([60, 80, 100, 120], (count, 2))
        images.append([Image.fromarray(rng.integers(0, 255, (*side, 3), dtype=np.uint8)) for side in sides])
        texts.append(mark * count + "What stands where? "[: 6 + 7 * p])
    return dict(
        processor(images=images if sum(case.images) else None, text=texts, padding=True, return_tensors="pt")
    )


def _prepared(model: Any, case: Case) -> tuple[Any, Any]:
    """Two alike, to be read the two ways."""
    if case.frozen:
        model.model.visual.requires_grad_(False)
    add_fused_lm_head(model, temperature=TEMPERATURE, outputs=("log_probs", "entropy"))
    other = copy.deepcopy(model)
    other.forward = other.forward.__func__.__get__(other)  # TRL's head is bound to the first otherwise
    add_fused_lm_head_anew(other)
    pair = []
    for each in (model, other):
        if case.lora:
            from peft import LoraConfig, get_peft_model

            torch.manual_seed(0)
            targets = r".*language_model.*\.(q_proj|v_proj|down_proj)"
            each = get_peft_model(each, LoraConfig(r=4, init_lora_weights=False, target_modules=targets))
        if case.checkpointing:
            each.gradient_checkpointing_enable({"use_reentrant": False})
            if case.lora:
                each.enable_input_require_grads()
        pair.append(each.train())
    return pair[0], pair[1]


def add_fused_lm_head_anew(model: Any) -> None:
    del model.__dict__["forward"]
    add_fused_lm_head(model, temperature=TEMPERATURE, outputs=("log_probs", "entropy"))


def _row_by_row(
    model: Any,
    prompts: Mapping[str, Tensor],
    images: tuple[int, ...],
    sources: list[int],
    ids: Tensor,
    mask: Tensor,
) -> tuple[Tensor, Tensor]:
    """As TRL does it: prompt and images once for every rollout."""
    rows = take_rows(prompts, images, sources)
    tokens = torch.cat([rows["input_ids"], ids], dim=1)
    inputs = {"input_ids": tokens, "attention_mask": torch.cat([rows["attention_mask"], mask], dim=1)}
    if "pixel_values" in rows:
        inputs |= {name: rows[name] for name in ("pixel_values", "image_grid_thw")}
        inputs["mm_token_type_ids"] = torch.cat([rows["mm_token_type_ids"], torch.zeros_like(ids)], dim=1)
    labels = tokens.masked_fill(inputs["attention_mask"] == 0, -100)
    labels[:, : -ids.shape[1]] = -100
    output = model(**inputs, labels=labels, fused_lm_head=True)
    return output.log_probs[:, -ids.shape[1] :], output.entropy[:, -ids.shape[1] :]


def _packed(
    model: Any, prompts: Mapping[str, Tensor], sources: list[int], ids: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    share_prompts(model)
    images = {name: prompts[name] for name in ("pixel_values", "image_grid_thw") if name in prompts}
    logps, entropies = completion_logps(model, pack(model, prompts, sources, ids, mask, images))
    assert entropies is not None
    return logps, entropies


def _loss(logps: Tensor, mask: Tensor) -> Tensor:
    """GRPO's at the second of two updates on the same rollouts, with a KL term: both have gradients."""
    chance = torch.Generator().manual_seed(0)
    old = logps.detach() + 0.3 * torch.randn(logps.shape, generator=chance)
    reference = logps.detach() + 0.3 * torch.randn(logps.shape, generator=chance)
    advantages = torch.randn(len(logps), 1, generator=chance)
    ratio = (logps - old).exp()
    policy = -torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
    kl = (reference - logps).exp() - (reference - logps) - 1
    each = ((policy + 0.04 * kl) * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return each.mean()


def _gradient(model: Any) -> Tensor:
    return torch.cat([w.grad.flatten() for w in model.parameters() if w.grad is not None])


def _random_case(seed: int) -> Case:
    chance = random.Random(seed)
    groups = chance.randint(1, 3)
    return Case(
        tuple(chance.randint(1, 6) for _ in range(groups)),
        tuple(chance.randint(2, 16 // groups) for _ in range(groups)),
        longest=chance.randint(2, 24),
        lora=chance.random() < 0.5,
        checkpointing=chance.random() < 0.5,
        frozen=chance.random() < 0.5,
        seed=seed,
    )


CASES |= {f"random {seed}": _random_case(seed) for seed in range(6)}


@pytest.mark.parametrize("name", CASES)
def test_packed_groups_equal_a_row_for_each_rollout(name: str) -> None:
    _check(CASES[name])


@pytest.mark.slow
def test_packed_groups_equal_a_row_for_each_rollout_over_many_shapes() -> None:
    for seed in range(100, 160):
        _check(_random_case(seed))


def _check(case: Case) -> None:
    model, prompts, sources, ids, mask = _make(case)
    stock, ours = _prepared(model, case)
    logps, entropies = _row_by_row(stock, prompts, case.images, sources, ids, mask)
    packed_logps, packed_entropies = _packed(ours, prompts, sources, ids, mask)
    torch.testing.assert_close(packed_logps, logps, atol=LOGP, rtol=0)
    torch.testing.assert_close(packed_entropies, entropies, atol=LOGP, rtol=0)
    assert packed_logps[mask == 0].eq(0).all() and packed_logps[mask == 1].lt(-0.01).all()
    losses = _loss(logps, mask), _loss(packed_logps, mask)
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-6)
    for loss in losses:
        loss.backward()
    one, other = _gradient(stock), _gradient(ours)
    assert one.shape == other.shape and one.norm() > 1e-3
    assert float((one - other).norm() / one.norm()) < GRADIENT


def test_the_order_of_rollouts_does_not_matter() -> None:
    """Groups may lie scattered among each other."""
    model, prompts, sources, ids, mask = _make(CASES["several groups"])
    _, model = _prepared(model, CASES["several groups"])
    with torch.no_grad():
        whole, _ = _packed(model, prompts, sources, ids, mask)
        order = list(range(len(sources)))
        random.Random(0).shuffle(order)
        moved, _ = _packed(model, prompts, [sources[b] for b in order], ids[order], mask[order])
    torch.testing.assert_close(moved, whole[order], atol=1e-6, rtol=0)


def test_rollouts_of_which_none_counts_still_have_a_gradient_of_zero() -> None:
    """With `mask_truncated_completions`, and all cut off."""
    model, prompts, sources, ids, mask = _make(Case((1,), (3,)))
    _, model = _prepared(model, Case((1,), (3,)))
    logps, _ = _packed(model, prompts, sources, ids, torch.zeros_like(mask))
    assert logps.eq(0).all()
    logps.sum().backward()
    assert _gradient(model).eq(0).all()


def test_bf16_is_as_near_as_bf16_is() -> None:
    case = Case((2,), (4,))
    model, prompts, sources, ids, mask = _make(case)
    stock, ours = _prepared(model, case)
    exact, _ = _row_by_row(stock, prompts, case.images, sources, ids, mask)
    with torch.autocast("cpu", torch.bfloat16):
        rough, _ = _row_by_row(stock, prompts, case.images, sources, ids, mask)
        packed, _ = _packed(ours, prompts, sources, ids, mask)
    assert (packed - exact).norm() < 1.5 * (rough - exact).norm()


def _other(name: str) -> tuple[Any, dict[str, Tensor], list[int], Tensor, Tensor]:
    case = Case((2, 1), (3, 2))
    _, processor = build_tiny(0, text=TEXT)
    prompts = _prompts(processor, case)
    model = parts.build_family(name, processor)
    _, _, sources, completions, mask = _make(case)
    return model.eval(), prompts, sources, completions, mask


@pytest.mark.parametrize("name", parts.OTHER_FAMILIES)
def test_other_families_share_too(name: str) -> None:
    """Features of a frozen tower as well, with those that Qwen3-VL adds to its first layers."""
    model, prompts, sources, ids, mask = _other(name)
    case = Case((2, 1), (3, 2), frozen=True)
    stock, ours = _prepared(model, case)
    logps, _ = _row_by_row(stock, prompts, case.images, sources, ids, mask)
    packed, _ = _packed(ours, prompts, sources, ids, mask)
    torch.testing.assert_close(packed, logps, atol=LOGP, rtol=0)
    for result in (logps, packed):
        _loss(result, mask).backward()
    one, other = _gradient(stock), _gradient(ours)
    assert float((one - other).norm() / one.norm()) < GRADIENT
    patches = _patches_of(prompts)
    places = {"pixel_values": torch.arange(len(prompts["pixel_values"]))[:, None]}
    held = patches.with_features(ours, {**places, "image_grid_thw": prompts["image_grid_thw"]})
    again, _ = completion_logps(ours, pack(ours, prompts, sources, ids, mask, held))
    torch.testing.assert_close(again, packed, atol=1e-6, rtol=0)


def _patches_of(prompts: Mapping[str, Tensor]) -> Patches:
    patches = Patches()
    patches.restore({"pixels": prompts["pixel_values"], "features": {}})
    return patches


@pytest.mark.parametrize("name", parts.OTHER_FAMILIES)
def test_other_families_decode_with_one_copy_of_the_prompt(name: str) -> None:
    model, prompts, sources, _, _ = _other(name)
    expanded = prefill(model, prompts)
    expanded.keep(sources)

    def greedy(logits_RV: Tensor, rows: Sequence[int]) -> Tensor:
        chosen = logits_RV[:, :250].clone()
        chosen[torch.arange(len(rows)), torch.tensor(rows) + 7] += 3  # rows of a group part ways
        return chosen.argmax(dim=-1)

    plain = decode(copy.deepcopy(model), expanded, greedy, [], 10)
    assert decode(model, shared(model, prefill(model, prompts), sources), greedy, [], 10) == plain
    assert len({tuple(row) for row in plain}) > 2
