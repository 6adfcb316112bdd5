"""Read MGrounding-630k: the whole file, or one of its per-task files, as published.

A list of records `id`, `images`, `conversations` (several turns; one `<image>` per image in the first) and
`type`. Answers name an image and a box: `It's in the third image. <|box_start|>(316,58),(764,999)<|box_end|>`,
integers 0-1000. Each answered question becomes a sample of its own. Where an answer boxes the object in several
frames (object tracking), each frame becomes one, and the question says which.

The `_gg_reg` sub-task runs the other way, box in and text out. Those turns are no grounding: `read_mgrounding`
counts them in a note, `read_mgrounding_text` reads them, and only them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from univg.data.formats.answers import ImageNumbers, find_box_images
from univg.data.formats.conversations import Turn, find_named_image, split_turns
from univg.data.formats.fields import Row
from univg.data.formats.records import Source, make_samples
from univg.data.formats.rows import read_rows
from univg.data.readers.chat import ChatSet, Lesson, find_images, read_chat, shows_box
from univg.grounding.samples import GroundingSample

__all__ = ["TASKS", "read_mgrounding", "read_mgrounding_text"]

TASKS: dict[str, str] = {
    "common_train": "common_object",
    "diff_train": "diff",
    "free_form_grounding": "free_form",
    "gg_train": "group_grounding",
    "gg_reg": "group_captioning",
    "ot_train": "object_tracking",
    "refer_train": "refer_grounding",
    "region_train": "region",
}
"""The set's sub-tasks (a record's `type`, or how a per-task file's name begins) in MIG-Bench's words.
A type that is not here keeps its own name."""

TEXT_TASK = "group_captioning"


def read_mgrounding(source: Source) -> Iterator[GroundingSample]:
    """Yield a sample for each question that is answered with a box, one for each frame where several are boxed."""

    def describe(row: Row) -> tuple[str | None, dict[str, Any]]:
        kind = str(row.get("type") or "")
        return _find_task(kind, source.path.stem), {"type": kind}

    def place(lesson: Lesson, numbers: ImageNumbers) -> list[int | None]:
        return _find_frames(lesson, numbers, describe(lesson.turn.row)[0])

    texts = "show a box and are answered with text (the reg sub-task): kept apart; "
    texts += "read them with --format mgrounding_text"
    chat = ChatSet(
        "mgrounding",
        scales={"text": "permille", "keys": "permille"},
        place=place,
        describe=describe,
        thinks=True,
        is_text=lambda lesson: _is_text_answer(lesson.turn),
        texts=texts,
    )
    yield from read_chat(source, chat)


def read_mgrounding_text(source: Source) -> Iterator[GroundingSample]:
    """Yield the questions that show a box and are answered with text: no box, `extra["answer"]` is the text."""
    grounding = 0

    def convert(turn: Turn, record: str) -> Iterable[GroundingSample]:
        nonlocal grounding
        if shows_box(turn.answer) or not _is_text_answer(turn):
            grounding += 1
            return
        extra = {"answer": turn.answer.strip(), "type": str(turn.row.get("type") or "")}
        yield GroundingSample(turn.images, turn.question, TEXT_TASK, source=record, extra=extra)

    yield from make_samples(source, "mgrounding", read_rows(source.path), convert, split=split_turns)
    if grounding:
        source.note(f"{grounding} question(s) are not box in, text out: read them with --format mgrounding")


def _find_task(kind: str, file_stem: str) -> str:
    """Return the sub-task's name, by the record's type, else by the file's name."""
    for name in (kind, file_stem):
        for start, task in TASKS.items():
            if name.lstrip("_").startswith(start):
                return task
    return kind or "mgrounding"


def _is_text_answer(turn: Turn) -> bool:
    return bool(turn.answer.strip()) and shows_box(turn.question)


def _find_frames(lesson: Lesson, numbers: ImageNumbers, task: str | None) -> list[int | None]:
    """Return the image of each box.

    Images named beside the boxes decide. In tracking, else as many boxes as images, or one fewer (the first image
    shows the object to follow), stand for the images in order; in other tasks only if the question names no image.
    """
    turn, written = lesson.turn, lesson.written
    n, n_images = len(written), len(turn.images)
    placed = find_box_images(written, turn.images, numbers)
    if placed is not None:
        return [*placed]
    target = find_named_image(n_images, turn.question, turn.answer)
    in_order = n > 1 and n in (n_images, n_images - 1)
    if in_order and (target is None or task == "object_tracking"):
        return [*range(n_images - n, n_images)]
    return [target] * n if target is not None else find_images(lesson, numbers)
