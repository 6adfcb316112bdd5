"""The messages of a request: what clients write into them, made plain, and what cannot be honoured refused by name.

Clients send an answer back with every field of their own objects. What is null or empty there is as good as absent;
a thought that a client has taken out of the text is put back where the model wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from univg.grounding.prompts import PromptStyle, render_prompt
from univg.serve.errors import ApiError

__all__ = ["ImagePart", "Message", "TextPart", "convert", "drop_nulls", "tidy_messages", "word_question"]

SEND_TEXT = 'send {"type": "text", "text": "…"}'
SEND_IMAGE = 'send {"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}'
NO_TOOLS = "the model calls no tools, it writes text: leave it out"
SEND_THOUGHT = "send a thought as <think>…</think> in the text, or as the message's reasoning_content"

PARTS: Mapping[str, str] = {
    **dict.fromkeys(("input_text", "output_text"), SEND_TEXT),
    **dict.fromkeys(("input_image", "image", "image_file"), SEND_IMAGE),
    **dict.fromkeys(("thinking", "reasoning", "redacted_thinking"), SEND_THOUGHT),
}
"""Parts in other interfaces' words, and what to send in their place."""

FIELDS: Mapping[str, str] = {
    **dict.fromkeys(("tool_calls", "function_call", "tool_call_id"), NO_TOOLS),
    **dict.fromkeys(("thinking", "thinking_blocks", "reasoning_details"), SEND_THOUGHT),
    "refusal": "send it as the message's content",
}
"""Further fields of a message, and why they are refused where they hold something."""

HARMLESS = {"cache_control", "id", "index", "name", "format"}
"""Fields of messages and parts that change no answer."""

_THOUGHTS = ("reasoning_content", "reasoning")
"""litellm's and vLLM's names for the text between <think> and </think>."""
_MARK = "\ud800"  # half a surrogate pair, which no text of a request can hold


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)  # what is further there has been looked at by then


class TextPart(_Part):
    type: Literal["text"]
    text: str


class ImageUrl(_Part):
    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(_Part):
    type: Literal["image_url"]
    image_url: ImageUrl


Part: TypeAlias = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(_Part):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(fail_fast=True)]

    @property
    def parts(self) -> list[Part]:
        return self.content if isinstance(self.content, list) else []

    @property
    def texts(self) -> list[str]:
        if isinstance(self.content, str):
            return [self.content]
        return [part.text for part in self.parts if isinstance(part, TextPart)]


def drop_nulls(value: Any) -> None:
    """Take every field that is null out of a JSON value, at every depth.

    >>> body = {"stop": None, "messages": [{"content": "a", "audio": None, "extra": {"b": None}}]}
    >>> drop_nulls(body); body
    {'messages': [{'content': 'a', 'extra': {}}]}
    """
    rest = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, dict):
            for name in [name for name, held in one.items() if held is None]:
                del one[name]
        inner = one.values() if isinstance(one, dict) else one
        rest.extend(held for held in inner if isinstance(held, dict | list))


def tidy_messages(messages: Any) -> None:
    """Bring messages, as JSON, into the form that `Message` reads. Raises ApiError (400) that names the field."""
    for place, message in enumerate(messages if isinstance(messages, list) else []):
        if isinstance(message, dict):
            _tidy_message(message, f"messages.{place}")


def _tidy_message(message: dict[str, Any], place: str) -> None:
    role = message.get("role")
    if role in ("tool", "function"):
        raise _refuse(f"{place}.role", f"{role}: {NO_TOOLS}")
    if "content" not in message:
        if role != "assistant":
            raise _refuse(f"{place}.content", "missing: send a text, or a list of parts")
        message["content"] = ""
    content = message["content"]
    if isinstance(content, list):
        content[:] = [_tidy_part(part, f"{place}.content.{at}") for at, part in enumerate(content)]
    elif not isinstance(content, str):
        raise _refuse(f"{place}.content", "neither a text nor a list of parts")
    if role == "assistant":
        _put_thought_back(message, place)
    _check_fields(message, ("role", "content"), place)


def _tidy_part(part: Any, place: str) -> Any:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, dict):
        raise _refuse(place, f"no part of a message: {SEND_TEXT}")
    kind = part.get("type")
    if kind not in ("text", "image_url"):
        told = "its type is missing" if kind is None else f"{_quote(kind)} is no type of part here"
        advice = PARTS.get(kind) if isinstance(kind, str) else None
        raise _refuse(f"{place}.type", f"{told}: {advice or f'{SEND_TEXT} or {SEND_IMAGE}'}")
    if isinstance(part.get("image_url"), str):
        part["image_url"] = {"url": part["image_url"]}
    _check_fields(part, ("type", kind), place)
    if isinstance(part.get("image_url"), dict):
        _check_fields(part["image_url"], ("url", "detail"), f"{place}.image_url")
    return part


def _put_thought_back(message: dict[str, Any], place: str) -> None:
    """Write the thought that a client keeps in a field of its own in front of the answer, as the model wrote it."""
    given = {name: message.pop(name) for name in _THOUGHTS if message.get(name)}
    for name, thought in given.items():
        if not isinstance(thought, str):
            raise _refuse(f"{place}.{name}", "no text")
    if not given:
        return
    name, thought = next(iter(given.items()))
    if len(set(given.values())) > 1:
        raise _refuse(f"{place}.{name}", f"another text than {' and '.join(_THOUGHTS[1:])}: send one of them")
    content = message["content"]
    texts = [content] if isinstance(content, str) else [str(part.get("text", "")) for part in content]
    written = "".join(texts)
    if "<think>" in written:
        if thought.strip() not in written:
            raise _refuse(f"{place}.{name}", "the content holds another thought: send one of them")
        return
    worded = f"<think>{thought}</think>"
    if isinstance(content, str):
        message["content"] = worded + content
    else:
        content.insert(0, {"type": "text", "text": worded})


def _check_fields(fields: Mapping[str, Any], known: Sequence[str], place: str) -> None:
    """Raise ApiError for a field beyond the known ones that holds something and would change the answer."""
    for name, value in fields.items():
        if name in known or name in HARMLESS or is_empty(value):
            continue
        why = FIELDS.get(name, "this server does not know this field: leave it out")
        raise _refuse(f"{place}.{name}", why, "unknown_parameter")


def is_empty(value: Any) -> bool:
    """Tell whether a field says no more than if it were absent.

    >>> [is_empty(one) for one in (None, [], {}, "", 0, False, [0])]
    [True, True, True, True, False, False, False]
    """
    return value is None or (isinstance(value, list | dict | str) and not value)


def _refuse(param: str, why: str, code: str = "invalid_value") -> ApiError:
    return ApiError(400, f"{param}: {why}", param=param, code=code)


def _quote(value: Any) -> str:
    return json.dumps(value[:60] if isinstance(value, str) else value)[:60]


def convert(message: Message) -> dict[str, Any]:
    """Return a message as chat templates take it."""
    role = "system" if message.role == "developer" else message.role
    if isinstance(message.content, str):
        return {"role": role, "content": message.content}
    parts: list[dict[str, Any]] = [
        {"type": "text", "text": part.text} if isinstance(part, TextPart) else {"type": "image"}
        for part in message.content
    ]
    return {"role": role, "content": parts}


def word_question(message: dict[str, Any], style: PromptStyle, n_images: int) -> None:
    """Put a question into the words of a style. Its texts are one question, wherever the images stand between them:
    what the style says first goes before the first text, what it says last after the last one. `n_images` are those of
    the whole chat, which the model counts.

    Raises ApiError if there is no text.

    >>> parts = [{"type": "text", "text": "This"}, {"type": "image"}, {"type": "text", "text": "in the second?"}]
    >>> word_question({"content": parts}, "simple", 1); [part.get("text") for part in parts]
    ['This is a single image grounding task with simple reference. This', None, 'in the second?']
    """
    texts = [part for part in _list_texts(message) if part["text"].strip()]
    if not texts:
        raise ApiError(400, "univg.style: the last message holds no text to put into words", param="messages")
    worded = render_prompt(_MARK.join(part["text"] for part in texts), style, n_images).split(_MARK)
    for part, text in zip(texts, worded, strict=True):
        part["text"] = text
    if isinstance(message["content"], str):
        message["content"] = texts[0]["text"]


def _list_texts(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if isinstance(message["content"], str):
        yield {"text": message["content"]}
    else:
        yield from (part for part in message["content"] if part["type"] == "text")
