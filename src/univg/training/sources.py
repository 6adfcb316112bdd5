"""Configs of where samples come from: the mixture that is learnt from, and what a run is scored on; free of torch."""

from __future__ import annotations

from typing import Any, Literal, Self, TypeAlias

from pydantic import Field, field_validator, model_validator

from univg.config import Config, fault_at
from univg.grounding.prompts import PromptStyle

__all__ = ["IMAGE_PX", "DataSource", "ImagePx", "SampleSource", "Validation", "check_sizes"]


ImagePx: TypeAlias = int | tuple[int, int] | None
IMAGE_PX = (
    "Of the world: the images' longer side, or in version 2 the least and the greatest, [60, 240]; none: 120 in "
    "version 1, 60 to 240 in version 2."
)


class SampleSource(Config):
    """Samples of the procedural world, or of a file that a reader of `univg.data.readers` reads."""

    reader: str = Field(
        default="world",
        description='"world", "auto" (told by the file\'s fields), or the name of a format (`univg data formats`).',
    )
    path: str | None = Field(default=None, description="The file; none for the world.")
    images: str | None = Field(default=None, description="The folder that image paths are relative to.")
    prompt_style: PromptStyle | None = Field(
        default=None,
        description='How samples are asked; none: as the stage, and "simple" for samples without thinking. Sets are '
        "asked in the style of sets that goes with it.",
    )
    seed: int = Field(default=0, ge=0, description="Another seed draws other samples of the world.")
    split: Literal["train", "test", "unseen"] = Field(
        default="train", description="Of the world: which disjoint part."
    )
    families: dict[str, float] | tuple[str, ...] | None = Field(
        default=None, description="Of the world: task families, with shares or equally; none: all, equally."
    )
    difficulty: tuple[float, float] = Field(
        default=(0.0, 0.7), description="Of the world: drawn evenly between the two."
    )
    image_px: ImagePx = Field(default=None, description=IMAGE_PX)
    world_version: Literal[1, 2] = Field(default=2, description="Of the world: 1 is the first one.")

    @field_validator("families", mode="before")
    @classmethod
    def _list_or_shares(cls, value: Any) -> Any:
        if value is not None and not isinstance(value, (dict, list, tuple)):
            raise ValueError(f"write a list, such as [{value}], or shares, such as {{{value}: 1}}")
        if value is not None and not value:
            raise ValueError("names no task family; leave it out for all of them")
        shares = list(value.values()) if isinstance(value, dict) else []
        are_numbers = shares and all(isinstance(share, (int, float)) for share in shares)
        if are_numbers and not (all(share >= 0 for share in shares) and sum(shares) > 0):
            raise ValueError("shares are not negative, and one is above zero")
        return value

    @model_validator(mode="after")
    def _sizes_in_order(self) -> Self:
        check_sizes(self.image_px, self.world_version)
        return self

    @field_validator("difficulty", mode="before")
    @classmethod
    def _two_numbers(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            raise ValueError("write two numbers between 0 and 1, such as [0.0, 0.7]")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.reader == "world" and self.path is not None:
            why = "the world is drawn, not read: give path with a reader ('auto' tells it by the file)"
            raise fault_at(("path",), why, self.path)
        low, high = self.difficulty
        if not 0 <= low <= high <= 1:
            why = "write two numbers with 0 <= first <= second <= 1"
            raise fault_at(("difficulty",), why, self.difficulty)
        if self.reader == "world" and self.images is not None:
            raise fault_at(("images",), "the world's pictures are drawn: give a reader and a path too", "")
        return self


class DataSource(SampleSource):
    """One part of the mixture that is learnt from.

    Of all samples drawn, a share of `weight` over the sum of weights comes from this source. A file's samples
    come in a new random order each time round; none comes twice before all have come once.
    """

    weight: float = Field(
        default=1.0, gt=0, description="The share of samples drawn from this source, relative to the others."
    )
    count: int | None = Field(
        default=None, gt=0, description="At most so many different samples; none: all (the world has no end)."
    )

    @model_validator(mode="after")
    def _names_a_file(self) -> Self:
        if self.reader != "world" and self.path is None:
            raise fault_at(("reader",), f"reader {self.reader!r} needs a path", self.reader)
        return self


class Validation(SampleSource):
    """What a run is scored on while it learns: a `share` of the photographs it was given, a file, or the world.

    The model answers `n` questions, greedily, before the first step, every `every` steps and after the last one. The
    finished model is that of the step with the best Acc@0.5, of equal ones that with the best mean IoU.
    """

    share: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Hold out so many of the files' samples, divided so that no picture is on both sides.",
    )
    reader: str = Field(
        default="auto", description='"auto" (told by the file\'s fields), the name of a format, or "world".'
    )
    split: Literal["train", "test", "unseen"] = Field(
        default="test", description="Of the world: which disjoint part."
    )
    every: int = Field(default=50, gt=0, description="Steps between scores.")
    n: int = Field(default=100, gt=0, description="At most so many questions, always the same.")
    keep_best: bool = Field(
        default=True,
        description="Whether the finished model is that of the best step; else it is that of the last.",
    )
    max_new_tokens: int = Field(default=256, gt=0, description="Longest answer.")
    batch_size: int = Field(default=16, gt=0, description="Answers at a time in one process.")

    @model_validator(mode="after")
    def _names_one_origin(self) -> Self:
        if self.share is not None and (self.path or self.reader == "world"):
            raise fault_at(("share",), "it is held out of data: give share, or path, not both", self.share)
        if self.share is None and self.reader != "world" and self.path is None:
            why = "of what? give share (such as 0.1 of data), or path and images of a file, or reader=world"
            raise fault_at((), why, None)
        return self


def check_sizes(image_px: ImagePx, version: int) -> None:
    """Raise for sizes out of bounds or order, and for two of them in a world that has pictures of one size."""
    sides = image_px if isinstance(image_px, tuple) else () if image_px is None else (image_px,)
    if any(not 28 <= side <= 4096 for side in sides):
        raise fault_at(("image_px",), "write pixels from 28 to 4096", image_px)
    if isinstance(image_px, tuple) and version == 1:
        raise fault_at(("image_px",), "pictures of version 1 have one size: give one number", image_px)
    if isinstance(image_px, tuple) and image_px[0] > image_px[1]:
        raise fault_at(("image_px",), "write the least and the greatest, such as [60, 240]", image_px)
