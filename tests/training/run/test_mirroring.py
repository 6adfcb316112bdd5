"""Mirrored pictures: the box lies on what it lay on before."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from PIL import Image

from univg.grounding.boxes import unit_to_px
from univg.grounding.samples import GroundingSample, write_jsonl
from univg.models.loading import load
from univg.training.config import DataSource, SftConfig
from univg.training.run.mirroring import mirror
from univg.training.run.rows import StageRows

RED = (255, 0, 0)


def draw(box_px: tuple[int, int, int, int]) -> Image.Image:
    image = Image.new("RGB", (80, 60), "white")
    image.paste(RED, box_px)
    return image


def find_red(image: Image.Image) -> tuple[int, int, int, int] | None:
    return image.convert("RGB").point(lambda value: 255 - value).getchannel("G").getbbox()


def test_the_box_stays_on_its_thing_and_all_four_ways_come() -> None:
    sample = GroundingSample(("a.png", "b.png"), "Where is it?", "region", ((0.1, 0.2, 0.25, 0.5),), 0)
    images = (draw((8, 12, 20, 30)), draw((40, 6, 72, 12)))
    places = set()
    for seed in range(40):
        turned, pictures = mirror(sample, images, random.Random(seed))
        assert find_red(pictures[0]) == tuple(round(edge) for edge in unit_to_px(turned.boxes[0], (80, 60)))
        assert pictures[1].size == (80, 60)
        places.add((find_red(pictures[0]), find_red(pictures[1])))
    assert len(places) == 4, "both pictures of a sample are turned alike, in four ways"


@pytest.mark.parametrize(
    "changes",
    [
        {"query": "It was at <|box_start|>(1,2),(3,4)<|box_end|>: where is it?"},
        {"thought": "It is at the upper left."},
    ],
)
def test_a_sample_whose_words_hold_a_place_stays_as_it_is(changes: dict[str, str]) -> None:
    fields = {"query": "Where is it?", "thought": None} | changes
    sample = GroundingSample(
        ("a.png",), str(fields["query"]), "region", ((0.1, 0.2, 0.25, 0.5),), 0, fields["thought"]
    )
    images = (draw((8, 12, 20, 30)),)
    for seed in range(8):
        assert mirror(sample, images, random.Random(seed)) == (sample, images)


def test_rows_teach_the_mirrored_box_and_are_always_the_same(start: Path, tmp_path: Path) -> None:
    draw((8, 12, 20, 30)).save(tmp_path / "a.png")
    sample = GroundingSample(("a.png",), "Where is it?", "region", ((0.1, 0.2, 0.25, 0.5),), 0)
    write_jsonl(tmp_path / "samples.jsonl", [sample])
    source = DataSource(reader="univg", path=str(tmp_path / "samples.jsonl"), images=str(tmp_path))
    config = SftConfig(model=str(start), data=(source,), prompt_style="direct", mirror=True)
    rows = StageRows(config, load(str(start), device="cpu").processor, 24)
    taught = [rows[i].response for i in range(24)]
    assert taught == [rows[i].response for i in range(24)]
    assert set(taught) == {
        f"<|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>"
        for x1, x2 in ((100, 250), (750, 900))
        for y1, y2 in ((200, 500), (500, 800))
    }
