"""The routes of the server: OpenAI's chat completions, models, and what an operator asks for.

A chat completion goes through five steps, each of which can refuse it: admitted, body read, request understood,
images read, answered by the batcher. Everything that takes time happens on threads; the event loop only waits.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import hmac
import ipaddress
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from univg.models.generation.generate import Chat, Generation
from univg.models.tokens import find_image_mark
from univg.serve.batching import Ask, Batcher, Closed, Expired, PromptMeter
from univg.serve.errors import ApiError
from univg.serve.images import decode_images, image_files
from univg.serve.limits import Limits
from univg.serve.metrics import Metrics
from univg.serve.replies import completion, stream
from univg.serve.requests import ChatRequest, read_request

if TYPE_CHECKING:
    from univg.models.loading import Loaded

_READERS = 2  # threads that decode: each may hold all pixels of one image
_FETCHERS = 8
_log = logging.getLogger("univg.serve")
T = TypeVar("T")


@dataclass
class Service:
    """What the routes share. `name` is the model's name in requests, `root` what it was loaded from.

    `local_only`: only requests to an address of numbers or to localhost are answered. A web page whose own name
    was made to point to this machine would otherwise be let in by its reader's browser.
    """

    loaded: Loaded
    name: str
    root: str
    limits: Limits = field(default_factory=Limits)
    batch_size: int = 16
    api_key: str | None = None
    remote_images: bool = False
    local_only: bool = False

    def __post_init__(self) -> None:
        self.metrics = Metrics(held=lambda: self.held, waiting=lambda: self.batcher.waiting)
        self.batcher = Batcher(self.loaded, batch_size=self.batch_size, on_batch=self.metrics.batch)
        self.meter = PromptMeter(self.loaded)
        self.held, self.buffered, self.started = 0, 0, int(time.time())
        # The longest text that the model's positions reach to.
        self.context = int(
            getattr(self.loaded.model.config.get_text_config(), "max_position_embeddings", 1 << 30)
        )
        self.readers = ThreadPoolExecutor(_READERS, thread_name_prefix="read")
        self.fetchers = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="fetch")

    def close(self, timeout_s: float | None = None) -> bool:
        """Finish what was taken; whether that was done within `timeout_s`."""
        finished = self.batcher.close(timeout_s)
        for threads in (self.readers, self.fetchers):
            threads.shutdown(wait=False, cancel_futures=True)
        return finished

    def model_card(self) -> dict[str, Any]:
        """What `/v1/models` says; under `univg`, what a client needs to send images as the model sees them."""
        budget, processor = self.loaded.pixel_budget, self.loaded.processor
        return {
            "id": self.name,
            "object": "model",
            "created": self.started,
            "owned_by": "univg",
            "root": self.root,
            "max_model_len": self.context,
            "univg": {
                "family": self.loaded.family.model_type,
                "frame": self.loaded.family.frame,
                "prompt_style": self.loaded.prompt_style,
                "min_pixels": budget.min_pixels,
                "max_pixels": budget.max_pixels,
                "factor": processor.factor,
            },
        }

    def health(self) -> tuple[int, dict[str, Any]]:
        """(status, body): 200 if answers can be expected."""
        fault = self.batcher.fault
        if fault is None and self.batcher.running_s() > self.limits.timeout_s:
            fault = f"a batch has been running for {self.batcher.running_s():.0f} s"
        state = {
            "status": fault or "ok",
            "model": self.name,
            "held": self.held,
            "waiting": self.batcher.waiting,
        }
        return (503 if fault else 200), state


def build_app(service: Service) -> Starlette:
    """The ASGI application."""

    async def models(request: Request) -> Response:
        if not _has_key(request, service.api_key):
            raise _no_key()
        return JSONResponse({"object": "list", "data": [service.model_card()]})

    async def model(request: Request) -> Response:
        if not _has_key(request, service.api_key):
            raise _no_key()
        _check_model(request.path_params["name"], service.name)
        return JSONResponse(service.model_card())

    async def health(request: Request) -> Response:
        status, body = service.health()
        return JSONResponse(body, status)

    async def metrics(request: Request) -> Response:
        return Response(service.metrics.text(), media_type=service.metrics.content_type)

    return Starlette(
        routes=[
            Route("/v1/chat/completions", functools.partial(_counted, service), methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
            Route("/health", health),
            Route("/metrics", metrics),
        ],
        exception_handlers={ApiError: _tell, HTTPException: _tell_http, Exception: _tell_unexpected},
    )


async def _counted(service: Service, request: Request) -> Response:
    """One chat completion, held against the limit and counted, whatever becomes of it."""
    started, status, images = time.perf_counter(), 500, 0
    try:
        if not _has_key(request, service.api_key):
            await _drain(request, service.limits)
            raise _no_key()
        if service.local_only and not _to_this_machine(request.headers.get("host", "")):
            await _drain(request, service.limits)
            raise ApiError(421, "this server answers at 127.0.0.1 and localhost", code="wrong_host")
        if service.held >= service.limits.held:
            await _drain(request, service.limits)
            raise ApiError(
                429,
                f"{service.held} requests are being answered already: try again later",
                code="queue_full",
                headers=_later(service),
            )
        service.held += 1
        try:
            chat_request, answer, prompt_tokens = await _answer(service, request)
        finally:
            service.held -= 1
        status, images = 200, len(chat_request.images())
        return _reply(service, chat_request, answer, prompt_tokens)
    except ApiError as error:
        status = error.status
        raise
    except ClientDisconnect:
        status = 499  # nobody is left to be told; the number is nginx's
        return Response(status_code=400)
    finally:
        service.metrics.answered(status, time.perf_counter() - started, images)


def _later(service: Service) -> dict[str, str]:
    """When to come again: when the batch that is running has ended."""
    return {"Retry-After": str(min(30, 1 + int(service.batcher.last_s)))}


async def _answer(service: Service, request: Request) -> tuple[ChatRequest, list[Generation], int]:
    try:
        async with asyncio.timeout(service.limits.timeout_s):
            # While this one is being read, a batch that is about to start waits a moment for it.
            with service.batcher.arriving():
                chat_request, ask = await _read(service, request)
                future = service.batcher.submit(ask, service.limits.timeout_s)
            answer = await _unless_gone(request, asyncio.wrap_future(future))
            return chat_request, answer, ask.prompt_tokens
    except (TimeoutError, Expired) as error:
        message = f"no answer within {service.limits.timeout_s:g} s: try again, or ask for fewer tokens"
        raise ApiError(504, message, code="timeout") from error
    except Closed as error:
        raise ApiError(
            503, "the server is stopping", code="stopping", headers={"Retry-After": "5"}
        ) from error
    except ValueError as error:  # what `generate` refuses about a chat
        raise ApiError(400, str(error), code="invalid_value") from error
    except (ApiError, ClientDisconnect):
        raise
    except Exception as error:  # a request's edge: the server goes on
        _log.error("a request failed: %s: %s", type(error).__name__, error)
        raise ApiError(500, "the model failed on this request; the server's log says why") from error


async def _read(service: Service, request: Request) -> tuple[ChatRequest, Ask]:
    """From the body's bytes to what the batcher takes."""
    limits, loaded = service.limits, service.loaded
    body = bytearray()
    try:
        async for chunk in _chunks(request, limits):
            body += chunk
            service.buffered += len(chunk)
            if service.buffered > limits.buffered_bytes:
                message = "the server is reading too much already: try again later"
                raise ApiError(429, message, code="queue_full", headers=_later(service))
        chat_request = await _on(service.readers, read_request, body, limits)
        urls = chat_request.images()
        messages = _checked_messages(service, chat_request)
        # Fetching waits for strangers' servers: it must not keep others from being decoded.
        remote = not all(url[:5].lower() == "data:" for url in urls)
        threads = service.fetchers if remote else service.readers
        files = await _on(threads, image_files, urls, limits, service.remote_images)
        images = await _on(service.readers, decode_images, files, limits, loaded.resized)
    finally:
        service.buffered -= len(body)
    chat = Chat(tuple(images), messages)
    tokens = await _on(service.readers, service.meter, chat)
    if tokens + chat_request.new_tokens > service.context:
        raise ApiError(
            400,
            f"the prompt's {tokens} tokens and {chat_request.new_tokens} to be written are more than the "
            f"model's {service.context}: send less, or ask for fewer tokens",
            param="messages",
            code="context_length_exceeded",
        )
    temperature, n = chat_request.temperature or 0.0, chat_request.n or 1
    return chat_request, Ask(chat, chat_request.new_tokens, temperature, n, chat_request.seed, tokens)


def _checked_messages(service: Service, request: ChatRequest) -> tuple[dict[str, Any], ...]:
    _check_model(request.model, service.name)
    messages = request.chat()
    mark = find_image_mark(json.dumps(messages, ensure_ascii=False), service.loaded.processor)
    if mark is not None:
        message = f"a text spells {mark}, one of the marks that stand for images: leave it out"
        raise ApiError(400, message, param="messages")
    return messages


async def _on(threads: ThreadPoolExecutor, call: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, call, *arguments)


async def _chunks(request: Request, limits: Limits) -> AsyncIterator[bytes]:
    """The body, piece by piece. Errors: ApiError for one of another kind, too large or too slow."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # Also what keeps a web page of elsewhere from asking: browsers send other kinds without asking first.
        await _drain(request, limits)
        message = "send the request with Content-Type: application/json"
        raise ApiError(415, message, code="unsupported_media_type")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        await _drain(request, limits)
        raise ApiError(415, "send the request without Content-Encoding", code="unsupported_encoding")
    too_large = ApiError(
        413,
        f"the request is larger than {limits.body_bytes >> 20} MiB: send fewer or smaller images",
        code="request_too_large",
    )
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > limits.body_bytes:
        await _drain(request, limits)
        raise too_large
    arrived, deadline = 0, time.monotonic() + limits.body_s
    pieces = request.stream()
    while True:
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                chunk = await anext(pieces, None)
        except TimeoutError as error:
            message = f"the request did not arrive within {limits.body_s:g} s"
            raise ApiError(408, message, code="timeout") from error
        if chunk is None:
            return
        arrived += len(chunk)
        if arrived > limits.body_bytes:
            raise too_large
        yield chunk


async def _drain(request: Request, limits: Limits) -> None:
    """Let a body that is refused arrive, up to the limit: most clients read no reply before they have sent all."""
    arrived = 0
    try:
        async with asyncio.timeout(min(5.0, limits.body_s)):
            async for chunk in request.stream():
                arrived += len(chunk)
                if arrived > limits.body_bytes:
                    return
    except TimeoutError:
        return


async def _unless_gone(request: Request, answer: asyncio.Future[list[Generation]]) -> list[Generation]:
    """The answer; if the client goes away first, the request is taken out of the queue."""
    gone = asyncio.ensure_future(_gone(request))
    try:
        either: set[asyncio.Future[Any]] = {answer, gone}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise ClientDisconnect
    finally:
        gone.cancel()
        answer.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _reply(service: Service, request: ChatRequest, answer: list[Generation], prompt_tokens: int) -> Response:
    shell = {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "created": int(time.time()),
        "model": service.name,
        "system_fingerprint": f"univg-{hashlib.sha256(service.root.encode()).hexdigest()[:10]}",
    }
    if not request.stream:
        return JSONResponse(completion(shell, answer, request.stops, prompt_tokens))
    with_usage = bool(request.stream_options and request.stream_options.include_usage)
    events = stream(shell, answer, request.stops, prompt_tokens if with_usage else None)
    return StreamingResponse(
        _sent(events), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
    )


async def _sent(events: Iterator[str]) -> AsyncIterator[str]:
    for event in events:
        yield event


def _has_key(request: Request, key: str | None) -> bool:
    if key is None:
        return True
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), key.encode())


def _to_this_machine(host: str) -> bool:
    """
    >>> [_to_this_machine(one) for one in ("127.0.0.1:80", "[::1]:80", "localhost", "a.example:80", "")]
    [True, True, True, False, False]
    """
    name = host.removeprefix("[").partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return name.lower() == "localhost"


def _no_key() -> ApiError:
    headers = {"WWW-Authenticate": "Bearer"}
    return ApiError(
        401, "no valid API key: send Authorization: Bearer …", code="invalid_api_key", headers=headers
    )


def _check_model(asked: str, served: str) -> None:
    if asked != served:
        message = f"there is no model {asked[:100]!r} here: ask for {served!r}"
        raise ApiError(404, message, param="model", code="model_not_found")


async def _tell(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), error.status, headers=error.headers)


async def _tell_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = {404: "there is nothing at this address", 405: "this address takes another method"}
    told = ApiError(error.status_code, known.get(error.status_code, error.detail), headers=error.headers)
    return await _tell(request, told)


async def _tell_unexpected(request: Request, error: Exception) -> Response:
    return await _tell(request, ApiError(500, "an unexpected error; the server's log says more"))
