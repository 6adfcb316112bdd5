"""What the tests of neighbours share: pictures with a red box each, samples of them, and what must have come of both.

A neighbour is a program that takes our files. It runs in an environment of its own, which `make neighbours` makes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from export_parsers import draw
from univg.grounding.boxes import Box, SizeWH, clip_unit
from univg.grounding.prompts import choose_style, render_prompt
from univg.grounding.reading import Asked, Frame, read
from univg.grounding.samples import GroundingSample, write_jsonl

REPO = Path(__file__).parents[1]
ENVIRONMENTS = Path(os.environ.get("UNIVG_NEIGHBOURS", REPO / ".neighbours"))
INSIDE = Path(__file__).parent / "neighbours" / "inside"

PICTURES: dict[str, tuple[SizeWH, Box, int]] = {
    "small.png": ((320, 200), (0.6, 0.1, 0.9, 0.35), 1),
    "tall.png": ((300, 517), (0.1, 0.5, 0.45, 0.8), 1),
    "large.png": ((1001, 702), (0.25, 0.3, 0.6, 0.95), 1),
    "wide.jpg": ((1400, 260), (0.5, 0.2, 0.75, 0.9), 1),
    "turned.jpg": ((400, 260), (0.05, 0.15, 0.4, 0.5), 6),
}
"""Of each the upright size, where the red box lies in shares, and its EXIF orientation."""

BUDGET = (3136, 401_408)
"""The least and most pixels of a picture that every neighbour is told; `large.png` has more."""


def box_of(name: str) -> Box:
    return PICTURES[name][1]


def make_samples(turned: bool = False) -> list[GroundingSample]:
    """Samples whose boxes lie on what is red: of one picture and several, sets, and none; with a sideways picture."""

    def one(names: Sequence[str], query: str, image: int | None = 0, **fields: Any) -> GroundingSample:
        boxes = () if image is None else (box_of(names[image]),)
        given: dict[str, Any] = {"boxes": boxes, "target_image": image, "thought": "It is red."}
        return GroundingSample(tuple(names), query, "referring", **{**given, **fields})

    three = ("small.png", "tall.png", "large.png")
    sets: dict[str, Any] = {"complete": True, "target_image": None}
    everywhere = {"boxes": tuple(map(box_of, three)), "box_images": (0, 1, 2)}
    samples = [
        one(three[:1], "Where is the red one?"),
        one(three, "Where is it in the second image?", 1),
        one(three[::-1], "Where is it in the first image?", 0),
        one(["wide.jpg", "small.png"], "Locate the red one in image 1.", 0),
        one(["tall.png"], "the red one", thinking=False),
        one(three, "Locate every red one.", None, **sets, **everywhere),
        one(three[:2], "Locate every dog.", None, **sets),
    ]
    return (
        [*samples, one(["turned.jpg", "small.png"], "Where is it in the first image?", 0)]
        if turned
        else samples
    )


@dataclass
class Shelf:
    """A folder with `pictures`, and samples of them."""

    folder: Path
    samples: list[GroundingSample] = field(default_factory=make_samples)

    @property
    def pictures(self) -> Path:
        return self.folder / "pictures"

    def convert(self, to: str, out: str, *options: str) -> Path:
        """Write the samples by the command, and return the file."""
        path = self.folder / out
        write_jsonl(self.folder / "samples.jsonl", self.samples)
        command = ["data", "convert", self.folder / "samples.jsonl", "--images", self.pictures, "--to", to]
        ran = subprocess.run(
            [sys.executable, "-m", "univg", *map(str, command), "--out", str(path), *options],
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return path


def draw_pictures(folder: Path) -> None:
    for name, (size_wh, box, orientation) in PICTURES.items():
        draw(folder / name, size_wh, box, orientation)


def python_of(environment: str) -> str:
    """The Python of a neighbour's environment; the test is skipped where it was not made."""
    path = ENVIRONMENTS / environment / "bin" / "python"
    if not path.exists():
        pytest.skip(
            f"{path} is not there: `make neighbours` makes it, or name its folder in UNIVG_NEIGHBOURS"
        )
    return str(path)


def ask(environment: str, script: str, *arguments: object, **variables: str) -> dict[str, Any]:
    """Run `inside/SCRIPT` in a neighbour's environment; return what it tells (see `inside/seen.py`)."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(
        [python_of(environment), str(INSIDE / script), *map(str, arguments)],
        env={
            **kept,
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "WANDB_MODE": "disabled",
            **variables,
        },
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-8000:]
    told = [line for line in ran.stdout.splitlines() if line.startswith("SEEN ")]
    return dict(json.loads(told[-1].removeprefix("SEEN ")))


# --- what must have come of a row ---


def check_pictures(found: dict[str, Any], names: Sequence[str], factor: int) -> None:
    """Hold the pictures that a neighbour's model would see to a sample's: number, tokens, and what is where."""
    assert len(found["pictures"]) == len(names)
    for name, seen in zip(names, found["pictures"], strict=True):
        width, height = seen["size"]
        assert width % factor == height % factor == 0
        (wide, tall), (x1, y1, x2, y2), _ = PICTURES[name]
        assert width / height == pytest.approx(wide / tall, rel=0.2)
        wanted = [x1 * width, y1 * height, x2 * width, y2 * height]
        assert seen["red"] == pytest.approx(wanted, abs=2.5), name
    tiles = sum(width * height // factor**2 for width, height in (seen["size"] for seen in found["pictures"]))
    assert found["image_tokens"] == tiles


def wording(sample: GroundingSample, style: Any) -> str:
    """The end of a sample's question as Qwen's chats close it, which no other sample's ends with."""
    return f"{render_prompt(sample.query, choose_style(sample, style))}<|im_end|>"


def check_asked(found: dict[str, Any], sample: GroundingSample, style: Any) -> None:
    """Hold the question to the sample: every picture's place before the wording, as univg asks."""
    places = "<|vision_start|><|vision_end|>" * len(sample.images)
    assert f"<|im_start|>user\n{places}{wording(sample, style)}" in found["text"]


def check_taught(
    taught: str, sample: GroundingSample, style: Any, frame: Frame, sizes_wh: Sequence[SizeWH]
) -> None:
    """Hold a taught text to the sample: read as an answer of a model of this frame, it has its boxes, no more.

    A number is off by half at most: of a thousandth, or of a pixel of the picture as the model sees it.
    """
    reading = read(taught, Asked.of(sample, style, frame), [(width, height) for width, height in sizes_wh])
    assert reading.fault is None, (taught, reading)
    placed = sample.targets if sample.complete else [(sample.target_image, sample.boxes[0])]
    assert len(reading.boxes) == len(placed), taught
    for got, (image, box) in zip(reading.boxes, placed, strict=True):
        assert got.image_index == image, taught
        width, height = (1000, 1000) if frame == "permille" else sizes_wh[image or 0]
        shares = zip(got.box, clip_unit(box)[0], strict=True)
        off = [abs(a - b) * (width, height)[i % 2] for i, (a, b) in enumerate(shares)]
        assert max(off) <= 0.5 + 1e-6, (taught, box, off)
