"""Draw the procedural world as training batches: on the fly, in workers, the same for the same step.

Batch `step` depends on the config and the step alone, so that a resumed run sees what an uninterrupted one does.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import send_to_device  # type: ignore[import-untyped]
from torch import Tensor
from torch.utils.data import Dataset

from univg.errors import UnivgError
from univg.grounding.prompts import PromptStyle, choose_style, render_answer, render_chat, render_response
from univg.models.processor import GroundingProcessor
from univg.training.config import Phase, PretrainConfig
from univg.training.pretrain.dense_head import DenseTargets, make_dense_targets
from univg.training.run.batches import IGNORED, encode_row, join_inputs, pad_right, split_by_length
from univg.world import ALL_FAMILIES, FAMILIES, FAMILY_NAMES, WorldSample, list_families, make_sample
from univg.world.questions import a
from univg.world.scene import Scene, place_name

DESCRIBE = "Describe every object in the images with its place and bounding box."


@dataclass(frozen=True)
class MicroBatch:
    """Rows to learn from, padded on the right.

    `labels_BT` is IGNORED outside responses; `weights_BT` says how much a label counts.
    """

    inputs: dict[str, Tensor]
    labels_BT: Tensor
    weights_BT: Tensor
    dense: DenseTargets
    box_places_N2: Tensor  # (row, column) of the token before each box of the responses
    box_N4: Tensor  # those boxes, unit

    def to(self, device: torch.device) -> MicroBatch:
        """Return the batch on another device."""
        fields: dict[str, Any] = send_to_device(
            {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}, device
        )
        dense = send_to_device(vars(self.dense), device)
        return MicroBatch(**{**fields, "dense": DenseTargets(**dense)})


def phase_at(config: PretrainConfig, step: int) -> Phase:
    """Return the phase that a step lies in; after the last one, the last."""
    for phase in config.phases:
        if step < phase.steps:
            return phase
        step -= phase.steps
    return config.phases[-1]


def spell_out(phase: Phase) -> dict[tuple[str, str], float]:
    """Return the phase's mixture with "*" spelt out over every family of one box, "sets" over those of sets.

    Raises UnivgError for a key that is not family/style.
    """
    out: dict[tuple[str, str], float] = {}
    for key, share in phase.mixture.items():
        name, _, style = key.partition("/")
        names = tuple(FAMILIES) if name == "*" else list_families([name])
        for each in names:
            if each not in ALL_FAMILIES or style not in ("direct", "simple", "think", "describe"):
                raise UnivgError(
                    f"phase {phase.name!r}: mixture key {key!r}",
                    remedy=f"write family/style with a family of {', '.join(FAMILY_NAMES)} or '*', and a style of "
                    "direct, simple, think, describe",
                )
            out[each, style] = out.get((each, style), 0.0) + share / len(names)
    return out


def draw_samples(config: PretrainConfig, step: int) -> list[tuple[WorldSample, str]]:
    """Draw the (sample, style) pairs of one step."""
    phase = phase_at(config, step)
    mixture = spell_out(phase)
    rng = random.Random(f"{config.seed}/{step}")
    picks = rng.choices(list(mixture), list(mixture.values()), k=config.batch)
    drawn = []
    for i, (name, style) in enumerate(picks):
        difficulty = round(rng.uniform(*phase.difficulty), 3)
        index = step * config.batch + i
        how = (difficulty, config.image_px, config.world_version)
        drawn.append((make_sample(name, "train", config.seed, index, *how), style))
    return drawn


def render_dialogue(world_sample: WorldSample, style: str) -> tuple[list[dict[str, Any]], str]:
    """Return the chat of one training sample, and what the model shall answer: of a set, in the style of sets."""
    sample = world_sample.sample
    if style == "describe":
        chat = render_chat(len(sample.images), DESCRIBE, "direct")
        chat[0]["content"][-1]["text"] = DESCRIBE
        return chat, describe(world_sample)
    named: PromptStyle = style  # type: ignore[assignment]
    wanted = choose_style(sample, named)
    return render_chat(len(sample.images), sample.query, wanted), render_answer(sample, wanted)


def describe(world_sample: WorldSample) -> str:
    """Name every thing of every image with its place and its box, from left to right."""
    lines = []
    for shot in world_sample.shots:
        if not isinstance(shot, Scene):
            lines.append("a region of the first image")
            continue
        boxes = sorted(((shot.box(t), str(t)) for t in shot.things), key=lambda pair: pair[0][0] + pair[0][2])
        lines.append(
            " ".join(
                f"{a(name)} at the {place_name(box)} {render_response(box, style='direct')}"
                for box, name in boxes
            )
        )
    return "\n".join(lines)


class Collator:
    """Join (sample, style) pairs to micro-batches, through the one preprocessing path."""

    def __init__(self, processor: GroundingProcessor, box_weight: float = 1.0) -> None:
        self.processor, self.box_weight = processor, box_weight
        digits = [processor.tokenizer.convert_tokens_to_ids(str(digit)) for digit in range(10)]
        self.digits = {token: digit for digit, token in enumerate(digits)}

    def split(self, drawn: Sequence[tuple[WorldSample, str]], micro_batch: int) -> list[MicroBatch]:
        """Return micro-batches of rows of like length."""
        rows = [self._encode(*pair) for pair in drawn]
        return [self._join(part) for part in split_by_length(rows, micro_batch)]

    def _encode(self, world_sample: WorldSample, style: str) -> dict[str, Any]:
        chat, response = render_dialogue(world_sample, style)
        prompt = self.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        row = encode_row(self.processor, world_sample.images, prompt, response)
        answer = [label for label in row["labels"] if label != IGNORED]
        asked = len(row["ids"]) - len(answer)
        dense = [
            make_dense_targets(shot if isinstance(shot, Scene) else None, int(h) // 2, int(w) // 2)
            for shot, (_, h, w) in zip(world_sample.shots, row["grids"], strict=True)
        ]
        return {
            **row,
            # Where the answer's own box begins: digits before it (none in our thoughts) would not be its box.
            "weights": [0.0] * asked + [self.box_weight if token in self.digits else 1.0 for token in answer],
            "dense": DenseTargets.join(dense),
            "boxes": [(asked + at - 1, box) for at, box in self._find_boxes(answer)],
        }

    def _find_boxes(self, answer: Sequence[int]) -> list[tuple[int, tuple[float, ...]]]:
        """Return (index of its first digit, the box in unit coordinates) for every box in an answer's tokens."""
        numbers: list[tuple[int, int]] = []
        for at, token in enumerate(answer):
            digit = self.digits.get(token)
            if digit is None:
                continue
            if at and answer[at - 1] in self.digits:
                numbers[-1] = (numbers[-1][0], numbers[-1][1] * 10 + digit)
            else:
                numbers.append((at, digit))
        fours = [numbers[i : i + 4] for i in range(0, len(numbers) - 3, 4)]
        return [(four[0][0], tuple(value / 1000 for _, value in four)) for four in fours]

    def _join(self, rows: Sequence[Mapping[str, Any]]) -> MicroBatch:
        return MicroBatch(
            join_inputs(rows, self.processor.tokenizer.pad_token_id),
            pad_right(rows, "labels", IGNORED),
            pad_right(rows, "weights", 0.0, torch.float),
            DenseTargets.join([row["dense"] for row in rows]),
            torch.tensor([(i, at) for i, row in enumerate(rows) for at, _ in row["boxes"]], dtype=torch.long),
            torch.tensor([box for row in rows for _, box in row["boxes"]], dtype=torch.float),
        )


class WorldSteps(Dataset[list[MicroBatch]]):
    """Step number -> its micro-batches."""

    def __init__(self, config: PretrainConfig, processor: GroundingProcessor) -> None:
        self.config, self.collator = config, Collator(processor, config.box_weight)

    def __getitem__(self, step: int) -> list[MicroBatch]:
        return self.collator.split(draw_samples(self.config, step), self.config.micro_batch)
