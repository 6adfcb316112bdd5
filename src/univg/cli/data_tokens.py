"""Count a prompt's tokens: images by the pixel budget, text by a tokenizer or an estimate."""

from __future__ import annotations

import json
from pathlib import Path

from univg.errors import UnivgError
from univg.grounding.boxes import SizeWH
from univg.grounding.prompts import render_prompt, style_for
from univg.grounding.samples import GroundingSample
from univg.models.pixels import PixelBudget
from univg.models.tokens import estimate_prompt, estimate_text


class TokenCounter:
    """Counts a prompt's tokens for a pixel budget. Both sides of a resized image are multiples of `factor`."""

    def __init__(
        self, min_pixels: int, max_pixels: int, tokenizer: Path | None = None, factor: int = 28
    ) -> None:
        try:
            self._budget = PixelBudget(min_pixels, max_pixels)
        except ValueError as error:
            raise UnivgError(f"{error}: see --min-pixels and --max-pixels") from error
        self.factor = factor
        self._tokenizer = _tokenizer(tokenizer) if tokenizer is not None else None

    def _text(self, prompt: str) -> int:
        if self._tokenizer is None:
            return estimate_text(prompt)
        return len(self._tokenizer.encode(prompt, add_special_tokens=False).ids)

    def prompt(self, sample: GroundingSample, sizes_wh: list[SizeWH]) -> int:
        """Count a sample's whole prompt, in the thinking style unless the sample carries none."""
        prompt = render_prompt(sample.query, style_for(sample, "think"))
        seen_wh = [self._budget.resized(size_wh, self.factor) for size_wh in sizes_wh]
        return estimate_prompt(prompt, seen_wh, self.factor, self._text)


def _tokenizer(path: Path):  # type: ignore[no-untyped-def]  # the package has no types
    from tokenizers import Tokenizer

    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        json.loads(file.read_text("utf-8"))
        return Tokenizer.from_file(str(file))
    except Exception as error:
        raise UnivgError(
            f"no tokenizer ({type(error).__name__}): {file}: give a checkpoint's folder"
        ) from error
