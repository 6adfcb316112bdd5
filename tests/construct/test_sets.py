"""Chains of thought for answers that are sets: what the teacher is told, what is verified, what is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from univg.cli.main import main
from univg.construct.prompts import Prompts, ask_plainly, choose_steps
from univg.construct.verify import Rules, verify
from univg.grounding.prompts import SET_SUFFIX, render_answer
from univg.grounding.samples import GroundingSample, read_jsonl
from univg.training.config import DataSource, SftConfig
from univg.training.run.sources import open_sources

LEFT, RIGHT = (0.1, 0.2, 0.5, 0.6), (0.6, 0.2, 0.9, 0.7)


def make(boxes: Any = (), on: Any = (), task: str = "find_all") -> GroundingSample:
    return GroundingSample(["a.png", "b.png"], "Find every lamp.", task, boxes, complete=True, box_images=on)


TWO, NONE = make([LEFT, RIGHT], [0, 1]), make()
BOTH = "Image-1: (100,200),(500,600); Image-2: (600,200),(900,700)"
GOOD = "The first image shows a lamp at the left. The second image shows another one at the right. Both are lamps."
EMPTY = "There is a cup in the first image and a chair in the second image. Neither of them gives any light."


def text(thought: str, answer: str) -> str:
    return f"<think>{thought}</think><answer>{answer}</answer>"


VERDICTS = {
    "right": (TWO, text(GOOD, BOTH), ()),
    "right, and last it speaks of an image without": (
        make([LEFT], [0]),
        text(
            "I look for lamps. The first image shows one at the left. The second image has none.",
            "Image-1: (100,200),(500,600)",
        ),
        (),
    ),
    "nothing is there": (NONE, text(EMPTY, "none"), ()),
    "nothing, in other words": (NONE, text(EMPTY, "There is no lamp in either image."), ()),
    "refuses though they are there": (TWO, text(EMPTY, "none"), ("low_iou",)),
    "a box though nothing is there": (NONE, text(GOOD, BOTH), ("low_iou",)),
    "the wrong image": (TWO, text(GOOD, BOTH.replace("Image-2", "Image-1")), ("wrong_image",)),
    "one is missed": (TWO, text(GOOD, "Image-1: (100,200),(500,600)"), ("wrong_count",)),
    "both on the wrong image": (
        make([LEFT, RIGHT], [1, 1]),
        text(GOOD, BOTH.replace("Image-2", "Image-1")),
        ("low_iou",),
    ),
    "spam": (
        TWO,
        text(GOOD, "; ".join([BOTH, *(f"Image-2: (0,{y}),(90,{y + 90})" for y in range(0, 900, 100))])),
        ("low_iou",),
    ),
    "says nothing": (NONE, text(EMPTY, "I cannot help."), ("no_box",)),
    "no thought": (TWO, f"<answer>{BOTH}</answer>", ("no_thought",)),
    "an image is not named": (
        TWO,
        text("The first image shows a lamp, and there is another lamp at the right of it.", BOTH),
        ("missing_image",),
    ),
    "the second box's numbers first": (
        TWO,
        text(f"Something spans 600 to 900 and 200 to 700. {GOOD}", BOTH),
        ("leak_box",),
    ),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_sets_are_verified_by_all_their_boxes(case: str) -> None:
    sample, written, causes = VERDICTS[case]
    assert verify(sample, written, Rules()).causes == causes


def test_the_bound_is_of_the_soft_f1() -> None:
    half = text(GOOD, BOTH.replace("(900,700)", "(900,450)"))
    assert verify(TWO, half, Rules()).iou == pytest.approx((1 + 0.5) / 2)
    assert verify(TWO, half, Rules(min_iou=0.75)).causes == ()
    assert verify(TWO, half, Rules(min_iou=0.76)).causes == ("low_iou",)


def test_each_box_is_read_at_the_size_of_its_own_image() -> None:
    seen = ((100, 100), (200, 100))
    written = "Image-1: (10,20),(50,60); Image-2: (120,20),(180,70)"
    verdict = verify(TWO, text(GOOD, written), Rules(), frame="pixel", seen_wh=seen)
    assert verdict.causes == () and verdict.iou == pytest.approx(1)
    early = text(f"One is at [120, 20, 180, 70]. {GOOD}", written)
    assert verify(TWO, early, Rules(), frame="pixel", seen_wh=seen).causes == ("leak_box",)


def test_the_teacher_is_told_every_box_with_its_image_or_that_there_is_none() -> None:
    prompts = Prompts.load()
    told = prompts.propose(TWO, "en")[0]["content"][-1]["text"]
    assert f"the answer is {BOTH}." in told and f"<answer>{BOTH}</answer>" in told and "$" not in told
    told = prompts.propose(NONE, "en")[0]["content"][-1]["text"]
    assert "the answer is none." in told and "<answer>none</answer>" in told
    judged = prompts.judge(TWO, [GOOD, EMPTY], "en")[0]["content"][-1]["text"]
    assert BOTH in judged and f"Chain 2:\n{EMPTY}" in judged and "$" not in judged
    assert ask_plainly(TWO)[0]["content"][-1]["text"].endswith(SET_SUFFIX)
    assert [choose_steps(make(task=task)) for task in ("x", "odd_one_out")] == ["find_all", "odd_one_out"]


def answer_as_told(handler: Any, number: int) -> bool:
    said = str(handler.server.requests[number]["messages"][0]["content"][-1]["text"])
    pair = re.search(r"pair (\d)", said)
    assert pair is not None
    kind = ("lamp", "harp", "boat", "drum")[int(pair[1])]
    answer = re.search(r"(?:the answer is|the region is) (.*?)(?: of the second image|\. Image-1 is)", said)
    assert answer is not None
    found = (
        f"In the end the {kind} of the second image stands apart" if answer[1] != "none" else "No such thing"
    )
    thought = f"The first image shows a {kind} and a cup. The second image shows a {kind} too. {found} here."
    handler.reply(200, handler.completion(text(thought, answer[1])))
    return True


def test_kept_chains_are_samples_that_stage_1_teaches(
    own_set: Callable[..., tuple[Path, Path]], teacher_server: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    teacher_server.behave = answer_as_told
    as_set = {"complete": True, "task": "find_all", "target_image": None}
    changes: list[dict[str, Any]] = [
        as_set | {"boxes": (LEFT, RIGHT), "box_images": (0, 1)},
        as_set | {"boxes": ()},
        {},
        as_set | {"boxes": (LEFT, (0.5, 0.5, 0.5, 0.9)), "box_images": (0, 1)},
    ]
    data, root = own_set(4, changes)
    command = ["construct", "--data", str(data), "--images", str(root), "--teacher", "openai:served"]
    command += ["--base-url", teacher_server.url, "--out", str(tmp_path / "out"), "--chains", "1"]
    assert main([*command, "--judge", "none", "--copies", "0"]) == 0
    kept = list(read_jsonl(tmp_path / "out" / "samples.jsonl"))
    assert [one.source for one in kept] == ["own#0", "own#1", "own#2"]
    assert [one.complete for one in kept] == [True, True, False]
    assert kept[0].targets == ((0, LEFT), (1, RIGHT)) and kept[1].boxes == ()
    assert '"outcome": "bad_truth"' in (tmp_path / "out" / "left-out.jsonl").read_text()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert {"sets/propose", "propose"} <= set(manifest["prompts"])
    source = DataSource(reader="univg", path=str(tmp_path / "out" / "samples.jsonl"), images=str(root))
    opened = open_sources(SftConfig(data=(source,)), teach=True)[0]
    assert opened.data.total == 3 and not (opened.dropped and opened.dropped.book.left_out)
    assert render_answer(kept[1], "set") == f"<think>{kept[1].thought}</think><answer>none</answer>"
