"""Read the body of a chat completion: a request whose every field is known and within bounds.

A field that would change the answer and cannot be honoured is refused, never passed over: a client that asks for
`top_p=0.5` and gets something else would not learn of it. Fields that change nothing are accepted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from univg.errors import one_line
from univg.grounding.prompts import PromptStyle, render_prompt
from univg.serve.config import Limits
from univg.serve.errors import ApiError

DEFAULT_NEW_TOKENS = 256

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
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "tools": ([],),
    "tool_choice": ("none",),
    "skip_special_tokens": (False,),
}
"""Fields that are accepted only with the values that change no answer (or null)."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


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
    content: str | list[Part]
    name: str | None = None
    refusal: None = None


class StreamOptions(_Part):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Extension(_Part):
    """`style`: the question is sent bare, and asked in the paper's words for this style."""

    style: PromptStyle | None = None


class ChatRequest(BaseModel):
    """https://platform.openai.com/docs/api-reference/chat/create, as far as it applies; `univg` is ours."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    n: int | None = Field(None, ge=1)
    seed: int | None = None
    stop: str | list[str] | None = None
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
        parts = [
            part for message in self.messages if isinstance(message.content, list) for part in message.content
        ]
        return [part.image_url.url for part in parts if isinstance(part, ImagePart)]

    def chat(self) -> tuple[dict[str, Any], ...]:
        """Return the messages as chat templates take them, the question in the words of `univg.style` if one is given.

        Raises ApiError if there is a style and not exactly one text to put into words.
        """
        messages = [_convert(message) for message in self.messages]
        style = self.univg.style if self.univg else None
        if style is not None:
            content = messages[-1]["content"]
            texts = (
                [part for part in content if part["type"] == "text"]
                if isinstance(content, list)
                else [content]
            )
            if len(texts) != 1:
                raise ApiError(
                    400,
                    f"univg.style needs the question as one text, the last message has {len(texts)}",
                    param="messages",
                )
            if isinstance(content, str):
                messages[-1]["content"] = render_prompt(content, style)
            else:
                texts[0]["text"] = render_prompt(texts[0]["text"], style)
        return tuple(messages)


def _convert(message: Message) -> dict[str, Any]:
    """Return a message as chat templates take it."""
    role = "system" if message.role == "developer" else message.role
    if isinstance(message.content, str):
        return {"role": role, "content": message.content}
    parts: list[dict[str, Any]] = [
        {"type": "text", "text": part.text} if isinstance(part, TextPart) else {"type": "image"}
        for part in message.content
    ]
    return {"role": role, "content": parts}


def read_request(body: bytes | bytearray, limits: Limits) -> ChatRequest:
    """Read and check a body. Raises ApiError (400) that names the field."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(
            400, f"the body is no JSON ({one_line(str(error))[:100]})", code="invalid_json"
        ) from error
    if not isinstance(fields, dict):
        raise ApiError(400, "the body is no JSON object", code="invalid_json")
    try:
        request = ChatRequest.model_validate(fields)
    except ValidationError as error:
        raise _explain(error) from error
    _check_further(request.model_extra or {})
    _check_bounds(request, limits)
    _check_messages(request, limits)
    return request


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
        if name in HARMLESS or value is None:
            continue
        if name not in NEUTRAL:
            raise ApiError(
                400, f"{name}: this server does not know this field", param=name, code="unknown_parameter"
            )
        # True == 1 in Python, not in JSON.
        if not any(
            value == one and isinstance(value, bool) == isinstance(one, bool) for one in NEUTRAL[name]
        ):
            allowed = " or ".join(json.dumps(one) for one in NEUTRAL[name])
            message = f"{name}: only {allowed} is possible here: leave it out"
            raise ApiError(400, message, param=name, code="unsupported_parameter")


def _check_bounds(request: ChatRequest, limits: Limits) -> None:
    bounds = (
        ("max_tokens", request.new_tokens, limits.new_tokens),
        ("n", request.n or 1, limits.rows),
        ("messages", len(request.messages), limits.messages),
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
    if not math.isfinite(request.temperature or 0):
        raise ApiError(400, "temperature: a finite number", param="temperature")


def _check_messages(request: ChatRequest, limits: Limits) -> None:
    if request.messages[-1].role != "user":
        raise ApiError(400, "messages: the last message must be the user's", param="messages")
    length = 0
    for place, message in enumerate(request.messages):
        parts = message.content if isinstance(message.content, list) else []
        if message.role != "user" and any(isinstance(part, ImagePart) for part in parts):
            raise ApiError(400, "images belong into messages of the user", param=f"messages.{place}.content")
        texts = [part.text for part in parts if isinstance(part, TextPart)]
        texts += [message.content] if isinstance(message.content, str) else []
        for text in texts:
            length += len(text)
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ApiError(400, "the text is no valid Unicode", param=f"messages.{place}") from error
    if length > limits.characters:
        message_ = f"{length} characters are more than the {limits.characters} that this server allows"
        raise ApiError(400, message_, param="messages", code="context_length_exceeded")
    images = len(request.images())
    if images > limits.images:
        message_ = f"{images} images are more than the {limits.images} that this server allows"
        raise ApiError(400, message_, param="messages", code="too_many_images")
