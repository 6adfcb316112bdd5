"""What `univg fit` estimates, beside what autograd keeps and peaks that were measured; what it advises."""

from __future__ import annotations

import importlib.util
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from univg.cli.presets import PRESETS
from univg.config import load_config
from univg.errors import UnivgError
from univg.models.devices import Device
from univg.models.families import MODEL_FAMILIES
from univg.models.memory import GIB, Asked
from univg.models.shapes import read_shapes, shapes_of
from univg.training import room
from univg.training.config import GrpoConfig, SftConfig
from univg.training.memory import Machine, _Run, asked_by, estimate_training, saved, sharding_of
from univg.training.room import advise, check_room

ROOT = Path(__file__).parents[2]
SEVEN_B, TWO_B = "Qwen/Qwen2-VL-7B-Instruct", "Qwen/Qwen2-VL-2B-Instruct"

# Peaks of one H100, in GB of torch.cuda.max_memory_allocated (docs/experiments.md, section 11).
ON_A_GPU: list[tuple[str, list[str], float]] = [
    ("grpo", ["micro_batch=2"], 39.9),
    ("grpo", ["micro_batch=8"], 40.2),
    ("grpo", ["micro_batch=8", "lora.r=64", "max_tokens=4096"], 6.9),
    ("sft", ["micro_batch=1"], 32.1),
]


def read(stage: str, *keys: str) -> Any:
    return load_config(SftConfig if stage == "sft" else GrpoConfig, overrides=keys)


@pytest.mark.parametrize(("stage", "keys", "gigabytes"), ON_A_GPU, ids=lambda x: str(x))
def test_peaks_of_a_gpu_are_estimated_within_a_fifth(stage: str, keys: list[str], gigabytes: float) -> None:
    batch = ["batch=8"] if stage == "sft" else ["prompts_per_step=2", "rollouts=8"]
    config = read(stage, f"model={TWO_B}", *batch, "gradient_checkpointing=true", "max_tokens=6000", *keys)
    asked = Asked(4, 401408, answer=256 if stage == "grpo" else 100)
    estimate = estimate_training(config, read_shapes(TWO_B), Machine("cuda", True), asked)
    assert estimate.total / 1e9 == pytest.approx(gigabytes, rel=0.2), dict(estimate.parts)


def keep_tokens(family: str, layers: int, lora: bool, autocast: bool) -> tuple[float, Any]:
    """The bytes that autograd keeps of a token in a text model of so many layers, weights left out; and its config."""
    import transformers
    from transformers import CONFIG_MAPPING

    head, tokens = 32, 250
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]}
    text: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": layers}
    text |= {"num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 64}
    text |= {"bos_token_id": None, "eos_token_id": None, "rope_parameters": rope}
    vision: dict[str, Any] = {"depth": 1, "num_heads": 2, "hidden_size": 64}
    if family == "qwen3_vl":
        text["head_dim"], rope["mrope_interleaved"] = head, True
        vision |= {"out_hidden_size": 256, "intermediate_size": 64, "deepstack_visual_indexes": []}
    else:
        vision |= {"embed_dim": 64, "hidden_size": 256}
    config = CONFIG_MAPPING[family](text_config=text, vision_config=vision)
    dtype = torch.bfloat16 if lora and autocast else torch.float32
    model = getattr(transformers, MODEL_FAMILIES[family].architecture)._from_config(config, dtype=dtype)
    plain = model
    if lora:
        from peft import LoraConfig, get_peft_model

        target = r"(.*\.)?language_model\..*_proj"
        model = get_peft_model(model, LoraConfig(r=2, target_modules=target))
        plain.model.language_model.embed_tokens.register_forward_hook(lambda *a: a[2].requires_grad_(True))
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in weights and tokens in tensor.shape:  # casts of weights have no axis of tokens
            kept[address] = tensor
        return tensor

    casting = torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), casting:
        ids = torch.zeros(1, tokens, dtype=torch.long)
        plain.model.language_model(inputs_embeds=plain.get_input_embeddings()(ids), use_cache=False)
    return sum(each.untyped_storage().nbytes() for each in kept.values()) / tokens, config


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bf16"])
def test_what_a_layer_keeps_is_what_autograd_keeps(family: str, lora: bool, autocast: bool) -> None:
    (two, _), (three, config) = (keep_tokens(family, layers, lora, autocast) for layers in (2, 3))
    keys = ["lora.r=2"] if lora else []
    stage = read("grpo", *keys, f"bf16={str(autocast).lower()}")
    run = _Run(stage, shapes_of(config.to_dict()), Machine("cpu", autocast), Asked(1, 784))
    assert saved(run) == pytest.approx(three - two, rel=0.06)


@settings(max_examples=40, deadline=None)
@given(
    micro=st.integers(1, 8),
    checkpointing=st.booleans(),
    lora=st.booleans(),
    images=st.integers(1, 8),
    model=st.sampled_from([TWO_B, SEVEN_B, "Qwen/Qwen3-VL-8B-Instruct", "embedded"]),
)
def test_more_never_takes_less(micro: int, checkpointing: bool, lora: bool, images: int, model: str) -> None:
    keys = [f"gradient_checkpointing={str(checkpointing).lower()}", *(["lora.r=8"] if lora else [])]
    shapes = read_shapes(model)

    def total(micro: int, images: int, processes: int = 1, sharding: Any = "none") -> int:
        config = read("sft", *keys, "batch=5040", f"micro_batch={micro}")
        machine = Machine("cuda", True, processes, sharding)
        return estimate_training(config, shapes, machine, Asked(images, 200704)).total

    assert total(micro, images) <= total(micro + 1, images)
    assert total(micro, images) <= total(micro, images + 1)
    if not lora and model in (SEVEN_B, "Qwen/Qwen3-VL-8B-Instruct"):  # of small ones what is gathered is most
        assert total(micro, images, 8, "zero3") < total(micro, images, 8, "zero2") < total(micro, images)


def test_adapters_take_less_than_all_weights_and_four_bits_less_than_both() -> None:
    totals = []
    for keys in ([], ["lora.r=16"], ["lora.r=16", "lora.quantize=nf4"]):
        config = read("grpo", f"model={SEVEN_B}", *keys)
        totals.append(estimate_training(config, read_shapes(SEVEN_B), Machine(), asked_by(config)).total)
    assert totals[0] > 3 * totals[1] > 4 * totals[2]


@pytest.mark.parametrize("stage", ["sft", "grpo"])
@pytest.mark.parametrize("memory", [10, 16, 24])
def test_what_is_advised_can_be_written_and_fits(stage: str, memory: int) -> None:
    config = read(stage, f"model={SEVEN_B}", "micro_batch=8")
    shapes, machine, asked = read_shapes(SEVEN_B), Machine(), asked_by(config)
    changes = list(advise(config, shapes, machine, asked, memory * GIB))
    assert [total for _, total in changes] == sorted((total for _, total in changes), reverse=True)
    assert changes[-1][1] <= memory * GIB or memory == 10
    written = [name.strip("'") for name, _ in changes]
    again = read(stage, f"model={SEVEN_B}", "micro_batch=8", *written)
    assert estimate_training(again, shapes, machine, asked_by(again)).total == changes[-1][1]


def test_a_run_that_cannot_fit_is_refused_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Device("cuda", "Tesla T4", 15 * GIB, 15 * GIB, bf16=False)
    monkeypatch.setattr(room, "find_devices", lambda: [card])
    config = read("sft", f"model={SEVEN_B}")
    with pytest.raises(
        UnivgError, match=r"memory: this run takes about 124.8 GiB .* and Tesla T4 has 15.0 GiB"
    ) as told:
        check_room(config)
    assert "lora.r=16 lora.quantize=nf4" in told.value.remedy and "check_memory=false" in told.value.remedy
    check_room(read("sft", f"model={SEVEN_B}", "check_memory=false"))


@pytest.mark.parametrize("name", ["tiny-sft", "tiny-grpo", "tiny-r1", "sets-sft", "photos-sft"])
def test_small_presets_are_not_refused_on_small_machines(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    laptop = Device("cpu", "a laptop", 4 * GIB, GIB // 2, bf16=False)
    monkeypatch.setattr(room, "find_devices", lambda: [laptop])
    config: Any = load_config(PRESETS[name], name)
    assert config.model.startswith("embedded") and config.check_memory
    check_room(config)


def test_what_may_be_too_much_for_now_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = Device("cpu", "a busy machine", 200 * GIB, 20 * GIB, bf16=False)
    monkeypatch.setattr(room, "find_devices", lambda: [busy])
    monkeypatch.setattr(room, "_told", set())
    for _ in range(2):
        check_room(read("sft", f"model={TWO_B}"))
    said = capsys.readouterr().err
    assert said.count("memory may be short: this run takes about") == 1 and "20.0 GiB free" in said


ACCELERATE = ("USE_FSDP", "USE_DEEPSPEED", "DEEPSPEED_ZERO_STAGE", "DEEPSPEED_CONFIG_FILE")


def _launch(monkeypatch: pytest.MonkeyPatch, processes: int, **accelerate: str) -> None:
    for name in ACCELERATE:
        monkeypatch.delenv(f"ACCELERATE_{name}", raising=False)
    for name, value in accelerate.items():
        monkeypatch.setenv(f"ACCELERATE_{name}", value)
    monkeypatch.setenv("WORLD_SIZE", str(processes))


def test_runs_are_judged_as_they_are_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the presets for 8 cards of 80 GB, launched by a file of DeepSpeed's own settings as by accelerate's."""
    card = Device("cuda", "a card", 80 * 10**9, 80 * 10**9, bf16=True)
    monkeypatch.setattr(room, "find_devices", lambda: [card])
    monkeypatch.setattr(room, "_told", set())
    file = tmp_path / "zero3.json"
    file.write_text('{"zero_optimization": {"stage": 3}}')
    config: Any = load_config(PRESETS["qwen2-vl-7b-sft"], "qwen2-vl-7b-sft")
    _launch(monkeypatch, 8, USE_DEEPSPEED="true", DEEPSPEED_CONFIG_FILE=str(file))
    check_room(config)
    assert sharding_of(config) == "zero3"
    _launch(monkeypatch, 1, USE_FSDP="true")  # accelerate divides nothing there
    assert sharding_of(config) == "none"
    with pytest.raises(UnivgError, match="memory: this run takes about"):
        check_room(config)
    config.trainer["deepspeed"] = {"zero_optimization": {"stage": 2}}
    _launch(monkeypatch, 8)
    assert sharding_of(config) == "zero2"


def test_what_is_offloaded_is_said_and_not_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = Device("cuda", "a card", 24 * GIB, 24 * GIB, bf16=True)
    monkeypatch.setattr(room, "find_devices", lambda: [card])
    monkeypatch.setattr(room, "_told", set())
    _launch(monkeypatch, 2)
    config = read("sft", f"model={SEVEN_B}")
    config.trainer["deepspeed"] = {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}}}
    check_room(config)
    assert "what is offloaded is counted as if it were not" in capsys.readouterr().err
    del config.trainer["deepspeed"]["zero_optimization"]["offload_optimizer"]
    with pytest.raises(UnivgError, match="memory: this run takes about"):
        check_room(config)


def test_what_fits_with_one_picture_a_row_is_not_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(room, "_told", set())
    config, shapes = read("sft", f"model={TWO_B}", "micro_batch=8", "lora.r=8"), read_shapes(TWO_B)
    one, two = (
        estimate_training(config, shapes, Machine(), asked_by(config, images=count)).total for count in (1, 2)
    )
    memory = int(one / room.REFUSED_ABOVE) + GIB // 100
    assert two > room.REFUSED_ABOVE * memory
    card = Device("cuda", "a card", memory, memory, bf16=True)
    monkeypatch.setattr(room, "find_devices", lambda: [card])
    check_room(config)
    assert "memory may be short" in capsys.readouterr().err


def test_the_table_of_presets_is_what_is_estimated() -> None:
    spec = importlib.util.spec_from_file_location("make_memory", ROOT / "docs" / "make_memory.py")
    assert spec is not None and spec.loader is not None
    made: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    text = (ROOT / "docs" / "training.md").read_text()
    assert "\n".join(made.write_rows()) in text, "run python docs/make_memory.py"
