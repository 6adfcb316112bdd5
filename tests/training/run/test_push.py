"""Pushing to a hub: a real server on loopback that speaks as much of its interface as an upload takes."""

from __future__ import annotations

import base64
import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from univg.config import save_config
from univg.errors import UnivgError
from univg.models.loading import load
from univg.training.config import DataSource, SftConfig
from univg.training.run.push import take_push

COMMIT = "c" * 40


class Hub(ThreadingHTTPServer):
    """`files` holds what was committed, `asked` the requests; with `refusing` commits are turned down."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.refusing = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(self.path)
        if self.path == "/api/repos/create":
            named = json.loads(body)
            self.answer({"url": f"{self.server.url}/{named['organization']}/{named['name']}"})
        elif "/preupload/" in self.path:
            asked = [file["path"] for file in json.loads(body)["files"]]
            told = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in asked]
            self.answer({"files": told})
        elif "/commit/" in self.path and self.server.refusing:
            self.answer({"error": "storage is full"}, 403)
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer({"commitUrl": f"{self.server.url}/org/mine/commit/{COMMIT}", "commitOid": COMMIT})
        else:  # the card's header is checked
            self.answer({})

    def answer(self, body: Any, status: int = 200) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True).start()
    yield hub
    hub.shutdown()
    hub.server_close()


@pytest.fixture
def config(start: Path) -> SftConfig:
    return SftConfig(
        model=str(start),
        data=(DataSource(image_px=60),),
        max_steps=2,
        save_every=1,
        batch=2,
        micro_batch=2,
        bf16=False,
        workers=0,
        trainer={"push_to_hub": True, "hub_model_id": "org/mine"},
    )


def run(hub: Hub, *command: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_of_a_test"}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


def univg(hub: Hub, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(hub, sys.executable, "-m", "univg", *arguments)


def test_the_finished_model_is_pushed_and_nothing_else(hub: Hub, config: SftConfig, tmp_path: Path) -> None:
    save_config(config, tmp_path / "config.yaml")
    out = tmp_path / "runs" / "mine"
    ended = univg(hub, "sft", "--config", str(tmp_path / "config.yaml"), "--out", str(out))
    assert ended.returncode == 0, ended.stderr
    assert f"pushed: {hub.url}/org/mine/commit/{COMMIT}" in ended.stderr
    assert (out / "checkpoint-2").is_dir() and (out / "log.jsonl").is_file()
    assert set(hub.files) == {
        *("model.safetensors", "config.json", "generation_config.json", "univg.json", "README.md"),
        *("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    }
    assert all(content == (out / name).read_bytes() for name, content in hub.files.items())
    commits = [path for path in hub.asked if "/commit/" in path]
    assert hub.asked[0] == "/api/repos/create" and len(commits) == 1, "once, when all is done"
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    for name, content in hub.files.items():
        (fetched / name).write_bytes(content)
    assert load(fetched).prompt_style == "think"


@pytest.mark.slow
def test_a_push_that_fails_costs_nothing_and_says_how_to_do_it_by_hand(
    hub: Hub, config: SftConfig, tmp_path: Path
) -> None:
    save_config(config, tmp_path / "config.yaml")
    out, hub.refusing = tmp_path / "runs" / "mine", True
    ended = univg(hub, "sft", "--config", str(tmp_path / "config.yaml"), "--out", str(out))
    said = ended.stderr.splitlines()[-1]
    assert ended.returncode == 2 and "the model is finished, but was not pushed (" in said
    assert load(out).prompt_style == "think" and not hub.files
    hub.refusing = False
    by_hand = shlex.split(said.partition("push it by hand: ")[2])
    again = run(hub, str(Path(sys.executable).with_name(by_hand[0])), *by_hand[1:])
    assert again.returncode == 0, again.stderr
    assert len(hub.files) == 9 and hub.files["model.safetensors"] == (out / "model.safetensors").read_bytes()


def test_what_the_hub_refuses_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import TrainingArguments

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, push_to_hub=True)
    with pytest.raises(UnivgError, match=r"trainer.push_to_hub: .* cannot be made \(.*offline") as error:
        take_push(arguments, tmp_path)
    assert "\n" not in str(error.value)
