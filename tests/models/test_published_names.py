"""Where transformers renames weights in a way that is not known here, nothing is written under wrong names."""

from __future__ import annotations

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, PreTrainedModel, conversion_mapping
from transformers import core_model_loading as loading

from univg.errors import UnivgError
from univg.models.families import MODEL_FAMILIES
from univg.models.layout import save_under_published_names

TEXT, VISION = {"num_hidden_layers": 1, "hidden_size": 3584}, {"depth": 1, "hidden_size": 1280}


def build(family: str) -> PreTrainedModel:
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(
            CONFIG_MAPPING[family](text_config=TEXT, vision_config=VISION)
        )


@pytest.mark.parametrize("family", MODEL_FAMILIES)
def test_what_transformers_keeps_is_known(family: str) -> None:
    model = build(family)
    save_under_published_names(model)
    assert not any(isinstance(rule, loading.PrefixChange) for rule in model._weight_conversions)
    assert {"lm_head.weight"} & set(model.all_tied_weights_keys) <= set(model._keys_to_ignore_on_save)


def test_what_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class ChangeOfPrefix(loading.PrefixChange):
        """As a later version may call it."""

    model = build("qwen2_vl")
    rules = [ChangeOfPrefix(prefix_to_remove="model")]
    with monkeypatch.context() as changed:
        changed.setattr(conversion_mapping, "get_model_conversion_mapping", lambda *_, **__: rules)
        with pytest.raises(UnivgError, match=r"transformers 5.* are .'ChangeOfPrefix'.*: install a version"):
            save_under_published_names(model)
    monkeypatch.setattr(loading, "revert_weight_conversion", lambda model, weights: weights)
    with pytest.raises(UnivgError, match="nothing is known of its renamings"):
        save_under_published_names(model)
