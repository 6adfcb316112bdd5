"""How stock Qwen models, tuned for instructions and not by univg, are asked for boxes, and the form they answer in.

Two forms: ``json``, a list of objects with ``bbox_2d`` (Qwen2.5-VL and Qwen3-VL), and ``marks``, a name and a box
between their marks (Qwen2-VL). "Report bbox coordinates in JSON format" is the wording of Qwen3-VL's report (arXiv
2511.21631, appendix B); of Qwen2-VL, arXiv 2409.12191, section 2.2.3. The rest is ours: questions here are no mere
descriptions, an answer may have to name one of several images, and nothing may be there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

__all__ = ["NativeForm", "PlacedWords", "ask", "has_form", "write"]

NativeForm: TypeAlias = Literal["json", "marks"]

PlacedWords: TypeAlias = tuple[int, tuple[int, int, int, int]]
"""An image, from 0, and x1 y1 x2 y2 as they are written."""

_VERBS: dict[NativeForm, str] = {"json": "Locate", "marks": "Find"}
_ITEM = '"bbox_2d": [x1, y1, x2, y2], "label": "name"}'
_MARKED = "<|object_ref_start|>name<|object_ref_end|><|box_start|>(x1,y1),(x2,y2)<|box_end|>"


def ask(query: str, form: NativeForm, sets: bool, n_images: int = 1) -> str:
    """Return the text of a request: for one box, or of `sets` for every one, which may be none. Of several images, the
    number of its image is asked for with each box, from 1.

    >>> print(ask("the dog", "json", False))
    Locate the object that this describes or asks for: the dog
    Report its bbox coordinates in JSON format.
    >>> print(ask("all dogs", "marks", True, 2))
    Find every object that this describes or asks for: all dogs
    Format of each: Image-N: <|object_ref_start|>name<|object_ref_end|><|box_start|>(x1,y1),(x2,y2)<|box_end|>, or none.
    """
    which = "every" if sets else "the"
    asked = f"{_VERBS[form]} {which} object that this describes or asks for: {query.strip()}\n"
    if form == "json":
        of = f': [{{"image": N, {_ITEM}], with N the number of its image' if n_images > 1 else ""
        box = "Report bbox coordinates" if sets else "Report its bbox coordinates"
        return f"{asked}{box} in JSON format{of}{', or [] if there is none' if sets else ''}."
    image = "Image-N: " if n_images > 1 else ""
    return f"{asked}Format{' of each' if sets else ''}: {image}{_MARKED}{', or none' if sets else ''}."


def write(form: NativeForm, boxes: Sequence[PlacedWords], label: str, n_images: int, sets: bool) -> str:
    """Write the answer that holds `boxes`; `label` is what they are called ("": nothing is said of it).

    >>> write("json", [(1, (1, 2, 30, 40))], "cup", 2, True)
    '[{"image": 2, "bbox_2d": [1, 2, 30, 40], "label": "cup"}]'
    >>> write("marks", [(0, (1, 2, 30, 40))], "cup", 1, False)
    '<|object_ref_start|>cup<|object_ref_end|><|box_start|>(1,2),(30,40)<|box_end|>'
    >>> write("json", [], "cup", 1, True), write("marks", [], "", 1, True)
    ('[]', 'none')
    """
    if form == "json":
        items = [
            {
                **({"image": image + 1} if n_images > 1 else {}),
                "bbox_2d": list(box),
                **({"label": label} if label else {}),
            }
            for image, box in boxes
        ]
        return json.dumps(items, ensure_ascii=False)
    name = f"<|object_ref_start|>{label}<|object_ref_end|>" if label else ""
    lines = (
        f"{f'Image-{image + 1}: ' if n_images > 1 else ''}{name}<|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>"
        for image, (x1, y1, x2, y2) in boxes
    )
    return "\n".join(lines) or "none"


def has_form(text: str, form: NativeForm, sets: bool) -> bool:
    """Tell whether an answer has the form, with nothing around it but a code fence; in time linear in its length.

    >>> has_form('```json\\n[{"bbox_2d": [1, 2, 3, 4], "label": "a dog"}]\\n```', "json", False)
    True
    >>> has_form("a dog<|box_start|>(1,2),(3,4)<|box_end|>", "marks", False), has_form("[]", "json", False)
    (True, False)
    """
    if form == "json":
        return _is_json(text, sets)
    return (sets and text == "none") or _LINES.fullmatch(text) is not None


_FENCE = re.compile(r"```(?:json)?\s{0,2}(.*?)\s{0,2}```", re.DOTALL)
_CORNERS = r"\(\d{1,9},\s?\d{1,9}\),\s?\(\d{1,9},\s?\d{1,9}\)"
# A decoder that skips special tokens leaves name and box without their marks. The parts begin with characters that
# the one before cannot hold, so that there is one way to read a text.
_LINE = (
    rf"[^\n()<>|]{{0,200}}(?:<\|object_ref_start\|>[^\n()<>|]{{0,200}}<\|object_ref_end\|>)?"
    rf"(?:<\|box_start\|>{_CORNERS}<\|box_end\|>|{_CORNERS})"
)
_LINES = re.compile(rf"{_LINE}(?:\n?{_LINE})*", re.ASCII)


def _is_json(text: str, sets: bool) -> bool:
    fenced = _FENCE.fullmatch(text)
    try:
        items: Any = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return False
    items = [items] if isinstance(items, dict) else items
    if not isinstance(items, list) or not (items or sets):
        return False
    return all(isinstance(item, dict) and _is_box(item.get("bbox_2d")) for item in items)


def _is_box(value: object) -> bool:
    return (
        isinstance(value, list) and len(value) == 4 and all(type(number) in (int, float) for number in value)
    )
