"""verl's data loader reads `univg data convert --to verl`: paths, and pictures within the rows."""

from __future__ import annotations

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

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("family", "factor", "options"),
    [
        ("qwen2_vl", 28, ()),
        ("qwen2_5_vl", 28, ("--family", "qwen2_5_vl", "--max-pixels", str(BUDGET[1]))),
        ("qwen3_vl", 32, ("--embed-images",)),
    ],
)
def test_its_loader_sees_the_pictures_and_the_truth_of_each_row(
    family: str, factor: int, options: tuple[str, ...], tmp_path: Path
) -> None:
    python_of("verl")
    draw_pictures(tmp_path / "pictures")
    shelf = Shelf(tmp_path, make_samples(turned=True))
    file = shelf.convert("verl", "tasks.parquet", *options)
    model = save_family(tmp_path / "model", family, pixels=BUDGET)
    cache = tmp_path / "cache"
    rows = ask("verl", "in_verl.py", model, file, cache, HF_DATASETS_CACHE=str(cache))["rows"]
    assert len(rows) == len(shelf.samples)
    for row, sample in zip(rows, shelf.samples, strict=True):
        check_pictures(row, sample.images, factor)
        check_asked(row, sample, "think")
        frame: Any = "pixel" if "--family" in options else "permille"
        check_taught(row["truth"], sample, "direct", frame, [one["size"] for one in row["pictures"]])
        assert row["source"] == f"univg/{sample.task}"
    assert len({row["index"] for row in rows}) == len(rows)
