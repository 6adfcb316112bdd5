"""`univg fit` and `univg doctor`: what they print, their exit codes, and that they load nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from univg.cli.main import main
from univg.models.devices import Device
from univg.models.memory import GIB

CARD = "--memory"


def read(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, object]]:
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["fit", "sft", "--config", "qwen2-vl-2b-lora-sft", CARD, "16GiB"], 0),
        (["fit", "sft", "--config", "qwen3-vl-8b-lora-sft", CARD, "16GiB"], 1),
        (["fit", "sft", "--config", "qwen3-vl-8b-lora-sft", CARD, "16GiB", "lora.quantize=nf4"], 0),
        (["fit", "grpo", "--config", "tiny-grpo", CARD, "8GB"], 0),
        (["fit", "grpo", "model=Qwen/Qwen2-VL-7B-Instruct", CARD, "80GiB"], 1),
        (["fit", "ground", "Qwen/Qwen2.5-VL-7B-Instruct", CARD, "24GiB"], 0),
        (["fit", "ground", "Qwen/Qwen2.5-VL-7B-Instruct", CARD, "12288MiB"], 1),
    ],
    ids=lambda value: " ".join(value[1:4]) if isinstance(value, list) else "",
)
def test_the_exit_code_says_whether_it_fits(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    found, told = read(capsys, *arguments)
    assert found == code and told["fits"] is (code == 0)
    parts, device = told["parts"], told["device"]
    assert isinstance(parts, dict) and isinstance(device, dict)
    assert told["total"] == sum(parts.values())
    assert (told["total"] <= device["bytes"]) is (code == 0)
    assert bool(told["changes"]) is (code == 1)


def test_the_table_says_parts_total_and_what_to_change(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "sft", "--config", "qwen2-vl-7b-lora-sft", CARD, "16GiB"]) == 1
    out = capsys.readouterr().out
    assert "8.29 G parameters (qwen2_vl)" in out and "together, at the end of a forward pass" in out
    assert "does not fit in 16.0 GiB, a card of 16GiB" in out and "try lora.quantize=nf4: 10." in out
    assert main(["fit", "sft", "--config", "qwen2-vl-7b-lora-sft", CARD, "24GiB"]) == 0
    assert "fits in 24.0 GiB, a card of 24GiB, with 4." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fit", "sft", CARD, "much"], "write a size such as 16GiB"),
        (["fit", "sft", CARD, "0GiB"], "write a size such as 16GiB"),
        (["fit", "grpo", "--gpus", "3", CARD, "80GiB"], "16 prompts a step cannot be dealt to 3 processes"),
        (["fit", "ground", "nowhere", CARD, "8GiB"], "no such folder"),
        (
            ["fit", "grpo", "--config", "qwen3-vl-2b-lora-grpo", CARD, "8GiB"],
            "model=Qwen/Qwen2-VL-7B-Instruct, say",
        ),
    ],
)
def test_what_cannot_be_estimated_is_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("written", "size"),
    [
        *[("16GiB", 16 * GIB), ("16g", 16 * GIB), ("16", 16 * GIB), ("512MiB", GIB // 2)],
        *[("80GB", 80 * 10**9), ("80 gb", 80 * 10**9), ("500MB", 5 * 10**8)],
    ],
)
def test_sizes_are_what_their_units_say(written: str, size: int, capsys: pytest.CaptureFixture[str]) -> None:
    told: Any = read(capsys, "fit", "ground", CARD, written)[1]
    assert told["device"]["bytes"] == size


@pytest.mark.parametrize(
    ("model", "pixels"),
    [
        ("embedded", 38416),
        ("Qwen/Qwen2-VL-7B-Instruct", 1003520),
        ("Qwen/Qwen2.5-VL-3B-Instruct", 1003520),
        ("Qwen/Qwen3-VL-2B-Instruct", 1310720),
    ],
)
def test_pictures_are_as_large_as_a_model_sees_them(
    model: str, pixels: int, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", "ground", model, CARD, "80GiB"])
    assert f"4 pictures of {pixels:,} pixels" in capsys.readouterr().out
    main(["fit", "ground", model, CARD, "80GiB", "--max-pixels", "19600"])
    assert "4 pictures of 19,600 pixels" in capsys.readouterr().out


def test_what_is_advised_for_answers_is_a_flag_of_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["fit", "ground", "Qwen/Qwen3-VL-8B-Instruct", "--dtype", "float32", "--batch-size", "4", CARD]
    told: Any = read(capsys, *asked, "18GiB")[1]
    (change,) = told["changes"]
    assert change["set"] == "--dtype bfloat16 --batch-size 1"
    assert read(capsys, *asked, "18GiB", *change["set"].split())[1]["total"] == change["total"]
    assert main([*asked, "4GiB"]) == 1
    out = capsys.readouterr().out
    assert "--max-pixels 200704" in out and "a smaller model, or a larger card" in out
    flags = [word for word in out.split() if word.startswith("--")]
    for verb, has in (
        ("ground", {"--dtype", "--max-pixels"}),
        ("evaluate", set(flags)),
        ("serve", set(flags)),
    ):
        main([verb, "--help"])
        shown = capsys.readouterr().out
        assert all(flag in shown for flag in has), verb


def test_fit_loads_no_torch() -> None:
    run = "from univg.cli.main import main; main(['fit', 'sft', '--config', 'tiny-sft', '--memory', '8GiB'])"
    ended = subprocess.run(
        [sys.executable, "-c", f"{run}; import sys; print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
    )
    assert ended.stdout.endswith("False\n"), ended.stderr


def test_doctor_tells_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    code, told = read(capsys, "doctor")
    processor = told["processor"]
    assert isinstance(processor, dict) and 0 < processor["free"] <= processor["bytes"]
    assert code == int(bool(told["faults"])) and told["versions"]["torch"]  # type: ignore[index]
    main(["doctor"])
    out = capsys.readouterr().out
    assert "processor: " in out and "QLoRA" in out and "univg fit ground MODEL" in out


def test_doctor_finds_a_torch_that_does_not_use_the_cards(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from univg.models import devices

    monkeypatch.setattr(devices, "find_graphics_cards", lambda: [Device("cuda", "Tesla T4", GIB, GIB, False)])
    monkeypatch.setattr(devices, "has_cuda_build", lambda: False)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "WRONG: torch is built without CUDA" in out and "card: Tesla T4; 1.00 GiB" in out
