"""Count a prompt's tokens: of images by the pixel budget, of text by a tokenizer or an estimate."""

from __future__ import annotations

import json
from collections.abc import Callable
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
FACTOR = 28


def make_counter(
    min_pixels: int, max_pixels: int, tokenizer: Path | None = None
) -> Callable[[GroundingSample, list[SizeWH]], int]:
    """Return what counts a sample's whole prompt, in the thinking style unless the sample carries none.

    Raises UnivgError for a pixel budget that cannot be, and for a folder without a tokenizer.
    """
    from univg.models.processor import PixelBudget  # transformers: only where images are measured

    try:
        budget = PixelBudget(min_pixels, max_pixels)
    except ValueError as error:
        raise UnivgError(error, remedy="see --min-pixels and --max-pixels") from error
    count_text = _estimate_text if tokenizer is None else _load_tokenizer(tokenizer)

    def count_image(size_wh: SizeWH) -> int:
        width, height = budget.resized(size_wh, FACTOR)
        return width * height // FACTOR**2 + MARKS_AN_IMAGE

    def count(sample: GroundingSample, sizes_wh: list[SizeWH]) -> int:
        prompt = render_prompt(sample.query, style_for(sample, "think"))
        return CHAT_TOKENS + count_text(prompt) + sum(map(count_image, sizes_wh))

    return count


def _estimate_text(text: str) -> int:
    return round(len(text.encode("utf-8", errors="replace")) / BYTES_A_TOKEN)


def _load_tokenizer(path: Path) -> Callable[[str], int]:
    from tokenizers import Tokenizer

    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        json.loads(file.read_text("utf-8"))
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:
        raise UnivgError(
            f"no tokenizer ({type(error).__name__})", file, "give a checkpoint's folder"
        ) from error
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
