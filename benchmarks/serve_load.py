"""Measure `univg serve` under load, on loopback, asked by the official client.

    python benchmarks/serve_load.py --seconds 120

Three runs against one server process. One request at a time. Then at saturation: `--clients` clients, each sending
its next request when the last is answered. Then over capacity: more clients than the server holds requests, so that
it refuses some (429) and clients come again. The requests are the world's questions, greedy, the same in all runs:
every request must be answered, with the same text each time. Printed: requests a second, latency, the ratio, what
was refused, and the server's memory over the time at saturation.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from statistics import mean, quantiles
from typing import Any


@dataclass
class Outcome:
    """What one run gave: seconds of each request, the texts that were given to each question, and the resident
    memory of the server (time, MiB)."""

    seconds: list[float] = field(default_factory=list)
    texts: dict[int, set[str]] = field(default_factory=dict)
    memory: list[tuple[float, float]] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.seconds) / self.wall_s


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--n", type=int, default=2, help="questions of each of the world's task families")
    parser.add_argument("--single-seconds", type=float, default=30, help="of one request at a time")
    parser.add_argument("--seconds", type=float, default=120, help="at saturation")
    parser.add_argument("--over-seconds", type=float, default=20, help="over capacity")
    parser.add_argument("--clients", type=int, default=48)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-requests", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2, help="of the server's torch")
    options = parser.parse_args()
    requests = build_requests(options.n, options.max_tokens)
    with start_server(options) as (url, pid):
        asyncio.run(measure(options, requests, url, pid))


async def measure(
    options: argparse.Namespace, requests: Sequence[dict[str, Any]], url: str, pid: int
) -> None:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=600, max_retries=100) as client:
        served = (await client.models.list()).data[0].id
        asked = [{**request, "model": served} for request in requests]
        await run_clients(
            client, asked, options.batch_size, 0, pid
        )  # the first calls of a process are slower
        single = await run_clients(client, asked, 1, options.single_seconds, pid)
        full = await run_clients(client, asked, options.clients, options.seconds, pid)
        over = await run_clients(client, asked, 2 * options.max_requests, options.over_seconds, pid)
    refused = count_refusals(url)
    print(f"{len(requests)} questions of the world, {full.tokens / len(full.seconds):.0f} tokens a response")
    for name, outcome in (("one at a time", single), (f"{options.clients} clients", full)):
        print(describe(name, outcome))
    print(describe(f"{2 * options.max_requests} clients, {options.max_requests} held", over))
    by_cpu = single.cpu_s / len(single.seconds) / (full.cpu_s / len(full.seconds))
    print(f"ratio {full.rate / single.rate:.2f}; by the server's CPU time {by_cpu:.2f}")
    print(f"refused and asked again: {refused}")
    print(describe_memory(full.memory))
    lost = single.failures + full.failures + over.failures
    assert not lost, f"requests were lost: {lost}"
    for place in range(len(requests)):
        texts = single.texts.get(place, set()) | full.texts.get(place, set()) | over.texts.get(place, set())
        assert len(texts) == 1, f"question {place} was answered in {len(texts)} ways: {texts}"
    print("every request answered; equal texts in all runs")


async def run_clients(
    client: Any, requests: Sequence[dict[str, Any]], clients: int, seconds: float, pid: int
) -> Outcome:
    """Ask by `clients` clients for so many seconds, and until each question was asked once; await what was begun."""
    import psutil

    outcome, places, started = Outcome(), count(), time.perf_counter()
    process = psutil.Process(pid)
    used = sum(process.cpu_times()[:2])

    async def one_client() -> None:
        for number in places:
            if number >= len(requests) and time.perf_counter() - started >= seconds:
                return
            place = number % len(requests)
            begun = time.perf_counter()
            try:
                reply = await client.chat.completions.create(**requests[place])
            except Exception as error:  # noqa: BLE001  (counted, and told at the end)
                outcome.failures[repr(error)[:200]] += 1
                continue
            now = time.perf_counter()
            outcome.seconds.append(now - begun)
            outcome.texts.setdefault(place, set()).add(reply.choices[0].message.content)
            outcome.tokens += reply.usage.completion_tokens
            outcome.memory.append((now - started, process.memory_info().rss / 2**20))

    await asyncio.gather(*(one_client() for _ in range(clients)))
    outcome.wall_s = time.perf_counter() - started
    outcome.cpu_s = sum(process.cpu_times()[:2]) - used
    return outcome


def describe(name: str, outcome: Outcome) -> str:
    cuts = quantiles(outcome.seconds, n=100, method="inclusive") if len(outcome.seconds) > 1 else [0.0] * 99
    done, wall_s = len(outcome.seconds), outcome.wall_s
    return (
        f"{name:24s} {done:6d} requests in {wall_s:6.1f} s: {outcome.rate:6.2f} requests/s, "
        f"{outcome.tokens / wall_s:5.0f} tokens/s; latency {cuts[49]:.2f} s, 95 % under {cuts[94]:.2f} s; "
        f"server's CPU {1000 * outcome.cpu_s / done:.0f} ms a request; lost {sum(outcome.failures.values())}"
    )


def describe_memory(memory: Sequence[tuple[float, float]]) -> str:
    """Say the server's memory in quarters of the time at saturation."""
    end = memory[-1][0]
    quarters: list[list[float]] = [[], [], [], []]
    for at, resident in memory:
        quarters[min(3, int(4 * at / end))].append(resident)
    means = ", ".join(f"{mean(quarter):.0f}" for quarter in quarters if quarter)
    return f"server's memory in the four quarters at saturation: {means} MiB (most {max(m for _, m in memory):.0f})"


def build_requests(n: int, max_tokens: int) -> list[dict[str, Any]]:
    """Return the world's questions as an evaluation sends them."""
    from univg.evaluate.benchmarks import open_world
    from univg.grounding.prompts import choose_style, render_chat
    from univg.models.pixels import PixelBudget
    from univg.models.server import as_seen, with_pictures

    requests = []
    for case in open_world("world", n).items():
        # The factor and budget of the embedded models; others' servers resize what they are sent.
        urls = [as_seen(image, PixelBudget(3600, 14400), 20)[0] for image in case.pictures()]
        chat = render_chat(len(urls), case.sample.query, choose_style(case.sample, "think"))
        requests.append({"messages": with_pictures(chat, urls), "max_tokens": max_tokens, "temperature": 0})
    return requests


@contextlib.contextmanager
def start_server(options: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Start a server process on a free port and yield its address and process id."""
    command = [sys.executable, "-m", "univg", "serve", "--model", options.model, "--port", "0"]
    command += ["--batch-size", str(options.batch_size), "--max-requests", str(options.max_requests)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"at (http://\S+)/v1", line):
                break
            print(line, end="", file=sys.stderr)
        else:
            raise SystemExit("the server did not start")
        yield found[1], process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        print(f"the server ended with code {process.wait(60)}")


def count_refusals(url: str) -> int:
    from urllib.request import urlopen

    text = urlopen(f"{url}/metrics", timeout=10).read().decode()
    found = re.search(r'^univg_requests_total\{status="429"\} (\S+)', text, re.MULTILINE)
    return int(float(found[1])) if found else 0


if __name__ == "__main__":
    main()
