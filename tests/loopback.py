"""A real server on loopback with OpenAI's chat interface, which fails in every way that a test asks of it.

The fixture `server`, in `conftest.py`, is one that runs.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

TEXT = "<think>It is there.</think><answer>(100,200),(500,600)</answer>"
Behaviour: TypeAlias = Callable[["Handler", int], bool]


class Server(ThreadingHTTPServer):
    """`behave(handler, number)` may answer a request itself (True); `requests` are the bodies of all."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave: Behaviour = lambda handler, number: False
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.models = [{"id": "served", "object": "model", "root": "org/model"}]
        self.busy = self.busiest = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    completion = staticmethod(lambda *texts, **settings: completion(*texts, **settings))

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.reply(200, {"object": "list", "data": self.server.models})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.requests)
            self.server.requests.append(body)
            self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
            self.server.times.append(time.monotonic())
            self.server.busy += 1
            self.server.busiest = max(self.server.busiest, self.server.busy)
        try:
            if not self.server.behave(self, number):
                self.reply(200, completion(*[TEXT] * body.get("n", 1)))
        finally:
            with self.server.lock:
                self.server.busy -= 1

    def reply(self, status: int, body: Any, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def completion(*texts: str | None, finish: str = "stop") -> dict[str, Any]:
    choices = [
        {"index": at, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
        for at, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": 9, "completion_tokens": 21, "total_tokens": 30}
    shell = {"id": "x", "object": "chat.completion", "created": 1, "model": "served"}
    return {**shell, "choices": choices, "usage": usage}
