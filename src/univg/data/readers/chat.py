"""Read grounding conversations of any set: the scale of the boxes and the counting of images hold for the whole file.

Each answered question becomes a sample. An answer that boxes several things, or boxes in several images, becomes one
sample for each, whose question says which, so that no box is dropped and none lands on another image. Answers in text
beside such are no grounding: they are counted in a note.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

from univg.data.formats.answers import (
    ImageNumbers,
    WrittenBox,
    find_box_images,
    find_image_keys,
    read_written,
)
from univg.data.formats.chat_scale import decide_chat_scale, passes_permille
from univg.data.formats.conversations import Turn, has_system, split_turns
from univg.data.formats.embedded import unpack_rows
from univg.data.formats.faults import Unusable, refuse
from univg.data.formats.fields import Row, shorten, show_box
from univg.data.formats.records import Source, make_samples, read_stated
from univg.data.formats.rows import read_rows
from univg.data.formats.scale import SCALES, Scale, apply_scale, box_fault, decide_scale, stray_fault
from univg.data.readers.chat_boxes import ManyBoxes, NamedImage
from univg.data.readers.kept import add_metadata, find_metadata, is_kept_set, read_seen
from univg.data.readers.wording import (
    ask_which,
    asks_for_all,
    find_target,
    name_part,
    strip_wording,
)
from univg.grounding.boxes import Box, SizeWH
from univg.grounding.refusals import says_none
from univg.grounding.response import dissect
from univg.grounding.samples import GroundingSample

__all__ = ["ChatSet", "Lesson", "Lessons", "read_chat", "shows_box", "split_lessons"]


class Lesson(NamedTuple):
    """A question with its answer, and the boxes that the answer writes.

    - `told`: the image of each box, from 0, if the format has a field for it.
    - `shown`: boxes that stand in the question, at each `<bbox>`, with their images.
    - `sizes`: the size of each image, if the file states it.
    - `fault`: why it cannot be used, if it cannot.
    - `beside`: whether another question of the record is answered with a box.
    - `metadata`: what our own export kept of the record, if it is of one.
    - `assumed`: of how many boxes nothing says the image, and the format means the first of several.
    """

    turn: Turn
    written: list[WrittenBox]
    thought: str | None = None
    told: list[int] | None = None
    shown: tuple[tuple[WrittenBox, int], ...] = ()
    sizes: tuple[tuple[Any, Any], ...] = ()
    fault: Unusable | None = None
    beside: bool = False
    metadata: str | None = None
    assumed: int = 0


Lessons: TypeAlias = Iterator[tuple[str, Lesson]]


def split_lessons(row: Row, untagged: bool = False) -> Lessons:
    """Yield the questions of a conversation, with the boxes of their answers."""
    for name, turn in split_turns(row, untagged=untagged):
        answer = dissect(turn.answer, "direct")
        try:
            if answer.several:
                raise Unusable(
                    "several_answers", "it answers several times: <answer> stands twice", "keep one"
                )
            yield name, Lesson(turn, read_written(answer.region or ""), answer.thought or None)
        except Unusable as fault:
            yield name, Lesson(turn, [], fault=fault)


def find_images(lesson: Lesson, numbers: ImageNumbers) -> list[int | None]:
    """Return the image of each box, from 0: by field, key or word beside it, else the one that the question asks for.

    None for a single box where nothing tells; several boxes then are `Unusable`.
    """
    turn, written = lesson.turn, lesson.written
    if not written:
        return []
    for told in lesson.told or ():
        if not 0 <= told < len(turn.images):
            cause = f"a box lies on image {told}, counted from 0, and there are {len(turn.images)}"
            raise Unusable("which_image", cause)
    placed = find_box_images(written, turn.images, numbers)
    if lesson.told is not None:
        if placed is not None and len(turn.images) > 1 and placed != lesson.told:
            raise Unusable("which_image", "the words beside a box name another image than its number does")
        return [*lesson.told]
    if placed is not None:
        return [*placed]
    query, _ = strip_wording(turn.question)
    target = find_target(query, lesson.thought, len(turn.images))
    if target is None and turn.n_new == 1:
        target = len(turn.images) - 1  # the question shows it
    if target is None and len(written) > 1:
        cause = f"nothing tells on which of {len(turn.images)} images {len(written)} boxes lie"
        raise Unusable("which_image", cause)
    return [target] * len(written)


@dataclass(frozen=True)
class ChatSet:
    """What a format says of its conversations.

    - `scales`: the scale that boxes of a notation are in, or None where the file must tell.
    - `fixed`: the scale that is certain, because the user named the format so.
    - `place`: finds the image of each box (see `find_images`).
    - `describe`: returns the task that a record is of (None: `task`), and more to keep of it.
    - `thinks`: whether its questions ask for a thought, though none is there.
    - `tells`: whether the scale is noted where it is the expected one too, as the set exists in several.
    - `is_text`: whether an answer without a box is meant to be text; `texts`: how such are told, behind their number.
    """

    name: str
    split: Callable[[Row], Lessons] = split_lessons
    scales: dict[str, Scale | None] = field(default_factory=lambda: {"text": "permille", "keys": None})
    fixed: Scale | None = None
    place: Callable[[Lesson, ImageNumbers], list[int | None]] = find_images
    describe: Callable[[Row], tuple[str | None, dict[str, Any]]] = lambda row: (row.get("task"), {})
    task: str = "grounding"
    thinks: bool = False
    tells: bool = False
    is_text: Callable[[Lesson], bool] = lambda lesson: (
        lesson.beside or bool(lesson.shown) or shows_box(lesson.turn.question)
    )
    texts: str = "are answered with text, not with a box: left out"


_MEASURED = 3000
"""Boxes whose images are measured to tell pixels from 0-1000, where no number is above 1000."""


def read_chat(source: Source, chat: ChatSet) -> Iterator[GroundingSample]:
    """Yield the samples of a file of conversations."""
    survey = _Survey(source, chat)
    survey.look()
    maker = _Maker(source, chat, survey)
    rows = unpack_rows(source, read_rows(source.path))
    yield from make_samples(source, chat.name, rows, maker.convert, split=_mark(chat.split))
    maker.tell()


def _mark(split: Callable[[Row], Lessons]) -> Callable[[Row], Lessons]:
    """Make `split` say of each question what the record as a whole tells."""

    def split_whole(row: Row) -> Lessons:
        lessons, metadata = list(split(row)), find_metadata(row)
        boxed = any(lesson.written for _, lesson in lessons)
        for name, lesson in lessons:
            yield name, lesson._replace(beside=boxed, metadata=metadata)

    return split_whole


class _Survey:
    """What the file as a whole tells: how its keys count images, and the scale of each notation of boxes."""

    def __init__(self, source: Source, chat: ChatSet) -> None:
        self.source, self.chat = source, chat
        self.numbers = ImageNumbers()
        self.scales: dict[str, Scale | None] = {}

    def look(self) -> None:
        """Go through the whole file once; of each box only what decides is kept."""
        boxes: defaultdict[str, ManyBoxes] = defaultdict(ManyBoxes)
        keyed: list[Lesson] = []
        if self.source.images is not None:
            self.source.images.expect(self._list_images)
        for lesson in self._list_lessons():
            keys = find_image_keys(lesson.written)
            for key, number in keys:
                self.numbers.see(key, number, len(lesson.turn.images))
            if keys:
                turn = lesson.turn._replace(row={}, answer="")
                keyed.append(lesson._replace(turn=turn))  # only the whole file tells from where they count
            else:
                self._place(lesson, boxes)
        for lesson in keyed:
            self._place(lesson, boxes)
        for notation, written in boxes.items():
            scale = self.scales[notation] = self.chat.fixed or self._decide(notation, written)
            if self.chat.tells and scale is not None and scale == self.chat.scales[notation]:
                self.source.note(f"boxes are written {SCALES[scale]}")

    def _list_lessons(self, boxed: bool = True) -> Iterator[Lesson]:
        quiet = replace(self.source, on_fault=lambda fault: None, on_note=None)
        for _, row in unpack_rows(quiet, read_rows(self.source.path)):
            if isinstance(row, dict):
                try:
                    for _, lesson in self.chat.split(row):
                        if not boxed or ((lesson.written or lesson.shown) and find_metadata(row) is None):
                            yield lesson
                except Unusable:
                    continue  # reported when it is read

    def _list_images(self) -> Iterator[str]:
        for lesson in self._list_lessons(boxed=False):
            yield from lesson.turn.images

    def _place(self, lesson: Lesson, boxes: defaultdict[str, ManyBoxes]) -> None:
        try:
            images = self.chat.place(lesson, self.numbers)
        except Unusable:
            return  # reported when it is read
        for one, image in (*zip(lesson.written, images, strict=True), *lesson.shown):
            named = None if image is None or self.source.images is None else _name_image(lesson, image)
            boxes[one.notation].add(one.box, named)

    def _decide(self, notation: str, written: ManyBoxes) -> Scale | None:
        expected = self.chat.scales.get(notation, "permille")
        if expected not in (None, "permille"):
            return decide_scale(self._measure(written, len(written)), expected, self.source.note)
        every = expected is None or any(passes_permille(box) for box, _ in written)
        sized = self._measure(written, len(written) if every else _MEASURED)
        return decide_chat_scale(sized, expected, self.source.note)

    def _measure(self, written: ManyBoxes, measured: int) -> Iterator[tuple[Box, SizeWH | None]]:
        """Yield the boxes, the first of them with the size of their image where it is there."""
        for k, (box, image) in enumerate(written):
            size = None
            if image is not None and self.source.images is not None and k < measured:
                with suppress(Unusable):  # reported when it is read
                    size = self.source.read_size(*image)
            yield box, size


def _name_image(lesson: Lesson, image: int) -> NamedImage:
    """Return an image's name, and what the file states of its size."""
    stated = read_stated(lesson.sizes[image]) if image < len(lesson.sizes) else None
    return lesson.turn.images[image], stated or (None, None)


class _Maker:
    """Makes samples of lessons, and counts what is to be told at the end."""

    def __init__(self, source: Source, chat: ChatSet, survey: _Survey) -> None:
        self.source, self.chat, self.survey = source, chat, survey
        self.text_answers = self.divided = self.parts = self.with_system = self.assumed = 0

    def tell(self) -> None:
        """Note what was counted."""
        if self.text_answers:
            self.source.note(f"{self.text_answers} question(s) {self.chat.texts}")
        if self.assumed:
            self.source.note(
                f"{self.assumed} box(es) do not say on which of several images they lie: on the first, as the format "
                "has it"
            )
        if self.with_system:
            self.source.note(f"{self.with_system} question(s) follow a system prompt, which is left out")
        if self.divided:
            self.source.note(
                f"{self.divided} answer(s) box several things or images: {self.parts} samples, one for each, whose "
                "question says which"
            )

    def convert(self, lesson: Lesson, record: str) -> Iterable[GroundingSample]:
        """Yield the samples of one question."""
        turn = lesson.turn
        self.with_system += has_system(turn.row)
        self.assumed += lesson.assumed
        if lesson.fault is not None:
            raise lesson.fault
        whole = is_kept_set(lesson.metadata) or (self.source.complete and asks_for_all(turn.question))
        nothing = whole and says_none(dissect(turn.answer, "direct").region or "")
        if not lesson.written and lesson.metadata is None and not nothing:
            if turn.answer.strip() and self.chat.is_text(lesson):
                self.text_answers += 1
                return
            raise Unusable("no_box", f"the answer {shorten(turn.answer[-80:])} holds no box")
        images = self.chat.place(lesson, self.survey.numbers)
        if whole:
            yield self._make_set(lesson, images, record)
            return
        groups: defaultdict[tuple[str, int | None], list[Box]] = defaultdict(list)
        for one, image in zip(lesson.written, images, strict=True):
            groups[one.label, image].append(self._read_box(lesson, one, image))
        if not groups:
            groups["", None] = []
        query, thinking = strip_wording(self._fill_question(lesson))
        thinking = thinking and (self.chat.thinks or len(turn.images) > 1 or lesson.thought is not None)
        several_labels, several_images = (len({key[i] for key in groups}) > 1 for i in (0, 1))
        described, kept = self.chat.describe(turn.row)
        task = str(described or self.chat.task)
        self.divided += len(groups) > 1
        self.parts += len(groups) if len(groups) > 1 else 0
        for (label, image), boxes in groups.items():
            asked = ask_which(query, label if several_labels else "", image if several_images else None)
            name = (
                record
                if len(groups) == 1
                else f"{record}@{name_part(label, image, several_labels, several_images)}"
            )
            extra = {**kept, **({"label": label} if label else {})}
            extra |= {"question": query} if asked != query else {}
            if image is None and not boxes:
                image = find_target(query, lesson.thought, len(turn.images))
            sample = GroundingSample(
                turn.images, asked, task, tuple(boxes), image, lesson.thought, thinking, name, extra
            )
            yield add_metadata(sample, lesson.metadata) if len(groups) == 1 else sample

    def _make_set(self, lesson: Lesson, images: list[int | None], record: str) -> GroundingSample:
        """Make one sample of all boxes of an answer, which are all that its question asks for."""
        turn = lesson.turn
        boxes = tuple(
            self._read_box(lesson, one, image) for one, image in zip(lesson.written, images, strict=True)
        )
        query, thinking = strip_wording(self._fill_question(lesson))
        thinking = thinking and (self.chat.thinks or len(turn.images) > 1 or lesson.thought is not None)
        described, kept = self.chat.describe(turn.row)
        labels = [one.label for one in lesson.written]
        sample = GroundingSample(
            *(turn.images, query, str(described or self.chat.task), boxes, None, lesson.thought, thinking),
            source=record,
            complete=True,
            box_images=tuple(images),
            extra={**kept, **({"labels": labels} if any(labels) else {})},
        )
        return add_metadata(sample, lesson.metadata)

    def _fill_question(self, lesson: Lesson) -> str:
        """Return the question, with each box that it shows in the place of its `<bbox>`, 0-1000."""
        text, *rest = lesson.turn.question.split("<bbox>") if lesson.shown else [lesson.turn.question]
        for (one, image), following in zip(lesson.shown, rest, strict=True):
            x1, y1, x2, y2 = (round(1000 * value) for value in self._read_box(lesson, one, image))
            text += f"<|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>{following}"
        return text

    def _read_box(self, lesson: Lesson, one: WrittenBox, image: int | None) -> Box:
        """Return a box in the unit frame; `Unusable` if it is of another scale than the file's."""
        certain = lesson.metadata is not None
        if certain and (exact := read_seen(lesson.metadata, one.box, image)) is not None:
            return exact
        scale = (self.chat.scales if certain else self.survey.scales).get(one.notation)
        text = show_box(one.box)
        if scale is None:
            fix = "say with --images where the images lie"
            if self.chat.split is split_lessons:
                fix += ", or name --format qwen_pixels or qwen_permille"
            raise Unusable(
                "wrong_scale", f"{text} may be in pixels or 0-1000: nothing in the file tells", fix
            )
        if not certain:
            refuse(stray_fault(one.box, scale))
        if scale == "permille" and passes_permille(one.box):
            raise Unusable("wrong_scale", f"{text} passes 1000, and the file is written 0-1000: in pixels?")
        size = None
        if scale == "pixel":
            if image is None:
                n = len(lesson.turn.images)
                raise Unusable(
                    "which_image", f"{text} is in pixels, and nothing tells of which of {n} images"
                )
            size = self.source.read_size(*_name_image(lesson, image))
        box = apply_scale(one.box, scale, size)
        fault = box_fault(box)
        if fault and (
            fault[0] == "bad_box" or (fault[0] == "wrong_scale" and (scale == "permille" or max(box) > 1))
        ):
            where = (
                f" of {lesson.turn.images[image]}, {size[0]}x{size[1]}" if size and image is not None else ""
            )
            raise Unusable(
                fault[0], f"{text} lies far outside the image{where}" if max(box) > 1 else fault[1]
            )
        return box


def shows_box(text: str) -> bool:
    """Tell whether a text writes a box, be it one that cannot be read."""
    try:
        return bool(read_written(text))
    except Unusable:
        return True
