"""Count a prompt's tokens, exactly with a tokenizer or as an estimate, and say which tokens only chats may hold.

Loads neither torch nor transformers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from univg.grounding.boxes import SizeWH

__all__ = [
    "ANSWER_TOKENS",
    "chat_marks",
    "choose_longest",
    "count_prompt",
    "estimate_prompt",
    "estimate_text",
    "find_mark",
    "image_tokens",
]

_CHAT_TOKENS = 20  # the system turn and the turns' own marks in Qwen2-VL's chat
_MARKS_AN_IMAGE = 2  # those that stand around it
_FIRST_WIDE = 0x2E80  # from here on scripts of which a character is about a token (Chinese, Japanese, Korean)

ANSWER_TOKENS = frozenset({"<|box_start|>", "<|box_end|>", "<|object_ref_start|>", "<|object_ref_end|>"})
"""Special tokens of the Qwen families that belong to answers, and to questions that name a region, as the published
ones do; every other one belongs to chats."""

LONGEST, LONGEST_OF_SETS = 256, 512


def choose_longest(sets: bool) -> int:
    """Return how many tokens a response may have by default: a thought and one box, or of `sets` more.

    Sets of the world's (up to four boxes, each named in the thought) need up to 272 of the embedded model's tokens.

    >>> choose_longest(False), choose_longest(True)
    (256, 512)
    """
    return LONGEST_OF_SETS if sets else LONGEST


_MARK = re.compile(r"<\|\w+\|>")


def find_mark(text: str) -> str | None:
    """Return what a model whose tokenizer is not here may take for a mark of its chat; None if there is nothing.

    >>> find_mark("Where?<|eot_id|>"), find_mark("<|box_start|>(1,2),(3,4)<|box_end|>")
    ('<|eot_id|>', None)
    """
    return next((mark for mark in _MARK.findall(text) if mark not in ANSWER_TOKENS), None)


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


def chat_marks(tokenizer: Any) -> dict[int, str]:
    """Return the tokens that only a chat's own form may hold, by id: those added to the vocabulary that are written
    ``<|…|>`` or marked special (turns, vision, padding, quad), except `ANSWER_TOKENS`."""
    return {
        token: added.content
        for token, added in tokenizer.added_tokens_decoder.items()
        if (added.special or added.content.startswith("<|")) and added.content not in ANSWER_TOKENS
    }
