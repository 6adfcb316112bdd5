"""Images on the network: nothing private is ever reached, and nothing takes more than it may."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="the server needs: pip install 'univg[serve]'")

from univg.serve.errors import ApiError
from univg.serve.fetching import FetchError, fetch, is_public
from univg.serve.images import image_files
from univg.serve.limits import Limits

PUBLIC = ("8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8")
PRIVATE = (
    *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
    *("100.64.0.1", "198.18.0.1", "192.0.2.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "fe80::1", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b:1::1"),
    "2001:0:0:0:0:0:80ff:fffe",  # Teredo, with 127.0.0.1 inside
)


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        what, _, rest = self.path[1:].partition("/")
        if what == "to":
            self.send_response(302)
            self.send_header("Location", rest)
            self.end_headers()
        elif what == "status":
            self.send_error(int(rest))
        elif what == "drip":
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(200):
                    self.wfile.write(b"x")
                    time.sleep(0.05)
            except OSError:
                pass
        else:
            self.send_response(200)
            if what == "stated":
                self.send_header("Content-Length", rest)
            self.end_headers()
            self.wfile.write(b"x" * int(rest or 5))


@pytest.fixture
def site() -> Iterator[Any]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.asked = []  # type: ignore[attr-defined]
    server.url = f"http://127.0.0.1:{server.server_address[1]}"  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def get(url: str, most: int = 1000, seconds: float = 10.0, allowed: Any = lambda address: True) -> bytes:
    return fetch(url, most, time.monotonic() + seconds, 3, allowed)


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", PRIVATE)
def test_addresses_that_are_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


def test_what_is_there_is_fetched_through_redirects(site: Any) -> None:
    assert get(f"{site.url}/to//plain/7") == b"x" * 7
    assert site.asked == ["/to//plain/7", "/plain/7"]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/status/404", "status 404"),
        ("/to//to//to//to//plain/1", "more than 3 times"),
        ("/to/", "to nowhere"),
        ("/to/file:///etc/hostname", "only http and https"),
        ("/to/ftp://example.org/a.png", "only http and https"),
        ("/plain/1001", "larger"),
        ("/stated/1001", "larger"),
    ],
)
def test_what_is_not_fetched(path: str, why: str, site: Any) -> None:
    with pytest.raises(FetchError, match=why):
        get(site.url + path)


@pytest.mark.parametrize(
    "url",
    [
        "http://me:secret@127.0.0.1/a",
        "http://127.0.0.1:22/",
        "http:///a",
        "http://[::1/",
        "http://a b/",
        "http://ä/",
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(FetchError, match=r"address|port"):
        get(url)


def test_one_byte_at_a_time_ends_in_time(site: Any) -> None:
    started = time.monotonic()
    with pytest.raises(FetchError, match="slowly"):
        get(f"{site.url}/drip", seconds=0.4)
    assert time.monotonic() - started < 3


def test_this_machine_is_never_asked(site: Any) -> None:
    port = site.server_address[1]
    for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0"):
        with pytest.raises(FetchError, match=r"public|found"):
            get(f"http://{host}:{port}/plain/1", allowed=is_public)
    assert site.asked == []


def test_a_redirect_into_the_private_network_is_not_followed(site: Any) -> None:
    seen: list[str] = []

    def first_only(address: Any) -> bool:
        seen.append(str(address))
        return len(seen) == 1

    with pytest.raises(FetchError, match="public"):
        get(f"{site.url}/to/{site.url}/plain/1", allowed=first_only)
    assert len(seen) == 2 and len(site.asked) == 1


def test_a_name_is_looked_up_once_and_every_address_counts(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[list[str]] = [["8.8.8.8", "10.0.0.1"]]
    looked: list[str] = []

    def look_up(host: str, port: int, **settings: Any) -> list[Any]:
        looked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in answers[0]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(FetchError, match="public"):
        get("http://mixed.example/a.png", allowed=is_public)
    connected: list[Any] = []

    def refuse(address: Any, **settings: Any) -> socket.socket:
        connected.append(address)
        raise OSError("not in a test")

    monkeypatch.setattr(socket, "create_connection", refuse)
    answers[0] = ["8.8.8.8"]
    with pytest.raises(FetchError, match="does not answer"):
        get("http://public.example/a.png", allowed=is_public)
    assert connected == [("8.8.8.8", 80)] and looked == ["mixed.example", "public.example"]


def test_images_of_a_request_share_its_bounds() -> None:
    left: list[tuple[int, float]] = []

    def fetched(url: str, most: int, deadline: float, redirects: int) -> bytes:
        left.append((most, deadline))
        return b"x" * 40

    limits = Limits(body_bytes=100)
    assert len(image_files(["http://a/1", "HTTPS://a/2"], limits, True, fetched)) == 2
    assert [most for most, _ in left] == [100, 60] and left[0][1] == left[1][1]
    with pytest.raises(ApiError, match="image 1: addresses on the network"):
        image_files(["http://a/1"], limits, False, fetched)
