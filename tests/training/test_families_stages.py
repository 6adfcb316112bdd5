"""Both stages on tiny checkpoints of the other families: full, LoRA, the families' presets, killed and resumed."""

from __future__ import annotations

import json
from pathlib import Path

import grpo_parts as parts
import pytest
import yaml

import families
from runs import QUIET, killed_at, same_weights
from univg.cli.main import main
from univg.cli.presets import PRESETS
from univg.config import load_config
from univg.models.conventions import write_conventions
from univg.models.families import MODEL_FAMILIES
from univg.models.loading import load
from univg.models.pixels import PixelBudget
from univg.models.tiny import build_tiny
from univg.training.config import DataSource, SftConfig, StageConfig
from univg.training.sft.stage import train_sft


def save_small(name: str, start: Path) -> Path:
    """A checkpoint of another family with the embedded one's few tokens."""
    _, processor = build_tiny(0, pixel_budget=PixelBudget(40 * 40, 84 * 84))
    family = MODEL_FAMILIES[name]
    processor.published_as = family.processor, family.image_processor
    parts.build_family(name, processor).save_pretrained(start)
    processor.save_pretrained(start)
    write_conventions(start, "think", processor.pixel_budget)
    return start


@pytest.mark.slow
@pytest.mark.parametrize("name", parts.OTHER_FAMILIES)
def test_a_run_that_was_killed_ends_with_the_same_weights(name: str, published: Path, tmp_path: Path) -> None:
    start = save_small(name, tmp_path / "start")
    data = DataSource(reader="univg", path=str(published / "samples.jsonl"), images=str(published))
    config = SftConfig(
        model=str(start),
        data=(data,),
        max_steps=3,
        batch=2,
        micro_batch=2,
        save_every=1,
        workers=0,
        learning_rate=1e-3,
    )
    train_sft(config, tmp_path / "whole", console=QUIET)
    with killed_at(2, config):
        train_sft(config, tmp_path / "cut", console=QUIET)
    train_sft(config, tmp_path / "cut", resume=True, console=QUIET)
    assert same_weights(tmp_path / "whole", tmp_path / "cut")
    assert not same_weights(tmp_path / "whole", start)


def test_both_stages_train_a_family_that_writes_pixels(
    published: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Full and with LoRA, from a checkpoint whose oracle reads pixels; the nightly run has all three families."""
    start, family = save_small("qwen2_5_vl", tmp_path / "start"), MODEL_FAMILIES["qwen2_5_vl"]
    data = [{"reader": "univg", "path": str(published / "samples.jsonl"), "images": str(published)}]
    config = {
        "model": str(start),
        "data": data,
        "workers": 0,
        "max_steps": 1,
        "micro_batch": 2,
        "max_tokens": 600,
    }
    stages = {"sft": {"batch": 2}, "grpo": {"prompts_per_step": 1, "rollouts": 2, "max_completion_tokens": 6}}
    for stage, own in stages.items():
        path = tmp_path / f"{stage}.yaml"
        path.write_text(yaml.safe_dump(config | own))
        lora = ["lora=true"] if stage == "grpo" else []
        assert main([stage, "--config", str(path), "--out", str(tmp_path / stage), *lora]) == 0
    told = capfd.readouterr().err
    for line in ("oracle: what is taught reads back", "oracle: ground truth fed back scores 1.0"):
        assert line in told
    assert "a group's prompt and images are encoded once" in told
    saved = json.loads((tmp_path / "sft" / "config.json").read_text())
    assert saved["model_type"] == "qwen2_5_vl" and saved["rope_scaling"]["type"] == "mrope"
    settings = json.loads((tmp_path / "sft" / "preprocessor_config.json").read_text())
    assert settings["processor_class"] == "Qwen2_5_VLProcessor"
    assert load(tmp_path / "grpo").family is family


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_the_stages_take_the_familys_presets(name: str, published: Path, tmp_path: Path) -> None:
    """With all their options, on a tiny checkpoint of the family, one step each."""
    start = families.save_family(tmp_path / "start", name)
    preset = {"qwen2_5_vl": "qwen25-vl-3b-lora", "qwen3_vl": "qwen3-vl-2b-lora"}[name]
    for stage in ("sft", "grpo"):
        source = load_config(PRESETS[f"{preset}-{stage}"], f"{preset}-{stage}")
        assert isinstance(source, StageConfig)
        changes = {"model": start, "data.0.path": published / Path(str(source.data[0].path)).name}
        changes |= {"data.0.images": published, "max_steps": 1, "lora.r": 2, "workers": 0}
        changes |= {"pixel_budget.min_pixels": 3136, "pixel_budget.max_pixels": 6272}
        changes |= {"batch": 2, "micro_batch": 2} if stage == "sft" else {}
        if stage == "grpo":
            changes |= {"prompts_per_step": 1, "rollouts": 2, "micro_batch": 2, "max_completion_tokens": 4}
        given = [f"{key}={value}" for key, value in changes.items()]
        out = tmp_path / stage
        assert main([stage, "--config", f"{preset}-{stage}", "--out", str(out), *given]) == 0
        assert (out / "adapter_model.safetensors").is_file()
