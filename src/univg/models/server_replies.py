"""Read what a server with OpenAI's chat interface replies: what the interface promises, or a fault with a name.

Servers answer status 200 with all kinds of things when they fail, and some mean no good: nothing here is taken for
granted of a reply but that it is bytes, and not too many.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args

from univg.grounding.prompts import PromptStyle

__all__ = [
    "BrokenReply",
    "Reply",
    "ends_stream",
    "read_complaint",
    "read_models",
    "read_pieces",
    "read_reply",
]

_MOST_TOKENS = 10**9  # what no reply can hold; a larger count is none
_DONE = b"[DONE]"


class BrokenReply(Exception):
    """A reply that is not what the interface promises."""


@dataclass(frozen=True)
class Reply:
    """`texts` as many as were asked for, and whether the limit cut each off. Tokens are of the whole request,
    None if the server does not say."""

    texts: tuple[str, ...]
    truncated: tuple[bool, ...]
    prompt_tokens: int | None
    completion_tokens: int | None


def read_reply(content: bytes, samples: int) -> Reply:
    """Read a reply that came as a whole. Raises BrokenReply."""
    reply = _read_object(content)
    choices = reply.get("choices")
    if not isinstance(choices, list) or len(choices) != samples:
        found = len(choices) if isinstance(choices, list) else "no"
        raise BrokenReply(f"{found} choices where {samples} were asked for{_quote_error(reply)}")
    texts = tuple(_read_text(choice, "message") for choice in choices)
    return Reply(texts, tuple(choice.get("finish_reason") == "length" for choice in choices), *_usage(reply))


def read_pieces(content: bytes, samples: int) -> Reply:
    """Read a reply that came piece by piece, as server-sent events. Raises BrokenReply."""
    texts: list[list[str]] = [[] for _ in range(samples)]
    ends: list[object] = [None] * samples
    used: tuple[int | None, int | None] = (None, None)
    for line in content.splitlines():
        if not line.startswith(b"data:"):
            continue
        data = line.removeprefix(b"data:").strip()
        if data == _DONE:
            break
        piece = _read_object(data)
        if piece.get("usage") is not None:
            used = _usage(piece)
        choices = piece.get("choices") or []
        if not isinstance(choices, list) or piece.get("error"):
            raise BrokenReply(f"a piece without choices{_quote_error(piece)}")
        for choice in choices:
            text = _read_text(choice, "delta")
            index = choice.get("index", 0)
            if type(index) is not int or not 0 <= index < samples:
                raise BrokenReply(f"a piece of no choice of the {samples} that were asked for")
            texts[index].append(text)
            ends[index] = choice.get("finish_reason") or ends[index]
    if None in ends:
        raise BrokenReply("the stream ended before the answer did")
    return Reply(tuple("".join(text) for text in texts), tuple(end == "length" for end in ends), *used)


def ends_stream(content: bytes | bytearray) -> bool:
    """Return whether these bytes end with the event after which no other comes, though the connection be open.

    >>> ends_stream(b"data: [DONE]\\n\\n"), ends_stream(b"data: {}\\n\\n")
    (True, False)
    """
    last = content[-40:].rstrip().rpartition(b"\n")[2]
    return last.startswith(b"data:") and last.removeprefix(b"data:").strip() == _DONE


def read_models(content: bytes) -> dict[str, Mapping[str, Any]]:
    """Read what a server says of each model that it serves, by name: `root`, what it was loaded from, and of
    `univg serve` under `univg` how it is asked. Raises BrokenReply."""
    cards = _read_object(content).get("data")
    if not isinstance(cards, list):
        raise BrokenReply("no list of models")
    models: dict[str, Mapping[str, Any]] = {}
    for card in cards:
        name = card.get("id") if isinstance(card, dict) else None
        if not isinstance(name, str):
            raise BrokenReply("a model without a name")
        root, stated = card.get("root"), card.get("univg")
        if stated is not None and not _is_usable(stated):
            raise BrokenReply(
                f"it says of {name[:60]} how it is asked, but not in a way that can be understood"
            )
        models[name] = {"root": root if isinstance(root, str) and root else name, "univg": stated or {}}
    return models


def read_complaint(content: bytes) -> str:
    """Return the words of a reply that reports an error, whatever its form."""
    try:
        reply = _read_object(content)
    except BrokenReply:
        return content[:1000].decode("utf-8", "replace")
    return _read_words(reply.get("error", reply))


def _is_usable(stated: object) -> bool:
    """Return whether what `univg serve` says of a model is of the right kinds; any of it may be missing."""
    if not isinstance(stated, dict):
        return False
    numbers = [stated.get(name, 1) for name in ("factor", "min_pixels", "max_pixels")]
    least, most = numbers[1:]
    return (
        all(type(number) is int and 0 < number < 2**31 for number in numbers)
        and ("max_pixels" not in stated or least <= most)
        and all(isinstance(stated.get(name, ""), str) for name in ("family", "frame", "engine"))
        and (stated.get("prompt_style") or "think") in get_args(PromptStyle)
    )


def _read_object(content: bytes) -> dict[str, Any]:
    try:
        reply = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BrokenReply(f"no JSON ({str(error)[:60]}): {content[:60]!r}") from None
    if not isinstance(reply, dict):
        raise BrokenReply(f"no JSON object: {content[:60]!r}")
    return reply


def _read_text(choice: object, name: str) -> str:
    message = choice.get(name) if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise BrokenReply(f"a choice without a {name}")
    text = message.get("content")
    if not isinstance(text, (str, NoneType)):
        raise BrokenReply(f"the content of a {name} is no text but of the type {type(text).__name__}")
    return text or ""


def _quote_error(reply: Mapping[str, Any]) -> str:
    error = reply.get("error")
    return f" ({_read_words(error)})" if error else ""


def _read_words(error: object) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    return message[:1000] if isinstance(message, str) else f"an error of the type {type(message).__name__}"


def _usage(reply: Mapping[str, Any]) -> tuple[int | None, int | None]:
    usage = reply.get("usage")
    if not isinstance(usage, dict):
        return None, None
    prompt, completion = (
        count if type(count) is int and 0 <= count < _MOST_TOKENS else None
        for count in (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    )
    return prompt, completion
