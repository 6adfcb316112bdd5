"""The shipped presets: every one is parsed, and the large ones run shrunk, with every option that a CPU can take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

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


@pytest.mark.parametrize("name", ["zero3", "fsdp2"])
def test_the_launch_configs_are_what_accelerate_reads(name: str) -> None:
    """They need several GPUs to run; here they are read by accelerate and agree with the presets."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.utils import FullyShardedDataParallelPlugin

    file = CONFIGS / "accelerate" / f"{name}.yaml"
    config = load_config_from_file(str(file))
    assert config.num_processes == 8 and config.mixed_precision == "bf16"
    settings = yaml.safe_load(file.read_text())
    if name == "zero3":
        assert (
            str(config.distributed_type).endswith("DEEPSPEED")
            and settings["deepspeed_config"]["zero_stage"] == 3
        )
        return
    assert str(config.distributed_type).endswith("FSDP")
    chosen = settings["fsdp_config"]
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=chosen["fsdp_version"],
        reshard_after_forward=chosen["fsdp_reshard_after_forward"],
        auto_wrap_policy=chosen["fsdp_auto_wrap_policy"].lower(),
        state_dict_type=chosen["fsdp_state_dict_type"],
        cpu_ram_efficient_loading=False,
        transformer_cls_names_to_wrap=chosen["fsdp_transformer_layer_cls_to_wrap"].split(","),
    )
    assert plugin.fsdp_version == 2


def test_the_layers_that_fsdp_wraps_are_the_models(start: Path) -> None:
    chosen = yaml.safe_load((CONFIGS / "accelerate" / "fsdp2.yaml").read_text())["fsdp_config"]
    classes = {type(module).__name__ for module in load(start).model.modules()}
    assert set(chosen["fsdp_transformer_layer_cls_to_wrap"].split(",")) <= classes
