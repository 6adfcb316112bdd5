"""The command that starts vLLM with a checkpoint's own conventions: pixel budget, images a request, greedy default."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from univg.errors import UnivgError


@dataclass(frozen=True)
class VllmSettings:
    """`model`: a folder, or a hub name with its `revision`. `further`: arguments passed on as they are."""

    model: str
    name: str
    host: str
    port: int
    min_pixels: int
    max_pixels: int
    images: int
    dtype: str = "auto"
    revision: str | None = None
    remote_images: bool = False
    further: Sequence[str] = ()


def vllm_command(program: str, settings: VllmSettings) -> list[str]:
    """The arguments of `vllm serve`. An API key is not among them, where every user of the machine could read it.

    >>> asked = VllmSettings("m", "m", "127.0.0.1", 8000, 3136, 401408, images=4)
    >>> vllm_command("vllm", asked)[-8:]  # doctest: +NORMALIZE_WHITESPACE
    ['--generation-config', 'vllm', '--override-generation-config', '{"temperature": 0.0}',
     '--dtype', 'auto', '--allowed-media-domains', 'nowhere.invalid']
    """
    command = [program, "serve", settings.model]
    command += ["--host", settings.host, "--port", str(settings.port), "--served-model-name", settings.name]
    if settings.revision is not None:
        command += ["--revision", settings.revision, "--tokenizer-revision", settings.revision]
    command += ["--limit-mm-per-prompt", json.dumps({"image": settings.images, "video": 0})]
    pixels = {"min_pixels": settings.min_pixels, "max_pixels": settings.max_pixels}
    command += ["--mm-processor-kwargs", json.dumps(pixels)]
    # A checkpoint's own sampling defaults (a repetition penalty, say) would change coordinates.
    command += [
        "--generation-config",
        "vllm",
        "--override-generation-config",
        json.dumps({"temperature": 0.0}),
    ]
    command += ["--dtype", settings.dtype]
    if not settings.remote_images:
        # vLLM fetches from anywhere unless domains are named; this one cannot exist (RFC 2606).
        command += ["--allowed-media-domains", "nowhere.invalid"]
    return [*command, *settings.further]


def find_vllm() -> str:
    """The program's path. Errors: UnivgError."""
    beside = shutil.which("vllm", path=str(Path(sys.executable).parent))
    program = beside or shutil.which("vllm")
    if program is None:
        raise UnivgError(
            "vLLM is not installed: --engine vllm: pip install vllm into this environment "
            "(it needs a GPU), or leave --engine out"
        )
    return program
