"""Measure what requests made to cost much cost `univg serve`, on loopback: the attacks of `tests/attacks.py`.

    python benchmarks/serve_attacks.py --mib 60 --at-once 1 [NAME …]

Printed for each: seconds to the reply, for how long the server and its processes were computing, by how much their
memory grew at its highest, the longest that `/health` took to answer meanwhile, the reply's status and words. One
server answers them all.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from attacks import BODIES, PICTURES, list_processes, read_mib, with_picture
from serving import get, post, starting


class Watch:
    """Asks `/health` and reads the memory of the server's processes, again and again."""

    def __init__(self, url: str, server: int) -> None:
        self.slowest_s = self.highest_mib = 0.0
        self._url, self._server, self._over = url, server, threading.Event()
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
            with contextlib.suppress(OSError):
                get(f"{self._url}/health")
            self.slowest_s = max(self.slowest_s, time.perf_counter() - started)

    def _measure(self) -> None:
        while not self._over.wait(0.02):
            self.highest_mib = max(self.highest_mib, memory_mib(self._server))


def memory_mib(server: int) -> float:
    """Return the resident memory of a process and those it started."""
    held = 0.0
    for process in list_processes(server):
        with contextlib.suppress(OSError):  # it has ended
            held += read_mib("VmRSS", process)
    return held


def computing_s(server: int) -> float:
    """Return for how long a process, those it started and those that have ended were computing."""
    ticks = 0
    for process in list_processes(server):
        with contextlib.suppress(OSError):
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11 : 15 if process.name == str(server) else 13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def ask(url: str, body: bytes) -> tuple[int, str]:
    """Return the status of a chat, and why it was refused."""
    try:
        status, reply, _ = post(url, body)
    except OSError as error:
        return 0, f"{type(error).__name__}: {error}"
    return status, reply.get("error", {}).get("message", "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="attacks (default: all)")
    parser.add_argument("--mib", type=float, default=60, help="of a body of JSON")
    parser.add_argument("--at-once", type=int, default=1, help="the same request so many times at once")
    arguments = parser.parse_args()
    with starting() as server:
        threading.Thread(target=server.process.stderr.read, daemon=True).start()
        pid = server.process.pid
        ask(server.url, with_picture(PICTURES["a PNG of 99 megapixels"]()))
        print(f"{'attack':36} {'MiB':>5} {'s':>6} {'CPU s':>6} {'+MiB':>6} {'/health s':>9}")
        for name in arguments.names or [*BODIES, *PICTURES]:
            size = int(arguments.mib * (1 << 20))
            body = BODIES[name](size) if name in BODIES else with_picture(PICTURES[name]())
            before, computed = memory_mib(pid), computing_s(pid)
            with Watch(server.url, pid) as watch, ThreadPoolExecutor(arguments.at_once) as threads:
                started = time.perf_counter()
                sent = [threads.submit(ask, server.url, body) for _ in range(arguments.at_once)]
                status, words = sent[-1].result()
                seconds = time.perf_counter() - started
            computed = computing_s(pid) - computed
            grown = watch.highest_mib - before
            print(
                f"{name:36} {len(body) / (1 << 20):5.1f} {seconds:6.2f} {computed:6.2f} {grown:6.0f} "
                f"{watch.slowest_s:9.2f}  {status} {words[:90]}",
                flush=True,
            )


if __name__ == "__main__":
    main()
