"""What stage 1 teaches reads back as the sample's own box, in the coordinates that the model's family writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rich.console import Console

from univg.errors import UnivgError
from univg.grounding.boxes import unit_to_whole_px
from univg.models.loading import load
from univg.training.config import DataSource, SftConfig
from univg.training.run.rows import StageRows
from univg.training.sft.lessons import check_lessons
from univg.training.sft.stage import train_sft


@pytest.fixture(scope="module")
def config(start: Path, published: Path) -> SftConfig:
    file = DataSource(reader="univg", path=str(published / "samples.jsonl"), images=str(published))
    return SftConfig(model=str(start), data=(file, DataSource(image_px=60)), max_steps=1)


def test_a_family_that_writes_pixels_is_taught_pixels_of_what_it_sees(config: SftConfig) -> None:
    rows = StageRows(config, load(config.model).processor, 8, frame="pixel")
    for row in (rows[i] for i in range(8)):
        numbers = [
            int(number) for number in re.findall(r"\d+", (row.response or "").rpartition("<answer>")[2])
        ]
        on = row.sample.target_image or 0
        assert tuple(numbers) == unit_to_whole_px(row.sample.boxes[0], rows.seen_wh(row.images[on]))
    assert check_lessons(rows).startswith("oracle: what is taught reads back on 24 samples")


def test_coordinates_of_another_family_are_refused(config: SftConfig) -> None:
    class Mistaken(StageRows):
        def _write_response(self, *given: object) -> str:
            return StageRows._write_response(StageRows(self.config, self.processor), *given)  # type: ignore[arg-type]

    with pytest.raises(
        UnivgError, match=r"oracle: what is taught reads back with IoU 0\.\d+, fault .* for sample"
    ):
        check_lessons(Mistaken(config, load(config.model).processor, 8, frame="pixel"))


def test_pictures_that_are_all_missing_stop_a_run_before_its_model_is_loaded(
    config: SftConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = config.data[0].model_copy(update={"images": str(tmp_path)})
    monkeypatch.setattr("univg.training.sft.stage.load_start", lambda config: pytest.fail("it was loaded"))
    with pytest.raises(
        UnivgError, match=r"data\.0\.images: pictures are missing, all .*data\.0\.images=.*published"
    ):
        train_sft(
            config.model_copy(update={"data": (nowhere,)}), tmp_path / "out", console=Console(quiet=True)
        )
