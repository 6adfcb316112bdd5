"""Draw groundings for people: all images with their boxes, the question above and the thought below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from univg.grounding.reading import FAULTS, Fault
from univg.pictures.drawing import ANSWER, OTHERS, draw_box, draw_side_by_side

if TYPE_CHECKING:
    from PIL import Image

    from univg.models.grounder import Grounding
    from univg.pictures.images import Picture

__all__ = ["draw_answer", "draw_overview", "explain_fault", "explain_image"]

_IMAGE_RULES = {
    "answer": "named by the answer",
    "target": "as given",
    "question": "named by the question",
    "thought": "named by the thought",
    "last": "the last image, as neither question nor thought names one",
}
"""What decided on which image a box lies, in words."""


def draw_overview(query: str, pictures: Sequence[Picture], grounding: Grounding) -> Image.Image:
    """Draw all images side by side, each box on its own image, the question above and the thought below."""
    boxes: list[list[tuple[float, float, float, float]]] = [[] for _ in pictures]
    for box in grounding.boxes:
        boxes[box.image_index].append(box.box_unit)
    answer = grounding.boxes[0].image_index if grounding.boxes else None
    captions = [
        f"image {i + 1}" + (f" · {_label_answer(grounding)}" if i == answer else "")
        for i in range(len(pictures))
    ]
    footer = [grounding.thought] if grounding.thought else []
    if grounding.fault:
        footer.append(f"{'' if grounding.boxes else 'No box. '}{explain_fault(grounding.fault)}")
    return draw_side_by_side(
        [picture.image for picture in pictures],
        boxes,
        captions,
        title=query,
        footer=footer,
        highlight=answer,
    )


def draw_answer(picture: Picture, grounding: Grounding) -> Image.Image:
    """Draw the boxes onto the answer's image at full resolution; the first is the answer."""
    image = picture.image
    for place, box in reversed(list(enumerate(grounding.boxes))):
        if box.image_index == grounding.boxes[0].image_index:
            label = _label_answer(grounding) if place == 0 else str(place + 1)
            image = draw_box(image, box.box_unit, label, ANSWER if place == 0 else OTHERS)
    return image


def _label_answer(grounding: Grounding) -> str:
    return "answer" if grounding.confidence is None else f"answer · agreement {grounding.confidence:.2f}"


def explain_fault(fault: Fault) -> str:
    """Return a fault's name and what it means."""
    return f"{fault}: {FAULTS[fault]}"


def explain_image(grounding: Grounding, images: int) -> list[str]:
    """Say in a line what decided which of the images the box is on; no line without a box, or for a single image."""
    if not grounding.boxes or images == 1:
        return []
    return [f"which image: {_IMAGE_RULES.get(grounding.image_rule, grounding.image_rule)}"]
