"""`univg serve --engine vllm` starts the real vLLM, and it gives this process's answers, for each family of models.

One server a model, which all tests read. `slow`, and skipped where there is no vLLM (see `vllm_engine`).
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from families import FAMILIES, save_family
from univg.cli.main import main
from univg.models import checkpoint
from univg.models.generation.generate import Chat, measure
from univg.models.loading import Loaded, load
from univg.world import make_sample
from vllm_engine import ask, require, serving, status, univg_serve

pytestmark = pytest.mark.slow

KEY, MOST_IMAGES = "a-key-of-the-tests", 6
PIXELS = {"qwen2_vl": (3136, 50176), "qwen2_5_vl": (3136, 50176), "qwen3_vl": (4096, 65536)}
A_TASK, TOKENS = 8, {"embedded": 160}  # samples of each of the world's 13 tasks; tokens, of random models 24


@dataclass(frozen=True)
class Served:
    """A checkpoint, the same in this process, and the address of vLLM's server with it."""

    name: str
    folder: Path
    loaded: Loaded
    url: str

    def chat(self, chat: Chat, **fields: Any) -> tuple[int, str]:
        """Status and text of vLLM's reply to a chat whose pictures are sent as they are."""
        pictures = iter(chat.images)
        content = [
            {"type": "image_url", "image_url": {"url": _as_png(next(pictures))}}
            if part["type"] == "image"
            else part
            for part in chat.messages[-1]["content"]
        ]
        turns = [*chat.messages[:-1], {"role": "user", "content": content}]
        body = {"model": self.name, "messages": turns, "max_tokens": 8, **fields}
        return ask(f"{self.url}/chat/completions", body, KEY)


def _as_png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@pytest.fixture(scope="module", params=["embedded", *FAMILIES])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    require()
    name, path = request.param, tmp_path_factory.mktemp(request.param)
    if name == "embedded":
        folder = checkpoint.locate(name).folder
    else:
        folder = save_family(path / name, name, tied=False, pixels=PIXELS[name])
    options = ["--name", name, "--max-images", str(MOST_IMAGES)]
    with serving(univg_serve(folder, *options), path / "log", UNIVG_API_KEY=KEY) as address:
        yield Served(name, folder, load(folder, dtype="float32", device="cpu"), f"{address}/v1")


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """`evaluate(out, *options)`: the exit code of the command on the world, with the server's key."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def run(out: str, *options: str) -> int:
        world = ["--benchmark", "world", "--seed", "11", "--size", "336"]
        return main(["evaluate", *world, *options, "--out", str(tmp_path / out)])

    return run


def test_texts_and_boxes_are_those_of_this_process(
    served: Served,
    evaluate: Callable[..., int],
    tmp_path: Path,
    lines: Callable[[Path], list[dict[str, Any]]],
    record_property: Callable[[str, object], None],
) -> None:
    """Greedy, float32; how vLLM is to be asked, and what it sees, the client learns from it."""
    asked = ["-n", str(A_TASK), "--max-new-tokens", str(TOKENS.get(served.name, 24))]
    assert evaluate("here", "--model", str(served.folder), "--dtype", "float32", *asked) == 0
    beside = ["--compare", str(tmp_path / "here")]
    assert evaluate("vllm", "--engine", "openai", "--url", served.url, *beside, *asked) == 0
    here, there = (
        {row["key"]: row for row in lines(tmp_path / run / "rows-0-of-1.jsonl")} for run in ("here", "vllm")
    )
    assert here.keys() == there.keys() and len(here) >= 100
    texts = [(here[key]["text"], there[key]["text"]) for key in here]
    differing = [pair for pair in texts if pair[0] != pair[1]]
    boxes = [key for key in here if here[key]["boxes_unit"] != there[key]["boxes_unit"]]
    record_property("differ", f"{served.name}: {len(differing)} texts, {len(boxes)} boxes of {len(here)}")
    assert len({text for text, _ in texts}) > len(here) // 2
    assert not differing and not boxes, f"{len(differing)} of {len(here)}: {differing[:3]}"
    if served.name == "embedded":
        assert sum(bool(row["boxes_unit"]) for row in here.values()) > len(here) // 2


def test_it_says_how_it_is_asked(served: Served) -> None:
    [card] = json.loads(ask(f"{served.url}/models", key=KEY)[1])["data"]
    budget = served.loaded.pixel_budget
    assert card["id"] == served.name and card["owned_by"] == "vllm"
    assert card["univg"] == {
        "family": served.loaded.family.model_type,
        "frame": served.loaded.family.frame,
        "prompt_style": served.loaded.prompt_style,
        "min_pixels": budget.min_pixels,
        "max_pixels": budget.max_pixels,
        "factor": served.loaded.processor.factor,
        "engine": "vllm",
    }


@pytest.mark.parametrize("size", [(3000, 2000), (60, 30), (901, 37)], ids=str)
def test_it_resizes_a_picture_as_this_process_does(size: tuple[int, int], served: Served) -> None:
    picture = make_sample("referring", "test", seed=1, size=(336, 336)).images[0].resize(size)
    chat = Chat.ask([picture], "Where is it?", served.loaded.prompt_style)
    code, reply = served.chat(chat)
    assert code == 200, reply
    assert json.loads(reply)["usage"]["prompt_tokens"] == measure(served.loaded, chat)


def test_more_images_than_the_limit_are_refused_in_words(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = Image.new("RGB", (56, 56), "red")
    for count, expected in ((MOST_IMAGES, 200), (MOST_IMAGES + 1, 400)):
        code, reply = served.chat(Chat.ask([picture] * count, "Where?", served.loaded.prompt_style))
        assert code == expected, reply
    assert f"At most {MOST_IMAGES} image(s) may be provided in one prompt" in reply


def test_a_stream_is_the_same_text_in_pieces(served: Served) -> None:
    drawn = make_sample("referring", "test", seed=2, size=(196, 196))
    chat = Chat.ask(drawn.images, drawn.sample.query, served.loaded.prompt_style)
    whole = json.loads(served.chat(chat, max_tokens=12)[1])["choices"][0]["message"]["content"]
    code, streamed = served.chat(chat, max_tokens=12, stream=True)
    events = [line.removeprefix("data: ") for line in streamed.splitlines() if line.startswith("data: ")]
    assert code == 200 and events[-1] == "[DONE]" and len(events) > 3
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    assert "".join(delta.get("content") or "" for delta in deltas) == whole != ""


@pytest.mark.parametrize("key", [None, "another-key"])
def test_without_its_key_nothing_is_answered(
    key: str | None,
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert status(f"{served.url}/models", key=key) == status(f"{served.url}/chat/completions", {}, key) == 401
    monkeypatch.setenv("OPENAI_API_KEY", key or "none")
    asked = ["evaluate", "--benchmark", "world", "-n", "1", "--engine", "openai", "--url", served.url]
    assert main([*asked, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "401" in said and "Unauthorized" in said and "another-key" not in said
