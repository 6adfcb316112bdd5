"""Configs of an evaluation; free of torch, so that they parse at once."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from univg.config import Config
from univg.models.families import AskedStyle
from univg.models.temperature import GREEDY_BELOW, settle_temperature

__all__ = ["BenchmarkConfig", "EvaluateConfig", "ModelConfig", "ResponseConfig"]


class BenchmarkConfig(Config):
    """Which benchmark, and which of its samples."""

    section: ClassVar[str] = "Data"

    benchmark: str = Field(
        description="mig_bench, lisa_val, …, or world, world_unseen, world_drawn, … (drawn here, no files needed)."
    )
    data: Path | None = Field(default=None, description="The published file.")
    images: Path | None = Field(default=None, description="The folder of its images.")
    n: int | None = Field(
        default=None, ge=1, description="Samples of each task (default: all; of a world 50)."
    )
    task: tuple[str, ...] = Field(default=(), description="Only this task; repeat for several.")
    seed: int = Field(default=0, ge=0, description="Of the world's samples.")
    difficulty: float | None = Field(default=None, ge=0, le=1, description="Of the world's samples.")
    size: int | None = Field(
        default=None,
        ge=28,
        le=4096,
        description="Longer side of the world's images, pixels (default: 60 to 1000; of version 1 120).",
    )


class ResponseConfig(Config):
    """How responses are drawn."""

    section: ClassVar[str] = "Responses"

    samples: int = Field(default=1, ge=1, description="Draw k responses and score the box they agree on.")
    temperature: float | None = Field(
        default=None, ge=0, description="0 is greedy (default; with --samples above 1 it is 1)."
    )
    sampling_seed: int = Field(default=0, ge=0, description="Of the draws, where there is a temperature.")
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="Longest response, in tokens (default: 256; if any is a set 512)."
    )

    @model_validator(mode="after")
    def _draws_differ(self) -> Self:
        if self.samples > 1 and self.temperature is not None and not settle_temperature(self.temperature):
            raise ValueError(
                f"{self.samples} greedy samples would be equal: --samples: "
                f"give a --temperature of {GREEDY_BELOW:g} or above"
            )
        return self


class ModelConfig(Config):
    """Which model answers, here or behind a server."""

    section: ClassVar[str] = "Model"

    model: str | None = Field(
        default=None,
        description="A checkpoint folder or hub name (default: embedded; of a server its only one).",
    )
    style: AskedStyle | None = Field(
        default=None,
        description="How to ask; native: as stock models are (default: as the checkpoint was trained).",
    )
    max_pixels: int | None = Field(
        default=None, ge=784, description="Pixels of an image after the resize (default: the checkpoint's)."
    )
    batch_size: int = Field(default=32, ge=1, description="Responses at a time.")
    device: str | None = Field(
        default=None, description="cpu, cuda or cuda:1 (default: a GPU if there is one)."
    )
    dtype: str = Field(default="auto", description="auto, float32, bfloat16 or float16.")
    engine: Literal["local", "openai"] = Field(default="local", description="Who answers.")
    url: str | None = Field(default=None, description="The server's address, http://localhost:8000/v1.")
    family: str | None = Field(
        default=None,
        description="With --engine openai: the model's family (default: by its published name, else qwen2_vl).",
    )
    concurrency: int = Field(default=16, ge=1, description="Requests at a time.")
    timeout: float = Field(default=600.0, ge=0.1, description="Seconds for one request.")
    attempts: int = Field(default=6, ge=1, description="Tries for one request.")

    @model_validator(mode="after")
    def _server_has_address(self) -> Self:
        if self.engine == "openai" and self.url is None:
            raise ValueError("no address: --engine openai: give --url, such as http://localhost:8000/v1")
        return self


class EvaluateConfig(BenchmarkConfig, ResponseConfig, ModelConfig):
    """All that decides the rows of an evaluation.

    >>> EvaluateConfig(benchmark="world", n=2).batch_size
    32
    """
