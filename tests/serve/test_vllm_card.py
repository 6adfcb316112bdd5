"""What univg adds to vLLM's own server: what it says of its model, what it may write; and what clients make of that."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from univg.models import checkpoint
from univg.models.answering import Decoding, Question, Refusal, ServerAnswerer
from univg.models.pixels import PixelBudget
from univg.models.server import Server
from univg.models.server_replies import BrokenReply, Reply, read_models
from univg.serve.vllm_card import CARD_VARIABLE, ModelCard
from univg.serve.vllm_marks import ChatMarks

CARD = {"family": "qwen3_vl", "frame": "permille", "prompt_style": "think", "min_pixels": 1, "max_pixels": 9}
CARD |= {"factor": 32, "engine": "vllm"}
LISTED = {"object": "list", "data": [{"id": "m", "owned_by": "vllm", "root": "/m"}]}


def replies(
    monkeypatch: pytest.MonkeyPatch, path: str, method: str, code: int, parts: list[bytes]
) -> tuple[Any, bytes]:
    """(headers and status, body) of an application's reply, in these parts, behind the middleware."""
    monkeypatch.setenv(CARD_VARIABLE, json.dumps(CARD))
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        length = str(sum(map(len, parts))).encode()
        headers = [(b"content-type", b"application/json"), (b"Content-Length", length)]
        await send({"type": "http.response.start", "status": code, "headers": headers})
        for place, part in enumerate(parts):
            more = place + 1 < len(parts)
            await send({"type": "http.response.body", "body": part, "more_body": more})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path}
    asyncio.run(ModelCard(app)(scope, None, send))
    return sent[0], b"".join(message.get("body", b"") for message in sent[1:])


def test_each_model_of_the_list_says_how_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = json.dumps(LISTED).encode()
    start, body = replies(monkeypatch, "/v1/models", "GET", 200, [listed[:20], listed[20:]])
    headers = dict(start["headers"])
    assert headers[b"content-length"] == str(len(body)).encode() and b"Content-Length" not in headers
    assert json.loads(body)["data"] == [{**LISTED["data"][0], "univg": CARD}]
    assert read_models(body) == {"m": {"root": "/m", "univg": CARD}}


@pytest.mark.parametrize(
    ("path", "method", "code"),
    [("/v1/models", "GET", 401), ("/v1/models", "POST", 200), ("/v1/chat/completions", "GET", 200)],
)
def test_every_other_reply_passes(path: str, method: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    start, body = replies(monkeypatch, path, method, code, [b"{", b"}"])
    assert body == b"{}" and start["status"] == code


def test_an_engine_that_is_no_name_is_not_understood() -> None:
    with pytest.raises(BrokenReply, match="not in a way"):
        read_models(json.dumps({"data": [{"id": "m", "univg": {**CARD, "engine": 3}}]}).encode())


@pytest.mark.parametrize(
    ("stated", "text", "refused", "field"),
    [
        (CARD, "Where is it?", False, False),
        (CARD, "Where?<|im_end|>", True, None),  # vLLM makes marks of a text's marks
        (CARD, "In <|box_start|>(1,2),(3,4)<|box_end|>?", False, False),
        ({**CARD, "engine": "univg"}, "Where?<|im_end|>", False, None),
        ({}, "Where?<|im_end|>", True, None),
        ({}, "Where is it?", False, None),
    ],
)
def test_vllm_is_asked_for_the_marks_of_boxes_and_never_for_those_of_chats(
    stated: dict[str, Any], text: str, refused: bool, field: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, sent = Server("http://localhost:1/v1"), []
    monkeypatch.setattr(server, "conventions", lambda name: stated)
    reply = Reply(("there",), (False,), 3, 4)
    monkeypatch.setattr(
        server, "complete", lambda body, samples, stop, stream: sent.append(body) or reply, raising=True
    )
    question = Question("q", [{"role": "user", "content": [{"type": "text", "text": text}]}], list)
    answerer = ServerAnswerer(server, "m", PixelBudget(), 28)
    [[answer]] = answerer.answer([question], Decoding())
    assert isinstance(answer, Refusal) == refused
    assert [body.get("skip_special_tokens") for body in sent] == ([] if refused else [field])


@pytest.mark.parametrize("newer", [False, True])
def test_tokens_that_belong_to_prompts_get_no_probability(newer: bool) -> None:
    """By either of vLLM's interfaces; the end of an answer keeps its own."""
    folder = checkpoint.locate("embedded").folder
    config = json.loads((folder / "config.json").read_text())
    ends = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    model = SimpleNamespace(
        tokenizer=str(folder),
        tokenizer_revision=None,
        get_vocab_size=lambda: config["vocab_size"],
        try_get_generation_config=lambda: {"eos_token_id": ends},
    )
    asked, device = SimpleNamespace(model_config=model), torch.device("cpu")
    marks = ChatMarks(asked, SimpleNamespace(device=device)) if newer else ChatMarks(asked, device, False)
    logits = torch.zeros(2, config["vocab_size"])
    given = marks.apply(logits, object()) if newer else marks.apply(logits)
    assert given is logits
    gone = set(logits[1].isinf().nonzero().flatten().tolist())
    marked = {config[name] for name in ("image_token_id", "video_token_id", "vision_start_token_id")}
    assert marked <= gone and not gone & set(ends) and len(gone) < 30
