"""Decide from a request's headers alone whether it may be asked: the host, the key, the queue, the kind of body."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress

from starlette.requests import Request

from univg.serve.config import Limits
from univg.serve.errors import ApiError
from univg.serve.service import Service

__all__ = ["check_access", "check_caller", "check_door", "check_model", "check_queue", "drain"]


def check_door(service: Service, request: Request) -> None:
    """Raise ApiError, whatever is asked for, unless this machine is asked by its own name (421), with a body whose
    length is stated (411)."""
    if service.local_only and not _is_this_machine(request.headers.get("host", "")):
        raise ApiError(421, "this server answers at 127.0.0.1 and localhost", code="wrong_host")
    if "transfer-encoding" in request.headers:
        # Chunks of a byte cost a hundred times what they hold, and with a stated length as well nobody knows which
        # of the two a proxy in front went by.
        message = "send the body with its Content-Length, not in chunks"
        raise ApiError(411, message, code="length_required", headers={"Connection": "close"})


def check_access(service: Service, request: Request) -> None:
    """Raise ApiError for a chat completion whose body need not be read."""
    check_caller(service, request)
    check_queue(service)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        # Also what keeps a web page of elsewhere from asking: browsers send other kinds without asking first.
        message = "send the request with Content-Type: application/json"
        raise ApiError(415, message, code="unsupported_media_type")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "send the request without Content-Encoding", code="unsupported_encoding")
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > service.limits.body_bytes:
        message = (
            f"the request is larger than {service.limits.body_bytes >> 20} MiB: send fewer or smaller images"
        )
        raise ApiError(413, message, code="request_too_large")


def check_caller(service: Service, request: Request) -> None:
    """Raise ApiError (401) unless the request has the server's key."""
    if service.api_key is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(
        given.strip().encode(), service.api_key.encode()
    ):
        raise ApiError(
            401,
            "no valid API key: send Authorization: Bearer …",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


def check_queue(service: Service) -> None:
    """Raise ApiError (429) if as many requests are held as may be."""
    if service.held >= service.limits.held:
        raise ApiError(
            429,
            f"{service.held} requests are being answered already: try again later",
            code="queue_full",
            headers=service.retry_after(),
        )


def check_model(service: Service, name: str) -> None:
    """Raise ApiError (404) unless `name` is the served model's."""
    if name != service.name:
        message = f"there is no model {name[:100]!r} here: ask for {service.name!r}"
        raise ApiError(404, message, param="model", code="model_not_found")


async def drain(request: Request, limits: Limits) -> None:
    """Let a body that is refused arrive, up to the limit: most clients read no reply before they have sent all."""
    if "expect" in request.headers:  # to read is what would tell such a client to send it
        return
    arrived = 0
    try:
        async with asyncio.timeout(min(5.0, limits.body_s)):
            async for chunk in request.stream():
                arrived += len(chunk)
                if arrived > limits.body_bytes:
                    return
    except TimeoutError:
        return


def _is_this_machine(host: str) -> bool:
    """Tell whether a Host header names an address of numbers or localhost.

    >>> [_is_this_machine(one) for one in ("127.0.0.1:80", "[::1]:80", "localhost", "a.example:80", "")]
    [True, True, True, False, False]
    """
    name = host.removeprefix("[").partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return name.lower() == "localhost"
