"""Count a prompt's tokens, exactly with a tokenizer or as an estimate, and find image marks that a text spells.

Loads neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from univg.errors import UnivgError
from univg.grounding.boxes import SizeWH

__all__ = [
    "check_image_marks",
    "count_prompt",
    "estimate_prompt",
    "estimate_text",
    "find_image_mark",
    "image_tokens",
]

_CHAT_TOKENS = 20  # the system turn and the turns' own marks in Qwen2-VL's chat
_MARKS_AN_IMAGE = 2  # those that stand around it
_FIRST_WIDE = 0x2E80  # from here on scripts of which a character is about a token (Chinese, Japanese, Korean)


class Marks(Protocol):
    """A processor, as far as it says what stands for an image and for a video in a prompt."""

    @property
    def image_token(self) -> str: ...

    @property
    def video_token(self) -> str: ...


def image_tokens(seen_wh: Iterable[SizeWH], factor: int) -> int:
    """Return how many tokens images take at the sizes that the model sees: one for each ``factor`` x ``factor``.

    >>> image_tokens([(56, 84), (28, 28)], 28)
    7
    """
    return sum((width // factor) * (height // factor) for width, height in seen_wh)


def count_prompt(tokenizer: Any, prompt: str, seen_wh: Sequence[SizeWH], factor: int) -> int:
    """Return how many tokens the model is given for ``prompt``, a rendered chat that holds one mark an image."""
    return len(tokenizer.encode(prompt)) - len(seen_wh) + image_tokens(seen_wh, factor)


def estimate_text(text: str) -> int:
    """Return about how many tokens a text has, rather too many: a token for three letters, or for one character
    of a script that needs that.

    >>> estimate_text("Where is the dog?"), estimate_text("狗在哪里?")
    (5, 4)
    """
    wide = sum(char >= chr(_FIRST_WIDE) for char in text)
    return (len(text) - wide) // 3 + wide


def estimate_prompt(
    text: str, seen_wh: Sequence[SizeWH], factor: int, count: Callable[[str], int] = estimate_text
) -> int:
    """Return about how many tokens a chat of one turn has: ``text`` by ``count``, images, and the marks of both."""
    return _CHAT_TOKENS + count(text) + image_tokens(seen_wh, factor) + _MARKS_AN_IMAGE * len(seen_wh)


def find_image_mark(text: str, processor: Marks) -> str | None:
    """Return the mark in ``text`` that stands for an image or a video in the model's prompts; None if there is none.

    A question that spells one would shift all images after it.
    """
    return next((mark for mark in (processor.image_token, processor.video_token) if mark in text), None)


def check_image_marks(text: str, processor: Marks, place: str = "") -> None:
    """Raise UnivgError for a question that spells what stands for an image in the model's prompts."""
    if mark := find_image_mark(text, processor):
        raise UnivgError(f"the question spells {mark}, which stands for an image", place, "leave it out")
