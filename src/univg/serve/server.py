"""Run the server's process: its address, its model, its signals.

The order of the checks is the order of their cost: arguments, the address, the checkpoint's files, its weights.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from univg.errors import UnivgError
from univg.models.keys import read_key
from univg.serve.config import KEY_VARIABLE, ServeConfig
from univg.terminal import notes

if TYPE_CHECKING:
    from rich.console import Console

    from univg.serve.connections import Server
    from univg.serve.service import Service

__all__ = ["bind", "build_server", "serve"]

_CONNECTIONS = 512  # below the usual limit of open files, with as many as are accepted at a time
_BACKLOG = 256
_IDLE_S = 30.0
_LAST_S = 0.5  # for the last words


def serve(config: ServeConfig) -> None:
    """Serve a checkpoint until SIGTERM or Ctrl-C, which end this process, or start vLLM in its place.

    Raises UnivgError for what the caller can put right.
    """
    key = read_key(config.api_key_env)
    if key is None and config.api_key_env != KEY_VARIABLE:
        raise UnivgError(
            "the variable is not set", f"--api-key-env {config.api_key_env}", "export the key in it"
        )
    if config.engine == "vllm":
        from univg.serve.vllm import start_vllm

        start_vllm(config, key)
        return
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UnivgError("the server needs further packages", remedy="pip install 'univg[serve]'") from error
    from univg.serve.connections import end_by_signals

    end_by_signals()  # a Ctrl-C while the model is loaded need not wait for torch
    console = notes()
    with bind(config.host, config.port) as listener:
        _run(_load(config, key, console), listener, console, config.log_level)


@contextmanager
def bind(host: str, port: int) -> Iterator[socket.socket]:
    """Open a socket that has its address, so that one which is taken is told before a model is loaded.

    Raises UnivgError.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UnivgError(
            "no address to listen on", f"--host {host}", "give an address of this machine"
        ) from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            cause = (error.strerror or str(error)).lower()
            raise UnivgError(f"cannot listen ({cause})", f"{host}:{port}", "choose another --port") from error
        yield listener


def build_server(service: Service, *, connections: int = _CONNECTIONS, idle_s: float = _IDLE_S) -> Server:
    """Build uvicorn's server; it stops when what was asked is answered, at the latest seconds after `timeout_s`.

    `connections` at a time; on each of them `idle_s` for the next request's head to arrive, and for its answer to be
    taken.
    """
    import uvicorn

    from univg.serve.app import build_app
    from univg.serve.connections import Connection, Server

    config = uvicorn.Config(
        build_app(service),
        log_config=None,
        access_log=False,
        server_header=False,
        http=Connection,
        ws="none",
        backlog=_BACKLOG,
        limit_concurrency=connections,
        timeout_graceful_shutdown=int(service.limits.timeout_s + 5),  # longer than any request
    )
    config.timeout_keep_alive = idle_s  # type: ignore[assignment]  # whole seconds, but for no reason
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    return Server(config)


def _load(config: ServeConfig, key: str | None, console: Console) -> Service:
    # Libraries warn about their own affairs; what concerns the user is said here.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from univg.models.checkpoint import locate, weights_digest

    locate(config.model)
    console.print(f"loading {config.model}")
    from univg.models.conventions import list_choices
    from univg.models.loading import load
    from univg.serve.service import Service

    loaded = load(config.model, device=config.device, dtype=config.dtype)
    root = f"{config.model}@{loaded.revision}" if loaded.revision else weights_digest(config.model)
    if config.max_pixels is not None:
        loaded.processor.set_pixel_budget(loaded.pixel_budget.up_to(config.max_pixels))
    for note in list_choices(loaded.style_note, loaded.pixels_note, max_pixels=config.max_pixels):
        console.print(f"note: {note}")
    if key is None and not config.on_loopback:
        console.print(
            f"note: anyone who reaches {config.host} can use this server: set {KEY_VARIABLE} to ask for a key"
        )
    return Service(loaded, config, root, key)


def _run(service: Service, listener: socket.socket, console: Console, log_level: str) -> None:
    """Answer until a signal ends it; then finish what was asked, and end the process."""
    from univg.serve.logs import start_log

    log = start_log(log_level)
    server = build_server(service)
    listener.listen(_BACKLOG)  # from here on who comes is kept waiting, not turned away
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    console.print(f"serving {service.name} at http://{shown}:{port}/v1 (Ctrl-C to stop)")
    server.run(sockets=[listener])
    service.close(_LAST_S)  # whoever waited for a batch has been answered or has gone

    def say_so() -> None:
        with suppress(queue.Full):
            log.stop()
        console.print("stopped")

    _end(128 + signal.SIGINT if server.stopped_by == signal.SIGINT else 0, say_so)


def _end(code: int, last: Callable[[], None]) -> None:
    """End the process now: a thread that decodes or generates would hold it, or crash in it, as Python takes itself
    apart. A pipe that nobody reads does not hold the last words either."""
    words = threading.Thread(target=last, daemon=True)
    words.start()
    words.join(_LAST_S)
    if not words.is_alive():
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
