"""One model for all tests of the server, and one that says what it is told to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from univg.models.generation import generate as generation
from univg.models.generation.generate import Chat, Generation
from univg.models.loading import Loaded, load


@pytest.fixture(scope="session")
def loaded() -> Loaded:
    """The embedded model."""
    return load("embedded")


class Scripted:
    """In place of `generate`: answers with each chat's question, holds until `go`, fails on "bad"."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.settings: list[dict[str, Any]] = []
        self.go = threading.Event()
        self.go.set()
        self.error: Exception = RuntimeError("broken")

    def __call__(self, loaded: Loaded, chats: Sequence[Chat], **settings: Any) -> list[list[Generation]]:
        texts = [str(chat.messages[0]["content"]) for chat in chats]
        self.batches.append(texts)
        self.settings.append(settings)
        self.go.wait(300)
        if "bad" in texts:
            raise self.error
        return [[Generation(text, 1, truncated=False)] * settings["n"] for text in texts]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    model = Scripted()
    monkeypatch.setattr(generation, "generate", model)
    return model


@pytest.fixture
def picture() -> Callable[[int, int], Image.Image]:
    """`picture(width, height)`: noise, another at each call."""
    rng = np.random.default_rng(0)

    def make(width: int, height: int) -> Image.Image:
        return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))

    return make
