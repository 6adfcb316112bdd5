"""Tiny checkpoints of the three families, in the published layout: their processors' files, vocabulary and settings.

Only the numbers that make a model large are changed, and the weights are random. The published files stand beside the
project, not in it: without them `save_family` skips the test that asks.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig

from univg.models.tiny import build_tokenizer

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "published_processors"
PUBLISHED = Path(os.environ.get("UNIVG_PUBLISHED", _BESIDE))
"""A folder for each family, with the small files of a checkpoint, and `vocabulary` (vocab.json, merges.txt)."""

# Heads of 32, which vLLM's kernels for processors have; rotary sections in the published ones' proportions.
_TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2}
_TEXT |= {"num_key_value_heads": 1, "max_position_embeddings": 8192}
_VISION = {"depth": 3, "num_heads": 2, "intermediate_size": 96}
_SECTIONS = {"qwen2_vl": [4, 6, 6], "qwen2_5_vl": [4, 6, 6], "qwen3_vl": [6, 5, 5]}
_OWN_VISION: dict[str, dict[str, Any]] = {
    "qwen2_vl": {"embed_dim": 64, "hidden_size": 64, "mlp_ratio": 2, "patch_size": 14},
    "qwen2_5_vl": {"hidden_size": 64, "out_hidden_size": 64, "fullatt_block_indexes": [1]},
    "qwen3_vl": {"hidden_size": 64, "out_hidden_size": 64, "deepstack_visual_indexes": [0, 1]},
}


def family_config(model_type: str, text: dict[str, Any] | None = None, tied: bool = True) -> dict[str, Any]:
    """Return the published `config.json` of a family at tiny size; `text` replaces settings of the text model."""
    path = PUBLISHED / model_type / "config.json"
    if not path.is_file():
        pytest.skip(f"the published files of {model_type} are not beside the project")
    config: dict[str, Any] = json.loads(path.read_text())
    config.pop("quantization_config", None)
    inner = config.get("text_config", config)
    inner |= (
        _TEXT | ({"head_dim": 32} if model_type == "qwen3_vl" else {"max_window_layers": 3}) | (text or {})
    )
    inner["rope_scaling"]["mrope_section"] = _SECTIONS[model_type]
    inner["dtype" if model_type == "qwen3_vl" else "torch_dtype"] = "float32"
    config["tie_word_embeddings"] = inner["tie_word_embeddings"] = tied
    config["vision_config"] |= _VISION | _OWN_VISION[model_type]
    return config


def copy_published(folder: str | Path, model_type: str) -> Path:
    """Write the published files of a family, without weights, and return their folder."""
    folder = Path(folder)
    if not (PUBLISHED / model_type).is_dir():
        pytest.skip(f"the published files of {model_type} are not beside the project")
    folder.mkdir(parents=True, exist_ok=True)
    for path in [*(PUBLISHED / model_type).glob("*.json"), *(PUBLISHED / "vocabulary").iterdir()]:
        shutil.copyfile(path, folder / path.name)
    return folder


def save_family(
    folder: str | Path,
    model_type: str,
    *,
    seed: int = 0,
    scale: float = 4.0,
    tied: bool = True,
    pixels: tuple[int, int] | None = None,
    text: dict[str, Any] | None = None,
    few_tokens: bool = False,
) -> Path:
    """Write a checkpoint of random weights, float32, and return its folder. There is no `univg.json` in it.

    `scale` multiplies the matrices: at the usual initial scale, responses hardly differ from prompt to prompt.
    `tied`: the last layer is the embedding, as in the published models up to 4B, and such a model repeats itself;
    apart, as in larger ones, it says something else at every token. `pixels` replaces the published least and most
    pixels of an image. `few_tokens`: the embedded family's vocabulary of bytes and marks takes the published one's
    place, with which a step takes a hundredth of the time; template and images stay the family's.
    """
    config = family_config(model_type, text, tied)
    folder = copy_published(folder, model_type)
    if few_tokens:
        _replace_vocabulary(folder, config)
    _write(folder / "config.json", config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(
            AutoConfig.from_pretrained(folder), dtype=torch.float32
        )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)
    model.generation_config = GenerationConfig.from_pretrained(folder)
    model.save_pretrained(folder)
    _write(folder / "config.json", config)  # as published: transformers writes another layout
    if pixels is not None:
        path = folder / "preprocessor_config.json"
        settings = json.loads(path.read_text())
        settings["size"] = {"shortest_edge": pixels[0], "longest_edge": pixels[1]}
        if "min_pixels" in settings:
            settings |= {"min_pixels": pixels[0], "max_pixels": pixels[1]}
        _write(path, settings)
    return folder


def _replace_vocabulary(folder: Path, config: dict[str, Any]) -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = None
    for name in (
        "vocab.json",
        "merges.txt",
        "tokenizer_config.json",
        "added_tokens.json",
        "special_tokens_map.json",
    ):
        (folder / name).unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
    ids = {"bos_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    config.get("text_config", config).update(ids, vocab_size=-(-len(tokenizer) // 16) * 16)
    for name in ("image", "video"):
        config[f"{name}_token_id"] = tokenizer.convert_tokens_to_ids(f"<|{name}_pad|>")
    for name in ("start", "end"):
        config[f"vision_{name}_token_id"] = tokenizer.convert_tokens_to_ids(f"<|vision_{name}|>")
    path = folder / "generation_config.json"
    ends = {
        "eos_token_id": [tokenizer.eos_token_id, tokenizer.pad_token_id],
        "pad_token_id": tokenizer.pad_token_id,
    }
    _write(path, json.loads(path.read_text()) | ids | ends)


def _write(path: Path, settings: dict[str, Any]) -> None:
    path.write_text(json.dumps(settings, indent=2) + "\n")
