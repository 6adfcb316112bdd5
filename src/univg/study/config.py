"""Configs of a study; free of torch, so that they parse at once."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from univg.config import Config
from univg.training.config import GrpoConfig, SftConfig

__all__ = ["StudyConfig", "ThoughtsConfig"]


class ThoughtsConfig(Config):
    """Chains of thought that a study constructs: world samples, their teacher, and how it is asked."""

    teacher: str = "embedded-think"
    samples: int = Field(default=600, gt=0)
    seed: int = Field(default=1000, ge=0)  # of the samples, with the study's added
    chains: int = Field(default=3, gt=0)
    temperature: float = Field(default=1.0, ge=0)
    batch_size: int = Field(default=64, gt=0)


class StudyConfig(Config):
    """The paper's ablation (its Table 4) on the procedural world; see `univg study`.

    Every arm of one seed sees the same data in the same order, stage by stage; only what the arm is about differs.
    """

    model: str = "embedded-base"
    #: A config of `univg pretrain` that makes the arms' common start of `model`, once, before the first seed.
    prologue: str | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    sft: SftConfig = SftConfig()  # the cold start; without thinking it is the same but for the prompt style
    more_sft_steps: int = Field(
        default=100, gt=0
    )  # of the arm that trains on with SFT where others turn to GRPO
    grpo: GrpoConfig = GrpoConfig()  # the weighting is the arm's
    thoughts: ThoughtsConfig | None = (
        None  # given: CoT-SFT on several sources of thoughts is compared instead
    )
    samples: int = Field(default=50, gt=0)  # evaluated, a family and split
    splits: tuple[Literal["world", "world_unseen"], ...] = ("world", "world_unseen")
    families: tuple[str, ...] = (
        *("diff", "view_diff", "common_object", "object_tracking", "multi_view"),
        *("region", "refer_grounding", "group_grounding", "reasoning", "correspondence"),
    )  # MIG-Bench's ten
    max_new_tokens: int = Field(default=256, gt=0)
    arms: tuple[str, ...] = ()  # none: all
