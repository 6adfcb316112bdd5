"""Draw the procedural world as training batches: on the fly, in workers, the same for the same step.

Batch `step` depends on the config and the step alone, so that a resumed run sees what an uninterrupted one does;
in a run with a time limit it depends on the time as well. Of several processes each renders its share of the samples.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from univg.errors import UnivgError
from univg.grounding.prompts import PromptStyle, choose_style, render_answer, render_chat, render_response
from univg.models.processor import GroundingProcessor
from univg.training.config import Phase, PretrainConfig
from univg.training.pretrain.dense_head import DenseTargets, join_targets, make_dense_targets
from univg.training.pretrain.packed import Packing, pack
from univg.training.pretrain.peers import ALONE, Peers
from univg.training.pretrain.rows import EncodedRow, RowEncoder
from univg.world import ALL_FAMILIES, FAMILIES, FAMILY_NAMES, WorldSample, list_families, make_sample
from univg.world.scene import Scene, place_name
from univg.world.telling import a

DESCRIBE = "Describe every object in the images with its place and bounding box."


@dataclass(frozen=True)
class MicroBatch:
    """Rows to learn from, one after the other, as :func:`univg.training.pretrain.packed.encode_packed` takes them.

    `answered_at_A` are the tokens that are followed by one of an answer, `answers_A` what follows, `weights_A` how much
    that counts. The tokens of images are those at `image_at_M`, in the order of `dense`.
    """

    ids_N: Tensor
    positions_3N: Tensor
    rows: Packing
    image_at_M: Tensor
    patches_PF: Tensor  # bytes: colours × pixels
    patch_positions_P2: Tensor  # row and column
    images: Packing
    answered_at_A: Tensor
    answers_A: Tensor
    weights_A: Tensor
    in_box_A: Tensor  # 1.0 where a digit follows, else 0.0
    dense: DenseTargets
    box_at_K: Tensor  # the token before each box of the answers
    box_K4: Tensor  # those boxes, unit
    weight: float  # of all answers
    samples: int

    def to(self, device: torch.device) -> MicroBatch:
        """Return the batch on another device; from pinned memory without waiting for it."""
        return _map_tensors(self, lambda tensor: tensor.to(device, non_blocking=True))

    def pin(self) -> MicroBatch:
        """Return the batch in memory from which a GPU reads without waiting."""
        return _map_tensors(self, Tensor.pin_memory)


def _map_tensors(record: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a dataclass or tuple with `change` done to its tensors, and to those of the dataclasses in it."""
    if isinstance(record, Tensor):
        return change(record)
    if isinstance(record, tuple):
        return tuple(_map_tensors(each, change) for each in record)
    if not dataclasses.is_dataclass(record) or isinstance(record, type):
        return record
    fields = {each.name: getattr(record, each.name) for each in dataclasses.fields(record)}
    return dataclasses.replace(record, **{name: _map_tensors(each, change) for name, each in fields.items()})


@dataclass(frozen=True)
class Clock:
    """Where in its schedule a run is: at its step or, with a time limit, at the same share of it as of the time.

    `began`: when the run would have begun had it never been stopped (`time.monotonic`, equal in all processes of a
    machine).
    """

    steps: int
    limit_s: float | None = None
    began: float = 0.0

    def place(self, step: int) -> int:
        """Return the step of the schedule, from 0; `steps` when it is over."""
        if self.limit_s is None:
            return step
        return min(self.steps, max(step, int((time.monotonic() - self.began) / self.limit_s * self.steps)))

    def left_s(self) -> float | None:
        """Return the seconds left of the limit; None without one."""
        return None if self.limit_s is None else max(0.0, self.limit_s - (time.monotonic() - self.began))


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


def draw_samples(
    config: PretrainConfig, step: int, place: int | None = None
) -> list[tuple[WorldSample, str]]:
    """Draw the (sample, style) pairs of one step, of the mixture at `place` in the schedule (none: at the step)."""
    phase = phase_at(config, step if place is None else place)
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
    """Join (sample, style) pairs to micro-batches."""

    def __init__(self, processor: GroundingProcessor, box_weight: float = 1.0) -> None:
        self.encoder, self.box_weight = RowEncoder(processor), box_weight
        tokenizer = processor.tokenizer
        self.digits = np.array([tokenizer.convert_tokens_to_ids(str(digit)) for digit in range(10)])

    def split(self, drawn: Sequence[tuple[WorldSample, str]], micro_batch: int) -> list[MicroBatch]:
        """Return micro-batches of rows of like length: what attention spends on padding is little then."""
        chats = [render_dialogue(*pair) for pair in drawn]
        rows = self.encoder.encode(
            [made.images for made, _ in drawn],
            [chat[0]["content"][-1]["text"] for chat, _ in chats],
            [response for _, response in chats],
        )
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        parts = [order[i : i + micro_batch] for i in range(0, len(order), micro_batch)]
        return [self._join([rows[i] for i in part], [drawn[i][0] for i in part]) for part in parts]

    def _join(self, rows: Sequence[EncodedRow], made: Sequence[WorldSample]) -> MicroBatch:
        merge = self.encoder.merge
        starts = np.cumsum([0, *(len(row) for row in rows)])
        grids = [grid for row in rows for grid in row.grids]
        shots = [shot if isinstance(shot, Scene) else None for each in made for shot in each.shots]
        dense = [
            make_dense_targets(s, h // merge, w // merge) for s, (h, w) in zip(shots, grids, strict=True)
        ]
        answered = [np.arange(end - row.answer, end) for row, end in zip(rows, starts[1:], strict=True)]
        ids, answered_at = np.concatenate([row.ids_T for row in rows]), np.concatenate(answered) - 1
        answers = ids[answered_at + 1]
        in_box = np.isin(answers, self.digits).astype(np.float32)
        weights = 1 + (self.box_weight - 1) * in_box
        boxes = [(start + at, box) for row, start in zip(rows, starts, strict=False) for at, box in row.boxes]
        return MicroBatch(
            torch.from_numpy(ids),
            torch.from_numpy(np.concatenate([row.positions_3T for row in rows], axis=1)),
            pack([len(row) for row in rows]),
            torch.from_numpy(
                np.concatenate([row.image_at + at for row, at in zip(rows, starts, strict=False)])
            ),
            torch.from_numpy(np.concatenate([row.patches_PF for row in rows])),
            torch.from_numpy(np.concatenate([place_patches(*grid, merge) for grid in grids])),
            pack([h * w for h, w in grids], masked=True),
            torch.from_numpy(answered_at),
            torch.from_numpy(answers),
            torch.from_numpy(weights.astype(np.float32)),
            torch.from_numpy(in_box),
            join_targets(dense),
            torch.tensor([at for at, _ in boxes], dtype=torch.long),
            torch.tensor([box for _, box in boxes], dtype=torch.float).view(-1, 4),
            float(weights.sum()),
            len(rows),
        )


@lru_cache(maxsize=1024)
def place_patches(rows: int, columns: int, merge: int) -> NDArray[np.int64]:
    """Return row and column of each patch of an image, (patches, 2), those that are merged one after the other."""
    places = np.indices((rows, columns)).reshape(2, rows // merge, merge, columns // merge, merge)
    return np.ascontiguousarray(places.transpose(1, 3, 2, 4, 0).reshape(-1, 2))


class WorldSteps(Dataset[tuple[int, list[MicroBatch]]]):
    """Step number -> its place in the schedule and its micro-batches: those of this process's share of the samples.

    With a time limit processes may take a step's samples from two mixtures where one phase gives way to the next.
    """

    def __init__(
        self, config: PretrainConfig, processor: GroundingProcessor, clock: Clock, peers: Peers = ALONE
    ) -> None:
        self.config, self.clock, self.peers = config, clock, peers
        self.collator = Collator(processor, config.box_weight)

    def __getitem__(self, step: int) -> tuple[int, list[MicroBatch]]:
        place = self.clock.place(step)
        # Scenes of all are drawn, which is cheap: the samples of a step are the same in any number of processes.
        drawn = draw_samples(self.config, step, place)[self.peers.rank :: self.peers.count]
        return place, self.collator.split(drawn, self.config.micro_batch)
