"""Checkpoints with random weights, small enough that a training step takes milliseconds."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from univg.grounding.boxes import unit_to_permille
from univg.grounding.prompts import render_prompt, render_response
from univg.grounding.samples import GroundingSample, write_jsonl
from univg.models.processor import PixelBudget
from univg.models.tiny import build_tiny, save_tiny
from univg.world import make_sample

collect_ignore = ["grpo/gloo_weights.py"]  # imported by vLLM's own processes, which have vLLM

SHAPE = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
}


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2-VL of two layers, as a checkpoint's folder."""
    folder = tmp_path_factory.mktemp("start") / "tiny"
    texts = [
        text
        for i in range(20)
        for sample in [make_sample("referring", "train", 0, i, size=32, version=1).sample]
        for text in (sample.query, sample.thought or "")
    ]
    model, processor = build_tiny(0, texts, PixelBudget(20 * 20, 60 * 60), SHAPE)
    save_tiny(model, processor, folder)
    return folder


@pytest.fixture(scope="session")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random model whose responses differ from prompt to prompt (`grpo_parts.scale_up`)."""
    import grpo_parts

    return grpo_parts.save_start(tmp_path_factory.mktemp("scaled") / "tiny")


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of both stages as they are published, eight samples each, and their images.

    `stage1_cotsft.json`, `stage2_rl.json`, `samples.jsonl` (univg's own), `images/`.
    """
    folder = tmp_path_factory.mktemp("published")
    (folder / "images").mkdir()
    stage1, stage2, samples = [], [], []
    for i in range(8):
        made = make_sample(("referring", "diff", "region")[i % 3], "train", 0, i, size=60, version=1)
        sample = made.sample
        for name, image in zip(sample.images, made.images, strict=True):
            image.save(folder / name)
        asked = "<image>" * len(sample.images) + render_prompt(sample.query)
        told = render_response(sample.boxes[0], sample.thought)
        turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": told}]
        stage1.append({"conversations": turns, "images": list(sample.images)})
        box = list(unit_to_permille(sample.boxes[0]))
        stage2.append({"question": sample.query, "answer": box, "images": list(sample.images)})
        samples.append(sample)
    (folder / "stage1_cotsft.json").write_text(json.dumps(stage1))
    (folder / "stage2_rl.json").write_text(json.dumps(stage2))
    write_jsonl(folder / "samples.jsonl", samples)
    return folder


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of nine samples of two pictures whose answers are sets: a box on each, two boxes on the second, none.

    `sets.jsonl`, and the pictures beside it.
    """
    folder = tmp_path_factory.mktemp("sets")
    samples = []
    for i in range(9):
        made = [make_sample("referring", "train", 0, 2 * i + k, size=60, version=1) for k in range(2)]
        names = tuple(f"{i}-{k}.png" for k in range(2))
        for name, one in zip(names, made, strict=True):
            one.images[0].save(folder / name)
        boxes = [one.sample.boxes[0] for one in made]
        on = ((0, 1), (1, 1), ())[i % 3]
        found = "Each of them fits." if on else "Neither of them fits."
        samples.append(
            GroundingSample(
                names,
                f"Find every thing of kind {i} in the two images.",
                "find_all",
                tuple(boxes[: len(on)]),
                thought=f"The first image shows a thing. The second image shows another. {found}",
                complete=True,
                box_images=on,
                source=f"sets#{i}",
            )
        )
    write_jsonl(folder / "sets.jsonl", samples)
    return folder


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """`full_disk(size)`: a real failure to write, since this process may make no file beyond so many bytes."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return limited
