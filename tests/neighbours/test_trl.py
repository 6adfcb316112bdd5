"""TRL's own SFTTrainer and GRPOTrainer train on `univg data convert --to trl`, read as docs/data.md says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from families import save_family
from neighbouring import (
    BUDGET,
    Shelf,
    ask,
    check_asked,
    check_pictures,
    check_taught,
    draw_pictures,
    make_samples,
    python_of,
    wording,
)
from univg.grounding.prompts import choose_style, render_answer

pytestmark = pytest.mark.slow

ENVIRONMENT = "lmms_eval"  # TRL's newest goes with it, and torch is most of an environment


@pytest.mark.parametrize(
    ("family", "style", "factor"), [("qwen2_vl", "direct", 28), ("qwen3_vl", "think", 32)]
)
def test_its_trainers_see_the_pictures_and_the_boxes_of_each_row(
    family: str, style: Any, factor: int, tmp_path: Path
) -> None:
    python_of(ENVIRONMENT)
    draw_pictures(tmp_path / "pictures")
    shelf = Shelf(tmp_path, make_samples(turned=True))
    file = shelf.convert("trl", "tasks.jsonl", "--style", style)
    model = save_family(tmp_path / "model", family, pixels=BUDGET)
    found = ask(ENVIRONMENT, "in_trl.py", model, file, shelf.pictures, tmp_path)
    sft, grpo = found["sft"], found["grpo"]
    for row, sample in zip(sft["rows"], shelf.samples, strict=True):
        check_pictures(row, sample.images, factor)
        taught = row["taught"].removesuffix("\n").removesuffix("<|im_end|>")
        assert taught == render_answer(sample, choose_style(sample, style))
        check_taught(taught, sample, style, "permille", [one["size"] for one in row["pictures"]])
        check_asked(row, sample, style)
    assert len(grpo["asked"]) == 3
    for row in grpo["asked"]:
        asked = [one for one in shelf.samples if wording(one, style) in row["text"]]
        [sample] = [one for one in asked if len(one.images) == len(row["pictures"])]
        check_pictures(row, sample.images, factor)
        check_asked(row, sample, style)
        check_taught(row["solution"], sample, "direct", "permille", [])
    for losses in (sft["losses"], grpo["losses"]):
        assert len(losses) == 3 and all(map(math.isfinite, losses))
