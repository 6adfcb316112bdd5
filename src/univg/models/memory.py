"""Estimate the memory that answering takes, from a model's shapes alone; what an estimate is.

Free of torch, so that a command can say in a second that a model does not fit. How close the numbers are to
measured peaks: `benchmarks/memory.py`, docs/experiments.md section 20.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from univg.models.pixels import PixelBudget
from univg.models.shapes import Shapes

__all__ = ["GIB", "Asked", "Estimate", "estimate_answering", "features", "format_bytes", "keys_and_values"]

GIB = 1 << 30
TEXT = 200
"""Tokens of a prompt beside its images': the chat's marks, the instruction of the paper's style, a question."""
ROOM = 128
"""Tokens by which a full cache is enlarged (:mod:`univg.models.generation.cache`)."""


@dataclass(frozen=True)
class Asked:
    """What one row holds: `images` pictures of `pixels` each, as the model sees them, `text` tokens, and an answer."""

    images: int
    pixels: int
    text: int = TEXT
    answer: int = 256

    def prompt(self, shapes: Shapes, at_most: int | None = None) -> int:
        """Return the prompt's tokens; `at_most` is the limit at which pictures are shrunk."""
        tokens = self.text + self.images * (math.ceil(self.pixels / shapes.vision.factor**2) + 2)
        return tokens if at_most is None else max(1, min(tokens, at_most))

    @classmethod
    def largest(cls, images: int, budget: PixelBudget, side: int | None = None, answer: int = 256) -> Asked:
        """Return what is asked with pictures as large as `budget` lets them be, or with squares of `side` pixels."""
        pixels = budget.max_pixels if side is None else side**2
        return cls(images, min(max(pixels, budget.min_pixels), budget.max_pixels), answer=answer)


@dataclass(frozen=True)
class Estimate:
    """The peak of one process, in bytes: what is there at that moment, part by part, and `when` it is."""

    parts: Mapping[str, int]
    when: str

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def format_bytes(count: float) -> str:
    """Return a number of bytes in GiB, as cards and `free` count.

    >>> format_bytes(16 * 2**30), format_bytes(2**28)
    ('16.0 GiB', '0.25 GiB')
    """
    gib = count / GIB
    return f"{gib:.2f} GiB" if gib < 10 else f"{gib:.1f} GiB"


def keys_and_values(shapes: Shapes, tokens: int, size: int) -> int:
    """Return the bytes of keys and values of `tokens` at `size` bytes a number."""
    return 2 * shapes.text.layers * shapes.text.keys * tokens * size


def features(shapes: Shapes, tokens: int, size: int) -> int:
    """Return the bytes that the vision tower has at once while it reads pictures of `tokens`, without gradients:
    pixels, the residual stream, one block's inner values, and what it makes of them."""
    vision, patches = shapes.vision, tokens * shapes.vision.merge**2
    pixels = 4 * 6 * vision.side**2  # three colours, two times, in float32
    block = max(2 * vision.inner + 2 * vision.hidden, 9 * vision.hidden)
    return patches * (pixels + block * size)


def reading(shapes: Shapes, tokens: int, size: int) -> int:
    """Return the bytes that one layer has at once while it reads `tokens`, without gradients."""
    text = shapes.text
    block = max(3 * text.inner, 4 * text.queries + 4 * text.keys) + 4 * text.hidden
    return tokens * block * size


def estimate_answering(shapes: Shapes, asked: Asked, rows: int = 1, size: int = 4) -> Estimate:
    """Estimate the peak while `rows` questions are answered at once by weights of `size` bytes a number."""
    prompt = asked.prompt(shapes)
    seen = prompt - asked.text
    cache = keys_and_values(shapes, rows * (prompt + ROOM * math.ceil(asked.answer / ROOM)), size)
    logits = rows * shapes.text.vocabulary * (4 + 4 + size)
    before = {
        "weights": shapes.parameters * size,
        "keys and values": cache,
        "reading the prompt": max(
            reading(shapes, rows * prompt, size), features(shapes, rows * seen, size) - cache
        ),
        "logits": logits,
    }
    return Estimate(before, "while prompts are read")
