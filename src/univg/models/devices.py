"""Find what memory this machine has, without torch: importing it takes seconds, and asking it for a card's memory takes
some of that."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = [
    "Device",
    "find_build",
    "find_devices",
    "find_graphics_cards",
    "find_processor",
    "has_cuda_build",
    "is_quick_in_bf16",
]

_QUERY = "index,uuid,name,memory.total,memory.free,compute_cap"
_NODES = {"cuda": Path("/proc/driver/nvidia/version"), "hip": Path("/dev/kfd")}
"""By the build of torch, what there is where the driver of its cards runs."""
_CGROUPS = (  # of the second version and of the first: folder, limit, what is taken, what of it is files not in use
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (
        Path("/sys/fs/cgroup/memory"),
        *("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ),
)
BF16_FROM = 8.0
"""The compute capability from which NVIDIA's cards compute in bfloat16: Ampere's. A T4 has 7.5."""


_NONE = ("", "-1", "none", "void", "NoDevFiles")
"""Values of `CUDA_VISIBLE_DEVICES` by which no card is to be seen."""


@dataclass(frozen=True)
class Device:
    """What a run computes on. `memory` and `free` in bytes, 0 where they are not known; `bf16`: whether it is quick in
    bfloat16."""

    kind: Literal["cuda", "cpu"]
    name: str
    memory: int
    free: int
    bf16: bool


def find_devices() -> list[Device]:
    """Return the graphics cards that the installed torch can use, or else the processor alone."""
    build = find_build()
    cards = find_graphics_cards() if build == "cuda" else []
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0") in _NONE
    if not cards and not hidden and build in _NODES and _NODES[build].exists():
        cards = [Device("cuda", "a card", 0, 0, True)]  # AMD's, or NVIDIA's where nvidia-smi is not
    return cards or [find_processor()]


def has_cuda_build() -> bool:
    """Tell whether the torch that is installed is built for NVIDIA's cards."""
    return find_build() == "cuda"


def find_build() -> Literal["cuda", "hip", ""]:
    """Return for whose cards the torch that is installed is built, as `torch/version.py` says: NVIDIA's, AMD's, or
    nobody's."""
    found = importlib.util.find_spec("torch")
    for folder in (found and found.submodule_search_locations) or ():
        try:
            return read_build((Path(folder) / "version.py").read_text(encoding="utf-8"))
        except OSError:
            continue
    return ""


def read_build(text: str) -> Literal["cuda", "hip", ""]:
    """Read the text of `torch/version.py`.

    >>> read_build("__version__ = '2.13.0'\\ncuda: Optional[str] = '13.0'\\nhip: Optional[str] = None\\n")
    'cuda'
    >>> read_build("cuda = None\\nhip = '7.0'\\n"), read_build("cuda: Optional[str] = None\\n")
    ('hip', '')
    """
    built = re.findall(r"^(cuda|hip)\b[^=\n]*=\s*['\"]\w", text, re.MULTILINE)
    return "cuda" if "cuda" in built else "hip" if built else ""


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
    """Read the lines of `nvidia-smi`, in the order of `visible`, as `CUDA_VISIBLE_DEVICES` is read: identities may be
    cut short, and what follows an unknown one is not seen. Where nothing of it is known (a part of a card, MIG), one
    card whose memory is not known.

    >>> read_cards("0, GPU-1, Tesla T4, 15360, 15101, 7.5\\n")
    [Device(kind='cuda', name='Tesla T4', memory=16106127360, free=15834546176, bf16=False)]
    >>> read_cards("0, GPU-1, Tesla T4, 15360, 15101, 7.5\\n", visible="")
    []
    >>> read_cards("0, GPU-1, Tesla T4, 15360, 15101, 7.5\\n", visible="MIG-GPU-1/7/0")
    [Device(kind='cuda', name='MIG-GPU-1/7/0', memory=0, free=0, bf16=True)]
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
    chosen: list[Device] = []
    for key in map(str.strip, visible.split(",")):
        found = [name for name in cards if name == key or (key.startswith("GPU-") and name.startswith(key))]
        if not found:
            break
        chosen.append(cards[found[0]])
    if not chosen and cards and visible.strip() not in _NONE:
        return [Device("cuda", visible.strip(), 0, 0, True)]
    return chosen


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
        total = free = _ask_system()
    for folder, limit, used, cached in _CGROUPS:
        allowed, taken = _read_number(folder / limit), _read_number(folder / used)
        if allowed is not None and allowed < total:
            total = allowed
            # What is read of files counts as taken until somebody needs the room.
            taken = 0 if taken is None else taken - _read_field(folder / "memory.stat", cached)
            free = min(free, total, max(0, total - taken))
    facts = _read_colons(Path("/proc/cpuinfo"))
    name = facts.get("model name") or platform.processor() or platform.machine()
    quick = is_quick_in_bf16(facts, platform.machine(), platform.system())
    return Device("cpu", f"{name}, {os.cpu_count()} threads", total, free, quick)


def is_quick_in_bf16(facts: Mapping[str, str], machine: str, system: str = "Linux") -> bool:
    """Tell by the lines of `/proc/cpuinfo` whether a processor is quicker in bfloat16 than in float32.

    With AMX it is, three to six times. With AVX512-BF16 alone AMD's count as quick (measured on Zen 5: five times;
    Zen 4, which has it at half the width, was not measured), and Intel's do not: they take 1.1 to 1.5 times as long.
    Emulating takes 4 times on AVX-512 and more than 20 times without
    (docs/experiments.md, section 11).

    >>> is_quick_in_bf16({"vendor_id": "AuthenticAMD", "flags": "fma avx512_bf16"}, "x86_64")
    True
    >>> is_quick_in_bf16({"vendor_id": "GenuineIntel", "flags": "fma avx512_bf16"}, "x86_64")
    False
    >>> is_quick_in_bf16({"vendor_id": "GenuineIntel", "flags": "fma avx512_bf16 amx_tile"}, "x86_64")
    True
    >>> is_quick_in_bf16({"Features": "asimd bf16"}, "aarch64"), is_quick_in_bf16({"Features": "asimd"}, "aarch64")
    (True, False)
    >>> is_quick_in_bf16({}, "arm64", "Darwin")
    True
    """
    flags = f"{facts.get('flags', '')} {facts.get('Features', '')}".split()
    if machine.lower() in ("x86_64", "amd64"):
        return "amx_tile" in flags or (facts.get("vendor_id") == "AuthenticAMD" and "avx512_bf16" in flags)
    return "bf16" in flags or system == "Darwin"


def _ask_system() -> int:
    """Return the machine's memory in bytes as POSIX tells it; 0 where nobody does (Windows)."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0


def _read_colons(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _read_field(path: Path, name: str) -> int:
    """Return the number that stands behind a name in a file of such lines; 0 without one."""
    try:
        found = re.search(rf"^{name} (\d+)$", path.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0
