"""GRPO's numbers against an implementation of their formulas that shares nothing with univg's or TRL's.

It reads each rollout alone (no padding, no packing), finds boxes by its own expression, and writes the loss of the
paper (arXiv 2505.14231, section 3.3) in plain torch: rewards, advantages, difficulty weights, ratios, clipping, KL.
Rollouts are ragged: prompts of one, three and six images, responses of four lengths.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import grpo_parts as parts
import pytest
import torch
from torch import Tensor
from transformers import TrainerCallback

from univg.models.conventions import write_conventions
from univg.models.families import MODEL_FAMILIES
from univg.models.tiny import PIXEL_BUDGET, build_tiny
from univg.training.grpo.arguments import paper_arguments
from univg.training.grpo.rewards import RolloutReader

BETA, EPSILON = 0.5, 0.02
FORM = re.compile(r"^<think>.+</think>\s*<answer>\((\d+),(\d+)\),\((\d+),(\d+)\)</answer>$", re.DOTALL)


class KeepUpdates(TrainerCallback):
    """Keep the weights before each update, and its gradient."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.gradients: list[dict[str, Tensor]] = []

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, **others: Any
    ) -> None:
        named = [(name, weight) for name, weight in model.named_parameters() if weight.grad is not None]
        self.weights.append({name: value.clone() for name, value in model.state_dict().items()})
        self.gradients.append({name: weight.grad.clone() for name, weight in named})


def _iou_and_form(text: str, truth: tuple[float, ...]) -> tuple[float, float]:
    found = FORM.match(text)
    if found is None:
        return 0.0, 0.0
    x1, y1, x2, y2 = (int(number) / 1000 for number in found.groups())
    width = max(0.0, min(x2, truth[2]) - max(x1, truth[0]))
    height = max(0.0, min(y2, truth[3]) - max(y1, truth[1]))
    union = (x2 - x1) * (y2 - y1) + (truth[2] - truth[0]) * (truth[3] - truth[1]) - width * height
    return width * height / union, 1.0


def _weighted_advantages(row: dict[str, Any]) -> list[float]:
    judged = [_iou_and_form(text, row["sample"].boxes[0]) for text in parts.scripted_texts(row)]
    rewards = [iou + form for iou, form in judged]
    mean = sum(rewards) / len(rewards)
    spread = math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - 1))
    weight = math.exp(1 - sum(iou for iou, _ in judged) / len(judged))
    return [weight * (reward - mean) / (spread + 1e-4) for reward in rewards]


def _log_probabilities(model: Any, processor: Any, row: dict[str, Any], text: str) -> Tensor:
    """Log-probabilities of a response's tokens and its end mark, read alone."""
    prompt = processor.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
    inputs = processor(images=[row["images"]], text=[prompt], return_tensors="pt")
    response = torch.tensor([[*processor.tokenizer.encode(text), processor.tokenizer.eos_token_id]])
    start = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], response], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(response)], dim=1)
    logits = model(**inputs).logits[0, start - 1 : -1]
    return logits.log_softmax(dim=-1).gather(1, response[0][:, None])[:, 0]


def _all_log_probabilities(model: Any, processor: Any, weights: dict[str, Tensor]) -> list[Tensor]:
    model.load_state_dict(weights)
    return [
        _log_probabilities(model, processor, row, text)
        for row in parts.ragged_rows()
        for text in parts.scripted_texts(row)
    ]


def _loss(policy: list[Tensor], old: list[Tensor], reference: list[Tensor]) -> tuple[Tensor, int]:
    """The loss, and how many tokens are clipped."""
    advantages = [each for row in parts.ragged_rows() for each in _weighted_advantages(row)]
    means, clipped = [], 0
    for logps, before, start, advantage in zip(policy, old, reference, advantages, strict=True):
        ratio = (logps - before).exp()
        within = ratio.clamp(1 - EPSILON, 1 + EPSILON)
        divergence = (start - logps).exp() - (start - logps) - 1
        gain = torch.minimum(ratio * advantage, within * advantage)
        clipped += int((gain != ratio * advantage).sum())
        means.append((BETA * divergence - gain).mean())
    return torch.stack(means).mean(), clipped


@pytest.mark.parametrize("family", MODEL_FAMILIES)
def test_gradients_are_those_of_the_formulas(family: str, tmp_path: Path) -> None:
    """Of the first update, where policy, old policy and reference are one, and of a second on the same rollouts,
    where ratios are clipped and the KL term pulls."""
    model, processor = build_tiny(seed=0, text=parts.SMALL_TEXT)
    if family == "qwen2_vl":
        parts.scale_up(model)
    else:
        model = parts.build_family(family, processor)
    start = tmp_path / "start"
    model.eval().save_pretrained(start)
    processor.save_pretrained(start)
    write_conventions(start, "think", PIXEL_BUDGET)
    model.config._name_or_path = str(start)  # where TRL reads the reference
    arguments = paper_arguments(
        tmp_path / "run",
        prompts_per_step=3,
        rollouts=parts.GENERATIONS,
        micro_batch=6,
        processes=1,
        num_iterations=2,
        max_steps=2,
        beta=BETA,
        epsilon=EPSILON,
        max_grad_norm=0.0,
        optim="sgd",
        learning_rate=3e-3,
        lr_scheduler_type="constant",
        use_cpu=True,
        shuffle_dataset=False,
        save_strategy="no",
        disable_tqdm=True,
    )
    keep, rows = KeepUpdates(), parts.ragged_rows()
    trainer = parts.ScriptedTrainer(
        *(model, None, arguments, rows),
        processing_class=processor,
        callbacks=[keep],
        reader=RolloutReader(),  # the texts are written in 0-1000, whatever the family's own frame
    )
    trainer.rows = rows
    assert trainer.shared is not None
    begin = {name: value.clone() for name, value in model.state_dict().items()}
    trainer.train()

    alone = type(model)(model.config).eval()
    with torch.no_grad():
        reference = _all_log_probabilities(alone, processor, begin)
    clipped_tokens = []
    for weights, gradient in zip(keep.weights, keep.gradients, strict=True):
        alone.zero_grad()
        policy = _all_log_probabilities(alone, processor, weights)
        loss, clipped = _loss(policy, reference, reference)  # the rollouts are of the start model
        loss.backward()
        clipped_tokens.append(clipped)
        expected = {name: weight.grad for name, weight in alone.named_parameters() if weight.grad is not None}
        assert gradient.keys() == expected.keys()
        apart = torch.cat([(gradient[name] - expected[name]).flatten() for name in expected]).norm()
        size = torch.cat([value.flatten() for value in expected.values()]).norm()
        assert float(size) > 1e-2 and float(apart / size) < 1e-5
    assert clipped_tokens[0] == 0 < clipped_tokens[1]
