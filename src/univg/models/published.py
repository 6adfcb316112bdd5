"""The shapes of the published models, as facts: what their `config.json` says of their sizes, so that memory can be
estimated where the hub cannot be reached. A test compares each with its published count of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["PUBLISHED"]

_QWEN2_VISION = {"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14}
_QWEN2_5_VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "num_heads": 16,
    "intermediate_size": 3420,
    "patch_size": 14,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_QWEN3_SMALL_VISION = {
    "depth": 24,
    "hidden_size": 1024,
    "num_heads": 16,
    "intermediate_size": 4096,
    "patch_size": 16,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [5, 11, 17],
}
_QWEN3_LARGE_VISION = {
    "depth": 27,
    "hidden_size": 1152,
    "num_heads": 16,
    "intermediate_size": 4304,
    "patch_size": 16,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [8, 16, 24],
}


def _text(hidden: int, inner: int, layers: int, heads: int, pairs: int, vocabulary: int, tied: bool) -> Any:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": pairs,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }


def _qwen3(text: Mapping[str, Any], vision: Mapping[str, Any]) -> Any:
    return {
        "model_type": "qwen3_vl",
        "tie_word_embeddings": text["tie_word_embeddings"],
        "text_config": {**text, "head_dim": 128},
        "vision_config": {**vision, "out_hidden_size": text["hidden_size"]},
    }


PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "Qwen/Qwen2-VL-2B-Instruct": {
        "model_type": "qwen2_vl",
        **_text(1536, 8960, 28, 12, 2, 151936, True),
        "vision_config": {**_QWEN2_VISION, "hidden_size": 1536},
    },
    "Qwen/Qwen2-VL-7B-Instruct": {
        "model_type": "qwen2_vl",
        **_text(3584, 18944, 28, 28, 4, 152064, False),
        "vision_config": {**_QWEN2_VISION, "hidden_size": 3584},
    },
    "Qwen/Qwen2.5-VL-3B-Instruct": {
        "model_type": "qwen2_5_vl",
        **_text(2048, 11008, 36, 16, 2, 151936, True),
        "vision_config": {**_QWEN2_5_VISION, "out_hidden_size": 2048},
    },
    "Qwen/Qwen2.5-VL-7B-Instruct": {
        "model_type": "qwen2_5_vl",
        **_text(3584, 18944, 28, 28, 4, 152064, False),
        "vision_config": {**_QWEN2_5_VISION, "out_hidden_size": 3584},
    },
    "Qwen/Qwen3-VL-2B-Instruct": _qwen3(_text(2048, 6144, 28, 16, 8, 151936, True), _QWEN3_SMALL_VISION),
    "Qwen/Qwen3-VL-4B-Instruct": _qwen3(_text(2560, 9728, 36, 32, 8, 151936, True), _QWEN3_SMALL_VISION),
    "Qwen/Qwen3-VL-8B-Instruct": _qwen3(_text(4096, 12288, 36, 32, 8, 151936, False), _QWEN3_LARGE_VISION),
}
"""By its name on the hub, what a published model's configuration says of its size, in the configuration's own keys."""
