"""Run `univg doctor`: what this machine has, and what is missing for which verb."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import sys
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from univg.cli.verbs import Command, Parameter, make_verb

if TYPE_CHECKING:
    from univg.models.devices import Device

# The packages of each extra, as pyproject.toml names them, and what else is used where it is there.
EXTRAS = {
    "train": ("trl", "peft", "accelerate", "datasets"),
    "serve": ("starlette", "uvicorn", "prometheus-client"),
    "web": ("gradio",),
    "deepspeed": ("deepspeed",),
    "QLoRA (lora.quantize)": ("bitsandbytes",),
    "rollouts and serving by vLLM": ("vllm",),
}
FOREIGN = "Ж狗"  # letters that Pillow's own font has not
ALWAYS = ("torch", "transformers", "safetensors", "pillow", "numpy")


class DoctorCommand(Command):
    """What `univg doctor` takes."""

    as_json: Annotated[bool, Parameter(name="--json", negative="")] = Field(
        default=False, description="Print one JSON object."
    )


def examine(command: DoctorCommand) -> int:
    """Tell what this machine has: versions, cards, memory, which extras are installed, fonts.

    Exit code 1 if something is wrong that can be put right, such as a torch without CUDA beside an NVIDIA card.
    """
    from univg.models.devices import find_graphics_cards, find_processor, has_cuda_build
    from univg.pictures.fonts import fit_font

    processor, cards = find_processor(), find_graphics_cards()
    font, lines = fit_font([FOREIGN], 20)
    faults = []
    if cards and not has_cuda_build():
        faults.append(
            "torch is built without CUDA, so that the cards are not used: install the build of pytorch.org for CUDA"
        )
    if not importlib.util.find_spec("torch"):
        faults.append("torch is not installed: pip install -e .")
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": {name: _find_version(name) for name in ("univg", *ALWAYS)},
        "processor": _describe(processor),
        "cards": [_describe(card) for card in cards],
        "extras": {extra: {name: _find_version(name) for name in names} for extra, names in EXTRAS.items()},
        "font": str(getattr(font, "path", "")) if lines == [FOREIGN] else None,
        "faults": faults,
    }
    if command.as_json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        _print(found, processor, cards)
    return int(bool(faults))


def _describe(device: Device) -> dict[str, Any]:
    memory = {"bytes": device.memory or None, "free": device.free if device.memory else None}
    return {"name": device.name, **memory, "bf16": device.bf16}


def _find_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _print(found: dict[str, Any], processor: Device, cards: list[Device]) -> None:
    from univg.models.memory import format_bytes

    versions = ", ".join(f"{name} {version or 'missing'}" for name, version in found["versions"].items())
    print(f"python {found['python']}, {found['system']}\n{versions}")
    for kind, device in [("processor", processor), *(("card", card) for card in cards)]:
        precision = "computes in bfloat16" if device.bf16 else "computes in float32 (bfloat16 is slower here)"
        memory = (
            f"{format_bytes(device.memory)}, {format_bytes(device.free)} free"
            if device.memory
            else "how much memory it has is not known"
        )
        print(f"{kind}: {device.name}; {memory}; {precision}")
    if not cards:
        print("card: none of NVIDIA's is found")
    for extra, names in found["extras"].items():
        missing = [name for name, version in names.items() if version is None]
        what = "installed" if not missing else f"not installed ({', '.join(missing)})"
        print(f"{extra}: {what}")
    print(f"font for {FOREIGN} in pictures: {found['font'] or 'none (install Noto Sans CJK)'}")
    for fault in found["faults"]:
        print(f"WRONG: {fault}")
    if not found["faults"]:
        print(
            "what fits here: univg fit ground MODEL, univg fit sft --config PRESET, univg fit grpo --config PRESET"
        )


app = make_verb("doctor", DoctorCommand, examine)
