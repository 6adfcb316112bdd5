"""Say answers in OpenAI's words: as one object, or as a stream of pieces."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from univg.models.generation.generate import Generation

_PIECE = 24  # characters


def build_completion(
    shell: Mapping[str, Any], answer: Sequence[Generation], stops: list[str], prompt_tokens: int
) -> dict[str, Any]:
    """Build the `chat.completion` object. `shell`: its id, model and time."""
    choices = []
    for index, (text, reason) in enumerate(_finish(answer, stops)):
        message = {"role": "assistant", "content": text, "refusal": None}
        choices.append({"index": index, "message": message, "logprobs": None, "finish_reason": reason})
    usage = _count_tokens(answer, prompt_tokens)
    return {**shell, "object": "chat.completion", "choices": choices, "usage": usage}


def stream_chunks(
    shell: Mapping[str, Any], answer: Sequence[Generation], stops: list[str], prompt_tokens: int | None
) -> Iterator[str]:
    """Yield `chat.completion.chunk` objects as server-sent events; with usage if `prompt_tokens` are given.

    The text is whole before the first piece is sent: a batch is answered at once.
    """
    usage_field = {} if prompt_tokens is None else {"usage": None}

    def event(index: int, delta: Mapping[str, Any], reason: str | None = None) -> str:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _write_event({**shell, "object": "chat.completion.chunk", "choices": [choice], **usage_field})

    for index, (text, reason) in enumerate(_finish(answer, stops)):
        yield event(index, {"role": "assistant", "content": ""})
        for start in range(0, len(text), _PIECE):
            yield event(index, {"content": text[start : start + _PIECE]})
        yield event(index, {}, reason)
    if prompt_tokens is not None:
        usage = _count_tokens(answer, prompt_tokens)
        yield _write_event({**shell, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    yield "data: [DONE]\n\n"


def cut_at(text: str, stops: list[str]) -> tuple[str, bool]:
    """Return `text` up to the first of `stops`, and whether one was found.

    >>> cut_at("a box. And more", [".", "more"])
    ('a box', True)
    """
    found = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    return (text[: min(found)], True) if found else (text, False)


def _finish(answer: Sequence[Generation], stops: list[str]) -> Iterator[tuple[str, str]]:
    """Yield each text and why it ended there: "length" is what a `Reading` calls truncated."""
    for one in answer:
        text, stopped = cut_at(one.text, stops)
        yield text, "length" if one.truncated and not stopped else "stop"


def _count_tokens(answer: Sequence[Generation], prompt_tokens: int) -> dict[str, int]:
    written = sum(one.tokens for one in answer)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": written,
        "total_tokens": prompt_tokens + written,
    }


def _write_event(chunk: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(chunk, ensure_ascii=False, separators=(',', ':'))}\n\n"
