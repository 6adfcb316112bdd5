"""What a server replies is bounded and checked: whatever it is, one request has a fault with a name."""

from __future__ import annotations

import gzip
import json
import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from univg.errors import UnivgError
from univg.models.keys import read_key
from univg.models.server import GivenUp, Patience, Server
from univg.models.server_replies import BrokenReply, Reply, read_models, read_pieces, read_reply

REQUEST = {"model": "served", "messages": [], "max_tokens": 8}


def content(value: Any) -> Any:
    return {"choices": [{"message": {"content": value}, "finish_reason": "stop"}]}


def nested(depth: int) -> bytes:
    return b'{"choices": [{"message": {"content": ' + b"[" * depth + b"]" * depth + b"}}]}"


STRANGE: dict[str, tuple[bytes | Any, str]] = {
    "content is a list": (content([{"type": "text", "text": "a"}]), "is no text but of the type list"),
    "content is a number": (content(3), "is no text but of the type int"),
    "content is an object": (content({"text": "a"}), "is no text but of the type dict"),
    "content is true": (content(True), "is no text but of the type bool"),
    "content is nested 100,000 deep": (nested(100_000), "no JSON"),
    "content is nested 900 deep": (nested(900), "is no text|no JSON"),
    "a list": ([], "no JSON object"),
    "a number": (3, "no JSON object"),
    "null": (None, "no JSON object"),
    "nothing": (b"", "no JSON"),
    "HTML": (b"<html><body>It works!</body></html>", "no JSON .*It works"),
    "bytes": (bytes(range(256)), "no JSON"),
    "no UTF-8": (b'{"choices": "\xff"}', "no JSON"),
    "an endless number": (b'{"choices": ' + b"9" * 5000 + b"}", "no JSON"),
    "choices is an object": ({"choices": {}}, "no choices where 1 were asked for"),
    "choices is a text": ({"choices": "a"}, "no choices"),
    "a choice is null": ({"choices": [None]}, "a choice without a message"),
    "a choice is a list": ({"choices": [[]]}, "a choice without a message"),
    "a message is a text": ({"choices": [{"message": "a"}]}, "a choice without a message"),
    "too many choices": ({"choices": [{}] * 9}, "9 choices where 1 were asked for"),
    "an error with status 200": ({"error": {"message": "out of memory"}}, r"no choices .*\(out of memory\)"),
    "an error of another form": ({"error": [[1]]}, "no choices .*of the type list"),
}


def patient(server: Any, **settings: Any) -> Server:
    return Server(server.url, patience=Patience(**{"attempts": 1, "timeout_s": 20, **settings}))


def ask(server: Server, stream: bool = False) -> Reply:
    return server.complete(REQUEST, 1, threading.Event(), stream=stream)


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_reply_is_a_fault_of_its_request(name: str, server: Any) -> None:
    body, told = STRANGE[name]
    server.behave = lambda handler, number: number == 0 and (handler.reply(200, body) or True)
    asked = patient(server)
    with pytest.raises(GivenUp, match=told) as fault:
        ask(asked)
    assert "\n" not in str(fault.value) and len(str(fault.value)) < 300
    assert ask(asked).texts[0].startswith("<think>")


FIELDS = (
    *("choices", "message", "delta", "content", "index", "usage", "prompt_tokens", "finish_reason", "error"),
    *("data", "id", "root", "univg", "factor", "min_pixels", "max_pixels", "prompt_style", "family"),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values, st.booleans())
def test_any_json_is_a_reply_or_a_broken_one(value: Any, wrapped: bool) -> None:
    for shell in (
        value,
        {"choices": value},
        {"choices": [value]},
        {"choices": [{"message": value, "delta": value}]},
    ):
        body = json.dumps(shell).encode()
        for read, sent in ((read_reply, body), (read_pieces, b"data: " + body + b"\n\ndata: [DONE]\n\n")):
            try:
                reply = read(sent, 1)
            except BrokenReply:
                continue
            assert isinstance(reply.texts[0], str) and isinstance(reply.truncated[0], bool)
            assert all(
                type(count) is int or count is None
                for count in (reply.prompt_tokens, reply.completion_tokens)
            )
    for card in (value, {"data": value}, {"data": [value]}, {"data": [{"id": "a", "univg": value}]}):
        try:
            models = read_models(json.dumps(card).encode())
        except BrokenReply:
            continue
        assert all(isinstance(name, str) and isinstance(one["univg"], dict) for name, one in models.items())


def endless(handler: Any, chunk: bytes, pause_s: float = 0.0, most: int = 1 << 30) -> None:
    """Send a chunk again and again, up to a gigabyte or until nobody listens."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    try:
        for _ in range(most // len(chunk)):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            time.sleep(pause_s)
    except OSError:
        pass
    handler.close_connection = True


PIECE = b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'
ENDLESS: dict[str, tuple[Callable[[Any], None], str]] = {
    "a gigabyte": (lambda handler: endless(handler, b"a" * 65536), "longer than"),
    "one line without an end": (lambda handler: endless(handler, b"data: " * 9999), "longer than"),
    "pieces without an end": (lambda handler: endless(handler, PIECE * 999), "longer than"),
    "a drip": (lambda handler: endless(handler, PIECE, pause_s=0.05), "did not end within 1 s"),
    "comments to keep it open": (
        lambda handler: endless(handler, b": wait\n\n", pause_s=0.05),
        "did not end within 1 s",
    ),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "pieces"])
@pytest.mark.parametrize("name", ENDLESS)
def test_a_reply_without_an_end_is_left(name: str, stream: bool, server: Any) -> None:
    behave, told = ENDLESS[name]
    server.behave = lambda handler, number: behave(handler) or True
    asked = patient(server, timeout_s=1)
    tracemalloc.start()
    try:
        with pytest.raises(GivenUp, match=f"{told}|Timeout"):
            ask(asked, stream)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("status", [200, 500, 400])
def test_an_error_may_be_as_long_as_it_likes(status: int, server: Any) -> None:
    def behave(handler: Any, number: int) -> bool:
        handler.reply(status, b"x" * (8 << 20))
        return True

    server.behave = behave
    with pytest.raises(GivenUp, match="longer than"):
        ask(patient(server))


def test_what_unpacks_to_much_is_not_unpacked(server: Any) -> None:
    bomb = gzip.compress(bytes(64 << 20))
    server.behave = lambda handler, number: handler.reply(200, bomb, Content_Encoding="gzip") or True
    with pytest.raises(GivenUp, match="compressed, which was not asked for"):
        ask(patient(server))
    assert server.headers[0]["accept-encoding"] == "identity"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_told_and_not_followed(status: int, server: Any) -> None:
    elsewhere = f"{server.url}/elsewhere"
    server.behave = lambda handler, number: handler.reply(status, b"", Location=elsewhere) or True
    with pytest.raises(GivenUp, match=f"status {status}: it redirects to {elsewhere}: give that as --url"):
        ask(patient(server))
    assert len(server.requests) == 1


def test_pieces_end_with_their_last_event_though_the_connection_stays(server: Any) -> None:
    def behave(handler: Any, number: int) -> bool:
        end = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}\n\n'
        usage = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\r\n\r\n'
        said = b": hello\n\n" + PIECE * 2 + end + usage + b"data: [DONE]\n\n"
        endless(handler, said, pause_s=5, most=len(said))
        return True

    server.behave = behave
    assert ask(patient(server), stream=True) == Reply(("aa",), (True,), 3, 2)


def test_an_error_in_the_stream_is_told(server: Any) -> None:
    pieces = PIECE + b'data: {"error": {"message": "out of\\nmemory"}}\n\n'
    server.behave = lambda handler, number: handler.reply(200, pieces) or True
    with pytest.raises(GivenUp, match=r"a piece without choices \(out of memory\)"):
        ask(patient(server), stream=True)


def test_counts_that_cannot_be_are_none(server: Any) -> None:
    for usage in (
        {"prompt_tokens": -1, "completion_tokens": 10**30},
        {"prompt_tokens": "9"},
        [],
        7,
        {"prompt_tokens": True},
    ):
        body = json.dumps({**content("a"), "usage": usage}).encode()
        assert read_reply(body, 1) == Reply(("a",), (False,), None, None)


@pytest.mark.parametrize(
    "stated",
    [
        {"factor": 0},
        {"min_pixels": "3136"},
        {"prompt_style": ["think"]},
        {"family": {}},
        [],
        {"min_pixels": 9, "max_pixels": 3},
    ],
    ids=json.dumps,
)
def test_a_server_that_describes_its_model_wrongly_is_not_asked(stated: Any, server: Any) -> None:
    server.models = [{"id": "served", "univg": stated}]
    with pytest.raises(
        UnivgError, match=r"no OpenAI-compatible server answers .*it says of served how it is asked"
    ):
        patient(server).served(None)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("localhost:8000/v1", "no address of a server: --url localhost"),
        ("ftp://a/v1", "no address of a server"),
        ("http://[::1/v1", "no address"),
        ("http://a:port/v1", "no address"),
        ("", "no address of a server"),
    ],
)
def test_an_address_that_is_none_is_refused(url: str, told: str) -> None:
    with pytest.raises(UnivgError, match=told):
        Server(url)


@pytest.mark.parametrize("key", ["sk-abc\n", " sk-abc", "sk-abc\r\n", "\tsk-abc "])
def test_white_space_around_a_key_is_left_out(key: str, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", key)
    assert read_key("SOME_KEY") == "sk-abc"
    ask(Server(server.url, key))
    assert server.headers[0]["authorization"] == "Bearer sk-abc"


@pytest.mark.parametrize("key", ["sk abc", "sk-a\nsk-b", "schlüssel", "  ", "\n", "a\x00b", "a\x7f"])
def test_a_key_that_no_request_can_carry_is_refused(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "\x00" not in key:
        monkeypatch.setenv("SOME_KEY", key)
        with pytest.raises(
            UnivgError, match=r"no usable key: it holds white space.*: SOME_KEY: set it to the key alone"
        ):
            read_key("SOME_KEY")
    with pytest.raises(UnivgError, match="no usable key"):
        Server("http://127.0.0.1:9/v1", key)


def test_no_key_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    assert read_key("SOME_KEY") is None
    monkeypatch.setenv("SOME_KEY", "")
    assert read_key("SOME_KEY") is None
