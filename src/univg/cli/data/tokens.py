"""Count a prompt's tokens: of images by the pixel budget, of text by a tokenizer or an estimate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from univg.errors import UnivgError
from univg.grounding.boxes import SizeWH
from univg.grounding.prompts import choose_style, render_prompt
from univg.grounding.samples import GroundingSample
from univg.models.pixels import PixelBudget
from univg.models.tokens import estimate_prompt, estimate_text

FACTOR = 28  # both sides of a resized image are multiples of it


def make_counter(
    min_pixels: int, max_pixels: int, tokenizer: Path | None = None
) -> Callable[[GroundingSample, list[SizeWH]], int]:
    """Return what counts a sample's whole prompt, in the thinking style unless the sample carries none.

    Raises UnivgError for a pixel budget that cannot be, and for a folder without a tokenizer.
    """
    try:
        budget = PixelBudget(min_pixels, max_pixels)
    except ValueError as error:
        raise UnivgError(error, remedy="see --min-pixels and --max-pixels") from error
    count_text = estimate_text if tokenizer is None else _load_tokenizer(tokenizer)

    def count(sample: GroundingSample, sizes_wh: list[SizeWH]) -> int:
        prompt = render_prompt(sample.query, choose_style(sample, "think"))
        seen_wh = [budget.resized(size_wh, FACTOR) for size_wh in sizes_wh]
        return estimate_prompt(prompt, seen_wh, FACTOR, count_text)

    return count


def _load_tokenizer(path: Path) -> Callable[[str], int]:
    from tokenizers import Tokenizer

    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        json.loads(file.read_text("utf-8"))
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more precise
        raise UnivgError(
            f"no tokenizer ({type(error).__name__})", file, "give a checkpoint's folder"
        ) from error
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
