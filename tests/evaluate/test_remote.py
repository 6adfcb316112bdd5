"""The engine over HTTP, against a real server on loopback that fails in every way servers do."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from univg.errors import UnivgError
from univg.evaluate.benchmarks import open_file
from univg.evaluate.engines import OpenAIEngine
from univg.evaluate.report import build_sections
from univg.evaluate.runner import evaluate
from univg.evaluate.runs import read_runs
from univg.grounding.prompts import render_prompt
from univg.models.answering import Decoding, ServerAnswerer
from univg.models.pixels import PixelBudget
from univg.models.server import Patience

if TYPE_CHECKING:
    from loopback import Handler, Server


def engine(server: Server, **settings: Any) -> OpenAIEngine:
    patience = settings.pop("patience", Patience(attempts=4, first_wait_s=0.01, timeout_s=5))
    return OpenAIEngine(server.url, concurrency=settings.pop("concurrency", 3), patience=patience, **settings)


def test_the_same_prompt_pixels_and_parse(
    server: Server, own_set: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    data, root = own_set(3)
    outcome = evaluate(
        open_file("univg", data, root), engine(server), tmp_path / "run", Decoding(max_new_tokens=99)
    )
    assert len(outcome.rows) == 3
    row = next(iter(outcome.rows.values()))
    assert (row["iou"], row["fault"], row["tokens"], row["truncated"]) == (1.0, None, 21, False)
    request = server.requests[0]
    assert (request["model"], request["max_tokens"], request["temperature"], request["n"]) == (
        "served",
        99,
        0,
        1,
    )
    *images, text = request["messages"][0]["content"]
    asked = {request["messages"][0]["content"][-1]["text"] for request in server.requests}
    assert (
        asked == {render_prompt(f"Where is thing {number}?") for number in range(3)}
        and text["type"] == "text"
    )
    assert len(images) == 2
    for part in images:
        kind, _, content = part["image_url"]["url"].partition(",")
        picture = Image.open(io.BytesIO(base64.b64decode(content)))
        assert kind == "data:image/png;base64" and picture.mode == "RGB"
        assert picture.size == PixelBudget().resized((40, 30), 28) and picture.size[0] % 28 == 0


Failures = {
    "429 with Retry-After": lambda handler: handler.reply(
        429, {"error": {"message": "busy"}}, Retry_After="0.05"
    ),
    "500": lambda handler: handler.reply(500, {"error": {"message": "broken"}}),
    "503 without JSON": lambda handler: handler.reply(503, b"<html>down</html>", Content_Type="text/html"),
    "malformed JSON": lambda handler: handler.reply(200, b'{"id": "x", "choices": [{"mess'),
    "JSON of another kind": lambda handler: handler.reply(200, {"error": "out of memory"}),
    "no choices": lambda handler: handler.reply(200, handler.completion()),
    "a closed connection": lambda handler: handler.connection.close(),
    "timeout": lambda handler: time.sleep(1.2),
}


@pytest.mark.parametrize("failure", Failures)
def test_what_fails_once_is_tried_again(
    failure: str, server: Server, own_set: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    def behave(handler: Handler, number: int) -> bool:
        if number == 0:
            Failures[failure](handler)
            handler.close_connection = True
        return number == 0

    server.behave = behave
    data, root = own_set(2)
    patience = Patience(attempts=3, first_wait_s=0.01, timeout_s=0.6)
    outcome = evaluate(open_file("univg", data, root), engine(server, patience=patience), tmp_path / "run")
    assert (len(outcome.rows), outcome.faults, len(server.requests)) == (2, [], 3)


def test_the_wait_a_server_asks_for_is_kept(
    server: Server, own_set: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    def behave(handler: Handler, number: int) -> bool:
        if number == 0:
            handler.reply(429, {"error": {"message": "busy"}}, Retry_After="0.7")
        return number == 0

    server.behave = behave
    data, root = own_set(1)
    evaluate(open_file("univg", data, root), engine(server), tmp_path / "run")
    assert server.times[1] - server.times[0] >= 0.7


def test_what_keeps_failing_is_a_fault_and_is_resumed(
    server: Server, own_set: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    def behave(handler: Handler, number: int) -> bool:
        text = server.requests[number]["messages"][0]["content"][-1]["text"]
        if "thing 1?" in text:
            handler.reply(500, {"error": {"message": "broken"}})
        elif "thing 2?" in text:
            handler.reply(400, {"error": {"message": "the prompt is too long"}})
        return "thing 1?" in text or "thing 2?" in text

    server.behave = behave
    data, root = own_set(4)
    outcome = evaluate(open_file("univg", data, root), engine(server), tmp_path / "run")
    assert len(outcome.rows) == 2
    told = {fault["source"]: fault["why"] for fault in outcome.faults}
    assert "status 500" in told["own#1"] and "4 attempts" in told["own#1"]
    assert "too long" in told["own#2"] and "attempts" not in told["own#2"]
    assert len(server.requests) == 2 + 4 + 1
    server.behave = lambda handler, number: False
    again = evaluate(open_file("univg", data, root), engine(server), tmp_path / "run")
    assert (again.answered, again.faults, len(server.requests)) == (2, [], 9)


def test_a_dead_server_ends_the_run_and_keeps_its_rows(
    server: Server, scripted: ModuleType, tmp_path: Path
) -> None:
    def behave(handler: Handler, number: int) -> bool:
        if number >= 5:
            handler.reply(500, {"error": {"message": "out of memory"}})
        return number >= 5

    server.behave = behave
    patience = Patience(attempts=2, first_wait_s=0.001)
    with pytest.raises(UnivgError, match=r"8 requests in a row failed \(status 500: .*out of memory"):
        evaluate(scripted.world(2), engine(server, patience=patience), tmp_path)
    assert len((tmp_path / "rows-0-of-1.jsonl").read_text().splitlines()) == 5


def test_requests_go_out_together_but_not_too_many(
    server: Server, scripted: ModuleType, tmp_path: Path
) -> None:
    def behave(handler: Handler, number: int) -> bool:
        time.sleep(0.05)
        return False

    server.behave = behave
    evaluate(scripted.world(1), engine(server, concurrency=4), tmp_path)
    assert 2 <= server.busiest <= 4


def test_several_samples_and_their_seeds(server: Server, scripted: ModuleType, tmp_path: Path) -> None:
    outcome = evaluate(scripted.world(1), engine(server), tmp_path, Decoding(3, temperature=1.0, seed=7))
    assert all(len(row["texts"]) == 3 and row["confidence"] == 1.0 for row in outcome.rows.values())
    assert {request["n"] for request in server.requests} == {3}
    seeds = {request["seed"] for request in server.requests}
    assert len(seeds) == len(server.requests) and all(0 <= seed < 2**31 for seed in seeds)


def test_a_cut_or_empty_reply(
    server: Server, own_set: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    def behave(handler: Handler, number: int) -> bool:
        handler.reply(200, handler.completion(None if number else "<think>It", finish="length"))
        return True

    server.behave = behave
    data, root = own_set(2)
    outcome = evaluate(open_file("univg", data, root), engine(server, concurrency=1), tmp_path / "run")
    assert [row["truncated"] for row in outcome.rows.values()] == [True, True]
    assert {row["fault"] for row in outcome.rows.values()} == {"truncated"}


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"model": "other"}, "the server does not serve other: .* choose --model from served"),
        ({"family": "gpt"}, "unknown family 'gpt': choose from qwen2_vl"),
    ],
)
def test_what_cannot_be_asked_for(settings: dict[str, str], line: str, server: Server) -> None:
    with pytest.raises(UnivgError, match=line):
        engine(server, **settings)


def test_a_model_must_be_chosen_among_several(server: Server) -> None:
    assert engine(server).name == "served"
    server.models = [*server.models, {"id": "adapter", "object": "model", "root": "org/model"}]
    with pytest.raises(UnivgError, match=r"one model only: .* served, adapter"):
        engine(server)


def test_a_server_that_says_nothing_is_asked_as_a_checkpoint_without_a_record(server: Server) -> None:
    plain, stock = engine(server), engine(server, family="qwen3_vl")
    assert (plain.style, plain._budget) == ("think", PixelBudget())
    assert plain.notes[0] == "taken for a qwen2_vl model, as nobody says its family; --family names another"
    assert (stock.style, stock._budget) == ("json", PixelBudget(65536, 1310720))
    assert stock.notes == (
        "asked in style native (json), as qwen3_vl models without univg.json are; --style asks otherwise",
    )
    assert "image" in stock.fingerprint()["prompt"]["wording_of_several"]
    server.models = [{"id": "Qwen/Qwen2-VL-2B-Instruct", "object": "model"}]
    assert engine(server).style == "marks" and "is known to be" in engine(server).notes[0]
    told = engine(server, family="qwen2_5_vl", style="think")
    assert told.frame == "pixel"
    assert told.style == "think" and told.notes == ()
    server.models = [
        {"id": "m", "object": "model", "univg": {"family": "qwen3_vl", "prompt_style": "direct"}}
    ]
    assert engine(server).style == "direct" and engine(server).notes == ()
    assert engine(server, style="native").style == "json"


@pytest.mark.parametrize(
    ("card", "family", "frame", "style", "factor"),
    [
        ({"id": "Qwen/Qwen2.5-VL-7B-Instruct"}, "qwen2_5_vl", "pixel", "json", 28),
        ({"id": "mine", "root": "Qwen/Qwen3-VL-2B-Instruct"}, "qwen3_vl", "permille", "json", 32),
        ({"id": "GD-ML/UniVG-R1"}, "qwen2_vl", "permille", "think", 28),
    ],
)
def test_a_published_model_is_known_by_its_name(
    card: dict[str, str], family: str, frame: str, style: str, factor: int, server: Server
) -> None:
    server.models = [{"object": "model", **card}]
    found = engine(server)
    assert (found.fingerprint()["family"], found.frame, found.style) == (family, frame, style)
    assert isinstance(found.answerer, ServerAnswerer) and found.answerer.factor == factor
    assert not any("--family" in note for note in found.notes)
    other = engine(server, family="qwen2_vl")
    assert other.frame == "permille", "what is said goes before the name"


def test_the_servers_own_budget_is_in_the_fingerprint_where_it_is_another(server: Server) -> None:
    assert "served" not in engine(server).fingerprint()
    stated = {"family": "qwen2_vl", "prompt_style": "direct", "min_pixels": 3136, "max_pixels": 50176}
    server.models = [{"id": "m", "object": "model", "univg": stated}]
    assert "served" not in engine(server).fingerprint()
    found = engine(server, budget=PixelBudget()).fingerprint()
    assert (found["pixels"]["max_pixels"], found["served"]["max_pixels"]) == (401408, 50176)


def test_stock_models_are_asked_and_read_in_their_own_form(
    server: Server, own_set: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    data, root = own_set(2)
    asking = engine(server, style="native")
    outcome = evaluate(open_file("univg", data, root), asking, tmp_path / "run", Decoding(max_new_tokens=99))
    texts = {request["messages"][0]["content"][-1]["text"] for request in server.requests}
    assert texts == {render_prompt(f"Where is thing {number}?", "marks", 2) for number in range(2)}
    assert {row["style"] for row in outcome.rows.values()} == {"marks"}
    assert all(
        row["fault"] is None and row["iou"] == 1 for row in outcome.rows.values()
    )  # <think> is no fault
    [section] = build_sections(read_runs([tmp_path / "run"]))
    assert any(note.startswith("Asked in style native (marks)") for note in section.tables[0].notes)


def test_no_server() -> None:
    with pytest.raises(UnivgError, match="no OpenAI-compatible server answers"):
        OpenAIEngine("http://127.0.0.1:9/v1", patience=Patience(timeout_s=2))


def test_a_refused_key_ends_the_run(server: Server, scripted: ModuleType, tmp_path: Path) -> None:
    def behave(handler: Handler, number: int) -> bool:
        handler.reply(401, {"error": {"message": "wrong key"}})
        return True

    server.behave = behave
    with pytest.raises(
        UnivgError, match=r"the server refuses \(status 401: .*wrong key.*check --url, --model"
    ):
        evaluate(scripted.world(1), engine(server), tmp_path)
