"""Tiny models with random weights, for everything that does not need them to be right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from univg.models.conventions import write_conventions
from univg.models.families import MODEL_FAMILIES
from univg.models.loading import Loaded
from univg.models.tiny import PIXEL_BUDGET, build_tiny, save_tiny


@pytest.fixture(scope="session")
def tiny() -> Loaded:
    """A random Qwen2-VL whose responses differ from prompt to prompt.

    At the usual initial scale all logits are so small that every prompt gets much the same answer, and a test
    of batching would show nothing.
    """
    model, processor = build_tiny(seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return Loaded(model, processor, MODEL_FAMILIES["qwen2_vl"], "think", "tiny")


@pytest.fixture(scope="session")
def saved(tiny: Loaded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That model as a checkpoint's folder. Copy it before changing anything in it."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    save_tiny(tiny.model, tiny.processor, folder)  # type: ignore[arg-type]
    write_conventions(folder, "direct", PIXEL_BUDGET)
    return folder


@pytest.fixture
def picture() -> Callable[[int, int], Image.Image]:
    """`picture(width, height)`: noise, another at each call."""
    rng = np.random.default_rng(0)

    def make(width: int, height: int) -> Image.Image:
        return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))

    return make
