"""Read the body of a chat completion: a request whose every field is known and within bounds.

A field that would change the answer and cannot be honoured is refused, never passed over: a client that asks for
`top_p=0.5` and gets something else would not learn of it. Fields that change nothing are accepted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from univg.models.families import MODEL_FAMILIES, AskedStyle, ModelFamily, settle_style
from univg.serve.config import Limits
from univg.serve.errors import ApiError
from univg.serve.messages import (
    NO_TOOLS,
    ImagePart,
    Message,
    convert,
    drop_nulls,
    is_empty,
    tidy_messages,
    word_question,
)

DEFAULT_NEW_TOKENS = 256
PROMPT_TOO_LONG = "the prompt is too long"  # by these words litellm tells the cause from others

_PIECE = 1 << 20
_NO_VALUES = bytes(set(range(256)) - set(b",[{"))

HARMLESS = {
    *("user", "store", "metadata", "service_tier", "safety_identifier", "verbosity"),
    *("prompt_cache_key", "prompt_cache_retention", "parallel_tool_calls"),
}
"""Fields that change no answer here."""

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "top_p": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "tool_choice": ("none",),
    "function_call": ("none",),
    "skip_special_tokens": (False,),
}
"""Fields that are accepted only with the values that change no answer (or null, or empty)."""

_BY_CLIENTS = (
    "(instructor: response_model=None or Mode.MD_JSON; LangChain: no with_structured_output or bind_tools)"
)

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("tools", "tool_choice", "functions", "function_call"), f"{NO_TOOLS} {_BY_CLIENTS}"),
    "response_format": f"the model cannot be held to JSON, it writes text: leave it out {_BY_CLIENTS}",
    **dict.fromkeys(("logprobs", "top_logprobs", "logit_bias"), "not possible here: leave it out"),
}
"""Fields that cannot be honoured, and why."""


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(_Options):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Extension(_Options):
    """`style`: the question is sent bare, and asked in the words of this style; "native" is the one of stock models."""

    style: AskedStyle | None = None


class ChatRequest(BaseModel):
    """https://platform.openai.com/docs/api-reference/chat/create, as far as it applies; `univg` is ours."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str
    messages: list[Message] = Field(min_length=1, fail_fast=True)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    n: int | None = Field(None, ge=1)
    seed: int | None = None
    stop: str | Annotated[list[str], Field(fail_fast=True)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    univg: Extension | None = None

    @property
    def new_tokens(self) -> int:
        return self.max_completion_tokens or self.max_tokens or DEFAULT_NEW_TOKENS

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def images(self) -> list[str]:
        """Return the addresses of the images, in the order in which the chat names them."""
        parts = [part for message in self.messages for part in message.parts]
        return [part.image_url.url for part in parts if isinstance(part, ImagePart)]

    def chat(self, family: ModelFamily = MODEL_FAMILIES["qwen2_vl"]) -> tuple[dict[str, Any], ...]:
        """Return the messages as chat templates take them, the question in the words of `univg.style` if one is given,
        as a model of `family` is asked.

        Raises ApiError if there is a style and no text to put into words.
        """
        messages = [convert(message) for message in self.messages]
        if self.univg and self.univg.style:
            word_question(messages[-1], settle_style(self.univg.style, family), len(self.images()))
        return tuple(messages)


def read_request(body: bytes | bytearray, limits: Limits) -> ChatRequest:
    """Read and check a body, whatever it is, in time and memory of a small multiple of its length. Raises ApiError
    (400) that names the field.
    """
    _check_values(body, limits.values)
    try:
        # Unlike json.loads it makes no text of the whole body first, and knows a bound for depth and for digits.
        fields = from_json(body)
    except ValueError as error:
        raise ApiError(
            400, f"the body is no JSON in UTF-8 ({str(error)[:100]})", code="invalid_json"
        ) from error
    if not isinstance(fields, dict):
        raise ApiError(400, "the body is no JSON object", code="invalid_json")
    drop_nulls(fields)
    tidy_messages(fields.get("messages"))
    try:
        request = ChatRequest.model_validate(fields)
    except ValidationError as error:
        raise _explain(error) from error
    _check_further(request.model_extra or {})
    _check_bounds(request, limits)
    _check_messages(request, limits)
    return request


def _check_values(body: bytes | bytearray, most: int) -> None:
    """Raise ApiError for a body of more than so many values, before an object is made of any.

    Each follows a comma or begins a list or an object. Those signs in texts count too, as only reading tells them
    apart; base64 holds none.
    """
    found = 0
    for start in range(
        0, len(body), _PIECE
    ):  # in pieces: while one is looked at, nothing else in this process runs
        found += len(body[start : start + _PIECE].translate(None, _NO_VALUES))
        if found > most:
            message = (
                f"the body holds more than {most} values, by its commas and brackets: send shorter lists"
            )
            raise ApiError(400, message, code="too_many_values")


def _explain(error: ValidationError) -> ApiError:
    # Of a text that is neither a string nor parts, pydantic tells why it is no string, then what is wrong in the
    # parts: the deepest is what the caller meant.
    deepest = max(error.errors(include_url=False, include_input=False), key=lambda one: len(one["loc"]))
    param = ".".join(_steps(deepest["loc"]))
    return ApiError(400, f"{param}: {deepest['msg']}", param=param, code="invalid_value")


def _steps(place: tuple[int | str, ...]) -> list[str]:
    """Return where a fault lies, without the branches of unions, which are no fields of the request."""
    steps: list[str] = []
    tag_at = None
    for at, step in enumerate(place):
        if isinstance(step, str) and "[" in step:
            tag_at = at + 2  # the branch, a part's place, and then that part's type
        elif at != tag_at and not (step == "str" and at == len(place) - 1):
            steps.append(str(step))
    return steps


def _check_further(fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if name in HARMLESS or is_empty(value):
            continue
        neutral = NEUTRAL.get(name, ())
        # True == 1 in Python, not in JSON.
        if any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in neutral):
            continue
        code = "unsupported_parameter" if name in NEUTRAL or name in REFUSED else "unknown_parameter"
        allowed = " or ".join(json.dumps(one) for one in neutral)
        why = (
            f"only {allowed} is possible here: leave it out"
            if neutral
            else "this server does not know this field"
        )
        raise ApiError(400, f"{name}: {REFUSED.get(name, why)}", param=name, code=code)


def _check_bounds(request: ChatRequest, limits: Limits) -> None:
    bounds = (
        ("max_tokens", request.new_tokens, limits.new_tokens),
        ("n", request.n or 1, limits.rows),
        ("messages", len(request.messages), limits.messages),
        ("parts", sum(len(message.parts) for message in request.messages), limits.parts),
        ("stop", len(request.stops), limits.stops),
    )
    for name, value, most in bounds:
        if value > most:
            raise ApiError(
                400, f"{name}: {value} is more than the {most} that this server allows", param=name
            )
    if not all(request.stops) or any(len(one) > 256 for one in request.stops):
        raise ApiError(400, "stop: texts of 1 to 256 characters", param="stop")
    if request.seed is not None and not -(2**63) <= request.seed < 2**64:
        raise ApiError(400, "seed: a whole number of 64 bits", param="seed")


def _check_messages(request: ChatRequest, limits: Limits) -> None:
    if request.messages[-1].role != "user":
        raise ApiError(400, "messages: the last message must be the user's", param="messages")
    length = 0
    for place, message in enumerate(request.messages):
        if message.role != "user" and any(isinstance(part, ImagePart) for part in message.parts):
            raise ApiError(400, "images belong into messages of the user", param=f"messages.{place}.content")
        length += sum(map(len, message.texts))
    if length > limits.characters:
        message_ = f"{PROMPT_TOO_LONG}: {length} characters are more than the {limits.characters} that this "
        message_ += "server allows"
        raise ApiError(400, message_, param="messages", code="context_length_exceeded")
    urls = request.images()
    if len(urls) > limits.images:
        message_ = f"{len(urls)} images are more than the {limits.images} that this server allows"
        raise ApiError(400, message_, param="messages", code="too_many_images")
    for number, url in enumerate(urls, start=1):
        # One such sign makes the whole of it four times as long in memory, where it may have to wait.
        if wide := None if url.isascii() else re.search(r"[^\x00-\x7f]", url):
            message_ = f"image {number}: the base64 is damaged: it holds {wide[0]!r}"
            raise ApiError(400, message_, param="messages", code="invalid_image")
