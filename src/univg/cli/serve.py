"""`univg serve`: a checkpoint behind OpenAI's chat interface, in this process or by vLLM.

The order of the checks is the order of their cost: arguments, the address, the checkpoint's files, its weights.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import socket
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from univg.errors import UnivgError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from univg.serve.app import Service
    from univg.serve.limits import Limits

KEY_VARIABLE = "UNIVG_API_KEY"
_CONNECTIONS = 512  # below the usual limit of open files
_IDLE_S = 30


def serve(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="A checkpoint folder or hub name.")] = "embedded",
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 is every network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    name: Annotated[
        str | None, typer.Option(help="The model's name in requests (default: the folder's or hub name).")
    ] = None,
    engine: Annotated[
        Literal["univg", "vllm"], typer.Option(help="Who answers: this process, or vLLM with these settings.")
    ] = "univg",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:1 (default: a GPU if there is one).")
    ] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    max_pixels: Annotated[
        int | None,
        typer.Option(min=784, help="Pixels of an image after the resize (default: the checkpoint's)."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Responses at a time.")] = 16,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The largest max_tokens of a request.")] = 2048,
    max_images: Annotated[int, typer.Option(min=0, help="Images of a request.")] = 16,
    max_megapixels: Annotated[
        float, typer.Option(min=0.01, help="Of all images of a request together, before the resize.")
    ] = 100.0,
    max_body_mb: Annotated[int, typer.Option("--max-body-mb", min=1, help="MiB of a request.")] = 64,
    max_requests: Annotated[
        int, typer.Option(min=1, help="Requests at a time; more are refused (429).")
    ] = 128,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for a request, waiting included.")] = 300.0,
    api_key_env: Annotated[
        str, typer.Option(metavar="NAME", help="The environment variable that holds the API key, if any.")
    ] = KEY_VARIABLE,
    allow_remote_images: Annotated[
        bool, typer.Option("--allow-remote-images", help="Fetch images from public http(s) addresses.")
    ] = False,
) -> None:
    """Serve a checkpoint behind OpenAI's chat interface. SIGTERM or Ctrl-C: what was asked is answered first.

    With --engine vllm, arguments after -- are passed on to vLLM.
    """
    # long because every option of the command is a parameter, with its help
    from univg.serve.limits import Limits

    key = os.environ.get(api_key_env) or None
    if key is None and api_key_env != KEY_VARIABLE:
        raise UnivgError(f"the variable is not set: --api-key-env {api_key_env}: export the key in it")
    limits = Limits(
        held=max_requests,
        body_bytes=max_body_mb << 20,
        buffered_bytes=max(512, 2 * max_body_mb) << 20,
        timeout_s=timeout,
        images=max_images,
        megapixels=max_megapixels,
        new_tokens=max_new_tokens,
        rows=batch_size,
    )
    if engine == "vllm":
        further = list(context.args)
        _exec_vllm(model, name, host, port, dtype, max_pixels, max_images, allow_remote_images, key, further)
        return
    if context.args:
        raise UnivgError(f"unknown arguments: {' '.join(context.args)}: only --engine vllm passes any on")
    _serve(model, name, host, port, device, dtype, max_pixels, batch_size, limits, key, allow_remote_images)


def _serve(
    model: str,
    name: str | None,
    host: str,
    port: int,
    device: str | None,
    dtype: str,
    max_pixels: int | None,
    batch_size: int,
    limits: Limits,
    key: str | None,
    remote_images: bool,
) -> None:
    from rich.console import Console

    notes = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UnivgError("the server needs further packages: pip install 'univg[serve]'") from error
    # Libraries warn about their own affairs; what concerns the user is said here.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    with _bound(host, port) as listener:
        from univg.models.checkpoint import locate, weights_digest

        locate(model)
        notes.print(f"loading {model}")
        from univg.models.loading import load
        from univg.serve.app import Service

        loaded = load(model, device=device, dtype=dtype)
        root = f"{model}@{loaded.revision}" if loaded.revision else weights_digest(model)
        if max_pixels is not None:
            loaded.processor.set_pixel_budget(loaded.pixel_budget.up_to(max_pixels))
        if key is None and not _is_loopback(host):
            notes.print(
                f"note: anyone who reaches {host} can use this server: set {KEY_VARIABLE} to ask for a key"
            )
        local_only = key is None and _is_loopback(host)
        shown = name or served_name(model)
        service = Service(loaded, shown, root, limits, batch_size, key, remote_images, local_only)
        _run(service, listener, notes)


def served_name(model: str) -> str:
    """A checkpoint's name in requests: a hub name without its revision, of a folder only the last part.

    >>> served_name("GD-ML/UniVG-R1@main"), served_name("embedded")
    ('GD-ML/UniVG-R1', 'embedded')
    """
    folder = Path(model).expanduser()
    return folder.resolve().name if folder.is_dir() else model.partition("@")[0]


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that has its address, so that one which is taken is told before a model is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UnivgError(
            f"no address to listen on: --host {host}: give an address of this machine"
        ) from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            cause = (error.strerror or str(error)).lower()
            raise UnivgError(f"cannot listen ({cause}): {host}:{port}: choose another --port") from error
        yield listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _run(service: Service, listener: socket.socket, notes: Console) -> None:
    import uvicorn

    from univg.serve.app import build_app

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    grace_s = service.limits.timeout_s + 5  # longer than any request may take
    config = uvicorn.Config(
        build_app(service),
        log_config=None,
        access_log=False,
        server_header=False,
        http="h11",
        ws="none",
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=int(grace_s),
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # uvicorn finishes what is running, then raises the signal again: that SIGTERM has been obeyed by then.
    before = signal.signal(signal.SIGTERM, _ignore)
    listener.listen(_CONNECTIONS)  # from here on who comes is kept waiting, not turned away
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    notes.print(f"serving {service.name} at http://{shown}:{port}/v1 (Ctrl-C to stop)")
    server = uvicorn.Server(config)
    try:
        server.run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, before)
        finished = service.close(0.0 if server.force_exit else grace_s)
        notes.print("stopped" if finished else "stopped; the batch that was running is lost")


def _ignore(number: int, frame: FrameType | None) -> None:
    """For a signal that has been obeyed already."""


def _exec_vllm(
    model: str,
    name: str | None,
    host: str,
    port: int,
    dtype: str,
    max_pixels: int | None,
    images: int,
    remote_images: bool,
    key: str | None,
    further: list[str],
) -> None:
    from univg.models import checkpoint
    from univg.models.loading import read_conventions
    from univg.serve.vllm import VllmSettings, find_vllm, vllm_command

    source = checkpoint.locate(model)
    if checkpoint.is_adapter(source.folder):
        raise UnivgError(f"a LoRA adapter must be merged for vLLM: {model}: use univg merge first")
    _, budget = read_conventions(source.folder)
    settings = VllmSettings(
        model=source.repository or str(source.folder),
        name=name or served_name(model),
        host=host,
        port=port,
        min_pixels=min(budget.min_pixels, max_pixels or budget.min_pixels),
        max_pixels=max_pixels or budget.max_pixels,
        images=images,
        dtype=dtype,
        revision=source.revision,
        remote_images=remote_images,
        further=further,
    )
    command = vllm_command(find_vllm(), settings)
    environment = dict(os.environ)
    if key is not None:
        environment["VLLM_API_KEY"] = key
    if not remote_images:
        environment["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] = "0"
    os.execve(command[0], command, environment)
