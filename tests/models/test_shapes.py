"""Parameters counted from a configuration alone are those of the model that transformers builds of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import transformers
from accelerate import init_empty_weights
from transformers import CONFIG_MAPPING

import families
from univg.errors import UnivgError
from univg.models.checkpoint import locate
from univg.models.families import MODEL_FAMILIES
from univg.models.published import PUBLISHED
from univg.models.shapes import read_shapes, shapes_of

# Counts of the weights that are published.
COUNTS = {
    "Qwen/Qwen2-VL-2B-Instruct": 2_208_985_600,
    "Qwen/Qwen2-VL-7B-Instruct": 8_291_375_616,
    "Qwen/Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "Qwen/Qwen2.5-VL-7B-Instruct": 8_292_166_656,
    "Qwen/Qwen3-VL-2B-Instruct": 2_127_532_032,
    "Qwen/Qwen3-VL-4B-Instruct": 4_437_815_808,
    "Qwen/Qwen3-VL-8B-Instruct": 8_767_123_696,
}
FILES = families.PUBLISHED


def build_empty(config: dict[str, Any]) -> Any:
    """The model on the meta device: shapes without numbers."""
    family = config["model_type"]
    made = CONFIG_MAPPING[family].from_dict(config)
    with init_empty_weights(include_buffers=True):
        return getattr(transformers, MODEL_FAMILIES[family].architecture)._from_config(
            made, dtype=torch.float32
        )


def shrink(config: Any) -> dict[str, Any]:
    """The same widths with two layers each, which are built in no time."""
    made = json.loads(json.dumps(config))
    made.get("text_config", made)["num_hidden_layers"] = 2
    made["vision_config"]["depth"] = 4
    if "deepstack_visual_indexes" in made["vision_config"]:
        made["vision_config"]["deepstack_visual_indexes"] = [1, 3]
    return made


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_as_many_parameters_as_published(name: str) -> None:
    assert read_shapes(name).parameters == COUNTS[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_the_model_on_the_meta_device(name: str) -> None:
    config = shrink(PUBLISHED[name])
    model, shapes = build_empty(config), shapes_of(config)
    assert shapes.vision.parameters == sum(w.numel() for w in model.model.visual.parameters())
    assert shapes.text.parameters == sum(w.numel() for w in model.parameters()) - shapes.vision.parameters
    layers = model.model.language_model.layers
    assert shapes.text.linear == sum(
        m.weight.numel() for m in layers.modules() if isinstance(m, torch.nn.Linear)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_whole_published_models_on_the_meta_device(name: str) -> None:
    assert build_empty(dict(PUBLISHED[name])).num_parameters() == COUNTS[name]


def test_a_checkpoint_in_either_layout() -> None:
    from safetensors import safe_open

    with safe_open(locate("embedded").folder / "model.safetensors", framework="np") as tensors:
        sizes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118
    held = sum(int(torch.Size(size).numel()) for size in sizes)
    assert read_shapes("embedded").parameters == held
    flat = json.loads((locate("embedded").folder / "config.json").read_text())
    nested = CONFIG_MAPPING["qwen2_vl"].from_dict(flat).to_dict()
    assert shapes_of(nested) == shapes_of(flat)


def test_adapters_are_as_many_as_peft_makes() -> None:
    from peft import LoraConfig, get_peft_model

    config = shrink(PUBLISHED["Qwen/Qwen3-VL-2B-Instruct"])
    target = r"(.*\.)?language_model\..*_proj"
    with init_empty_weights():
        model = get_peft_model(build_empty(config), LoraConfig(r=8, target_modules=target))
    learnt = sum(w.numel() for w in model.parameters() if w.requires_grad)
    assert shapes_of(config).text.adapters(8) == learnt
    assert shapes_of(config).text.adapters(8, ("q_proj", "v_proj")) < learnt


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("qwen2_5_vl", "Qwen/Qwen2.5-VL-3B-Instruct"),
        ("qwen3_vl", "Qwen/Qwen3-VL-4B-Instruct"),
        ("qwen2_vl", "Qwen/Qwen2-VL-2B-Instruct"),
    ],
)
def test_the_facts_are_those_of_the_published_files(folder: str, name: str) -> None:
    file = FILES / folder / "config.json"
    if not file.is_file():
        pytest.skip("the published configurations are not here")
    assert shapes_of(json.loads(file.read_text())) == shapes_of(PUBLISHED[name])


@pytest.mark.parametrize(
    ("config", "cause"),
    [
        ({"model_type": "llava"}, "unknown model family 'llava'"),
        ({"model_type": "qwen2_vl"}, "states no sizes"),
    ],
)
def test_other_configurations_are_refused(config: dict[str, Any], cause: str) -> None:
    with pytest.raises(UnivgError, match=cause):
        shapes_of(config)
