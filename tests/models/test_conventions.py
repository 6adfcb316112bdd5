"""How a checkpoint is asked: as its own file says, else by a rule that is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from univg.errors import UnivgError
from univg.grounding.prompts import PromptStyle
from univg.models.checkpoint import Source
from univg.models.conventions import (
    FAMILIES,
    REPOSITORIES,
    UNRECORDED,
    find_conventions,
    guess_style,
    write_conventions,
)
from univg.models.families import MODEL_FAMILIES, AskedStyle, settle_style
from univg.models.pixels import PixelBudget
from univg.models.published import PUBLISHED as SHAPES

QWEN2, QWEN25, QWEN3 = MODEL_FAMILIES.values()
PUBLISHED: dict[str, tuple[str, dict[str, Any], PixelBudget, str]] = {
    "qwen3_vl": (
        "qwen3_vl",
        {"size": {"longest_edge": 16777216, "shortest_edge": 65536}},
        PixelBudget(65536, 1310720),
        "images have up to 1,310,720 pixels here, its own files allow 16,777,216",
    ),
    "qwen2_5_vl": (
        "qwen2_5_vl",
        {"min_pixels": 3136, "max_pixels": 12845056},
        PixelBudget(3136, 1003520),
        "images have up to 1,003,520 pixels here, its own files allow 12,845,056",
    ),
    "smaller than the cap": (
        "qwen2_5_vl",
        {"size": {"min_pixels": 3136, "max_pixels": 200704}},
        PixelBudget(3136, 200704),
        "",
    ),
    "says nothing": ("qwen3_vl", {"patch_size": 16}, PixelBudget(65536, 1310720), ""),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_stock_model_sees_what_its_own_files_say_up_to_a_limit(name: str, tmp_path: Path) -> None:
    family, settings, budget, note = PUBLISHED[name]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    found = find_conventions(Source(tmp_path), MODEL_FAMILIES[family])
    assert (found.prompt_style, found.pixel_budget, found.pixels_note) == ("json", budget, note)
    assert found.style_note == f"asked in style native (json), as {family} models without univg.json are"


def test_a_record_goes_before_the_rule_and_an_adapter_before_its_base(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir(), adapter.mkdir()
    assert find_conventions(Source(base), QWEN3, adapter).prompt_style == "json"
    write_conventions(base, "direct", PixelBudget(784, 1000))
    found = find_conventions(Source(base), QWEN3, adapter)
    assert (found.prompt_style, found.pixel_budget) == ("direct", PixelBudget(784, 1000))
    assert not found.style_note and not found.pixels_note
    write_conventions(adapter, "think", PixelBudget())
    assert find_conventions(Source(base), QWEN3, adapter).prompt_style == "think"


REPOSITORY_RULES: list[tuple[str | None, PromptStyle]] = [
    (None, "think"),
    ("GD-ML/UniVG-R1", "think"),
    ("Michael4933/Migician", "direct"),
    ("Qwen/Qwen2-VL-2B-Instruct", "marks"),
    ("somebody/Qwen2-VL-2B-Instruct", "think"),
]


@pytest.mark.parametrize(("repository", "style"), REPOSITORY_RULES)
def test_what_is_known_of_the_hub(repository: str | None, style: PromptStyle, tmp_path: Path) -> None:
    found = find_conventions(Source(tmp_path, repository), QWEN2)
    assert found.prompt_style == style and guess_style(QWEN2, repository)[0] == style
    known = repository is not None and repository != "somebody/Qwen2-VL-2B-Instruct"
    assert (f"as {repository} is known to be" in found.style_note) == known
    assert found.pixel_budget == (QWEN2.stock_budget if style == "marks" else PixelBudget())
    assert (
        find_conventions(Source(tmp_path / "Qwen2-VL-2B-Instruct"), QWEN2).prompt_style == "think"
    )  # no path decides


def test_native_is_the_familys() -> None:
    assert [settle_style("native", family) for family in (QWEN2, QWEN25, QWEN3)] == ["marks", "json", "json"]
    assert settle_style("think", QWEN3, sets=True) == "set" and settle_style("set_json", QWEN3) == "set_json"
    assert set(get_args(AskedStyle)) == {*get_args(PromptStyle), "native"} and set(UNRECORDED) == set(
        MODEL_FAMILIES
    )


def test_a_budget_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text('{"min_pixels": 9, "max_pixels": 3}')
    with pytest.raises(UnivgError, match="min_pixels=9"):
        find_conventions(Source(tmp_path), QWEN25)


def test_the_published_models_families_are_known_by_name() -> None:
    shapes = {name: settings["model_type"] for name, settings in SHAPES.items()}
    assert {name: FAMILIES[name] for name in shapes} == shapes
    assert FAMILIES.keys() >= REPOSITORIES.keys()
