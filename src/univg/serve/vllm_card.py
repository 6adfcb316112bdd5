"""Let vLLM's own server say how its model is asked, as `univg serve` does: under `univg` in each card of /v1/models.

Runs inside vLLM, which is given `ModelCard` as `--middleware`. Only the standard library is imported.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

__all__ = ["CARD_VARIABLE", "ModelCard", "add_card"]

CARD_VARIABLE = "UNIVG_MODEL_CARD"
"""The environment variable that holds what is said, as JSON."""

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class ModelCard:
    """An ASGI middleware: replies to `GET /v1/models` hold the card that the environment states, all others pass."""

    def __init__(self, app: App) -> None:
        self._app, self._card = app, json.loads(os.environ[CARD_VARIABLE])

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        asked = scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == "/v1/models"
        if not asked:
            await self._app(scope, receive, send)
            return
        start: Message = {}
        body = b""

        async def hold(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            if start["status"] == 200:
                body = add_card(body, self._card)
            kept = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
            await send({**start, "headers": [*kept, (b"content-length", str(len(body)).encode())]})
            await send({"type": "http.response.body", "body": body})

        await self._app(scope, receive, hold)


def add_card(listed: bytes, card: dict[str, Any]) -> bytes:
    """Return a list of models with `card` under `univg` in each.

    >>> add_card(b'{"data": [{"id": "m"}]}', {"family": "qwen2_vl"})
    b'{"data": [{"id": "m", "univg": {"family": "qwen2_vl"}}]}'
    """
    models = json.loads(listed)
    for model in models["data"]:
        model["univg"] = card
    return json.dumps(models).encode()
