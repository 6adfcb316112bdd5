"""What memory a machine is said to have, in containers, on cards that are named in every way, and where nobody says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from univg.cli.main import main
from univg.models import devices
from univg.models.devices import Device, find_devices, find_processor, has_cuda_build, read_cards
from univg.training import room
from univg.training.config import SftConfig

CARDS = "0, GPU-8932f937-d72c, NVIDIA A100, 81920, 81000, 8.0\n1, GPU-4cf8db2d-06c0, Tesla T4, 15360, 15101, 7.5\n"
LARGE = SftConfig(model="Qwen/Qwen2-VL-7B-Instruct", max_steps=1)


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["NVIDIA A100", "Tesla T4"]),
        ("1,0", ["Tesla T4", "NVIDIA A100"]),
        ("GPU-4cf8db2d-06c0", ["Tesla T4"]),
        ("GPU-4cf", ["Tesla T4"]),
        ("1,-1,0", ["Tesla T4"]),  # what follows is not seen
        ("MIG-8932f937-d72c", ["MIG-8932f937-d72c"]),
        ("-1", []),
        ("", []),
        ("NoDevFiles", []),
    ],
)
def test_cards_are_found_as_they_are_named(visible: str | None, names: list[str]) -> None:
    found = read_cards(CARDS, visible)
    assert [card.name for card in found] == names
    assert all((card.memory > 0) is not card.name.startswith("MIG") for card in found)


def test_the_build_is_that_of_the_torch_that_is_installed() -> None:
    import torch

    assert has_cuda_build() is (torch.version.cuda is not None)


@pytest.mark.parametrize(("build", "visible"), [("hip", "0"), ("cuda", "0"), ("hip", "-1"), ("", "0")])
def test_a_card_that_nobody_measures_refuses_nothing(
    build: str, visible: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Device("cpu", "a processor", 1 << 30, 1 << 30, False)
    monkeypatch.setattr(devices, "find_build", lambda: build)
    monkeypatch.setattr(devices, "find_graphics_cards", list)
    monkeypatch.setattr(devices, "find_processor", lambda: small)
    monkeypatch.setattr(devices, "_NODES", dict.fromkeys(("cuda", "hip"), tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    (found,) = find_devices()
    if not build or visible == "-1":
        assert found == small
        return
    assert found.kind == "cuda" and not found.memory
    room.check_room(LARGE)


@pytest.mark.parametrize(
    ("limit", "used", "cached"),
    [
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_files_that_were_read_leave_a_container_its_memory(
    limit: str, used: str, cached: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed, taken, files = 64 << 20, 60 << 20, 50 << 20
    for name, text in (
        (limit, f"{allowed}\n"),
        (used, f"{taken}\n"),
        ("memory.stat", f"anon 5\n{cached} {files}\n"),
    ):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(devices, "_CGROUPS", [(tmp_path, *row[1:]) for row in devices._CGROUPS])
    found = find_processor()
    assert (found.memory, found.free) == (allowed, allowed - taken + files)
    (tmp_path / "memory.stat").unlink()
    assert find_processor().free == allowed - taken


def test_where_nobody_says_what_there_is_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on Windows, which has neither `/proc` nor `sysconf`."""
    monkeypatch.setattr(devices, "_read_colons", lambda path: {})
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.setattr(devices, "find_graphics_cards", list)
    monkeypatch.setattr(devices, "find_build", lambda: "")
    assert find_processor().memory == 0
    room.check_room(LARGE)
    main(["doctor"])
    assert "how much memory it has is not known" in capsys.readouterr().out
    assert main(["fit", "ground"]) == 2
    assert "is not known: give --memory" in capsys.readouterr().err
