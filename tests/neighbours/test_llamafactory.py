"""LLaMA-Factory itself trains on `univg data convert --to llamafactory`, with each family's template."""

from __future__ import annotations

import json
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
)
from univg.grounding.prompts import choose_style, render_answer

pytestmark = pytest.mark.slow

TEMPLATES = {"qwen2_vl": "qwen2_vl", "qwen2_5_vl": "qwen2_vl", "qwen3_vl": "qwen3_vl_nothink"}
FACTORS = {"qwen2_vl": 28, "qwen2_5_vl": 28, "qwen3_vl": 32}


def arguments(model: Path, file: Path, template: str, steps: int) -> dict[str, Any]:
    return {
        "model_name_or_path": str(model),
        "template": template,
        "dataset": file.stem,
        "dataset_dir": str(file.parent),
        "media_dir": str(file.parent / "pictures"),
        "image_min_pixels": BUDGET[0],
        "image_max_pixels": BUDGET[1],
        "cutoff_len": 4096,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "max_steps": steps,
        "per_device_train_batch_size": 1,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "overwrite_cache": True,
        "output_dir": str(file.parent / "trained"),
        "report_to": "none",
        "seed": 1,
    }


@pytest.mark.parametrize(
    ("family", "style", "steps", "frame"),
    [
        ("qwen2_vl", "direct", 3, "permille"),
        ("qwen2_5_vl", "think", 0, "pixel"),
        ("qwen2_5_vl", "direct", 0, "permille"),
        ("qwen3_vl", "think", 3, "permille"),
    ],
)
def test_it_sees_the_pictures_and_the_boxes_of_each_row(
    family: str, style: Any, steps: int, frame: Any, tmp_path: Path
) -> None:
    python_of("llamafactory")
    draw_pictures(tmp_path / "pictures")
    shelf = Shelf(tmp_path, make_samples(turned=True))
    own = ("--family", family, "--max-pixels", str(BUDGET[1])) if frame == "pixel" else ()
    file = shelf.convert("llamafactory", "tasks.json", "--style", style, *own)
    given = tmp_path / "arguments.json"
    model = save_family(tmp_path / "model", family)
    given.write_text(json.dumps(arguments(model, file, TEMPLATES[family], steps)))
    found = ask("llamafactory", "in_llamafactory.py", given)
    assert len(found["rows"]) == len(shelf.samples)
    for row, sample in zip(found["rows"], shelf.samples, strict=True):
        check_pictures(row, sample.images, FACTORS[family])
        taught = row["taught"].removesuffix("<|im_end|>\n").removesuffix("<|im_end|>")
        if frame == "permille":
            assert taught == render_answer(sample, choose_style(sample, style))
        check_taught(taught, sample, style, frame, [one["size"] for one in row["pictures"]])
        check_asked(row, sample, style)
    if steps:
        assert len(found["losses"]) == steps and all(map(math.isfinite, found["losses"]))
        assert (tmp_path / "trained" / "model.safetensors").is_file()
