"""Read the fine-tuning JSON of Qwen-VL and of LLaVA, and chat messages whose images stand in their parts.

`image` (or `images`) and `conversations`; `messages` with parts `{"type": "image", "image": …}`; or Qwen-VL's
`<img>a.jpg</img>` in the turns. LLaVA writes 0-1 in brackets, Qwen2-VL and Qwen3-VL 0-1000, Qwen2.5-VL pixels: which,
the whole file tells, or the user.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from univg.data.formats.answers import WrittenBox
from univg.data.formats.conversations import split_turns
from univg.data.formats.faults import Unusable
from univg.data.formats.records import Source
from univg.data.formats.rows import read_rows
from univg.data.formats.scale import UNIT_LIMIT, Scale
from univg.data.readers.chat import ChatSet, read_chat, split_lessons
from univg.grounding.samples import GroundingSample

__all__ = ["detect_conversations", "read_llava", "read_qwen", "read_qwen_permille", "read_qwen_pixels"]

_TASK = "referring"
_LOOKED_AT = 1000
"""Records in which a box is looked for."""


def read_llava(source: Source) -> Iterator[GroundingSample]:
    """Yield a sample for each question that is answered with a box, 0-1 unless the file says otherwise."""
    yield from read_chat(source, ChatSet("llava", scales={"text": None, "keys": None}, task=_TASK))


def read_qwen(source: Source) -> Iterator[GroundingSample]:
    """Yield the same; boxes under keys in pixels or 0-1000, as the file tells, others 0-1000."""
    yield from read_chat(source, ChatSet("qwen", task=_TASK))


def read_qwen_pixels(source: Source) -> Iterator[GroundingSample]:
    """Yield the same, all boxes in pixels of the images as they lie there."""
    yield from read_chat(source, _fix("pixel"))


def read_qwen_permille(source: Source) -> Iterator[GroundingSample]:
    """Yield the same, all boxes 0-1000."""
    yield from read_chat(source, _fix("permille"))


def _fix(scale: Scale) -> ChatSet:
    return ChatSet("qwen", fixed=scale, task=_TASK)


def detect_conversations(path: Path, first: Mapping[str, Any]) -> str | None:
    """Tell formats apart whose records have the same fields, by how the first boxes are written; None for others.

    `image` and `conversations` are those of VLM-R1 (pixels in brackets), LLaVA (0-1) and Qwen (keys, or marks).
    """
    fields = {name for name, value in first.items() if value is not None}
    spoken = next((name for name, needed in _SPOKEN.items() if fields.issuperset(needed.split())), None)
    if spoken and "objects" not in fields and _find_objects(path):
        return "ms_swift"
    if spoken in ("ms_swift", "cotsft") and fields & {"images", "image"} and "objects" not in fields:
        return spoken
    if spoken == "trl" and "solution" not in fields:
        return "cotsft_messages" if "images" in fields else "qwen"
    if spoken and fields.isdisjoint({"images", "image", "objects"}) and _shows_paths(first):
        return "qwen" if spoken != "ms_swift" else spoken
    if "messages" in fields and fields.isdisjoint({"images", "objects", "prompt"}):
        return "qwen"
    if not {"image", "conversations"} <= fields or not fields.isdisjoint({"images", "objects"}):
        return None
    written = next(_find_boxes(path), [])
    if not written or written[0].notation == "keys" or "<|box_start|>" in written[0].before:
        return "qwen" if written else None
    numbers = [value for one in written for value in one.box]
    return "llava" if max(numbers) <= UNIT_LIMIT and any(value % 1 for value in numbers) else None


_SPOKEN = {
    "messages": "messages",
    "conversations": "conversations",
    "ms_swift": "query response",
    "cotsft": "instruction output",
    "trl": "prompt completion",
}
"""Fields that hold questions and answers, whatever else a record has."""


def _find_objects(path: Path) -> bool:
    """Tell whether records have boxes in `objects`, as ms-swift's: in a mixed file, the first need not."""
    rows = islice(read_rows(path), _LOOKED_AT)
    return any(isinstance(row, dict) and isinstance(row.get("objects"), (dict, str)) for _, row in rows)


def _shows_paths(row: Mapping[str, Any]) -> bool:
    """Tell whether the turns of a record name images, as Qwen-VL's `<img>a.jpg</img>` does."""
    try:
        return any(path for _, turn in split_turns(row) for path in turn.images)
    except Unusable:
        return False


def _find_boxes(path: Path) -> Iterator[list[WrittenBox]]:
    """Yield the boxes of each answer that holds some, of the first records."""
    for _, row in islice(read_rows(path), _LOOKED_AT):
        if isinstance(row, dict):
            try:
                yield from (lesson.written for _, lesson in split_lessons(row) if lesson.written)
            except Unusable:
                continue
