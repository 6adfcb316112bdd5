"""Read UniVG-R1's own data: `stage1_cotsft.json` (chains of thought to imitate) and `stage2_rl.json` (for GRPO).

Stage 1 is ShareGPT for LLaMA-Factory: a question with `<image>` tags and the prompt's wording, answered by
`<think>…</think><answer>(x1,y1),(x2,y2)</answer>`, or by a bare box after the prefix for single-image simple
references. Stage 2 is a list of `question`, `answer` (four numbers, 0-1000) and `images`. The same module reads
what `univg data convert --to sharegpt` or `llamafactory` writes.
"""

from __future__ import annotations

from collections.abc import Iterator

from univg.data.formats.answers import WrittenBox
from univg.data.formats.conversations import Turn, strip_tags
from univg.data.formats.fields import Row, get_box, get_images, get_question
from univg.data.formats.records import Source
from univg.data.readers.chat import ChatSet, Lesson, Lessons, read_chat
from univg.grounding.samples import GroundingSample

__all__ = ["read_cotsft", "read_rl"]


def read_cotsft(source: Source) -> Iterator[GroundingSample]:
    """Yield a sample for each question, with its thought; the prompt's wording is taken off the question."""
    yield from read_chat(source, _COTSFT)


def read_rl(source: Source) -> Iterator[GroundingSample]:
    """Yield a sample for each record, as the reference trainer reads it: `<image>` removed, stripped."""
    yield from read_chat(source, _RL)


def _split_rl(row: Row) -> Lessons:
    images = get_images(row, "images")
    turn = Turn(row, images, strip_tags(get_question(row, "question")), "", len(images))
    yield "", Lesson(turn, [WrittenBox(get_box(row, "answer"))])


_COTSFT = ChatSet("cotsft", task="cotsft", thinks=True)
_RL = ChatSet("rl", _split_rl, task="rl", thinks=True, tells=True)
