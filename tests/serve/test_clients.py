"""Conversations through the clients that people have: openai, litellm, LangChain and instructor, with a real server.

`make nightly` installs them beside univg's own environment and names their Python in UNIVG_CLIENTS.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from univg.files import EXAMPLES
from univg.grounding.prompts import render_chat
from univg.grounding.samples import read_jsonl
from univg.models.generation.generate import Chat, generate
from univg.models.loading import Loaded

pytest.importorskip("uvicorn", reason="the server needs: pip install 'univg[serve]'")

from serving import starting

pytestmark = pytest.mark.slow

PYTHON = os.environ.get("UNIVG_CLIENTS", sys.executable)
CONVERSE = Path(__file__).parent / "clients" / "converse.py"
SAMPLE = next(one for one in read_jsonl(EXAMPLES / "samples.jsonl") if len(one.images) == 2)
PATHS = [str(EXAMPLES / name) for name in SAMPLE.images]
[[*_, QUESTION]] = [message["content"] for message in render_chat(2, SAMPLE.query)]
FIRST, SECOND = str(QUESTION["text"]), "Where is it in the first image?"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with starting() as server:
        yield f"{server.url}/v1"


@pytest.fixture(scope="module")
def answers(loaded: Loaded) -> tuple[str, str]:
    """What the model itself says to the first question, and to the second after what it wrote."""
    images = tuple(Image.open(path).convert("RGB") for path in PATHS)
    [asked] = render_chat(2, SAMPLE.query)
    [[first]] = generate(loaded, [Chat(images, (asked,))])
    turns = ({"role": "assistant", "content": first.text}, {"role": "user", "content": SECOND})
    [[second]] = generate(loaded, [Chat(images, (asked, *turns))])
    assert "<answer>" in first.text and first.text != second.text
    return first.text, second.text


def converse(client: str, url: str) -> dict[str, Any]:
    ran = subprocess.run(
        [PYTHON, str(CONVERSE), client, url, *PATHS],
        env={**os.environ, "FIRST": FIRST, "SECOND": SECOND},
        capture_output=True,
        text=True,
    )
    if ran.returncode == 5:
        pytest.skip(
            f"{client} is not installed for {PYTHON}; `make nightly` installs it: {ran.stderr.strip()}"
        )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


ERRORS = {
    "tools": ("BadRequestError", "calls no tools"),
    "schema": ("BadRequestError", "held to JSON"),
    "no image": ("BadRequestError", "only images within the request"),
    "another model": ("NotFoundError", "ask for 'embedded'"),
    "too long": ("BadRequestError", "the prompt is too long"),
    "responses": ("NotFoundError", "base_url ends in /v1"),
}


@pytest.mark.parametrize("client", ["openai", "litellm", "langchain"])
def test_a_conversation_is_the_one_that_the_model_would_hold_itself(
    client: str, url: str, answers: tuple[str, str]
) -> None:
    found = converse(client, url)
    for name in ("answer", "streamed", "async", "plain"):
        assert found.get(name, answers[0]) == answers[0], name
    for name in ("dumped", "object", "rebuilt", "blocks"):
        assert found.get(name, answers[1]) == answers[1], name
    assert found.get("several", [answers[0]] * 2) == [answers[0]] * 2
    assert found.get("listed", ["embedded"]) == ["embedded"]
    if client == "litellm":
        assert found["content"] == answers[0].partition("</think>")[2]  # the thought is in reasoning_content
    for name in ERRORS.keys() & found.keys():
        kinds, message = found[name]
        assert ERRORS[name][0] in kinds and ERRORS[name][1] in message, found[name]
    overflow = {"litellm": "ContextWindowExceededError", "langchain": "ContextOverflowError"}
    assert overflow.get(client, "APIStatusError") in found["too long"][0]


def test_instructor_reads_text_and_is_told_what_it_cannot_have(url: str, answers: tuple[str, str]) -> None:
    found = converse("instructor", url)
    assert found["answer"] == answers[0]
    # In this mode instructor writes a schema into the question, so the answer is another one.
    assert found["box"] == [int(one) for one in re.findall(r"\d+", found["boxed"].partition("<answer>")[2])]
    for name in ("tools", "schema"):
        kinds, message = found[name]
        assert "InstructorRetryException" in kinds and ERRORS[name][1] in message
    assert "response_model=None" in found["tools"][1]
    kinds, message = found["no JSON, asked twice"]
    assert "InstructorRetryException" in kinds and "Invalid JSON" in message and "Error code" not in message
