"""One meaning of a response: everybody who is given a text, cut off or not, says the same of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from univg.construct.verify import Rules, verify
from univg.evaluate.rows import make_row
from univg.grounding.reading import Asked, Fault, Reading, read
from univg.grounding.samples import GroundingSample
from univg.grounding.scoring import score
from univg.models.answering import Answer
from univg.models.generation import generate as generation
from univg.models.grounder import Grounder
from univg.models.loading import Loaded
from univg.models.tiny import build_tiny
from univg.serve.replies import build_completion
from univg.training.grpo.metrics import FAULT_NAMES, GroupScores
from univg.training.grpo.pages import Group, Rollout
from univg.training.grpo.rewards import RolloutReader, format_reward, iou_reward

SAMPLE = GroundingSample(["a.png", "b.png"], "What differs?", "diff", boxes=[(0.1, 0.2, 0.3, 0.4)])
IMAGES = [Image.new("RGB", (64, 48)), Image.new("RGB", (48, 64))]
THOUGHT = "<think>The second image holds one more cup than the first image, at its left.</think>"

TABLE: list[tuple[str, Fault | None, Fault | None]] = [  # a text, its fault as it ends, its fault if the limit cut it
    (f"{THOUGHT}<answer>(100,200),(300,400)</answer>", None, None),
    (f"{THOUGHT}<answer>(100,200),(300,400)</answer> and so", None, None),
    (f"{THOUGHT}<answer>(100,200),(300,400)", "truncated", "truncated"),
    (f"{THOUGHT}<answer>(300,400),(100,200)</answer>", "inverted_box", "inverted_box"),
    (f"{THOUGHT}<answer>(100,200),(300,1400)</answer>", "out_of_range", "out_of_range"),
    (f"{THOUGHT}<answer>(1,2),(3,4)</answer><answer>(5,6),(7,8)</answer>", "several_answers", "several_answers"),
    (f"{THOUGHT}<answer>(500,500),(500,500)</answer> and", "degenerate_box", "truncated"),
    (f"{THOUGHT}<answer>the cup</answer>", "no_box", "truncated"),
    (f"{THOUGHT}<answer>(10%, 20, 30%, 40)</answer>", "ambiguous_box", "truncated"),
    (f"{THOUGHT}<answer>Image 3: (100,200),(300,400)</answer>", "unknown_image", "truncated"),
    (f"{THOUGHT}<answer>[[100,200,300,400], [500,600,</answer>", "truncated", "truncated"),
    (f"{THOUGHT} It is at (100,200),(300,400)", "no_answer", "truncated"),
    ("<think>I look at the first", "truncated", "truncated"),
    ("", "empty", "truncated"),
]  # fmt: skip


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    from univg.models.families import MODEL_FAMILIES

    model, processor = build_tiny(seed=0)
    return Grounder(Loaded(model, processor, MODEL_FAMILIES["qwen2_vl"], "think", "tiny"))


@pytest.mark.parametrize("truncated", [False, True], ids=["ended", "cut off"])
@pytest.mark.parametrize(("text", "ended", "cut"), TABLE)
def test_all_rooms_agree(
    text: str,
    ended: Fault | None,
    cut: Fault | None,
    truncated: bool,
    grounder: Grounder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading = read(text, Asked.of(SAMPLE), (), truncated)
    overlap = score(SAMPLE, reading).iou
    box = list(reading.box) if reading.box else None
    assert reading.fault == (cut if truncated else ended)
    expected = (reading.fault, overlap, box, reading.format_ok, truncated)

    assert of_evaluation(text, truncated) == expected
    assert of_training(text, truncated) == expected
    assert of_construction(text, truncated, reading) == expected
    assert of_grounding(text, truncated, grounder, monkeypatch) == (reading.fault, box)
    assert of_a_server(text, truncated) == expected


ELSEWHERE = f"{THOUGHT}<answer>In the first image: (100,200),(300,400)</answer>"


def test_a_box_that_the_answer_puts_on_another_image_lies_there(
    grounder: Grounder, monkeypatch: pytest.MonkeyPatch
) -> None:
    stated = replace(SAMPLE, target_image=1)
    reading = read(ELSEWHERE, Asked.of(stated))
    assert (reading.image_index, reading.image_rule) == (1, "target")
    assert reading.first is not None and (reading.first.image_index, reading.first.image_rule) == (
        0,
        "answer",
    )
    assert (
        score(stated, reading).iou == score(SAMPLE, read(TABLE[0][0], Asked.of(SAMPLE))).iou
    )  # as published

    row = make_row(stated, answer(ELSEWHERE, False), "think", "permille")
    assert (row["image_index"], row["image_rule"], row["box_images"]) == (1, "target", [0])
    assert "box_images" not in make_row(stated, answer(TABLE[0][0], False), "think", "permille")
    assert "wrong_image" in verify(stated, ELSEWHERE, Rules()).causes
    page = Group(stated, IMAGES, 1.0, [Rollout(reading, 7, score(stated, reading), {}, 0.0)])
    drawn = [(len(frame["boxes"]), bool(frame["truths"])) for frame in page.frames()]
    assert drawn == [(1, False), (0, True)]

    monkeypatch.setattr(
        generation, "generate", lambda *args, **settings: [[generation.Generation(ELSEWHERE, 7, False)]]
    )
    found = grounder.ground(IMAGES, "Find it in the second image.")
    assert (found.boxes[0].image_index, found.image_rule) == (0, "answer")
    assert found.boxes[0].box_px == (6.4, 9.6, 19.2, 19.2)


def of_evaluation(text: str, truncated: bool) -> tuple[Any, ...]:
    row = make_row(SAMPLE, answer(text, truncated), "think", "permille")
    boxes = row["boxes_unit"]
    return row["fault"], row["iou"], boxes[0] if boxes else None, row["format_ok"], row["truncated"]


def of_training(text: str, truncated: bool) -> tuple[Any, ...]:
    """Rewards, the log's numbers and the page's rollout."""
    row = {"sample": SAMPLE, "images": IMAGES}
    reading = RolloutReader().read(row, text, truncated)
    numbers = GroupScores.row(score(SAMPLE, reading), reading)
    [iou] = iou_reward([text], sample=[SAMPLE], score=[score(SAMPLE, reading)], reading=[reading])
    [form] = format_reward([text], sample=[SAMPLE], score=[score(SAMPLE, reading)], reading=[reading])
    page = Rollout(reading, 7, score(SAMPLE, reading), {}, 0.0)
    logged = FAULT_NAMES[int(numbers[4])] if numbers[4] >= 0 else None
    assert page.reading.fault == logged and numbers[0] == iou and numbers[2] == form
    return logged, iou, list(reading.box) if reading.box else None, bool(form), bool(numbers[3])


def of_construction(text: str, truncated: bool, reading: Reading) -> tuple[Any, ...]:
    verdict = verify(SAMPLE, text, Rules(), truncated=truncated)
    named = verdict.causes[0] if verdict.causes else None
    if truncated:  # what the limit cut off never teaches, even where a box stood before
        assert named == "truncated"
    else:
        assert (named if named in FAULT_NAMES else None) == reading.fault
    assert verdict.thought == (reading.thought or None)
    return (
        reading.fault,
        verdict.iou,
        list(reading.box) if reading.box else None,
        reading.format_ok,
        truncated,
    )


def of_grounding(
    text: str, truncated: bool, grounder: Grounder, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, ...]:
    """The Python interface, the command and the page, which show what it gives."""
    drawn = generation.Generation(text, 7, truncated)
    monkeypatch.setattr(generation, "generate", lambda *args, **settings: [[drawn]])
    found = grounder.ground(IMAGES, SAMPLE.query)
    return found.fault, list(found.boxes[0].box_unit) if found.boxes else None


def of_a_server(text: str, truncated: bool) -> tuple[Any, ...]:
    """What a client reads out of the server's reply."""
    reply = json.loads(json.dumps(build_completion({}, [generation.Generation(text, 7, truncated)], [], 9)))
    choice = reply["choices"][0]
    return of_evaluation(choice["message"]["content"], choice["finish_reason"] == "length")


def answer(text: str, truncated: bool) -> Answer:
    return Answer("key", (text,), (truncated,), (7,), 9, 7, False, ((64, 48), (48, 64)), 0.0)
