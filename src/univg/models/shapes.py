"""A model's shapes, read from its `config.json` alone: how many numbers its weights are, part by part, and how many a
token costs. Needs no weights and no torch.

Counts are exact: a test compares them with the models that transformers builds on the meta device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from univg.errors import UnivgError
from univg.models import checkpoint
from univg.models.families import MODEL_FAMILIES
from univg.models.published import PUBLISHED

__all__ = ["Shapes", "TextShape", "VisionShape", "read_shapes", "shapes_of"]


@dataclass(frozen=True)
class TextShape:
    """The language model: widths of the residual stream, of the MLP, of all query heads and of all key heads."""

    hidden: int
    inner: int
    layers: int
    queries: int
    keys: int
    vocabulary: int
    tied: bool
    has_biases: bool
    """Of queries, keys and values: Qwen2's. Qwen3 has none, and a norm of each head's width for queries and keys."""
    head: int

    @property
    def matrices(self) -> Mapping[str, tuple[int, int]]:
        """Of one layer, each linear layer's (inputs, outputs), by name."""
        return {
            "q_proj": (self.hidden, self.queries),
            "k_proj": (self.hidden, self.keys),
            "v_proj": (self.hidden, self.keys),
            "o_proj": (self.queries, self.hidden),
            "gate_proj": (self.hidden, self.inner),
            "up_proj": (self.hidden, self.inner),
            "down_proj": (self.inner, self.hidden),
        }

    @property
    def linear(self) -> int:
        """Numbers in the linear layers' matrices of all layers: what adapters stand beside, and what is quantised."""
        return self.layers * sum(a * b for a, b in self.matrices.values())

    @property
    def embeddings(self) -> int:
        """Numbers in the embeddings, and in the head where it is not the same matrix."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        small = 2 * self.hidden + (self.queries + 2 * self.keys if self.has_biases else 2 * self.head)
        return self.linear + self.layers * small + self.hidden + self.embeddings

    def adapters(self, rank: int, targets: tuple[str, ...] | None = None) -> int:
        """Return how many numbers low-rank adapters of `rank` have on the linear layers named (None: on all)."""
        return self.layers * sum(
            rank * (a + b) for name, (a, b) in self.matrices.items() if targets is None or name in targets
        )


@dataclass(frozen=True)
class VisionShape:
    """The vision tower. `side` is a patch's, in pixels; `merge` by `merge` patches become one token."""

    hidden: int
    inner: int
    layers: int
    side: int
    merge: int
    parameters: int

    @property
    def factor(self) -> int:
        return self.side * self.merge


@dataclass(frozen=True)
class Shapes:
    """A model's shapes."""

    model_type: str
    text: TextShape
    vision: VisionShape

    @property
    def parameters(self) -> int:
        return self.text.parameters + self.vision.parameters


def read_shapes(model: str | Path) -> Shapes:
    """Read the shapes of a checkpoint: a folder, an embedded or a hub name. What `PUBLISHED` lists is not looked up.

    Errors: UnivgError for a name that leads nowhere, and for a configuration of another kind.
    """
    if str(model) in PUBLISHED and not Path(model).is_dir():
        return shapes_of(PUBLISHED[str(model)], str(model))
    folder = checkpoint.locate(model).folder
    if checkpoint.is_adapter(folder):
        folder = checkpoint.base_of(folder).folder
    checkpoint.model_type(folder)
    return shapes_of(checkpoint.read_json(folder / checkpoint.CONFIG_FILE), str(model))


def shapes_of(config: Mapping[str, Any], name: str = "config.json") -> Shapes:
    """Return the shapes that a configuration states, in transformers' layout or in the published ones.

    Errors: UnivgError for an unknown family, and for a configuration without a size that is needed.
    """
    family = str(config.get("model_type"))
    if family not in MODEL_FAMILIES:
        known = f"known families are {', '.join(MODEL_FAMILIES)}"
        raise UnivgError(f"unknown model family {family!r}", name, known)
    text = config.get("text_config") or config
    try:
        heads, hidden = int(text["num_attention_heads"]), int(text["hidden_size"])
        head = int(text.get("head_dim") or hidden // heads)
        is_tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))
        shape = TextShape(
            hidden=hidden,
            inner=int(text["intermediate_size"]),
            layers=int(text["num_hidden_layers"]),
            queries=heads * head,
            keys=int(text.get("num_key_value_heads") or heads) * head,
            vocabulary=int(text["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", is_tied)),
            has_biases=family != "qwen3_vl",
            head=head,
        )
        return Shapes(family, shape, _VISION[family](config["vision_config"], hidden))
    except (KeyError, TypeError, ValueError) as error:
        raise UnivgError(
            f"the configuration states no sizes ({checkpoint.brief(error)})", name, checkpoint.COPY_AGAIN
        ) from error


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _qwen2_vision(config: Mapping[str, Any], out: int) -> VisionShape:
    width, depth = int(config.get("embed_dim", 1280)), int(config.get("depth", 32))
    side, merge = int(config.get("patch_size", config.get("spatial_patch_size", 14))), _merge(config)
    inner, wide = int(width * config.get("mlp_ratio", 4)), width * merge**2
    block = _attention(width) + 4 * width + _linear(width, inner) + _linear(inner, width)
    merger = 2 * width + _linear(wide, wide) + _linear(wide, out)
    count = _patches(config, side) * width + depth * block + merger
    return VisionShape(width, inner, depth, side, merge, count)


def _qwen2_5_vision(config: Mapping[str, Any], out: int) -> VisionShape:
    width, depth = int(config.get("hidden_size", 1280)), int(config.get("depth", 32))
    side, merge = int(config.get("patch_size", config.get("spatial_patch_size", 14))), _merge(config)
    inner, wide = int(config.get("intermediate_size", 3420)), width * merge**2
    block = _attention(width) + 2 * width + 2 * _linear(width, inner) + _linear(inner, width)
    merger = width + _linear(wide, wide) + _linear(wide, int(config.get("out_hidden_size", out)))
    count = _patches(config, side) * width + depth * block + merger
    return VisionShape(width, inner, depth, side, merge, count)


def _qwen3_vision(config: Mapping[str, Any], out: int) -> VisionShape:
    width, depth = int(config.get("hidden_size", 1152)), int(config.get("depth", 27))
    side, merge = int(config.get("patch_size", 16)), _merge(config)
    inner, wide = int(config.get("intermediate_size", 4304)), width * merge**2
    block = _attention(width) + 4 * width + _linear(width, inner) + _linear(inner, width)
    merger = _linear(wide, wide) + _linear(wide, int(config.get("out_hidden_size", out)))
    deep = len(config.get("deepstack_visual_indexes", (8, 16, 24)))
    count = _patches(config, side) * width + width + int(config.get("num_position_embeddings", 2304)) * width
    count += depth * block + merger + 2 * width + deep * (merger + 2 * wide)
    return VisionShape(width, inner, depth, side, merge, count)


_VISION = {"qwen2_vl": _qwen2_vision, "qwen2_5_vl": _qwen2_5_vision, "qwen3_vl": _qwen3_vision}
"""By family, what makes a tower's shape of its configuration; sizes that it leaves out are transformers' defaults."""


def _attention(width: int) -> int:
    return _linear(width, 3 * width) + _linear(width, width)


def _merge(config: Mapping[str, Any]) -> int:
    return int(config.get("spatial_merge_size", 2))


def _patches(config: Mapping[str, Any], side: int) -> int:
    """Numbers in a patch: colours, times, pixels."""
    colours = int(config.get("in_channels", config.get("in_chans", 3)))
    return colours * int(config.get("temporal_patch_size", 2)) * side**2
