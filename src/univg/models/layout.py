"""Write a saved checkpoint as Qwen published its family's, so that every program that reads those reads it: its
settings, and the names of its weights.

transformers 5 saves `config.json` nested, with `rope_parameters`, and the tokenizer's marks as `extra_special_tokens`.
transformers 4 takes the rotary embedding from `rope_theta` and `rope_scaling` and refuses such a list of marks; SGLang
reads keys of the published file itself (`vision_config.in_chans`). The published layouts are read by all of them,
transformers 5 included: flat for Qwen2-VL and Qwen2.5-VL, nested for Qwen3-VL.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg.errors import UnivgError
from univg.files import write_whole
from univg.models import checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["find_rotary_fault", "publish_layout", "save_under_published_names"]

TOKENIZER_FILE = "tokenizer_config.json"
VISION_THETA = 10000.0
"""The vision tower's rotary base, which the published layout does not state: vLLM and SGLang know no other."""
SECTIONS = 3
"""Of a rotary embedding: time, height, width."""


_PREFIX = "PrefixChange"
_RULES = {"WeightRenaming", "WeightConverter", _PREFIX}
"""How transformers calls the kinds of rules by which it renames weights while it reads them."""


def find_rotary_fault(folder: Path) -> str | None:
    """Return what vLLM and SGLang would compute wrongly of a checkpoint's rotary embeddings, or fail at; else None.

    Reads `config.json` alone. Errors: UnivgError for a file that is no JSON.
    """
    settings = checkpoint.read_json(folder / checkpoint.CONFIG_FILE)
    text, vision = settings.get("text_config") or settings, settings.get("vision_config") or {}
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    turned = (vision.get("rope_parameters") or {}).get("rope_theta", VISION_THETA)
    if len(rope.get("mrope_section", ())) > SECTIONS:
        return f"its rotary embedding has more than {SECTIONS} sections"
    if turned != VISION_THETA:
        return (
            f"its vision tower's rotary base is {turned:g}, and {VISION_THETA:g} is taken for granted there"
        )
    return None


def publish_layout(folder: str | Path) -> None:
    """Rewrite `config.json` and `tokenizer_config.json` in `folder`, which transformers has saved, in Qwen's layout,
    and let others read its weights.

    What is of another family, or is in that layout already, stays as it is. Errors: UnivgError for a file that is no
    JSON.
    """
    for weights in Path(folder).glob("*.safetensors"):
        weights.chmod(0o644)  # safetensors makes files that only their owner reads; a checkpoint is shared
    for name, change in ((checkpoint.CONFIG_FILE, _publish), (TOKENIZER_FILE, _name_marks)):
        path = Path(folder) / name
        if path.is_file():
            settings = checkpoint.read_json(path)
            if (changed := change(settings)) != settings:
                write_whole(path, json.dumps(changed, indent=2, sort_keys=True) + "\n")


def save_under_published_names(model: PreTrainedModel) -> None:
    """Let `save_pretrained` write a model's weights under the names that its family was published with, and a head that
    is the embedding not at all.

    By itself it turns back the renamings by which the weights were read, whichever these were: of a Qwen2-VL that was
    read under ZeRO-3, also those that did not apply (`model.model.embed_tokens`). And it tells a tied head by its
    address, which is another than the embedding's where weights were gathered from several processes (FSDP2).

    Errors: UnivgError for a version of transformers that does this in a way that is not known here.
    """
    from transformers import conversion_mapping, core_model_loading

    # None of this is transformers' interface. Where it is another one, names would be wrong, and nobody would know.
    make_rules = getattr(conversion_mapping, "get_model_conversion_mapping", None)
    turn_back = getattr(core_model_loading, "revert_weight_conversion", None)
    if make_rules is None or turn_back is None or "_weight_conversions" not in turn_back.__code__.co_consts:
        raise _refuse("nothing is known of its renamings")
    for name in ("_keys_to_ignore_on_save", "all_tied_weights_keys"):
        if not hasattr(model, name):
            raise _refuse(f"models have no {name}")
    rules = make_rules(model, add_legacy=False)
    if unknown := {type(rule).__name__ for rule in rules} - _RULES:
        raise _refuse(f"rules of renaming are {sorted(unknown)}")
    # A change of prefix is for reading a model's part alone; turned back it would be added to every name.
    model._weight_conversions = [rule for rule in rules if type(rule).__name__ != _PREFIX]
    model._keys_to_ignore_on_save = {*(model._keys_to_ignore_on_save or ()), *model.all_tied_weights_keys}


def _refuse(what: str) -> UnivgError:
    from transformers import __version__

    return UnivgError(
        f"transformers {__version__} names a model's weights in a way that is not known here ({what})",
        remedy="install a version that is, such as that of constraints.txt",
    )


def _publish(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration in its family's published layout, or as it is where that cannot say it."""
    text, vision = config.get("text_config"), config.get("vision_config")
    publish = _LAYOUTS.get(str(config.get("model_type")))
    if publish is None or not isinstance(text, dict) or not isinstance(vision, dict):
        return config
    rope, turned = text.get("rope_parameters") or {}, vision.get("rope_parameters") or {}
    stock = rope.get("rope_type") == "default" and len(rope.get("mrope_section", ())) == SECTIONS
    if not stock or turned.get("rope_theta", VISION_THETA) != VISION_THETA:
        return config
    return publish(config)


def _flatten(config: dict[str, Any]) -> dict[str, Any]:
    """Return a Qwen2-VL's or a Qwen2.5-VL's configuration with the text model's settings beside the whole model's.

    >>> rope = {"rope_type": "default", "rope_theta": 500.0, "mrope_section": [4, 6, 22]}
    >>> text = {"model_type": "qwen2_vl_text", "hidden_size": 256, "rope_parameters": rope}
    >>> vision = {"model_type": "qwen2_vl_vision", "in_channels": 3, "patch_size": 14}
    >>> nested = {"model_type": "qwen2_vl", "dtype": "bfloat16", "text_config": text, "vision_config": vision}
    >>> flat = _flatten(nested)
    >>> flat["hidden_size"], flat["rope_theta"], flat["rope_scaling"], flat["torch_dtype"]
    (256, 500.0, {'type': 'mrope', 'mrope_section': [4, 6, 22]}, 'bfloat16')
    >>> flat["vision_config"]["in_chans"], flat["vision_config"]["spatial_patch_size"]
    (3, 14)
    """
    text, vision, rope = (
        config["text_config"],
        config["vision_config"],
        config["text_config"]["rope_parameters"],
    )
    # `model_type` and `dtype` are the whole model's; for kinds of layers transformers 4 has other names.
    own = {key: value for key, value in text.items() if key not in ("rope_parameters", "layer_types")}
    flat = {**own, **{key: value for key, value in config.items() if key != "text_config"}}
    flat["rope_theta"] = rope["rope_theta"]
    flat["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    if "dtype" in flat:
        flat["torch_dtype"] = flat["dtype"]
    own = {key: value for key, value in vision.items() if key not in ("rope_parameters", "model_type")}
    older = {"in_chans": own["in_channels"], "spatial_patch_size": own["patch_size"]}
    flat["vision_config"] = {**own, **older}
    return flat


def _nest(config: dict[str, Any]) -> dict[str, Any]:
    """Return a Qwen3-VL's configuration with its rotary settings under their published names.

    >>> rope = {"rope_type": "default", "rope_theta": 500.0, "mrope_section": [6, 5, 5]}
    >>> text = {"model_type": "qwen3_vl_text", "rope_parameters": rope, "dtype": "bfloat16"}
    >>> text = _nest({"text_config": text, "vision_config": {"rope_parameters": {}}})["text_config"]
    >>> text["rope_theta"], text["rope_scaling"]
    (500.0, {'mrope_interleaved': True, 'mrope_section': [6, 5, 5], 'rope_type': 'default'})
    """
    text, vision = dict(config["text_config"]), dict(config["vision_config"])
    rope = text.pop("rope_parameters")
    vision.pop("rope_parameters", None)
    vision["model_type"] = "qwen3_vl"  # as the whole model's, and not `qwen3_vl_vision`
    text["rope_theta"] = rope["rope_theta"]
    text["rope_scaling"] = {
        "mrope_interleaved": True,
        "mrope_section": rope["mrope_section"],
        "rope_type": "default",
    }
    return {**config, "text_config": text, "vision_config": vision}


_LAYOUTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "qwen2_vl": _flatten,
    "qwen2_5_vl": _flatten,
    "qwen3_vl": _nest,
}


def _name_marks(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """Return a tokenizer's settings with its marks under the name that all versions of transformers read.

    >>> _name_marks({"extra_special_tokens": ["<|im_end|>"], "eos_token": "<|im_end|>"})
    {'eos_token': '<|im_end|>', 'additional_special_tokens': ['<|im_end|>']}
    """
    marks = tokenizer.get("extra_special_tokens")
    if not isinstance(marks, list):
        return tokenizer
    rest = {key: value for key, value in tokenizer.items() if key != "extra_special_tokens"}
    return rest | {"additional_special_tokens": marks}
