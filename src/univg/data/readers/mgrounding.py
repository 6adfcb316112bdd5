"""MGrounding-630k: the whole file, or one of its per-task files, as published.

A list of records `id`, `images`, `conversations` (several turns; one `<image>` per image in the first) and
`type`. Answers name an image and a box: `It's in the third image. <|box_start|>(316,58),(764,999)<|box_end|>`,
integers 0-1000. Each answered question becomes a sample of its own. Where an answer boxes the object in several
frames (object tracking), each frame becomes one, and the question says which.

The `_gg_reg` sub-task runs the other way, box in and text out. Those turns are no grounding: `read_mgrounding`
counts them in a note, `read_mgrounding_text` reads them, and only them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from univg.data.formats.conversations import Answered, answer_boxes, check_tags, exchanges, without_tags
from univg.data.formats.records import Row, Source, Unusable, get_images, samples_from, shorten
from univg.data.formats.rows import read_rows
from univg.grounding.boxes import Box
from univg.grounding.mentions import which_image
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
    """A sample for each question that is answered with a box."""
    text_answers = 0

    def convert(row: Row, record: str) -> Iterable[GroundingSample | Unusable]:
        nonlocal text_answers
        images, turns, task = _opened(source, row)
        for turn in turns:
            part = f"turn {turn.turn}" if len(turns) > 1 else ""
            named = list(answer_boxes(turn.answer))
            if named:
                name = f"{record}@{part}" if part else record
                yield from _samples(turn, named, images, task, name, str(row.get("type") or ""))
            elif _is_text_answer(turn):
                text_answers += 1
            else:
                yield Unusable("no_box", f"the answer {shorten(turn.answer)} holds no box", part=part)

    yield from samples_from(source, "mgrounding", read_rows(source.path), convert)
    if text_answers:
        source.note(
            f"{text_answers} question(s) show a box and are answered with text (the reg sub-task): kept apart; "
            "read them with --format mgrounding_text"
        )


def read_mgrounding_text(source: Source) -> Iterator[GroundingSample]:
    """The questions that show a box and are answered with text: samples without a box, `extra["answer"]` the text."""
    grounding = 0

    def convert(row: Row, record: str) -> Iterable[GroundingSample]:
        nonlocal grounding
        images, turns, _ = _opened(source, row)
        for turn in turns:
            if next(answer_boxes(turn.answer), None) or not _is_text_answer(turn):
                grounding += 1
                continue
            yield GroundingSample(
                images=tuple(images),
                query=without_tags(turn.question),
                task=TEXT_TASK,
                source=f"{record}@turn {turn.turn}" if len(turns) > 1 else record,
                extra={"answer": turn.answer.strip(), "type": str(row.get("type") or "")},
            )

    yield from samples_from(source, "mgrounding", read_rows(source.path), convert)
    if grounding:
        source.note(f"{grounding} question(s) are not box in, text out: read them with --format mgrounding")


def _opened(source: Source, row: Row) -> tuple[list[str], list[Answered], str]:
    images, turns = get_images(row, "images"), exchanges(row)
    check_tags(turns, len(images))
    return images, turns, _task(str(row.get("type") or ""), source.path.stem)


def _task(kind: str, file_stem: str) -> str:
    """The sub-task's name, by the record's type, else by the file's name."""
    for name in (kind, file_stem):
        for start, task in TASKS.items():
            if name.lstrip("_").startswith(start):
                return task
    return kind or "mgrounding"


def _is_text_answer(turn: Answered) -> bool:
    return bool(turn.answer.strip()) and next(answer_boxes(turn.question), None) is not None


def _samples(
    turn: Answered, named: list[tuple[Box, str]], images: list[str], task: str, record: str, kind: str
) -> Iterator[GroundingSample]:
    query = without_tags(turn.question)
    frames = _frames(named, len(images))
    if frames is None:
        target = _target(query, turn.answer, len(images))
        yield GroundingSample(
            images=tuple(images),
            query=query,
            task=task,
            boxes=tuple(box for box, _ in named),
            target_image=target,
            source=record,
            extra={"type": kind},
        )
        return
    for frame, (box, _) in zip(frames, named, strict=True):
        yield GroundingSample(
            images=tuple(images),
            query=f"{query} Locate it in image {frame + 1}.",
            task=task,
            boxes=(box,),
            target_image=frame,
            source=f"{record}@image {frame + 1}",
            extra={"type": kind, "question": query},
        )


def _frames(named: list[tuple[Box, str]], n_images: int) -> list[int] | None:
    """The image of each of several boxes, if they lie in different ones; None if they are one image's.

    Images named before the boxes decide; else as many boxes as images, or one fewer (the first image shows the
    object to follow), stand for the images in order.
    """
    if len(named) < 2:
        return None
    by_words = [which_image(n_images, None, "", words) for _, words in named]
    if all(rule == "thought" for _, rule in by_words):
        frames = [image for image, _ in by_words]
        return frames if len(set(frames)) == len(frames) else None
    if len(named) == n_images:
        return list(range(n_images))
    return list(range(1, n_images)) if len(named) == n_images - 1 else None


def _target(query: str, answer: str, n_images: int) -> int | None:
    """The answer says it ("It's in the third image."), else the question; else it is unknown."""
    image, rule = which_image(n_images, None, "", answer)
    if rule == "thought":
        return image
    image, rule = which_image(n_images, None, query)
    return image if rule == "question" else None
