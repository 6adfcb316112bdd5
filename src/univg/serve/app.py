"""The routes of the server: OpenAI's chat completions and models, and what an operator asks for."""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from univg.serve.access import check_caller, check_door, check_model
from univg.serve.completions import complete_chat
from univg.serve.errors import ApiError
from univg.serve.service import Service

__all__ = ["build_app"]

ID = "x-request-id"
_log = logging.getLogger("univg.access")
_PLAIN = re.compile(r"[A-Za-z0-9._:%-]{1,64}")


def build_app(service: Service) -> ASGIApp:
    """Build the ASGI application."""

    async def complete(request: Request) -> Response:
        return await complete_chat(service, request)

    async def list_models(request: Request) -> Response:
        check_caller(service, request)
        return JSONResponse({"object": "list", "data": [service.model_card()]})

    async def show_model(request: Request) -> Response:
        check_caller(service, request)
        check_model(service, request.path_params["name"])
        return JSONResponse(service.model_card())

    async def show_health(request: Request) -> Response:
        status, body = service.check_health()
        return JSONResponse(body, status)

    async def show_metrics(request: Request) -> Response:
        return Response(service.metrics.render(), media_type=service.metrics.content_type)

    app = Starlette(
        routes=[
            Route("/v1/chat/completions", complete, methods=["POST"]),
            Route("/v1/models", list_models),
            Route("/v1/models/{name:path}", show_model),
            Route("/health", show_health),
            Route("/metrics", show_metrics),
        ],
        exception_handlers={ApiError: _reply, HTTPException: _reply_http, Exception: _reply_unexpected},
    )
    return _Door(app, service)


class _Door:
    """What every request passes on its way in and out: it gets a name, is let in or not, and leaves a line in the log.

    The line holds nothing of its content, and nothing that its sender could make look like another line.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or take part in the server's start and end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request, started, status = Request(scope), time.perf_counter(), 499
        request.state.id = name = _keep_plain(request.headers.get(ID)) or secrets.token_hex(8)
        request.state.spent = ""

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[ID] = name
            await send(message)

        app = self._app
        try:
            check_door(self._service, request)
        except ApiError as error:
            app = await _reply(request, error)
        try:
            await app(scope, receive, send_named)
        finally:
            asked = f"{request.method[:10]} {scope['raw_path'].decode('ascii', 'replace')[:100]}"
            client = _keep_plain(request.client.host if request.client else None) or "-"
            seconds = time.perf_counter() - started
            _log.info("%s %s %s %d %.3f s%s", name, client, asked, status, seconds, request.state.spent)


def _keep_plain(text: str | None) -> str | None:
    """Return a name that a client gave if it is short and plain, else None."""
    return text if text and _PLAIN.fullmatch(text) else None


async def _reply(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), error.status, headers=error.headers)


async def _reply_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = {
        404: "there is nothing at this address: chats are answered at /v1/chat/completions (a client's base_url "
        "ends in /v1), responses, completions and embeddings are not",
        405: "this address takes another method",
    }
    message = known.get(error.status_code, error.detail)
    return await _reply(request, ApiError(error.status_code, message, headers=error.headers))


async def _reply_unexpected(request: Request, error: Exception) -> Response:
    message = f"an unexpected error: the server's log says more at {request.state.id}"
    return await _reply(request, ApiError(500, message))
