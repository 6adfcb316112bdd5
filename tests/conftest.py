"""For every test: one thread, no network, no deadlines; set here without importing torch."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
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


@pytest.fixture(scope="session")
def loopback() -> ModuleType:
    """The module `loopback.py` beside this file: tests are no package, so it is loaded by its path."""
    spec = importlib.util.spec_from_file_location("loopback", Path(__file__).with_name("loopback.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["loopback"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def server(loopback: ModuleType) -> Iterator[Any]:
    """A running `loopback.Server`."""
    server = loopback.Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
