"""Pages of rollouts: all that they show is in them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from univg.grounding.reading import Asked, read
from univg.grounding.scoring import score
from univg.training.grpo.pages import Group, Rollout, RolloutPages
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
