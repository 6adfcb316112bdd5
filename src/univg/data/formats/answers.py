"""Read the boxes of an answer that is ground truth, each with what stands beside it: its image, and what it boxes.

Stricter than how models' answers are read (`univg.grounding.reading`): what is ambiguous is a fault.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from univg.data.formats.faults import Unusable
from univg.data.formats.fields import NUMBER, find_numbers, shorten, show_box
from univg.grounding.boxes import Box
from univg.grounding.coordinates import read_quads
from univg.grounding.mentions import decide_image, find_images_named, find_said
from univg.grounding.vocabulary import classify

__all__ = ["ImageNumbers", "Notation", "WrittenBox", "find_box_images", "find_image_keys", "read_written"]

Notation: TypeAlias = Literal["text", "keys", "real", "norm1", "norm1000"]
"""How a box is written: in a text, 0-1000 if nothing else is said, or under a key such as `bbox_2d`, where some
models have pixels and others 0-1000; or in a field, as a set says."""


class WrittenBox(NamedTuple):
    """A box as an answer writes it, x1 y1 x2 y2, and what stands beside it.

    - `before`, `after`: the words since the box before, and until the next one.
    - `label`: what it boxes, by name; "" if that is not said.
    - `image`: the key beside it that tells an image, and the key's value.
    """

    box: Box
    before: str = ""
    after: str = ""
    label: str = ""
    image: tuple[str, Any] | None = None
    notation: Notation = "text"


_FENCE = re.compile(r"```(?:json|python)?\s*(.*?)```", re.DOTALL)
_BOX_KEY = re.compile(r"(?:b?box(?:es)?|bounding_?box(?:es)?)(?:_?2d|_?xyxy)?", re.IGNORECASE)
_OF_PATH = re.compile(r"(?<=\w)_?(?:name|path)\Z", re.IGNORECASE)
_NUMBERED = re.compile(r"(?:image|img|picture|photo|frame)[ _-]?\d{1,3}", re.IGNORECASE)
_LABELS = ("label", "name", "ref", "object", "category", "caption", "description", "phrase", "class")
_REFERRED = re.compile(
    r"<\|object_ref_start\|>\s*(.*?)\s*<\|object_ref_end\|>|<ref>\s*(.*?)\s*</ref>", re.DOTALL
)
_MARKS = re.compile(r"<\|box_(?:start|end)\|>|</?box>")
_PLAIN = re.compile(
    r"\s*(?:<\|box_start\|>)?\((\d{1,4}),\s?(\d{1,4})\),\s?\((\d{1,4}),\s?(\d{1,4})\)(?:<\|box_end\|>)?\s*"
)
"""An answer that is nothing but a box as most published sets write it: read in a tenth of the time."""


def read_written(answer: str) -> list[WrittenBox]:
    """Return the boxes of an answer: those under keys of JSON such as `bbox_2d`, else those that its text holds.

    >>> [(one.box, one.label, one.image) for one in read_written('[{"bbox_2d": [1, 2, 3, 4], "image": 2}]')]
    [((1.0, 2.0, 3.0, 4.0), '', ('image', 2))]
    >>> [(one.before, one.box) for one in read_written("Image 2: (1,2),(3,4)")]
    [('Image 2: (', (1.0, 2.0, 3.0, 4.0))]
    """
    if (plain := _PLAIN.fullmatch(answer)) is not None:
        x1, y1, x2, y2 = map(float, plain.groups())
        return [WrittenBox((x1, y1, x2, y2), answer[: plain.start(1)], answer[plain.end(4) :])]
    values, rest = _find_json(answer)
    found = [one for value in values for one in _walk(value, "", None)]
    if not found:
        return list(_read_text(answer))
    said = {tuple(sorted(one.box)) for one in found}
    bare = [one for value in values if isinstance(value, list) for one in map(find_numbers, value)]
    for box in (*([*map(float, quad)] for quad in read_quads(rest)), *(one for one in bare if len(one) == 4)):
        if tuple(sorted(box)) not in said:
            cause = f"the answer writes the box {show_box(box)} beside those under keys of JSON"
            raise Unusable("several_answers", cause, "keep those that are meant")
    return found


def _find_json(answer: str) -> tuple[list[Any], str]:
    """Return the JSON objects and lists of objects that stand in an answer, and the text around them."""
    text = " ".join(fenced) if (fenced := _FENCE.findall(answer)) else answer
    values, rest = [], [_FENCE.sub(" ", answer)] if fenced else []
    decoder, at, read_to = json.JSONDecoder(), 0, 0
    while (start := min((i for i in (text.find("[", at), text.find("{", at)) if i >= 0), default=-1)) >= 0:
        try:
            value, at = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            at = start + 1
            continue
        if isinstance(value, dict) or (
            isinstance(value, list) and any(isinstance(one, dict) for one in value)
        ):
            values.append(value)
            rest.append(text[read_to:start])
            read_to = at
    return values, " ".join([*rest, text[read_to:]])


def _walk(value: Any, label: str, image: tuple[str, Any] | None) -> Iterator[WrittenBox]:
    """Yield the boxes under keys, with the nearest label and the nearest key that tells an image."""
    if isinstance(value, list):
        for one in value:
            yield from _walk(one, label, image)
    if not isinstance(value, dict):
        return
    label = next((str(value[name]).strip() for name in _LABELS if isinstance(value.get(name), str)), label)
    for key, said in value.items():
        if _find_first(key) and isinstance(said, (int, float, str)) and not isinstance(said, bool):
            image = (key, said)
    for key, inner in value.items():
        if _BOX_KEY.fullmatch(key):
            for box in _split_boxes(inner, key):
                if classify(key)[0] == "box_2d":  # Gemini's, which are 0-1000
                    yield WrittenBox((box[1], box[0], box[3], box[2]), "", "", label, image)
                else:
                    yield WrittenBox(box, label=label, image=image, notation="keys")
        elif isinstance(inner, (dict, list)):
            yield from _walk(inner, label, (key, key) if _NUMBERED.fullmatch(key) else image)


def _find_first(key: str) -> str:
    """Return where a key that tells an image counts from: "0", "1", or "?" (not known); "" for any other key."""
    kind, _ = classify(_OF_PATH.sub("", key))
    return kind.removeprefix("image") if kind.startswith("image") else ""


def _split_boxes(value: Any, key: str) -> list[Box]:
    """Return the boxes under one key: four numbers, two points, a text or names, or a list of such."""
    if isinstance(value, (dict, str)):
        quads = read_quads(value if isinstance(value, str) else json.dumps(value))
        boxes = [tuple(map(float, quad)) for quad in quads]
    elif isinstance(value, list) and (len(value) == 4 or list(map(_count, value)) == [2, 2]):
        boxes = [tuple(find_numbers(value))] if max(map(_count, value)) <= 2 else []
    else:
        boxes = []
    if boxes and all(len(box) == 4 for box in boxes):
        return [(box[0], box[1], box[2], box[3]) for box in boxes]
    if isinstance(value, list) and all(isinstance(one, (list, dict, str)) for one in value):
        return [box for one in value for box in _split_boxes(one, key)]
    raise Unusable("bad_box", f"{key!r} is {shorten(value)}, not four numbers")


def _count(value: Any) -> int:
    return len(find_numbers(value))


def _read_text(answer: str) -> Iterator[WrittenBox]:
    """Yield the boxes of a text, with the words between them."""
    numbers = [(match.start(), match.end(), float(match[0])) for match in NUMBER.finditer(answer)]
    quads = [tuple(float(number) for number in quad) for quad in read_quads(answer)]
    spans: list[tuple[int, int]] = []
    k = end = 0
    for quad in quads:
        for i in range(k, len(numbers) - 3):
            if sorted(number for _, _, number in numbers[i : i + 4]) == sorted(quad):
                spans.append((numbers[i][0], numbers[i + 3][1]))
                k, end = i + 4, numbers[i + 3][1]
                break
        else:
            spans.append((end, end))  # written with other numbers than it means: percent, centre and size
    if not quads:
        return
    starts = [start for start, _ in spans[1:]] + [len(answer)]
    ends = [0] + [end for _, end in spans[:-1]]
    label = ""
    for quad, (start, end), last, following in zip(quads, spans, ends, starts, strict=True):
        before, after = answer[last:start], answer[end:following]
        if named := _REFERRED.findall(before):
            label = next(filter(None, named[-1]), label)
        yield WrittenBox((quad[0], quad[1], quad[2], quad[3]), before, after, label)


# --- which image ---


def find_image_keys(written: Iterable[WrittenBox]) -> list[tuple[str, int]]:
    """Return the keys beside boxes that tell images by number, with their numbers."""
    return [
        (one.image[0], number)
        for one in written
        if one.image is not None and (number := _read_number(one.image[1])) is not None
    ]


def _read_number(value: Any) -> int | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if number.is_integer() else None


@dataclass
class ImageNumbers:
    """From where each key of a file counts images: found out over the file, as one record alone may not tell.

    A 0 says from 0, the number of the last image plus one from 1. Else `image_idx` counts from 0 and `image` from 1,
    as their names say; of `image_id` nobody knows.
    """

    from_0: set[str] = field(default_factory=set)
    from_1: set[str] = field(default_factory=set)

    def see(self, key: str, number: int, n_images: int) -> None:
        """Take in one number of a record with so many images."""
        if number == 0:
            self.from_0.add(key)
        if number == n_images:
            self.from_1.add(key)

    def find(self, key: str, number: int, n_images: int) -> int:
        """Return the image, from 0, or raise `Unusable`."""
        if key in self.from_0 and key in self.from_1:
            raise Unusable("which_image", f"{key!r} counts from 0 in some records and from 1 in others")
        told = "0" if key in self.from_0 else "1" if key in self.from_1 else _find_first(key)
        if not told.isdecimal():
            cause = f"{key!r} is {number}, and nothing tells whether it counts from 0 or 1"
            raise Unusable("which_image", cause)
        counts = int(told)
        if not 0 <= number - counts < n_images:
            cause = f"{key!r} is {number} (from {counts}), and there are {n_images} image(s)"
            raise Unusable("which_image", cause)
        return number - counts


def find_box_images(
    written: list[WrittenBox], images: tuple[str, ...], numbers: ImageNumbers
) -> list[int] | None:
    """Return the image, from 0, of each box; None if nothing beside the boxes tells. `Unusable` if some are told.

    Keys beside boxes decide; else the words before each box ("Image 2: …"), or those behind each ("… in the first
    image"), and a box that follows another without any lies where that one does.

    >>> text = "In image 2: (1,2),(3,4), (5,6),(7,8); in the first image: (1,1),(2,2)"
    >>> find_box_images(read_written(text), ("a.jpg", "b.jpg"), ImageNumbers())
    [1, 1, 0]
    """
    told = [_place_by_key(one.image, images, numbers) for one in written]
    if all(image is not None for image in told):
        return [image for image in told if image is not None]
    if any(image is not None for image in told):
        raise Unusable("which_image", f"{told.count(None)} of {len(told)} boxes have no number of an image")
    for one in written:
        _check_said(one, len(images))
    if len(images) == 1:
        return [0] * len(written)
    before = [_place_by_words(one.before, len(images)) for one in written]
    after = [_place_by_words(one.after, len(images)) for one in written]
    leading, trailing = before[0] is not None, after[-1] is not None
    if not leading and trailing and all(image is not None for image in after):
        return [image for image in after if image is not None]
    if leading and not (trailing and any(a != b for a, b in zip(_follow(before), after, strict=True))):
        return _follow(before)
    if not any(image is not None for image in (*before, *after)):
        return None
    raise Unusable("which_image", "the words beside the boxes do not tell the image of each")


def _follow(images: list[int | None]) -> list[int]:
    followed: list[int] = []
    for image in images:
        followed.append(image if image is not None else followed[-1])
    return followed


def _check_said(one: WrittenBox, n_images: int) -> None:
    """Refuse words beside a box that name an image which is not there."""
    before, after = (_MARKS.sub(" ", words) for words in (one.before, one.after))
    if not any(map(str.isalnum, before + after)):
        return
    said = find_said(n_images, before.rstrip("([{ "), after)
    if said is not None and said[:2] == (-1, True):
        words = shorten(before[-50:].strip() or after[:50].strip())
        raise Unusable("which_image", f"an answer has a box of none of the {n_images} image(s): {words}")


def _place_by_key(told: tuple[str, Any] | None, images: tuple[str, ...], numbers: ImageNumbers) -> int | None:
    if told is None:
        return None
    key, value = told
    number = _read_number(value)
    if number is not None:
        return numbers.find(key, number, len(images))
    text = str(value)
    same = [i for i, image in enumerate(images) if image == text or image.endswith("/" + text)]
    same = same or [
        i for i, image in enumerate(images) if image.rpartition("/")[2] == text.rpartition("/")[2]
    ]
    named = same or sorted(find_images_named(len(images), text.replace("_", " ").replace("-", " ")))
    if len(named) != 1:
        raise Unusable("which_image", f"{key!r} is {shorten(value)}, which is none of the images, or several")
    return named[0]


def _place_by_words(words: str, n_images: int) -> int | None:
    if not any(map(str.isalnum, words)):
        return None
    image, rule = decide_image(n_images, None, "", _MARKS.sub(" ", words))
    return image if rule == "thought" else None
