"""Groups kept together and their prompts encoded once, in TRL's trainer.

`SharedGroups` is what `univg.training.grpo.trainer` stands on where rollouts of a group share their prompt: in the
log-probabilities of policy and reference (:mod:`univg.training.grpo.packing`), in the rollouts
(:mod:`univg.models.generation.shared_cache`), and in the images (:mod:`univg.training.grpo.patches`).

Where a model or a setting cannot share, `shared_prefix="auto"` says so once, with the reason, and goes TRL's way;
"on" refuses to start; "off" goes TRL's way.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import (
    split_pixel_values_by_grid,
    split_tensor_dict,
    unsplit_pixel_values_by_grid,
)

from univg.models.generation.shared_attention import share_prompts, why_not
from univg.models.loading import plain_model
from univg.training.grpo.packing import completion_logps, pack
from univg.training.grpo.patches import Pictures, is_frozen, same_vision
from univg.training.grpo.rollouts import take_rows

__all__ = [
    "CannotShare",
    "PromptsNotShared",
    "SharedGroups",
    "Sharing",
    "cannot_share",
    "groups_of",
    "together",
]

Sharing = Literal["auto", "on", "off"]
IMAGE_FIELDS = ("pixel_values", "image_grid_thw")


class CannotShare(ValueError):
    """Sharing was asked for, and cannot be; says why."""


class PromptsNotShared(UserWarning):
    """Prompts are encoded once for every rollout; says why."""


def cannot_share(trainer: Any, mode: Sharing) -> str | None:
    """Why groups cannot share their prompts in this trainer; None if they can."""
    reason = why_not(trainer.model)
    if reason is not None:
        return reason
    if getattr(trainer, "tools", None) or getattr(trainer, "environment_factories", None):
        return "tools may put images into rollouts"
    if trainer.rollout_func is not None:
        return "a rollout function gives prompts of its own"
    adapters: dict[str, Any] = getattr(trainer.model, "peft_config", {})
    for name, adapter in adapters.items():
        if getattr(adapter, "is_prompt_learning", False):
            return f"adapter {name!r} puts tokens of its own before the prompt"
        if mode == "auto" and getattr(adapter, "lora_dropout", None):
            return (
                f"adapter {name!r} has a dropout of {adapter.lora_dropout}, which all rollouts of a group would "
                "share: set it to 0, or accept that with shared_prefix=on"
            )
    return None


class SharedGroups(GRPOTrainer):
    """TRL's `GRPOTrainer`, in which the rollouts of a group are read with one copy of their prompt.

    A base class: `shared_prefix` is set before TRL's `__init__`, and `_start_sharing` is called after it.
    """

    model: Any
    args: Any
    accelerator: Any
    ref_model: Any
    num_generations: Any
    _buffered_inputs: Any
    shared_prefix: Sharing = "auto"
    is_sharing = False
    not_shared: str | None = None
    """Why prompts are not shared, under "auto"."""
    pictures: Pictures
    _towers_agree: bool | None = None

    def _start_sharing(self) -> None:
        """Decide, once the models are there. Errors: CannotShare under "on" where it cannot be."""
        self._all_pictures = {"train": Pictures(), "eval": Pictures()}
        self.pictures = self._all_pictures["train"]
        if self.shared_prefix == "off":
            return
        reason = cannot_share(self, self.shared_prefix)
        if reason is not None:
            if self.shared_prefix == "on":
                raise CannotShare(f"shared_prefix=on: prompts cannot be shared: {reason}")
            self.not_shared = reason
            if self.accelerator.is_main_process:
                warnings.warn(PromptsNotShared(self.sharing_line()), stacklevel=3)
            return
        for model in (self.model, self.ref_model):
            if model is not None:
                share_prompts(plain_model(model))
        self.is_sharing = True

    def sharing_line(self) -> str:
        """What is encoded how often, for people to read."""
        if self.is_sharing:
            return "a group's prompt and images are encoded once"
        why = f": {self.not_shared}" if self.not_shared else " (shared_prefix: off)"
        return f"prompts are encoded once for every rollout{why}"

    # --- pictures ---

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        if not self.is_sharing:
            return super()._generate_and_score_completions(inputs)
        mode = "train" if self.model.training else "eval"
        self.pictures = self._all_pictures[mode] = Pictures()
        with self._reading_once():
            return super()._generate_and_score_completions(inputs)

    @contextmanager
    def _reading_once(self) -> Iterator[None]:
        processor: Any = self.processing_class
        if not hasattr(processor, "image_processor"):
            yield
            return
        self.processing_class = self.pictures.reader(processor)
        try:
            yield
        finally:
            self.processing_class = processor

    def _whole(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A batch as TRL makes it, with pixels in it."""
        return self.pictures.whole(batch) if self.is_sharing else dict(batch)

    def _pictures_for(self, model: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
        """What `model` is given of the images: features that are there already where all agree on them, or
        pixels."""
        given = dict(fields)
        if not self.is_sharing or given.get("pixel_values") is None:
            return given
        if not self._is_sharded() and self._agree_on_features(model):
            return self.pictures.features(model, given)
        return self.pictures.whole(given)

    def _agree_on_features(self, model: Any) -> bool:
        """Frozen in the policy, and, where `model` is another one, the same there. Looked at once: neither
        changes while it is frozen, and a synchronised reference follows weights that do not move."""
        if not is_frozen(self.model):
            return False
        if self.ref_model is None or plain_model(model) is plain_model(self.model):
            return True
        if self._towers_agree is None:
            self._towers_agree = same_vision(self.model, self.ref_model)
        return self._towers_agree

    def _is_sharded(self) -> bool:
        """Whether a forward pass needs all processes."""
        zero_3 = self.is_deepspeed_enabled and not self.args.ds3_gather_for_generation
        return bool(self.is_fsdp_enabled or zero_3)

    # --- log-probabilities ---

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Any,
        attention_mask: Any,
        logits_to_keep: Any,
        batch_size: Any = None,
        compute_entropy: Any = False,
        compute_aux_loss: Any = False,
        pixel_values: Any = None,
        image_grid_thw: Any = None,
        num_images: Any = None,
        pixel_attention_mask: Any = None,
        spatial_shapes: Any = None,
        num_tiles: Any = None,
        image_sizes: Any = None,
        token_type_ids: Any = None,
        mm_token_type_ids: Any = None,
        image_position_ids: Any = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """As TRL's; `pixel_values` are places in `pictures`. Without gradients, a batch is taken in parts of whole
        groups, equally many in every process."""
        if not self.is_sharing:
            return super()._get_per_token_logps_and_entropies(
                model,
                input_ids,
                attention_mask,
                logits_to_keep,
                batch_size,
                compute_entropy,
                compute_aux_loss,
                pixel_values,
                image_grid_thw,
                num_images,
                pixel_attention_mask,
                spatial_shapes,
                num_tiles,
                image_sizes,
                token_type_ids,
                mm_token_type_ids,
                image_position_ids,
            )
        prompt = input_ids.shape[1] - logits_to_keep
        batch = {"input_ids": input_ids[:, :prompt], "attention_mask": attention_mask[:, :prompt]}
        if image_grid_thw is not None:
            batch |= {"pixel_values": pixel_values, "image_grid_thw": image_grid_thw}
            batch["mm_token_type_ids"] = mm_token_type_ids[:, :prompt]
        ids_BC, mask_BC = input_ids[:, prompt:], attention_mask[:, prompt:]
        size = batch_size or len(input_ids)
        size += -size % self.num_generations
        logps, entropies = [], []
        for start in range(0, len(input_ids), size):
            rows = slice(start, start + size)
            firsts, sources = groups_of(batch, num_images, range(*rows.indices(len(input_ids))))
            prompts = take_rows(batch, num_images, firsts)
            with self.accelerator.autocast():
                images = self._pictures_for(model, _image_fields(prompts))
                packed = pack(model, prompts, sources, ids_BC[rows], mask_BC[rows], images)
                part, entropy = completion_logps(model, packed)
            logps.append(part)
            entropies.append(entropy)
        whole = torch.cat([each for each in entropies if each is not None]) if compute_entropy else None
        return torch.cat(logps), whole, None

    # --- groups ---

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """TRL's, then the rollouts of each update in groups: its shuffle, which decides what an update sees, is
        left as it is, and only the order within the update is not."""
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if not self.is_sharing:
            return inputs
        self.pictures = self._all_pictures["train" if self.model.training else "eval"]
        if self.model.training and self._buffered_inputs is not before:
            self._buffered_inputs = together(
                self._buffered_inputs,
                self.args.gradient_accumulation_steps,
            )
            inputs = self._buffered_inputs[self._step % self.args.steps_per_generation]
        return inputs


def together(batches: Sequence[dict[str, Any]], accumulation: int) -> list[dict[str, Any]]:
    """Micro-batches of the same sizes, in which the rollouts of a group follow one another.

    `accumulation` micro-batches make an update; rollouts do not change from one update to another. Where a
    generation is no whole number of updates, nor an update one of generations, they stay where they are.
    """
    if len(batches) % accumulation and accumulation % len(batches):
        return list(batches)
    update = min(accumulation, len(batches))
    sorted_batches: list[dict[str, Any]] = []
    for start in range(0, len(batches), update):
        sorted_batches += _in_groups(batches[start : start + update])
    return sorted_batches


def _in_groups(batches: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    if all(value is None or not _per_row(value) for value in batches[0].values()):
        return list(batches)
    rows: dict[str, Any] = split_pixel_values_by_grid(_concatenated(batches))
    merged: dict[str, Any] = unsplit_pixel_values_by_grid(rows)
    prompts = {"input_ids": merged["prompt_ids"], "attention_mask": merged["prompt_mask"], **merged}
    _, sources = groups_of(prompts, merged.get("num_images"), range(len(merged["prompt_ids"])))
    order = sorted(range(len(sources)), key=sources.__getitem__)
    index = torch.tensor(order)
    moved = {name: _taken(value, index, order) for name, value in rows.items()}
    parts: Any = split_tensor_dict(moved, len(batches))
    return [unsplit_pixel_values_by_grid(part) for part in parts]


def _concatenated(batches: Sequence[dict[str, Any]]) -> dict[str, Any]:
    whole = {}
    for name, first in batches[0].items():
        values: list[Any] = [batch[name] for batch in batches]
        if not _per_row(first):
            whole[name] = first
        elif isinstance(first, Tensor):
            whole[name] = torch.cat(values)
        else:
            whole[name] = [each for value in values for each in value]
    return whole


def _per_row(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, Tensor) and value.ndim > 0)


def _taken(value: Any, index: Tensor, order: Sequence[int]) -> Any:
    if isinstance(value, list):
        return [value[row] for row in order]
    return value[index.to(value.device)] if _per_row(value) else value


def groups_of(
    batch: Mapping[str, Any], num_images: Sequence[int] | None, rows: Sequence[int]
) -> tuple[list[int], list[int]]:
    """(the first row of each different prompt among `rows`, for each of them its prompt's number).

    `batch`: `input_ids` and `attention_mask` of prompts, and places of patches as `pixel_values`. Prompts are the
    same if their tokens and their images are, wherever they stand.
    """
    ids, mask = batch["input_ids"].tolist(), batch["attention_mask"].sum(dim=1).tolist()
    pictures: list[tuple[int, ...]] = [()] * len(ids)
    if batch.get("pixel_values") is not None and num_images is not None:
        sizes = batch["image_grid_thw"].prod(dim=-1)
        starts = batch["pixel_values"][:, 0][sizes.cumsum(0) - sizes].tolist()
        found = iter(starts)
        pictures = [tuple(next(found) for _ in range(count)) for count in num_images]
    numbers: dict[Any, int] = {}
    firsts: list[int] = []
    sources: list[int] = []
    for row in rows:
        key = tuple(ids[row][len(ids[row]) - mask[row] :]), pictures[row]
        if key not in numbers:
            numbers[key] = len(firsts)
            firsts.append(row)
        sources.append(numbers[key])
    return firsts, sources


def _image_fields(prompts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: prompts[name] for name in IMAGE_FIELDS if name in prompts}
