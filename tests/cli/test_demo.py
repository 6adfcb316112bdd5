"""What `univg demo` scores and shows of an example, of one box and of a set."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from univg.cli.demo import _make_cell, _score
from univg.grounding.samples import GroundingSample
from univg.models.grounder import GroundedBox, Grounding

LEFT, LOW = (0.1, 0.1, 0.4, 0.5), (0.2, 0.5, 0.5, 0.9)
IMAGES = [Image.new("RGB", (80, 60), (220, 220, 210)) for _ in range(2)]
ONE = GroundingSample(["a", "b"], "The cat?", "referring", [LEFT], target_image=0)
EVERY = replace(ONE, boxes=(LEFT, LOW), target_image=None, box_images=(0, 1), complete=True)
NONE = replace(ONE, boxes=(), target_image=None, complete=True)


def found(*boxes: tuple[int, tuple[float, float, float, float]], **changes: object) -> Grounding:
    grounded = tuple(GroundedBox(image, (0, 0, 1, 1), box, (0, 0, 1, 1)) for image, box in boxes)
    return replace(Grounding(None, grounded, "last", None, None, "raw", "m", 1.0), **changes)


@pytest.mark.parametrize(
    ("sample", "grounding", "expected"),
    [
        (ONE, found((0, LEFT)), 1.0),
        (ONE, found((1, LEFT)), 0.0),
        (ONE, found((0, LOW), (0, LEFT)), 0.0),
        (ONE, found(), 0.0),
        (EVERY, found((1, LOW), (0, LEFT)), 1.0),
        (EVERY, found((0, LEFT)), 2 / 3),
        (NONE, found(says_none=True), 1.0),
        (NONE, found(), 0.0),
    ],
)
def test_examples_are_scored(sample: GroundingSample, grounding: Grounding, expected: float) -> None:
    assert _score(sample, grounding) == pytest.approx(expected)


def test_a_cell_shows_all_boxes_of_a_set() -> None:
    images, box, marked, lines = _make_cell(EVERY, IMAGES, found((1, LOW), (0, LEFT)), 1.0)
    assert box is None and marked == {0, 1} and lines[0] == "right · referring · soft-F1 1.00"
    assert all(drawn.tobytes() != image.tobytes() for drawn, image in zip(images, IMAGES, strict=True))
    images, _, marked, lines = _make_cell(NONE, IMAGES, found(says_none=True), 1.0)
    assert marked == set() and lines[-1] == "Nothing of the kind."
    assert [drawn.tobytes() for drawn in images] == [image.tobytes() for image in IMAGES]
    images, box, image, lines = _make_cell(ONE, IMAGES, found((0, LEFT)), 0.49)
    assert (box, image, lines[0]) == (LEFT, 0, "wrong · referring · IoU 0.49")
