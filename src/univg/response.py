"""What is asked of a model and what it answers: prompt wording, ``parse`` and ``which_image``.

The wording is the paper's (arXiv 2505.14231 and its published code), to the letter: a checkpoint trained on
it hears a different question if a space moves. Reading is the opposite of strict: :func:`parse` takes what
models really write, never raises, and names whatever was wrong as one *fault* of :data:`FAULTS`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

from univg.boxes import Box, SizeWH, clip_unit, is_degenerate, is_ordered, unit_to_permille
from univg.coordinates import Frame, read_quads, to_unit
from univg.mentions import ImageRule, which_image

if TYPE_CHECKING:
    from univg.samples import GroundingSample

__all__ = [
    "DIRECT_SUFFIX",
    "FAULTS",
    "FAULTS_WITH_BOX",
    "SIMPLE_PREFIX",
    "THINK_SUFFIX",
    "ZERO_SHOT_IMAGE",
    "ZERO_SHOT_VIDEO",
    "Fault",
    "Frame",
    "ImageRule",
    "PromptStyle",
    "Response",
    "parse",
    "render_chat",
    "render_prompt",
    "render_response",
    "style_for",
    "which_image",
]

PromptStyle: TypeAlias = Literal["think", "direct", "simple"]
"""``think``: thought, then answer. ``direct``: a box, no thought (the paper's baselines). ``simple``: a box
for a single-image simple reference, announced by a prefix (the paper's RefCOCO samples)."""

Fault: TypeAlias = Literal[
    "empty",
    "truncated",
    "no_answer",
    "no_box",
    "degenerate_box",
    "several_answers",
    "several_boxes",
    "inverted_box",
    "out_of_range",
]

FAULTS: dict[Fault, str] = {
    "empty": "nothing was written",
    "truncated": "the text ends inside <think>, <answer> or a box; a box complete by then is still returned",
    "no_answer": "no <answer>, in a style that asks for one",
    "no_box": "an answer in which no four coordinates can be recognised",
    "degenerate_box": "coordinates that enclose no area inside the image",
    "several_answers": "more than one <answer>; the first one counts",
    "several_boxes": "more than one box in the answer; the first one counts",
    "inverted_box": "x2 < x1 or y2 < y1; the corners were put in order",
    "out_of_range": "a coordinate outside the image; it was clipped",
}
"""Every fault and what it means. Of several, the one standing first here is named."""

FAULTS_WITH_BOX: frozenset[Fault] = frozenset(
    {"truncated", "several_answers", "several_boxes", "inverted_box", "out_of_range"}
)
"""Faults after which a box may remain (after all but ``truncated`` it always does)."""

THINK_SUFFIX = (
    " First output the thinking process in <think> </think> tags"
    " and then output the bounding box in <answer> </answer> tags."
)
DIRECT_SUFFIX = " Format:<|box_start|>(x1,y1),(x2,y2)<|box_end|>. Don't generate addtional words."  # sic
SIMPLE_PREFIX = "This is a single image grounding task with simple reference. "
ZERO_SHOT_IMAGE = "Output the bounding box in the image corresponding to the instruction: {instruction}."
ZERO_SHOT_VIDEO = (
    "This is a sequence of images from a video. Please understand the entire video content, and then output"
    " the bounding box in the third image according to the instruction: {instruction}."
)


def render_prompt(query: str, style: PromptStyle = "think") -> str:
    """The text of one request. The query is stripped, so exactly one space joins it to the paper's wording.

    >>> render_prompt("Where is the dog? ", "simple")
    'This is a single image grounding task with simple reference. Where is the dog?'
    >>> render_prompt("Where is the dog? ").startswith("Where is the dog? First output")
    True
    """
    _check(style, PromptStyle, "prompt style")
    if style == "simple":
        return SIMPLE_PREFIX + query.strip()
    return query.strip() + (THINK_SUFFIX if style == "think" else DIRECT_SUFFIX)


def style_for(sample: GroundingSample, style: PromptStyle) -> PromptStyle:
    """``"simple"`` for a sample that carries no thinking, else ``style``."""
    return style if sample.thinking else "simple"


def render_chat(n_images: int, query: str, style: PromptStyle = "think") -> list[dict[str, Any]]:
    """One user turn in the message form that chat templates take: the images, then the prompt.

    >>> [part["type"] for part in render_chat(2, "Where is the dog?")[0]["content"]]
    ['image', 'image', 'text']
    """
    content: list[dict[str, Any]] = [{"type": "image"} for _ in range(n_images)]
    content.append({"type": "text", "text": render_prompt(query, style)})
    return [{"role": "user", "content": content}]


def render_response(box_unit: Box, thought: str | None = None, style: PromptStyle = "think") -> str:
    """The response a sample teaches: integers 0-1000, the box clipped to the image.

    >>> render_response((0.1, 0.2, 0.3, 0.4), "The dog is left.")
    '<think>The dog is left.</think><answer>(100,200),(300,400)</answer>'
    >>> render_response((0.1, 0.2, 0.3, 0.4), style="simple")
    '(100,200),(300,400)'
    """
    _check(style, PromptStyle, "prompt style")
    x1, y1, x2, y2 = unit_to_permille(clip_unit(box_unit)[0])
    box = f"({x1},{y1}),({x2},{y2})"
    if style == "think":
        return f"<think>{thought or ''}</think><answer>{box}</answer>"
    return f"<|box_start|>{box}<|box_end|>" if style == "direct" else box


@dataclass(frozen=True, slots=True)
class Response:
    """What a model wrote, read.

    ``boxes`` are in the unit frame, clipped, ordered and with area, in the order written. ``fault`` is None
    or a key of :data:`FAULTS`; without a fault there is exactly one box. ``formatted`` says whether the text
    has the form its style asks for, to the character (blanks after commas and around the parts aside).
    """

    text: str
    thought: str | None
    boxes: tuple[Box, ...]
    fault: Fault | None
    formatted: bool = False

    @property
    def box(self) -> Box | None:
        """The first box, which is the one that counts; None if there is none."""
        return self.boxes[0] if self.boxes else None


def parse(
    text: str, style: PromptStyle = "think", frame: Frame = "permille", size_wh: SizeWH | None = None
) -> Response:
    """Read a response: thought, boxes and fault. Accepts any text, in time linear in its length.

    Where boxes are looked for: in style ``think`` inside the first ``<answer>`` only; in the others inside
    ``<answer>`` if there is one, else in all that stands outside ``<think>``. The prompt's own words "in
    <answer> </answer> tags", echoed, are no answer, and an ``<answer>`` inside the thought counts only if
    none follows. A thought whose ``<think>`` stood in the prompt is recognised by its ``</think>``.

    What is a box: ``(x1,y1),(x2,y2)``, ``[x1,y1,x2,y2]``, ``[[x1,y1],[x2,y2]]``, JSON with ``bbox_2d`` or
    with x1, y1, x2, y2 as names, ``<box>x1 y1 x2 y2</box>``, or four bare numbers; with blanks, special
    tokens, code fences, full-width punctuation and words around.

    What the numbers mean: with a decimal point somewhere and none beyond 1.05, the unit frame; otherwise
    0-1000 (``frame="permille"``), or pixels (``frame="pixel"``) of the image as the model saw it,
    ``size_wh``, which then must be given (``ValueError``).

    >>> parse("<think>It sits left.</think><answer>(100,200),(300,400)</answer>").boxes
    ((0.1, 0.2, 0.3, 0.4),)
    >>> parse("It is at (100,200),(300,400)").fault
    'no_answer'
    >>> parse("[10, 20, 320, 240]", "direct", frame="pixel", size_wh=(640, 480)).box
    (0.015625, 0.041666666666666664, 0.5, 0.5)
    """
    _check(style, PromptStyle, "prompt style")
    _check(frame, Frame, "frame")
    if frame == "pixel" and size_wh is None:
        raise ValueError('frame "pixel" needs size_wh, the size of the image as the model saw it')
    body = text[: _end_of_content(text)].lstrip()
    if not body:
        return Response(text, None, (), "empty")
    anatomy = _dissect(body, style)
    faults: set[Fault] = {"truncated"} if anatomy.cut else set()
    boxes: tuple[Box, ...] = ()
    if anatomy.region is None:
        faults.add("no_answer")
    else:
        quads = read_quads(anatomy.region, anatomy.cut)
        boxes = _mend([to_unit(quad, frame, size_wh) for quad in quads], faults)
        if not boxes:
            faults.add("degenerate_box" if quads else "no_box")
        if len(quads) > 1:
            faults.add("several_boxes")
    if anatomy.several:
        faults.add("several_answers")
    if not boxes:  # what is wrong with the number of boxes is beside the point
        faults -= FAULTS_WITH_BOX - {"truncated"}
    fault = next((name for name in FAULTS if name in faults), None)
    return Response(text, anatomy.thought, boxes, fault, _is_formatted(body, style))


def _mend(boxes: list[Box], faults: set[Fault]) -> tuple[Box, ...]:
    """Order and clip, noting both in ``faults``; what then encloses no area is left out."""
    kept: list[Box] = []
    for box in boxes:
        x1, y1, x2, y2 = box
        clipped, outside = clip_unit((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)))
        if is_degenerate(clipped):
            continue
        kept.append(clipped)
        if not is_ordered(box):
            faults.add("inverted_box")
        if outside:
            faults.add("out_of_range")
    return tuple(kept)


def _check(value: str, allowed: Any, what: str) -> None:
    if value not in get_args(allowed):
        raise ValueError(f"no {what} {value!r}; there are {', '.join(get_args(allowed))}")


# --- where the answer stands ---

# Every repetition in these expressions is bounded, or is followed by something it cannot itself match: that
# is what keeps them linear on any text.

_TAG = re.compile(r"<\s{0,2}(/?)\s{0,2}(think|answer)\s{0,2}>", re.IGNORECASE)
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


class _Anatomy(NamedTuple):
    thought: str | None
    region: str | None
    """The text that may hold the box; None if the style asks for an ``<answer>`` and there is none."""
    cut: bool
    """Whether the region, or what should have led to it, is unfinished."""
    several: bool = False


def _end_of_content(text: str) -> int:
    """Where the trailing blanks and end-of-turn tokens begin."""
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


def _dissect(text: str, style: PromptStyle) -> _Anatomy:
    tags = [_Tag(m.start(), m.end(), m[2].lower(), bool(m[1])) for m in _TAG.finditer(text)]
    span = _thought_span(text, tags)
    answers = [element for element in _elements(text, tags) if _is_answer(element)]
    outside = [element for element in answers if span is None or not span.start <= element.start < span.end]
    if answers:
        chosen = (outside or answers)[0]
        thought = _thought(text, tags, span, chosen.start)
        return _Anatomy(thought, chosen.body, chosen.ended_by is None, len(outside) > 1)
    thought = _thought(text, tags, span, len(text))
    dangling = bool(tags) and tags[-1].name == "answer" and not tags[-1].closing
    cut = dangling or (span is not None and not span.closed) or bool(_CUT_TAG.search(text[-_TAIL:]))
    if style == "think":
        thought_end = span.end if span is not None else 0
        left_blank = not cut and any(
            tag.name == "answer" and not tag.closing and tag.start >= thought_end for tag in tags
        )
        return _Anatomy(thought, "" if left_blank else None, cut)
    region = text if span is None else text[: span.start] + "\n" + text[span.end :]
    return _Anatomy(thought, region, cut or bool(_CUT_BOX.search(region[-_TAIL:])))


def _thought_span(text: str, tags: list[_Tag]) -> _Span | None:
    """From the first ``<think>`` to its ``</think>``; failing that to the next ``<answer>``, or the end."""
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


def _elements(text: str, tags: list[_Tag]) -> list[_Element]:
    ends: list[_Tag | None] = [*tags[1:], None]
    return [
        _Element(tag.start, text[tag.end : end.start if end else len(text)], end)
        for tag, end in zip(tags, ends, strict=False)
        if tag.name == "answer" and not tag.closing
    ]


def _is_answer(element: _Element) -> bool:
    """Whether this is meant as an answer, and is not the wording of the prompt repeated in a thought."""
    body, ended_by = element.body, element.ended_by
    if not body.strip() or (_PLACEHOLDER.search(body) and not _WRITTEN_NUMBER.search(body)):
        return False
    answered = ended_by is None or (ended_by.name == "answer" and ended_by.closing)
    return answered or any(char.isdigit() for char in body)


def _thought(text: str, tags: list[_Tag], span: _Span | None, until: int) -> str | None:
    """What was thought before ``until``: up to the last ``</think>`` there, because thoughts quote tags."""
    if span is None:
        return None
    closings = [tag.start for tag in tags if tag.name == "think" and tag.closing and tag.start >= span.inner]
    before = [start for start in closings if start < until]
    end = before[-1] if before else closings[0] if closings else min(until, len(text))
    return text[span.inner : max(end, span.inner)].strip()


# --- the form asked for ---

_PLAIN_BOX = r"\(\d{1,9},\s{0,4}\d{1,9}\),\s{0,4}\(\d{1,9},\s{0,4}\d{1,9}\)"
_THINK_FORM = re.compile(rf"<think>.*?</think>\s*<answer>{_PLAIN_BOX}</answer>", re.DOTALL | re.ASCII)
# A decoder that skips special tokens leaves the box without its marks, so both ways are the form.
_BOX_FORM = re.compile(rf"<\|box_start\|>{_PLAIN_BOX}<\|box_end\|>|{_PLAIN_BOX}", re.ASCII)


def _is_formatted(text: str, style: PromptStyle) -> bool:
    if style != "think":
        return _BOX_FORM.fullmatch(text) is not None
    # Exactly four tags: a thought that quotes a tag is not the form, and the lazy dot has one end to try.
    return sum(1 for _ in _TAG.finditer(text)) == 4 and _THINK_FORM.fullmatch(text) is not None
