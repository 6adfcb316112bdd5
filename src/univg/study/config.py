"""Configs of a study; free of torch, so that they parse at once."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from univg.config import Config
from univg.training.config import GrpoConfig, SftConfig

__all__ = ["StudyConfig", "ThoughtsConfig"]


class ThoughtsConfig(Config):
    """Chains of thought that a study constructs: world samples, their teacher, and how it is asked."""

    teacher: str = Field(default="embedded-think", description="A checkpoint folder or hub name.")
    samples: int = Field(default=600, gt=0, description="How many samples of the world.")
    seed: int = Field(default=1000, ge=0, description="Of the samples, with the study's added.")
    chains: int = Field(default=3, gt=0, description="Proposals a sample.")
    temperature: float = Field(default=1.0, ge=0, description="Of the proposals.")
    batch_size: int = Field(default=64, gt=0, description="Responses at a time.")


class StudyConfig(Config):
    """The paper's ablation (its Table 4) on the procedural world; see `univg study`.

    Every arm of one seed sees the same data in the same order, stage by stage; only what the arm is about differs.
    """

    model: str = Field(default="embedded-base", description="The start of all arms.")
    prologue: str | None = Field(
        default=None,
        description="A config of `univg pretrain` that makes the arms' common start of `model`, once.",
    )
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), description="One run of every arm for each.")
    cold_start: bool = Field(
        default=True,
        description="Begin with stage 1; false: `model` has it behind it, and only what follows is compared.",
    )
    sft: SftConfig = Field(
        default=SftConfig(),
        description="The cold start; without thinking it is the same but for the prompt style.",
    )
    more_sft_steps: int = Field(
        default=100, gt=0, description="Of the arm that goes on with SFT where others turn to GRPO."
    )
    grpo: GrpoConfig = Field(default=GrpoConfig(), description="Stage 2; the weighting is the arm's.")
    thoughts: ThoughtsConfig | None = Field(
        default=None, description="If given, CoT-SFT on several sources of thoughts is compared instead."
    )
    samples: int = Field(default=50, gt=0, description="Evaluated, of each family and split.")
    splits: tuple[Literal["world", "world_unseen", "world_drawn", "world_v1", "world_v1_unseen"], ...] = (
        Field(default=("world", "world_unseen"), description="The worlds evaluated.")
    )
    families: tuple[str, ...] = Field(
        default=(
            *("diff", "view_diff", "common_object", "object_tracking", "multi_view"),
            *("region", "refer_grounding", "group_grounding", "reasoning", "correspondence"),
        ),
        description="The families evaluated; MIG-Bench's ten by default.",
    )
    max_new_tokens: int = Field(default=256, gt=0, description="Longest response.")
    arms: tuple[str, ...] = Field(default=(), description="Only these; none: all.")

    @model_validator(mode="after")
    def _check_start(self) -> Self:
        if self.thoughts is not None and not self.cold_start:
            raise ValueError(
                "cold_start: a study of thoughts compares cold starts, and cannot leave them out"
            )
        return self
