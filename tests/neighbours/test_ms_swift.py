"""ms-swift reads `univg data convert --to ms_swift`, writes each family's own coordinates, and trains on them."""

from __future__ import annotations

import math
import re
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

MARKS = re.compile(r"<\|box_(?:start|end)\|>")


@pytest.mark.parametrize(
    ("family", "style", "frame", "factor", "steps"),
    [
        ("qwen2_vl", "direct", "permille", 28, 3),
        ("qwen2_5_vl", "direct", "pixel", 28, 3),
        ("qwen3_vl", "think", "permille", 32, 0),
    ],
)
def test_its_template_writes_the_boxes_as_univg_teaches_them(
    family: str, style: Any, frame: Any, factor: int, steps: int, tmp_path: Path
) -> None:
    """Word for word but for the marks, which ms-swift puts around every box, and the numbers in the family's frame:
    pixels are those of the picture after the budget shrank it."""
    python_of("ms_swift")
    draw_pictures(tmp_path / "pictures")
    shelf = Shelf(tmp_path, make_samples(turned=True))
    file = shelf.convert("ms_swift", "tasks.jsonl", "--style", style)
    model = save_family(tmp_path / "model", family)
    budget = {"MIN_PIXELS": str(BUDGET[0]), "MAX_PIXELS": str(BUDGET[1])}
    variables = {**budget, "ROOT_IMAGE_DIR": str(shelf.pictures), "MODELSCOPE_CACHE": str(tmp_path / "cache")}
    found = ask("ms_swift", "in_ms_swift.py", model, family, file, steps, tmp_path / "out", **variables)
    assert len(found["rows"]) == len(shelf.samples)
    for row, sample in zip(found["rows"], shelf.samples, strict=True):
        check_pictures(row, sample.images, factor)
        check_asked(row, sample, style)
        sizes = [(width, height) for width, height in (one["size"] for one in row["pictures"])]
        taught = row["taught"].removesuffix("\n").removesuffix("<|im_end|>")
        check_taught(taught, sample, style, frame, sizes)
        chosen = choose_style(sample, style)
        seen = sizes if frame == "pixel" else ()
        wanted = render_answer(sample, chosen, sample.target_image or 0, seen)
        assert MARKS.sub("", taught) == MARKS.sub("", wanted)
    if steps:
        assert len(found["losses"]) == steps and all(map(math.isfinite, found["losses"]))
