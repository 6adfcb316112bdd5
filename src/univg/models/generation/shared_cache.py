"""Write several responses to a prompt with one copy of the prompt's keys and values.

    prefix = prefill(model, inputs)
    tokens = decode(model, shared(model, prefix, sources), choose, stops, max_new_tokens=256)

At every token, attention reads all keys and values there are. With a copy a row that is G times the prompt's, which
on a CPU is most of the time of decoding and most of its memory; here the rows of a group read the prompt's once,
together (:class:`univg.models.generation.shared_attention.PromptKeys`), and each its own few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from univg.models.generation.cache import roomy_cache
from univg.models.generation.decoding import Prefix
from univg.models.generation.shared_attention import PromptKeys, share_prompts

__all__ = ["SharedPrefix", "shared"]


@dataclass
class SharedPrefix(Prefix):
    """As `Prefix`, but `cache` holds what each row has written itself, and `prompts` what the rows share."""

    prompts: PromptKeys

    def repeat(self, n: int) -> None:
        raise NotImplementedError("the rows of a shared prefix are given when it is made")

    def seen(self) -> dict[str, Any]:
        return {"attention_mask": None, "shared_prefix": self.prompts}

    def keep(self, places: Sequence[int]) -> None:
        super().keep(places)
        self.prompts.keep([self.prompts.sources[place] for place in places])


def shared(model: Any, prefix: Prefix, sources: Sequence[int]) -> SharedPrefix:
    """Make a row for each of `sources`, which name rows of `prefix`; that one is used up.

    Errors: ValueError where the model cannot share (:func:`univg.models.generation.shared_attention.why_not`).
    """
    share_prompts(model)
    starts = (prefix.mask_RT == 0).sum(dim=1).tolist()
    layers = []
    each: Any
    for each in prefix.cache.layers:
        keys, values = each.keys, each.values
        layers.append([_of_prompt(keys, values, p, start) for p, start in enumerate(starts)])
    index = torch.tensor(sources, device=prefix.positions_R.device)
    return SharedPrefix(
        roomy_cache(model.config),
        prefix.mask_RT.new_empty(len(sources), 0),
        prefix.logits_RV[index],
        prefix.positions_R[index],
        PromptKeys(layers, sources),
    )


def _of_prompt(
    keys: torch.Tensor, values: torch.Tensor, p: int, start: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut the padding off a prompt's keys and values; under autocast only the values come in half precision."""
    return keys[p : p + 1, :, start:].to(values.dtype), values[p : p + 1, :, start:]
