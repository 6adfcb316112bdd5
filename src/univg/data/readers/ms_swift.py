"""Read ms-swift's grounding sets: `<bbox>` and `<ref-object>` in the turns, and what they stand for in `objects`.

- Since version 3: `messages`, `images`, `objects` of `ref`, `bbox`, `bbox_type` ("real": pixels, "norm1": 0-1),
  `image_id` (from 0, of each box) and perhaps `width`, `height` (of each image).
- Before: `query`, `response`, `history`, and `objects`, as a list or as JSON text, of `caption`, `bbox` (one or
  several), `bbox_type` ("real", "norm_1000", "norm_1") and `image` (from 0).

Every `<bbox>` takes the next box, in questions too. Without a number, a box lies on the first image, as ms-swift takes
it. A box of two numbers is a point.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from univg.data.formats.answers import Notation, WrittenBox, read_written
from univg.data.formats.conversations import Turn, split_turns
from univg.data.formats.faults import Unusable
from univg.data.formats.fields import Row, find_numbers, name_kind, read_box, shorten
from univg.data.formats.records import Source
from univg.data.readers.chat import ChatSet, Lesson, Lessons, read_chat, split_lessons
from univg.data.readers.wording import find_target
from univg.grounding.response import dissect
from univg.grounding.samples import GroundingSample

__all__ = ["read_ms_swift"]

_BOX, _REF = "<bbox>", "<ref-object>"
_TYPES: dict[str, Notation] = {
    "real": "real",
    "norm1": "norm1",
    "norm_1": "norm1",
    "norm1000": "norm1000",
    "norm_1000": "norm1000",
}
_NAME = re.compile(r"<ref>(.*?)</ref>", re.DOTALL)


class _Object(NamedTuple):
    """What `objects` holds for one `<bbox>`: its boxes (several only before version 3; none of a point), their image,
    and whether that is said."""

    boxes: list[WrittenBox]
    image: int
    said: bool


class _Objects(NamedTuple):
    """`objects` of a record: the names, what the boxes are, and the sizes stated of the images."""

    refs: list[str]
    boxes: list[_Object]
    sizes: tuple[tuple[Any, Any], ...] = ()


def read_ms_swift(source: Source) -> Iterator[GroundingSample]:
    """Yield a sample for each question that is answered with a box."""
    yield from read_chat(source, _MS_SWIFT)


def _split(row: Row) -> Lessons:
    if row.get("objects") in (None, "", [], {}):
        yield from split_lessons(row, untagged=True)
        return
    refs, boxes, sizes = _read_objects(row["objects"])
    turns = list(split_turns(row, untagged=True))
    text = "".join(turn.question + turn.answer for _, turn in turns)
    rejected = str(row.get("rejected_response") or "").count(_BOX)
    if rejected and text.count(_BOX) + rejected == len(boxes):
        boxes = boxes[:-rejected]  # they come behind those of the turns
    if text.count(_BOX) != len(boxes):
        raise Unusable("box_tags", f"{text.count(_BOX)} {_BOX} tag(s) for {len(boxes)} box(es) of 'objects'")
    if text.count(_REF) > len(refs):
        raise Unusable("box_tags", f"{text.count(_REF)} {_REF} tag(s) for {len(refs)} name(s) in 'objects'")
    if _REF not in text and len(refs) == len(boxes):  # names of the boxes that no turn speaks
        boxes = [
            one._replace(boxes=[box._replace(label=ref) for box in one.boxes])
            for one, ref in zip(boxes, refs, strict=True)
        ]
    rest_refs, rest_boxes = iter(refs), iter(boxes)
    for name, turn in turns:
        asked = list(islice(rest_refs, turn.question.count(_REF)))
        shown = list(islice(rest_boxes, turn.question.count(_BOX)))
        answered = list(islice(rest_refs, turn.answer.count(_REF)))
        given = list(islice(rest_boxes, turn.answer.count(_BOX)))
        turn = turn._replace(question=_put(turn.question, asked))
        try:
            yield name, _make_lesson(turn, asked, answered, shown, given)._replace(sizes=sizes)
        except Unusable as fault:
            yield name, Lesson(turn, [], fault=fault)


def _make_lesson(
    turn: Turn, asked: list[str], answered: list[str], shown: list[_Object], given: list[_Object]
) -> Lesson:
    """Make a lesson of a turn, of the names and boxes that its tags take."""
    marked = dissect(_put(turn.answer, [f"<ref>{name}</ref>" for name in answered]), "direct").region or ""
    plain = dissect(_put(turn.answer, answered), "direct")
    pieces = marked.split(_BOX)
    if len(pieces) - 1 != len(given):
        raise Unusable(
            "box_tags", f"a {_BOX} stands in the thought", "say in words what the thought speaks of"
        )
    if any(len(one.boxes) != 1 for one in shown) or any(not one.boxes for one in given):
        raise Unusable("no_box", f"a {_BOX} stands for a point, or one of a question for several boxes")
    if loose := read_written(" ".join(pieces)):
        raise Unusable("box_tags", f"the answer writes the box {shorten(loose[0].box)} beside {_BOX} tags")
    written, told, assumed = [], [], 0
    for i, (one, label) in enumerate(zip(given, _find_labels(pieces, asked), strict=True)):
        for box in one.boxes:
            written.append(box._replace(before=pieces[i], after=pieces[i + 1], label=box.label or label))
            told.append(one.image)
        named = None if one.said else find_target(turn.question, None, len(turn.images))
        if named is None and not one.said and turn.n_new == 1:
            named = len(turn.images) - 1  # the question shows it
        if named not in (None, one.image):
            cause = f"the question is about image {named + 1}, and without 'image_id' a box lies on the first"
            raise Unusable("which_image", cause, "give 'image_id', from 0, for each box")
        assumed += named is None and not one.said and len(turn.images) > 1
    known = tuple((one.boxes[0], one.image) for one in shown)
    turn = turn._replace(answer=plain.region or "")
    return Lesson(turn, written, plain.thought or None, told, known, assumed=assumed)


def _find_labels(pieces: list[str], asked: list[str]) -> list[str]:
    """Return the name of each box, which stands before each or behind each, else in the question."""
    names = [[name.strip() for name in _NAME.findall(piece)] for piece in pieces]
    n = len(pieces) - 1
    if not any(names):
        return asked * n if len(asked) == 1 else asked if len(asked) == n else [""] * n
    if not names[0] and names[-1]:
        return [(behind or [""])[0] for behind in names[1:]]
    labels = [""]
    for before in names[:-1]:
        labels.append(before[-1] if before else labels[-1])
    return labels[1:]


def _put(text: str, names: list[str]) -> str:
    """Put names in the place of `<ref-object>`."""
    pieces = text.split(_REF)
    return pieces[0] + "".join(name + piece for name, piece in zip(names, pieces[1:], strict=True))


def _read_objects(value: Any) -> _Objects:
    """Return what `objects` holds, in either form, as JSON text too."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Unusable("bad_field", f"'objects' is {shorten(value)}, not JSON") from None
    if isinstance(value, list) and all(isinstance(one, Mapping) for one in value):
        names = [_read_name(one.get("caption") or one.get("ref") or "") for one in value]
        return _Objects(names, [_read_old(one) for one in value])
    if not isinstance(value, Mapping):
        raise Unusable("bad_field", f"'objects' is {name_kind(value)}, not an object with 'bbox'")
    boxes, refs = (_list(value, name) for name in ("bbox", "ref"))
    boxes = [boxes] if boxes and not isinstance(boxes[0], list) else boxes
    types, images = (_spread(value.get(name), len(boxes), name) for name in ("bbox_type", "image_id"))
    entries = [_make_object([box], *beside) for box, *beside in zip(boxes, types, images, strict=True)]
    sides = [value.get(name) or [] for name in ("width", "height")]
    width, height = (side if isinstance(side, list) else [side] for side in sides)
    return _Objects([_read_name(ref) for ref in refs], entries, tuple(zip(width, height, strict=False)))


def _read_name(ref: Any) -> str:
    if not isinstance(ref, str):
        raise Unusable("bad_field", f"a name in 'objects' is {name_kind(ref)}, not text")
    return ref


def _list(value: Mapping[str, Any], name: str) -> list[Any]:
    found = value.get(name)
    if isinstance(found, str) and found:
        return [found]
    if found and not isinstance(found, list):
        raise Unusable("bad_field", f"{name!r} of 'objects' is {name_kind(found)}, not a list")
    return found or []


def _spread(value: Any, n: int, name: str) -> list[Any]:
    """Return one value for each box of what is given for all, or for the first of them."""
    if not isinstance(value, list):
        return [value] * n
    if len(value) > n:
        raise Unusable("bad_field", f"{len(value)} values of {name!r} for {n} box(es)")
    return [*value, *[None] * (n - len(value))]


def _read_old(one: Mapping[str, Any]) -> _Object:
    boxes = one.get("bbox")
    boxes = boxes if isinstance(boxes, list) and boxes and isinstance(boxes[0], list) else [boxes]
    return _make_object(boxes, one.get("bbox_type"), one.get("image"))


def _make_object(boxes: list[Any], kind: Any, image: Any) -> _Object:
    notation = _TYPES.get(str(kind or "real"))
    if notation is None:
        raise Unusable("bad_field", f"'bbox_type' is {shorten(kind)}, not one of {', '.join(_TYPES)}")
    if image is not None and (isinstance(image, bool) or not isinstance(image, (int, float)) or image % 1):
        raise Unusable("bad_field", f"the number of an image is {shorten(image)}, not an integer")
    points = [box for box in boxes if len(find_numbers(box)) == 2]
    written = [] if points else [WrittenBox(read_box(box, "'bbox'"), notation=notation) for box in boxes]
    return _Object(written, int(image or 0), image is not None)


_MS_SWIFT = ChatSet(
    "ms_swift",
    _split,
    {"real": "pixel", "norm1": "unit", "norm1000": "permille", "text": "permille", "keys": None},
)
