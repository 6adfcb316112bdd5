"""Hold one conversation with a server through one client, as its users write it, and print what came of it as JSON.

Run by test_clients.py in an environment that has the clients and no univg: `python converse.py CLIENT URL IMAGE IMAGE`,
the two questions in the variables FIRST and SECOND. Ends with code 5 where the client is not installed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def converse_openai(url: str, images: list[str], first: str, second: str) -> dict[str, Any]:
    import openai

    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)

    def ask(messages: list[Any], **settings: Any) -> Any:
        return client.chat.completions.create(model="embedded", messages=messages, **settings)

    asked = {"role": "user", "content": [*map(_part, images), {"type": "text", "text": first}]}
    reply = ask([asked]).choices[0].message
    follow = {"role": "user", "content": second}
    with client.chat.completions.stream(model="embedded", messages=[asked]) as stream:
        streamed = "".join(event.delta for event in stream if event.type == "content.delta")
    return {
        "answer": reply.content,
        "dumped": ask([asked, reply.model_dump(), follow]).choices[0].message.content,
        "object": ask([asked, reply, follow]).choices[0].message.content,
        "streamed": streamed,
        "several": [one.message.content for one in ask([asked], n=2).choices],
        "listed": [one.id for one in client.models.list()],
        "tools": _caught(lambda: ask([asked], tools=[{"type": "function", "function": {"name": "f"}}])),
        "no image": _caught(lambda: ask([{"role": "user", "content": [_part("a.png")]}])),
        "another model": _caught(lambda: client.chat.completions.create(model="gpt-9", messages=[asked])),
        "too long": _caught(lambda: ask([{"role": "user", "content": "where " * 9000}])),
        "responses": _caught(lambda: client.responses.create(model="embedded", input=first)),
    }


def converse_litellm(url: str, images: list[str], first: str, second: str) -> dict[str, Any]:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would ask the network for prices
    import litellm

    litellm.suppress_debug_info = True
    settings: dict[str, Any] = {
        "model": "openai/embedded",
        "api_base": url,
        "api_key": "none",
        "max_retries": 0,
    }

    def ask(messages: list[Any], **further: Any) -> Any:
        return litellm.completion(messages=messages, **settings, **further)

    def written(message: Any) -> str:
        """What the model wrote: litellm takes the thought out of the content."""
        thought = getattr(message, "reasoning_content", None)
        return (f"<think>{thought}</think>" if thought else "") + (message.content or "")

    asked = {"role": "user", "content": [*map(_part, images), {"type": "text", "text": first}]}
    plain = {"type": "image_url", "image_url": images[0]}
    reply = ask([asked]).choices[0].message
    follow = {"role": "user", "content": second}
    pieces = list(ask([asked], stream=True, stream_options={"include_usage": True}))
    rebuilt: Any = litellm.stream_chunk_builder(pieces)
    later = asyncio.run(litellm.acompletion(messages=[asked], **settings))
    return {
        "answer": written(reply),
        "content": reply.content,
        "dumped": written(ask([asked, reply.model_dump(), follow]).choices[0].message),
        "object": written(ask([asked, reply, follow]).choices[0].message),
        "rebuilt": written(ask([asked, rebuilt.choices[0].message, follow]).choices[0].message),
        "streamed": "".join(one.choices[0].delta.content or "" for one in pieces if one.choices),
        "async": written(later.choices[0].message),
        "plain": written(ask([{**asked, "content": [plain, *asked["content"][1:]]}]).choices[0].message),
        "tools": _caught(lambda: ask([asked], tools=[{"type": "function", "function": {"name": "f"}}])),
        "no image": _caught(lambda: ask([{"role": "user", "content": [_part("a.png")]}])),
        "too long": _caught(lambda: ask([{"role": "user", "content": "where " * 9000}])),
    }


def converse_langchain(url: str, images: list[str], first: str, second: str) -> dict[str, Any]:
    from langchain_core.messages import HumanMessage
    from langchain_openai import ChatOpenAI
    from pydantic import BaseModel

    class Box(BaseModel):
        x1: int

    model = ChatOpenAI(model="embedded", base_url=url, api_key="none", max_retries=0)  # type: ignore[arg-type]
    blocks = ChatOpenAI(
        model="embedded",
        base_url=url,
        api_key="none",
        max_retries=0,
        output_version="v1",  # type: ignore[arg-type]
    )
    asked = HumanMessage(content=[*map(_part, images), {"type": "text", "text": first}])
    standard = [
        {"type": "image", "base64": one.partition(",")[2], "mime_type": "image/png"} for one in images
    ]
    reply = model.invoke([asked])
    whole: Any = None
    for piece in model.stream([asked]):
        whole = piece if whole is None else whole + piece
    follow = HumanMessage(content=second)
    return {
        "answer": reply.content,
        "dumped": model.invoke([asked, reply, follow]).content,
        "object": model.invoke([asked, whole, follow]).content,
        "blocks": model.invoke([asked, blocks.invoke([asked]), follow]).content,
        "streamed": whole.content,
        "several": [one.content for one in model.batch([[asked], [asked]])],
        "async": asyncio.run(model.ainvoke([asked])).content,
        "plain": model.invoke([HumanMessage(content=[*standard, first])]).content,
        "tools": _caught(
            lambda: model.with_structured_output(Box, method="function_calling").invoke([asked])
        ),
        "schema": _caught(lambda: model.with_structured_output(Box).invoke([asked])),
        "too long": _caught(lambda: model.invoke("where " * 9000)),
    }


def converse_instructor(url: str, images: list[str], first: str, second: str) -> dict[str, Any]:
    import instructor
    import openai
    from pydantic import BaseModel

    class Box(BaseModel):
        box: tuple[int, int, int, int]

    class Grounding(Box):
        @classmethod
        def model_validate_json(cls, json_data: Any, **_: Any) -> Any:
            numbers = re.findall(r"\d+", str(json_data).partition("<answer>")[2])
            return cls(box=tuple(map(int, numbers)))  # type: ignore[arg-type]

    def ask(mode: Any, response_model: Any, retries: int = 1) -> Any:
        client: Any = instructor.from_openai(
            openai.OpenAI(base_url=url, api_key="none", max_retries=0), mode=mode
        )
        paths = [instructor.Image.from_path(path) for path in sys.argv[3:]]
        asked = [{"role": "user", "content": [*paths, first]}]
        return client.chat.completions.create(
            model="embedded", messages=asked, response_model=response_model, max_retries=retries
        )

    raw = ask(instructor.Mode.MD_JSON, None)
    box, completion = (one := ask(instructor.Mode.MD_JSON, Grounding)).box, one._raw_response
    return {
        "answer": raw.choices[0].message.content,
        "box": box,
        "boxed": completion.choices[0].message.content,
        "tools": _caught(lambda: ask(instructor.Mode.TOOLS, Box)),
        "schema": _caught(lambda: ask(instructor.Mode.JSON, Box)),
        "no JSON, asked twice": _caught(lambda: ask(instructor.Mode.MD_JSON, Box, retries=2)),
    }


def _part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def _caught(call: Callable[[], Any]) -> list[Any]:
    """[the error's class and those it is derived from, its message]"""
    try:
        return [[], repr(call())]
    except Exception as error:  # noqa: BLE001 - which one it is, is the question
        return [[one.__name__ for one in type(error).__mro__], str(error)]


if __name__ == "__main__":
    client, url, *paths = sys.argv[1:]
    images = ["data:image/png;base64," + base64.b64encode(Path(one).read_bytes()).decode() for one in paths]
    try:
        found = globals()[f"converse_{client}"](url, images, os.environ["FIRST"], os.environ["SECOND"])
    except ImportError as error:
        print(error, file=sys.stderr)
        sys.exit(5)
    print(json.dumps(found))
