"""Per-step metrics of rollouts, and what callbacks are told of each generation of rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from transformers import TrainerCallback

from univg.grounding.reading import FAULTS, Reading
from univg.grounding.scoring import Score
from univg.training.grpo.difficulty import level_of
from univg.training.grpo.vllm import Agreement

__all__ = ["FAULT_NAMES", "Generation", "GroupScores", "RolloutCallback", "family_metrics", "step_metrics"]

FAULT_NAMES = tuple(FAULTS)


@dataclass(frozen=True)
class GroupScores:
    """Scores of all rollouts of one generation, over all processes, group after group: arrays (prompt,
    generation)."""

    iou_PG: np.ndarray
    hit_50_PG: np.ndarray
    format_PG: np.ndarray
    truncated_PG: np.ndarray
    fault_PG: np.ndarray
    """Index into `FAULT_NAMES`, -1 for none."""
    refuses_PG: np.ndarray
    """Says that nothing is there, and something is."""
    spams_PG: np.ndarray
    """Gives more than twice as many boxes as there are, and one; of answers that are sets."""

    @staticmethod
    def row(score: Score, reading: Reading) -> list[float]:
        """Return one rollout as numbers; `of` puts the rows of all together."""
        index = FAULT_NAMES.index(reading.fault) if reading.fault else -1
        given, true = len(score.match.given), len(score.match.true)
        cheap = [reading.says_none and true > 0, given > 2 * true + 1]
        return [score.iou, score.hit_50, score.format_ok, reading.truncated, index, *cheap]

    @classmethod
    def of(cls, rows: Sequence[Sequence[float]] | np.ndarray, generations: int) -> GroupScores:
        """Arrange the rows of all rollouts in groups of `generations`."""
        table = np.asarray(rows, dtype=np.float64)
        return cls(*(column.reshape(-1, generations) for column in table.T))

    @property
    def mean_iou_P(self) -> np.ndarray:
        """m of each group, which decides its weight; of answers that are sets, it is the mean soft-F1."""
        return self.iou_PG.mean(axis=1)


@dataclass(frozen=True)
class Generation:
    """One generation of rollouts of this process, in groups of `size` (rollouts a prompt): read, scored, rewarded.

    `step` learns from it first; `rewards` are by the functions' names. `rewards_PG` (their weighted sums) and `groups`
    are of all processes. Once weighted, there are the `weights` and weighted `advantages` of this process's rollouts.
    `agreement` says how well vLLM agrees with the model, where it drew the rollouts and they are the first.
    """

    step: int
    size: int
    rows: Sequence[Mapping[str, Any]]
    tokens: Sequence[int]
    readings: Sequence[Reading]
    scores: Sequence[Score]
    rewards: Sequence[Mapping[str, float]]
    rewards_PG: np.ndarray
    groups: GroupScores
    weights: Sequence[float] = ()
    advantages: Sequence[float] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    agreement: Agreement | None = None
    tasks: Sequence[str] = ()
    """What each group asks, of all processes."""


class RolloutCallback(TrainerCallback):
    """A callback that `GroundingGRPOTrainer` also tells of every generation of training rollouts, in every
    process."""

    def on_rollouts(self, args: Any, state: Any, generation: Generation) -> None:
        """Act on `generation`, which has been drawn and weighted; nothing has been learnt from it yet."""


def family_metrics(generation: Generation) -> dict[str, float]:
    """Return what a step's log says of each task family: the means of its rollouts' IoU and reward, as `iou/diff` and
    `reward/diff`."""
    tasks = np.asarray(generation.tasks)
    return {
        f"{what}/{task}": float(table_PG[tasks == task].mean())
        for what, table_PG in (("iou", generation.groups.iou_PG), ("reward", generation.rewards_PG))
        for task in sorted(set(generation.tasks))
    }


def step_metrics(groups: GroupScores, rewards_PG: np.ndarray, weights_P: np.ndarray) -> dict[str, float]:
    """Return what a step's log says about its rollouts; every share is 0-1.

    `iou`, `hit_50`, `format` and `truncated` are means over rollouts, `faults/…` shares of rollouts with that
    fault (`faults/any`: with one). Over groups: `groups/no_spread`, those whose rewards are all equal and
    teach nothing; `groups/weight`, the mean difficulty weight; `groups/easy`, `groups/medium`, `groups/hard`,
    by mean IoU (from 0.7; below 0.3); `groups/all_refuse`, those in which every rollout says that nothing is there
    though something is, and `groups/all_spam`, in which every rollout gives more boxes than twice the true ones and
    one. KL, entropy and lengths are TRL's: `kl`, `entropy`, `completions/mean_length`.
    """
    levels = [level_of(mean) for mean in groups.mean_iou_P]
    with np.errstate(invalid="ignore"):  # a reward may be infinite
        spread_P = rewards_PG.max(axis=1) - rewards_PG.min(axis=1)
    return {
        "iou": float(groups.iou_PG.mean()),
        "hit_50": float(groups.hit_50_PG.mean()),
        "format": float(groups.format_PG.mean()),
        "truncated": float(groups.truncated_PG.mean()),
        "faults/any": float((groups.fault_PG >= 0).mean()),
        **{f"faults/{name}": float((groups.fault_PG == i).mean()) for i, name in enumerate(FAULT_NAMES)},
        "groups/no_spread": float((~(spread_P > 1e-6)).mean()),
        "groups/weight": float(weights_P.mean()),
        **{f"groups/{level}": levels.count(level) / len(levels) for level in ("easy", "medium", "hard")},
        "groups/all_refuse": float((groups.refuses_PG > 0).all(axis=1).mean()),
        "groups/all_spam": float((groups.spams_PG > 0).all(axis=1).mean()),
    }
