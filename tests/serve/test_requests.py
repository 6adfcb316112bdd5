"""What clients send, read without a model: bodies as openai, litellm, LangChain and instructor write them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("starlette", reason="the server needs: pip install 'univg[serve]'")

from univg.grounding.prompts import DIRECT_SUFFIX, SIMPLE_PREFIX, THINK_SUFFIX, PromptStyle, render_prompt
from univg.models.families import MODEL_FAMILIES
from univg.serve.config import ServeConfig
from univg.serve.errors import ApiError
from univg.serve.requests import ChatRequest, read_request

LIMITS = ServeConfig().limits
URL = "data:image/png;base64,AAAA"
IMAGE = {"type": "image_url", "image_url": {"url": URL}}
ANSWER = "<think>It is left.</think><answer>(1,2),(3,4)</answer>"


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def read(body: Any) -> ChatRequest:
    return read_request(json.dumps(body).encode(), LIMITS)


def chat(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": "embedded", "messages": list(messages), **fields}


def user(content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **fields}


def answered(turn: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A conversation in which the assistant's turn is sent back."""
    return chat(user([IMAGE, text("Where?")]), {"role": "assistant", **turn}, user("And?"), **fields)


SENT_BACK: dict[str, dict[str, Any]] = {
    "openai, the object": {"content": ANSWER, "refusal": None},
    "an answer sent back by model_dump()": {
        "content": ANSWER,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    },
    "openai, from an old vLLM": {
        "content": ANSWER,
        "tool_calls": [],
        "reasoning_content": None,
        "reasoning": None,
    },
    "an answer sent back with its thought apart": {
        "content": "<answer>(1,2),(3,4)</answer>",
        "reasoning_content": "It is left.",
    },
    "litellm, model_dump()": {
        "content": "<answer>(1,2),(3,4)</answer>",
        "tool_calls": None,
        "function_call": None,
        "reasoning_content": "It is left.",
        "provider_specific_fields": {"refusal": None, "reasoning": None},
    },
    "litellm, from a stream": {
        "content": ANSWER,
        "provider_specific_fields": None,
        "images": [],
        "annotations": [],
    },
    "vLLM, both names of a thought": {
        "content": "<answer>(1,2),(3,4)</answer>",
        "reasoning_content": "It is left.",
        "reasoning": "It is left.",
    },
    "a thought twice": {"content": ANSWER, "reasoning_content": "It is left."},
    "LangChain": {"content": ANSWER, "name": "model"},
    "LangChain, content blocks": {"content": [{**text(ANSWER), "index": 0, "id": "lc_1", "annotations": []}]},
    "a thought beside content blocks": {
        "content": [text("<answer>(1,2),(3,4)</answer>")],
        "reasoning": "It is left.",
    },
    "a list of strings": {"content": [ANSWER]},
    "a cache_control beside a text": {"content": [{**text(ANSWER), "cache_control": {"type": "ephemeral"}}]},
}


@pytest.mark.parametrize("name", SENT_BACK)
def test_an_answer_sent_back_is_what_the_model_wrote(name: str) -> None:
    first, turn, last = read(answered(SENT_BACK[name])).chat()
    content = turn["content"]
    written = content if isinstance(content, str) else "".join(part["text"] for part in content)
    assert written == ANSWER
    assert first["content"] == [{"type": "image"}, text("Where?")] and last["content"] == "And?"


EMPTY_TURNS: dict[str, dict[str, Any]] = {
    "an assistant's content null": {"content": None},
    "an assistant's content missing": {},
    "an assistant's content empty": {"content": ""},
    "an assistant's content null, no calls": {"content": None, "tool_calls": []},
}


@pytest.mark.parametrize("name", EMPTY_TURNS)
def test_an_answer_without_content_is_an_empty_turn(name: str) -> None:
    assert read(answered(EMPTY_TURNS[name])).chat()[1] == {"role": "assistant", "content": ""}


TOOL = {"type": "function", "function": {"name": "Box", "parameters": {}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "Box", "schema": {}}}
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "tools asked for": (
        chat(user("a"), tool_choice={"type": "function", "function": {"name": "Box"}}, tools=[TOOL]),
        *("tool_choice", "calls no tools"),
    ),
    "LangChain, bind_tools": (chat(user("a"), tools=[TOOL]), "tools", "calls no tools"),
    "JSON asked for": (
        chat(user("a"), response_format={"type": "json_object"}),
        *("response_format", "instructor: response_model=None"),
    ),
    "openai, parse": (chat(user("a"), response_format=SCHEMA), "response_format", "held to JSON"),
    "functions": (chat(user("a"), functions=[{"name": "f"}]), "functions", "calls no tools"),
    "logprobs": (chat(user("a"), logprobs=True), "logprobs", "not possible"),
    "an unknown field": (chat(user("a"), beams=4), "beams", "does not know"),
    "an answer sent back with tool calls": (
        answered({"content": None, "tool_calls": [{"id": "1"}]}),
        *("messages.1.tool_calls", "calls no tools"),
    ),
    "a tool's answer": (
        chat(user("a"), {"role": "tool", "content": "b", "tool_call_id": "1"}),
        *("messages.1.role", "calls no tools"),
    ),
    "a refusal": (answered({"content": None, "refusal": "I cannot"}), "messages.1.refusal", "as the message's content"),
    "two thoughts": (
        answered({"content": "b", "reasoning": "one", "reasoning_content": "two"}),
        *("messages.1.reasoning_content", "send one of them"),
    ),
    "a thought apart beside another in the content": (
        answered({"content": ANSWER, "reasoning": "It is right."}),
        *("messages.1.reasoning", "another thought"),
    ),
    "a thought that is no text": (answered({"content": "b", "reasoning": [1]}), "messages.1.reasoning", "no text"),
    "a user's thought": (chat(user("a", reasoning="b")), "messages.0.reasoning", "does not know"),
    "an unknown field of a message": (chat(user("a", weight=0)), "messages.0.weight", "does not know"),
    "an unknown field of a part": (
        chat(user([{**text("a"), "weight": 0}])),
        *("messages.0.content.0.weight", "does not know"),
    ),
    "an unknown field of an image": (
        chat(user([{"type": "image_url", "image_url": {"url": URL, "crop": [0, 0, 1, 1]}}])),
        *("messages.0.content.0.image_url.crop", "does not know"),
    ),
    "a user's content null": (chat(user(None)), "messages.0.content", "missing"),
    "a system without content": (chat({"role": "system"}, user("a")), "messages.0.content", "missing"),
    "nothing among the parts": (chat(user([text("a"), None])), "messages.0.content.1", '"type": "text"'),
    "no type": (chat(user([{"text": "a"}])), "messages.0.content.0.type", "missing"),
    "responses, a text": (
        chat(user([{"type": "input_text", "text": "a"}])),
        *("messages.0.content.0.type", 'send {"type": "text"'),
    ),
    "parts of the Responses interface": (
        chat(user([text("a"), {"type": "input_image", "image_url": URL}])),
        *("messages.0.content.1.type", 'send {"type": "image_url"'),
    ),
    "transformers, an image": (
        chat(user([{"type": "image", "image": "a.png"}])),
        *("messages.0.content.0.type", 'send {"type": "image_url"'),
    ),
    "a video": (
        chat(user([{"type": "video_url", "video_url": {"url": URL}}])),
        *("messages.0.content.0.type", "no type of part here"),
    ),
    "a block of thought": (
        answered({"content": [{"type": "thinking", "thinking": "b"}]}),
        *("messages.1.content.0.type", "<think>"),
    ),
    "an image without address": (
        chat(user([{"type": "image_url", "image_url": {"url": None}}])),
        *("messages.0.content.0.image_url.url", "required"),
    ),
    "an image of a system": (chat({"role": "system", "content": [IMAGE]}, user("a")), "messages.0.content", "user"),
    "no messages": (chat(messages=None), "messages", "required"),
    "no list of messages": ({"model": "embedded", "messages": {"role": "user"}}, "messages", "list"),
    "no object": (chat("hello"), "messages.0", "Message"),  # type: ignore[arg-type]
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_change_the_answer_is_refused_by_name(name: str) -> None:
    body, param, words = REFUSED[name]
    with pytest.raises(ApiError) as refused:
        read(body)
    told = refused.value.body()["error"]
    assert (refused.value.status, told["param"]) == (400, param) and words in told["message"]


ACCEPTED: dict[str, dict[str, Any]] = {
    "openai": chat(user([IMAGE, IMAGE, text("Where?")])),
    "litellm": chat(user([IMAGE, text("Where?")]), stream=True, stream_options={"include_usage": True}),
    "LangChain": chat(
        *({"content": "Be short.", "role": "system"}, {"content": [IMAGE, text("Where?")], "role": "user"}),
        max_completion_tokens=3,
        n=2,
        seed=1,
        stream=False,
        temperature=0.0,
    ),
    "instructor, Markdown": chat(
        {"role": "system", "content": [text("Return JSON.")]},
        user([IMAGE, text("Where?"), text("Return the correct JSON.")]),
        max_tokens=40,
    ),
    "an image_url that is a plain address": chat(
        user([{"type": "image_url", "image_url": URL}, text("Where?")])
    ),
    "strings among the parts": chat(user(["First:", IMAGE, "Where?"])),
    "an image's type beside it": chat(
        user([{"type": "image_url", "image_url": {"url": URL, "format": "image/png"}}])
    ),
    "null or empty fields, wherever they stand": chat(
        user("Where?", name=None, tool_calls=None, audio={}),
        tools=None,
        tool_choice=None,
        response_format=None,
        functions=[],
        logit_bias={},
        temperature=None,
        max_tokens=None,
        n=None,
        seed=None,
        stop=None,
        stream=None,
        stream_options={"include_usage": None},
        univg={"style": None},
        beams=None,
        extra_body={},
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_clients_write_is_read(name: str) -> None:
    request = read(ACCEPTED[name])
    assert json.dumps(request.chat()).count('"image"') == len(request.images())
    assert set(request.images()) <= {URL}


def _places(value: Any) -> list[dict[str, Any]]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [value] * isinstance(value, dict) + [place for one in inner for place in _places(one)]


@given(st.data())
def test_null_is_absent_wherever_it_stands(data: st.DataObject) -> None:
    body = copy.deepcopy(data.draw(st.sampled_from(list(ACCEPTED.values()))))
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.sampled_from(_places(body)))
        place.setdefault(data.draw(st.sampled_from(["tools", "audio", "detail", "name", "é", "n"])), None)
    bare = json.loads(
        json.dumps(body), object_hook=lambda one: {k: v for k, v in one.items() if v is not None}
    )
    assert read(body) == read(bare)


def test_a_request_is_read_to_a_depth() -> None:
    head = b'{"model": "a", "messages": [{"role": "user", "content": "b"}], "metadata": '
    assert read_request(head + b'{"a":' * 190 + b"null" + b"}" * 191, LIMITS).model == "a"
    with pytest.raises(ApiError, match="recursion limit"):
        read_request(head + b'{"a":' * 300 + b"null" + b"}" * 301, LIMITS)


FIRST, SECOND = {"type": "image"}, {"type": "image"}
STYLED: dict[str, tuple[Any, Callable[[str, str], Any]]] = {
    "one text": (" Where? ", lambda before, after: f"{before}Where?{after}"),
    "one text after the images": (
        [IMAGE, IMAGE, text(" Where? ")],
        lambda before, after: [FIRST, SECOND, text(f"{before}Where?{after}")],
    ),
    "one text before the images": (
        [text("Where?"), IMAGE],
        lambda before, after: [text(f"{before}Where?{after}"), FIRST],
    ),
    "text parts between the images": (
        [text(" This: "), IMAGE, text(" in: "), IMAGE, text(" where is it? ")],
        lambda before, after: [
            *(text(f"{before}This: "), FIRST, text(" in: "), SECOND, text(f" where is it?{after}")),
        ],
    ),
    "two texts, one question": (
        [IMAGE, text("Where is the "), text("dog?")],
        lambda before, after: [FIRST, text(f"{before}Where is the "), text(f"dog?{after}")],
    ),
    "blanks around the question": (
        [text("\n"), IMAGE, text("Where?"), text(" ")],
        lambda before, after: [text("\n"), FIRST, text(f"{before}Where?{after}"), text(" ")],
    ),
    "strings": (
        ["This:", IMAGE, "where?"],
        lambda before, after: [text(f"{before}This:"), FIRST, text(f"where?{after}")],
    ),
}


@pytest.mark.parametrize(
    ("style", "before", "after"),
    [
        *(("think", "", THINK_SUFFIX), ("direct", "", DIRECT_SUFFIX), ("simple", SIMPLE_PREFIX, "")),
        *(("json", None, None), ("set_marks", None, None)),
    ],
)
@pytest.mark.parametrize("name", STYLED)
def test_a_style_words_the_texts_as_one_question(
    name: str, style: PromptStyle, before: str | None, after: str | None
) -> None:
    content, worded = STYLED[name]
    if before is None or after is None:  # a stock model's words depend on the number of images
        n_images = sum(isinstance(part, dict) and part.get("type") == "image_url" for part in content)
        before, _, after = render_prompt("?", style, n_images).partition("?")
    earlier = [user("Where?"), {"role": "assistant", "content": ANSWER}]
    messages = read(chat(*earlier, user(content), univg={"style": style})).chat()
    assert messages[-1]["content"] == worded(before, after)
    assert messages[0]["content"] == "Where?"  # what was asked before is sent as it is


@pytest.mark.parametrize(
    ("family", "style"), [("qwen2_vl", "marks"), ("qwen2_5_vl", "json"), ("qwen3_vl", "json")]
)
def test_native_is_the_style_of_the_served_family(family: str, style: PromptStyle) -> None:
    request = read(chat(user([IMAGE, IMAGE, text("the dog")]), univg={"style": "native"}))
    [message] = request.chat(MODEL_FAMILIES[family])
    assert message["content"][-1]["text"] == render_prompt("the dog", style, 2)
    earlier = [user([IMAGE, text("Where?")]), {"role": "assistant", "content": ANSWER}]
    request = read(chat(*earlier, user([IMAGE, text("the dog")]), univg={"style": "native"}))
    asked = request.chat(MODEL_FAMILIES[family])[-1]["content"][-1]["text"]
    assert asked == render_prompt("the dog", style, 2), "the model counts the pictures of the whole chat"


@given(
    st.lists(st.text(st.characters(codec="utf-8")).filter(str.strip), min_size=1),
    st.sampled_from(["think", "simple"]),
)
def test_worded_texts_are_the_wording_of_the_whole(texts: list[str], style: Any) -> None:
    [message] = read(chat(user([text(one) for one in texts]), univg={"style": style})).chat()
    assert "".join(part["text"] for part in message["content"]) == render_prompt("".join(texts), style)


@pytest.mark.parametrize("content", [[IMAGE], "", " ", [], [text(""), IMAGE]], ids=str)
def test_a_style_without_a_question_is_refused(content: Any) -> None:
    with pytest.raises(ApiError, match="no text to put into words"):
        read(chat(user(content), univg={"style": "think"})).chat()


NAMES = st.sampled_from(["type", "text", "role", "content", "url", "reasoning", "a"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200)
@given(st.data())
def test_any_json_is_a_request_or_one_line_of_what_is_wrong(data: st.DataObject) -> None:
    bodies = [
        *ACCEPTED.values(),
        *(body for body, _, _ in REFUSED.values()),
        *map(answered, SENT_BACK.values()),
    ]
    body = copy.deepcopy(data.draw(st.sampled_from(bodies)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(_places(body)))
        place[data.draw(st.sampled_from(sorted(place)) if place else NAMES)] = data.draw(JSON)
    told = {"message": "read"}
    try:
        request = read(body)
        assert json.dumps(request.chat()).count('"image"') >= len(request.images())
    except ApiError as error:
        told = error.body()["error"]
    assert told["message"] and "\n" not in told["message"]
