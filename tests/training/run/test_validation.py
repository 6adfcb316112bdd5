"""Validation: what is held out, the scores of a run on it, the best step, and that learning is as without."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from runs import QUIET, killed_at, same_weights
from univg.config import save_config
from univg.data.dataset import Dataset
from univg.errors import UnivgError
from univg.evaluate.engines import LocalEngine
from univg.evaluate.runner import evaluate
from univg.grounding.samples import GroundingSample, write_jsonl
from univg.models.answering import Decoding
from univg.models.loading import load
from univg.training.config import DataSource, GrpoConfig, LoraSettings, SftConfig, Validation
from univg.training.grpo.stage import train_grpo
from univg.training.run.held_out import hold_out
from univg.training.run.log import read_rows
from univg.training.run.sources import open_sources
from univg.training.run.validation import Scores, list_scores
from univg.training.sft.stage import train_sft
from univg.world import make_sample


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 samples of 12 pictures, two of each; `held.jsonl` asks of four other pictures."""
    folder = tmp_path_factory.mktemp("photographs")
    samples = []
    for i in range(32):
        made = make_sample("referring", "train", 0, i // 2, size=60)
        made.images[0].save(folder / f"{i // 2}.png")
        truth = made.sample
        samples.append(
            GroundingSample(
                (f"{i // 2}.png",), f"{truth.query} ({i})", "referring", truth.boxes, 0, truth.thought
            )
        )
    write_jsonl(folder / "samples.jsonl", samples[:24])
    write_jsonl(folder / "held.jsonl", samples[24:])
    return folder


def source(folder: Path, name: str = "samples.jsonl") -> DataSource:
    return DataSource(reader="univg", path=str(folder / name), images=str(folder))


def held(folder: Path, name: str = "held.jsonl", **values: Any) -> Validation:
    return Validation(path=str(folder / name), images=str(folder), **values)


@pytest.fixture(scope="module")
def config(start: Path, photographs: Path) -> SftConfig:
    return SftConfig(
        model=str(start),
        data=(source(photographs),),
        validation=held(photographs, every=2, max_new_tokens=6),
        prompt_style="direct",
        max_steps=5,
        save_every=2,
        batch=4,
        micro_batch=2,
        learning_rate=1e-2,
        bf16=False,
        workers=0,
    )


def changed(config: Any, **values: Any) -> Any:
    return config.model_copy(update=values)


def unscored(config: SftConfig, **values: Any) -> SftConfig:
    return changed(config, validation=None, keep_checkpoints=9, **values)


@pytest.fixture(scope="module")
def plain(config: SftConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run without validation, and all its checkpoints."""
    return train_sft(unscored(config), tmp_path_factory.mktemp("plain") / "out", console=QUIET)


@pytest.fixture
def ranked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Scores that are given: `ranked({step: Acc@0.5})`; the model answers all the same."""

    def give(by_step: dict[int, float]) -> None:
        from univg.training.run.validation import Validator

        answer = Validator._answer

        def scored(self: Validator) -> dict[str, float]:
            return answer(self) | {"validation/acc_50": by_step[self.trainer.state.global_step]}

        monkeypatch.setattr(Validator, "_answer", scored)

    return give


def test_validation_changes_nothing_of_what_is_learnt_and_is_logged_apart(
    config: SftConfig, plain: Path, tmp_path: Path
) -> None:
    said = io.StringIO()
    scored = train_sft(
        changed(config, validation=changed(config.validation, keep_best=False)),
        tmp_path / "scored",
        console=Console(file=said, width=250),
    )
    assert same_weights(scored, plain)
    rows = read_rows(scored / "log.jsonl")
    assert [each.step for each in list_scores(rows)] == [0, 2, 4, 5]
    drop = {"seconds"}
    steps = [{k: v for k, v in row.items() if k not in drop} for row in rows if "loss" in row]
    assert steps == [
        {k: v for k, v in row.items() if k not in drop} for row in read_rows(plain / "log.jsonl")
    ]
    assert (
        "validation: 8 of 8 questions of" in said.getvalue()
        and "no picture of theirs is trained on" in said.getvalue()
    )
    assert "step 0: validation Acc@0.5" in said.getvalue() and "of 8 answers in" in said.getvalue()
    assert Image.open(scored / "validation.png").size[0] > 500
    assert not (scored / "best").exists() and not (scored / "checkpoint-5" / "best").exists()


def test_scores_are_those_of_univg_evaluate(photographs: Path, config: SftConfig, tmp_path: Path) -> None:
    """The same model, questions, words and judge: the numbers must be the same, too."""
    wanted = held(photographs, every=9, max_new_tokens=24, batch_size=3)
    once = changed(config, model="embedded-base", max_steps=1, batch=1, micro_batch=1, validation=wanted)
    run = train_sft(once, tmp_path / "run", console=QUIET)
    start, last = list_scores(read_rows(run / "log.jsonl"))
    data = Dataset.from_file(photographs / "held.jsonl", "univg", photographs)
    for scores, model in ((start, "embedded-base"), (last, run)):
        engine = LocalEngine(load(model), style="direct")
        rows = evaluate(data, engine, tmp_path / f"{scores.step}", Decoding(max_new_tokens=24)).rows.values()
        assert scores.iou == pytest.approx(sum(row["iou"] for row in rows) / len(rows))
        assert scores.acc_50 == pytest.approx(sum(row["hit_50"] for row in rows) / len(rows))
    assert start.iou > 0.05


def test_the_finished_model_is_the_best_steps_and_a_killed_run_ends_with_the_same(
    config: SftConfig, plain: Path, ranked: Any, tmp_path: Path
) -> None:
    ranked({0: 0.1, 2: 0.4, 4: 0.2, 5: 0.3})
    said = io.StringIO()
    whole = train_sft(config, tmp_path / "whole", console=Console(file=said, width=300))
    assert "best step 2: Acc@0.5 40.0 % (last, step 5: 30.0 %, start model: 10.0 %)" in said.getvalue()
    assert same_weights(whole, plain / "checkpoint-2") and not same_weights(whole, plain)
    assert same_weights(whole / "checkpoint-5", plain)
    assert same_weights(whole / "checkpoint-5" / "best", whole)
    assert "This is the model of step 2" in (whole / "README.md").read_text()
    assert not (whole / "best").exists()

    out = tmp_path / "killed"
    with killed_at(3, config):
        train_sft(config, out, console=QUIET)
    assert same_weights(out / "best", plain / "checkpoint-2"), (
        "the best so far is a model while the run goes on"
    )
    with killed_at(4, config):
        train_sft(config, out, resume=True, console=QUIET)
    train_sft(config, out, resume=True, console=QUIET)
    assert same_weights(out, whole)
    strip = [{k: v for k, v in row.items() if "seconds" not in k} for row in read_rows(out / "log.jsonl")]
    assert strip == [
        {k: v for k, v in row.items() if "seconds" not in k} for row in read_rows(whole / "log.jsonl")
    ]
    again = train_sft(config, out, resume=True, console=QUIET)
    assert same_weights(again, whole), "and when a finished run is resumed"


@pytest.mark.parametrize("stage", ["lora", pytest.param("grpo", marks=pytest.mark.slow)])
def test_the_other_kinds_of_runs_are_scored_and_keep_their_best(
    stage: str, config: SftConfig, photographs: Path, ranked: Any, tmp_path: Path
) -> None:
    ranked({0: 0.1, 1: 0.9, 2: 0.2})
    wanted = held(photographs, every=1, n=3, max_new_tokens=6)
    if stage == "lora":
        lora = changed(config, lora=LoraSettings(r=2), max_steps=2, save_every=1, validation=wanted)
        out = train_sft(lora, tmp_path / "out", console=QUIET)
        assert same_weights(out, out / "checkpoint-1", "adapter_model.safetensors")
        assert not same_weights(out, out / "checkpoint-2", "adapter_model.safetensors")
        return
    grpo = GrpoConfig(
        model=config.model,
        data=config.data,
        validation=wanted,
        prompt_style="direct",
        max_steps=2,
        save_every=1,
        prompts_per_step=2,
        rollouts=2,
        micro_batch=2,
        max_completion_tokens=6,
        learning_rate=1e-2,
        rewards={"tests.training.run.test_validation.spread_reward": 1.0},
        bf16=False,
        workers=0,
        rollout_page_every=0,
    )
    out = train_grpo(grpo, tmp_path / "out", console=QUIET)
    plain = train_grpo(changed(grpo, validation=None), tmp_path / "plain", console=QUIET)
    assert same_weights(out, out / "checkpoint-1") and same_weights(out / "checkpoint-2", plain)
    assert not same_weights(out, plain)
    assert len(list_scores(read_rows(out / "log.jsonl"))) == 3


def spread_reward(completions: Any, **columns: Any) -> list[float]:
    return [float(k) for k in range(len(completions))]


def test_a_share_is_held_out_so_that_no_picture_is_on_both_sides(
    config: SftConfig, photographs: Path
) -> None:
    for share in (0.1, 0.3, 0.5):
        wanted = changed(config, validation=Validation(share=share))
        sources = open_sources(wanted, False)
        taught, found = hold_out(wanted, sources)
        assert found is not None
        asked = {name for item, _ in found.items for name in item.sample.images}
        kept = {name for item in taught[0].data.items() for name in item.sample.images}
        assert asked and not asked & kept and len(asked) + len(kept) == 12
        assert len(found.items) == pytest.approx(share * 24, abs=2) and not found.warnings
        assert found.lines[0].startswith(f"validation: {len(found.items)} of 24 samples")


def test_the_same_picture_under_two_names_is_held_out_once(
    config: SftConfig, photographs: Path, tmp_path: Path
) -> None:
    samples = []
    for k in range(12):
        for copy in ("a", "b"):
            (tmp_path / f"{copy}{k}.png").write_bytes((photographs / f"{k}.png").read_bytes())
            samples.append(
                GroundingSample((f"{copy}{k}.png",), f"Where {k}{copy}?", "referring", [(0, 0, 0.5, 1)], 0)
            )
    write_jsonl(tmp_path / "samples.jsonl", samples)
    wanted = changed(config, data=(source(tmp_path),), validation=Validation(share=0.3))
    taught, found = hold_out(wanted, open_sources(wanted, False))
    assert found is not None
    asked = {name[1:] for item, _ in found.items for name in item.sample.images}
    assert asked and not asked & {name[1:] for item in taught[0].data.items() for name in item.sample.images}


def test_pictures_that_are_trained_on_too_are_told(config: SftConfig, photographs: Path) -> None:
    wanted = changed(config, validation=held(photographs, "samples.jsonl", n=10))
    _, found = hold_out(wanted, open_sources(wanted, False))
    assert (
        found is not None and "10 of 10 questions show a picture that is also trained on" in found.warnings[0]
    )


def test_pictures_in_a_chain_cannot_be_divided_and_that_is_told(
    config: SftConfig, photographs: Path, tmp_path: Path
) -> None:
    chain = [
        GroundingSample((f"{k}.png", f"{k + 1}.png"), "Where?", "diff", [(0, 0, 0.5, 1)], 0, "It is there.")
        for k in range(10)
    ]
    single = GroundingSample(("11.png",), "Where?", "diff", [(0, 0, 0.5, 1)], 0, "It is there.")
    data = DataSource(reader="univg", path=str(tmp_path / "chain.jsonl"), images=str(photographs))
    wanted = changed(config, data=(data,), validation=Validation(share=0.3))
    write_jsonl(tmp_path / "chain.jsonl", [*chain, single])
    _, found = hold_out(wanted, open_sources(wanted, False))
    assert found is not None and "30 % was asked for, but 10 samples hang together" in found.warnings[0]
    write_jsonl(tmp_path / "chain.jsonl", chain)
    with pytest.raises(UnivgError, match=r"validation\.share: no split without a shared picture"):
        hold_out(wanted, open_sources(wanted, False))


def test_questions_without_their_pictures_are_left_out_or_refused(
    config: SftConfig, photographs: Path, tmp_path: Path
) -> None:
    lines = (photographs / "held.jsonl").read_text().splitlines()
    gone = json.loads(lines[0]) | {"images": ["gone.png"]}
    (tmp_path / "some.jsonl").write_text("\n".join([json.dumps(gone), *lines[1:]]) + "\n")
    wanted = changed(
        config, validation=Validation(path=str(tmp_path / "some.jsonl"), images=str(photographs))
    )
    _, found = hold_out(wanted, open_sources(wanted, False))
    assert (
        found is not None
        and len(found.items) == 7
        and "left out for missing pictures: 1" in found.warnings[0]
    )
    nowhere = changed(config, validation=Validation(path=str(tmp_path / "some.jsonl"), images=str(tmp_path)))
    with pytest.raises(UnivgError, match=r"validation\.images: pictures are missing, all"):
        hold_out(nowhere, open_sources(nowhere, False))


def test_of_equal_scores_the_later_is_the_better() -> None:
    found = [Scores(0.4, 0.3, 2), Scores(0.4, 0.35, 4), Scores(0.4, 0.35, 6), Scores(0.3, 0.9, 8)]
    assert max(found).step == 6


def test_a_run_that_is_to_be_longer_is_told_the_line_that_does_it(config: SftConfig, plain: Path) -> None:
    with pytest.raises(UnivgError, match=r"a run keeps its max_steps.*univg sft .*model=.*out max_steps=3$"):
        train_sft(unscored(config, max_steps=8), plain, resume=True, console=QUIET)


@pytest.mark.slow
def test_two_processes_divide_the_questions_and_find_what_one_finds(
    config: SftConfig, photographs: Path, tmp_path: Path
) -> None:
    wanted = held(photographs, n=5, every=1, max_new_tokens=24)
    once = changed(config, model="embedded-base", max_steps=1, batch=2, micro_batch=1, validation=wanted)
    save_config(once, tmp_path / "once.yaml")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "univg", "sft"]
    command += ["--config", str(tmp_path / "once.yaml"), "--out", str(tmp_path / "two")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr[-2000:]
    alone = train_sft(once, tmp_path / "one", console=QUIET)
    one, two = (list_scores(read_rows(out / "log.jsonl")) for out in (alone, tmp_path / "two"))
    assert one[0] == two[0] and [each.step for each in two] == [0, 1]
