"""Weights of groups: the paper's formulas, positive everywhere, and one's own in five lines."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from univg.errors import UnivgError
from univg.training.grpo.difficulty import (
    LOG_FLOOR,
    WEIGHTINGS,
    check_weighting,
    find_weighting,
    level_of,
    weight_of,
    weighting,
)


@pytest.mark.parametrize(
    ("name", "mean_iou", "expected"),
    [
        ("none", 0.3, 1.0),
        ("exp", 0.0, math.e),
        ("exp", 0.25, math.exp(0.75)),
        ("exp", 1.0, 1.0),
        ("power", 0.0, 1.05),
        ("power", 1.0, 0.05),
        ("log", 0.0, -math.log(0.02)),
        ("log", 0.5, -math.log(0.52)),
        ("log", 0.979, LOG_FLOOR),
        ("log", 1.0, LOG_FLOOR),
    ],
)
def test_weights_are_the_papers(name: str, mean_iou: float, expected: float) -> None:
    assert find_weighting(name)(mean_iou) == pytest.approx(expected, abs=1e-12)


@given(st.sampled_from(sorted(WEIGHTINGS)), st.floats(0, 1), st.floats(0, 1))
def test_weights_are_positive_and_never_grow_with_ease(name: str, one: float, other: float) -> None:
    function = find_weighting(name)
    low, high = sorted((one, other))
    assert weight_of(function, high) > 0
    assert function(low) >= function(high)


def test_the_power_is_configured_for_power_alone() -> None:
    assert find_weighting("power", power_w=2)(0.55) == pytest.approx(0.25)
    assert find_weighting("exp", power_w=2)(0.5) == pytest.approx(math.exp(0.5))


def test_a_weighting_of_ones_own_by_name_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @weighting("linear")
    def linear_weight(mean_iou: float) -> float:
        return 1.5 - mean_iou

    try:
        assert find_weighting("linear")(0.5) == 1.0
    finally:
        del WEIGHTINGS["linear"]
    (tmp_path / "their_weights.py").write_text("def steep(mean_iou):\n    return 2 - mean_iou\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_weighting("their_weights.steep")(0.5) == 1.5
    assert find_weighting("their_weights:steep")(0.5) == 1.5


def test_what_leads_nowhere_is_one_line() -> None:
    with pytest.raises(UnivgError, match=r"weighting 'expo': choose from exp, log, none, power"):
        find_weighting("expo")
    with pytest.raises(UnivgError, match=r"module no_such_module cannot be imported") as caught:
        find_weighting("no_such_module.weight")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_a_weight_that_is_not_positive_is_refused(weight: float) -> None:
    with pytest.raises(UnivgError, match="positive and finite"):
        weight_of(lambda mean_iou: weight, 0.5)


@pytest.mark.parametrize(("mean", "level"), [(0.0, "hard"), (0.3, "medium"), (0.69, "medium"), (0.7, "easy")])
def test_levels(mean: float, level: str) -> None:
    assert level_of(mean) == level


@pytest.mark.parametrize("body", ["'heavy'", "float('nan')", "mean_iou - 0.5", "1 / mean_iou"])
def test_a_weighting_of_ones_own_is_tried_before_anything_starts(
    body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"weights_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(f"def mine(mean_iou):\n    return {body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnivgError, match=rf"weighting '{name}.mine' fails for a mean IoU of"):
        check_weighting(f"{name}.mine")
