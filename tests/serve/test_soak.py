"""A server process under 2,000 requests of every kind: none is lost, all are counted, and nothing in it grows."""

from __future__ import annotations

import json
import os
import random
import re
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("uvicorn", reason="the server needs: pip install 'univg[serve]'")
pytest.importorskip("psutil")

import psutil

from serving import KEY, PATIENCE_S, get, image, post, said, starting, wait_for
from univg.pictures.pages import data_url

pytestmark = pytest.mark.slow

REQUESTS = int(os.environ.get("UNIVG_SOAK", "2000"))
CLIENTS = 12
HEAD = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HEAD += f"Authorization: Bearer {KEY}\r\n"


def draw_picture(rng: random.Random) -> str:
    picture = Image.new("RGB", (rng.randint(40, 900), rng.randint(40, 900)), (rng.randint(0, 255), 80, 120))
    return data_url(picture, rng.choice(["png", "jpeg", "webp"]))


def ask(rng: random.Random, images: int = 1, **further: Any) -> dict[str, Any]:
    parts = [part for _ in range(images) for part in image(draw_picture(rng))]
    return said(parts, **further) | {"max_tokens": rng.choice([2, 8, 12])}


class Client:
    """Sends requests of one kind each and counts what the server said; `expected` is what it should have counted."""

    def __init__(self, url: str) -> None:
        self.url, self.port = url, int(url.rpartition(":")[2])
        self.expected: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._lock = threading.Lock()

    def send(self, number: int) -> None:
        rng = random.Random(number)
        kinds = (self.answered, self.streamed, self.refused, self.cancelled, self.cut_off)
        kind = rng.choices(kinds, weights=(8, 3, 6, 2, 1))[0]
        try:
            status = kind(rng)
        except Exception as error:  # noqa: BLE001  (told at the end)
            with self._lock:
                self.wrong.append(f"request {number}, {kind.__name__}: {error!r}")
            return
        with self._lock:
            self.expected[status] += 1

    def post(self, body: bytes | dict[str, Any], status: int, key: str = KEY) -> str:
        found, told, _ = post(self.url, body, Authorization=f"Bearer {key}")
        assert found == status, told
        return str(status)

    def answered(self, rng: random.Random) -> str:
        drawn = rng.choice([{}, {"n": 2, "temperature": 1.0, "seed": rng.randint(0, 9)}])
        return self.post(ask(rng, rng.randint(1, 3), **drawn), 200)

    def streamed(self, rng: random.Random) -> str:
        with self.connect(ask(rng, stream=True)) as connection:
            got = b""
            while piece := connection.recv(1 << 16):
                got += piece
        assert got.startswith(b"HTTP/1.1 200") and b"data: [DONE]" in got, got[:200]
        return "200"

    def refused(self, rng: random.Random) -> str:
        body = ask(rng)
        cut = body["messages"][0]["content"][0]["image_url"]["url"][:120]
        bodies: tuple[tuple[bytes | dict[str, Any], int, str], ...] = (
            (json.dumps(body).encode()[:-9], 400, KEY),
            (said(image(cut)), 400, KEY),
            (said(image("data:image/png;base64," + "AAAA" * 9999)), 400, KEY),
            (said(image("http://127.0.0.1/a.png")), 400, KEY),
            (said("where " * 9000), 400, KEY),
            (said("a", top_p=0.5), 400, KEY),
            (body | {"model": "gpt-9"}, 404, KEY),
            (b'"' + b"x" * (3 << 20) + b'"', 413, KEY),
            (body, 401, "wrong"),
        )
        return self.post(*rng.choice(bodies))

    def cancelled(self, rng: random.Random) -> str:
        """Goes away while it waits, which may be too late: then it was answered."""
        with self.connect(ask(rng) | {"max_tokens": 24, "n": 2, "temperature": 2.0}, close=False):
            time.sleep(rng.choice([0.0, 0.05]))
        return "200 or 499"

    def cut_off(self, rng: random.Random) -> str:
        with self.connect(ask(rng), sent=rng.choice([10, 1000]), close=False):
            pass
        return "499"

    def connect(self, body: dict[str, Any], *, sent: int | None = None, close: bool = True) -> socket.socket:
        data = json.dumps(body).encode()
        head = HEAD + ("Connection: close\r\n" if close else "") + f"Content-Length: {len(data)}\r\n\r\n"
        connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)
        connection.sendall(head.encode() + data[:sent])
        return connection


def count_answers(url: str) -> Counter[str]:
    found = re.findall(
        r'^univg_requests_total\{status="(\d+)"\} (\S+)', get(f"{url}/metrics")[1], re.MULTILINE
    )
    return Counter({status: int(float(count)) for status, count in found})


def test_a_soak() -> None:
    with starting("--max-body-mb", "2", "--batch-size", "8", UNIVG_API_KEY=KEY) as server:
        threading.Thread(target=server.process.stderr.read, daemon=True).start()
        process, client = psutil.Process(server.process.pid), Client(server.url)
        seen: list[tuple[int, float, int, int]] = []

        def rest() -> bool:
            state = json.loads(get(f"{server.url}/health")[1])
            return bool(state["held"] == 0 == state["waiting"])

        with ThreadPoolExecutor(CLIENTS) as threads:
            for start in range(0, REQUESTS, REQUESTS // 20):
                list(threads.map(client.send, range(start, start + REQUESTS // 20)))
                wait_for(rest)
                memory = process.memory_info().rss / 2**20
                with suppress(psutil.Error):
                    seen.append((start + REQUESTS // 20, memory, process.num_fds(), process.num_threads()))
                print("after {} requests: {:.0f} MiB, {} files, {} threads".format(*seen[-1]))
        print(client.expected, count_answers(server.url))
        assert not client.wrong, client.wrong[:5]
        wait_for(lambda: sum(count_answers(server.url).values()) == REQUESTS)
        counted = count_answers(server.url)
        assert {"200", "400", "401", "404", "413", "499"} == set(counted)
        either = client.expected.pop("200 or 499")
        more = counted - client.expected
        assert set(more) <= {"200", "499"} and more.total() == either and counted.total() == REQUESTS
        assert get(f"{server.url}/health")[0] == 200

        # The allocator keeps what was freed in pieces: of 8,000 requests, the first 3,600 took 70 MiB, the others 13.
        warm, last = seen[len(seen) // 2 - 1], seen[-1]
        assert last[1] <= max(1.03 * warm[1], warm[1] + 30), seen
        assert last[2] <= warm[2] + CLIENTS and last[3] <= warm[3] + 2, seen
        server.process.terminate()
        assert server.process.wait(PATIENCE_S) == 0
