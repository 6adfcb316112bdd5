"""The procedural world as training batches: drawn on the fly, in workers, the same for the same step.

Batch `step` depends on the config and the step alone, so that a resumed run sees what an uninterrupted one does.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from univg.config import Phase, PretrainConfig
from univg.grounding.prompts import PromptStyle, render_chat, render_response
from univg.models.processor import GroundingProcessor
from univg.training.pretrain.dense_head import DenseTargets, dense_targets
from univg.world import FAMILIES, WorldSample, make_sample
from univg.world.questions import a
from univg.world.scene import Scene, place_name

DESCRIBE = "Describe every object in the images with its place and bounding box."
IGNORED = -100


@dataclass
class MicroBatch:
    """Padded on the right. `labels_BT` is IGNORED outside responses; `weights_BT` says how much a label counts."""

    inputs: dict[str, Tensor]
    labels_BT: Tensor
    weights_BT: Tensor
    dense: DenseTargets
    box_places_N2: Tensor  # (row, column) of the token before each box of the responses
    box_N4: Tensor  # those boxes, unit


def phase_at(config: PretrainConfig, step: int) -> Phase:
    for phase in config.phases:
        if step < phase.steps:
            return phase
        step -= phase.steps
    return config.phases[-1]


def shares(phase: Phase) -> dict[tuple[str, str], float]:
    """The phase's mixture with "*" spelt out over every family."""
    out: dict[tuple[str, str], float] = {}
    for key, share in phase.mixture.items():
        name, _, style = key.partition("/")
        names = tuple(FAMILIES) if name == "*" else (name,)
        for each in names:
            if each not in FAMILIES or style not in ("direct", "simple", "think", "describe"):
                raise ValueError(
                    f"phase {phase.name!r}: mixture key {key!r}: write family/style with a family of "
                    f"{', '.join(FAMILIES)} or '*', and a style of direct, simple, think, describe"
                )
            out[each, style] = out.get((each, style), 0.0) + share / len(names)
    return out


def draw_samples(config: PretrainConfig, step: int) -> list[tuple[WorldSample, str]]:
    """The (sample, style) pairs of one step."""
    phase = phase_at(config, step)
    mixture = shares(phase)
    rng = random.Random(f"{config.seed}/{step}")
    picks = rng.choices(list(mixture), list(mixture.values()), k=config.batch)
    drawn = []
    for i, (name, style) in enumerate(picks):
        difficulty = round(rng.uniform(*phase.difficulty), 3)
        index = step * config.batch + i
        drawn.append((make_sample(name, "train", config.seed, index, difficulty, config.image_px), style))
    return drawn


def prompt_and_response(world_sample: WorldSample, style: str) -> tuple[list[dict[str, Any]], str]:
    """The chat of one training sample and what the model shall answer."""
    sample = world_sample.sample
    if style == "describe":
        chat = render_chat(len(sample.images), DESCRIBE, "direct")
        chat[0]["content"][-1]["text"] = DESCRIBE
        return chat, describe(world_sample)
    wanted: PromptStyle = style  # type: ignore[assignment]
    return (
        render_chat(len(sample.images), sample.query, wanted),
        render_response(sample.boxes[0], sample.thought, wanted),
    )


def describe(world_sample: WorldSample) -> str:
    """Every thing of every image with its place and its box, from left to right."""
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
    """(sample, style) pairs to micro-batches, through the one preprocessing path."""

    def __init__(self, processor: GroundingProcessor, box_weight: float = 1.0) -> None:
        self.processor = processor
        self.box_weight = box_weight
        tokenizer = processor.tokenizer
        self.start_ids = tokenizer.encode("<|im_start|>assistant\n")
        self.end_id = tokenizer.eos_token_id
        self.pad_id = tokenizer.pad_token_id
        self.digits = {tokenizer.convert_tokens_to_ids(str(digit)): digit for digit in range(10)}

    def split(self, drawn: Sequence[tuple[WorldSample, str]], micro_batch: int) -> list[MicroBatch]:
        """Micro-batches of like length, so that little of them is padding."""
        rows = [self._row(*pair) for pair in drawn]
        rows.sort(key=lambda row: len(row["ids"]))
        return [self._join(rows[i : i + micro_batch]) for i in range(0, len(rows), micro_batch)]

    def _row(self, world_sample: WorldSample, style: str) -> dict[str, Any]:
        chat, response = prompt_and_response(world_sample, style)
        prompt = self.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        encoded = self.processor(images=[list(world_sample.images)], text=[prompt], return_tensors="pt")
        ids = encoded["input_ids"][0].tolist()
        answer = [*self.processor.tokenizer.encode(response), self.end_id]
        # Where the answer's own box begins: digits before it (none in our thoughts) would not be its box.
        weights = [self.box_weight if token in self.digits else 1.0 for token in answer]
        dense = [
            dense_targets(shot if isinstance(shot, Scene) else None, int(h) // 2, int(w) // 2)
            for shot, (_, h, w) in zip(world_sample.shots, encoded["image_grid_thw"], strict=True)
        ]
        return {
            "ids": ids + answer,
            "labels": [IGNORED] * len(ids) + answer,
            "weights": [0.0] * len(ids) + weights,
            "types": encoded["mm_token_type_ids"][0].tolist() + [0] * len(answer),
            "pixels": encoded["pixel_values"],
            "grids": encoded["image_grid_thw"],
            "dense": DenseTargets.join(dense),
            "boxes": [(len(ids) + at - 1, box) for at, box in self._boxes(answer)],
        }

    def _boxes(self, answer: Sequence[int]) -> list[tuple[int, tuple[float, ...]]]:
        """(index of its first digit, the box in unit coordinates) for every box written in an answer's tokens."""
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

    def _join(self, rows: Sequence[dict[str, Any]]) -> MicroBatch:
        longest = max(len(row["ids"]) for row in rows)

        def padded(name: str, fill: float, dtype: torch.dtype) -> Tensor:
            return torch.tensor(
                [row[name] + [fill] * (longest - len(row[name])) for row in rows], dtype=dtype
            )

        inputs = {
            "input_ids": padded("ids", self.pad_id, torch.long),
            "mm_token_type_ids": padded("types", 0, torch.long),
            "pixel_values": torch.cat([row["pixels"] for row in rows]),
            "image_grid_thw": torch.cat([row["grids"] for row in rows]),
        }
        return MicroBatch(
            inputs,
            padded("labels", IGNORED, torch.long),
            padded("weights", 0.0, torch.float),
            DenseTargets.join([row["dense"] for row in rows]),
            torch.tensor([(i, at) for i, row in enumerate(rows) for at, _ in row["boxes"]], dtype=torch.long),
            torch.tensor([box for row in rows for _, box in row["boxes"]], dtype=torch.float),
        )


class WorldSteps(IterableDataset):  # type: ignore[type-arg]
    """Steps `start` … as lists of micro-batches."""

    def __init__(self, config: PretrainConfig, processor: GroundingProcessor, start: int, stop: int) -> None:
        self.config, self.processor, self.start, self.stop = config, processor, start, stop

    def __iter__(self) -> Iterator[list[MicroBatch]]:
        worker = torch.utils.data.get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        if worker:
            torch.set_num_threads(1)
        collator = Collator(self.processor, self.config.box_weight)
        for step in range(self.start + first, self.stop, stride):
            yield collator.split(draw_samples(self.config, step), self.config.micro_batch)


def step_loader(
    config: PretrainConfig, processor: GroundingProcessor, start: int, stop: int
) -> Iterator[list[MicroBatch]]:
    """Batches in step order whatever the number of workers (a loader takes from its workers in turn)."""
    loader: Any = DataLoader(
        WorldSteps(config, processor, start, stop),
        batch_size=None,
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
    )
    return iter(loader)
