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

from univg.data.formats.conversations import Turn, find_named_image, read_answer_boxes, split_turns
from univg.data.formats.faults import Unusable
from univg.data.formats.fields import shorten
from univg.data.formats.records import Source, make_samples
from univg.data.formats.rows import read_rows
from univg.grounding.boxes import Box
from univg.grounding.mentions import decide_image
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
    text_answers = 0

    def convert(turn: Turn, record: str) -> Iterable[GroundingSample]:
        nonlocal text_answers
        named = list(read_answer_boxes(turn.answer))
        if not named and _is_text_answer(turn):
            text_answers += 1
            return
        if not named:
            raise Unusable("no_box", f"the answer {shorten(turn.answer)} holds no box")
        images, query = turn.images, turn.question
        kind = str(turn.row.get("type") or "")
        task = _find_task(kind, source.path.stem)
        frames = _find_frames(named, len(images))
        if frames is None:
            boxes = tuple(box for box, _ in named)
            target = find_named_image(len(images), query, turn.answer)
            yield GroundingSample(images, query, task, boxes, target, source=record, extra={"type": kind})
            return
        extra = {"type": kind, "question": query}
        for frame, (box, _) in zip(frames, named, strict=True):
            asked, name = f"{query} Locate it in image {frame + 1}.", f"{record}@image {frame + 1}"
            yield GroundingSample(images, asked, task, (box,), frame, source=name, extra=extra)

    yield from make_samples(source, "mgrounding", read_rows(source.path), convert, split=split_turns)
    if text_answers:
        source.note(
            f"{text_answers} question(s) show a box and are answered with text (the reg sub-task): kept apart; "
            "read them with --format mgrounding_text"
        )


def read_mgrounding_text(source: Source) -> Iterator[GroundingSample]:
    """Yield the questions that show a box and are answered with text: no box, `extra["answer"]` is the text."""
    grounding = 0

    def convert(turn: Turn, record: str) -> Iterable[GroundingSample]:
        nonlocal grounding
        if next(read_answer_boxes(turn.answer), None) or not _is_text_answer(turn):
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
    return bool(turn.answer.strip()) and next(read_answer_boxes(turn.question), None) is not None


def _find_frames(named: list[tuple[Box, str]], n_images: int) -> list[int] | None:
    """Return the image of each of several boxes, if they lie in different ones; None if they are one image's.

    Images named before the boxes decide; else as many boxes as images, or one fewer (the first image shows the
    object to follow), stand for the images in order.
    """
    if len(named) < 2:
        return None
    by_words = [decide_image(n_images, None, "", words) for _, words in named]
    if all(rule == "thought" for _, rule in by_words):
        frames = [image for image, _ in by_words]
        return frames if len(set(frames)) == len(frames) else None
    if len(named) == n_images:
        return list(range(n_images))
    return list(range(1, n_images)) if len(named) == n_images - 1 else None
