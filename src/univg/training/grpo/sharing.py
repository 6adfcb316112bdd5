"""What the rollouts of a group share: one copy of their prompt, and images that are read and encoded once.

Prompts are shared in the log-probabilities of policy and reference (:mod:`univg.training.grpo.packing`), in
the rollouts (:mod:`univg.models.generation.shared_cache`), and in the images
(:mod:`univg.training.grpo.patches`).

Where a model or a setting cannot share, `shared_prefix="auto"` says so once, with the reason, and goes TRL's
way; "on" refuses to start; "off" goes TRL's way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from trl.trainer.utils import (
    split_pixel_values_by_grid,
    split_tensor_dict,
    unsplit_pixel_values_by_grid,
)

from univg.errors import UnivgError
from univg.models.generation.shared_attention import share_prompts, why_not
from univg.models.loading import plain_model
from univg.training.grpo.packing import completion_logps, pack
from univg.training.grpo.patches import Patches, has_same_vision, is_vision_frozen
from univg.training.grpo.rollouts import take_rows

__all__ = [
    "PromptsNotShared",
    "SharedPrompts",
    "Sharing",
    "find_groups",
    "regroup",
    "share_or_say_why",
]

Sharing = Literal["auto", "on", "off"]
IMAGE_FIELDS = ("pixel_values", "image_grid_thw")


class PromptsNotShared(UserWarning):
    """Prompts are encoded once for every rollout; says why. The stage silences it, because its plan says so
    too."""


class SharedPrompts:
    """The shared prompts and images of policy and reference (None: there is none), for training and for
    evaluation.

    `is_sharded`: a forward pass needs all processes, so that none may leave out the vision tower.
    """

    def __init__(self, policy: Any, reference: Any | None, is_sharded: bool) -> None:
        self.policy, self.reference, self.is_sharded = policy, reference, is_sharded
        for model in (policy, reference):
            if model is not None:
                share_prompts(plain_model(model))
        self.patches_of = {"train": Patches(), "eval": Patches()}
        self.patches = self.patches_of["train"]
        self._do_towers_agree: bool | None = None

    def begin(self, mode: str) -> None:
        """Let go of the images of the last generation of `mode` ("train", "eval"), and keep those of a new
        one."""
        self.patches = self.patches_of[mode] = Patches()

    def turn_to(self, mode: str) -> None:
        """Go back to the images of the latest generation of `mode`."""
        self.patches = self.patches_of[mode]

    def image_inputs(self, model: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return what `model` is given of the images: features that are there already where policy and
        reference agree on them, or pixels."""
        if fields.get("pixel_values") is None:
            return dict(fields)
        if not self.is_sharded and self._agrees_on_features(model):
            return self.patches.with_features(model, fields)
        return self.patches.with_pixels(fields)

    def _agrees_on_features(self, model: Any) -> bool:
        """Tell whether the tower is frozen in the policy, and, where `model` is another one, the same there.
        Compared once: neither changes while it is frozen, and a synchronised reference follows weights that
        do not move."""
        if not is_vision_frozen(self.policy):
            return False
        if self.reference is None or plain_model(model) is plain_model(self.policy):
            return True
        if self._do_towers_agree is None:
            self._do_towers_agree = has_same_vision(self.policy, self.reference)
        return self._do_towers_agree

    def logps(
        self,
        model: Any,
        prompts: Mapping[str, Any],
        num_images: Sequence[int] | None,
        ids_BC: Tensor,
        mask_BC: Tensor,
        at_once: int,
    ) -> tuple[Tensor, Tensor | None]:
        """Return log-probabilities and entropies (B, C) of completions to left-padded `prompts` (a row for each
        completion; `pixel_values` are places of patches), in parts of `at_once` rows."""
        logps, entropies = [], []
        for start in range(0, len(ids_BC), at_once):
            rows = range(start, min(start + at_once, len(ids_BC)))
            firsts, sources = find_groups(prompts, num_images, rows)
            taken = take_rows(prompts, num_images, firsts)
            images = self.image_inputs(model, {n: taken[n] for n in IMAGE_FIELDS if n in taken})
            part = slice(rows.start, rows.stop)
            packed = pack(model, taken, sources, ids_BC[part], mask_BC[part], images)
            logp, entropy = completion_logps(model, packed)
            logps.append(logp)
            entropies += [entropy] if entropy is not None else []
        return torch.cat(logps), torch.cat(entropies) if entropies else None


def share_or_say_why(
    policy: Any, reference: Any | None, mode: Sharing, is_sharded: bool, writes_prompts: str | None = None
) -> tuple[SharedPrompts | None, str]:
    """Share prompts between the rollouts of a group if that can be; returns them, and a line on what is encoded how
    often.

    `writes_prompts`: what of the trainer's settings changes prompts on the way, if anything. Raises UnivgError under
    "on" where they cannot be shared.
    """
    if mode == "off":
        return None, "prompts are encoded once for every rollout (shared_prefix: off)"
    obstacle = why_not(policy) or writes_prompts or _find_obstacle_in_adapters(policy, mode)
    if obstacle is None:
        shared = SharedPrompts(policy, reference, is_sharded)
        return shared, "a group's prompt and images are encoded once"
    if mode == "on":
        raise UnivgError("shared_prefix=on: prompts cannot be shared", obstacle)
    return None, f"prompts are encoded once for every rollout: {obstacle}"


def _find_obstacle_in_adapters(model: Any, mode: Sharing) -> str | None:
    for name, adapter in getattr(model, "peft_config", {}).items():
        if getattr(adapter, "is_prompt_learning", False):
            return f"adapter {name!r} puts tokens of its own before the prompt"
        if mode == "auto" and getattr(adapter, "lora_dropout", None):
            return (
                f"adapter {name!r} has a dropout of {adapter.lora_dropout}, which all rollouts of a group would "
                "share: set it to 0, or accept that with shared_prefix=on"
            )
    return None


def find_groups(
    batch: Mapping[str, Any], num_images: Sequence[int] | None, rows: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return (the first row of each different prompt among `rows`, for each of them its prompt's number).

    `batch`: `input_ids` and `attention_mask` of prompts, and places of patches as `pixel_values`. Prompts are
    the same if their tokens and their images are, wherever they stand.
    """
    ids, mask = batch["input_ids"].tolist(), batch["attention_mask"].sum(dim=1).tolist()
    images: list[tuple[int, ...]] = [()] * len(ids)
    if batch.get("pixel_values") is not None and num_images is not None:
        sizes = batch["image_grid_thw"].prod(dim=-1)
        starts = batch["pixel_values"][:, 0][sizes.cumsum(0) - sizes].tolist()
        found = iter(starts)
        images = [tuple(next(found) for _ in range(count)) for count in num_images]
    numbers: dict[Any, int] = {}
    firsts: list[int] = []
    sources: list[int] = []
    for row in rows:
        key = tuple(ids[row][len(ids[row]) - mask[row] :]), images[row]
        if key not in numbers:
            numbers[key] = len(firsts)
            firsts.append(row)
        sources.append(numbers[key])
    return firsts, sources


def regroup(batches: Sequence[dict[str, Any]], accumulation: int) -> list[dict[str, Any]]:
    """Return micro-batches of the same sizes, in which the rollouts of a group follow one another.

    `accumulation` micro-batches make an update; rollouts do not change from one update to another. Where a
    generation is no whole number of updates, nor an update one of generations, they stay where they are.
    """
    if len(batches) % accumulation and accumulation % len(batches):
        return list(batches)
    update = min(accumulation, len(batches))
    return [
        batch
        for start in range(0, len(batches), update)
        for batch in _sort_update(batches[start : start + update])
    ]


def _sort_update(batches: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    if not any(_is_per_row(value) for value in batches[0].values()):
        return list(batches)
    rows: dict[str, Any] = split_pixel_values_by_grid(_concatenate(batches))
    merged: dict[str, Any] = unsplit_pixel_values_by_grid(rows)
    prompts = {"input_ids": merged["prompt_ids"], "attention_mask": merged["prompt_mask"], **merged}
    _, sources = find_groups(prompts, merged.get("num_images"), range(len(merged["prompt_ids"])))
    order = sorted(range(len(sources)), key=sources.__getitem__)
    moved = {name: _reorder(value, order) for name, value in rows.items()}
    parts: Any = split_tensor_dict(moved, len(batches))
    return [unsplit_pixel_values_by_grid(part) for part in parts]


def _concatenate(batches: Sequence[dict[str, Any]]) -> dict[str, Any]:
    whole = {}
    for name, first in batches[0].items():
        values: list[Any] = [batch[name] for batch in batches]
        if not _is_per_row(first):
            whole[name] = first
        elif isinstance(first, Tensor):
            whole[name] = torch.cat(values)
        else:
            whole[name] = [each for value in values for each in value]
    return whole


def _is_per_row(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, Tensor) and value.ndim > 0)


def _reorder(value: Any, order: Sequence[int]) -> Any:
    if isinstance(value, list):
        return [value[row] for row in order]
    return value[torch.tensor(order, device=value.device)] if _is_per_row(value) else value
