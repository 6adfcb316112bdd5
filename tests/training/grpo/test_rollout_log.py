"""The numbers of a step, and its page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from univg.grounding.reading import Asked, read
from univg.grounding.scoring import score
from univg.training.grpo.rollout_log import FAULT_NAMES, Group, Judged, Rollout, RolloutPages, step_metrics
from univg.world import make_sample

DRAWN = make_sample("diff", index=1)
NASTY = '<think>A <b>bold</b> & "quoted" thought</think><answer>(100,200),(300,400)</answer>'


def rollout(text: str, reward: float = 0.5) -> Rollout:
    reading = read(text, Asked.of(DRAWN.sample))
    return Rollout(
        reading, 12, score(DRAWN.sample, reading), {"iou_reward": reward, "format_reward": 1.0}, 0.25
    )


def group() -> Group:
    return Group(DRAWN.sample, DRAWN.images, 2.5, [rollout(NASTY), rollout("no box at all")])


def test_metrics_of_a_step() -> None:
    rows = [
        [1.0, 1, 1, 0, -1],
        [0.8, 1, 1, 0, -1],
        [0.2, 0, 1, 0, FAULT_NAMES.index("inverted_box")],
        [0.0, 0, 0, 1, FAULT_NAMES.index("truncated")],
        [0.5, 1, 1, 0, -1],
        [0.5, 1, 1, 0, -1],
    ]
    judged = Judged.of(rows, generations=2)
    assert judged.mean_iou_P.tolist() == pytest.approx([0.9, 0.1, 0.5])
    rewards = np.array([[2.0, 1.8], [1.2, 0.0], [1.5, 1.5]])
    metrics = step_metrics(judged, rewards, np.array([1.0, 2.0, 3.0]))
    assert metrics["iou"] == pytest.approx(0.5) and metrics["hit_50"] == pytest.approx(4 / 6)
    assert metrics["format"] == pytest.approx(5 / 6) and metrics["truncated"] == pytest.approx(1 / 6)
    assert metrics["faults/any"] == pytest.approx(2 / 6)
    assert metrics["faults/inverted_box"] == pytest.approx(1 / 6) == metrics["faults/truncated"]
    assert metrics["groups/weight"] == 2.0 and metrics["groups/no_spread"] == pytest.approx(1 / 3)
    assert (
        metrics["groups/easy"] == metrics["groups/medium"] == metrics["groups/hard"] == pytest.approx(1 / 3)
    )
    assert {f"faults/{name}" for name in FAULT_NAMES} <= set(metrics), "a chart needs every name every step"


def test_a_rollout_cut_off_before_its_box_is_truncated() -> None:
    for truncated, fault in ((True, "truncated"), (False, "no_answer")):
        missing = read("I look at the first", Asked.of(DRAWN.sample), truncated=truncated)
        row = Judged.row(score(DRAWN.sample, missing), missing)
        assert FAULT_NAMES[int(row[-1])] == fault == missing.fault


def test_a_page_holds_everything_itself(tmp_path: Path) -> None:
    pages = RolloutPages(tmp_path / "rollouts")
    page = pages.write(50, [group()], {"iou": 0.5, "faults/no_box": 0.0}).read_text()
    assert page.count("data:image/jpeg;base64,") == len(DRAWN.images)
    assert not re.search(r"""(?:src|href)="(?!data:|index\.html)""", page), (
        "nothing is fetched from elsewhere"
    )
    assert "&lt;b&gt;bold" in page and "<b>bold" not in page
    assert page.count('class="truth"') == 1 and page.count('class="box b0"') == 1
    assert "left:10.0%;top:20.0%;width:20.0%;height:20.0%" in page
    assert "weight 2.500" in page and "no_answer" in page and "+0.250" in page


def test_the_index_lists_every_page_once(tmp_path: Path) -> None:
    pages = RolloutPages(tmp_path)
    for step, iou in ((1, 0.1), (100, 0.4), (100, 0.5)):  # the last: a resumed run
        pages.write(step, [group()], {"iou": iou})
    index = (tmp_path / "index.html").read_text()
    assert index.count("step-000100.html") == 1 and "step-000001.html" in index
    assert "0.500" in index and "0.400" not in index
    assert json.loads((tmp_path / "step-000100.json").read_text())["metrics"] == {"iou": 0.5}
