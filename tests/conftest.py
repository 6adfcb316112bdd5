"""For every test: one thread, no network, no deadlines; set here without importing torch."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Read by torch, tokenizers and huggingface_hub when they are first imported, which is after this file.
# One thread: for models of this size a second one gains nothing, and where another program wants its core, the two
# wait for each other most of the time (a test of 3 s took 40).
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

# A deadline fails on a busy machine, not on a wrong program. In CI the same examples are drawn every time.
settings.register_profile("univg", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("univg")


@pytest.fixture
def lines() -> Callable[[Path], list[dict[str, Any]]]:
    """`lines(path)`: the rows of a JSON Lines file, each line complete."""

    def read(path: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    return read


@pytest.fixture
def server() -> Iterator[Any]:
    """A running `loopback.Server`."""
    import loopback  # it takes the package's own modules, which must find the variables above

    server = loopback.Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
