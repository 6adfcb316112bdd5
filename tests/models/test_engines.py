"""A checkpoint of ours is a Qwen2-VL to programs that know nothing of univg: vLLM and plain transformers answer alike.

Those with the engines themselves are `slow`, and in an environment of its own: see `vllm_engine`.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoTokenizer, Qwen2VLConfig

import make_vllm
from univg.models import checkpoint
from univg.models.generation.generate import Chat, encode, generate
from univg.models.layout import publish_layout
from univg.models.loading import Loaded, load
from univg.models.tiny import PATCH_SIZE, build_tiny, rotary_sections, save_tiny
from univg.world import FAMILIES, make_sample
from vllm_engine import answer_jobs, leave_marks_out

SAMPLES, LONGEST = 100, 160


# --- the layout ---


def read(folder: Path, name: str = "config.json") -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return settings


def test_the_settings_are_where_other_programs_look_for_them(saved: Path) -> None:
    config = read(saved)
    assert config["rope_scaling"] == {"type": "mrope", "mrope_section": rotary_sections(64)}
    assert len(config["rope_scaling"]["mrope_section"]) == 3  # vLLM's and SGLang's kernels take no more
    assert (
        config["architectures"] == ["Qwen2VLForConditionalGeneration"] and config["model_type"] == "qwen2_vl"
    )
    wanted = {
        "patch_size": PATCH_SIZE,
        "in_chans": 3,
        "in_channels": 3,
        "spatial_merge_size": 2,
        "hidden_size": 256,
    }
    assert config["vision_config"].items() >= wanted.items()
    assert not {"text_config", "rope_parameters", "auto_map"} & set(config)
    assert {"rope_parameters", "model_type"}.isdisjoint(config["vision_config"])
    heads = (
        config["hidden_size"] // config["num_attention_heads"],
        160 // config["vision_config"]["num_heads"],
    )
    assert heads == (64, 80)  # sizes that flash attention, FlashInfer and vLLM's kernel for CPUs all have
    assert config["tie_word_embeddings"] is True and config["torch_dtype"] == config["dtype"] == "float32"
    defaults = read(saved, "generation_config.json")
    assert (defaults["top_k"], defaults["eos_token_id"]) == (
        1,
        [config["eos_token_id"], config["pad_token_id"]],
    )
    assert isinstance(read(saved, "tokenizer_config.json")["additional_special_tokens"], list)
    images = read(saved, "preprocessor_config.json")
    assert images["patch_size"] * images["merge_size"] == 28  # what SGLang and qwen-vl-utils resize to
    assert (images["processor_class"], images["image_processor_type"]) == (
        "Qwen2VLProcessor",
        "Qwen2VLImageProcessor",
    )


def test_a_saved_model_is_read_back_as_it_was(tiny: Loaded, saved: Path) -> None:
    again, before = Qwen2VLConfig.from_pretrained(saved), tiny.model.config
    assert (
        again.text_config.rope_parameters["mrope_section"]
        == before.text_config.rope_parameters["mrope_section"]
    )
    assert again.text_config.rope_parameters["rope_theta"] == before.text_config.rope_parameters["rope_theta"]
    assert again.vision_config.rope_parameters == before.vision_config.rope_parameters
    elsewhere = {"rope_parameters", "dtype", "architectures", "transformers_version", "tie_word_embeddings"}
    ours, theirs = before.text_config.to_dict(), again.text_config.to_dict()
    assert {key: theirs[key] for key in set(ours) - elsewhere} == {
        key: ours[key] for key in set(ours) - elsewhere
    }
    once = (saved / "config.json").read_bytes()
    publish_layout(saved)
    assert (saved / "config.json").read_bytes() == once


NESTED: Mapping[str, Any] = {
    "model_type": "qwen2_vl",
    "text_config": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    },
    "vision_config": {"in_channels": 3, "patch_size": 14},
}


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "qwen2_5_vl_text"},
        {"text_config": None},
        {"text_config": {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3] * 3}}},
        {"text_config": {"rope_parameters": {"rope_type": "yarn", "mrope_section": [16, 24, 24]}}},
        {"text_config": {"rope_parameters": {"rope_type": "default"}}},
        {"vision_config": {"rope_parameters": {"rope_theta": 100.0}, "in_channels": 3, "patch_size": 10}},
    ],
    ids=["another family", "flat", "nine sections", "scaled", "no sections", "another vision base"],
)
def test_what_the_published_layout_cannot_say_stays_as_it_is(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text := json.dumps({**NESTED, **change}))
    publish_layout(tmp_path)
    assert path.read_text() == text
    path.write_text(json.dumps(NESTED))
    publish_layout(tmp_path)
    assert read(tmp_path)["rope_theta"] == 1e6


def test_a_checkpoint_is_for_others_too(tiny: Loaded, tmp_path: Path) -> None:
    batch = tiny.processor(text=["a", "a red disc"], padding=True, truncation=True, max_length=8)
    assert len({len(ids) for ids in batch["input_ids"]}) == 1
    save_tiny(tiny.model, tiny.processor, tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o644
    tokenizer = read(tmp_path, "tokenizer.json")
    assert (tokenizer["padding"], tokenizer["truncation"]) == (None, None)
    again = tiny.processor(text=["a", "a red disc"], padding=True)
    assert len({len(ids) for ids in again["input_ids"]}) == 1


def test_a_checkpoint_is_small() -> None:
    model, _ = build_tiny(text={"vocab_size": 1024})
    assert sum(weight.numel() for weight in model.parameters()) * 2 < 15.5e6


def test_what_is_put_right_in_the_engines_environment(tmp_path: Path) -> None:
    package = tmp_path / "__init__.py"
    package.write_text("from torchvision import (\n    _meta_registrations,\n    io,\n)\n")
    make_vllm.leave_operators_out(package)
    make_vllm.name_vllm(tmp_path)
    assert package.read_text() == "from torchvision import (\n    io,\n)\n"
    [found] = importlib.metadata.distributions(path=[str(tmp_path)])
    assert (found.name, found.version) == ("vllm", f"{make_vllm.VLLM}+cpu")


# --- the engines ---


@dataclass(frozen=True)
class Asked:
    """A checkpoint, the questions put to it, and univg's own answers."""

    folder: Path
    jobs: Path
    texts: list[str]


def ask(folder: Path, tmp_path: Path, count: int, limit: int) -> Asked:
    """Draw `count` questions over the world's families, with pictures of several sizes, and answer them by univg."""
    loaded = load(folder, dtype="float32", device="cpu")
    chats, jobs = [], []
    for index in range(count):
        family = list(FAMILIES)[index % len(FAMILIES)]
        drawn = make_sample(family, "test", seed=11, index=index, size=(196, 252, 336)[index % 3])
        chat = Chat.ask(drawn.images, drawn.sample.query, loaded.prompt_style)
        paths = [tmp_path / f"{index}-{place}.png" for place in range(len(drawn.images))]
        for image, path in zip(drawn.images, paths, strict=True):
            image.save(path)
        text = chat.messages[0]["content"][-1]["text"]
        jobs.append({"images": [str(path) for path in paths], "text": text, "tokens": limit})
        chats.append(chat)
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    answers = generate(loaded, chats, max_new_tokens=limit)
    return Asked(folder, tmp_path / "jobs.json", [leave_marks_out(answer.text) for [answer] in answers])


def answer(engine: str, asked: Asked) -> list[str]:
    """Return another engine's answers; skips the test where it is not installed."""
    [texts] = answer_jobs(engine, [asked.folder], asked.jobs, asked.jobs.with_name(f"{engine}.log"))
    return texts


@pytest.fixture(scope="module")
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    folder = checkpoint.locate(request.param).folder
    if "rope_scaling" not in read(folder):
        pytest.skip(f"{request.param} has rotary sections that only transformers knows")
    return ask(folder, tmp_path_factory.mktemp(request.param), SAMPLES, LONGEST)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "engine"),
    [("embedded", "transformers"), ("embedded-base", "transformers"), ("embedded-base", "vllm")],
    indirect=["asked"],
)
def test_another_engine_writes_the_same_texts(engine: str, asked: Asked) -> None:
    """With the checkpoint's own defaults, and nothing that univg adds (`tests/serve/test_vllm_engine.py` has that)."""
    theirs = answer(engine, asked)
    differing = [pair for pair in zip(asked.texts, theirs, strict=True) if pair[0] != pair[1]]
    assert len(set(theirs)) > SAMPLES // 2 and not differing, (
        f"{len(differing)} of {SAMPLES}: {differing[:3]}"
    )


def test_plain_transformers_answers_as_univg(saved: Path, tmp_path: Path) -> None:
    """With our processor's tensors, since its own processor needs torchvision."""
    loaded, model = (
        load(saved, dtype="float32", device="cpu"),
        AutoModelForImageTextToText.from_pretrained(saved),
    )
    drawn = make_sample("multi_view", "test", size=100)
    chat = Chat.ask(drawn.images, drawn.sample.query)
    prompt = loaded.processor.apply_chat_template(
        list(chat.messages), tokenize=False, add_generation_prompt=True
    )
    inputs = encode(loaded, [chat], [str(prompt)])
    with torch.no_grad():
        theirs = model.eval()(**inputs).logits[0, -1]
        ours = loaded.model(**inputs).logits[0, -1]
    assert torch.allclose(theirs, ours, atol=1e-4) and ours.std() > 0.1


@pytest.mark.parametrize("kind", ["image", "image_url"])
def test_the_template_takes_pictures_as_clients_name_them(kind: str, saved: Path) -> None:
    """OpenAI's name too, which servers hand on to a template that they do not know."""
    tokenizer = AutoTokenizer.from_pretrained(saved)
    content = [{"type": kind, kind: "a.png"}, {"type": "text", "text": "Where?"}]
    text = tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    assert text.count("<|vision_start|><|image_pad|><|vision_end|>Where?<|im_end|>") == 1
