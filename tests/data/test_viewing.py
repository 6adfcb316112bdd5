"""What a contact sheet and the counts show of answers that are sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from univg.cli import main as cli
from univg.data.published import FaultBook, PublishedFile
from univg.data.viewing import count_samples, draw_samples, list_panels
from univg.grounding.samples import GroundingSample, write_jsonl
from univg.pictures.drawing import ANSWER, OTHERS

LEFT, RIGHT, LOW = (0.1, 0.1, 0.3, 0.5), (0.6, 0.1, 0.8, 0.5), (0.2, 0.5, 0.5, 0.9)
EVERY = GroundingSample(
    ["a.png", "b.png", "c.png"],
    "Every cat.",
    "find_all",
    [LEFT, RIGHT, LOW],
    box_images=[0, 0, 1],
    complete=True,
)
NONE = GroundingSample(["a.png", "b.png"], "Every dog.", "absent", complete=True)
ONE = GroundingSample(
    ["a.png", "b.png", "c.png"], "The cat?", "referring", [LEFT, RIGHT, LOW], target_image=0
)

Sheet = Callable[..., Image.Image]


@pytest.fixture
def sheet(tmp_path: Path) -> Sheet:
    for name in "abc":
        Image.new("RGB", (120, 90), (230, 230, 220)).save(tmp_path / f"{name}.png")

    def draw(*samples: GroundingSample) -> Image.Image:
        write_jsonl(tmp_path / "s.jsonl", samples)
        book = FaultBook()
        drawn, missing = draw_samples(
            PublishedFile.open(tmp_path / "s.jsonl", None, tmp_path), 9, 0, (), book
        )
        assert not missing
        return drawn

    return draw


def count(image: Image.Image, colour: tuple[int, int, int]) -> int:
    """How many pixels are of exactly this colour."""
    return int((np.asarray(image) == colour).all(axis=2).sum())


def test_all_targets_of_a_set_are_drawn_alike(sheet: Sheet) -> None:
    every, one, none = sheet(EVERY), sheet(ONE), sheet(NONE)
    assert count(every, ANSWER) > 2.5 * count(one, ANSWER) > 0
    assert count(none, ANSWER) == 0


def test_of_one_box_the_others_are_shown_as_others(sheet: Sheet) -> None:
    alone = GroundingSample(ONE.images, ONE.query, ONE.task, [LEFT], target_image=0)
    assert count(sheet(ONE), ANSWER) == count(sheet(alone), ANSWER)
    assert count(sheet(ONE), OTHERS) > count(sheet(alone), OTHERS)


def test_sets_are_counted_by_their_boxes(
    sheet: Sheet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet(EVERY, NONE, ONE)
    counts = count_samples(PublishedFile.open(tmp_path / "s.jsonl", None, None), FaultBook())
    assert counts.per_set == {3: 1, 0: 1} and len(counts.areas_of["find_all"]) == 3
    assert len(counts.areas_of["referring"]) == 1, "the first is scored"
    assert list_panels(counts, (), 9)["boxes of answers that are sets"] == {"0": 1, "3": 1}
    assert cli.main(["data", "stats", str(tmp_path / "s.jsonl")]) == 0
    assert "boxes of sets      1 with 0, 1 with 3" in capsys.readouterr().out
    sheet(ONE)
    counts = count_samples(PublishedFile.open(tmp_path / "s.jsonl", None, None), FaultBook())
    assert "boxes of answers that are sets" not in list_panels(counts, (), 9)
