"""Find what memory this machine has, without torch: importing it takes seconds, and asking it for a card's memory takes
some of that."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Device", "find_devices", "find_graphics_cards", "find_processor"]

_QUERY = "index,uuid,name,memory.total,memory.free,compute_cap"
BF16_FROM = 8.0
"""The compute capability from which NVIDIA's cards compute in bfloat16: Ampere's. A T4 has 7.5."""


@dataclass(frozen=True)
class Device:
    """What a run computes on. `memory` and `free` in bytes; `bf16`: whether it is quick in bfloat16."""

    kind: Literal["cuda", "cpu"]
    name: str
    memory: int
    free: int
    bf16: bool


def find_devices() -> list[Device]:
    """Return the graphics cards that the installed torch can use, or else the processor alone."""
    return (find_graphics_cards() if has_cuda_build() else []) or [find_processor()]


def has_cuda_build() -> bool:
    """Tell whether the torch that is installed is built for NVIDIA's cards, as far as its version says."""
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return False
    return "+cpu" not in version and platform.system() != "Darwin"


def find_graphics_cards(environment: Mapping[str, str] = os.environ) -> list[Device]:
    """Return NVIDIA's cards as `nvidia-smi` lists them, those of `CUDA_VISIBLE_DEVICES` alone where it is set."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return read_cards(listed, environment.get("CUDA_VISIBLE_DEVICES"))


def read_cards(listed: str, visible: str | None = None) -> list[Device]:
    """Read the lines of `nvidia-smi`, in the order of `visible`.

    >>> read_cards("0, GPU-1, Tesla T4, 15360, 15101, 7.5\\n")
    [Device(kind='cuda', name='Tesla T4', memory=16106127360, free=15834546176, bf16=False)]
    >>> read_cards("0, GPU-1, Tesla T4, 15360, 15101, 7.5\\n", visible="")
    []
    """
    cards = {}
    for line in listed.strip().splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 6 or not fields[3].isdecimal():
            continue  # a card that a line says an error of
        index, identity, name, total, free, capability = fields
        quick = _number(capability) >= BF16_FROM
        cards[index] = cards[identity] = Device(
            "cuda", name, int(total) << 20, int(_number(free)) << 20, quick
        )
    if visible is None:
        return [card for key, card in cards.items() if key.isdecimal()]
    return [cards[key.strip()] for key in visible.split(",") if key.strip() in cards]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def find_processor() -> Device:
    """Return the processor with the machine's memory, or as much of it as this container may have."""
    stated = _read_colons(Path("/proc/meminfo"))
    if "MemTotal" in stated:
        total = int(stated["MemTotal"].split()[0]) << 10
        free = int(stated.get("MemAvailable", stated["MemTotal"]).split()[0]) << 10
    else:
        total = free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        allowed, taken = _read_number(limit), _read_number(used)
        if allowed is not None and allowed < total:
            total = allowed
            free = min(free, total) if taken is None else min(free, max(0, total - taken))
    facts = _read_colons(Path("/proc/cpuinfo"))
    flags = f" {facts.get('flags', '')} {facts.get('Features', '')} "
    arm = platform.machine().lower() not in ("x86_64", "amd64")
    quick = " amx_tile " in flags or (arm and (" bf16 " in flags or platform.system() == "Darwin"))
    name = facts.get("model name") or platform.processor() or platform.machine()
    return Device("cpu", f"{name}, {os.cpu_count()} threads", total, free, quick)


def _read_colons(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _read_number(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None
