"""Typed settings of `univg serve` and `univg web`, and the limits that follow from them. Loads no torch."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from univg.config import Config

__all__ = ["KEY_VARIABLE", "Limits", "ServeConfig", "WebConfig", "name_model"]

KEY_VARIABLE = "UNIVG_API_KEY"


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may take.

    `held` requests at a time, from the last byte of their body to the answer; more are refused (429), as are bodies
    of more than `buffered_bytes` in all that are being read at a time. `timeout_s` is for one request as a whole,
    `body_s` for its body to arrive, `images_s` of computing for its images, `body_bytes` for the body's length,
    `values` for what JSON is made of it, `parts` for those of all its messages. `megapixels` is for all its images
    together, `image_megapixels` for each, before they are resized. `rows` is the largest `n`.
    """

    held: int = 128
    body_bytes: int = 64 << 20
    body_s: float = 60.0
    buffered_bytes: int = 512 << 20
    timeout_s: float = 300.0
    images: int = 16
    images_s: float = 10.0
    image_megapixels: float = 40.0
    megapixels: float = 100.0
    new_tokens: int = 2048
    rows: int = 16
    messages: int = 64
    characters: int = 200_000
    stops: int = 4
    parts: int = 1000
    values: int = 100_000


class ServeConfig(Config):
    """Which checkpoint to serve, where, and what a request may take."""

    model: str = Field(default="embedded", description="A checkpoint folder or hub name.")
    host: str = Field(default="127.0.0.1", description="The address to listen on; 0.0.0.0 is every network.")
    port: int = Field(default=8000, ge=0, le=65535, description="0 takes a free one.")
    name: str | None = Field(
        default=None, description="The model's name in requests (default: the folder's or hub name)."
    )
    engine: Literal["univg", "vllm"] = Field(
        default="univg", description="Who answers: this process, or vLLM with these settings."
    )
    device: str | None = Field(
        default=None, description="cpu, cuda or cuda:1 (default: a GPU if there is one)."
    )
    dtype: str = Field(default="auto", description="auto, float32, bfloat16 or float16.")
    max_pixels: int | None = Field(
        default=None, ge=784, description="Pixels of an image after the resize (default: the checkpoint's)."
    )
    batch_size: int = Field(default=16, ge=1, description="Responses at a time.")
    max_new_tokens: int = Field(default=2048, ge=1, description="The largest max_tokens of a request.")
    max_images: int = Field(default=16, ge=0, description="Images of a request.")
    max_megapixels: float = Field(
        default=100.0, ge=0.01, description="Of all images of a request together, before the resize."
    )
    max_image_megapixels: float = Field(
        default=40.0,
        ge=0.01,
        description="Of one image; a JPEG of up to four times as many is read at half size.",
    )
    max_body_mb: int = Field(default=64, ge=1, description="MiB of a request.")
    max_requests: int = Field(default=128, ge=1, description="Requests at a time; more are refused (429).")
    timeout: float = Field(default=300.0, ge=0.1, description="Seconds for a request, waiting included.")
    log_level: Literal["error", "warning", "info", "debug"] = Field(
        default="info", description="What is logged; each request is a line of info."
    )
    api_key_env: str = Field(
        default=KEY_VARIABLE, description="The environment variable that holds the API key, if any."
    )
    vllm_arguments: tuple[str, ...] = Field(
        default=(), description="Arguments passed on to vLLM, with --engine vllm."
    )

    @model_validator(mode="after")
    def _passes_arguments_to_vllm_only(self) -> Self:
        if self.vllm_arguments and self.engine != "vllm":
            given = " ".join(self.vllm_arguments)
            raise ValueError(f"unknown arguments: {given}: only --engine vllm passes any on")
        return self

    @property
    def limits(self) -> Limits:
        """The limits of this process's own server."""
        return Limits(
            held=self.max_requests,
            body_bytes=self.max_body_mb << 20,
            buffered_bytes=max(512, 2 * self.max_body_mb) << 20,
            timeout_s=self.timeout,
            images=self.max_images,
            image_megapixels=self.max_image_megapixels,
            megapixels=self.max_megapixels,
            new_tokens=self.max_new_tokens,
            rows=self.batch_size,
        )

    @property
    def served_name(self) -> str:
        """The model's name in requests."""
        return self.name or name_model(self.model)

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class WebConfig(Config):
    """Which checkpoint to try in the browser, and where the page is."""

    model: str = Field(default="embedded", description="A checkpoint folder or hub name.")
    host: str = Field(default="127.0.0.1", description="The address to listen on; 0.0.0.0 is every network.")
    port: int = Field(default=7860, ge=1, le=65535, description="The port to listen on.")


def name_model(model: str) -> str:
    """Return a checkpoint's name in requests: a hub name without its revision, of a folder only the last part.

    >>> name_model("GD-ML/UniVG-R1@main"), name_model("embedded")
    ('GD-ML/UniVG-R1', 'embedded')
    """
    folder = Path(model).expanduser()
    return folder.resolve().name if folder.is_dir() else model.partition("@")[0]
