"""Start vLLM with a checkpoint's own conventions: pixel budget, images a request, data type, greedy by default.

Where vLLM runs in univg's own environment, two things are added to it: it says in its list of models how the model is
asked (`vllm_card`), and writes no token that belongs to prompts (`vllm_marks`).
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg.errors import UnivgError
from univg.serve.config import ServeConfig
from univg.serve.vllm_card import CARD_VARIABLE
from univg.terminal import notes

if TYPE_CHECKING:
    from univg.models.checkpoint import Source
    from univg.models.families import ModelFamily
    from univg.models.pixels import PixelBudget

__all__ = ["build_command", "start_vllm"]

_MEDIA_DOMAINS = "--allowed-media-domains"
_MIDDLEWARE, _LOGITS = "univg.serve.vllm_card.ModelCard", "univg.serve.vllm_marks:ChatMarks"


def start_vllm(config: ServeConfig, api_key: str | None) -> None:
    """Let vLLM take this process's place. Raises UnivgError for what keeps it from starting."""
    from univg.models import checkpoint
    from univg.models.conventions import read_conventions
    from univg.models.families import MODEL_FAMILIES
    from univg.models.layout import find_rotary_fault
    from univg.models.loading import find_stored_dtype

    source = checkpoint.locate(config.model)
    if checkpoint.is_adapter(source.folder):
        raise UnivgError("a LoRA adapter must be merged for vLLM", config.model, "use univg merge first")
    family = MODEL_FAMILIES.get(checkpoint.model_type(source.folder))
    if family is None:  # which is vLLM's own affair: nothing is said of how it is asked
        card, budget = None, _limit(read_conventions(source.folder)[1], config)
    else:
        card, budget = _describe(config, source, family)
    program = _find_vllm()
    if (fault := find_rotary_fault(source.folder)) is not None:
        raise UnivgError(f"vLLM cannot run {config.model}: {fault}", "--engine vllm", "leave --engine out")
    # vLLM's own "auto" computes float32 weights in half precision. Others it chooses as the GPU can compute.
    if config.dtype == "auto" and (_is_for_cpus() or find_stored_dtype(source.folder) == "float32"):
        config = config.model_copy(update={"dtype": "float32"})
    adds = card is not None and _is_beside(program)
    command = build_command(program, config, source, budget, adds=adds)
    # A key among the arguments could be read by every user of the machine. Redirects lead out of the allowed domains.
    environment = {"VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0", **os.environ}
    if card is not None:
        environment[CARD_VARIABLE] = json.dumps(card)
    if api_key is not None:
        environment["VLLM_API_KEY"] = api_key
    os.execve(command[0], command, environment)


def _describe(config: ServeConfig, source: Source, family: ModelFamily) -> tuple[dict[str, Any], PixelBudget]:
    """Return what is said of a model of a known family, and its pixel budget; tell what was chosen for it."""
    from univg.models.conventions import find_conventions, list_choices

    found = find_conventions(source, family)
    for note in list_choices(found.style_note, found.pixels_note, max_pixels=config.max_pixels):
        notes().print(f"note: {note}")
    budget = _limit(found.pixel_budget, config)
    card = {
        "family": family.model_type,
        "frame": family.frame,
        "prompt_style": found.prompt_style,
        "min_pixels": budget.min_pixels,
        "max_pixels": budget.max_pixels,
        "factor": _read_factor(source.folder) or family.factor,
        "engine": "vllm",
    }
    return card, budget


def _limit(budget: PixelBudget, config: ServeConfig) -> PixelBudget:
    return budget if config.max_pixels is None else budget.up_to(config.max_pixels)


def build_command(
    program: str, config: ServeConfig, source: Source, budget: PixelBudget, *, adds: bool = False
) -> list[str]:
    """Build the arguments of `vllm serve`; the API key is not among them. `adds`: vLLM can import univg.

    >>> from univg.models.checkpoint import Source
    >>> from univg.models.pixels import PixelBudget
    >>> config = ServeConfig(model="org/m", engine="vllm", vllm_arguments=("--seed", "1"))
    >>> build_command("vllm", config, Source(Path("/m"), "org/m", "abc"), PixelBudget())[-8:]
    ['--override-generation-config', '{"temperature": 0.0}', '--dtype', 'auto', '--allowed-media-domains',
     'nowhere.invalid', '--seed', '1']
    """
    pixels = {"min_pixels": budget.min_pixels, "max_pixels": budget.max_pixels}
    options = {
        "--host": config.host,
        "--port": str(config.port),
        "--served-model-name": config.served_name,
        "--limit-mm-per-prompt": json.dumps({"image": config.max_images, "video": 0}),
        "--mm-processor-kwargs": json.dumps(pixels),
        # A checkpoint's own sampling defaults (a repetition penalty, say) would change coordinates.
        "--generation-config": "vllm",
        "--override-generation-config": json.dumps({"temperature": 0.0}),
        "--dtype": config.dtype,
    }
    if source.revision is not None:
        options = {"--revision": source.revision, "--tokenizer-revision": source.revision, **options}
    if not _names_media_domains(config.vllm_arguments):
        # vLLM fetches from anywhere unless domains are named; this one cannot exist (RFC 2606).
        options[_MEDIA_DOMAINS] = "nowhere.invalid"
    if adds:
        options["--middleware"] = _MIDDLEWARE
        if not any(one.startswith(("--spec", "-sc")) for one in config.vllm_arguments):
            options["--logits-processors"] = _LOGITS  # which vLLM does not take with speculative decoding
    named = [part for option in options.items() for part in option]
    return [program, "serve", source.repository or str(source.folder), *named, *config.vllm_arguments]


def _names_media_domains(arguments: Sequence[str]) -> bool:
    """Tell whether the user says himself where vLLM may fetch from; vLLM takes underscores for hyphens.

    >>> _names_media_domains(["--seed", "1"]), _names_media_domains(["--allowed_media_domains=example.org"])
    (False, True)
    """
    return any(one.partition("=")[0].replace("_", "-") == _MEDIA_DOMAINS for one in arguments)


def _find_vllm() -> str:
    """Return the program's path. Raises UnivgError."""
    beside = shutil.which("vllm", path=str(Path(sys.executable).parent))
    program = beside or shutil.which("vllm")
    if program is None:
        raise UnivgError(
            "vLLM is not installed",
            "--engine vllm",
            "pip install vllm into this environment (it needs a GPU), or leave --engine out",
        )
    return program


def _is_beside(program: str) -> bool:
    """Tell whether this is the program of univg's own environment, which can import univg."""
    return Path(program).parent == Path(sys.executable).parent


def _is_for_cpus() -> bool:
    """Tell whether vLLM is its build for CPUs, as it tells itself; one of another environment counts as for GPUs."""
    try:
        return "cpu" in importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return False


def _read_factor(folder: Path) -> int | None:
    """Return what both sides of an image are multiples of, as `config.json` states it."""
    from univg.models import checkpoint

    vision: dict[str, Any] = checkpoint.read_json(folder / checkpoint.CONFIG_FILE).get("vision_config") or {}
    patch, merge = vision.get("patch_size"), vision.get("spatial_merge_size")
    return patch * merge if isinstance(patch, int) and isinstance(merge, int) else None
