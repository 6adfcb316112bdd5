"""Read UniVG-R1's own data: `stage1_cotsft.json` (chains of thought to imitate) and `stage2_rl.json` (for GRPO).

Stage 1 is ShareGPT for LLaMA-Factory: a question with `<image>` tags and the prompt's wording, answered by
`<think>…</think><answer>(x1,y1),(x2,y2)</answer>`, or by a bare box after the prefix for single-image simple
references. Stage 2 is a list of `question`, `answer` (four numbers, 0-1000) and `images`. The same module reads
what `univg data convert --to sharegpt` or `llamafactory` writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from univg.data.formats.answers import Written
from univg.data.formats.conversations import Turn, strip_tags
from univg.data.formats.fields import Row, clean_path, get_box, get_images, get_question
from univg.data.formats.records import Source
from univg.data.readers.chat import ChatSet, Lesson, Lessons, read_chat
from univg.data.readers.wording import strip_wording
from univg.grounding.boxes import Box, BoxPermille, clip_unit, unit_to_permille
from univg.grounding.samples import GroundingSample

__all__ = ["METADATA", "add_metadata", "read_cotsft", "read_rl", "strip_wording"]

METADATA = "univg"
"""The column in which our exports keep what the other framework's format has no place for, as JSON text."""


def read_cotsft(source: Source) -> Iterator[GroundingSample]:
    """Yield a sample for each question, with its thought; the prompt's wording is taken off the question."""
    yield from read_chat(source, _COTSFT)


def read_rl(source: Source) -> Iterator[GroundingSample]:
    """Yield a sample for each record, as the reference trainer reads it: `<image>` removed, stripped."""
    yield from read_chat(source, _RL)


def _split_rl(row: Row) -> Lessons:
    images = get_images(row, "images")
    turn = Turn(row, images, strip_tags(get_question(row, "question")), "", len(images))
    yield "", Lesson(turn, [Written(get_box(row, "answer"))])


def add_metadata(sample: GroundingSample, row: Mapping[str, Any]) -> GroundingSample:
    """Return `sample` with what our export kept beside it: task, source, target image, exact boxes, extra.

    The text wins over the column where a person has edited it: the exact boxes are only taken if they are the
    ones the text rounds.
    """
    try:
        kept = json.loads(row.get(METADATA) or "")
        boxes: list[Box] = [(b[0], b[1], b[2], b[3]) for b in kept.pop("boxes")]
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        return sample
    merged = sample.to_json() | kept
    if not sample.boxes or _round(sample.boxes) == _round(boxes):
        merged["boxes"] = boxes
    return GroundingSample.from_json({**merged, "images": [clean_path(name) for name in sample.images]})


def _round(boxes: Iterable[Box]) -> list[BoxPermille]:
    return [unit_to_permille(clip_unit(box)[0]) for box in boxes][:1]


_COTSFT = ChatSet(
    "cotsft", finish=add_metadata, keeps_text=lambda row: METADATA in row, task="cotsft", thinks=True
)
_RL = ChatSet("rl", _split_rl, task="rl", thinks=True, tells=True)
