"""The configs of the two training stages, `univg sft` and `univg grpo`; free of torch, so that they parse at once.

What univg decides is a field here. What TRL and transformers decide stays theirs: `trainer` passes their own
arguments through, and an unknown one fails with the nearest that exists.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from univg.config import Config
from univg.grounding.prompts import PromptStyle

__all__ = [
    "DataSource",
    "GrpoConfig",
    "LoraSettings",
    "Phase",
    "PixelLimits",
    "PretrainConfig",
    "SftConfig",
    "StageConfig",
]

LANGUAGE_LINEAR = "all-linear-language"


class DataSource(Config):
    """One part of the mixture: the procedural world, or a file that a reader of `univg.data.readers` reads.

    Of all samples drawn, a share of `weight` over the sum of weights comes from this source. A file's samples
    come in a new random order each time round; none comes twice before all have come once.
    """

    reader: str = (
        "world"  # "world", "auto" (told by the file's fields), or a name of univg.data.readers.READERS
    )
    path: str | None = None
    images: str | None = None  # the folder that image paths are relative to
    weight: float = Field(default=1.0, gt=0)
    count: int | None = Field(
        default=None, gt=0
    )  # at most so many different samples; none: all (the world: no end)
    prompt_style: PromptStyle | None = None  # none: the stage's, and "simple" for samples without thinking
    seed: int = Field(default=0, ge=0)
    # The world's own:
    split: Literal["train", "test", "unseen"] = "train"
    families: dict[str, float] | tuple[str, ...] | None = None  # with shares, or equally; none: all, equally
    difficulty: tuple[float, float] = (0.0, 0.7)  # drawn evenly between the two
    image_px: int = Field(default=120, ge=28)  # the longer side

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.reader == "world" and self.path is not None:
            raise ValueError(
                "the world is drawn, not read: give path with a reader ('auto' tells it by the file)"
            )
        if self.reader != "world" and self.path is None:
            raise ValueError(f"reader {self.reader!r} needs a path")
        low, high = self.difficulty
        if not 0 <= low <= high <= 1:
            raise ValueError("difficulty: give two numbers with 0 <= first <= second <= 1")
        return self


class LoraSettings(Config):
    """Low-rank adapters. `target` is "all-linear-language" (every linear layer of the language model) or names."""

    r: int = Field(default=16, gt=0)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target: str | tuple[str, ...] = LANGUAGE_LINEAR


class PixelLimits(Config):
    """How many pixels an image may have once resized; the paper's by default."""

    min_pixels: int = Field(default=3136, gt=0)
    max_pixels: int = Field(default=401408, gt=0)


class StageConfig(Config):
    """What both stages share."""

    model: str = "embedded-base"  # an embedded name, a checkpoint's folder, or a hub name
    data: tuple[DataSource, ...] = Field(default=(DataSource(),), min_length=1)
    seed: int = Field(default=0, ge=0)
    prompt_style: PromptStyle = "think"  # how the saved checkpoint is asked
    pixel_budget: PixelLimits | None = None  # none: the one stored with the model
    max_tokens: int | None = Field(
        default=None, gt=0
    )  # prompt and response together; larger prompts are shrunk
    freeze_vision: bool = True  # the vision tower with its merger
    lora: LoraSettings | None = None  # none: all weights that are not frozen
    bf16: bool = True  # autocast; with LoRA the frozen weights are held in bf16 too
    gradient_checkpointing: bool = False
    epochs: float = Field(default=1.0, gt=0)  # times all samples of the sources; max_steps wins
    max_steps: int | None = Field(default=None, gt=0)
    learning_rate: float = Field(default=1e-5, gt=0)
    warmup_ratio: float = Field(default=0.0, ge=0, le=1)  # the share of steps in which the rate rises
    save_every: int = Field(default=100, gt=0)  # steps between checkpoints
    keep_checkpoints: int = Field(default=2, gt=0)  # two, so that a torn last one has a predecessor
    save_bf16: bool = True  # the final weights, if bf16; checkpoints on the way hold full precision
    workers: int = Field(default=1, ge=0)  # processes that draw and preprocess data
    trainer: dict[str, Any] = Field(default={})  # TRL's and transformers' own arguments, passed through


class SftConfig(StageConfig):
    """Stage 1: supervised fine-tuning on thoughts; with `prompt_style: direct`, on boxes alone."""

    batch: int = Field(default=24, gt=0)  # samples a step, over all processes
    micro_batch: int = Field(default=1, gt=0)  # of them at once in one process


class GrpoConfig(StageConfig):
    """Stage 2: group-relative policy optimisation with difficulty weights (paper, section 3.3)."""

    learning_rate: float = Field(default=1e-6, gt=0)
    prompts_per_step: int = Field(default=16, gt=0)  # over all processes
    rollouts: int = Field(default=8, gt=1)  # a prompt
    micro_batch: int = Field(
        default=8, gt=0
    )  # rollouts at once in one forward and backward pass of one process
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_completion_tokens: int = Field(default=256, gt=0)
    beta: float = Field(default=0.04, ge=0)  # weight of the KL term to the start model
    loss_type: str = "grpo"  # the paper's: mean over a rollout's tokens, then over rollouts
    scale_rewards: bool | Literal["group", "batch", "none"] = "group"
    iterations: int = Field(default=1, gt=0)  # updates on the same rollouts
    weighting: str = "exp"  # difficulty weight: none, exp, power, log, or a registered name
    power_w: float = Field(default=1.0, ge=0)
    rewards: dict[str, float] = Field(
        default={"iou": 1.0, "format": 1.0}
    )  # "iou", "format" or a dotted path -> weight
    shared_prefix: Literal["auto", "on", "off"] = "auto"  # encode a group's prompt once
    rollout_page_every: int = Field(default=50, ge=0)  # steps between browsable pages of rollouts; 0: none
    vllm: Literal["off", "colocate", "server"] = "off"

    @field_validator("shared_prefix", "vllm", mode="before")
    @classmethod
    def _not_truth_values(cls, value: Any) -> Any:
        """YAML reads on and off as truth values."""
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


class Phase(Config):
    """A stretch of pretraining on one mixture: "family/style" -> its share (any positive numbers).

    Families are the world's; the style says how the prompt asks and what is answered: `direct`, `simple`,
    `think` (:mod:`univg.grounding.response`), or `describe` (name every thing with its box). "*/direct" stands for
    every family.
    """

    name: str
    steps: int = Field(gt=0)
    mixture: dict[str, float]
    rate: float = Field(default=1.0, gt=0)  # times the learning rates
    # The last part of the phase in which the rate falls to zero; none: the run's own decay is what counts.
    decay: float | None = Field(default=None, ge=0, le=1)
    difficulty: tuple[float, float] = (0.0, 0.8)


class PretrainConfig(Config):
    """Base training of the embedded model on the procedural world."""

    seed: int = 0
    start: str | None = None  # a checkpoint folder, or "embedded-base"; none: random weights
    prompt_style: Literal["direct", "think"] = "direct"  # what the saved checkpoint is asked for by default
    phases: tuple[Phase, ...] = (Phase(name="dense", steps=1000, mixture={"referring/describe": 1.0}),)
    batch: int = Field(48, gt=0)
    micro_batch: int = Field(16, gt=0)
    image_px: int = Field(120, ge=32)
    text: dict[str, int] = Field({})  # changes to the text model's configuration, e.g. {hidden_size: 256}
    matrix_lr: float = Field(0.01, gt=0)  # Muon, for the matrices inside the layers
    lr: float = Field(2e-3, gt=0)  # AdamW, for embeddings, norms, biases and the patch embedding
    weight_decay: float = Field(0.01, ge=0)
    warmup: int = Field(100, ge=0)
    decay: float = Field(0.4, ge=0, le=1)  # the last part of the run in which the rate falls linearly to zero
    box_weight: float = Field(2.0, gt=0)  # how much more a token inside a box counts
    dense_weight: float = Field(0.5, ge=0)  # the auxiliary head over image tokens; it is dropped at the end
    dense_layer: int = Field(2, ge=1)
    pointed_weight: float = Field(
        2.0, ge=0
    )  # the auxiliary head that reads a box before its digits are written
    box_layer: int = Field(4, ge=1)
    workers: int = Field(1, ge=0)
    bf16: bool = True
    save_every: int = Field(200, gt=0)
    eval_every: int = Field(500, ge=0)
    eval_samples: int = Field(16, gt=0)  # a family
    card_samples: int = Field(100, ge=0)  # a family, for the model card; 0: none is written
