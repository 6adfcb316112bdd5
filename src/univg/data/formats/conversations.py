"""Read conversations as ShareGPT files and chat messages write them, and the boxes in their answers.

`conversations` of `{"from": "human" | "gpt", "value": …}` or `messages` of `{"role": "user" | "assistant",
"content": …}`; a content is text, or a list of parts. `<image>` stands for one image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from univg.data.formats.faults import Unusable
from univg.data.formats.fields import Row, get_images, name_kind
from univg.grounding.boxes import Box
from univg.grounding.coordinates import read_quads, to_unit
from univg.grounding.mentions import decide_image

__all__ = ["Turn", "find_named_image", "read_answer_boxes", "read_content", "split_turns", "strip_tags"]

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_TAG = re.compile(r"<image>[ \t]*\n?")
_MARKED = re.compile(r"<\|box_start\|>(.*?)<\|box_end\|>", re.DOTALL)


class Turn(NamedTuple):
    """A question of a conversation, without `<image>` tags, with its answer."""

    row: Row
    images: tuple[str, ...]
    question: str
    answer: str


def split_turns(row: Row, images_field: str = "images") -> Iterator[tuple[str, Turn]]:
    """Yield each question with its answer, named "turn 0", "turn 1" … if there are several, else "".

    `Unusable` unless the turns go question, answer, question, answer, with one `<image>` for each image.
    """
    images = get_images(row, images_field)
    name = "conversations" if "conversations" in row else "messages"
    turns = row.get(name)
    if not isinstance(turns, list):
        has = ", ".join(row)
        raise Unusable("missing_field", f"there is no list 'conversations' or 'messages', but {has}")
    spoken = [(role, text) for role, text in map(_read_turn, turns) if role != "system"]
    if not spoken:
        raise Unusable("empty_question", f"{name!r} holds no question with an answer")
    for i in range(0, len(spoken), 2):
        if [role for role, _ in spoken[i : i + 2]] != ["user", "assistant"]:
            cause = f"{name!r} does not go question, answer, question, answer: turn {i} is not so"
            raise Unusable("bad_field", cause, "put the turns in order, each question with its answer")
    questions, answers = ([text for _, text in spoken[first::2]] for first in (0, 1))
    tags = sum(question.count("<image>") for question in questions)
    if tags != len(images):
        raise Unusable("image_tags", f"{tags} <image> tag(s) for {len(images)} image(s)")
    for i, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        yield f"turn {i}" if len(questions) > 1 else "", Turn(row, images, strip_tags(question), answer)


def _read_turn(turn: object) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise Unusable("bad_field", f"a turn is an object, not {name_kind(turn)}")
    role = _ROLES.get(str(turn.get("from", turn.get("role"))))
    content = read_content(turn.get("value", turn.get("content")))
    if role is None or content is None:
        has = ", ".join(map(str, turn))
        raise Unusable("bad_field", f"a turn needs from/value or role/content, and has {has}")
    return role, content


def read_content(content: object) -> str | None:
    """Return the text of a turn, "<image>" where a list of parts holds an image; None if it is neither."""
    if isinstance(content, list):
        return "".join(_read_part(part) for part in content)
    return content if isinstance(content, str) else None


def _read_part(part: object) -> str:
    if isinstance(part, Mapping):
        return "<image>" if part.get("type") == "image" else str(part.get("text") or "")
    return str(part)


def strip_tags(question: str) -> str:
    r"""Return the words of a question: `<image>` tags with the line break after them removed, and stripped.

    >>> strip_tags("<image>\n<image>\nWhere is it? ")
    'Where is it?'
    """
    return _TAG.sub("", question).strip()


def read_answer_boxes(answer: str) -> Iterator[tuple[Box, str]]:
    """Yield the boxes an answer names, 0-1000 unless written as fractions, each with the words before it.

    Boxes between `<|box_start|>` and `<|box_end|>`; without those marks, whatever reads as boxes.

    >>> list(read_answer_boxes("It's in the third image. <|box_start|>(316,58),(764,999)<|box_end|>"))
    [((0.316, 0.058, 0.764, 0.999), "It's in the third image. ")]
    """
    marked = list(_MARKED.finditer(answer))
    if not marked:
        yield from ((to_unit(quad), "") for quad in read_quads(answer))
    read_to = 0
    for match in marked:
        for quad in read_quads(match[1]):
            yield to_unit(quad), answer[read_to : match.start()]
        read_to = match.end()


def find_named_image(n_images: int, question: str, answer: str) -> int | None:
    """Return the image, from 0, that an answer names, else the one its question names; None if neither does.

    >>> find_named_image(3, "Where is the cat?", "It's in the third image."), find_named_image(3, "Where?", "")
    (2, None)
    """
    image, rule = decide_image(n_images, None, "", answer)
    if rule != "thought":
        image, rule = decide_image(n_images, None, question)
    return image if rule in ("thought", "question") else None
