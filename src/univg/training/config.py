"""Configs of `univg pretrain`, `univg sft` and `univg grpo`; free of torch, so that they parse at once.

What univg decides is a field here. What TRL and transformers decide stays theirs: `trainer` passes their own
arguments through, those that reach something (:mod:`univg.training.trainer_keys`).
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from univg.config import Config, fault_at
from univg.grounding.prompts import PromptStyle
from univg.models.temperature import GREEDY_BELOW
from univg.training.sources import IMAGE_PX, DataSource, ImagePx, Validation, check_sizes
from univg.training.trainer_rules import check_keys, check_together

__all__ = [
    "DataSource",
    "GrpoConfig",
    "LoraSettings",
    "Phase",
    "PixelLimits",
    "PretrainConfig",
    "SftConfig",
    "StageConfig",
    "Validation",
]

LANGUAGE_LINEAR = "all-linear-language"


class LoraSettings(Config):
    """Low-rank adapters. `target` is "all-linear-language" (every linear layer of the language model) or names."""

    r: int = Field(default=16, gt=0, description="The rank.")
    alpha: float = Field(default=32.0, gt=0, description="The scale, divided by the rank.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Of the adapters' inputs.")
    target: str | tuple[str, ...] = Field(
        default=LANGUAGE_LINEAR,
        description='"all-linear-language" (every linear layer of the language model), or names of layers.',
    )
    quantize: Literal["none", "nf4"] = Field(
        default="none",
        description="Hold the frozen layers of the language model in 4 bits (QLoRA, by bitsandbytes).",
    )

    @field_validator("target", mode="before")
    @classmethod
    def _names_layers(cls, value: Any) -> Any:
        names = [value] if isinstance(value, str) else value
        if (
            not isinstance(names, (list, tuple))
            or not names
            or not all(isinstance(n, str) and n for n in names)
        ):
            raise ValueError(f"write {LANGUAGE_LINEAR} or names of layers, such as [q_proj, v_proj]")
        if "lm_head" in names:
            raise ValueError(
                "the head cannot have an adapter, because TRL computes the loss from its weights"
            )
        return value


class PixelLimits(Config):
    """How many pixels an image may have once resized; the paper's by default."""

    min_pixels: int = Field(default=3136, gt=0, description="Smaller images are enlarged.")
    max_pixels: int = Field(default=401408, gt=0, description="Larger images are shrunk.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_pixels > self.max_pixels:
            why = f"is below min_pixels={self.min_pixels}: give 0 < min_pixels <= max_pixels"
            raise fault_at(("max_pixels",), why, self.max_pixels)
        return self


class StageConfig(Config):
    """Settings that both stages share."""

    model: str = Field(
        default="embedded-base",
        min_length=1,
        description="The start: an embedded name, a checkpoint's folder, or a hub name.",
    )
    data: tuple[DataSource, ...] = Field(
        default=(DataSource(),), min_length=1, description="The mixture that samples are drawn from."
    )
    validation: Validation | None = Field(
        default=None, description="What the run is scored on while it learns; none: nothing."
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Of the data's order and of all draws.")
    prompt_style: PromptStyle = Field(default="think", description="How the saved checkpoint is asked.")
    pixel_budget: PixelLimits | None = Field(
        default=None, description="Pixels of an image after the resize; none: as stored with the model."
    )
    max_tokens: int | None = Field(
        default=None,
        gt=0,
        description="Most tokens of prompt and response together; larger prompts have their images shrunk.",
    )
    max_dropped: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="The largest share of a file's records that may be of no use; above it the run is refused.",
    )
    freeze_vision: bool = Field(
        default=True, description="Leave the vision tower, with its merger, as it is."
    )
    lora: LoraSettings | None = Field(
        default=None, description="Low-rank adapters; none: train all weights that are not frozen."
    )
    bf16: bool = Field(
        default=True,
        description="Compute in bfloat16 (autocast) where the device is quicker in it; with LoRA the frozen weights "
        "are held in it too.",
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Recompute activations: less memory, more time."
    )
    epochs: float = Field(default=1.0, gt=0, description="Times all samples of the sources; max_steps wins.")
    max_steps: int | None = Field(default=None, gt=0, description="Stop after so many steps.")
    learning_rate: float = Field(default=1e-5, gt=0, description="Its peak.")
    warmup_ratio: float = Field(
        default=0.0, ge=0, le=1, description="The share of steps in which the rate rises."
    )
    save_every: int = Field(default=100, gt=0, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(
        default=2, gt=0, description="How many are kept; two, so that a torn last one has a predecessor."
    )
    save_bf16: bool = Field(
        default=True,
        description="Write the final weights in bfloat16 if they were trained so; checkpoints hold full precision.",
    )
    workers: int = Field(default=1, ge=0, description="Processes that draw and preprocess data.")
    check_memory: bool = Field(
        default=True, description="Refuse a run that by its estimate takes far more memory than is there."
    )
    trainer: dict[str, Any] = Field(
        default={}, description="Arguments of TRL and transformers, passed through."
    )

    @field_validator("data", mode="before")
    @classmethod
    def _list_of_sources(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise ValueError("write a list of sources, such as [{reader: auto, path: FILE}]")
        return value

    @field_validator("validation", mode="before")
    @classmethod
    def _says_of_what(cls, value: Any) -> Any:
        if value is not None and not isinstance(value, (dict, Validation)):
            raise ValueError("write a mapping, such as {share: 0.1} or {path: FILE, images: FOLDER}")
        return value

    @field_validator("prompt_style", mode="before")
    @classmethod
    def _is_of_one_family(cls, value: Any) -> Any:
        if value == "native":
            raise ValueError(
                "native is json for Qwen2.5-VL and Qwen3-VL and marks for Qwen2-VL: say which of the two"
            )
        return value

    @field_validator("lora", mode="before")
    @classmethod
    def _take_truth_values(cls, value: Any) -> Any:
        """`lora: true` is what somebody writes who has no wishes as to the rank."""
        return {True: LoraSettings(), False: None}[value] if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _passed_arguments_fit(self) -> Self:
        check_together(self)
        return self


class SftConfig(StageConfig):
    """Stage 1: supervised fine-tuning on thoughts; with `prompt_style: direct`, on boxes alone."""

    batch: int = Field(default=24, gt=0, description="Samples a step, over all processes.")
    micro_batch: int = Field(default=1, gt=0, description="Of them at once in one process.")
    matrix_learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="Its peak for the matrices inside the layers, which then learn by Muon, the rest by AdamW; none: "
        "AdamW for all.",
    )
    mirror: bool = Field(
        default=False,
        description="Show the pictures of a sample mirrored, left to right and upside down, by chance: for questions "
        "that name no side.",
    )

    @field_validator("trainer")
    @classmethod
    def _reach_something(cls, given: dict[str, Any]) -> dict[str, Any]:
        return check_keys("sft", given)


class GrpoConfig(StageConfig):
    """Stage 2: group-relative policy optimisation with difficulty weights (paper, section 3.3)."""

    learning_rate: float = Field(default=1e-6, gt=0, description="Its peak.")
    prompts_per_step: int = Field(default=16, gt=0, description="Prompts a step, over all processes.")
    rollouts: int = Field(default=8, gt=1, description="Responses drawn to each prompt: the group.")
    micro_batch: int = Field(
        default=8, gt=0, description="Rollouts at once in one forward and backward pass of one process."
    )
    temperature: float = Field(
        default=1.0, ge=GREEDY_BELOW, le=100, description="Of the rollouts; lower would make a group's equal."
    )
    top_p: float = Field(default=1.0, gt=0, le=1, description="Of the rollouts.")
    max_completion_tokens: int = Field(default=256, gt=0, description="Longest rollout.")
    beta: float = Field(default=0.04, ge=0, description="Weight of the KL term to the start model.")
    rows_at_once: int | None = Field(
        default=None,
        gt=0,
        description="Rollouts drawn together in one process; none: all of a step. Fewer take less memory, and longer.",
    )
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = Field(
        default="grpo",
        description="TRL's name of the loss; the paper's is the mean over a rollout's tokens, then over rollouts.",
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        default="group",
        description="What a group's advantages are divided by: its spread, the batch's, or nothing.",
    )
    iterations: int = Field(default=1, gt=0, description="Updates on the same rollouts.")
    weighting: str = Field(
        default="exp",
        description="Difficulty weight of a group: exp, power, log, none, or the dotted path of a function.",
    )
    power_w: float = Field(default=1.0, ge=0, description="The exponent w of power.")
    even_weights: bool = Field(
        default=False,
        description="Divide the weights of a step's groups by their mean: they then say which groups count, and "
        "not how much the rewards weigh against the KL term.",
    )
    rewards: dict[str, float] = Field(
        default={"iou": 1.0, "format": 1.0},
        description='"iou" ("set_f1" is the same), "image", "format" or the dotted path of a function, each with its '
        "weight.",
    )
    shared_prefix: Literal["auto", "on", "off"] = Field(
        default="auto", description="Encode a group's prompt and images once."
    )
    rollout_page_every: int = Field(
        default=50, ge=0, description="Steps between browsable pages of rollouts; 0: none."
    )
    vllm: Literal["off", "colocate", "server"] = Field(
        default="off", description="Draw rollouts by vLLM, in this process or by a server."
    )

    @field_validator("shared_prefix", "vllm", mode="before")
    @classmethod
    def _not_truth_values(cls, value: Any) -> Any:
        """YAML reads on and off as truth values."""
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value

    @field_validator("scale_rewards", mode="before")
    @classmethod
    def _truth_values_of_trl(cls, value: Any) -> Any:
        return {True: "group", False: "none"}[value] if isinstance(value, bool) else value

    @field_validator("rewards")
    @classmethod
    def _reward_something(cls, weights: dict[str, float]) -> dict[str, float]:
        for name in ("iou", "set_f1", "image", "format"):
            if weights.get(name, 0) < 0:
                raise fault_at(
                    (name,), "a negative weight would reward missing the box or the form", weights[name]
                )
        if not any(weights.values()):
            raise ValueError("no reward has a weight: give at least one, such as {iou: 1.0, format: 1.0}")
        return weights

    @field_validator("trainer")
    @classmethod
    def _reach_something(cls, given: dict[str, Any]) -> dict[str, Any]:
        return check_keys("grpo", given)

    @model_validator(mode="after")
    def _leave_room_for_a_prompt(self) -> Self:
        if self.max_tokens is not None and self.max_tokens <= self.max_completion_tokens:
            why = f"counts the rollout too, which may have max_completion_tokens={self.max_completion_tokens}: raise it"
            raise fault_at(("max_tokens",), why, self.max_tokens)
        return self


class Phase(Config):
    """A stretch of pretraining on one mixture: "family/style" -> its share (any positive numbers).

    Families are the world's; the style says how the prompt asks and what is answered: `direct`, `simple`,
    `think` (:mod:`univg.grounding.response`), or `describe` (name every thing with its box). "*/direct" stands for
    every family.
    """

    name: str = Field(description="For logs.")
    steps: int = Field(gt=0, description="Its length.")
    mixture: dict[str, float] = Field(description='"family/style" and its share.')
    rate: float = Field(default=1.0, gt=0, description="Times the learning rates.")
    decay: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="The last part of the phase in which the rate falls to zero; none: the run's own decay counts.",
    )
    difficulty: tuple[float, float] = Field(default=(0.0, 0.8), description="Drawn evenly between the two.")


class PretrainConfig(Config):
    """Base training of the embedded model on the procedural world."""

    seed: int = Field(default=0, description="Of the weights and the data.")
    start: str | None = Field(
        default=None, description='A checkpoint folder, or "embedded-base"; none: random weights.'
    )
    prompt_style: Literal["direct", "think"] = Field(
        default="direct", description="How the saved checkpoint is asked by default."
    )
    phases: tuple[Phase, ...] = Field(
        default=(Phase(name="dense", steps=1000, mixture={"referring/describe": 1.0}),),
        description="Stretches of training, one after the other.",
    )
    max_minutes: float | None = Field(
        default=None,
        gt=0,
        description="A limit of time: the phases then are shares of it, if the machine is too slow for their steps.",
    )
    batch: int = Field(default=48, gt=0, description="Samples a step, of all processes.")
    micro_batch: int = Field(default=16, gt=0, description="Of them at once, in each process.")
    image_px: ImagePx = Field(default=None, description=IMAGE_PX)
    world_version: Literal[1, 2] = Field(default=2, description="The world's; 1 is the first one.")
    text: dict[str, int] = Field(
        default={}, description="Changes to the text model's configuration, e.g. {hidden_size: 256}."
    )
    matrix_lr: float = Field(default=0.01, gt=0, description="Of Muon, for the matrices inside the layers.")
    lr: float = Field(
        default=2e-3, gt=0, description="Of AdamW, for embeddings, norms, biases and the patch embedding."
    )
    weight_decay: float = Field(default=0.01, ge=0, description="Of both.")
    warmup: int = Field(default=100, ge=0, description="Steps in which the rates rise.")
    decay: float = Field(
        default=0.4,
        ge=0,
        le=1,
        description="The last part of the run in which the rates fall linearly to zero.",
    )
    box_weight: float = Field(default=2.0, gt=0, description="How much more a token inside a box counts.")
    dense_weight: float = Field(
        default=0.5, ge=0, description="Of the auxiliary head over image tokens, which is dropped at the end."
    )
    dense_layer: int = Field(default=2, ge=1, description="The layer that this head reads.")
    pointed_weight: float = Field(
        default=2.0, ge=0, description="Of the auxiliary head that reads a box before its digits are written."
    )
    box_layer: int = Field(default=4, ge=1, description="The layer that this head reads.")
    workers: int = Field(default=1, ge=0, description="Data workers of each process.")
    bf16: bool = Field(
        default=True, description="Compute in bfloat16 (autocast) where the device is quicker in it."
    )
    save_every: int = Field(default=200, gt=0, description="Steps between saved states.")
    eval_every: int = Field(
        default=500, ge=0, description="Steps between scores on held-out samples; 0: none."
    )
    eval_samples: int = Field(default=16, gt=0, description="Of each family, for these scores.")
    card_samples: int = Field(
        default=100, ge=0, description="Of each family, for the model card; 0: none is written."
    )

    @model_validator(mode="after")
    def _sizes_in_order(self) -> Self:
        check_sizes(self.image_px, self.world_version)
        return self
