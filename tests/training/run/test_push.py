"""Pushing models to a hub, to a server on loopback that speaks its interface."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from fake_hub import COMMIT, Hub, run, running, univg
from univg.config import save_config
from univg.errors import UnivgError
from univg.models.loading import load
from univg.training.config import DataSource, LoraSettings, SftConfig
from univg.training.run.push import take_push


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running() as hub:
        yield hub


@pytest.fixture
def config(start: Path) -> SftConfig:
    return SftConfig(
        model=str(start),
        data=(DataSource(image_px=60),),
        max_steps=2,
        save_every=1,
        batch=2,
        micro_batch=2,
        bf16=False,
        workers=0,
        trainer={"push_to_hub": True, "hub_model_id": "org/mine"},
    )


def test_the_finished_model_is_pushed_and_nothing_else(hub: Hub, config: SftConfig, tmp_path: Path) -> None:
    save_config(config, tmp_path / "config.yaml")
    out = tmp_path / "runs" / "mine"
    ended = univg(hub, "sft", "--config", str(tmp_path / "config.yaml"), "--out", str(out))
    assert ended.returncode == 0, ended.stderr
    assert f"pushed: {hub.url}/org/mine/commit/{COMMIT}" in ended.stderr
    assert (out / "checkpoint-2").is_dir() and (out / "log.jsonl").is_file()
    assert set(hub.files) == {
        *("model.safetensors", "config.json", "generation_config.json", "univg.json", "README.md"),
        *("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    }
    assert all(content == (out / name).read_bytes() for name, content in hub.files.items())
    commits = [path for path in hub.asked if "/commit/" in path]
    assert hub.asked[0] == "/api/repos/create" and len(commits) == 1, "once, when all is done"
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    for name, content in hub.files.items():
        (fetched / name).write_bytes(content)
    assert load(fetched).prompt_style == "think"


@pytest.mark.slow
def test_a_push_that_fails_costs_nothing_and_says_how_to_do_it_by_hand(
    hub: Hub, config: SftConfig, tmp_path: Path
) -> None:
    save_config(config, tmp_path / "config.yaml")
    out, hub.refusing = tmp_path / "runs" / "mine", True
    ended = univg(hub, "sft", "--config", str(tmp_path / "config.yaml"), "--out", str(out))
    said = ended.stderr.splitlines()[-1]
    assert ended.returncode == 2 and "the model is finished, but was not pushed (" in said
    assert load(out).prompt_style == "think" and not hub.files
    hub.refusing = False
    by_hand = shlex.split(said.partition("push it by hand: ")[2])
    again = run(hub, str(Path(sys.executable).with_name(by_hand[0])), *by_hand[1:])
    assert again.returncode == 0, again.stderr
    assert len(hub.files) == 9 and hub.files["model.safetensors"] == (out / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_an_adapter_is_pushed_and_so_is_what_it_is_merged_to(
    hub: Hub, config: SftConfig, tmp_path: Path
) -> None:
    lora = config.model_copy(
        update={"lora": LoraSettings(r=2), "trainer": {**config.trainer, "hub_revision": "v1"}}
    )
    save_config(lora, tmp_path / "config.yaml")
    out, merged = tmp_path / "lora", tmp_path / "merged"
    ended = univg(hub, "sft", "--config", str(tmp_path / "config.yaml"), "--out", str(out))
    assert ended.returncode == 0, ended.stderr
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md", "univg.json"} <= set(hub.files)
    assert not {"model.safetensors", "log.jsonl"} & set(hub.files)
    assert "/api/models/org/mine/branch/v1" in hub.asked and "/api/models/org/mine/commit/v1" in hub.asked
    card = ModelCard.load(out / "README.md")
    assert card.data.library_name == "peft" and card.data.pipeline_tag == "image-text-to-text"
    hub.files.clear()
    ended = univg(hub, "merge", str(out), "--out", str(merged), "--push-to-hub", "org/merged", "--private")
    assert ended.returncode == 0, ended.stderr
    assert hub.repositories["models/org/merged"] is True
    assert {path.name for path in merged.iterdir()} == set(hub.files) >= {"model.safetensors", "README.md"}
    assert ModelCard.load(merged / "README.md").data.library_name == "transformers"


def test_what_the_hub_refuses_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import TrainingArguments

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, push_to_hub=True)
    with pytest.raises(UnivgError, match=r"trainer.push_to_hub: .* cannot be made \(.*offline") as error:
        take_push(arguments, tmp_path)
    assert "\n" not in str(error.value)
