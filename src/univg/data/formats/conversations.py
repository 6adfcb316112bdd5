"""Conversations as ShareGPT files and chat messages write them, and the boxes in their answers.

`conversations` of `{"from": "human" | "gpt", "value": …}` or `messages` of `{"role": "user" | "assistant",
"content": …}`; a content is text, or a list of parts. `<image>` stands for one image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from univg.data.formats.records import Row, Unusable, kind_of
from univg.grounding.boxes import Box
from univg.grounding.coordinates import read_quads, to_unit

__all__ = ["Answered", "answer_boxes", "check_tags", "exchanges", "without_tags"]

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_TAG = re.compile(r"<image>[ \t]*\n?")
_MARKED = re.compile(r"<\|box_start\|>(.*?)<\|box_end\|>", re.DOTALL)


class Answered(NamedTuple):
    """A question of a conversation with its answer; `turn` counts from 0. `<image>` tags still stand."""

    turn: int
    question: str
    answer: str


def exchanges(row: Row) -> list[Answered]:
    """The questions and answers of a conversation, or `Unusable`."""
    name = "conversations" if "conversations" in row else "messages"
    turns = row.get(name)
    if not isinstance(turns, list):
        raise Unusable(
            "missing_field", f"there is no list 'conversations' or 'messages', but {', '.join(row)}"
        )
    spoken = [said for said in map(_said, turns) if said[0] != "system"]
    found = []
    for i in range(0, len(spoken), 2):
        pair = spoken[i : i + 2]
        if [role for role, _ in pair] != ["user", "assistant"]:
            raise Unusable(
                "bad_field",
                f"{name!r} does not go question, answer, question, answer: turn {i} is not so",
                "put the turns in order, each question with its answer",
            )
        found.append(Answered(i // 2, pair[0][1], pair[1][1]))
    if not found:
        raise Unusable("empty_question", f"{name!r} holds no question with an answer")
    return found


def _said(turn: object) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise Unusable("bad_field", f"a turn is an object, not {kind_of(turn)}")
    role = _ROLES.get(str(turn.get("from", turn.get("role"))))
    content = turn.get("value", turn.get("content"))
    if isinstance(content, list):
        content = "".join(_part(part) for part in content)
    if role is None or not isinstance(content, str):
        raise Unusable(
            "bad_field", f"a turn needs from/value or role/content, and has {', '.join(map(str, turn))}"
        )
    return role, content


def _part(part: object) -> str:
    if isinstance(part, dict):
        return "<image>" if part.get("type") == "image" else str(part.get("text") or "")
    return str(part)


def check_tags(turns: list[Answered], n_images: int) -> None:
    """`Unusable` unless the questions hold one `<image>` for each image (published files must)."""
    tags = sum(turn.question.count("<image>") for turn in turns)
    if tags != n_images:
        raise Unusable("image_tags", f"{tags} <image> tag(s) for {n_images} image(s)")


def without_tags(question: str) -> str:
    r"""The words of a question: `<image>` tags with the line break after them removed, and stripped.

    >>> without_tags("<image>\n<image>\nWhere is it? ")
    'Where is it?'
    """
    return _TAG.sub("", question).strip()


def answer_boxes(answer: str) -> Iterator[tuple[Box, str]]:
    """The boxes an answer names, 0-1000 unless written as fractions, each with the words before it.

    Boxes between `<|box_start|>` and `<|box_end|>`; without those marks, whatever reads as boxes.

    >>> list(answer_boxes("It's in the third image. <|box_start|>(316,58),(764,999)<|box_end|>"))
    [((0.316, 0.058, 0.764, 0.999), "It's in the third image. ")]
    """
    marked = list(_MARKED.finditer(answer))
    if not marked:
        yield from ((to_unit(quad), "") for quad in read_quads(answer))
        return
    read_to = 0
    for match in marked:
        for quad in read_quads(match[1]):
            yield to_unit(quad), answer[read_to : match.start()]
        read_to = match.end()
