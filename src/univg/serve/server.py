"""Run the server's process: its address, its model, its signals.

The order of the checks is the order of their cost: arguments, the address, the checkpoint's files, its weights.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from univg.errors import UnivgError
from univg.models.keys import read_key
from univg.serve.config import KEY_VARIABLE, ServeConfig
from univg.terminal import notes

if TYPE_CHECKING:
    from rich.console import Console
    from uvicorn import Server

    from univg.serve.service import Service

__all__ = ["bind", "build_server", "serve"]

CONNECTIONS = 512  # below the usual limit of open files
_IDLE_S = 30


def serve(config: ServeConfig) -> None:
    """Serve a checkpoint until SIGTERM or Ctrl-C, or start vLLM in this process's place.

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
    console = notes()
    with bind(config.host, config.port) as listener:
        _run(_load(config, key, console), listener, console)


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


def build_server(service: Service) -> Server:
    """Build uvicorn's server; it stops when what was asked is answered, or nearly `timeout_s` later."""
    import uvicorn

    from univg.serve.app import build_app

    config = uvicorn.Config(
        build_app(service),
        log_config=None,
        access_log=False,
        server_header=False,
        http="h11",
        ws="none",
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=int(_grace_s(service)),
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    return uvicorn.Server(config)


def _load(config: ServeConfig, key: str | None, console: Console) -> Service:
    # Libraries warn about their own affairs; what concerns the user is said here.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from univg.models.checkpoint import locate, weights_digest

    locate(config.model)
    console.print(f"loading {config.model}")
    from univg.models.loading import load
    from univg.serve.service import Service

    loaded = load(config.model, device=config.device, dtype=config.dtype)
    root = f"{config.model}@{loaded.revision}" if loaded.revision else weights_digest(config.model)
    if config.max_pixels is not None:
        loaded.processor.set_pixel_budget(loaded.pixel_budget.up_to(config.max_pixels))
    if key is None and not config.on_loopback:
        console.print(
            f"note: anyone who reaches {config.host} can use this server: set {KEY_VARIABLE} to ask for a key"
        )
    return Service(loaded, config, root, key)


def _run(service: Service, listener: socket.socket, console: Console) -> None:
    """Answer until a signal ends it; then finish what was asked."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    server = build_server(service)
    # uvicorn finishes what is running, then raises the signal again: that SIGTERM has been obeyed by then.
    before = signal.signal(signal.SIGTERM, _ignore)
    listener.listen(CONNECTIONS)  # from here on who comes is kept waiting, not turned away
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    console.print(f"serving {service.name} at http://{shown}:{port}/v1 (Ctrl-C to stop)")
    try:
        server.run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, before)
        finished = service.close(0.0 if server.force_exit else _grace_s(service))
        console.print("stopped" if finished else "stopped; the batch that was running is lost")


def _grace_s(service: Service) -> float:
    """Return how long stopping may take: longer than any request."""
    return service.limits.timeout_s + 5


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing about a signal that has been obeyed already."""
