"""UniVG-R1's own data: `stage1_cotsft.json` (chains of thought to imitate) and `stage2_rl.json` (for GRPO).

Stage 1 is ShareGPT for LLaMA-Factory: a question with `<image>` tags and the prompt's wording, answered by
`<think>…</think><answer>(x1,y1),(x2,y2)</answer>`, or by a bare box after the prefix for single-image simple
references. Stage 2 is a list of `question`, `answer` (four numbers, 0-1000) and `images`. The same module reads
what `univg data convert --to sharegpt` or `llamafactory` writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from univg.data.formats.conversations import check_tags, exchanges, without_tags
from univg.data.formats.records import (
    Row,
    Source,
    Unusable,
    clean_path,
    get_four,
    get_images,
    get_question,
    samples_from,
    shorten,
)
from univg.data.formats.rows import read_rows
from univg.data.formats.scale import file_scale, scaled
from univg.grounding.boxes import Box, clip_unit, unit_to_permille
from univg.grounding.coordinates import read_quads, to_unit
from univg.grounding.mentions import which_image
from univg.grounding.prompts import DIRECT_SUFFIX, SIMPLE_PREFIX, THINK_SUFFIX
from univg.grounding.samples import GroundingSample

__all__ = ["METADATA", "bare_query", "read_cotsft", "read_rl", "with_metadata"]

METADATA = "univg"
"""The column in which our exports keep what the other framework's format has no place for, as JSON text."""

_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def read_cotsft(source: Source) -> Iterator[GroundingSample]:
    """A sample for each question, with its thought; the prompt's wording is taken off the question."""

    def convert(row: Row, record: str) -> Iterable[GroundingSample | Unusable]:
        images, turns = get_images(row, "images"), exchanges(row)
        check_tags(turns, len(images))
        for turn in turns:
            part = f"turn {turn.turn}" if len(turns) > 1 else ""
            query, thinking = bare_query(without_tags(turn.question))
            thought = _THOUGHT.search(turn.answer)
            answer = _ANSWER.search(turn.answer)
            quads = read_quads(answer[1] if answer else _THOUGHT.sub("", turn.answer))
            if not quads and METADATA not in row:
                yield Unusable("no_box", f"the answer {shorten(turn.answer[-80:])} holds no box", part=part)
                continue
            words = thought[1].strip() if thought else None
            sample = GroundingSample(
                images=tuple(images),
                query=query,
                task=str(row.get("task") or "cotsft"),
                boxes=tuple(to_unit(quad) for quad in quads),
                target_image=_target(query, words, len(images)),
                thought=words or None,
                thinking=thinking,
                source=f"{record}@{part}" if part else record,
            )
            yield with_metadata(sample, row)

    yield from samples_from(source, "cotsft", read_rows(source.path), convert)


def read_rl(source: Source) -> Iterator[GroundingSample]:
    """A sample for each record, as the reference trainer reads it: `<image>` removed, stripped."""
    scale = file_scale(source, read_rows(source.path), "answer")

    def convert(row: Row, record: str) -> Iterable[GroundingSample]:
        images = get_images(row, "images")
        query, thinking = bare_query(without_tags(get_question(row, "question")))
        yield GroundingSample(
            images=tuple(images),
            query=query,
            task=str(row.get("task") or "rl"),
            boxes=(scaled(get_four(row, "answer"), scale),),
            target_image=_target(query, None, len(images)),
            thinking=thinking,
            source=record,
        )

    yield from samples_from(source, "rl", read_rows(source.path), convert)


def bare_query(question: str) -> tuple[str, bool]:
    """A question without the prompt's wording, and whether it asks for thinking.

    >>> bare_query("This is a single image grounding task with simple reference. The dog.")
    ('The dog.', False)
    """
    if question.startswith(SIMPLE_PREFIX.strip()):
        return question.removeprefix(SIMPLE_PREFIX.strip()).strip(), False
    for suffix in (THINK_SUFFIX, DIRECT_SUFFIX):
        question = question.removesuffix(suffix.strip()).rstrip()
    return question, True


def _target(query: str, thought: str | None, n_images: int) -> int | None:
    image, rule = which_image(n_images, None, query, thought)
    return image if rule in ("question", "thought") else 0 if n_images == 1 else None


def with_metadata(sample: GroundingSample, row: Mapping[str, Any]) -> GroundingSample:
    """`sample` with what our export kept beside it: task, source, target image, exact boxes, extra.

    The text wins over the column where a person has edited it: the exact boxes are only taken if they are the
    ones the text rounds.
    """
    try:
        kept = json.loads(row.get(METADATA) or "")
        boxes: list[Box] = [(b[0], b[1], b[2], b[3]) for b in kept.pop("boxes")]
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        return sample
    said, exact = map(_rounded, (sample.boxes[:1], tuple(boxes[:1])))
    merged = sample.to_json() | kept
    if said == exact or not sample.boxes:
        merged["boxes"] = boxes
    return GroundingSample.from_json({**merged, "images": [clean_path(name) for name in sample.images]})


def _rounded(boxes: tuple[Box, ...]) -> list[tuple[int, ...]]:
    return [unit_to_permille(clip_unit(box)[0]) for box in boxes]
