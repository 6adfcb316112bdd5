"""Stock models' own forms are taught and rewarded like any other style: what is written reads back, in both frames."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from runs import QUIET
from univg.cli import main as cli
from univg.grounding.coordinates import Frame
from univg.grounding.prompts import PromptStyle
from univg.grounding.scoring import score
from univg.models.conventions import read_conventions
from univg.models.loading import load
from univg.models.processor import GroundingProcessor
from univg.training.config import DataSource, GrpoConfig, SftConfig
from univg.training.grpo.rewards import RolloutReader, format_reward, write_ideal
from univg.training.run.rows import StageRows
from univg.training.sft.lessons import check_lessons
from univg.training.sft.stage import train_sft

DATA = (DataSource(image_px=60), DataSource(image_px=60, families=("find_all", "absent")))


@pytest.fixture(scope="module")
def processor(start: Path) -> GroundingProcessor:
    return load(start).processor


@pytest.mark.parametrize(("style", "frame"), [("json", "pixel"), ("json", "permille"), ("marks", "permille")])
def test_what_is_taught_and_rewarded_reads_back(
    style: PromptStyle, frame: Frame, start: Path, processor: GroundingProcessor
) -> None:
    config = SftConfig(model=str(start), data=DATA, max_steps=1, prompt_style=style)
    rows = StageRows(config, processor, 12, frame=frame)
    assert check_lessons(rows).startswith("oracle: what is taught reads back on 32 samples")
    made = [rows[i] for i in range(12)]
    assert {row.style for row in made} == {style, f"set_{style}"}
    assert not any("<think>" in (row.response or "") for row in made)
    reader = RolloutReader(style, frame, lambda size: processor.pixel_budget.resized(size, processor.factor))
    for row in made:
        asked = {"sample": row.sample, "images": list(row.images), "style": row.style}
        text, exact, _ = write_ideal(asked, reader)
        reading = reader.read(exact, text)
        scored = score(exact["sample"], reading)
        assert format_reward([text], score=[scored], reading=[reading]) == [1.0] and scored.iou == 1


def test_a_stage_asks_for_one_box_in_the_style_of_one(start: Path, processor: GroundingProcessor) -> None:
    config = GrpoConfig(model=str(start), data=DATA, max_steps=1, prompt_style="set_json")
    rows = StageRows(config, processor, 12, False)
    assert {(rows[i].sample.complete, rows[i].style) for i in range(12)} == {
        (True, "set_json"),
        (False, "json"),
    }


@pytest.mark.slow
def test_a_run_keeps_its_style(start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, picture = tmp_path / "out", tmp_path / "a.png"
    Image.new("RGB", (64, 48)).save(picture)
    train_sft(
        SftConfig(model=str(start), data=DATA, max_steps=2, batch=2, prompt_style="json"), out, console=QUIET
    )
    assert read_conventions(out)[0] == "json"
    capsys.readouterr()
    ask = [str(picture), "-q", "the dog", "--model", str(out), "--json", "--max-new-tokens", "4"]
    assert cli.main(["ground", *ask]) == 1, "four tokens hold no answer"
    told = capsys.readouterr()
    assert json.loads(told.out)["style"] == "json" and "style" not in told.err
