"""Starting `univg serve`: what is wrong is one line before a model is loaded; vLLM gets the checkpoint's settings."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from univg.cli import main as cli
from univg.models.checkpoint import Source, locate
from univg.models.loading import choose_dtype
from univg.models.pixels import PixelBudget
from univg.models.tiny import PIXEL_BUDGET
from univg.serve.config import ServeConfig, name_model
from univg.serve.vllm import build_command

EMBEDDED = locate("embedded").folder


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNIVG_API_KEY", raising=False)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["serve", *arguments]) == 2
    [line] = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error: ")]
    return line


def test_an_address_that_is_taken_is_told_before_the_model_is_looked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        line = refused(capsys, "--port", str(taken.getsockname()[1]), "--model", "nowhere/at-all")
    assert "cannot listen (address already in use)" in line and "--port" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "0", "--model", "./nowhere"], "no such folder"),
        (["--host", "not.a.host.invalid"], "--host"),
        (["--port", "99999"], "port"),
        (["--port", "0", "--device", "abacus"], "abacus"),
        (["--api-key-env", "NOT_SET_ANYWHERE"], "NOT_SET_ANYWHERE"),
        (["--", "--tensor-parallel-size", "2"], "only --engine vllm"),
        (["--engine", "vllm", "--model", "./nowhere"], "no such folder"),
        (["--allow-remote-images"], "--allow-remote-images"),
    ],
)
def test_what_cannot_be_served(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in refused(capsys, *arguments)


@pytest.mark.parametrize("key", ["k ey", "k\ney", " ", "schlüssel", "a\tb"], ids=repr)
def test_a_key_that_no_client_could_send(
    key: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIVG_API_KEY", key)
    line = refused(capsys, "--port", "0")
    assert "UNIVG_API_KEY" in line and "no usable key" in line and "schl" not in line


def test_vllm_missing_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *arguments, **settings: None)
    assert "vLLM is not installed" in refused(capsys, "--engine", "vllm")


def test_an_adapter_is_to_be_merged_for_vllm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "embedded"}))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    assert "merge" in refused(capsys, "--engine", "vllm", "--model", str(tmp_path))


@pytest.mark.parametrize(
    ("text", "vision", "said"),
    [
        ({"mrope_section": [2, 3, 3] * 3}, {}, "its rotary embedding has more than 3 sections"),
        (
            {"mrope_section": [4, 6, 22]},
            {"rope_theta": 100.0},
            "its vision tower's rotary base is 100, and 10000 is",
        ),
    ],
)
def test_what_vllm_would_read_wrongly_is_refused(
    text: dict[str, object],
    vision: dict[str, object],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nested = {"text_config": {"rope_parameters": text}, "vision_config": {"rope_parameters": vision}}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_vl", **nested}))
    monkeypatch.setattr(shutil, "which", lambda *arguments, **settings: "/bin/true")
    assert said in refused(capsys, "--engine", "vllm", "--model", str(tmp_path))


def started(tmp_path: Path, *arguments: str, key: str = "") -> tuple[list[str], dict[str, str]]:
    """What a program named `vllm` is started with: arguments and environment."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir(exist_ok=True)
    program = bin_folder / "vllm"
    report = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"
    program.write_text(f"#!{sys.executable}\n{report}\n")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "UNIVG_API_KEY": key}
    command = [sys.executable, "-m", "univg", "serve", "--engine", "vllm", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    argv, seen = json.loads(ended.stdout)
    return argv, seen


def options(argv: list[str]) -> dict[str, str]:
    return dict(itertools.pairwise(argv))


@pytest.mark.skipif(
    shutil.which("vllm", path=str(Path(sys.executable).parent)) is not None, reason="vLLM itself is installed"
)
def test_vllm_is_started_with_the_checkpoints_settings(tmp_path: Path, tiny: str) -> None:
    asked = ["--model", tiny, "--port", "8123", "--max-images", "6", "--", "--tensor-parallel-size", "2"]
    argv, environment = started(tmp_path, *asked, key="the-key")
    given = options(argv)
    assert argv[:2] == ["serve", tiny] and argv[-2:] == ["--tensor-parallel-size", "2"]
    assert (given["--host"], given["--port"], given["--served-model-name"]) == (
        "127.0.0.1",
        "8123",
        name_model(tiny),
    )
    assert json.loads(given["--limit-mm-per-prompt"]) == {"image": 6, "video": 0}
    assert json.loads(given["--mm-processor-kwargs"]) == {
        "min_pixels": PIXEL_BUDGET.min_pixels,
        "max_pixels": PIXEL_BUDGET.max_pixels,
    }
    assert given["--generation-config"] == "vllm"
    assert json.loads(given["--override-generation-config"]) == {"temperature": 0.0}
    assert given["--allowed-media-domains"] == "nowhere.invalid"
    assert environment["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"
    assert environment["VLLM_API_KEY"] == "the-key" and "the-key" not in " ".join(argv)
    assert given["--dtype"] == "float32"  # as this process would compute it, and not vLLM's own "auto"
    assert not {"--middleware", "--logits-processors"} & set(argv)  # it is of another environment
    card = json.loads(environment["UNIVG_MODEL_CARD"])
    assert (card["engine"], card["family"], card["factor"]) == ("vllm", "qwen2_vl", 28)
    assert card["max_pixels"] == PIXEL_BUDGET.max_pixels


@pytest.mark.skipif(
    shutil.which("vllm", path=str(Path(sys.executable).parent)) is not None, reason="vLLM itself is installed"
)
@pytest.mark.parametrize(
    ("settings", "dtype", "carded"),
    [
        ({"model_type": "llava", "torch_dtype": "float16"}, "auto", False),
        ({"model_type": "qwen2_vl", "dtype": "bfloat16"}, "auto", True),  # which older GPUs cannot compute
        ({"model_type": "qwen2_vl", "dtype": "float32"}, "float32", True),
    ],
    ids=str,
)
def test_vllm_is_left_what_is_its_own_affair(
    settings: dict[str, str], dtype: str, carded: bool, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(settings))
    argv, environment = started(tmp_path, "--model", str(tmp_path))
    assert options(argv)["--dtype"] == dtype
    assert ("UNIVG_MODEL_CARD" in environment) == carded


@pytest.mark.parametrize(
    ("revision", "further", "there", "not_there"),
    [
        (None, [], ["--allowed-media-domains", "nowhere.invalid"], ["--revision"]),
        ("abc", [], ["--revision", "abc", "--tokenizer-revision"], []),
        (
            None,
            ["--allowed-media-domains", "a.org"],
            ["--allowed-media-domains", "a.org"],
            ["nowhere.invalid"],
        ),
        (None, ["--allowed-media-domains=a.org"], [], ["--allowed-media-domains", "nowhere.invalid"]),
        (None, ["--allowed_media_domains", "a.org"], [], ["--allowed-media-domains", "nowhere.invalid"]),
    ],
)
def test_the_command_of_vllm(
    revision: str | None, further: list[str], there: list[str], not_there: list[str]
) -> None:
    config = ServeConfig(host="::1", engine="vllm", vllm_arguments=tuple(further))
    command = build_command("vllm", config, Source(EMBEDDED, revision=revision), PixelBudget(2, 3))
    assert all(isinstance(one, str) for one in command)
    assert set(there) <= set(command) and not set(not_there) & set(command)
    assert command[len(command) - len(further) :] == further


@pytest.mark.parametrize(
    ("further", "adds", "expected"),
    [
        ([], True, ["--middleware", "--logits-processors"]),
        ([], False, []),
        (["--speculative-config", "{}"], True, ["--middleware"]),
        (["-sc={}"], True, ["--middleware"]),
    ],
)
def test_vllm_is_given_what_univg_adds_where_it_can_import_it(
    further: list[str], adds: bool, expected: list[str]
) -> None:
    config = ServeConfig(engine="vllm", vllm_arguments=tuple(further))
    command = build_command("vllm", config, Source(EMBEDDED), PixelBudget(), adds=adds)
    assert [one for one in command if one in ("--middleware", "--logits-processors")] == expected
    package, _, name = options(command).get("--middleware", "json.dumps").rpartition(".")
    assert callable(getattr(importlib.import_module(package), name))


@pytest.mark.parametrize(
    ("stated", "on_cpu", "expected"),
    [
        ({"dtype": "bfloat16"}, False, "bfloat16"),
        ({"torch_dtype": "float16"}, False, "float16"),
        ({"text_config": {"dtype": "bfloat16"}}, False, "bfloat16"),  # Qwen3-VL as published
        ({"dtype": "float32", "text_config": {"dtype": "bfloat16"}}, False, "float32"),
        ({"dtype": "bfloat16"}, True, "float32"),
        ({"dtype": "float8"}, False, "float32"),
        ({}, False, "float32"),
    ],
    ids=str,
)
def test_auto_is_the_checkpoints_data_type_or_on_a_cpu_float32(
    stated: dict[str, object], on_cpu: bool, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(stated))
    assert choose_dtype(tmp_path, on_cpu=on_cpu) == expected


def test_a_folders_name_does_not_tell_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "my-model").mkdir()
    assert name_model(str(tmp_path / "my-model")) == "my-model"
    assert name_model("org/name@main") == "org/name"
