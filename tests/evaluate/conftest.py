"""Engines and benchmarks that need no model, and one model with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from univg.grounding.samples import GroundingSample, write_jsonl


@pytest.fixture(scope="session")
def scripted() -> ModuleType:
    """The module beside this file."""
    import scripted

    return scripted


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights."""
    from univg.models.tiny import build_tiny, save_tiny

    folder = tmp_path_factory.mktemp("tiny") / "model"
    save_tiny(*build_tiny(seed=3), folder)
    return folder


@pytest.fixture
def own_set(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """`own_set(count)` -> (a file of samples, the folder of their images), two images a sample."""

    def make(count: int = 4, **changes: Any) -> tuple[Path, Path]:
        root = tmp_path / "pictures"
        root.mkdir(exist_ok=True)
        samples = []
        for number in range(count):
            names = (f"{number}-a.png", f"{number}-b.png")
            for name in names:
                Image.new("RGB", (40 + number, 30), (9 * number % 256, 80, 90)).save(root / name)
            settings = {"boxes": ((0.1, 0.2, 0.5, 0.6),), "source": f"own#{number}"} | changes
            samples.append(GroundingSample(names, f"Where is thing {number}?", "diff", **settings))
        path = tmp_path / "samples.jsonl"
        write_jsonl(path, samples)
        return path, root

    return make


LEFT, RIGHT, LOW = (0.1, 0.1, 0.4, 0.5), (0.6, 0.1, 0.9, 0.5), (0.2, 0.6, 0.5, 0.9)
"""Boxes without overlap."""


@pytest.fixture
def sets_of_things(tmp_path: Path) -> tuple[Path, Path]:
    """(a file of samples whose answers are sets, the folder of their images): three boxes on two images, one box,
    nothing, and two boxes on the only image; and a sample of one box."""
    root = tmp_path / "things"
    root.mkdir()
    for name, boxes in {"a": [LEFT, RIGHT], "b": [LOW], "c": []}.items():
        picture = Image.new("RGB", (120, 90), (235, 235, 225))
        for x1, y1, x2, y2 in boxes:
            picture.paste((200, 60, 60), (round(120 * x1), round(90 * y1), round(120 * x2), round(90 * y2)))
        picture.save(root / f"{name}.png")
    some, none = {"complete": True}, {"complete": True, "thought": "No star."}
    samples = [
        GroundingSample(
            ("a.png", "b.png", "c.png"),
            "Find every red thing.",
            "find_all",
            (LEFT, RIGHT, LOW),
            box_images=(0, 0, 1),
            source="things#0",
            **some,
        ),
        GroundingSample(
            ("a.png", "b.png"), "Every low one.", "find_all", (LOW,), 1, source="things#1", **some
        ),
        GroundingSample(("a.png", "c.png"), "Find every star.", "absent", source="things#2", **none),
        GroundingSample(
            ("a.png",), "Every red one.", "find_all", (LEFT, RIGHT), 0, source="things#3", **some
        ),
        GroundingSample(("a.png",), "The left one.", "referring", (LEFT,), 0, source="things#4"),
    ]
    write_jsonl(tmp_path / "things.jsonl", samples)
    return tmp_path / "things.jsonl", root
