"""Patches of the images of one generation of rollouts: each image is resized once, kept once, and encoded
once while the vision tower is frozen.

TRL hands every rollout the pixels of its prompt's images, so with G rollouts they are computed 2 G times and
are in memory G times, and again in every micro-batch. Here a batch carries the *places* of its patches
instead, in `pixel_values` of shape (patches, 1), which TRL splits, shuffles and buffers as it does pixels.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature
from transformers.modeling_outputs import BaseModelOutputWithPooling

from univg.models.loading import plain_model

__all__ = ["Patches", "has_same_vision", "is_vision_frozen"]


class Patches:
    """Keep pixels by place, and what a frozen vision tower makes of them."""

    def __init__(self) -> None:
        self._places: dict[bytes, tuple[int, list[int]]] = {}
        self._parts: list[Tensor] = []
        self._count = 0
        self._features: dict[int, tuple[Tensor, list[Tensor] | None]] = {}

    def placing(self, processor: Any) -> Any:
        """Return a processor like `processor`, whose `pixel_values` are places here; the one given stays as
        it is."""
        twin = copy.copy(processor)
        twin.image_processor = _PlacingImageProcessor(processor.image_processor, self)
        return twin

    def place(self, image_processor: Any, images: Sequence[Any], **settings: Any) -> BatchFeature:
        """Return `pixel_values` (patches, 1) and `image_grid_thw` (images, 3); an image that is here already
        is not processed again."""
        keys = [_key(image) for image in images]
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in self._places}
        if new:
            settings["return_tensors"] = "pt"
            read = image_processor(images=list(new.values()), **settings)
            for key, grid in zip(new, read["image_grid_thw"].tolist(), strict=True):
                self._places[key] = self._count, grid
                self._count += grid[0] * grid[1] * grid[2]
            self._parts.append(read["pixel_values"])
        found = [self._places[key] for key in keys]
        spans = [torch.arange(start, start + t * h * w) for start, (t, h, w) in found]
        grids = torch.tensor([grid for _, grid in found])
        return BatchFeature({"pixel_values": torch.cat(spans)[:, None], "image_grid_thw": grids})

    def pixels(self, places: Tensor) -> Tensor:
        """Return the patches (patches, values) at `places` (patches, 1), on their device."""
        if len(self._parts) > 1:
            self._parts = [torch.cat(self._parts)]
        return self._parts[0][places[:, 0].cpu()].to(places.device)

    def with_pixels(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the model's inputs with pixels in place of their places."""
        held = dict(fields)
        if held.get("pixel_values") is not None:
            held["pixel_values"] = self.pixels(held["pixel_values"])
        return held

    @torch.no_grad()
    def with_features(self, model: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the model's inputs with `mm_encoder_outputs` in place of `pixel_values`: each image goes
        through the vision tower once in the life of this object, whichever model asks. For towers that are
        frozen, and the same (`has_same_vision`)."""
        places, grids = fields["pixel_values"], fields["image_grid_thw"]
        spans = places.split(grids.prod(dim=-1).tolist())
        starts = [int(span[0]) for span in spans]
        new = [at for at, start in enumerate(starts) if start not in self._features]
        new = list({starts[at]: at for at in new}.values())
        if new:
            index = torch.tensor(new, device=grids.device)
            pixels = self.pixels(torch.cat([spans[at] for at in new]))
            read = plain_model(model).model.get_image_features(pixels, grids[index], return_dict=True)
            deep = getattr(read, "deepstack_features", None)
            for number, at in enumerate(new):
                levels = None if deep is None else [level[number] for level in deep]
                self._features[starts[at]] = read.pooler_output[number], levels
        found = [self._features[start] for start in starts]
        parts: Any = tuple(feature for feature, _ in found)
        output: Any = BaseModelOutputWithPooling(pooler_output=parts)
        deeper = [levels for _, levels in found if levels is not None]  # Qwen3-VL's, for its first layers
        if deeper:
            output.deepstack_features = [list(level) for level in zip(*deeper, strict=True)]
        rest = {name: value for name, value in fields.items() if name != "pixel_values"}
        return {**rest, "mm_encoder_outputs": {"image": output}}

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs, where rollouts that are still to be learnt from name places here.
        Features as well: computed anew, with fewer images at a time, they could differ in the last bit."""
        return {"pixels": torch.cat(self._parts) if self._parts else None, "features": self._features}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._parts = [state["pixels"]] if state["pixels"] is not None else []
        self._features = dict(state["features"])


class _PlacingImageProcessor:
    """An image processor to all who ask, except that it gives places for pixels."""

    def __init__(self, image_processor: Any, patches: Patches) -> None:
        self._image_processor, self._patches = image_processor, patches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._image_processor, name)

    def __call__(self, images: Any, **settings: Any) -> BatchFeature:
        return self._patches.place(self._image_processor, list(_flatten(images)), **settings)


def _flatten(images: Any) -> Any:
    for each in images if isinstance(images, (list, tuple)) else [images]:
        if isinstance(each, (list, tuple)):
            yield from _flatten(each)
        elif each is not None:
            yield each


def _key(image: Any) -> bytes:
    """Name an image by its content: TRL copies images on their way, and a dataset may draw one anew for every
    rollout."""
    sha = hashlib.blake2b(f"{image.mode} {image.size}".encode(), digest_size=16)
    sha.update(image.tobytes())
    return sha.digest()


def is_vision_frozen(model: Any) -> bool:
    """Tell whether no weight of the vision tower is trained."""
    tower = plain_model(model).model.visual
    return not any(weight.requires_grad for weight in tower.parameters())


def has_same_vision(model: Any, other: Any) -> bool:
    """Tell whether both have the same vision tower, number by number."""
    one, two = (dict(plain_model(each).model.visual.named_parameters()) for each in (model, other))
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
