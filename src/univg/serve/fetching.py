"""An image from an address that a stranger gave, fetched without lending him this machine's place in the network.

Every address that the name resolves to must be public, and the connection goes to the very address that was
checked (a second look-up could give another). Redirects are followed by hand, each checked anew. Proxies of the
environment are not used: they would look the name up again. Size and time are bounded as a whole.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import TypeAlias
from urllib.parse import SplitResult, urljoin, urlsplit

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK = 1 << 16
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))


class FetchError(Exception):
    """Why an address was not fetched, on one line. What a private machine answered never stands in it."""


def is_public(address: Address) -> bool:
    """Whether an address is of the public internet.

    >>> [is_public(ipaddress.ip_address(one)) for one in ("8.8.8.8", "10.0.0.1", "::ffff:127.0.0.1")]
    [True, False, False]
    """
    if isinstance(address, ipaddress.IPv6Address):
        if any(address in network for network in _NAT64):
            return False
        # An IPv4 address may stand inside one of IPv6.
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is not None and not is_public(inner):
            return False
        if inner is not None and address.ipv4_mapped:
            return True
        if address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def fetch(
    url: str,
    most: int,
    deadline: float,
    redirects: int = 3,
    allowed: Callable[[Address], bool] = is_public,
) -> bytes:
    """The body behind `url`: at most `most` bytes, by `deadline` (of `time.monotonic`).

    `allowed` judges each IP address before anything is sent to it. Errors: FetchError.
    """
    for _ in range(redirects + 1):
        parts = _checked(url)
        status, location, body = _get(parts, most, deadline, allowed)
        if status not in _REDIRECTS:
            if status != 200:
                raise FetchError(f"the address answers with status {status}")
            return body
        if not location:
            raise FetchError("the address redirects to nowhere")
        url = urljoin(url, location)
    raise FetchError(f"the address redirects more than {redirects} times")


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise FetchError("this is no valid address") from error
    if parts.scheme not in _PORTS:
        raise FetchError("only http and https addresses are fetched")
    if not parts.hostname or parts.username is not None or parts.password is not None:
        raise FetchError("an address names a host, and no user or password")
    if port is not None and port < 1024 and port not in _PORTS.values():
        raise FetchError("this port is not one of a web server")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise FetchError("an address is written in ASCII, other characters as %…")
    return parts


def _get(
    parts: SplitResult, most: int, deadline: float, allowed: Callable[[Address], bool]
) -> tuple[int, str | None, bytes]:
    """(status, Location, body) of one request; the body of a 200 only."""
    host, port = str(parts.hostname), parts.port or _PORTS[parts.scheme]
    connected = [_connect(host, port, deadline, allowed)]
    # Whatever the other side does, one byte a second included, ends here.
    alarm = threading.Timer(max(0.0, deadline - time.monotonic()), _shut, [connected])
    alarm.daemon = True
    alarm.start()
    try:
        if parts.scheme == "https":
            secure = ssl.create_default_context().wrap_socket(
                connected[0], server_hostname=host, do_handshake_on_connect=False
            )
            connected[0] = secure  # the plain socket's connection is this one's now
            secure.do_handshake()
        connection = http.client.HTTPConnection(host, port)
        connection.sock = connected[0]
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "univg"}
        connection.request("GET", target, headers=headers)
        response = connection.getresponse()
        if response.status != 200:
            return response.status, response.getheader("Location"), b""
        body = _body(response, most)
        if time.monotonic() >= deadline:  # then its end may be the alarm's doing
            raise OSError("too late")
        return 200, None, body
    except (OSError, http.client.HTTPException, ValueError) as error:
        late = time.monotonic() >= deadline
        raise FetchError(
            "the address answers too slowly" if late else "the address does not answer"
        ) from error
    finally:
        alarm.cancel()
        connected[0].close()


def _body(response: http.client.HTTPResponse, most: int) -> bytes:
    too_large = FetchError("the images are larger than a request may be")
    if (response.length or 0) > most:
        raise too_large
    body = bytearray()
    while chunk := response.read1(_CHUNK):
        body += chunk
        if len(body) > most:
            raise too_large
    if response.length:
        raise http.client.IncompleteRead(bytes(0))
    return bytes(body)


def _connect(host: str, port: int, deadline: float, allowed: Callable[[Address], bool]) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FetchError("the host's name cannot be found") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    # One private address among public ones is enough: such a name is an attempt.
    if not addresses or not all(allowed(ipaddress.ip_address(one.partition("%")[0])) for one in addresses):
        raise FetchError("the host is not on the public internet")
    for address in addresses:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        try:
            return socket.create_connection((address, port), timeout=left)
        except OSError:
            continue
    raise FetchError("the address does not answer")


def _shut(connected: list[socket.socket]) -> None:
    try:
        # The plain socket's own: that of SSL would pull the rug from under the thread that is reading.
        socket.socket.shutdown(connected[0], socket.SHUT_RDWR)
    except OSError:  # it has ended by itself
        return
