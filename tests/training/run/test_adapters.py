"""What training with adapters needs of the model that they stand beside."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from runs import QUIET
from univg.config import load_config
from univg.errors import UnivgError
from univg.files import ASSETS
from univg.models import checkpoint
from univg.models.conventions import CONVENTIONS_FILE, write_conventions
from univg.models.loading import load
from univg.models.pixels import PixelBudget
from univg.training.config import GrpoConfig, SftConfig
from univg.training.merging import merge
from univg.training.run import prechecks
from univg.training.run.start import make_lora, mend_adapters

SMALL = (
    *("model=embedded", "lora.r=4", "lora.quantize=nf4", "max_steps=3", "workers=0", "save_every=3"),
    *("data.0.families={referring: 1}", "data.0.image_px=60"),
)


def test_a_frozen_tower_is_not_gone_back_through() -> None:
    """transformers asks for gradients of every embedding, patches included, once adapters meet checkpointing."""
    from peft import get_peft_model

    loaded = load("embedded-base")
    loaded.model.requires_grad_(False)
    model = get_peft_model(loaded.model, make_lora(load_config(SftConfig, overrides=["lora=true"]), loaded))
    model.enable_input_require_grads()
    pixels, grid = torch.zeros(16, 1176), torch.tensor([[1, 4, 4]])

    def encode() -> Any:
        return loaded.model.model.get_image_features(pixels, grid, return_dict=True).pooler_output[0]

    assert encode().requires_grad
    mend_adapters(model)
    assert not encode().requires_grad
    assert loaded.model.get_input_embeddings()(torch.tensor([1])).requires_grad


def test_a_model_without_adapters_is_left_alone() -> None:
    layer = torch.nn.Linear(2, 2)
    mend_adapters(layer)
    assert all(weight.requires_grad for weight in layer.parameters()) and layer(torch.ones(2)).requires_grad


@pytest.mark.parametrize(
    ("keys", "environment", "cause"),
    [
        (
            [],
            {},
            r"lora.quantize: nf4 needs bitsandbytes, which is not installed: pip install 'univg\[train,qlora\]'",
        ),
        ([], {"ACCELERATE_USE_FSDP": "true", "WORLD_SIZE": "2"}, "cannot be divided between processes"),
        (["vllm=server"], {}, "adapters are handed to vLLM in their base"),
    ],
)
def test_what_four_bits_cannot_do_is_said(
    keys: list[str], environment: dict[str, str], cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(GrpoConfig, overrides=[*SMALL, *keys])
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    is_there = "needs bitsandbytes" not in cause
    monkeypatch.setattr(prechecks, "_is_installed", lambda package: is_there)
    with pytest.raises(UnivgError, match=cause):
        prechecks.check_stage(config)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_adapters_learn_beside_a_base_in_four_bits_and_merge(stage: str, tmp_path: Path) -> None:
    """bitsandbytes itself, on whatever this machine has; it has kernels for processors too."""
    pytest.importorskip("bitsandbytes")
    from univg.training.grpo.stage import train_grpo
    from univg.training.sft.stage import train_sft

    out = tmp_path / "run"
    if stage == "sft":
        train_sft(
            load_config(SftConfig, overrides=[*SMALL, "batch=2", "learning_rate=1e-3"]), out, console=QUIET
        )
    else:
        keys = [
            "prompts_per_step=2",
            "rollouts=4",
            "micro_batch=4",
            "max_completion_tokens=24",
            "prompt_style=direct",
            "model=embedded-base",
            "learning_rate=1e-3",
        ]
        train_grpo(load_config(GrpoConfig, overrides=[*SMALL, *keys]), out, console=QUIET)
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and all(row["loss"] == row["loss"] for row in rows)
    if stage == "sft":
        assert rows[-1]["loss"] < 2 * rows[0]["loss"]
    assert checkpoint.is_adapter(out)

    weights = load_file(out / checkpoint.ADAPTER_WEIGHTS_FILE)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert any(weight.any() for name, weight in weights.items() if "lora_B" in name)
    assert not any("visual" in name for name in weights)
    assert "read back, its weights and its answers" in merge(out, tmp_path / "merged")


@pytest.mark.slow
def test_the_language_model_alone_is_in_four_bits() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    whole = load("embedded", dtype="float32", device="cpu")
    packed = load("embedded", dtype="float32", device="cpu", four_bits=True)
    kinds = {name: type(module) for name, module in packed.model.named_modules()}
    found = [name for name, kind in kinds.items() if issubclass(kind, bitsandbytes.nn.Linear4bit)]
    assert len(found) == 7 * 6 and all(".language_model.layers." in name for name in found)
    ids = torch.arange(20, 60)[None]
    with torch.no_grad():
        one, two = (each.model(input_ids=ids).logits for each in (whole, packed))
    assert 0.001 < float((one - two).norm() / one.norm()) < 0.5  # rounded to 16 values, and no more than that


@pytest.mark.parametrize("recorded", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_merge_tells_a_style_that_nobody_recorded(
    recorded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*arguments: object) -> None:
        raise UnivgError("far enough")

    base, adapter = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(ASSETS / "tiny-base", base, ignore=shutil.ignore_patterns(CONVENTIONS_FILE))
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    save_file({"nothing": torch.zeros(1)}, adapter / "adapter_model.safetensors")
    if recorded:
        write_conventions(adapter, "direct", PixelBudget())
    monkeypatch.setattr("univg.training.merging._merge_checked", stop)
    with pytest.raises(UnivgError, match="far enough"):
        merge(adapter, tmp_path / "merged")
    told = "note: asked in style think, as qwen2_vl models without univg.json are; univg.json of the merged"
    assert (told in " ".join(capsys.readouterr().err.split())) != recorded
