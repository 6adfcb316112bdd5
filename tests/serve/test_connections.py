"""Clients that are slow, rude or gone, on raw sockets: who makes the server wait is dropped, others are served."""

from __future__ import annotations

import itertools
import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from types import SimpleNamespace
from typing import Any

import pytest

from univg.models.loading import Loaded

pytest.importorskip("uvicorn", reason="the server needs: pip install 'univg[serve]'")

from serving import KEY, PATIENCE_S, SCRIPTED, get, metric, post, said, serving, starting, wait_for

SOON_S = 40  # on a busy machine; a slow body may take 60
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = json.dumps(said("Where?")).encode()


@pytest.fixture(scope="module")
def server(loaded: Loaded) -> Iterator[SimpleNamespace]:
    limits, bounds = {"body_s": 0.5}, {"connections": 24, "idle_s": 0.5}
    with serving(loaded, limits=limits, bounds=bounds) as server:
        yield server


def connect(port: int, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    connection.sendall(sent)
    return connection


def read_all(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    pieces = []
    with suppress(ConnectionError):
        while piece := connection.recv(1 << 16):
            pieces.append(piece)
    return b"".join(pieces)


def takes_connections(port: int) -> bool:
    try:
        connect(port).close()
    except ConnectionError:
        return False
    return True


SLOW: dict[str, tuple[bytes, bytes, bytes]] = {  # sent at once, then again and again, and what is answered
    "nothing": (b"", b"", b""),
    "half a head": (HEAD, b"", b""),
    "a head, a byte at a time": (HEAD + b"X: ", b"y", b""),
    "a head without end": (HEAD, b"X: y\r\n", b""),
    "half a body": (HEAD + b"Content-Length: 100\r\n\r\n{", b"", b"HTTP/1.1 408"),
    "a body, a byte at a time": (HEAD + b"Content-Length: 999999\r\n\r\n{", b" ", b"HTTP/1.1 408"),
    "a body that is not expected": (HEALTH[:-2] + b"Content-Length: 999999\r\n\r\n{", b" ", b"HTTP/1.1 200"),
    "a body that is refused": (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999\r\n\r\n{",
        b" ",
        b"HTTP/1.1 415",
    ),
    "a body to be asked for": (HEAD + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n", b"", b"HTTP/1.1 100"),
    "nothing after an answer": (HEALTH, b"", b"HTTP/1.1 200"),
    "half a head after an answer": (HEALTH + HEAD, b"", b"HTTP/1.1 200"),
    "a head after an answer, a byte at a time": (HEALTH + HEAD + b"X: ", b"y", b"HTTP/1.1 200"),
}  # fmt: skip


def test_slow_clients_are_dropped(server: SimpleNamespace) -> None:
    def suffer(name: str) -> bytes:
        start, more, _ = SLOW[name]
        deadline, got = time.monotonic() + PATIENCE_S, b""
        with connect(server.port, start) as connection:
            connection.settimeout(0.05)
            with suppress(ConnectionError):
                while time.monotonic() < deadline:
                    with suppress(TimeoutError):
                        connection.sendall(more)
                        if not (piece := connection.recv(1 << 16)):
                            return got
                        got += piece
        assert time.monotonic() < deadline, name
        return got

    with ThreadPoolExecutor(len(SLOW)) as threads:
        for (name, (_, _, answered)), got in zip(SLOW.items(), threads.map(suffer, SLOW), strict=True):
            assert got.startswith(answered) and bool(got) == bool(answered), (name, got)


CROWDS = {
    "of every kind": [start for start, _, _ in SLOW.values()] + [HEALTH * 5000],
    "of unread answers": [HEALTH * 5000],
} | {f"of {name}": [start] for name, (start, _, _) in SLOW.items()}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "of every kind")) for name in CROWDS]
)
def test_a_crowd_of_slow_clients_shuts_nobody_out(name: str, loaded: Loaded) -> None:
    with (
        serving(loaded, bounds={"connections": 24}) as server,
        ExitStack() as crowd,
    ):  # deadlines as they come
        for _, start in zip(range(100), itertools.cycle(CROWDS[name]), strict=False):
            connection = crowd.enter_context(connect(server.port))
            connection.settimeout(0)
            with suppress(BlockingIOError):
                connection.send(start)
        assert get(f"{server.url}/health")[0] == 200
        assert post(server.url, said("Where?"))[0] == 200
        wait_for(lambda: len(server.server.server_state.connections) <= 25)


def test_bodies_that_stall_leave_room_for_others(loaded: Loaded) -> None:
    with serving(loaded, max_requests=2, limits={"buffered_bytes": 1000, "body_s": 6}) as server:
        with ExitStack() as crowd:
            for _ in range(8):
                crowd.enter_context(connect(server.port, HEAD + b"Content-Length: 9999\r\n\r\n{"))
            wait_for(lambda: len(server.service.clocks) == 8)
            assert post(server.url, said("Where?"))[0] == 200  # those that have not arrived take no place
            crowd.enter_context(connect(server.port, HEAD + b"Content-Length: 9999\r\n\r\n" + b" " * 950))
            wait_for(lambda: server.service.buffered > 950)
            status, told, headers = post(server.url, said("Where?"))
            assert (status, told["error"]["code"]) == (429, "queue_full") and headers["retry-after"]
            wait_for(lambda: not server.service.clocks)  # 1 s, not 6, as another has found no room
        assert server.service.buffered == 0 and post(server.url, said("Where?"))[0] == 200


def test_more_that_arrive_together_than_fit(loaded: Loaded, scripted: Any) -> None:
    scripted.go.clear()
    head = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    with serving(loaded, max_requests=2) as server, ExitStack() as crowd:
        asked = [crowd.enter_context(connect(server.port, head + BODY[:-1])) for _ in range(5)]
        wait_for(lambda: len(server.service.clocks) == 5)
        for connection in asked:
            connection.sendall(BODY[-1:])
        wait_for(lambda: metric(server, 'univg_requests_total{status="429"}') == 3)
        scripted.go.set()
        assert sorted(read_all(one)[9:12] for one in asked) == [b"200", b"200", b"429", b"429", b"429"]
        assert (server.service.held, server.service.buffered) == (0, 0)


def test_a_client_that_reads_no_answer_is_dropped(server: SimpleNamespace) -> None:
    with connect(server.port) as connection:
        with pytest.raises(ConnectionError):
            connection.sendall(HEALTH.replace(b"health", b"metrics") * 500_000)
        wait_for(lambda: not server.server.server_state.connections)


CHUNKS = {
    "in chunks": b"5\r\nhello\r\n0\r\n\r\n",
    "in chunks of a byte": b"1\r\na\r\n" * 20000,
    "with long extensions": b"".join(b"1;" + b"x" * 15000 + b"\r\na\r\n" for _ in range(20)),
}


@pytest.mark.parametrize("name", CHUNKS)
@pytest.mark.parametrize("further", [b"", b"Content-Length: 5\r\n"], ids=["alone", "and a length"])
def test_a_body_without_its_length_is_refused(name: str, further: bytes, server: SimpleNamespace) -> None:
    head = HEAD + b"Transfer-Encoding: chunked\r\n" + further + b"\r\n"
    with connect(server.port, head) as connection:
        with suppress(ConnectionError):
            connection.sendall(CHUNKS[name] + HEALTH)
        got = read_all(connection)
    # Nothing that follows is taken for another request. A client that is still sending may miss the answer.
    assert got.count(b"HTTP/1.1") <= 1 and (b" 411 " in got or name != "in chunks")


def test_requests_one_behind_the_other(server: SimpleNamespace) -> None:
    asked = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    with connect(server.port, (HEALTH + asked) * 5) as connection:
        connection.settimeout(PATIENCE_S)
        got = read_all(connection)
    assert re.findall(rb"HTTP/1.1 (\d+)", got) == [b"200"] * 10
    assert got.count(b'"status":"ok"') == got.count(b'"chat.completion"') == 5


def test_a_body_is_asked_for_only_if_it_is_wanted(loaded: Loaded) -> None:
    expecting = HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n" % len(BODY)
    with serving(loaded, KEY, bounds={"idle_s": 0.5}) as server:
        with connect(server.port, expecting + b"\r\n") as connection:
            assert read_all(connection).startswith(b"HTTP/1.1 401")
        with connect(
            server.port, expecting + b"Authorization: Bearer %s\r\n\r\n" % KEY.encode()
        ) as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 100")
            connection.sendall(BODY)
            assert read_all(connection).startswith(b"HTTP/1.1 200")


def test_sigterm_finishes_what_is_running_and_drops_what_has_not_arrived() -> None:
    body = json.dumps(said("Where?", n=4, temperature=1.0) | {"max_tokens": 256}).encode()
    with starting("--max-images", "2", UNIVG_API_KEY=KEY) as server, ThreadPoolExecutor(3) as threads:
        key = {"Authorization": f"Bearer {KEY}"}
        assert post(server.url, body)[0] == 401
        slow = [connect(server.port, sent) for sent in (b"", HEAD, HEALTH, HEALTH + HEAD)]
        slow += [
            connect(
                server.port, HEAD + b"Authorization: Bearer %s\r\nContent-Length: 99\r\n\r\n{" % KEY.encode()
            ),
            connect(server.port, HEAD + b"Content-Length: 99\r\n\r\n{"),
        ]
        asked = [threads.submit(post, server.url, body, **key) for _ in range(3)]
        wait_for(
            lambda: (
                json.loads(get(f"{server.url}/health")[1])["held"] == 3 or any(one.done() for one in asked)
            )
        )
        server.process.send_signal(signal.SIGTERM)
        assert [one.result()[0] for one in asked] == [200, 200, 200]
        answered = time.monotonic()
        assert server.process.wait(PATIENCE_S) == 0 and time.monotonic() - answered < SOON_S
        *lines, last = server.process.stderr.read().splitlines()
        assert last == "stopped" and all(" univg.access: " in line for line in lines)
        for connection in slow:
            read_all(connection)  # which ends
            connection.close()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (signal.SIGINT, signal.SIGTERM),
        pytest.param(signal.SIGTERM, signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_the_second_signal_ends_it_at_once(first: int, second: int) -> None:
    with starting(program=("-c", SCRIPTED)) as server, ThreadPoolExecutor(1) as threads:
        asked = threads.submit(post, server.url, said("hang"))
        wait_for(lambda: json.loads(get(f"{server.url}/health")[1])["held"] == 1)
        server.process.send_signal(first)
        wait_for(lambda: not takes_connections(server.port))
        assert server.process.poll() is None
        server.process.send_signal(second)
        assert server.process.wait(SOON_S) == -second
        assert "Traceback" not in server.process.stderr.read() and asked.exception()


def test_the_log_is_a_line_a_request_and_no_reader_of_it_is_needed() -> None:
    with starting(program=("-c", SCRIPTED)) as server:
        error = server.process.stderr

        def log_of(name: str, status: int, **headers: str) -> list[str]:
            found, told, got = post(server.url, said(name), X_Request_ID=headers.pop("id", name), **headers)
            assert found == status and (status != 500 or got["x-request-id"] in told["error"]["message"])
            lines = [error.readline()]
            while not re.match(r"\S+ \S+ INFO univg.access: ", lines[-1]):
                lines.append(error.readline())
            assert all(f" {got['x-request-id']} " in line for line in lines)
            return lines

        [line] = log_of("good", 200)
        assert re.fullmatch(
            r"[-0-9]+ [:,0-9]+ INFO univg.access: good 127.0.0.1 POST /v1/chat/completions 200 \d+\.\d{3} s "
            r"images=0 tokens=\d+\+1\n",
            line,
        )
        *failed, line = log_of("bad", 500)
        assert " 500 " in line and failed and all("broken\\n2026" in one for one in failed)
        [line] = log_of("x", 200, id="a 127.0.0.1 POST", X_Forwarded_For="1.1.1.1 POST / 200\t0.1 s")
        assert re.search(r"univg.access: [0-9a-f]{16} - POST /v1", line)
        get(f"{server.url}/a%0Ab%20200%1b[31m?key=secret")
        assert " GET /a%0Ab%20200%1b[31m 404 " in error.readline()

        with connect(server.port) as connection:  # from here on nobody reads the log
            for _ in range(40):
                connection.sendall(HEALTH * 50)
                got = b""
                while got.count(b'"status":"ok"') < 50:
                    got += connection.recv(1 << 16)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(SOON_S) == 0
