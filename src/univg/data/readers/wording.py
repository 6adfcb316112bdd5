"""Take the paper's wording off a question, and find the image that question and thought name."""

from __future__ import annotations

import re

from univg.grounding.mentions import decide_image
from univg.grounding.prompts import (
    DIRECT_SUFFIX,
    SET_DIRECT_SUFFIX,
    SET_SUFFIX,
    SIMPLE_PREFIX,
    THINK_SUFFIX,
)

__all__ = ["ask_every", "ask_which", "asks_for_all", "find_target", "name_part", "strip_wording"]

_ELLIPSIS = re.compile(
    r"((?:image|picture|photo|frame)\b.*\b(?:in|on) the (?:first|second|third|fourth|fifth|last))(?: one)?"
    r"(?=\s*(?:[.,;:?!]|\Z))",
    re.IGNORECASE | re.DOTALL,
)
"""An image named by its number alone, after another was named in full: "… of the first image in the second"."""

_SUBJECT = re.compile(
    r"((?:image|picture|photo|frame)\b.*?[.;,]\W*(?:(?:but|and|while|whereas) )?the "
    r"(?:first|second|third|fourth|fifth|last))(?= (?:does|has|shows|is|contains)\b)",
    re.IGNORECASE | re.DOTALL,
)
"""The same where it speaks: "The first image has no cat. The second does."."""


def strip_wording(question: str) -> tuple[str, bool]:
    """Return a question without the prompt's wording, and whether it asks for thinking.

    >>> strip_wording("This is a single image grounding task with simple reference. The dog.")
    ('The dog.', False)
    """
    if question.startswith(SIMPLE_PREFIX.strip()):
        return question.removeprefix(SIMPLE_PREFIX.strip()).strip(), False
    for suffix in (SET_SUFFIX, SET_DIRECT_SUFFIX, THINK_SUFFIX, DIRECT_SUFFIX):
        question = question.removesuffix(suffix.strip()).rstrip()
    return question, True


def find_target(query: str, thought: str | None, n_images: int) -> int | None:
    """Return the image, from 0, that the question names, else the thought, else the only one; None if nothing tells.

    >>> find_target("Find the box of the first image in the second.", None, 2)
    1
    """
    thought = _SUBJECT.sub(r"\1 image", thought) if thought else thought
    image, rule = decide_image(n_images, None, _ELLIPSIS.sub(r"\1 image", query), thought)
    return image if rule in ("question", "thought") else 0 if n_images == 1 else None


def ask_every(expression: str, n_images: int = 1) -> str:
    """Return the question for all that an expression of a published set means, which may be nothing.

    >>> ask_every("two men on the left ")
    'Which objects fit the description "two men on the left"?'
    """
    where = "" if n_images == 1 else " in the images"
    return f'Which objects{where} fit the description "{expression.strip()}"?'


def ask_which(query: str, label: str, image: int | None) -> str:
    """Return a question that says which of several things, and in which image.

    >>> ask_which("Describe.", "the dog", 1)
    'Describe. Locate the dog in image 2.'
    """
    if not label and image is None:
        return query
    where = "" if image is None else f" in image {image + 1}"
    return f"{query} Locate {label or 'it'}{where}."


def name_part(label: str, image: int | None, by_label: bool, by_image: bool) -> str:
    """Return what a part of an answer is called in the name of its record: what it boxes, and on which image."""
    where = f"image {image + 1}" if by_image and image is not None else ""
    return " ".join(filter(None, (label if by_label else "", where))) or "unnamed"


_ALL = re.compile(
    r"\b(?:all|every|each|any|everything|everybody|everyone)\b|\bhow many\b|所有|全部|每一?[个只张件名位]|任何|各个",
    re.IGNORECASE,
)


def asks_for_all(question: str) -> bool:
    """Tell whether a question asks for all of a kind: all, every, each, any; in Chinese too.

    >>> [asks_for_all(text) for text in ("Detect all dogs.", "找出所有的狗", "Where is the dog?")]
    [True, True, False]
    """
    return _ALL.search(question) is not None
