"""The routes of the server: OpenAI's chat completions and models, and what an operator asks for."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from univg.serve.access import check_caller, check_model
from univg.serve.completions import complete_chat
from univg.serve.errors import ApiError
from univg.serve.service import Service

__all__ = ["build_app"]


def build_app(service: Service) -> Starlette:
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

    return Starlette(
        routes=[
            Route("/v1/chat/completions", complete, methods=["POST"]),
            Route("/v1/models", list_models),
            Route("/v1/models/{name:path}", show_model),
            Route("/health", show_health),
            Route("/metrics", show_metrics),
        ],
        exception_handlers={ApiError: _reply, HTTPException: _reply_http, Exception: _reply_unexpected},
    )


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
    return await _reply(request, ApiError(500, "an unexpected error; the server's log says more"))
