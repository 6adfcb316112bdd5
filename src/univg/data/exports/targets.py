"""Tell what a sample boxes: on which of its pictures, of what category, and where, as detection formats need it."""

from __future__ import annotations

import re

from univg.data.exports.settings import Export
from univg.data.formats.faults import RecordFault, Unusable, report
from univg.data.formats.fields import show_box
from univg.data.formats.scale import box_fault
from univg.grounding.boxes import Box, clip_unit, is_degenerate
from univg.grounding.mentions import decide_image
from univg.grounding.samples import GroundingSample

__all__ = ["clip_box", "clip_targets", "find_category", "find_target", "place_boxes"]

_THINNEST = 1e-5
"""Of the image: a hundredth of a pixel of most. Less is rounded to nothing where boxes are written."""

_DETECTION = re.compile(r"Locate (?:the|every) (.*) in the image\.", re.DOTALL)
"""What the readers of detection sets ask."""


def find_target(sample: GroundingSample) -> int:
    """Return the image that the boxes lie on: the one stated, or named in the question; `Unusable` if none is."""
    image, rule = decide_image(len(sample.images), sample.target_image, sample.query)
    if rule == "last" and len(sample.images) > 1:
        cause = f"nothing says on which of its {len(sample.images)} images the box lies"
        raise Unusable("no_target_image", cause)
    return image


def place_boxes(sample: GroundingSample) -> list[tuple[int, Box]]:
    """Return each box with the image that it lies on, as `find_target` finds it where the sample does not say it.

    `Unusable` if there is no box and nothing says that there is none, or if nothing tells on which image a box lies.
    """
    if not sample.is_answered:
        raise Unusable("no_answer", "there is no box")
    return [(find_target(sample) if image is None else image, box) for image, box in sample.targets]


def find_category(sample: GroundingSample, how: Export) -> str | None:
    """Return the name of what is boxed, on one line; None if the sample only asks a question.

    `how.category` goes first, then the sample's `extra["category"]`, then what a detection set asks for.

    >>> find_category(GroundingSample(["a.jpg"], "Locate every tea cup in the image.", "detection"), Export())
    'tea cup'
    >>> find_category(GroundingSample(["a.jpg"], "Where is my cup?", "referring"), Export()) is None
    True
    """
    if how.category is not None:
        return how.category
    match = _DETECTION.fullmatch(sample.query) if sample.task == "detection" else None
    named = sample.extra.get("category", match[1] if match else None)
    if named is None:
        return None
    if not isinstance(named, str) or not named.strip():
        raise Unusable("bad_field", f"its category is {named!r}", "give the name of what is boxed")
    return " ".join(named.split())


def clip_targets(sample: GroundingSample, how: Export) -> list[tuple[int, Box]]:
    """Return the boxes that lie in their images, each with its image and clipped to it; each that is changed or left
    out is reported, and one that is written twice counts once.

    `Unusable` as for `place_boxes`.
    """
    targets = []
    for image, box in dict.fromkeys(place_boxes(sample)):
        with how.reporting(sample):
            targets.append((image, clip_box(sample, box, how)))
    return targets


def clip_box(sample: GroundingSample, box: Box, how: Export) -> Box:
    """Return a box clipped to its image, which is reported; `Unusable` if it encloses nothing there."""
    fault = box_fault(box)
    clipped, _ = clip_unit(box)
    if fault is not None and (fault[0] != "out_of_range" or is_degenerate(clipped)):
        raise Unusable(*fault)
    x1, y1, x2, y2 = clipped
    if min(x2 - x1, y2 - y1) < _THINNEST:
        raise Unusable("degenerate_box", f"{show_box(clipped)} is thinner than can be written")
    if fault is None:
        return box
    kind, cause = fault
    report(RecordFault(sample.name, kind, f"{cause}, and was clipped", usable=True), how.on_fault)
    return clipped
