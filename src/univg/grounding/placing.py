"""The image that each box of an answer lies on, where the answer itself says so: by a key beside it, or in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from univg.grounding.image_names import NOUN
from univg.grounding.mentions import find_said
from univg.grounding.notations import Answer
from univg.grounding.shapes import ImageNumber

__all__ = ["Said", "find_images_said"]


class Said(NamedTuple):
    """What an answer says of a box's image: its number from 0 (-1: none that there is, or none that can be told), and
    whether it is said of this box, or only named in the text before it."""

    image: int
    sure: bool


_BEHIND = 120  # characters behind a box that may name its image
_ZERO = re.compile(rf"\b{NOUN}[ ]?[-_#(:]{{0,2}}[ ]?0(?![\w.,]\d|\w)|图[片像]?[ ]?0(?!\d)", re.IGNORECASE)


def find_images_said(answer: Answer, n_images: int) -> Iterator[Said | None]:
    """Yield, box by box, what the answer says of its image.

    A key goes before words. Keys count as :func:`_count_keys` says; words count from 1, unless the answer has an
    "image 0". Words before several boxes hold for all of them ("Image 2: …, …") until others come.
    """
    keys = _count_keys([box.image for box in answer.boxes], n_images)
    zero = n_images > 1 and _ZERO.search(answer.text) is not None
    last: Said | None = None
    read_to = 0
    for place, box in enumerate(answer.boxes):
        following = answer.boxes[place + 1].start if place + 1 < len(answer.boxes) else len(answer.text)
        behind = answer.text[box.end : max(box.end, min(following, box.end + _BEHIND))]
        words = find_said(n_images, answer.text[read_to : max(box.start, read_to)], behind, 0 if zero else 1)
        read_to = max(read_to, box.end + (words[2] if words else 0))
        if box.image is not None:
            yield Said(keys[box.image], True)
            continue
        said = Said(words[0], words[1]) if words else last
        yield said
        last = None if words and words[2] else said


def _count_keys(numbers: Sequence[ImageNumber | None], n_images: int) -> dict[ImageNumber, int]:
    """Return the image, from 0, that each number under a key means; -1 for one that there is not or cannot be told.

    ``image_idx`` and ``image_index`` count from 0, as positions in a list do; ``image``, ``img`` and ``image_number``
    from 1, as a text's "image 1" does, but from 0 where the answer also has a 0. ``image_id`` says neither: a 0 or the
    number of images among them tells, else nothing does.
    """
    given = {number for number in numbers if number is not None}
    seen = {counts: {one.number for one in given if one.counts == counts} for counts in "01?"}
    found: dict[ImageNumber, int] = {}
    for number in given:
        alike = seen[number.counts]
        first = 0 if number.counts == "0" or 0 in alike else 1
        told = number.counts != "?" or 0 in alike or n_images in alike
        image = number.number - first
        found[number] = image if told and number.number >= 0 and 0 <= image < n_images else -1
    return found
