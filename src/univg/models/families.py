"""What all checkpoints of a model family share: what they write, how stock ones are asked, how large they see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from univg.errors import UnivgError, offer
from univg.grounding.coordinates import Frame
from univg.grounding.prompts import SETS, PromptStyle, style_of_sets
from univg.models.pixels import PixelBudget

__all__ = ["MODEL_FAMILIES", "STOCK_TOKENS", "AskedStyle", "ModelFamily", "settle_style"]

AskedStyle: TypeAlias = Literal[PromptStyle, "native"]
"""What a user may ask for: a style, or ``native``, which is that of the family's stock models."""

STOCK_TOKENS = 1280
"""The most visual tokens of an image where a stock model's own files allow more: the upper bound that Qwen's own
model cards give as an example (256 to 1280). Their files allow up to 16,384, too many for a processor without a GPU."""


@dataclass(frozen=True)
class ModelFamily:
    """What all checkpoints of one `model_type` share.

    `frame` is what they write: "permille" is integers 0-1000 of the image's width and height, "pixel" is
    pixels of the image *after* the processor's resize. `architecture` is the class in transformers. `factor`:
    images are resized to multiples of this; a checkpoint's own patches say the same, a server's name does not.
    `processor` and `image_processor` are the classes that its published files name.
    `native`: how stock models of the family are asked. `stock_min_pixels`: the least of an image in their files.
    """

    model_type: str
    frame: Frame
    architecture: str
    factor: int = 28
    processor: str = "Qwen2VLProcessor"
    image_processor: str = "Qwen2VLImageProcessor"
    native: PromptStyle = "json"
    stock_min_pixels: int = 3136

    @property
    def stock_budget(self) -> PixelBudget:
        """The pixel budget of a stock model whose files are not at hand."""
        return PixelBudget(self.stock_min_pixels, self.stock_max_pixels)

    @property
    def stock_max_pixels(self) -> int:
        """`STOCK_TOKENS`, in pixels."""
        return STOCK_TOKENS * self.factor**2


MODEL_FAMILIES: Mapping[str, ModelFamily] = {
    "qwen2_vl": ModelFamily("qwen2_vl", "permille", "Qwen2VLForConditionalGeneration", native="marks"),
    "qwen2_5_vl": ModelFamily(
        "qwen2_5_vl", "pixel", "Qwen2_5_VLForConditionalGeneration", processor="Qwen2_5_VLProcessor"
    ),
    "qwen3_vl": ModelFamily(
        "qwen3_vl",
        "permille",
        "Qwen3VLForConditionalGeneration",
        factor=32,
        processor="Qwen3VLProcessor",
        image_processor="Qwen2VLImageProcessorFast",
        stock_min_pixels=65536,
    ),
}


def settle_style(style: AskedStyle, family: ModelFamily, sets: bool = False) -> PromptStyle:
    """Return the style that is meant, "native" being the family's own; for `sets` the one that asks for every box.

    >>> [settle_style("native", family) for family in MODEL_FAMILIES.values()]
    ['marks', 'json', 'json']
    >>> settle_style("native", MODEL_FAMILIES["qwen3_vl"], sets=True)
    'set_json'

    Errors: UnivgError for a style that there is not.
    """
    known = get_args(AskedStyle)
    if style not in known:
        raise UnivgError(f"no prompt style {style!r}", remedy=offer(style, known))
    settled = family.native if style == "native" else style
    return style_of_sets(settled) if sets and settled not in SETS else settled
