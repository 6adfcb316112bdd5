"""Read conversations as ShareGPT files and chat messages write them: questions, answers, and images shown by then.

`conversations` of `{"from": "human" | "gpt", "value": …}` or `messages` of `{"role": "user" | "assistant",
"content": …}`; a content is text, or a list of parts. `<image>`, or a part, or Qwen-VL's `<img>a.jpg</img>`, stands for
one image. The paths stand in `images`, in `image`, or in the turns. Records of one question and answer under fields of
their own are made conversations first (`make_messages`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from univg.data.formats.faults import Unusable
from univg.data.formats.fields import Row, clean_path, get_images, name_kind, shorten
from univg.data.formats.image_root import plain_path
from univg.grounding.mentions import decide_image

__all__ = [
    *(
        "Turn",
        "find_named_image",
        "has_system",
        "make_messages",
        "read_content",
        "read_images",
        "split_turns",
        "strip_tags",
    ),
]

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_TAG = re.compile(r"(?:<image>[ \t]*\n?)+")
_IMG = re.compile(r"<img>\s*(.*?)\s*</img>", re.DOTALL)
_SHOWN = re.compile(rf"<image>|{_IMG.pattern}", re.DOTALL)


class Turn(NamedTuple):
    """A question of a conversation, without `<image>` tags, with its answer; `images` are those shown by then."""

    row: Row
    images: tuple[str, ...]
    question: str
    answer: str
    n_new: int = 0
    """How many of the images this question shows."""


class _Said(NamedTuple):
    """What one turn says: its text with a tag for each image, and for each tag the path, if the turn gives it."""

    role: str
    text: str
    paths: tuple[str | None, ...]


def split_turns(
    row: Row, images_field: str | None = None, untagged: bool = False
) -> Iterator[tuple[str, Turn]]:
    """Yield each question with its answer, named "turn 0", "turn 1" … if there are several, else "".

    The images are those of `images_field` (default: `images`, else `image`), else those that stand in the turns.
    `Unusable` unless the turns go question, answer, question, answer, with one `<image>` for each image; with
    `untagged`, no tag at all is as good: the first question shows all.
    """
    if row.get("label") is False or row.get("kto_tag") is False:
        raise Unusable("bad_field", "its answer is marked as a wrong one (KTO)", "give right answers alone")
    row, untagged = (
        make_messages(row),
        untagged or "completion" in row,
    )  # TRL puts images first where no tag is
    name = "conversations" if "conversations" in row else "messages"
    turns = row.get(name)
    if isinstance(turns, str):
        with suppress(ValueError, RecursionError):
            turns = json.loads(turns)
    if not isinstance(turns, list):
        has = ", ".join(row)
        raise Unusable("missing_field", f"there is no list 'conversations' or 'messages', but {has}")
    spoken = [said for said in map(_read_turn, turns) if said.role != "system"]
    questions, answers = spoken[0::2], spoken[1::2]
    images = read_images(row, [path for said in questions for path in said.paths], images_field)
    if not spoken:
        raise Unusable("empty_question", f"{name!r} holds no question with an answer")
    for i in range(0, len(spoken), 2):
        if [said.role for said in spoken[i : i + 2]] != ["user", "assistant"]:
            cause = f"{name!r} does not go question, answer, question, answer: turn {i} is not so"
            raise Unusable("bad_field", cause, "put the turns in order, each question with its answer")
    tags = [len(said.paths) for said in questions]
    if sum(len(said.paths) for said in answers):
        raise Unusable("image_tags", "an answer shows an image", "show images in questions")
    if untagged and not sum(tags):
        tags[0] = len(images)
    if sum(tags) != len(images):
        raise Unusable("image_tags", f"{sum(tags)} <image> tag(s) for {len(images)} image(s)")
    shown = 0
    for i, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        shown += tags[i]
        turn = Turn(row, images[:shown], strip_tags(question.text), answer.text, tags[i])
        yield f"turn {i}" if len(questions) > 1 else "", turn


def make_messages(row: Row) -> Row:
    """Return a record with `messages`, whichever of the ways its turns are written in.

    `conversation` of `human` and `assistant`; `query`, `response` and `history` (ms-swift before version 3);
    `instruction`, `input`, `output` and `history` (Alpaca); `prompt` and `completion` (TRL).

    >>> make_messages({"instruction": "Find", "input": "the cat", "output": "(1,2),(3,4)"})["messages"][0]
    {'role': 'user', 'content': 'Find\\nthe cat'}
    """
    if "messages" in row or "conversations" in row:
        return row
    if isinstance(row.get("prompt"), list) and isinstance(row.get("completion"), list):
        return {**row, "messages": [*row["prompt"], *row["completion"]]}
    turns: list[tuple[Any, Any]] = []
    if isinstance(row.get("conversation"), list):
        if odd := [one for one in row["conversation"] if not isinstance(one, Mapping)]:
            raise Unusable("bad_field", f"a turn of 'conversation' is an object, not {name_kind(odd[0])}")
        turns = [(one.get("human"), one.get("assistant")) for one in row["conversation"]]
    elif "query" in row or "instruction" in row:
        history = row.get("history") or []
        if not isinstance(history, list) or not all(
            isinstance(one, list) and len(one) == 2 for one in history
        ):
            raise Unusable("bad_field", "'history' is not a list of pairs of question and answer")
        asked = row.get("query", row.get("instruction"))
        asked = f"{asked}\n{row['input']}" if asked and row.get("input") else asked
        turns = [*((one[0], one[1]) for one in history), (asked, row.get("response", row.get("output")))]
    messages = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    return {**row, "messages": messages} if turns else row


def read_images(row: Row, told: Sequence[str | None], field: str | None = None) -> tuple[str, ...]:
    """Return the paths of a record's images: those of its field, which the turns must not contradict, or theirs.

    >>> read_images({}, ["a.jpg"]), read_images({"image": "b.jpg"}, [None])
    (('a.jpg',), ('b.jpg',))
    """
    if field is None:
        field = "image" if row.get("images") is None and row.get("image") is not None else "images"
    value = row.get(field)
    if value is None and told and None not in told:
        return tuple(clean_path(path) for path in told if path is not None)
    if isinstance(value, list):  # {"path": …, "bytes": …}, as `datasets` keeps images
        value = [one.get("path") if isinstance(one, Mapping) else one for one in value]
        row = {**row, field: value}
    images = get_images(row, field)
    for path, image in zip(told, images, strict=False):
        if path is not None and not _is_one_path(clean_path(path), image):
            cause = f"a turn shows {shorten(path)} where {field!r} has {shorten(image)}"
            raise Unusable("other_name", cause, "name the image alike in both places")
    return images


def _is_one_path(one: str, other: str) -> bool:
    """Tell whether two paths can mean one file: one of them ends in the other."""
    ends = [[part for part in re.split(r"[\\/]", path) if part] for path in (one, other)]
    n = min(map(len, ends))
    return ends[0][-n:] == ends[1][-n:]


def has_system(row: Row) -> bool:
    """Tell whether a record has a system prompt, in a field or as a turn, that is not blank."""
    turns = row.get("conversations") or row.get("messages")
    spoken = [turn for turn in turns if isinstance(turn, Mapping)] if isinstance(turns, list) else []
    said = [
        turn.get("value", turn.get("content"))
        for turn in spoken
        if "system" in (turn.get("from"), turn.get("role"))
    ]
    return any(isinstance(text, str) and bool(text.strip()) for text in (*said, row.get("system")))


def _read_turn(turn: object) -> _Said:
    if not isinstance(turn, dict):
        raise Unusable("bad_field", f"a turn is an object, not {name_kind(turn)}")
    said_role = turn.get("from", turn.get("role"))
    role = _ROLES.get(str(said_role).lower())
    content = turn.get("value", turn.get("content"))
    text = read_content(content)
    if said_role is not None and role is None:
        raise Unusable(
            "bad_field", f"a turn is said by {shorten(said_role)}, not by one of {', '.join(_ROLES)}"
        )
    if role is None or text is None:
        has = ", ".join(f"{name} ({name_kind(value)})" for name, value in turn.items())
        raise Unusable("bad_field", f"a turn needs from/value or role/content, and has {has or 'nothing'}")
    parts = content if isinstance(content, list) else [content]
    return _Said(role, text, tuple(path for part in parts for path in _find_paths(part)))


def read_content(content: object) -> str | None:
    """Return the text of a turn, "<image>" where a list of parts holds an image; None if it is neither."""
    if isinstance(content, list):
        return "".join(_read_part(part) for part in content)
    return _IMG.sub("<image>", content) if isinstance(content, str) else None


def _read_part(part: object) -> str:
    if isinstance(part, Mapping):
        return "<image>" if _is_image(part) else _IMG.sub("<image>", str(part.get("text") or ""))
    return _IMG.sub("<image>", str(part))


def _is_image(part: Mapping[str, Any]) -> bool:
    """Tell whether a part of a message is an image: `{"type": "image"}`, `{"type": "image_url"}`, `{"image": …}`."""
    kind = part.get("type")
    if kind in ("video", "video_url", "audio", "input_audio") or (kind is None and part.get("video")):
        cause = f"a turn shows {'a video' if 'video' in str(kind or 'video') else 'sound'}"
        raise Unusable("bad_field", cause, "take frames out of it, one image each")
    return kind in ("image", "image_url", "input_image") or (kind is None and bool(part.get("image")))


def _find_paths(part: object) -> list[str | None]:
    """Return an entry for each image that a part of a message shows: its path, if the part gives it."""
    if not isinstance(part, Mapping) or not _is_image(part):
        text = str(part.get("text") or "") if isinstance(part, Mapping) else str(part)
        return [path or None for path in _SHOWN.findall(text)]
    value: Any = next((part[name] for name in ("image", "image_url", "path", "url") if part.get(name)), None)
    if isinstance(value, Mapping):
        value = value.get("url") or value.get("path")
    if value is None:
        return [None]
    if not isinstance(value, str) or value.startswith("data:"):
        what = "picture's bytes" if isinstance(value, str) else name_kind(value)
        raise Unusable(
            "bad_field", f"a part holds {what}, no path", "write the picture to a file and name it"
        )
    return [plain_path(value)]


def strip_tags(question: str) -> str:
    r"""Return the words of a question: `<image>` tags with the line break after them removed, and stripped.

    >>> strip_tags("<image>\n<image>\nWhere is it? ")
    'Where is it?'
    """

    def put(match: re.Match[str]) -> str:
        around = question[match.start() - 1 : match.start()], question[match.end() : match.end() + 1]
        return " " if all(one.strip() for one in around) else ""

    return _TAG.sub(put, question).strip()


def find_named_image(n_images: int, question: str, answer: str) -> int | None:
    """Return the image, from 0, that an answer names, else the one its question names; None if neither does.

    >>> find_named_image(3, "Where is the cat?", "It's in the third image."), find_named_image(3, "Where?", "")
    (2, None)
    """
    image, rule = decide_image(n_images, None, "", answer)
    if rule != "thought":
        image, rule = decide_image(n_images, None, question)
    return image if rule in ("thought", "question") else None
