"""Servers for tests: on a thread of this process, and in a process of their own; asked by hand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from univg.models.loading import Loaded
from univg.serve.config import ServeConfig
from univg.serve.server import bind, build_server
from univg.serve.service import Service

SCRIPTED = """
import sys, threading, time
from univg.cli.main import main
from univg.models.generation import generate as generation
def generate(loaded, chats, **settings):
    texts = [str(chat.messages[0]["content"]) for chat in chats]
    if "hang" in texts:
        time.sleep(600)
    if "bad" in texts:
        raise RuntimeError("broken\\n2026-01-01 00:00:00,000 INFO univg.access: forged")
    return [[generation.Generation(text, 1, truncated=False)] * settings["n"] for text in texts]
generation.generate = generate
threading.Thread(target=time.sleep, args=(600,)).start()  # which Python would wait for at its end
sys.exit(main(sys.argv[1:]))
"""
"""A program for `starting`: the command with a model that hangs or fails when told to, and a thread that hangs."""
KEY = "a-key-of-the-tests"
PATIENCE_S = 300  # nothing takes that long, but on a busy machine nearly


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextmanager
def serving(
    loaded: Loaded,
    key: str | None = None,
    limits: dict[str, Any] | None = None,
    bounds: dict[str, Any] | None = None,
    **settings: Any,
) -> Iterator[SimpleNamespace]:
    """A server on a free port, on a thread of its own: `url`, `service`. All that was asked is done in the end.

    `limits` are fields of `Limits` that have no option, `bounds` those of connections.
    """
    service = Service(loaded, ServeConfig(**settings), "root", key)
    service.limits = replace(service.limits, **(limits or {}))
    server = build_server(service, **(bounds or {}))
    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            port = listener.getsockname()[1]
            yield SimpleNamespace(url=f"http://127.0.0.1:{port}", port=port, service=service, server=server)
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)
            assert service.close(PATIENCE_S) and not thread.is_alive()


@contextmanager
def starting(*arguments: str, program: Sequence[str] = ("-m", "univg"), **environment: str) -> Iterator[Any]:
    """A server process: `process`, `url`; killed in the end."""
    command = [sys.executable, *program, "serve", "--port", "0", *arguments]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1", **environment}
    ) as process:
        try:
            assert process.stderr is not None
            started = ""
            while not (found := re.search(r"at (http://\S+)/v1", started)):
                line = process.stderr.readline()
                assert line, started
                started += line
            yield SimpleNamespace(process=process, url=found[1], port=int(found[1].rpartition(":")[2]))
        finally:
            process.kill()


def said(text: Any, **further: Any) -> dict[str, Any]:
    return {"model": "embedded", "messages": [{"role": "user", "content": text}], "max_tokens": 4, **further}


def image(url: str) -> list[dict[str, Any]]:
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "Where?"}]


def post(
    url: str, body: bytes | dict[str, Any], path: str = "/v1/chat/completions", **headers: str
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """(status, JSON, headers) of a request made by hand."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {
        "Content-Type": "application/json",
        **{name.replace("_", "-"): one for name, one in headers.items()},
    }
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url + path, data, sent), timeout=PATIENCE_S
        ) as reply:
            return reply.status, json.load(reply), dict(reply.headers)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error), dict(error.headers)


def get(url: str, **headers: str) -> tuple[int, str]:
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def metric(server: SimpleNamespace, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", get(f"{server.url}/metrics")[1], re.MULTILINE)
    return float(found[1]) if found else 0.0
