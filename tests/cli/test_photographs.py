"""The story of docs/photographs.md on photographs that are drawn here: build, both presets, evaluate."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from PIL import Image

from univg.cli.main import main

KINDS = {"disc": (200, 30, 30), "leaf": (30, 160, 40), "stone": (60, 60, 70), "shell": (230, 200, 160)}
OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


def photograph(folder: Path, number: int, rng: random.Random) -> None:
    """Write a Pascal VOC photograph of two or three kinds, at most two things of a kind."""
    image, found = Image.new("RGB", (320, 240), (250, 248, 240)), []
    things = rng.sample(sorted(KINDS), 3) + rng.choices(sorted(KINDS), k=1)
    for place, kind in enumerate(things):
        x, y = 80 * place + rng.randint(2, 10), rng.randint(10, 150)
        box = (x, y, x + rng.randint(50, 66), y + rng.randint(50, 80))
        image.paste(KINDS[kind], box)
        found.append(OBJECT.format(kind, *box))
    image.save(folder / "JPEGImages" / f"{number}.jpg")
    size = "<size><width>320</width><height>240</height><depth>3</depth></size>"
    text = f"<annotation><filename>{number}.jpg</filename>{size}{''.join(found)}</annotation>"
    (folder / "Annotations" / f"{number}.xml").write_text(text)


def test_photographs_become_a_model_that_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = random.Random(0)
    for name in ("JPEGImages", "Annotations"):
        Path("photographs", name).mkdir(parents=True)
    for number in range(30):
        photograph(Path("photographs"), number, rng)

    def run(line: str, *more: str) -> int:
        return main([*line.split(), *more])

    shares = "--test 0.2 --validation 0.2"
    assert run(f"data build photographs --out tasks --n 60 {shares}") == 0
    assert run(f"data build photographs --out singles --n 30 --family referring {shares}") == 0
    small = "batch=4 micro_batch=2 workers=0 validation.n=4 validation.every=2 pixel_budget.max_pixels=4800"
    assert run(f"sft --config photos-sft --out runs/photos-sft max_steps=2 {small}") == 0
    small = "prompts_per_step=2 rollouts=2 micro_batch=4 workers=0 validation.n=4 validation.every=1"
    assert run(f"grpo --config photos-grpo --out runs/photos-grpo max_steps=1 {small}") == 0
    scored = "evaluate --benchmark univg --data tasks/test.jsonl --images tasks -n 2"
    assert run(f"{scored} --model runs/photos-grpo --out runs/scores --max-new-tokens 24") == 0
    for stage in ("photos-sft", "photos-grpo"):
        log = [json.loads(line) for line in Path("runs", stage, "log.jsonl").read_text().splitlines()]
        assert any("validation/acc_50" in row for row in log) and any("loss" in row for row in log)
        assert json.loads(Path("runs", stage, "univg.json").read_text())["prompt_style"] == "direct"
