"""The split that other programs draw: exact boxes, one answer to each question, never trained on."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import ImageChops
from pydantic import ValidationError

from univg.cli.main import main
from univg.errors import UnivgError
from univg.evaluate.benchmarks import open_world
from univg.grounding.samples import read_jsonl
from univg.training.sources import DataSource
from univg.world import DRAWN_FAMILIES, SET_FAMILIES, SPLITS, make_sample
from univg.world.drawn import PROGRAMS, Page, draw_page, list_programs, tell_missing
from univg.world.drawn.pages import Fill, Item
from univg.world.drawn.programs import CSS_COLOURS, INSTALL, measure_page

FILLS: tuple[Fill, ...] = ("filled", "edged", "hollow")


def pages_of(family: str, index: int, difficulty: float = 0.5) -> tuple[Any, list[Page]]:
    made = make_sample(family, "drawn", 4, index, difficulty)
    return made.sample, [shot for shot in made.shots if isinstance(shot, Page)]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_box_is_the_extent_of_what_the_program_draws(program: str) -> None:
    """To less than a pixel: at sharp corners the last one is hardly tinted."""
    if program not in list_programs():
        pytest.skip(tell_missing())
    for shape in PROGRAMS[program].shapes:
        for fill, reach in zip(FILLS, (9, 30, 55), strict=True):
            item = Item(shape, "red", 100, 81, reach, fill)
            page = Page(program, (200, 160), (255, 255, 255), CSS_COLOURS, (0, 0, 200.0, 160.0), (item,), 1)
            bands = ImageChops.difference(draw_page(page), draw_page(replace(page, items=()))).split()
            changed = ImageChops.lighter(ImageChops.lighter(*bands[:2]), bands[2])
            found = changed.point([0] * 70 + [255] * 186).getbbox()
            assert found is not None
            exact = [
                side * length for side, length in zip(measure_page(page)[0], (200, 160) * 2, strict=True)
            ]
            assert max(abs(a - b) for a, b in zip(found, exact, strict=True)) <= 1.01, (shape, fill)


@pytest.mark.parametrize("family", DRAWN_FAMILIES)
def test_every_sample_is_whole(family: str) -> None:
    for index in range(25):
        sample, pages = pages_of(family, index, index / 24)
        assert (
            len(pages) == len(sample.images) and sample.query and sample.complete == (family in SET_FAMILIES)
        )
        boxes = [measure_page(page) for page in pages]
        for image, box in sample.targets:
            assert box in boxes[image]
        for page in pages:
            assert page.program in PROGRAMS and 60 <= max(page.size_wh) <= 240


def test_a_name_fits_one_thing_and_a_set_all_that_fit() -> None:
    for index in range(60):
        sample, (page,) = pages_of("referring", index)
        (_, box), *_ = sample.targets
        target = page.items[measure_page(page).index(box)]
        others = [item for item in page.items if item is not target]
        kind = sample.extra["kind"]
        if kind in ("name", "shape", "colour"):
            words = {"name": str(target), "shape": target.shape, "colour": target.colour}[kind]
            assert words in sample.query
            assert not any(words in (str(item), item.shape, item.colour) for item in others)
        sample, (page,) = pages_of("find_all", index)
        key = {"name": str, "shape": lambda item: item.shape, "colour": lambda item: item.colour}[
            sample.extra["kind"]
        ]
        fitting = [
            box for item, box in zip(page.items, measure_page(page), strict=True) if key(item) in sample.query
        ]
        assert sorted(fitting) == sorted(box for _, box in sample.targets)
        sample, (page,) = pages_of("absent", index)
        assert (
            bool(sample.targets)
            == any(str(item) in sample.query for item in page.items)
            == sample.extra["there"]
        )


def test_relations_and_extremes_hold_clearly() -> None:
    seen = set()
    for index in range(160):
        sample, (page,) = pages_of("referring", index)
        ((_, box),) = sample.targets
        rest = [other for other in measure_page(page) if other != box]
        kind, query = sample.extra["kind"], sample.query
        seen.add(kind)
        if kind == "side" and "leftmost" in query:
            assert all(box[0] + box[2] < other[0] + other[2] for other in rest)
        if kind == "extreme" and "shape" in query and "smallest" not in query:
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, *rest)]
            assert all(areas[0] > 1.5 * area for area in areas[1:])
        if kind == "relation" and "left of" in query:
            anchor = next(
                item for item in page.items if re.sub(r"[?.]|, please", "", query).endswith(item.shape)
            )
            middle = anchor.x / page.size_wh[0]
            assert [b for b in (box, *rest) if (b[0] + b[2]) / 2 < middle - 0.02] == [box]
    assert seen == {"name", "shape", "colour", "extreme", "relation", "side"}


def test_training_cannot_name_the_split() -> None:
    assert "drawn" not in SPLITS
    with pytest.raises(ValidationError, match="train"):
        DataSource(split="drawn")  # type: ignore[arg-type]


def test_the_benchmark_holds_the_families_that_the_split_has() -> None:
    data = open_world("world_drawn", 1)
    assert [item.sample.task for item in data.items()] == [f for f in DRAWN_FAMILIES if f not in SET_FAMILIES]
    sets = open_world("world_drawn", 1, tasks=["sets"])
    assert [item.sample.task for item in sets.items()] == ["find_all", "absent"]
    assert data.digest == open_world("world_drawn", 1).digest != open_world("world", 1).digest
    with pytest.raises(UnivgError, match="no task 'video' in this benchmark"):
        open_world("world_drawn", 1, tasks=["video"])


def test_the_command_writes_the_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "drawn"
    assert main(["world", "--split", "drawn", "--out", str(out), "-n", "4", "--size", "120"]) in (None, 0)
    samples = list(read_jsonl(out / "samples.jsonl"))
    assert len(samples) == 4 and all((out / name).is_file() for one in samples for name in one.images)
    assert main(["world", "--split", "drawn", "--family", "video", "--out", str(tmp_path / "x")]) == 2
    assert "--family video: choose from diff" in capsys.readouterr().err


@pytest.fixture
def no_cairosvg(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(name: str) -> Any:
        raise OSError(f"no library called libcairo for {name}")

    list_programs.cache_clear()
    monkeypatch.setattr(importlib, "import_module", refuse)
    yield
    list_programs.cache_clear()


@pytest.mark.usefixtures("no_cairosvg")
def test_without_cairosvg_the_others_draw_and_it_is_said() -> None:
    assert list_programs() == ("matplotlib", "pillow")
    assert "no library called libcairo" in tell_missing() and INSTALL in tell_missing()
    programs = {page.program for index in range(20) for page in pages_of("diff", index)[1]}
    assert programs == {"matplotlib", "pillow"}
    page = Page(
        "svg", (50, 50), (255, 255, 255), CSS_COLOURS, (0, 0, 50.0, 50.0), (Item("circle", "red", 25, 25, 9),)
    )
    with pytest.raises(UnivgError, match=r"univg\[drawn\]"):
        draw_page(page)
