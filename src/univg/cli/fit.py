"""Run `univg fit …`: what memory a run takes, from its config and its model's shapes, before anything is loaded."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from cyclopts import App
from pydantic import Field, field_validator

from univg.cli.verbs import Command, Parameter, make_verb
from univg.errors import UnivgError
from univg.training.config import GrpoConfig, SftConfig

if TYPE_CHECKING:
    from univg.models.devices import Device
    from univg.models.memory import Asked, Estimate
    from univg.models.shapes import Shapes

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(gib|gb|g|mib|mb|m)?", re.IGNORECASE)
_UNITS = {"gib": 1 << 30, "g": 1 << 30, "gb": 10**9, "mib": 1 << 20, "m": 1 << 20, "mb": 10**6}


class FitCommand(Command):
    """What every kind of `univg fit` takes: the machine, and what a row holds."""

    memory: Annotated[str | None, Parameter(metavar="SIZE")] = Field(
        default=None,
        description="Of one card, such as 16GiB, or 80GB of 10^9 bytes (default: what this machine has).",
    )
    images: int = Field(default=4, ge=1, description="Pictures a row, each of the largest size.")
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = Field(
        default=False, description="Print one JSON object."
    )

    @field_validator("memory")
    @classmethod
    def _is_a_size(cls, value: str | None) -> str | None:
        found = None if value is None else _SIZE.fullmatch(value.strip())
        if value is not None and (found is None or not float(found[1])):
            raise ValueError("write a size such as 16GiB or 80GB")
        return value

    def device(self, bf16: bool = True) -> Device:
        """Return the card that `memory` describes, or what this machine has."""
        from univg.models.devices import Device, find_devices

        if self.memory is None:
            found = find_devices()[0]
            if not found.memory:
                raise UnivgError(
                    f"how much memory {found.name} has is not known", remedy="give --memory, such as 16GiB"
                )
            return found
        size_of = _SIZE.fullmatch(self.memory.strip())
        assert size_of is not None
        unit = (size_of[2] or "gib").lower()
        size = int(float(size_of[1]) * _UNITS[unit])
        return Device("cuda", f"a card of {self.memory}", size, size, bf16)


class FitStage(FitCommand):
    """What a stage's fit takes beside."""

    gpus: int = Field(default=1, ge=1, description="Processes, a card each.")
    sharding: Literal["none", "zero2", "zero3", "fsdp2"] = Field(
        default="none", description="How weights, gradients and optimizer are divided between them."
    )


class FitSft(FitStage, SftConfig):
    """What `univg fit sft` takes."""

    answer: int = Field(default=256, ge=1, description="Tokens of the longest response.")


class FitGrpo(FitStage, GrpoConfig):
    """What `univg fit grpo` takes."""


class FitGround(FitCommand):
    """What `univg fit ground` takes."""

    positional: ClassVar[str | None] = "model"

    model: Annotated[str, Parameter(metavar="MODEL")] = Field(
        default="embedded", description="A folder, an embedded or a hub name."
    )
    batch_size: int = Field(default=1, ge=1, description="Questions answered at once (evaluate, serve).")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Of the weights; auto: float32 on a processor, else bfloat16."
    )
    max_pixels: int | None = Field(
        default=None, ge=784, description="Of a picture, once resized (default: the checkpoint's)."
    )
    max_new_tokens: int = Field(default=256, ge=1, description="Longest response.")


def fit_sft(command: FitSft) -> int:
    """Estimate what memory stage 1 takes. Exit code 1 if it does not fit."""
    return _fit_stage(command, command.part(SftConfig), command.answer)


def fit_grpo(command: FitGrpo) -> int:
    """Estimate what memory stage 2 takes. Exit code 1 if it does not fit."""
    return _fit_stage(command, command.part(GrpoConfig), command.max_completion_tokens)


def _fit_stage(command: FitStage, config: SftConfig | GrpoConfig, answer: int) -> int:
    from univg.models.shapes import read_shapes
    from univg.training.memory import Machine, asked_by, estimate_training
    from univg.training.room import advise, read_stored_budget

    try:
        shapes = read_shapes(config.model)
    except UnivgError as error:
        start = "a model that is yet to be trained takes what its start takes: model=Qwen/Qwen2-VL-7B-Instruct, say"
        raise UnivgError(error.cause, error.place, "; ".join(filter(None, (error.remedy, start)))) from error
    device = command.device()
    stored = None if config.pixel_budget else read_stored_budget(config.model)
    asked = asked_by(config, command.images, answer, stored)
    memory = device.memory if device.kind == "cuda" else device.free // command.gpus
    machine = Machine(device.kind, device.bf16, command.gpus, command.sharding, memory)
    estimate = estimate_training(config, shapes, machine, asked)
    prompt = asked.prompt(shapes, config.max_tokens and config.max_tokens - answer)
    changes = list(advise(config, shapes, machine, asked, memory)) if estimate.total > memory else []
    return _tell(command, config.model, shapes, asked, prompt, estimate, device, memory, changes)


def fit_ground(command: FitGround) -> int:
    """Estimate what memory answering takes (`univg ground`, `evaluate`, `serve`). Exit code 1 if it does not fit."""
    from univg.models.conventions import find_budget
    from univg.models.memory import Asked, estimate_answering
    from univg.models.shapes import read_shapes

    shapes, device = read_shapes(command.model), command.device()
    full = command.dtype == "float32" or (command.dtype == "auto" and device.kind == "cpu")
    pixels = command.max_pixels or find_budget(command.model).max_pixels
    asked = Asked(command.images, pixels, answer=command.max_new_tokens)
    memory = device.memory if device.kind == "cuda" else device.free
    rows, size = command.batch_size, 4 if full else 2
    half = ["--dtype bfloat16"] * full
    one = [*half, *["--batch-size 1"] * (rows > 1)]
    trials = [
        ("", rows, asked, size),
        (" ".join(half), rows, asked, 2),
        (" ".join(one), 1, asked, 2),
        (" ".join([*one, "--max-pixels 200704"]), 1, replace(asked, pixels=min(pixels, 200704)), 2),
    ]
    estimates = [(name, estimate_answering(shapes, each, rows, size)) for name, rows, each, size in trials]
    estimate = estimates[0][1]
    smaller = [(name, less.total) for name, less in estimates[1:] if less.total < estimate.total]
    changes = smaller[: next((i + 1 for i, (_, total) in enumerate(smaller) if total <= memory), None)]
    told = changes[-1:] if estimate.total > memory else []
    return _tell(command, command.model, shapes, asked, asked.prompt(shapes), estimate, device, memory, told)


def _tell(
    command: FitCommand,
    model: str,
    shapes: Shapes,
    asked: Asked,
    prompt: int,
    estimate: Estimate,
    device: Device,
    memory: int,
    changes: Sequence[tuple[str, int]],
) -> int:
    # long because everything that was found is told in one place, as a table or as JSON
    from univg.models.memory import format_bytes

    fits = estimate.total <= memory
    if command.as_json:
        told = {
            "model": model,
            "parameters": shapes.parameters,
            "prompt_tokens": prompt,
            "device": {"kind": device.kind, "name": device.name, "bytes": memory, "bf16": device.bf16},
            "when": estimate.when,
            "parts": dict(estimate.parts),
            "total": estimate.total,
            "fits": fits,
            "changes": [{"set": name, "total": total} for name, total in changes],
        }
        sys.stdout.write(json.dumps(told) + "\n")
        return 0 if fits else 1
    print(f"{model}: {shapes.parameters / 1e9:.2f} G parameters ({shapes.model_type})")
    print(
        f"prompts of {asked.images} pictures of {asked.pixels:,} pixels: {prompt:,} tokens, answers of {asked.answer}"
    )
    width = max(map(len, [*estimate.parts, "together, " + estimate.when]))
    for name, size in sorted(estimate.parts.items(), key=lambda part: -part[1]):
        print(f"  {name:{width}}  {format_bytes(size):>10}")
    print(f"  {'together, ' + estimate.when:{width}}  {format_bytes(estimate.total):>10}")
    here = f"{format_bytes(memory)}{' free' if device.kind == 'cpu' else ''}, {device.name}"
    if fits:
        print(f"fits in {here}, with {format_bytes(memory - estimate.total)} left")
        return 0
    print(f"does not fit in {here}: {format_bytes(estimate.total - memory)} too much")
    suffices = bool(changes) and changes[-1][1] <= memory
    for place, (name, total) in enumerate(changes):
        first = "try" if suffices else "nearer comes"
        print(f"  {'and' if place else first} {name}: {format_bytes(total)}")
    if not suffices:
        cards = "more cards (--gpus 8 --sharding zero3)" if isinstance(command, FitStage) else "a larger card"
        print(f"  what is left does not fit either: a smaller model, or {cards}")
    return 1


app = App(name="fit", help="Estimate what memory a run takes, before anything is loaded, and what to change.")
for order, verb in enumerate(
    (
        make_verb(
            "fit sft", FitSft, fit_sft, example="univg fit sft --config qwen2-vl-2b-lora-sft --memory 16GiB"
        ),
        make_verb(
            "fit grpo",
            FitGrpo,
            fit_grpo,
            example="univg fit grpo --config qwen2-vl-7b-grpo model=Qwen/Qwen2-VL-7B-Instruct --gpus 8",
        ),
        make_verb(
            "fit ground",
            FitGround,
            fit_ground,
            example="univg fit ground Qwen/Qwen3-VL-2B-Instruct --images 2",
        ),
    )
):
    verb.sort_key = order
    app.command(verb)
