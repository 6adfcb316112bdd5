"""The shipped presets: every one is parsed, and the large ones run shrunk, with every option that a CPU can take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from sharded_on_cpu import read_environment

from runs import QUIET
from univg.cli.presets import PRESETS
from univg.config import load_config
from univg.models.loading import load
from univg.training.config import GrpoConfig, SftConfig, StageConfig

CONFIGS = Path(__file__).parents[2] / "configs"
SHRUNK = {"pixel_budget.min_pixels": 400, "pixel_budget.max_pixels": 3600, "max_steps": 2, "save_every": 1}


def shrunk(name: str, start: Path, published: Path, **values: Any) -> Any:
    """The preset with its own options, on the small model, a few samples of the preset's own format, two steps."""
    preset = load_config(PRESETS[name], name)
    assert isinstance(preset, StageConfig)
    data = {"data.0.path": published / Path(str(preset.data[0].path)).name, "data.0.images": published}
    changes = {"model": start, **data, **SHRUNK, **values}
    return load_config(PRESETS[name], name, [f"{key}={value}" for key, value in changes.items()])


@pytest.mark.parametrize("name", [name for name in PRESETS if name.endswith(("sft", "grpo"))])
def test_every_preset_is_parsed_and_says_its_stage(name: str) -> None:
    config = load_config(PRESETS[name], name)
    assert isinstance(config, SftConfig if name.endswith("sft") else GrpoConfig)
    assert (config.lora is not None) == ("lora" in name)


def test_the_papers_stages_are_the_papers() -> None:
    """Its recipe on 8 GPUs: batch 1 x 3 x 8, then 16 prompts of 8 rollouts."""
    sft = load_config(SftConfig, "qwen2-vl-7b-sft")
    assert (sft.batch, sft.micro_batch, sft.learning_rate, sft.warmup_ratio) == (24, 1, 5e-6, 0.015)
    assert sft.batch % (8 * sft.micro_batch) == 0
    assert (sft.epochs, sft.max_tokens, sft.freeze_vision, sft.lora) == (1, 6000, True, None)
    assert sft.trainer["lr_scheduler_type"] == "cosine"
    grpo = load_config(GrpoConfig, "qwen2-vl-7b-grpo")
    assert (grpo.prompts_per_step, grpo.rollouts, grpo.learning_rate, grpo.beta) == (16, 8, 1e-6, 0.04)
    assert (grpo.weighting, grpo.loss_type, grpo.iterations, grpo.temperature) == ("exp", "grpo", 1, 1.0)
    assert grpo.rewards == {"iou": 1.0, "format": 1.0} and grpo.trainer["epsilon"] == 0.2
    budget = grpo.pixel_budget
    assert budget is not None and (budget.min_pixels, budget.max_pixels) == (3136, 401408)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        pytest.param("qwen2-vl-7b-sft", {"batch": 3, "workers": 2}, marks=pytest.mark.slow),
        ("qwen2-vl-2b-lora-sft", {"batch": 4, "lora.r": 4}),
    ],
)
def test_the_presets_of_stage_1_run_shrunk(
    name: str, changes: dict[str, Any], start: Path, published: Path, tmp_path: Path
) -> None:
    from univg.training.sft.stage import train_sft

    config = shrunk(name, start, published, **changes)
    assert config.bf16 and config.gradient_checkpointing and config.freeze_vision
    out = train_sft(config, tmp_path / "out", console=QUIET)
    assert load(out).pixel_budget.max_pixels == 3600
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert len(rows) == 2 and all(row["loss"] > 0 for row in rows)


@pytest.mark.parametrize(
    "name", [pytest.param("qwen2-vl-7b-grpo", marks=pytest.mark.slow), "qwen2-vl-2b-lora-grpo"]
)
def test_the_presets_of_stage_2_run_shrunk(name: str, start: Path, published: Path, tmp_path: Path) -> None:
    from univg.training.grpo.stage import train_grpo

    changes = {"prompts_per_step": 2, "rollouts": 4, "max_completion_tokens": 8, "rollout_page_every": 1}
    if "lora" in name:
        changes["lora.r"] = 4
    out = train_grpo(shrunk(name, start, published, **changes), tmp_path / "out", console=QUIET)
    assert load(out).pixel_budget.max_pixels == 3600


@pytest.mark.parametrize("name", ["qwen2-vl-7b-grpo", "qwen2-vl-2b-lora-grpo", "tiny-grpo", "tiny-r1"])
def test_a_micro_batch_of_the_presets_of_stage_2_holds_whole_groups(name: str) -> None:
    """Else a group's prompt, thousands of tokens of pictures, is encoded anew for each of its parts."""
    config = load_config(GrpoConfig, name)
    assert config.micro_batch % config.rollouts == 0


@pytest.mark.parametrize("name", ["zero2", "zero3", "fsdp2"])
def test_the_launch_configs_are_what_accelerate_makes_of_them(name: str) -> None:
    """They need several GPUs to run as they stand; here accelerate's own launcher reads them."""
    file = CONFIGS / "accelerate" / f"{name}.yaml"
    assert yaml.safe_load(file.read_text())["num_processes"] == 8
    found = read_environment(name)
    assert found["ACCELERATE_MIXED_PRECISION"] == "bf16"
    if name == "fsdp2":
        assert found["ACCELERATE_USE_FSDP"] == "true" and found["FSDP_VERSION"] == "2"
        assert found["FSDP_STATE_DICT_TYPE"] == "FULL_STATE_DICT", "checkpoints that load as models"
        assert "FSDP_TRANSFORMER_CLS_TO_WRAP" not in found, "of each family, those that the model names"
    else:
        assert found["ACCELERATE_USE_DEEPSPEED"] == "true"
        assert found["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == name.removeprefix("zero")
        gathers = found.get("ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL") == "true"
        assert gathers == (name == "zero3"), "checkpoints that load as models"


def test_fsdp_divides_by_layers_of_both_towers(start: Path) -> None:
    assert set(load(start).model._no_split_modules) == {"Qwen2VLDecoderLayer", "Qwen2VLVisionBlock"}
