"""The anatomy of a response: where its thought and its answer stand, and whether it has the form asked for.

Nothing here knows boxes or images; :func:`univg.grounding.reading.read` does, and is the only place where a response
is understood.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from univg.grounding import native
from univg.grounding.prompts import NATIVE, NONE, SETS, THINKING, PromptStyle

__all__ = ["Anatomy", "dissect", "is_formatted", "strip_ends"]

# --- where the answer stands ---

# Every repetition in these expressions is bounded, or is followed by something it cannot itself match: that
# is what keeps them linear on any text.

_TAG = re.compile(
    r"[<◁]\s{0,2}(/?)\s{0,2}(?:seed:|mm:)?(think|thinking|thoughts?|reasoning|(?:final[_ ]?)?answer)\s{0,2}[>▷]",
    re.IGNORECASE,
)
"""The thought's and the answer's tags, as the families write them."""
_END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "</s>")
_TAIL = 64
_CUT_TAG = re.compile(r"</?(?:t|th|thi|thin|think|a|an|ans|answ|answe|answer)?\Z", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"x1\s{0,2},\s{0,2}y1", re.IGNORECASE)
_WRITTEN_NUMBER = re.compile(r"(?<!\w)\d")
_CUT_BOX = re.compile(r"(?:[(\[{][\d\s.,+-]*|[)\]]\s*,)\Z")


class _Tag(NamedTuple):
    start: int
    end: int
    name: str
    closing: bool


class _Element(NamedTuple):
    """An ``<answer>`` and its content up to the next tag of any kind (None: up to the end of the text)."""

    start: int
    body: str
    ended_by: _Tag | None


class _Span(NamedTuple):
    """The thought with its tags; ``inner`` is where it starts without them."""

    start: int
    inner: int
    end: int
    closed: bool


class Anatomy(NamedTuple):
    """The parts of a response."""

    thought: str | None
    region: str | None
    """The text that may hold the box; None if the style asks for an ``<answer>`` and there is none."""
    cut: bool
    """Whether the region, or what should have led to it, is unfinished."""
    several: bool = False


def _end_of_content(text: str) -> int:
    """Find where the trailing blanks and end-of-turn tokens begin."""
    end = len(text)
    while end:
        if text[end - 1].isspace():
            end -= 1
            continue
        token = next((token for token in _END_TOKENS if text.endswith(token, 0, end)), None)
        if token is None:
            break
        end -= len(token)
    return end


def strip_ends(text: str) -> str:
    """Return the text without the blanks around it and the end-of-turn tokens behind it."""
    return text[: _end_of_content(text)].lstrip()


def dissect(text: str, style: PromptStyle) -> Anatomy:
    """Find the thought and the stretch of text that may hold the box, in time linear in the text's length.

    Where boxes are looked for: in a style that thinks inside the first ``<answer>`` only; in the others inside
    ``<answer>`` if there is one, else in all that stands outside ``<think>``. The prompt's own words "in
    <answer> </answer> tags", echoed, are no answer, and an ``<answer>`` inside the thought counts only if none
    follows. A thought whose ``<think>`` stood in the prompt is recognised by its ``</think>``.
    """
    tags = [
        _Tag(m.start(), m.end(), "answer" if m[2][-1] in "rR" else "think", bool(m[1]))
        for m in _TAG.finditer(text)
    ]
    span = _find_thought(text, tags)
    answers = [element for element in _find_elements(text, tags) if _is_answer(element)]
    outside = [element for element in answers if span is None or not span.start <= element.start < span.end]
    if answers:
        chosen = (outside or answers)[0]
        thought = _cut_thought(text, tags, span, chosen.start)
        return Anatomy(thought, chosen.body, chosen.ended_by is None, len(outside) > 1)
    thought = _cut_thought(text, tags, span, len(text))
    dangling = bool(tags) and tags[-1].name == "answer" and not tags[-1].closing
    cut = dangling or (span is not None and not span.closed) or bool(_CUT_TAG.search(text[-_TAIL:]))
    if style in THINKING:
        thought_end = span.end if span is not None else 0
        left_blank = not cut and any(
            tag.name == "answer" and not tag.closing and tag.start >= thought_end for tag in tags
        )
        return Anatomy(thought, "" if left_blank else None, cut)
    region = text if span is None else text[: span.start] + "\n" + text[span.end :]
    return Anatomy(thought, region, cut or bool(_CUT_BOX.search(region[-_TAIL:])))


def _find_thought(text: str, tags: list[_Tag]) -> _Span | None:
    """Find the first ``<think>`` up to its ``</think>``; failing that up to the next ``<answer>``, or the end."""
    thinks = [tag for tag in tags if tag.name == "think"]
    if not thinks:
        return None
    if thinks[0].closing:  # opened by the chat template, in the prompt
        return _Span(0, 0, thinks[0].end, True)
    opening = thinks[0]
    closing = next((tag for tag in thinks if tag.closing), None)
    if closing is not None:
        return _Span(opening.start, opening.end, closing.end, True)
    answer = next((tag for tag in tags if tag.name == "answer" and tag.start > opening.start), None)
    end, closed = (len(text), False) if answer is None else (answer.start, True)
    return _Span(opening.start, opening.end, end, closed)


def _find_elements(text: str, tags: list[_Tag]) -> list[_Element]:
    ends: list[_Tag | None] = [*tags[1:], None]
    return [
        _Element(tag.start, text[tag.end : end.start if end else len(text)], end)
        for tag, end in zip(tags, ends, strict=False)
        if tag.name == "answer" and not tag.closing
    ]


def _is_answer(element: _Element) -> bool:
    """Tell whether this is meant as an answer, and is not the wording of the prompt repeated in a thought."""
    body, ended_by = element.body, element.ended_by
    if not body.strip() or (_PLACEHOLDER.search(body) and not _WRITTEN_NUMBER.search(body)):
        return False
    answered = ended_by is None or (ended_by.name == "answer" and ended_by.closing)
    return answered or any(char.isdigit() for char in body)


def _cut_thought(text: str, tags: list[_Tag], span: _Span | None, until: int) -> str | None:
    """Return what was thought before ``until``: up to the last ``</think>`` there, because thoughts quote tags."""
    if span is None:
        return None
    closings = [tag.start for tag in tags if tag.name == "think" and tag.closing and tag.start >= span.inner]
    before = [start for start in closings if start < until]
    end = before[-1] if before else closings[0] if closings else min(until, len(text))
    return text[span.inner : max(end, span.inner)].strip()


# --- the form asked for ---

_PLAIN_BOX = r"\(\d{1,9},\s{0,4}\d{1,9}\),\s{0,4}\(\d{1,9},\s{0,4}\d{1,9}\)"
_ON_IMAGE = rf"Image-[1-9]\d{{0,2}}:\s{{0,4}}{_PLAIN_BOX}"
_SET = rf"(?:{NONE}|{_ON_IMAGE}(?:;\s{{0,4}}{_ON_IMAGE})*)"
# A decoder that skips special tokens leaves the box without its marks, so both ways are the form.
_BOX = rf"(?:<\|box_start\|>{_PLAIN_BOX}<\|box_end\|>|{_PLAIN_BOX})"
_FORMS: dict[PromptStyle, re.Pattern[str]] = {
    "think": re.compile(rf"<think>.*?</think>\s*<answer>{_PLAIN_BOX}</answer>", re.DOTALL | re.ASCII),
    "set": re.compile(rf"<think>.*?</think>\s*<answer>{_SET}</answer>", re.DOTALL | re.ASCII),
    "direct": re.compile(_BOX, re.ASCII),
    "simple": re.compile(_BOX, re.ASCII),
    "set_direct": re.compile(_SET, re.ASCII),
}


def is_formatted(text: str, style: PromptStyle) -> bool:
    """Tell whether the text has the form that `style` asks for, to the character (blanks after commas aside)."""
    if style in NATIVE:
        return native.has_form(text, NATIVE[style], style in SETS)
    # Exactly four tags: a thought that quotes a tag is not the form, and the lazy dot has one end to try.
    if style in THINKING and sum(1 for _ in _TAG.finditer(text)) != 4:
        return False
    return _FORMS[style].fullmatch(text) is not None
