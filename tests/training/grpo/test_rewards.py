"""Rewards over the one judge, and users' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from univg.errors import UnivgError
from univg.grounding.prompts import render_response
from univg.grounding.reading import read
from univg.grounding.samples import GroundingSample
from univg.grounding.scoring import score
from univg.training.grpo.rewards import (
    RolloutReader,
    find_rewards,
    format_reward,
    iou_reward,
    text_of,
    write_ideal,
)
from univg.world import FAMILIES, make_sample

SAMPLE = GroundingSample(
    ["a.png", "b.png"], "What differs?", "diff", boxes=[(0, 0, 0.5, 0.5)], target_image=1
)
TEXTS = {
    "right": "<think>The cup.</think><answer>(0,0),(500,500)</answer>",
    "half": "<think>The cup.</think><answer>(0,0),(500,250)</answer>",
    "mended": "<think>The cup.</think><answer>(500,500),(0,0)</answer>",
    "bare": "(0,0),(500,500)",
    "none": "I cannot see it.",
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("as_chat", [True, False])
def test_rewards_are_the_judges_numbers(name: str, as_chat: bool) -> None:
    text = TEXTS[name]
    completion: Any = [{"role": "assistant", "content": text}] if as_chat else text
    expected = score(SAMPLE, read(text))
    assert iou_reward([completion], sample=[SAMPLE]) == [expected.iou]
    assert format_reward([completion], sample=[SAMPLE]) == [float(expected.format_ok)]


def test_scores_at_hand_are_not_worked_out_again() -> None:
    given = [score(SAMPLE, read(TEXTS["half"]))]
    assert iou_reward(["something else"], sample=[SAMPLE], score=given, anything=[1]) == [0.5]


def test_the_text_of_a_completion_in_parts() -> None:
    parts = [{"role": "assistant", "content": [{"type": "text", "text": "(1,2),"}, {"text": "(3,4)"}]}]
    assert text_of(parts) == "(1,2),(3,4)"


def test_a_reward_by_dotted_path_with_its_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_rewards.py").write_text(
        "BROKEN = 1\ndef short(completions, **columns):\n    return [1.0 for each in completions]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    rewards = find_rewards({"iou": 1.0, "their_rewards.short": 0.25})
    assert [(reward.name, reward.weight) for reward in rewards] == [
        ("iou", 1.0),
        ("their_rewards.short", 0.25),
    ]
    assert rewards[1].function(["a", "b"]) == [1.0, 1.0]
    for path, why in {
        "their_rewards.shrt": "has no 'shrt'; did you mean 'short'",
        "their_rewards.BROKEN": "only a int",
        "their_rewordz.short": "cannot be imported",
    }.items():
        with pytest.raises(UnivgError, match=why) as caught:
            find_rewards({path: 1.0})
        assert "\n" not in str(caught.value)


def test_unknown_and_missing_rewards_are_named() -> None:
    with pytest.raises(UnivgError, match="did you mean 'format'"):
        find_rewards({"fromat": 1.0})
    with pytest.raises(UnivgError, match="no rewards"):
        find_rewards({})


@pytest.mark.parametrize("style", ["think", "direct", "simple"])
@pytest.mark.parametrize("frame", ["permille", "pixel"])
def test_ground_truth_fed_back_is_perfect(style: Any, frame: Any) -> None:
    reader = RolloutReader(style, frame, resized=lambda size_wh: (size_wh[0] * 7, size_wh[1] * 7))
    for family in FAMILIES:
        drawn = make_sample(family, index=3, difficulty=0.7)
        row = {"sample": drawn.sample, "images": list(drawn.images), "style": style}
        text, exact, ceiling = write_ideal(row, reader)
        result = score(exact["sample"], reader.read(exact, text))
        assert result.iou == pytest.approx(1.0, abs=1e-9) and result.format_ok, text
        assert ceiling > 0.9


def test_the_style_of_a_sample_without_thinking_is_its_own() -> None:
    plain = GroundingSample(["a.png"], "The dog?", "referring", boxes=[(0, 0, 0.5, 0.5)], thinking=False)
    text = render_response((0, 0, 0.5, 0.5), style="simple")
    assert RolloutReader().read({"sample": plain}, text).format_ok
    assert not RolloutReader().read({"sample": SAMPLE}, text).format_ok
