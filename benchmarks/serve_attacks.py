"""Measure what requests made to cost much cost `univg serve`, on loopback: the attacks of `tests/attacks.py`.

    python benchmarks/serve_attacks.py --mib 60 --at-once 1 [NAME …]

Printed for each: seconds to the reply, its status and words, by how much the memory of the server and its processes
grew at its highest, and the longest that `/health` took to answer meanwhile. The server is the same for all.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from attacks import BODIES, PICTURES, with_picture

PATIENCE_S = 600


class Watch:
    """Asks `/health` and reads the memory of the server's processes, again and again."""

    def __init__(self, port: int, server: int) -> None:
        self.slowest_s = self.highest_mib = 0.0
        self._port, self._server, self._over = port, server, threading.Event()
        self._threads = [threading.Thread(target=one) for one in (self._ask, self._measure)]

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        time.sleep(0.1)
        return self

    def __exit__(self, *failure: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._over.wait(0.02):
            started = time.perf_counter()
            ask(self._port, "GET", "/health")
            self.slowest_s = max(self.slowest_s, time.perf_counter() - started)

    def _measure(self) -> None:
        while not self._over.wait(0.02):
            self.highest_mib = max(self.highest_mib, memory_mib(self._server))


def memory_mib(server: int) -> float:
    """Return the resident memory of a process and those it started."""
    children = Path(f"/proc/{server}/task/{server}/children").parent.parent.glob("*/children")
    held = 0.0
    for one in [str(server), *(child for listed in children for child in listed.read_text().split())]:
        try:
            found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{one}/status").read_text())
        except OSError:  # it has ended
            continue
        held += int(found[1]) / 1024 if found else 0.0
    return held


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    except OSError as error:
        return 0, f"{type(error).__name__}: {error}"
    finally:
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="attacks (default: all)")
    parser.add_argument("--mib", type=float, default=60, help="of a body of JSON")
    parser.add_argument("--at-once", type=int, default=1, help="the same request so many times at once")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "univg", "serve", "--port", "0"]
    server = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"}
    )
    assert server.stderr is not None
    try:
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", server.stderr.readline())):
            assert server.poll() is None, "the server has ended"
        threading.Thread(target=server.stderr.read, daemon=True).start()
        port = int(found[1])
        ask(port, "POST", "/v1/chat/completions", with_picture(PICTURES["a PNG of 99 megapixels"]()))
        print(f"{'attack':36} {'MiB':>5} {'s':>6} {'+MiB':>6} {'/health s':>9}")
        for name in arguments.names or [*BODIES, *PICTURES]:
            size = int(arguments.mib * (1 << 20))
            body = BODIES[name](size) if name in BODIES else with_picture(PICTURES[name]())
            before = memory_mib(server.pid)
            with Watch(port, server.pid) as watch, ThreadPoolExecutor(arguments.at_once) as threads:
                started = time.perf_counter()
                sent = [
                    threads.submit(ask, port, "POST", "/v1/chat/completions", body)
                    for _ in range(arguments.at_once)
                ]
                status, told = sent[-1].result()
                seconds = time.perf_counter() - started
            words = json.loads(told).get("error", {}).get("message", "") if status else told
            print(
                f"{name:36} {len(body) / (1 << 20):5.1f} {seconds:6.2f} {watch.highest_mib - before:6.0f} "
                f"{watch.slowest_s:9.2f}  {status} {words[:90]}",
                flush=True,
            )
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
