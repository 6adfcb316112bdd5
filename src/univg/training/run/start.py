"""The model that a stage starts from: weights, frozen parts, adapters."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn

from univg.errors import UnivgError
from univg.files import digest_blocks
from univg.models import checkpoint
from univg.models.loading import Loaded, load, plain_model
from univg.models.pixels import PixelBudget
from univg.training.config import LANGUAGE_LINEAR, StageConfig
from univg.training.run.cpu_layers import embed_by_product
from univg.training.run.prechecks import check_layers
from univg.training.run.precision import computes_in_bf16

__all__ = ["digest_start", "load_start", "make_lora", "mend_adapters"]

_RECORDS = ("run.json", "trainer_state.json")
"""Files of a start model's own training: they make no difference to what it is."""


def load_start(config: StageConfig) -> Loaded:
    """Load the start checkpoint and freeze what the config freezes.

    Call it after the trainer's arguments are made: under ZeRO-3 they decide how weights are read. Raises UnivgError
    for a checkpoint that cannot be read or trained.
    """
    source = checkpoint.locate(config.model)
    if config.lora is not None and checkpoint.is_adapter(source.folder):
        raise UnivgError(
            f"model: {config.model} is a LoRA adapter, and a new one cannot stand on it",
            remedy=f"merge it first: univg merge {config.model} --out FOLDER",
        )
    budget = config.pixel_budget and PixelBudget(**config.pixel_budget.model_dump())
    dtype = torch.bfloat16 if config.lora is not None and computes_in_bf16(config.bf16) else torch.float32
    four_bits = config.lora is not None and config.lora.quantize == "nf4"
    loaded = load(
        config.model,
        dtype=dtype,
        device=_find_own_device() if four_bits else "cpu",  # packed weights stay where they are packed
        pixel_budget=budget or None,
        empty=_is_sent_weights(),
        four_bits=four_bits,
    )
    if budget is None and loaded.style_note:  # no record: a stock model's own budget is one for answering
        loaded.processor.set_pixel_budget(PixelBudget())
    loaded.model.config.use_cache = False
    for weight in loaded.model.parameters():  # of an adapter merged into its base, the base is frozen
        weight.requires_grad_(weight.is_floating_point())  # all but those that are packed into 4 bits
    if not torch.cuda.is_available():
        embed_by_product(loaded.model)
    if config.freeze_vision:
        loaded.model.model.visual.requires_grad_(False)
    return loaded


def _find_own_device() -> torch.device:
    """Return where this process trains."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def mend_adapters(model: Any) -> None:
    """Put right what TRL does to a model with adapters; of one without, nothing.

    Of a base in 4 bits it rounds adapters to bfloat16, in which small steps are lost: they are made float32 again. With
    gradient checkpointing it asks for gradients of all embeddings, the tower's patches too, and a tower that is frozen
    would be gone back through, which takes its time and memory for nothing.
    """
    plain = plain_model(model)
    if plain is model:
        return
    if getattr(plain, "is_loaded_in_4bit", False):
        for weight in model.parameters():
            if weight.requires_grad:
                weight.data = weight.data.float()
    tower = plain.model.visual
    if not any(weight.requires_grad for weight in tower.parameters()):
        for hook in getattr(plain, "_require_grads_hooks", ()):
            if hook.id in tower.patch_embed._forward_hooks:
                hook.remove()


def _is_sent_weights() -> bool:
    """Tell whether this process gets its weights from the first one: under FSDP2 with `cpu_ram_efficient_loading`.

    transformers reads them in every process all the same: 30 GB each of a 7B model in float32.
    """
    asked = ("ACCELERATE_USE_FSDP", "FSDP_CPU_RAM_EFFICIENT_LOADING")
    if os.environ.get("FSDP_VERSION") != "2" or not all(os.environ.get(name) == "true" for name in asked):
        return False
    return torch.distributed.is_initialized() and torch.distributed.get_rank() > 0


def make_lora(config: StageConfig, loaded: Loaded) -> Any:
    """Make PEFT's settings for the config's adapters; None without. Raises UnivgError for names that fit nothing."""
    if config.lora is None:
        return None
    from peft import LoraConfig

    names = [name for name, module in loaded.model.named_modules() if isinstance(module, nn.Linear)]
    target: str | list[str]
    if config.lora.target == LANGUAGE_LINEAR:
        leaves = {name.rpartition(".")[2] for name in names if ".language_model." in f".{name}"}
        target = rf"(.*\.)?language_model\..*\.({'|'.join(sorted(leaves))})"
    else:
        target = [config.lora.target] if isinstance(config.lora.target, str) else list(config.lora.target)
        check_layers(config.lora, names)
    return LoraConfig(
        r=config.lora.r,
        lora_alpha=config.lora.alpha,  # PEFT divides it by r
        lora_dropout=config.lora.dropout,
        target_modules=target,
    )


def digest_start(model: str) -> dict[str, str]:
    """Return the digests of the files that make a start model, by name; of an adapter, its base's are among them."""
    folders = {"": checkpoint.locate(model).folder}
    if checkpoint.is_adapter(folders[""]):
        folders["base/"] = checkpoint.base_of(folders[""]).folder
    found = {
        prefix + path.name: path
        for prefix, folder in folders.items()
        for path in sorted(folder.iterdir())
        if path.suffix in (".safetensors", ".json", ".jinja", ".txt") and path.name not in _RECORDS
    }
    return dict(zip(found, digest_blocks(list(found.values())), strict=True))
