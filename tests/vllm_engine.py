"""The real vLLM for tests, in an environment of its own (`make engines`): its server, or one answer of a checkpoint.

UNIVG_VLLM names that environment's Python; without it `.engines/vllm` is taken, and then the tests' own. Where none has
vLLM, `require` skips with the reason.

A test that has a saved folder and wants to know whether vLLM reads it (names of the weights, dtype, tokenizer) calls
`answer_in_vllm([folder, …], tmp_path)`: one process loads each in turn and answers one question about a drawn picture;
what it cannot load fails the test with vLLM's own words. `answer_here(folder)` is what the answer has to be. It takes
20 to 60 s and 2 GiB; mark the test `slow`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from univg.grounding.prompts import render_chat
from univg.models.tokens import ANSWER_TOKENS
from univg.world import WorldSample, make_sample

REPO = Path(__file__).resolve().parents[1]
MADE = REPO / ".engines" / "vllm" / "bin" / "python"
PYTHON = os.environ.get("UNIVG_VLLM") or str(MADE if MADE.exists() else sys.executable)
ANSWER = Path(__file__).parent / "models" / "engines" / "answer.py"
PATIENCE_S = 1800
PATHS = ("src", "tests/training/grpo")
ON_A_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
"""GiB of memory for keys and values; and no core of its own, which other programs work on as well."""


def environment(**added: str) -> dict[str, str]:
    """The environment of a process with vLLM: this source tree, no network, one GiB for its cache."""
    given = {**ON_A_CPU, "HF_HUB_OFFLINE": "1", **os.environ, **added}
    return {**given, "PYTHONPATH": os.pathsep.join(str(REPO / folder) for folder in PATHS)}


@functools.cache
def _has_vllm() -> bool:
    asked = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    return subprocess.run([PYTHON, "-c", asked], capture_output=True).returncode == 0


def require() -> None:
    """Skip the test where vLLM is not installed."""
    if not _has_vllm():
        pytest.skip(f"{PYTHON} has no vLLM: make engines, or name an environment that has it in UNIVG_VLLM")


@contextlib.contextmanager
def running(command: Sequence[str], log: Path, **added: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program with vLLM whose output goes to `log` (a pipe would stay open as long as vLLM's own processes live); in
    the end it and all that it has started are gone."""
    with log.open("w") as out:
        process = subprocess.Popen(
            command, env=environment(**added), stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def serving(command: Sequence[str], log: Path, **added: str) -> Iterator[str]:
    """vLLM's server, started by `command` and the arguments that say where; yields its address (no `/v1`)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [part.replace("{port}", str(port)) for part in command]
    with running(command, log, **added) as process:
        address, until = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE_S
        while status(f"{address}/health") != 200:
            assert process.poll() is None and time.monotonic() < until, log.read_text()[-3000:]
            time.sleep(1)
        yield address


def univg_serve(folder: str | Path, *options: str, vllm: Sequence[str] = ()) -> list[str]:
    """The command for `serving` that starts vLLM as users do, by univg."""
    command = [PYTHON, "-m", "univg", "serve", "--engine", "vllm", "--model", str(folder), "--port", "{port}"]
    return [
        *command,
        *options,
        "--",
        "--enforce-eager",
        "--max-model-len",
        "4096",
        "--skip-mm-profiling",
        *vllm,
    ]


def status(address: str, body: dict[str, Any] | None = None, key: str | None = None) -> int:
    """The status of a reply; 0 where nobody answers."""
    return ask(address, body, key)[0]


def ask(address: str, body: dict[str, Any] | None = None, key: str | None = None) -> tuple[int, str]:
    """Status and text of a reply to GET, or with a body to POST."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(address, data, headers), timeout=PATIENCE_S
        ) as reply:
            return int(reply.status), reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except (urllib.error.URLError, OSError):
        return 0, ""


def answer_jobs(engine: str, folders: Sequence[Path], jobs: Path, log: Path) -> list[list[str]]:
    """Each folder's greedy texts for the jobs of a file (its form stands in `engines/answer.py`), by an engine that
    knows nothing of univg. Skips the test where it is not installed; fails it with the engine's words."""
    command = [PYTHON, str(ANSWER), engine, str(jobs), str(log.with_suffix(".json")), *map(str, folders)]
    with running(command, log) as process:
        process.wait(900 * len(folders))
    if process.returncode == 5:
        pytest.skip(f"{PYTHON}: {log.read_text().strip()}; make engines")
    assert process.returncode == 0, log.read_text(errors="replace")[-3000:]
    texts: list[list[str]] = json.loads(log.with_suffix(".json").read_text(encoding="utf-8"))
    return texts


def answer_in_vllm(
    folders: Sequence[str | Path], tmp_path: Path, size: int = 224, tokens: int = 24
) -> list[str]:
    """Load each folder in vLLM, one after the other, and return its answer (at most `tokens` long) to one and the same
    question of the world about a picture of `size` pixels; greedy, float32."""
    require()
    drawn = _draw(size)
    drawn.images[0].save(tmp_path / "asked.png")
    text = render_chat(1, drawn.sample.query, "think")[0]["content"][-1]["text"]
    job = {"images": [str(tmp_path / "asked.png")], "text": text, "tokens": tokens, "greedy": True}
    (tmp_path / "asked.json").write_text(json.dumps([job]))
    answers = answer_jobs(
        "vllm", [Path(one) for one in folders], tmp_path / "asked.json", tmp_path / "vllm.log"
    )
    return [text for [text] in answers]


def answer_here(folder: str | Path, size: int = 224, tokens: int = 24) -> str:
    """This process's answer to the question of `answer_in_vllm`, which has to be the same."""
    from univg.models.generation.generate import Chat, generate
    from univg.models.loading import load

    drawn = _draw(size)
    chat = Chat.ask(drawn.images, drawn.sample.query, "think")
    [[answer]] = generate(load(folder, dtype="float32", device="cpu"), [chat], max_new_tokens=tokens)
    return leave_marks_out(answer.text)


def leave_marks_out(text: str) -> str:
    """Leave out the marks of boxes, which other programs drop with all special tokens."""
    for mark in ANSWER_TOKENS:
        text = text.replace(mark, "")
    return text


def _draw(size: int) -> WorldSample:
    return make_sample("referring", "test", seed=3, index=0, size=(size, size))
