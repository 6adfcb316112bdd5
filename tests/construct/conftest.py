"""A teacher over HTTP that does as it is told, and a small set of its own to write thoughts for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from univg.grounding.samples import GroundingSample, write_jsonl

NOUNS = ("cup", "lamp", "chair", "kite", "drum", "boat", "harp", "sock", "fork", "vase", "coat", "bell")


def words_of(body: dict[str, Any]) -> str:
    """The text of a request."""
    return str(body["messages"][0]["content"][-1]["text"])


def good_thought(seed: int) -> str:
    """A thought that passes, unlike that of any other seed."""
    chosen = hashlib.sha256(str(seed).encode()).digest()
    names = [NOUNS[byte % len(NOUNS)] for byte in chosen[:9]]
    first, second = " and ".join(f"a {name}" for name in names[:4]), ", a ".join(names[4:])
    return f"The first image shows {first}. The second image shows a {second}. The {names[8]} is the odd one there."


def teach(body: dict[str, Any]) -> list[str]:
    """What a good teacher answers; as a judge it takes the longest chain."""
    text = words_of(body)
    box = re.search(r"\(\d+,\d+\),\(\d+,\d+\)", text)
    if "Chain 1:" in text:
        chains = re.findall(r"Chain \d+:\n(.*)", text)
        return [f"<best>{1 + max(range(len(chains)), key=lambda at: (len(chains[at]), chains[at]))}</best>"]
    assert box is not None
    seed = body.get("seed", 0)
    return [
        f"<think>{good_thought(seed + 7919 * at)}</think><answer>{box[0]}</answer>" for at in range(body["n"])
    ]


def willing(handler: Any, number: int) -> bool:
    handler.reply(200, handler.completion(*teach(handler.server.requests[number])))
    return True


@pytest.fixture
def teacher_server(server: Any) -> Any:
    server.behave, server.teach = willing, teach
    return server


@pytest.fixture
def own_set(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """`own_set(count)` -> (a file of samples, the folder of their images), two images a sample."""

    def make(count: int = 4, changes: Sequence[dict[str, Any]] = ()) -> tuple[Path, Path]:
        root = tmp_path / "pictures"
        root.mkdir(exist_ok=True)
        samples = []
        for number in range(count):
            names = (f"{number}-a.png", f"{number}-b.png")
            for name in names:
                Image.new("RGB", (40 + number, 30), (9 * number % 256, 80, 90)).save(root / name)
            settings: dict[str, Any] = {"images": names, "query": f"What differs in pair {number}?"}
            settings |= {"boxes": ((0.1, 0.2, 0.5, 0.6),), "target_image": 1, "source": f"own#{number}"}
            settings |= {"task": "diff"} | (changes[number] if number < len(changes) else {})
            samples.append(GroundingSample(**settings))
        write_jsonl(tmp_path / "data.jsonl", samples)
        return tmp_path / "data.jsonl", root

    return make
