"""What an answer says against itself."""

from __future__ import annotations

import pytest

from univg.grounding.reading import Asked, read
from univg.models.doubts import list_doubts

ONE = "<answer>(100,100),(200,200)</answer>"


@pytest.mark.parametrize(
    ("thought", "images", "doubts"),
    [
        ("The third image shows a star.", 2, ["the thought speaks of image 3, and there are 2"]),
        (
            "Image-2 is empty, as is the 4th image.",
            1,
            ["the thought speaks of image 2, 4, and there is only one"],
        ),
        ("The second image shows a star, and the last image too.", 2, []),
        ("It is in the left image.", 3, []),
        ("It is a star.", 1, []),
    ],
)
def test_a_thought_may_speak_of_images_that_are_not_there(
    thought: str, images: int, doubts: list[str]
) -> None:
    reading = read(f"<think>{thought}</think>{ONE}", Asked(images, "Where?", "think"))
    assert list_doubts(reading, images) == doubts


def test_a_set_may_hold_one_thing_twice() -> None:
    boxes = ["(152,43),(226,115)", "(700,700),(800,800)", "(152,42),(226,113)", "(400,400),(520,520)"]
    text = "<think>Four.</think><answer>" + "".join(f"image-1: {box}; " for box in boxes) + "</answer>"
    reading = read(text, Asked(1, "Every star.", "set"))
    assert len(reading.boxes) == 4
    assert list_doubts(reading, 1) == ["nearly the same box twice: 1 and 3"]
    assert list_doubts(read(f"<think>One.</think>{ONE}", Asked(1, "Every star.", "set")), 1) == []
