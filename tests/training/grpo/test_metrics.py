"""The numbers of a step: shares of rollouts, of faults, and of groups."""

from __future__ import annotations

import numpy as np
import pytest

from univg.grounding.reading import Asked, read
from univg.grounding.scoring import score
from univg.training.grpo.metrics import FAULT_NAMES, GroupScores, step_metrics
from univg.world import make_sample

DRAWN = make_sample("diff", index=1)


def test_metrics_of_a_step() -> None:
    rows = [
        [1.0, 1, 1, 0, -1, 0, 0],
        [0.8, 1, 1, 0, -1, 0, 0],
        [0.2, 0, 1, 0, FAULT_NAMES.index("inverted_box"), 1, 1],
        [0.0, 0, 0, 1, FAULT_NAMES.index("truncated"), 1, 0],
        [0.5, 1, 1, 0, -1, 0, 1],
        [0.5, 1, 1, 0, -1, 0, 1],
    ]
    groups = GroupScores.of(rows, generations=2)
    assert groups.mean_iou_P.tolist() == pytest.approx([0.9, 0.1, 0.5])
    rewards = np.array([[2.0, 1.8], [1.2, 0.0], [1.5, 1.5]])
    metrics = step_metrics(groups, rewards, np.array([1.0, 2.0, 3.0]))
    assert metrics["iou"] == pytest.approx(0.5) and metrics["hit_50"] == pytest.approx(4 / 6)
    assert metrics["format"] == pytest.approx(5 / 6) and metrics["truncated"] == pytest.approx(1 / 6)
    assert metrics["faults/any"] == pytest.approx(2 / 6)
    assert metrics["faults/inverted_box"] == pytest.approx(1 / 6) == metrics["faults/truncated"]
    assert metrics["groups/weight"] == 2.0 and metrics["groups/no_spread"] == pytest.approx(1 / 3)
    assert (
        metrics["groups/easy"] == metrics["groups/medium"] == metrics["groups/hard"] == pytest.approx(1 / 3)
    )
    assert metrics["groups/all_refuse"] == metrics["groups/all_spam"] == pytest.approx(1 / 3)
    assert {f"faults/{name}" for name in FAULT_NAMES} <= set(metrics), "a chart needs every name every step"


def test_a_rollout_cut_off_before_its_box_is_truncated() -> None:
    for truncated, fault in ((True, "truncated"), (False, "no_answer")):
        missing = read("I look at the first", Asked.of(DRAWN.sample), truncated=truncated)
        row = GroupScores.row(score(DRAWN.sample, missing), missing)
        assert FAULT_NAMES[int(row[4])] == fault == missing.fault
