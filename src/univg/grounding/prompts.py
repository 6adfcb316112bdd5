"""What is asked of a model, to the letter: the paper's prompts, and the response that a sample teaches.

The wording is the paper's (arXiv 2505.14231 and its published code): a checkpoint trained on it hears a different
question if a space moves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from univg.grounding.boxes import Box, SizeWH, clip_unit, unit_to_permille, unit_to_whole_px

if TYPE_CHECKING:
    from univg.grounding.samples import GroundingSample

__all__ = [
    "DIRECT_SUFFIX",
    "SIMPLE_PREFIX",
    "THINK_SUFFIX",
    "ZERO_SHOT_IMAGE",
    "ZERO_SHOT_VIDEO",
    "PromptStyle",
    "check_style",
    "choose_style",
    "render_chat",
    "render_prompt",
    "render_response",
]

PromptStyle: TypeAlias = Literal["think", "direct", "simple"]
"""``think``: thought, then answer. ``direct``: a box, no thought (the paper's baselines). ``simple``: a box
for a single-image simple reference, announced by a prefix (the paper's RefCOCO samples)."""

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
    """Return the text of one request. The query is stripped, so exactly one space joins it to the paper's wording.

    >>> render_prompt("Where is the dog? ", "simple")
    'This is a single image grounding task with simple reference. Where is the dog?'
    >>> render_prompt("Where is the dog? ").startswith("Where is the dog? First output")
    True
    """
    check_style(style)
    if style == "simple":
        return SIMPLE_PREFIX + query.strip()
    return query.strip() + (THINK_SUFFIX if style == "think" else DIRECT_SUFFIX)


def choose_style(sample: GroundingSample, style: PromptStyle) -> PromptStyle:
    """Return ``"simple"`` for a sample that carries no thinking, else ``style``."""
    return style if sample.thinking else "simple"


def render_chat(n_images: int, query: str, style: PromptStyle = "think") -> list[dict[str, Any]]:
    """Return one user turn in the message form that chat templates take: the images, then the prompt.

    >>> [part["type"] for part in render_chat(2, "Where is the dog?")[0]["content"]]
    ['image', 'image', 'text']
    """
    content: list[dict[str, Any]] = [{"type": "image"} for _ in range(n_images)]
    content.append({"type": "text", "text": render_prompt(query, style)})
    return [{"role": "user", "content": content}]


def render_response(
    box_unit: Box, thought: str | None = None, style: PromptStyle = "think", seen_wh: SizeWH | None = None
) -> str:
    """Write the response that a sample teaches, the box clipped to the image: integers 0-1000, or pixels of the image
    of size `seen_wh`, as the model sees it, for a family that writes those.

    >>> render_response((0.1, 0.2, 0.3, 0.4), "The dog is left.")
    '<think>The dog is left.</think><answer>(100,200),(300,400)</answer>'
    >>> render_response((0.1, 0.2, 0.3, 0.4), style="simple"), render_response((0, 0, 1, 1), None, "simple", (56, 28))
    ('(100,200),(300,400)', '(0,0),(56,28)')
    """
    check_style(style)
    clipped, _ = clip_unit(box_unit)
    whole = unit_to_permille(clipped) if seen_wh is None else unit_to_whole_px(clipped, seen_wh)
    x1, y1, x2, y2 = whole
    box = f"({x1},{y1}),({x2},{y2})"
    if style == "think":
        return f"<think>{thought or ''}</think><answer>{box}</answer>"
    return f"<|box_start|>{box}<|box_end|>" if style == "direct" else box


def check_style(style: str) -> None:
    """Raise ValueError for a prompt style that does not exist, naming those that do."""
    if style not in get_args(PromptStyle):
        raise ValueError(f"no prompt style {style!r}; there are {', '.join(get_args(PromptStyle))}")
