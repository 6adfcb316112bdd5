"""Check what needs no torch before torch is imported: a wrong setting costs a second, not twelve.

Called by the command before it imports a stage, and by the stages themselves for those who call them from Python.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterator
from pathlib import Path

from univg.errors import UnivgError, one_line, suggest
from univg.files import check_exists
from univg.models import checkpoint
from univg.models.families import MODEL_FAMILIES
from univg.terminal import is_first_process
from univg.training.config import LANGUAGE_LINEAR, LoraSettings, StageConfig, Validation
from univg.training.room import check_room
from univg.training.run.launch import (
    check_launch,
    count_processes,
    divides_weights,
    find_fsdp_version,
    name_division,
)
from univg.training.sources import SampleSource
from univg.training.trainer_keys import OPTIMIZERS, REPORTERS

__all__ = ["check_layers", "check_stage"]


def check_stage(config: StageConfig, resume: bool = False) -> None:
    """Raise UnivgError for settings of either stage that cannot be, as far as that shows without torch."""
    check_launch()
    for index, source in enumerate(config.data):
        _check_source(f"data.{index}", source)
    if config.validation is not None:
        _check_validation(config, config.validation)
    if config.max_steps is None and any(s.reader == "world" and s.count is None for s in config.data):
        raise UnivgError(
            "max_steps",
            "the world has no end, so epochs has no meaning",
            "give max_steps, or the world's count",
        )
    _check_passed(config, resume)
    _check_model(config)
    _check_four_bits(config)
    check_room(config)


def _check_validation(config: StageConfig, wanted: Validation) -> None:
    if wanted.keep_best and divides_weights(config):
        raise UnivgError(
            "validation.keep_best: the best step's weights cannot be put back where they are divided between processes",
            remedy="set validation.keep_best=false: the finished model is the last step's, and each checkpoint a model",
        )
    if name_division(config) == "FSDP" and find_fsdp_version(config) != 2:
        raise UnivgError(
            "validation: FSDP of version 1 cannot put the weights together for an answer, and would wait for ever",
            remedy="set fsdp_version: 2 in the launch config (as in configs/accelerate/fsdp2.yaml)",
        )
    if wanted.share is None:
        _check_source("validation", wanted)
    elif all(source.reader == "world" for source in config.data):
        raise UnivgError(
            "validation.share: data is the procedural world, of which there are no photographs to hold out",
            remedy="give validation.reader=world, which asks of its test split",
        )


def _check_source(key: str, source: SampleSource) -> None:
    if source.reader == "world":
        from univg.world import FAMILY_NAMES

        for name in source.families or ():
            if name not in FAMILY_NAMES:
                remedy = suggest(name, FAMILY_NAMES)
                raise UnivgError(f"{key}.families: no task family {name!r}", remedy=remedy)
        return
    from univg.data.readers import READERS, detect

    if source.reader != "auto" and source.reader not in READERS:
        known = ("world", "auto", *READERS)
        raise UnivgError(f"{key}.reader: no reader {source.reader!r}", remedy=suggest(source.reader, known))
    path = Path(str(source.path))
    check_exists(path, f"{key}.path: ")
    if source.images is not None and not Path(source.images).is_dir():
        raise UnivgError(f"{key}.images: no such folder", source.images, "name the folder of the images")
    if source.reader == "auto":
        try:
            detect(path)
        except UnivgError as error:
            remedy = error.remedy.replace("--format", f"{key}.reader")
            raise UnivgError(f"{key}.path: {error.cause}", error.place, remedy) from error


def _check_passed(config: StageConfig, resume: bool) -> None:
    """Check what `trainer` needs of this machine: packages, files, processes."""
    given = config.trainer
    named = given.get("report_to", [])
    for name in [named] if isinstance(named, str) else named:
        packages = REPORTERS.get(name, ())
        if packages and not any(map(_is_installed, packages)):
            _refuse_missing(f"trainer.report_to: {name}", packages[0])
        if name == "wandb" and is_first_process():
            _check_login()
    optimizer = given.get("optim", "")
    if OPTIMIZERS.get(optimizer) and not _is_installed(OPTIMIZERS[optimizer]):
        _refuse_missing(f"trainer.optim: {optimizer}", OPTIMIZERS[optimizer])
    if given.get("use_liger_kernel") and not _is_installed("liger_kernel"):
        _refuse_missing("trainer.use_liger_kernel", "liger_kernel")
    for name in ("deepspeed", "fsdp_config"):
        if isinstance(given.get(name), str) and not Path(given[name]).is_file():
            raise UnivgError(f"trainer.{name}: no such file", given[name], "check the path")
    if given.get("deepspeed") and not _is_installed("deepspeed"):
        _refuse_missing("trainer.deepspeed", "deepspeed")
    if given.get("fsdp") and count_processes() == 1:
        raise UnivgError(
            "trainer.fsdp: there is one process, and nothing to divide",
            remedy="start several: accelerate launch --config_file configs/accelerate/fsdp2.yaml -m univg …",
        )
    if given.get("ddp_backend") and count_processes() == 1:
        raise UnivgError(
            "trainer.ddp_backend: there is one process, which talks to no other", remedy="leave it out"
        )
    if resume and given.get("sync_ref_model"):
        raise UnivgError(
            "trainer.sync_ref_model: checkpoints do not hold the synchronised reference",
            remedy="a run with it cannot be resumed: start anew with another --out",
        )


def _check_login() -> None:
    """Raise UnivgError where Weights & Biases would ask for a key, which nobody may be there to type."""
    import wandb  # type: ignore[import-not-found, unused-ignore]

    if wandb.setup().settings.mode in ("offline", "dryrun", "disabled"):
        return
    try:
        known, why = wandb.login(prompt=False), "nobody is logged in"
    except wandb.errors.Error as error:
        known, why = False, one_line(str(error))
    if not known:
        raise UnivgError(
            f"trainer.report_to: wandb: {why}",
            remedy="log in with wandb login (or WANDB_API_KEY), or set WANDB_MODE=offline and send the run later with "
            "wandb sync",
        )


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _refuse_missing(what: str, package: str) -> None:
    name = {"optimi": "torch-optimi"}.get(package, package.replace("_", "-"))
    raise UnivgError(f"{what} needs {package}, which is not installed", remedy=f"pip install {name}")


def _check_model(config: StageConfig) -> None:
    try:
        source = checkpoint.locate(config.model)
        if checkpoint.is_adapter(source.folder):
            _refuse_adapter(config)
            if source.repository is None:
                checkpoint.adapter_folder(config.model)
            return
        kind = checkpoint.model_type(source.folder)
        if kind not in MODEL_FAMILIES:
            known = f"known families are {', '.join(MODEL_FAMILIES)}"
            raise UnivgError(f"unknown model family {kind!r}", config.model, known)
        files = (
            checkpoint.weight_files(source) if source.repository is None else []
        )  # a hub's are not here yet
    except UnivgError as error:
        cause = error.cause.removeprefix("model: ")
        raise UnivgError(f"model: {cause}", error.place, error.remedy) from error
    if config.lora is not None and files:
        check_layers(config.lora, set(_list_matrices(files)))


def _check_four_bits(config: StageConfig) -> None:
    """Check what `lora.quantize` needs: bitsandbytes, and whole weights in each process."""
    if config.lora is None or config.lora.quantize == "none":
        return
    what = f"lora.quantize: {config.lora.quantize}"
    if not _is_installed("bitsandbytes"):
        raise UnivgError(
            f"{what} needs bitsandbytes, which is not installed", remedy="pip install 'univg[train,qlora]'"
        )
    if divides_weights(config):
        cause = "weights packed into 4 bits cannot be divided between processes here"
        raise UnivgError(cause, what, "leave it out, or use torchrun (DDP)")
    if getattr(config, "vllm", "off") != "off":
        cause = "adapters are handed to vLLM in their base, which is packed here"
        raise UnivgError(cause, what, "use vllm=off, or lora.quantize=none")


def _refuse_adapter(config: StageConfig) -> None:
    remedy = f"merge it first: univg merge {config.model} --out FOLDER"
    if config.lora is not None:
        raise UnivgError("it is a LoRA adapter, and a new one cannot stand on it", config.model, remedy)
    if getattr(config, "beta", 0):
        why = "it is a LoRA adapter, so the reference of the KL term would be its base"
        raise UnivgError(why, config.model, remedy)


def _list_matrices(files: list[Path]) -> Iterator[str]:
    """Yield the modules whose weight is a matrix: linear layers, and embeddings."""
    from safetensors import safe_open

    for file in files:
        with safe_open(file, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (no mapping)
                if name.endswith(".weight") and len(tensors.get_slice(name).get_shape()) == 2:
                    yield name.removesuffix(".weight")


def check_layers(lora: LoraSettings, names: Collection[str]) -> None:
    """Raise UnivgError unless each of `lora.target` is the name, or the last part of one, of a linear layer.

    A dotted target is left to PEFT: published files call layers otherwise than the model does.
    """
    wanted = [lora.target] if isinstance(lora.target, str) else lora.target
    leaves = {name.rpartition(".")[2] for name in names}
    for target in wanted:
        if target != LANGUAGE_LINEAR and "." not in target and target not in leaves:
            layers = sorted(leaf for leaf in leaves - {"lm_head", "embed_tokens"} if not leaf.isdecimal())
            raise UnivgError(
                f"lora.target: no linear layer named {target!r}",
                remedy=f"use {LANGUAGE_LINEAR!r} or some of {', '.join(layers)}",
            )
