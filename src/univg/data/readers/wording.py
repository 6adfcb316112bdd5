"""Take the paper's wording off a question, and find the image that question and thought name."""

from __future__ import annotations

import re

from univg.grounding.mentions import decide_image
from univg.grounding.prompts import DIRECT_SUFFIX, SIMPLE_PREFIX, THINK_SUFFIX

__all__ = ["ask_every", "find_target", "strip_wording"]

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
    for suffix in (THINK_SUFFIX, DIRECT_SUFFIX):
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
