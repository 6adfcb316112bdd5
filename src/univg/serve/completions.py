"""Answer a chat completion, in five steps that can each refuse it: admitted, body read, request understood, images
read, answered by the batcher.

Everything that takes time happens on threads; the event loop only waits.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from univg.models.generation.generate import Chat, Generation
from univg.serve.access import check_access, check_model, check_queue, drain
from univg.serve.batching import Ask, Closed, Expired
from univg.serve.errors import ApiError
from univg.serve.replies import build_completion, stream_chunks
from univg.serve.requests import PROMPT_TOO_LONG, ChatRequest
from univg.serve.service import Service

__all__ = ["complete_chat"]

_log = logging.getLogger("univg.serve")


async def complete_chat(service: Service, request: Request) -> Response:
    """Answer one request, held against the limit and counted, whatever becomes of it. Raises ApiError."""
    started, status, images = time.perf_counter(), 500, 0
    try:
        try:
            check_access(service, request)
        except ApiError:
            await drain(request, service.limits)
            raise
        chat_request, answer, ask = await _answer(service, request)
        status, images = 200, len(ask.chat.images)
        written = sum(one.tokens for one in answer)
        request.state.spent = f" images={images} tokens={ask.prompt_tokens}+{written}"
        return _reply(service, chat_request, answer, ask.prompt_tokens)
    except ApiError as error:
        status = error.status
        raise
    except ClientDisconnect:
        status = 499  # nobody is left to be told; the number is nginx's
        return Response(status_code=status)
    finally:
        service.metrics.count_request(status, time.perf_counter() - started, images)


async def _answer(service: Service, request: Request) -> tuple[ChatRequest, list[Generation], Ask]:
    """Return the request, its responses and what the batcher was asked. Raises ApiError."""
    try:
        async with asyncio.timeout(service.limits.timeout_s):
            body = await _receive(service, request)
            service.held += 1
            try:
                # While this one is being read, a batch that is about to start waits a moment for it.
                with service.batcher.arriving():
                    chat_request, ask = await _read(service, body, request.state.id)
                    future = service.batcher.submit(ask, service.limits.timeout_s)
                answer = await _wait_for_answer(request, asyncio.wrap_future(future))
            finally:
                service.held -= 1
            return chat_request, answer, ask
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
        _log.error("%s failed: %s: %s", request.state.id, type(error).__name__, error)
        message = f"the model failed on this request: the server's log says why at {request.state.id}"
        raise ApiError(500, message) from error


async def _receive(service: Service, request: Request) -> bytearray:
    """Return the body, whose bytes are `buffered` from here on. Raises ApiError for one that is too slow, or for which
    there is no room."""
    limits, body = service.limits, bytearray()
    try:
        async with asyncio.timeout(limits.body_s) as clock:
            service.clocks.add(clock)
            async for chunk in request.stream():
                body += chunk
                service.buffered += len(chunk)
                if service.buffered > limits.buffered_bytes:
                    service.hurry()
                    message = "the server is reading too much already: try again later"
                    raise ApiError(429, message, code="queue_full", headers=service.retry_after())
        check_queue(service)  # more may have been on their way than fit
        return body
    except BaseException as error:  # given back, whatever ends it
        service.buffered -= len(body)
        if isinstance(error, TimeoutError) and clock.expired():
            message = "the request did not arrive in time"
            raise ApiError(408, message, code="timeout", headers={"Connection": "close"}) from error
        raise
    finally:
        service.clocks.discard(clock)


async def _read(service: Service, body: bytearray, name: str) -> tuple[ChatRequest, Ask]:
    """Make of the body's bytes, which are given up, what the batcher takes."""
    counted = len(body)
    try:
        chat_request = await service.read_body(body)
        check_model(service, chat_request.model)
        messages = chat_request.chat(service.loaded.family)
        images = await service.read_images(chat_request.images())
        chat_request.messages.clear()  # from here on only pixels are held
    finally:
        service.buffered -= counted  # its images were texts as long as these bytes
    chat = Chat(tuple(images), messages)
    tokens = await service.count_tokens(chat)
    if tokens + chat_request.new_tokens > service.context:
        raise ApiError(
            400,
            f"{PROMPT_TOO_LONG}: its {tokens} tokens and {chat_request.new_tokens} to be written are more than the "
            f"model's {service.context}: send less, or ask for fewer tokens",
            param="messages",
            code="context_length_exceeded",
        )
    temperature, n = chat_request.temperature or 0.0, chat_request.n or 1
    return chat_request, Ask(chat, chat_request.new_tokens, temperature, n, chat_request.seed, tokens, name)


async def _wait_for_answer(request: Request, answer: asyncio.Future[list[Generation]]) -> list[Generation]:
    """Return the answer; if the client goes away first, take the request out of the queue."""
    gone = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        either: set[asyncio.Future[Any]] = {answer, gone}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise ClientDisconnect
    finally:
        gone.cancel()
        answer.cancel()


async def _wait_for_disconnect(request: Request) -> None:
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
        return JSONResponse(build_completion(shell, answer, request.stops, prompt_tokens))
    with_usage = bool(request.stream_options and request.stream_options.include_usage)
    events = stream_chunks(shell, answer, request.stops, prompt_tokens if with_usage else None)
    return StreamingResponse(
        _send(events), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
    )


async def _send(events: Iterator[str]) -> AsyncIterator[str]:
    for event in events:
        yield event
