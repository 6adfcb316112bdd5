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
