"""Read what a model wrote: thought, boxes with the image each lies on, and what is wrong, as one named fault.

:func:`read` is the only place where a response is understood. Everybody else (score, reward, benchmark, construction,
server, page, log) is given its :class:`Reading`. Reading is the opposite of strict: it takes what models really write,
never raises on a text, and names whatever was wrong as one *fault* of :data:`FAULTS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import unescape
from itertools import repeat
from typing import Literal, TypeAlias, get_args

from univg.grounding.boxes import Box, SizeWH, clip_unit, is_degenerate, is_ordered
from univg.grounding.coordinates import Frame, to_unit
from univg.grounding.mentions import ImageRule, decide_image
from univg.grounding.notations import Answer, find_written
from univg.grounding.placing import find_images_said
from univg.grounding.prompts import SETS, PromptStyle, check_style, choose_style
from univg.grounding.refusals import says_none
from univg.grounding.response import Anatomy, dissect, is_formatted, strip_ends
from univg.grounding.samples import GroundingSample
from univg.grounding.shapes import are_fractions

__all__ = ["FAULTS", "FAULTS_WITH_BOX", "Asked", "Fault", "PlacedBox", "Reading", "read"]

Fault: TypeAlias = Literal[
    "truncated",
    "empty",
    "no_answer",
    "no_box",
    "ambiguous_box",
    "unknown_image",
    "degenerate_box",
    "several_answers",
    "unread_box",
    "several_boxes",
    "inverted_box",
    "out_of_range",
]

FAULTS: dict[Fault, str] = {
    "truncated": "cut off before a usable box, or inside <think>, <answer> or a box; a box complete by then counts",
    "empty": "nothing was written",
    "no_answer": "no <answer>, in a style that asks for one",
    "no_box": "an answer in which no four coordinates can be recognised; in a style of sets, nor that nothing fits",
    "ambiguous_box": "coordinates that can be read in several ways; none is taken",
    "unknown_image": "a box said to be on an image that there is not, or by a number that may count from 0 or 1",
    "degenerate_box": "coordinates that enclose no area inside the image; of a set, any such box",
    "several_answers": "more than one <answer>; the first one counts",
    "unread_box": "a further box that cannot be read beside one that can; it is left out",
    "several_boxes": "more than one box in the answer, in a style that asks for one; the first one counts",
    "inverted_box": "x2 < x1 or y2 < y1; the corners were put in order",
    "out_of_range": "a coordinate outside the image; it was clipped",
}
"""Every fault and what it means. Of several, the one standing first here is named."""

FAULTS_WITH_BOX: frozenset[Fault] = frozenset(
    {
        *("truncated", "unknown_image", "degenerate_box", "several_answers", "unread_box"),
        *("several_boxes", "inverted_box", "out_of_range"),
    }
)
"""Faults after which a box may remain (after all but the first three it always does)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a response answers: a question about ``n_images`` images, the style it was asked in, and the frame that
    the model's family writes coordinates in.

    ``target_image`` is the image that the boxes lie on, from 0, where the sample's author says so; None lets the
    question, then the thought decide, as for sets: the image is part of their answer.
    """

    n_images: int = 1
    query: str = ""
    style: PromptStyle = "think"
    frame: Frame = "permille"
    target_image: int | None = None

    def __post_init__(self) -> None:
        check_style(self.style)
        if self.frame not in get_args(Frame):
            raise ValueError(f"no frame {self.frame!r}; there are {', '.join(get_args(Frame))}")

    @classmethod
    def of(cls, sample: GroundingSample, style: PromptStyle = "think", frame: Frame = "permille") -> Asked:
        """Return what is asked by ``sample`` under a checkpoint's ``style``: "simple" where the sample does not
        call for thinking.

        >>> Asked.of(GroundingSample(["a.png"], "Where is the cat?", "referring", thinking=False)).style
        'simple'
        """
        n_images = len(sample.images)
        target = None if sample.complete else sample.target_image
        return cls(n_images, sample.query, choose_style(sample, style), frame, target)


@dataclass(frozen=True, slots=True)
class PlacedBox:
    """A box, x1 y1 x2 y2 in the unit frame of image ``image_index`` (from 0), and what decided on that image.

    What the answer itself says beside a box ("answer") goes before what the sample, the question or the thought say.
    """

    box: Box
    image_index: int
    image_rule: ImageRule


@dataclass(frozen=True, slots=True)
class Reading:
    """A response, read.

    ``boxes`` are clipped, ordered and with area, in the order written: many, one or none. ``fault`` is None or a key
    of :data:`FAULTS`; without a fault there is exactly one box, or in a style of sets any number of them, none where
    ``says_none``: no box, and the answer says that nothing fits (in any style). ``formatted``: the text has the form
    that its style asks for, to the character (blanks after commas and around the parts aside). ``truncated``: the
    token limit cut the text off, whether or not it held a box by then. ``image_index`` and ``image_rule``: the image
    that was asked about, also where there is no box; where the answer puts a box on another, that box says so itself.
    """

    text: str
    thought: str | None
    boxes: tuple[PlacedBox, ...]
    fault: Fault | None
    formatted: bool
    truncated: bool
    image_index: int
    image_rule: ImageRule
    says_none: bool = False

    @property
    def first(self) -> PlacedBox | None:
        """The first box, which is the one that the published protocols score; None if there is none."""
        return self.boxes[0] if self.boxes else None

    @property
    def box(self) -> Box | None:
        """The first box in the unit frame of its image; None if there is none."""
        return self.boxes[0].box if self.boxes else None

    @property
    def format_ok(self) -> bool:
        """Whether the text has the form asked for, with nothing to mend: no fault."""
        return self.formatted and self.fault is None


def read(
    text: str, asked: Asked | None = None, sizes: Sequence[SizeWH] = (), truncated: bool = False
) -> Reading:
    """Read a response to what was ``asked`` (None: one image, in style "think"), in time linear in its length.

    ``sizes``: width and height of every image as the model saw it; needed where the model writes pixels
    (``frame="pixel"``), else unused. ``truncated``: the token limit cut the text off.

    What is a box: every notation of :mod:`univg.grounding.notations`; docs/evaluation.md lists them. Where it is looked
    for: :func:`univg.grounding.response.dissect`.

    What the numbers mean: with a decimal point somewhere and none beyond 1.5, the unit frame; with a percent sign, or
    under a key or token with a scale of its own (``box_2d``, ``<loc0123>``), that; otherwise 0-1000
    (``frame="permille"``), or pixels of the image that the box lies on.

    Raises ValueError for the frame "pixel" without a size for every image.

    >>> reading = read("<think>It sits left.</think><answer>(100,200),(300,400)</answer>")
    >>> reading.thought, reading.box, reading.fault
    ('It sits left.', (0.1, 0.2, 0.3, 0.4), None)
    >>> read("It is at (100,200),(300,400)").fault
    'no_answer'
    >>> read("[10, 20, 320, 240]", Asked(1, "The cup?", "direct", "pixel"), [(640, 480)]).box
    (0.015625, 0.041666666666666664, 0.5, 0.5)
    >>> read("<answer>(500,500),(500,500)</answer> and", truncated=True).fault
    'truncated'
    >>> reading = read("Image-2: (0,0),(500,500); Image-1: (0,0),(9,9)", Asked(2, "Every cup.", "set_direct"))
    >>> [one.image_index for one in reading.boxes], reading.format_ok
    ([1, 0], True)
    """
    asked = asked or Asked()
    if asked.frame == "pixel" and len(sizes) != asked.n_images:
        given = f"{len(sizes)} sizes for {asked.n_images} image(s)"
        raise ValueError(f'frame "pixel" needs the size of every image as the model saw it: {given}')
    body = strip_ends(text)
    anatomy = dissect(unescape(body) if "&lt;" in body else body, asked.style) if body else None
    thought = anatomy.thought if anatomy else None
    index, rule = decide_image(asked.n_images, asked.target_image, asked.query, thought)
    boxes, faults = _find_boxes(anatomy, asked, sizes, (index, rule))
    none = False
    if not boxes:
        # What is wrong with the number of boxes is beside the point; the limit is why there is none.
        faults -= FAULTS_WITH_BOX - {"truncated", "unknown_image", "degenerate_box"}
        none = faults == {"no_box"} and _says_none(anatomy, body if truncated else "")
        if none and asked.style in SETS:
            faults.clear()
        elif truncated:
            faults.add("truncated")
    return Reading(
        text=text,
        thought=thought,
        boxes=boxes,
        fault=next((name for name in FAULTS if name in faults), None),
        formatted=bool(body) and is_formatted(body, asked.style),
        truncated=truncated,
        image_index=index,
        image_rule=rule,
        says_none=none,
    )


def _says_none(anatomy: Anatomy | None, cut_off: str) -> bool:
    """Tell whether an answer says that nothing fits, and does not end where the text ``cut_off`` by the limit does."""
    region = anatomy.region if anatomy and not anatomy.cut else None
    if region is None or (cut_off and cut_off.endswith(region.strip())):
        return False
    return says_none(region)


def _find_boxes(
    anatomy: Anatomy | None, asked: Asked, sizes: Sequence[SizeWH], whole: tuple[int, ImageRule]
) -> tuple[tuple[PlacedBox, ...], set[Fault]]:
    """Return the boxes of an answer, mended, and everything that is wrong with it; None is an empty text.

    ``whole``: the image that the answer as a whole is about, and what decided so.
    """
    if anatomy is None:
        return (), {"empty"}
    faults: set[Fault] = {"truncated"} if anatomy.cut else set()
    if anatomy.several:
        faults.add("several_answers")
    if anatomy.region is None:
        return (), faults | {"no_answer"}
    answer = find_written(anatomy.region, anatomy.cut)
    if answer.broken_off:
        faults.add("truncated")
    if not answer.boxes:
        return (), faults | {"no_box"}
    if any(one.several_ways or (one.pixel and asked.frame != "pixel") for one in answer.boxes):
        return (), faults | {"ambiguous_box"}
    if answer.unread:
        faults.add("unread_box")
    if len(answer.boxes) > 1 and asked.style not in SETS:
        faults.add("several_boxes")
    placed = list(_place(answer, asked, sizes, whole, faults))
    boxes = tuple(_mend(placed, faults))
    if (not boxes and "unknown_image" not in faults) or (asked.style in SETS and len(boxes) < len(placed)):
        faults.add("degenerate_box")
    return boxes, faults


def _place(
    answer: Answer, asked: Asked, sizes: Sequence[SizeWH], whole: tuple[int, ImageRule], faults: set[Fault]
) -> Iterator[PlacedBox]:
    """Yield each box on the image that the answer says, else on that of the ``whole``, in the unit frame.

    A box on an image that there is not stays only where the sample states the image; of one image there is no other.
    """
    fractions = are_fractions([number for one in answer.boxes for number in one.quad])
    said = find_images_said(answer, asked.n_images) if asked.n_images > 1 else repeat(None)
    for one, named in zip(answer.boxes, said, strict=False):
        index, rule = whole
        if named is not None and (named.sure or rule == "last"):
            if named.image >= 0:
                index, rule = named.image, "answer"
            else:
                faults.add("unknown_image")
                if rule != "target":
                    continue
        size_wh = sizes[index] if asked.frame == "pixel" else None
        if fractions or one.fraction:
            x1, y1, x2, y2 = map(float, one.quad)
            yield PlacedBox((x1, y1, x2, y2), index, rule)
        else:
            yield PlacedBox(to_unit(one.quad, asked.frame, size_wh), index, rule)


def _mend(boxes: Iterable[PlacedBox], faults: set[Fault]) -> Iterator[PlacedBox]:
    """Order and clip, noting both in ``faults``; leave out what then encloses no area."""
    for placed in boxes:
        x1, y1, x2, y2 = placed.box
        clipped, outside = clip_unit((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)))
        if is_degenerate(clipped):
            continue
        if not is_ordered(placed.box):
            faults.add("inverted_box")
        if outside:
            faults.add("out_of_range")
        yield replace(placed, box=clipped)
