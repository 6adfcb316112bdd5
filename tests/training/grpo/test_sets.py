"""Answers that are sets in stage 2: what each reward gives, cheap answers, pages, and a run."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from univg.grounding.prompts import render_chat
from univg.grounding.reading import Asked, read
from univg.grounding.samples import GroundingSample
from univg.grounding.scoring import score
from univg.models.loading import load
from univg.training.config import DataSource, GrpoConfig
from univg.training.grpo.arguments import paper_arguments
from univg.training.grpo.checks import CheapAnswers, check_oracle
from univg.training.grpo.difficulty import exp_weight, weights_of
from univg.training.grpo.metrics import GroupScores, step_metrics
from univg.training.grpo.pages import Group, Rollout, RolloutPages
from univg.training.grpo.prechecks import check_grpo
from univg.training.grpo.rewards import (
    REWARDS,
    RolloutReader,
    find_rewards,
    image_reward,
    is_learnable,
    set_f1_reward,
    try_rewards,
    write_ideal,
)
from univg.training.grpo.stage import TrainingRows, train_grpo
from univg.training.grpo.trainer import GroundingGRPOTrainer
from univg.training.run.rows import StageRows

LEFT, RIGHT = (0.0, 0.0, 0.4, 1.0), (0.6, 0.0, 1.0, 1.0)
L, R = "(0,0),(400,1000)", "(600,0),(1000,1000)"


def make(boxes: Any = (), on: Any = (), images: Any = ("a", "b", "c"), **further: Any) -> GroundingSample:
    settings: dict[str, Any] = {"task": "find_all", "complete": True, "box_images": on, **further}
    return GroundingSample(images, "Every dog.", boxes=boxes, **settings)


TWO, ABSENT = make([LEFT, RIGHT], [0, 2]), make()
EVERYWHERE = "; ".join(f"Image-{n}: ({x},0),({x + 200},1000)" for n in (1, 2, 3) for x in range(0, 1000, 200))
REWARDED = {
    "right": (TWO, f"Image-1: {L}; Image-3: {R}", 1.0, 1.0, 1.0),
    "in another order": (TWO, f"Image-3: {R}; Image-1: {L}", 1.0, 1.0, 1.0),
    "one of two": (TWO, f"Image-1: {L}", 2 / 3, 2 / 3, 1.0),
    "refuses": (TWO, "none", 0.0, 0.0, 1.0),
    "right images, wrong boxes": (TWO, f"Image-1: {R}; Image-3: {L}", 0.0, 1.0, 1.0),
    "right boxes, wrong images": (TWO, f"Image-2: {L}; Image-2: {R}", 0.0, 0.0, 1.0),
    "right boxes, no images": (TWO, f"{L}; {R}", 0.5, 2 / 3, 0.0),
    "one twice": (TWO, f"Image-1: {L}; Image-1: {L}; Image-3: {R}", 0.8, 1.0, 1.0),
    "spam": (TWO, EVERYWHERE, 2 * 2 * 0.5 / 17, 0.8, 1.0),
    "talks": (TWO, "I see dogs.", 0.0, 0.0, 0.0),
    "nothing is there": (ABSENT, "none", 1.0, 1.0, 1.0),
    "nothing, in words": (ABSENT, "There is no dog in any image.", 1.0, 1.0, 0.0),
    "a box though nothing is there": (ABSENT, f"Image-1: {L}", 0.0, 0.0, 1.0),
    "says nothing": (ABSENT, "", 0.0, 0.0, 0.0),
    "cannot help": (ABSENT, "I cannot help with that.", 0.0, 0.0, 0.0),
    "a box without area": (ABSENT, "Image-1: (5,5),(5,5)", 0.0, 0.0, 0.0),
}


def thinking(answer: str) -> str:
    return f"<think>I look.</think><answer>{answer}</answer>"


@pytest.mark.parametrize("case", REWARDED)
def test_what_each_reward_gives(case: str) -> None:
    sample, answer, *expected = REWARDED[case]
    reading = read(thinking(answer), Asked.of(sample))
    judged = {"score": [score(sample, reading)], "reading": [reading]}
    for columns in ({"sample": [sample]}, {"sample": [sample], **judged}):
        given = {name: reward([thinking(answer)], **columns)[0] for name, reward in REWARDS.items()}
        assert [given[name] for name in ("set_f1", "image", "format")] == pytest.approx(expected)
        assert given["iou"] == given["set_f1"]


def test_no_cheap_policy_earns_more_than_an_honest_one() -> None:
    """Over as many empty samples as others, with the weights of the preset."""
    weights = {"set_f1": 1.0, "image": 0.5, "format": 1.0}

    def earn(answers: tuple[str, str]) -> float:
        return sum(
            weight * float(REWARDS[name]([thinking(answer)], sample=[sample])[0])
            for sample, answer in zip((TWO, ABSENT), answers, strict=True)
            for name, weight in weights.items()
        )

    honest = earn(("Image-1: (50,0),(400,950); Image-3: (620,0),(980,1000)", "none"))
    found_one = earn((f"Image-1: {L}", "none"))
    whole = "; ".join(f"Image-{n}: (0,0),(1000,1000)" for n in (1, 2, 3))
    for cheap in ("none", EVERYWHERE, whole, f"Image-1: {L}", "Image-2: (0,0),(1000,1000)", "talk"):
        assert earn((cheap, cheap)) < found_one < honest, cheap


def test_the_reward_of_images_applies_to_sets_on_several_images_alone() -> None:
    one_image = make([LEFT], [0], images=["a"])
    unknown = make([LEFT])
    one_box = make([LEFT], [0], complete=False)
    for sample in (one_image, unknown, one_box, make(images=["a"])):
        assert image_reward([thinking("Image-1: (0,0),(9,9)"), thinking("none")], sample=[sample] * 2) == [
            None,
            None,
        ]
    rewards = find_rewards({"set_f1": 1.0, "image": 0.5})
    rows = [{"prompt": [], "sample": one_image}, {"prompt": [], "sample": TWO}]
    texts = [thinking(f"Image-1: {L}"), thinking(f"Image-1: {L}; Image-3: {R}")]
    assert try_rewards(texts, rows, rewards) == {"set_f1": 1.0, "image": 1.0}


def test_rewards_of_images_alone_and_negative_ones(start: Path) -> None:
    base = {"model": str(start), "max_steps": 1, "prompts_per_step": 2, "rollouts": 2}
    assert check_grpo(GrpoConfig(**base, rewards={"image": 1.0}))[1][0].name == "image"
    for name in ("set_f1", "image"):
        with pytest.raises(ValueError, match=rf"rewards\.{name}\s+a negative weight would reward missing"):
            GrpoConfig(**base, rewards={name: -1.0})


@pytest.mark.parametrize("style", ["think", "direct", "set", "set_direct"])
@pytest.mark.parametrize("frame", ["permille", "pixel"])
@pytest.mark.parametrize("sample", [TWO, ABSENT, make([LEFT, (0.1234, 0.3456, 0.7, 0.9)])], ids=str)
def test_the_ideal_rollout_is_perfect(sample: GroundingSample, frame: Any, style: Any) -> None:
    reader = RolloutReader(style, frame, resized=lambda size_wh: (size_wh[0] * 7, size_wh[1] * 7))
    images = [Image.new("RGB", size) for size in ((40, 30), (20, 60), (31, 17))]
    text, exact, ceiling = write_ideal({"sample": sample, "images": images}, reader)
    result = score(exact["sample"], reader.read(exact, text))
    assert result.iou == pytest.approx(1.0, abs=1e-9) and result.format_ok, text
    assert 0.9 < ceiling <= 1 and is_learnable(exact)


def test_what_no_answer_can_meet_is_not_learnable() -> None:
    assert is_learnable({"sample": ABSENT})
    assert not is_learnable({"sample": replace(ABSENT, complete=False)})
    flat = (0.5, 0.1, 0.5, 0.9)
    assert not is_learnable({"sample": make([LEFT, flat], [0, 1])})
    assert is_learnable({"sample": make([LEFT, flat], (), complete=False, target_image=0)})


def test_ground_truth_of_sets_passes_tokens_and_rewards(start: Path, sets: Path) -> None:
    source = DataSource(reader="univg", path=str(sets / "sets.jsonl"), images=str(sets))
    processor = load(start).processor
    config = GrpoConfig(model=str(start), data=(source,))
    rows = TrainingRows(StageRows(config, processor, 9, teach=False))
    rewards = find_rewards({"set_f1": 1.0, "image": 0.5, "format": 1.0})
    line = check_oracle(rows, rewards, RolloutReader(), processor)
    assert line.startswith("oracle: ground truth fed back scores 1.0 on 9 samples")
    assert line.endswith("rewards: set_f1 1.00, image 1.00, format 1.00")


# --- groups ---


def judge(sample: GroundingSample, answers: list[str]) -> list[list[float]]:
    readings = [read(thinking(answer), Asked.of(sample)) for answer in answers]
    return [GroupScores.row(score(sample, reading), reading) for reading in readings]


ONE_BOX = GroundingSample(["a"], "The dog?", "referring", [LEFT])
SPAM = "; ".join(f"Image-1: ({x},0),({x + 90},90)" for x in range(0, 600, 100))
GROUPS = {
    "all refuse": (TWO, ["none", "There is no dog here."], 1, 0),
    "some refuse": (TWO, ["none", f"Image-1: {L}"], 0, 0),
    "all refuse, rightly": (ABSENT, ["none", "none"], 0, 0),
    "all spam": (TWO, [SPAM, EVERYWHERE], 0, 1),
    "five boxes of two are not spam": (TWO, [SPAM.rpartition(";")[0]] * 2, 0, 0),
    "two boxes though nothing is there": (ABSENT, [f"Image-1: {L}; Image-1: {R}"] * 2, 0, 1),
    "all broken": (TWO, ["", "dogs"], 0, 0),
    "one box, refused": (ONE_BOX, ["There is no dog.", "none"], 1, 0),
    "one box, many given": (ONE_BOX, [SPAM, SPAM], 0, 0),
}


@pytest.mark.parametrize("case", GROUPS)
def test_groups_in_which_all_refuse_or_spam(case: str) -> None:
    sample, answers, refuse, spam = GROUPS[case]
    groups = GroupScores.of(judge(sample, answers), generations=2)
    metrics = step_metrics(groups, np.zeros((1, 2)), np.ones(1))
    assert (metrics["groups/all_refuse"], metrics["groups/all_spam"]) == (refuse, spam)


def test_a_groups_weight_follows_its_mean_soft_f1() -> None:
    rows = judge(TWO, [f"Image-1: {L}", "none"]) + judge(ABSENT, ["none", "none"])
    groups = GroupScores.of(rows, generations=2)
    assert groups.mean_iou_P.tolist() == pytest.approx([1 / 3, 1.0])
    assert weights_of(exp_weight, groups.mean_iou_P).tolist() == pytest.approx([np.exp(2 / 3), 1.0])


def test_many_cheap_groups_are_told_in_words() -> None:
    text = io.StringIO()
    told = CheapAnswers(Console(file=text, width=300))
    state = SimpleNamespace(is_world_process_zero=True)
    for step in range(1, 17):
        few = step > 8
        metrics = {"groups/all_refuse": 0.125 if few else 0.5, "groups/all_spam": 0.25 if few else 0.0}
        told.on_rollouts(
            None, state, SimpleNamespace(step=step, rewards_PG=np.zeros((8, 4)), metrics=metrics)
        )
    lines = text.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("step 8: in 32 of the last 64 groups every rollout says that nothing is there")
    assert lines[1].startswith("step 16: in 16 of the last 64 groups every rollout gives more than twice")


# --- pages ---


def test_a_page_shows_every_box_and_refusals(tmp_path: Path) -> None:
    def rollouts(sample: GroundingSample, *answers: str) -> list[Rollout]:
        readings = [read(thinking(answer), Asked.of(sample)) for answer in answers]
        earned = {"set_f1_reward": 0.5, "image_reward": float("nan")}
        return [Rollout(each, 9, score(sample, each), earned, 0.1) for each in readings]

    images = [Image.new("RGB", (40, 30)) for _ in range(3)]
    pair = make([LEFT, RIGHT, (0.1, 0.1, 0.2, 0.2)], [0, 2, 2])
    groups = [
        Group(pair, images, 1.5, rollouts(pair, f"Image-1: {L}; Image-3: {R}; Image-2: (0,0),(9,9)", "none")),
        Group(ABSENT, images, 1.0, rollouts(ABSENT, "none", f"Image-2: {L}")),
    ]
    frames = groups[0].frames()
    assert [len(frame["truths"]) for frame in frames] == [1, 0, 2]
    assert [[box["number"] for box in frame["boxes"]] for frame in frames] == [[0], [0], [0]]
    page = RolloutPages(tmp_path).write(1, groups, {"groups/all_refuse": 0.0}).read_text()
    assert page.count('class="truth"') == 3 and len(re.findall(r'class="box b\d', page)) == 4
    assert page.count("says: nothing is there") == 2 and page.count("truth: nothing is there") == 1
    assert "mean soft-F1" in page and "nan" not in page and "–" in page
    assert "groups/all_refuse" in (tmp_path / "index.html").read_text()


# --- a run ---


def test_a_run_on_sets_and_one_box_logs_every_reward(start: Path, sets: Path, tmp_path: Path) -> None:
    """Random weights write no boxes: what counts is that both kinds go through, and that the log is whole."""
    source = DataSource(reader="univg", path=str(sets / "sets.jsonl"), images=str(sets))
    config = GrpoConfig(
        model=str(start),
        data=(source, DataSource(families=("referring", "diff"), image_px=60)),
        rewards={"set_f1": 1.0, "image": 0.5, "format": 1.0},
        max_steps=3,
        prompts_per_step=4,
        rollouts=4,
        micro_batch=8,
        max_completion_tokens=8,
        save_every=9,
        workers=0,
        rollout_page_every=1,
    )
    text = io.StringIO()
    out = train_grpo(config, tmp_path / "run", console=Console(file=text, width=300))
    assert "rewards: set_f1 1.00, image 1.00, format 1.00" in text.getvalue()
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    named = {f"rewards/{name}_reward/mean" for name in ("set_f1", "image", "format")}
    for row in rows:
        assert named | {"groups/all_refuse", "groups/all_spam"} <= set(row)
    assert "| rewards/image_reward/mean |" in (out / "README.md").read_text()
    assert "| nan |" not in (out / "README.md").read_text()
    assert "mean soft-F1" in "".join(page.read_text() for page in (out / "rollouts").glob("step-*.html"))


class Scripted(GroundingGRPOTrainer):
    """Writes `texts` instead of drawing, and keeps what came of them."""

    texts: list[str]
    advantages: list[float]

    def _generate_single_turn(self, prompt_ids: Any, *others: Any, **more: Any) -> Any:
        end = self._tokenizer.eos_token_id
        return [[*self._tokenizer.encode(text), end] for text in self.texts], None

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        output = super()._generate_and_score_completions(inputs)
        self.advantages = output["advantages"].tolist()
        return output


def test_advantages_follow_both_rewards_and_the_weight_of_the_mean_soft_f1(
    start: Path, tmp_path: Path
) -> None:
    """A set on two images, and one on one image, to which the reward of images does not apply."""
    samples = [make([LEFT, RIGHT], [0, 1], images=["a", "b"]), make([LEFT], [0], images=["a"])]
    answers = [
        [f"Image-1: {L}; Image-2: {R}", f"Image-1: {L}", "none", f"Image-2: {L}; Image-1: {R}"],
        [f"Image-1: {L}", "none", "none", "none"],
    ]
    rows = [
        {
            "prompt": render_chat(len(sample.images), sample.query, "set"),
            "images": [Image.new("RGB", (40, 40), (90 * k, 9, 9)) for k in range(len(sample.images))],
            "sample": sample,
        }
        for sample in samples
    ]
    loaded = load(start, dtype="float32", device="cpu")
    arguments = paper_arguments(
        tmp_path, prompts_per_step=2, rollouts=4, processes=1, max_steps=1, shuffle_dataset=False,
        save_strategy="no", reward_weights=[1.0, 0.5], disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    trainer = Scripted(
        loaded.model, [set_f1_reward, image_reward], arguments, rows, processing_class=loaded.processor
    )
    trainer.texts = [thinking(answer) for group in answers for answer in group]
    trainer.train()
    expected = []
    for earned, mean in (([1.5, 2 / 3 + 0.5 * 2 / 3, 0.0, 0.5], (1 + 2 / 3) / 4), ([1.0, 0, 0, 0], 0.25)):
        centred = np.array(earned) - np.mean(earned)
        expected += (np.exp(1 - mean) * centred / (np.std(earned, ddof=1) + 1e-4)).tolist()
    assert sorted(trainer.advantages) == pytest.approx(sorted(expected), abs=1e-4)
    logged = trainer.state.log_history[0]
    assert logged["rewards/set_f1_reward/mean"] == pytest.approx((1 + 2 / 3 + 1) / 8)
    assert logged["rewards/image_reward/mean"] == pytest.approx((1 + 2 / 3 + 0 + 1) / 4)
    assert logged["groups/all_refuse"] == 0
