"""Base training: what is learnt from, what is kept, what a killed run loses (nothing)."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from runs import QUIET, WEIGHTS, same_weights
from univg.config import load_config, save_config
from univg.errors import UnivgError
from univg.models.loading import load
from univg.models.tiny import PIXEL_BUDGET, build_tiny
from univg.training.config import Phase, PretrainConfig
from univg.training.pretrain import stage
from univg.training.pretrain.batches import (
    Collator,
    draw_samples,
    phase_at,
    render_dialogue,
    spell_out,
)
from univg.training.pretrain.dense_head import NOTHING, join_targets, make_dense_targets
from univg.training.pretrain.stage import pretrain, rate_at
from univg.world import FAMILIES, Scene, make_sample

SMALL = PretrainConfig(
    phases=(
        Phase(name="one", steps=3, mixture={"referring/describe": 1.0}),
        Phase(name="two", steps=4, mixture={"*/think": 1.0, "diff/direct": 1.0}),
    ),
    batch=4,
    micro_batch=2,
    image_px=60,
    text={
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
    },
    dense_layer=1,
    box_layer=2,
    workers=0,
    save_every=2,
    eval_every=4,
    eval_samples=1,
    card_samples=1,
    bf16=False,
)


@pytest.fixture(scope="module")
def small(start: Path) -> PretrainConfig:
    """SMALL from a checkpoint: no tokenizer has to learn its merges first."""
    return SMALL.model_copy(update={"start": str(start)})


@pytest.fixture(scope="module")
def finished(small: PretrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of `small`."""
    return pretrain(small, tmp_path_factory.mktemp("runs") / "whole", console=QUIET)


def test_a_finished_run_is_a_checkpoint_that_knows_how_it_is_asked(
    small: PretrainConfig, finished: Path
) -> None:
    assert load(finished).prompt_style == "direct"
    weights = load_file(finished / WEIGHTS)
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    assert load_config(PretrainConfig, finished / "pretrain.yaml") == small
    card = (finished / "README.md").read_text()
    assert all(f"| {name} |" in card for name in FAMILIES) and "hidden_size: 48" in card


def test_without_a_start_the_model_is_made_as_the_config_says(tmp_path: Path) -> None:
    one = Phase(name="one", steps=1, mixture={"referring/direct": 1.0})
    out = pretrain(SMALL.model_copy(update={"phases": (one,), "card_samples": 0}), tmp_path, console=QUIET)
    loaded = load(out)
    assert loaded.model.config.get_text_config().hidden_size == 48
    assert loaded.pixel_budget == PIXEL_BUDGET


def test_a_run_interrupted_and_resumed_ends_with_the_same_weights(
    small: PretrainConfig, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truly = stage.update

    def update(*arguments: Any, **settings: Any) -> Any:
        if (tmp_path / "state.pt").exists():
            raise KeyboardInterrupt
        return truly(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "update", update)
        with pytest.raises(KeyboardInterrupt):
            pretrain(small, tmp_path, console=QUIET)
    pretrain(small, tmp_path, resume=True, console=QUIET)
    assert same_weights(finished, tmp_path)


def test_a_run_interrupted_before_it_saved_says_so_and_begins_anew(
    small: PretrainConfig, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truly, taken, said = stage.update, [], io.StringIO()

    def update(*arguments: Any, **settings: Any) -> Any:
        if taken:
            raise KeyboardInterrupt
        taken.append(1)
        return truly(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "update", update)
        with pytest.raises(KeyboardInterrupt):
            pretrain(
                small.model_copy(update={"save_every": 100}), tmp_path, console=Console(file=said, width=200)
            )
    assert "stopped at step 1: no state is saved yet (save_every): start again" in said.getvalue()
    pretrain(small, tmp_path, console=QUIET)
    rows = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    steps = [row["step"] for row in rows if "loss" in row]
    assert steps == list(range(1, len(steps) + 1)), "the log is of the run that the folder holds"
    assert same_weights(finished, tmp_path)


@pytest.mark.slow
def test_a_run_killed_and_resumed_ends_with_the_same_weights(
    small: PretrainConfig, finished: Path, tmp_path: Path
) -> None:
    out, config = tmp_path / "killed", tmp_path / "small.yaml"
    save_config(small, config)
    command = [sys.executable, "-m", "univg", "pretrain", "--config", str(config), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out / "state.pt").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (out / "state.pt").exists() and not (out / WEIGHTS).exists()
    pretrain(small, out, resume=True, console=QUIET)
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in log if "loss" in row]
    assert steps == list(range(1, len(steps) + 1)), "every step is logged, and none twice"
    scored = [row["step"] for row in log if "loss" not in row]
    assert scored and set(scored) < set(steps), "scores on the way stand beside the step's own row"
    assert same_weights(finished, out)


def test_a_run_is_not_overwritten_by_accident(small: PretrainConfig, finished: Path) -> None:
    with pytest.raises(UnivgError, match="--resume"):
        pretrain(small, finished, console=QUIET)


def test_a_state_of_another_config_is_refused_by_name(small: PretrainConfig, finished: Path) -> None:
    other = small.model_copy(update={"lr": 1e-5})
    with pytest.raises(UnivgError, match=r"another config.*lr"):
        pretrain(other, finished, resume=True, console=QUIET)


def test_a_state_of_other_thoughts_is_refused(small: PretrainConfig, finished: Path, tmp_path: Path) -> None:
    state = torch.load(finished / "state.pt", weights_only=True)
    torch.save(state | {"thoughts_version": state["thoughts_version"] - 1}, tmp_path / "state.pt")
    with pytest.raises(UnivgError, match=r"version 1 of the world's thoughts.*version 2.*another --out"):
        pretrain(small, tmp_path, resume=True, console=QUIET)


def test_a_torn_state_is_an_error_that_says_what_to_do(small: PretrainConfig, tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"PK torn")
    with pytest.raises(UnivgError, match=r"cannot be read.*delete it"):
        pretrain(small, tmp_path, resume=True, console=QUIET)


def test_a_loss_that_is_no_longer_finite_stops_the_run(small: PretrainConfig, tmp_path: Path) -> None:
    wild = small.model_copy(update={"matrix_lr": 1e30, "lr": 1e30, "warmup": 0})
    with pytest.raises(UnivgError, match="no longer finite"):
        pretrain(wild, tmp_path, console=QUIET)


def test_only_the_response_is_learnt_and_it_is_the_response() -> None:
    _, processor = build_tiny()
    config = SMALL.model_copy(
        update={"phases": (Phase(name="all", steps=1, mixture={"*/think": 1.0}),), "batch": 20}
    )
    drawn = draw_samples(config, 0)
    expected = sorted(render_dialogue(*pair)[1] + "<|im_end|>" for pair in drawn)
    learnt = []
    for part in Collator(processor).split(drawn, 5):
        assert torch.equal(part.ids_N[part.answered_at_A + 1], part.answers_A)
        learnt += re.findall(r".*?<\|im_end\|>", processor.tokenizer.decode(part.answers_A), re.DOTALL)
        assert part.weight == pytest.approx(float(part.weights_A.sum()))
        image_tokens = part.ids_N == processor.image_token_id
        assert image_tokens.nonzero()[:, 0].tolist() == part.image_at_M.tolist()
        assert len(part.image_at_M) == len(part.dense.place_N2)
    assert sorted(learnt) == expected


def test_a_step_draws_the_same_batch_whenever_it_is_drawn() -> None:
    first, again = draw_samples(SMALL, 5), draw_samples(SMALL, 5)
    assert [(w.sample, s) for w, s in first] == [(w.sample, s) for w, s in again]
    assert [w.sample for w, _ in first] != [w.sample for w, _ in draw_samples(SMALL, 6)]


def test_phases_follow_one_another() -> None:
    assert [phase_at(SMALL, step).name for step in range(7)] == ["one"] * 3 + ["two"] * 4


def test_a_star_stands_for_every_family_and_a_wrong_key_is_named() -> None:
    spelt = spell_out(SMALL.phases[1])
    assert {name for name, style in spelt if style == "think"} == set(FAMILIES)
    assert sum(spelt.values()) == pytest.approx(2.0)
    with pytest.raises(UnivgError, match=r"refering/think.*write family/style"):
        spell_out(Phase(name="p", steps=1, mixture={"refering/think": 1.0}))


@pytest.mark.parametrize(("step", "rate"), [(0, 0.1), (9, 1.0), (50, 1.0), (80, 0.5), (99, 0.025)])
def test_the_rate_warms_up_stays_and_falls(step: int, rate: float) -> None:
    config = SMALL.model_copy(update={"warmup": 10, "decay": 0.4})
    assert rate_at(config, step, 100) == pytest.approx(rate)


def test_a_run_with_a_time_limit_goes_through_its_phases_in_that_time(
    small: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    truly = stage.update

    def update(*arguments: Any) -> Any:
        told = truly(*arguments)
        now[0] += 10.0  # so one minute takes six steps
        return told

    monkeypatch.setattr(stage, "update", update)
    long = [phase.model_copy(update={"steps": 500}) for phase in small.phases]
    limited = small.model_copy(
        update={
            "phases": tuple(long),
            "max_minutes": 1.0,
            "warmup": 0,
            "decay": 1.0,
            "eval_every": 0,
            "card_samples": 0,
        }
    )
    pretrain(limited, tmp_path, console=QUIET)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["phase"] for row in rows] == ["one"] * 3 + ["two"] * 3
    assert [row["rate"] for row in rows] == pytest.approx([1 - i / 6 for i in range(6)], abs=0.002)
    assert (tmp_path / WEIGHTS).exists()
    (tmp_path / WEIGHTS).unlink()
    pretrain(limited, tmp_path, resume=True, console=QUIET)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 6, "its time was up"
    assert (tmp_path / WEIGHTS).exists()


def test_workers_draw_what_the_run_itself_would(
    small: PretrainConfig, finished: Path, tmp_path: Path
) -> None:
    pretrain(small.model_copy(update={"workers": 1, "card_samples": 0}), tmp_path, console=QUIET)
    assert same_weights(finished, tmp_path)


def test_dense_targets_say_which_thing_a_token_covers() -> None:
    shot = make_sample("referring", "train", 0, 1, difficulty=0.0, version=1).shots[0]
    assert isinstance(shot, Scene)
    targets = join_targets([make_dense_targets(shot, 6, 6)])
    for thing in shot.things:
        x1, y1, x2, y2 = shot.box(thing)
        column, row = int((x1 + x2) / 2 * 6), int((y1 + y2) / 2 * 6)
        assert targets.box_N4[row * 6 + column].tolist() == pytest.approx([x1, y1, x2, y2])
    empty = targets.colour_N == NOTHING
    assert empty.any() and bool(targets.box_N4[empty].isnan().all())
    assert targets.on_at.tolist() == (~empty).nonzero()[:, 0].tolist()
    assert not len(join_targets([make_dense_targets(None, 2, 3)]).known_at)


def test_a_layer_the_model_lacks_is_named_before_training(small: PretrainConfig, tmp_path: Path) -> None:
    with pytest.raises(UnivgError, match="box_layer=5: the text model has 2 layers"):
        pretrain(small.model_copy(update={"box_layer": 5}), tmp_path, console=QUIET)
