"""The run: killed and resumed, checked before it starts, stopped where a number is no longer finite."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from runs import QUIET, WEIGHTS, Killed, same_weights
from univg import Grounder
from univg.cli.main import main
from univg.config import save_config
from univg.errors import UnivgError
from univg.training.config import DataSource, GrpoConfig
from univg.training.grpo import rollouts
from univg.training.grpo import stage as grpo
from univg.training.grpo.checks import check_oracle, describe_start
from univg.training.grpo.rewards import RolloutReader, find_rewards
from univg.training.grpo.stage import TrainingRows, train_grpo
from univg.training.run.checkpoints import Checkpoints
from univg.training.run.rows import StageRows
from univg.world import make_sample

REWARDS = """
def letters(completions, **columns):
    '''Random weights write no boxes, but some more letters than others.'''
    return [sum(c.isalpha() for c in each[0]["content"]) / 10 for each in completions]

def broken(completions, **columns):
    return [1.0]
"""


@pytest.fixture
def config(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GrpoConfig:
    """Two updates on the same rollouts in two micro-batches each, so that a checkpoint may fall between."""
    (tmp_path / "letter_rewards.py").write_text(REWARDS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    return GrpoConfig(
        model=str(start),
        data=(DataSource(families=("referring", "diff"), image_px=60),),
        max_steps=6,
        prompts_per_step=2,
        rollouts=4,
        micro_batch=4,
        iterations=2,
        max_completion_tokens=8,
        learning_rate=1e-3,
        rewards={"iou": 1.0, "format": 1.0, "letter_rewards.letters": 0.5},
        save_every=1,
        keep_checkpoints=2,
        workers=0,
    )


@contextmanager
def killed_after(checkpoint: int) -> Iterator[None]:
    """The run ends when this checkpoint is whole."""
    write = Checkpoints.write

    @contextmanager
    def until(self: Checkpoints, args: Any, step: int) -> Iterator[Path]:
        with write(self, args, step) as folder:
            yield folder
        if step == checkpoint:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "write", until)
        with pytest.raises(Killed):
            yield


def test_a_run_killed_and_resumed_ends_with_the_same_weights(config: GrpoConfig, tmp_path: Path) -> None:
    """Killed after an odd step: the next one learns from rollouts that were drawn before the checkpoint."""
    whole = train_grpo(config, tmp_path / "whole", console=QUIET)
    out, file = tmp_path / "killed", tmp_path / "config.yaml"
    save_config(config, file)
    command = ["grpo", "--config", str(file), "--out", str(out)]
    with killed_after(3):
        main(command)
    assert (out / "checkpoint-3" / "rollouts-0.pt").exists() and not (out / "checkpoint-4").exists()
    assert not (out / WEIGHTS).exists()
    assert main([*command, "--resume"]) == 0
    assert same_weights(whole, out)
    one, begun = (load_file(folder / WEIGHTS) for folder in (out, Path(config.model)))
    assert any(not torch.equal(one[name].float(), begun[name].float()) for name in one), (
        "something was learnt"
    )
    rows = [[json.loads(line) for line in (f / "log.jsonl").read_text().splitlines()] for f in (whole, out)]
    for first, second in zip(*rows, strict=True):
        timed = {"seconds", "step_time"}
        assert {k: v for k, v in first.items() if k not in timed} == {
            k: v for k, v in second.items() if k not in timed
        }
    assert rows[0][0]["rewards/letters/mean"] > 0 and rows[0][2]["kl"] > 0


def test_a_checkpoint_between_two_generations_holds_the_rollouts(config: GrpoConfig, tmp_path: Path) -> None:
    out = train_grpo(config.model_copy(update={"max_steps": 3}), tmp_path / "run", console=QUIET)
    assert (out / "checkpoint-3" / "rollouts-0.pt").exists()
    assert not (out / "checkpoint-2" / "rollouts-0.pt").exists()


def test_a_finished_run_answers_and_says_what_it_did(config: GrpoConfig, tmp_path: Path) -> None:
    text = io.StringIO()
    console = Console(file=text, width=400)
    out = train_grpo(
        config.model_copy(update={"max_steps": 2, "iterations": 1}), tmp_path / "run", console=console
    )
    said = text.getvalue()
    assert "oracle: ground truth fed back scores 1.0 on 4 samples" in said
    assert "2 prompts × 4 rollouts a step = 1 process × 2 micro-batches of 4" in said
    assert "start model: format 0.00" in said and "cold start" in said
    assert "memory besides: reference" in said
    drawn = make_sample("diff", index=1, size=60)
    grounding = Grounder.from_pretrained(out).ground(list(drawn.images), drawn.sample.query, max_new_tokens=8)
    assert grounding.model == str(out)
    assert (out / "rollouts" / "index.html").exists()
    row = json.loads((out / "log.jsonl").read_text().splitlines()[0])
    for name in ("iou", "hit_50", "format", "faults/no_answer", "truncated", "kl", "entropy", "groups/hard"):
        assert name in row
    assert {"completions/mean_length", "groups/no_spread", "groups/weight", "reward"} <= set(row)


def test_a_loss_that_is_no_longer_finite_leaves_the_rollouts(config: GrpoConfig, tmp_path: Path) -> None:
    wild = config.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(UnivgError, match=r"step 2: .* holds the batch"):
        train_grpo(wild, tmp_path / "run", console=QUIET)
    saved = next((tmp_path / "run" / "non-finite").glob("*.pt"))
    batch = torch.load(saved, weights_only=False)["batches"][0]
    assert {"completion_ids", "advantages"} <= set(batch)


# --- before the first step ---


def _rows(config: GrpoConfig) -> tuple[TrainingRows, Any]:
    from univg.models.loading import load

    processor = load(config.model).processor
    return TrainingRows(StageRows(config, processor, 8, teach=False)), processor


def test_rollouts_are_drawn_in_parts_of_the_size_asked_for(config: GrpoConfig, tmp_path: Path) -> None:
    """Each rollout has its own random numbers, so that nothing but memory depends on it."""
    short = {"max_steps": 1, "iterations": 1, "rollout_page_every": 0}
    logs = []
    for at_once in (None, 3):
        sizes: list[int] = []
        asked = config.model_copy(update={**short, "rows_at_once": at_once})
        with pytest.MonkeyPatch.context() as patch:

            def draw(*given: Any, real: Any = rollouts.draw, sizes: list[int] = sizes) -> Any:
                sizes.append(len(given[3]))
                return real(*given)

            patch.setattr(rollouts, "draw", draw)
            out = train_grpo(asked, tmp_path / str(at_once), console=QUIET)
        assert sizes == ([8] if at_once is None else [3, 3, 2])
        logs.append(json.loads((out / "log.jsonl").read_text().splitlines()[0]))
    assert logs[0]["completions/mean_length"] == logs[1]["completions/mean_length"]
    assert logs[0]["rewards/letters/mean"] == pytest.approx(logs[1]["rewards/letters/mean"], abs=1e-6)


def test_ground_truth_that_does_not_fit_is_named(config: GrpoConfig) -> None:
    rows, processor = _rows(config)
    rewards = find_rewards({"iou": 1.0, "format": 1.0})
    assert "scores 1.0 on 8 samples" in check_oracle(rows, rewards, RolloutReader(), processor)
    other = RolloutReader(style="think", frame="pixel", resized=lambda size_wh: (60, 60))
    assert "scores 1.0" in check_oracle(rows, rewards, other, processor)

    class Forgetful(RolloutReader):
        def read(self, row: Any, text: str, truncated: bool = False) -> Any:
            return super().read(row, text.replace("</answer>", ""), truncated)

    with pytest.raises(UnivgError, match=r"oracle: .* fault truncated, for sample world#"):
        check_oracle(rows, rewards, Forgetful(), processor)


def test_what_is_wrong_is_told_before_a_model_is_loaded(
    config: GrpoConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpo, "load_start", lambda config: pytest.fail("the model was loaded"))
    for change, message in (
        ({"rewards": {"letter_rewards.leters": 1.0}}, "did you mean 'letters'"),
        ({"rewards": {"no_such_module.x": 1.0}}, "cannot be imported"),
        ({"weighting": "exq"}, "choose from exp, log, none, power"),
    ):
        with pytest.raises(UnivgError, match=message) as caught:
            train_grpo(config.model_copy(update=change), tmp_path / "never", console=QUIET)
        assert "\n" not in str(caught.value)


def test_a_reward_that_fails_on_ground_truth_is_named(config: GrpoConfig, tmp_path: Path) -> None:
    bad = config.model_copy(update={"rewards": {"letter_rewards.broken": 1.0}})
    with pytest.raises(UnivgError, match=r"'letter_rewards.broken' gives 1 values for"):
        train_grpo(bad, tmp_path / "run", console=QUIET)


def test_a_start_model_without_the_format_is_warned_of() -> None:
    good = list(describe_start({"format": 0.9, "iou": 0.3, "truncated": 0.0}))
    bad = list(describe_start({"format": 0.02, "iou": 0.0, "truncated": 0.9}))
    assert len(good) == 1 and len(bad) == 2 and "univg sft" in bad[1][0] and bad[1][1] == "yellow"
