"""Answers that are sets in stage 1: what is taught, beside one box, and what is refused."""

from __future__ import annotations

import io
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from univg.cli.main import main
from univg.config import save_config
from univg.errors import UnivgError
from univg.grounding.boxes import unit_to_whole_px
from univg.grounding.prompts import render_response
from univg.grounding.samples import GroundingSample, read_jsonl, write_jsonl
from univg.models.loading import load
from univg.training.config import DataSource, SftConfig, Validation
from univg.training.run.log import read_rows
from univg.training.run.mirroring import mirror
from univg.training.run.rows import StageRows
from univg.training.run.written import as_written
from univg.training.sft.lessons import check_lessons
from univg.training.sft.stage import train_sft

QUIET = Console(quiet=True)


def source(sets: Path, name: str = "sets.jsonl", **settings: Any) -> DataSource:
    return DataSource(reader="univg", path=str(sets / name), images=str(sets), **settings)


def config(start: Path, *sources: DataSource, **settings: Any) -> SftConfig:
    small = {"max_steps": 2, "batch": 4, "micro_batch": 2, "bf16": False, "workers": 0, "save_every": 9}
    return SftConfig(model=str(start), data=sources, **{**small, **settings})


def test_each_source_is_taught_in_its_own_style(start: Path, sets: Path) -> None:
    """One box as ever, a set with all its boxes, and an empty one by its word."""
    mixed = config(
        start, source(sets), DataSource(image_px=60, world_version=1, families=("referring", "diff"))
    )
    rows = StageRows(mixed, load(start).processor, 40)
    seen = Counter()
    for row in (rows[i] for i in range(40)):
        answer = str(row.response).rpartition("<answer>")[2].removesuffix("</answer>")
        seen[row.style, len(row.sample.boxes)] += 1
        if row.sample.complete:
            assert row.style == "set" and row.prompt[0]["content"][-1]["text"].endswith("no such object.")
            named = [f"Image-{on + 1}" for on, _ in row.sample.targets if on is not None]
            assert [part.partition(":")[0] for part in answer.split("; ")] == (named or ["none"])
        else:
            assert row.style == "think" and answer.startswith("(") and ";" not in answer
    assert set(seen) == {("set", 0), ("set", 2), ("think", 1)}
    assert (
        check_lessons(rows)
        == "oracle: what is taught reads back on 25 samples (rounding leaves at least 0.994)"
    )


@pytest.mark.parametrize(("asked", "style"), [("direct", "set_direct"), ("set", "set"), (None, "set")])
def test_a_style_of_one_box_means_that_of_sets(start: Path, sets: Path, asked: Any, style: str) -> None:
    rows = StageRows(config(start, source(sets, prompt_style=asked)), load(start).processor, 4)
    assert rows[0].style == style
    both = config(start, source(sets), DataSource(image_px=60), prompt_style="set_direct")
    rows = StageRows(both, load(start).processor, 30)
    assert {row.style for row in (rows[i] for i in range(30))} == {"set_direct", "direct"}


def test_pixels_are_those_of_the_image_that_each_box_lies_on(start: Path, sets: Path, tmp_path: Path) -> None:
    wide = GroundingSample(
        ("a.png", "b.png"),
        "Every dog.",
        "find_all",
        ((0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0)),
        thought="One in each image.",
        complete=True,
        box_images=(0, 1),
    )
    Image.new("RGB", (80, 40)).save(tmp_path / "a.png")
    Image.new("RGB", (40, 80)).save(tmp_path / "b.png")
    write_jsonl(tmp_path / "wide.jsonl", [wide])
    data = source(tmp_path, "wide.jsonl")
    rows = StageRows(config(start, data), load(start).processor, 1, frame="pixel")
    row = rows[0]
    sizes = [rows.seen_wh(image) for image in row.images]
    assert sizes[0] != sizes[1]
    (x1, y1, x2, y2), (a1, b1, a2, b2) = (
        unit_to_whole_px(box, wh) for box, wh in zip(wide.boxes, sizes, strict=True)
    )
    expected = f"Image-1: ({x1},{y1}),({x2},{y2}); Image-2: ({a1},{b1}),({a2},{b2})"
    assert f"<answer>{expected}</answer>" in str(row.response)
    assert "reads back on 1 samples" in check_lessons(rows)


def test_a_lost_box_is_found_before_the_first_step(start: Path, sets: Path) -> None:
    class Forgetful(StageRows):
        def _write_response(self, sample: GroundingSample, *given: Any) -> str:
            fewer = replace(sample, boxes=sample.boxes[:1], box_images=sample.box_images[:1])
            return super()._write_response(fewer, *given)

    with pytest.raises(UnivgError, match=r"reads back with IoU 0\.667, fault None, for sample sets#0"):
        check_lessons(Forgetful(config(start, source(sets)), load(start).processor, 4))


def test_what_cannot_be_taught_is_told_by_cause(start: Path, sets: Path, tmp_path: Path) -> None:
    samples = list(read_jsonl(sets / "sets.jsonl"))
    flat = replace(samples[0], boxes=(samples[0].boxes[0], (0.5, 0.1, 0.5, 0.3)))
    unknown = replace(samples[2], complete=False)
    silent = replace(samples[5], thought=None)
    placeless = replace(samples[0], box_images=(), target_image=None, query="Every one.", thought="Some.")
    write_jsonl(tmp_path / "some.jsonl", [*samples[3:], flat, unknown, silent, placeless])
    some = DataSource(reader="univg", path=str(tmp_path / "some.jsonl"), images=str(sets))
    kept = StageRows(config(start, some, max_dropped=0.5), load(start).processor, 1).dropped[0]
    assert kept.used == 6 and dict(kept.book.counts) == {
        "degenerate_box": 1,
        "no_answer": 1,
        "no_thought": 1,
        "no_target_image": 1,
    }
    one_box = replace(samples[0], complete=False, box_images=(), boxes=samples[0].boxes[:1])
    write_jsonl(tmp_path / "one.jsonl", [one_box])
    every = DataSource(reader="univg", path=str(tmp_path / "one.jsonl"), images=str(sets), prompt_style="set")
    with pytest.raises(
        UnivgError, match=r'may not have all.*mark samples that have all boxes \("complete": true'
    ):
        StageRows(config(start, every), load(start).processor, 1)


def test_boxes_that_may_not_be_all_are_taught_by_the_first_as_ever(
    start: Path, sets: Path, tmp_path: Path
) -> None:
    whole = next(iter(read_jsonl(sets / "sets.jsonl")))
    write_jsonl(tmp_path / "some.jsonl", [replace(whole, complete=False)])
    some = DataSource(reader="univg", path=str(tmp_path / "some.jsonl"), images=str(sets))
    row = StageRows(config(start, some), load(start).processor, 1)[0]
    assert row.style == "think" and row.response == render_response(whole.boxes[0], whole.thought)


def test_boxes_that_round_to_one_are_written_once() -> None:
    twice = GroundingSample(
        ["a", "b"], "Every dog.", "find_all", [(0, 0, 0.5, 1), (0, 0, 0.5001, 1), (0, 0, 0.5, 1)],
        complete=True, box_images=[0, 0, 1],
    )  # fmt: skip
    assert as_written(twice).targets == ((0, (0.0, 0.0, 0.5, 1.0)), (1, (0.0, 0.0, 0.5, 1.0)))
    nothing = GroundingSample(["a"], "Every dog.", "find_all", complete=True)
    assert as_written(nothing) == nothing


def test_all_boxes_of_a_set_are_mirrored_with_their_pictures() -> None:
    boxes = [(0.0, 0.0, 0.25, 0.5), (0.5, 0.0, 0.75, 0.25)]
    pair = GroundingSample(["a", "b"], "Every dog.", "find_all", boxes, complete=True, box_images=[1, 0])
    pictures = (Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4)))
    seen = {mirror(pair, pictures, random.Random(seed))[0].targets for seed in range(40)}
    across = ((1, (0.75, 0.0, 1.0, 0.5)), (0, (0.25, 0.0, 0.5, 0.25)))
    assert len(seen) == 4 and pair.targets in seen and across in seen


def test_a_run_teaches_both_and_is_scored_on_sets(start: Path, sets: Path, tmp_path: Path) -> None:
    text = io.StringIO()
    held = Validation(path=str(sets / "sets.jsonl"), images=str(sets), every=2, max_new_tokens=6)
    both = config(start, source(sets), DataSource(image_px=60), validation=held)
    out = train_sft(both, tmp_path / "run", console=Console(file=text, width=300))
    rows = read_rows(out / "log.jsonl")
    scored = [row for row in rows if "validation/iou" in row]
    assert [row["step"] for row in scored] == [0, 2] and all(row["validation/n"] == 9 for row in scored)
    assert {"validation/refused_absent", "validation/refused_present"} <= set(scored[0])
    assert "says that nothing is there: 0 % where so, 0 % else" in text.getvalue()


@pytest.mark.slow
def test_the_command_learns_sets_by_heart(start: Path, sets: Path, tmp_path: Path) -> None:
    """Through the public command: two boxes on two images, and none, come back as they were taught."""
    write_jsonl(tmp_path / "two.jsonl", [*read_jsonl(sets / "sets.jsonl")][1:3])
    two = DataSource(reader="univg", path=str(tmp_path / "two.jsonl"), images=str(sets))
    wanted = config(
        start, two, max_steps=110, batch=2, learning_rate=1e-2, prompt_style="direct", save_every=1000,
        validation=Validation(path=str(tmp_path / "two.jsonl"), images=str(sets), every=110, max_new_tokens=60),
        trainer={"adam_beta2": 0.98},
    )  # fmt: skip
    save_config(wanted, tmp_path / "sets.yaml")
    assert main(["sft", "--config", str(tmp_path / "sets.yaml"), "--out", str(tmp_path / "out")]) == 0
    last = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()][-2:]
    scored = next(row for row in last if "validation/iou" in row)
    assert scored["validation/refused_absent"] == 1 and scored["validation/refused_present"] == 0
    assert scored["validation/iou"] > 0.9 and scored["validation/format"] == 1
