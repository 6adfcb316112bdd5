"""What is asked of a model, to the letter: the paper's prompts, and the response that a sample teaches.

The wording is the paper's (arXiv 2505.14231 and its published code): a checkpoint trained on it hears a different
question if a space moves. The paper answers with one box; the two styles of sets, which name the image of each box and
can say that nothing is there, are ours. How models that nobody trained here are asked stands in
:mod:`univg.grounding.native`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from univg.grounding import native
from univg.grounding.boxes import Box, SizeWH, clip_unit, is_degenerate, unit_to_permille, unit_to_whole_px

if TYPE_CHECKING:
    from univg.grounding.samples import GroundingSample

__all__ = [
    "DIRECT_SUFFIX",
    "NATIVE",
    "NONE",
    "ONE_BOX",
    "SETS",
    "SET_DIRECT_SUFFIX",
    "SET_SUFFIX",
    "SIMPLE_PREFIX",
    "THINKING",
    "THINK_SUFFIX",
    "ZERO_SHOT_IMAGE",
    "ZERO_SHOT_VIDEO",
    "PromptStyle",
    "check_style",
    "choose_style",
    "render_answer",
    "render_chat",
    "render_prompt",
    "render_response",
    "style_of_sets",
]

PromptStyle: TypeAlias = Literal[
    "think", "direct", "simple", "set", "set_direct", "json", "set_json", "marks", "set_marks"
]
"""``think``: thought, then answer. ``direct``: a box, no thought (the paper's baselines). ``simple``: a box
for a single-image simple reference, announced by a prefix (the paper's RefCOCO samples). ``set``: thought, then every
box that fits, each on its image, or none. ``set_direct``: those without a thought. ``json`` and ``marks``: how stock
Qwen models are asked and answer, ``set_json`` and ``set_marks`` for every box."""
THINKING: frozenset[PromptStyle] = frozenset({"think", "set"})
SETS: frozenset[PromptStyle] = frozenset({"set", "set_direct", "set_json", "set_marks"})
NATIVE: dict[PromptStyle, native.NativeForm] = {
    "json": "json",
    "set_json": "json",
    "marks": "marks",
    "set_marks": "marks",
}
"""The styles of stock models, and the form of their answers."""
_SET_OF: dict[PromptStyle, PromptStyle] = {
    "think": "set",
    "direct": "set_direct",
    "simple": "set_direct",
    "json": "set_json",
    "marks": "set_marks",
}
ONE_BOX: dict[PromptStyle, PromptStyle] = {
    "set": "think",
    "set_direct": "direct",
    "set_json": "json",
    "set_marks": "marks",
}
"""The style that asks for one box as a style of sets asks for all."""

THINK_SUFFIX = (
    " First output the thinking process in <think> </think> tags"
    " and then output the bounding box in <answer> </answer> tags."
)
DIRECT_SUFFIX = " Format:<|box_start|>(x1,y1),(x2,y2)<|box_end|>. Don't generate addtional words."  # sic
# Ours. Each box has its image beside it, in the paper's own name for images ("Image-2"), so that a line of code reads
# an answer, no box depends on another, and one image needs no other form. "none" is a word: an empty answer may be a
# broken one.
SET_SUFFIX = (
    " First output the thinking process in <think> </think> tags and then output the bounding box of every object that"
    " fits in <answer> </answer> tags, each as Image-N: (x1,y1),(x2,y2), separated by semicolons, or none if there is"
    " no such object."
)
SET_DIRECT_SUFFIX = (
    " Output the bounding box of every object that fits, each as Image-N: (x1,y1),(x2,y2), separated by semicolons, or"
    " none if there is no such object. Don't generate additional words."
)
NONE = "none"
SIMPLE_PREFIX = "This is a single image grounding task with simple reference. "
ZERO_SHOT_IMAGE = "Output the bounding box in the image corresponding to the instruction: {instruction}."
ZERO_SHOT_VIDEO = (
    "This is a sequence of images from a video. Please understand the entire video content, and then output"
    " the bounding box in the third image according to the instruction: {instruction}."
)

PUBLISHED_WORDING = "published"
"""Names a question's wording that is its benchmark's own, in the world's samples (`extra["wording"]`) and their rows.
Every other wording is named by itself, before it is filled in."""


def render_prompt(query: str, style: PromptStyle = "think", n_images: int = 1) -> str:
    """Return the text of one request. The query is stripped, so exactly one space joins it to the paper's wording.
    Only stock models' styles depend on the number of images.

    >>> render_prompt("Where is the dog? ", "simple")
    'This is a single image grounding task with simple reference. Where is the dog?'
    >>> render_prompt("Where is the dog? ").startswith("Where is the dog? First output")
    True
    """
    check_style(style)
    if style in NATIVE:
        return native.ask(query, NATIVE[style], style in SETS, n_images)
    if style == "simple":
        return SIMPLE_PREFIX + query.strip()
    return query.strip() + _SUFFIXES[style]


_SUFFIXES: dict[PromptStyle, str] = {
    "think": THINK_SUFFIX,
    "direct": DIRECT_SUFFIX,
    "set": SET_SUFFIX,
    "set_direct": SET_DIRECT_SUFFIX,
}


def choose_style(sample: GroundingSample, style: PromptStyle) -> PromptStyle:
    """Return ``"simple"`` for a sample that carries no thinking, unless ``style`` is a stock model's, which knows no
    such; else ``style``; for one whose answer is a set, the style of sets that goes with it."""
    chosen = style if sample.thinking or style in NATIVE else "simple"
    return style_of_sets(chosen) if sample.complete else chosen


def style_of_sets(style: PromptStyle) -> PromptStyle:
    """Return the style that asks for a set where ``style`` asks for one box: with a thought or without.

    >>> style_of_sets("think"), style_of_sets("simple"), style_of_sets("set")
    ('set', 'set_direct', 'set')
    """
    check_style(style)
    return _SET_OF.get(style, style)


def render_chat(n_images: int, query: str, style: PromptStyle = "think") -> list[dict[str, Any]]:
    """Return one user turn in the message form that chat templates take: the images, then the prompt.

    >>> [part["type"] for part in render_chat(2, "Where is the dog?")[0]["content"]]
    ['image', 'image', 'text']
    """
    content: list[dict[str, Any]] = [{"type": "image"} for _ in range(n_images)]
    content.append({"type": "text", "text": render_prompt(query, style, n_images)})
    return [{"role": "user", "content": content}]


def render_response(
    box_unit: Box, thought: str | None = None, style: PromptStyle = "think", seen_wh: SizeWH | None = None
) -> str:
    """Write the response of one box that a sample teaches, the box clipped to the image: integers 0-1000, or pixels of
    the image of size `seen_wh`, as the model sees it, for a family that writes those.

    >>> render_response((0.1, 0.2, 0.3, 0.4), "The dog is left.")
    '<think>The dog is left.</think><answer>(100,200),(300,400)</answer>'
    >>> render_response((0.1, 0.2, 0.3, 0.4), style="simple"), render_response((0, 0, 1, 1), None, "simple", (56, 28))
    ('(100,200),(300,400)', '(0,0),(56,28)')
    """
    check_style(style)
    if style in NATIVE:
        return native.write(NATIVE[style], [(0, _measure(box_unit, seen_wh))], "", 1, style in SETS)
    box = _write_box(box_unit, seen_wh)
    if style in THINKING:
        return f"<think>{thought or ''}</think><answer>{box}</answer>"
    return f"<|box_start|>{box}<|box_end|>" if style == "direct" else box


def render_answer(
    sample: GroundingSample, style: PromptStyle, image: int = 0, sizes: Sequence[SizeWH] = ()
) -> str:
    """Write the response that a sample teaches in `style`: its first box, or in a style of sets all that it has, by
    image and then as they stand, left out what encloses no area.

    `image`: where a box lies of which the sample does not say it. `sizes`: of every image as the model sees it, for a
    family that writes pixels. In a stock model's form, boxes are called by the sample's category or label, if it has
    one.

    >>> from univg.grounding.samples import GroundingSample
    >>> boxes = [(0.5, 0.5, 1, 1), (0, 0, 0.1, 0.1)]
    >>> cats = GroundingSample(["a", "b"], "Every cat.", "find_all", boxes, box_images=[1, 0], complete=True)
    >>> render_answer(cats, "set_direct")
    'Image-1: (0,0),(100,100); Image-2: (500,500),(1000,1000)'
    >>> render_answer(GroundingSample(["a"], "Every dog.", "find_all", thought="No dog.", complete=True), "set")
    '<think>No dog.</think><answer>none</answer>'
    """
    check_style(style)
    if style in NATIVE:
        return _render_native(sample, style, image, sizes)
    if style not in SETS:
        seen_wh = sizes[image] if sizes else None
        return render_response(sample.boxes[0], sample.thought, style, seen_wh)
    placed = _list_targets(sample, image)
    boxes = (f"Image-{on + 1}: {_write_box(box, sizes[on] if sizes else None)}" for on, box in placed)
    answer = "; ".join(dict.fromkeys(boxes)) or NONE
    return f"<think>{sample.thought or ''}</think><answer>{answer}</answer>" if style == "set" else answer


def _render_native(sample: GroundingSample, style: PromptStyle, image: int, sizes: Sequence[SizeWH]) -> str:
    placed = _list_targets(sample, image) if style in SETS else [(image, sample.boxes[0])]
    written = [(on, _measure(box, sizes[on] if sizes else None)) for on, box in placed]
    names = (sample.extra.get(name) for name in ("category", "label"))
    label = next((name.strip() for name in names if isinstance(name, str)), "")
    boxes = list(dict.fromkeys(written))
    return native.write(NATIVE[style], boxes, label, len(sample.images), style in SETS)


def _list_targets(sample: GroundingSample, image: int) -> list[tuple[int, Box]]:
    """Return all boxes of a sample that enclose an area, each with its image, by image and then as they stand."""
    placed = [(image if on is None else on, box) for on, box in sample.targets]
    return sorted((one for one in placed if not is_degenerate(clip_unit(one[1])[0])), key=lambda one: one[0])


def _measure(box_unit: Box, seen_wh: SizeWH | None) -> tuple[int, int, int, int]:
    """Return a box as it is written: in thousandths, or in pixels of the image as the model sees it."""
    clipped, _ = clip_unit(box_unit)
    return unit_to_permille(clipped) if seen_wh is None else unit_to_whole_px(clipped, seen_wh)


def _write_box(box_unit: Box, seen_wh: SizeWH | None) -> str:
    x1, y1, x2, y2 = _measure(box_unit, seen_wh)
    return f"({x1},{y1}),({x2},{y2})"


def check_style(style: str) -> None:
    """Raise ValueError for a prompt style that does not exist, naming those that do."""
    if style not in get_args(PromptStyle):
        raise ValueError(f"no prompt style {style!r}; there are {', '.join(get_args(PromptStyle))}")
