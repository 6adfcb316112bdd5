"""How long a prompt is for the model: image tokens by the pixel budget, text tokens by a tokenizer or an estimate."""

from __future__ import annotations

import json
from pathlib import Path

from univg.errors import UnivgError
from univg.grounding.boxes import SizeWH
from univg.grounding.prompts import render_prompt, style_for
from univg.grounding.samples import GroundingSample

CHAT_TOKENS = 20
"""The system turn and the turns' own marks in Qwen2-VL's chat."""
MARKS_AN_IMAGE = 2
BYTES_A_TOKEN = 3.5
"""English takes about four bytes a token in Qwen2's vocabulary; a little less errs on the safe side."""


class TokenCounter:
    """Counts a prompt's tokens for a pixel budget. Both sides of a resized image are multiples of `factor`."""

    def __init__(
        self, min_pixels: int, max_pixels: int, tokenizer: Path | None = None, factor: int = 28
    ) -> None:
        from univg.models.processor import PixelBudget  # transformers: only where images are measured

        try:
            self._budget = PixelBudget(min_pixels, max_pixels)
        except ValueError as error:
            raise UnivgError(f"{error}: see --min-pixels and --max-pixels") from error
        self.factor = factor
        self._tokenizer = _tokenizer(tokenizer) if tokenizer is not None else None

    def image(self, size_wh: SizeWH) -> int:
        width, height = self._budget.resized(size_wh, self.factor)
        return width * height // self.factor**2 + MARKS_AN_IMAGE

    def text(self, prompt: str) -> int:
        if self._tokenizer is not None:
            return len(self._tokenizer.encode(prompt, add_special_tokens=False).ids)
        return round(len(prompt.encode("utf-8", errors="replace")) / BYTES_A_TOKEN)

    def prompt(self, sample: GroundingSample, sizes_wh: list[SizeWH]) -> int:
        """Of a sample's whole prompt, in the thinking style unless the sample carries none."""
        words = self.text(render_prompt(sample.query, style_for(sample, "think")))
        return CHAT_TOKENS + words + sum(map(self.image, sizes_wh))


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
