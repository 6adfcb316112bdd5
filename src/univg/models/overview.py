"""Draw groundings for people: all images with their boxes, the question above and the thought below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from univg.grounding.boxes import Box
from univg.grounding.reading import FAULTS, Fault
from univg.pictures.drawing import ANSWER, OTHERS, draw_box, draw_side_by_side

if TYPE_CHECKING:
    from PIL import Image

    from univg.models.grounder import Grounding
    from univg.pictures.images import Picture

__all__ = ["NOTHING", "draw_answer", "draw_overview", "explain_fault", "explain_image", "number_box"]

NOTHING = "Nothing of the kind."
"""What an answer says, in words, that says that nothing of what was asked for is there."""
_IMAGE_RULES = {
    "answer": "named by the answer",
    "target": "as given",
    "question": "named by the question",
    "thought": "named by the thought",
    "last": "the last image, as neither question nor thought names one",
}
"""What decided on which image a box lies, in words."""


def draw_overview(query: str, pictures: Sequence[Picture], grounding: Grounding) -> Image.Image:
    """Draw all images side by side, each box on its own image, the question above and the thought below.

    Several boxes of a set bear their numbers, from 1, in the order in which they were given.
    """
    boxes: list[list[Box | tuple[Box, str]]] = [[] for _ in pictures]
    for place, box in enumerate(grounding.boxes):
        number = number_box(grounding, place)
        boxes[box.image_index].append((box.box_unit, number) if number else box.box_unit)
    if grounding.is_set:
        answers = [i for i, found in enumerate(boxes) if found]
        marks = [f" · {len(found)} found" if found else "" for found in boxes]
    else:
        answers = [grounding.boxes[0].image_index] if grounding.boxes else []
        marks = [f" · {_label_answer(grounding)}" if i in answers else "" for i in range(len(pictures))]
    footer = [grounding.thought] if grounding.thought else []
    footer += [NOTHING] if grounding.is_set and grounding.says_none else []
    if grounding.fault:
        footer.append(f"{'' if grounding.boxes else 'No box. '}{explain_fault(grounding.fault)}")
    return draw_side_by_side(
        [picture.image for picture in pictures],
        boxes,
        [f"image {i}{mark}" for i, mark in enumerate(marks, start=1)],
        title=query,
        footer=footer,
        highlight=answers,
    )


def draw_answer(picture: Picture, grounding: Grounding, image: int | None = None) -> Image.Image:
    """Draw the boxes of one image (None: that of the first box) onto it, at full resolution.

    Of one box that was asked for, the first is the answer, and any others are shown for what they are; of a set, all
    are, each with its number.
    """
    drawn = picture.image
    shown = grounding.boxes[0].image_index if image is None and grounding.boxes else image
    for place, box in reversed(list(enumerate(grounding.boxes))):
        if box.image_index == shown and grounding.is_set:
            drawn = draw_box(drawn, box.box_unit, number_box(grounding, place))
        elif box.image_index == shown:
            label = _label_answer(grounding) if place == 0 else str(place + 1)
            drawn = draw_box(drawn, box.box_unit, label, ANSWER if place == 0 else OTHERS)
    return drawn


def number_box(grounding: Grounding, place: int) -> str:
    """Return what the box at `place` is called beside the others of a set: its number, from 1; "" for a single one."""
    return str(place + 1) if grounding.is_set and len(grounding.boxes) > 1 else ""


def _label_answer(grounding: Grounding) -> str:
    return "answer" if grounding.confidence is None else f"answer · agreement {grounding.confidence:.2f}"


def explain_fault(fault: Fault) -> str:
    """Return a fault's name and what it means."""
    return f"{fault}: {FAULTS[fault]}"


def explain_image(grounding: Grounding, images: int) -> list[str]:
    """Say in a line what decided which of the images the box is on; no line without a box, or for a single image, or
    where each of several says it for itself."""
    if not grounding.boxes or images == 1 or (grounding.is_set and grounding.image_rule == "answer"):
        return []
    return [f"which image: {_IMAGE_RULES.get(grounding.image_rule, grounding.image_rule)}"]
