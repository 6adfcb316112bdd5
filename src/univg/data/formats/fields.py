"""Read the fields of a record, each in the kind it must have; what is missing or of another kind is `Unusable`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from univg.data.formats.faults import Unusable
from univg.grounding.boxes import Box

__all__ = [
    "NUMBER",
    "Row",
    "clean_path",
    "find_numbers",
    "get",
    "get_box",
    "get_image",
    "get_images",
    "get_list",
    "get_object",
    "get_question",
    "get_text",
    "get_texts",
    "name_kind",
    "read_box",
    "read_flag",
    "shorten",
    "show_box",
]

Row: TypeAlias = Mapping[str, Any]

NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
"""A number as texts write it."""

_NUMBER = re.compile(r"[+-]?(?:\d{1,15}(?:\.\d{0,20})?|\.\d{1,20})(?:[eE][+-]?\d{1,3})?")
_KINDS = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}


def get(row: Row, name: str) -> Any:
    """Return a field that must be there."""
    if row.get(name) is None:
        has = ", ".join(map(str, row)) or "nothing"
        raise Unusable("missing_field", f"there is no {name!r}; the record has {has}")
    return row[name]


def _get_kind(row: Row, name: str, kind: type, said: str) -> Any:
    value = get(row, name)
    if not isinstance(value, kind):
        raise Unusable("bad_field", f"{name!r} is {name_kind(value)}, not {said}")
    return value


def get_text(row: Row, name: str) -> str:
    """Return a field that must be text."""
    return str(_get_kind(row, name, str, "text"))


def get_list(row: Row, name: str) -> list[Any]:
    """Return a field that must be a list."""
    return list(_get_kind(row, name, list, "a list"))


def get_object(row: Row, name: str) -> dict[str, Any]:
    """Return a field that must be an object."""
    return dict(_get_kind(row, name, dict, "an object"))


def get_question(row: Row, name: str) -> str:
    """Return a text that must not be blank, as it stands."""
    value = get_text(row, name)
    if not value.strip():
        raise Unusable("empty_question", f"{name!r} is blank")
    return value


def get_texts(row: Row, name: str) -> list[str]:
    """Return a field that must be a text, or a list of at least one."""
    value = get(row, name)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Unusable("bad_field", f"{name!r} is {name_kind(value)}, not one or more texts")
    if not texts:
        raise Unusable("empty_question", f"{name!r} is empty")
    return texts


def get_images(row: Row, name: str) -> tuple[str, ...]:
    """Return a field that must be a list of paths (a single path is a list of one), in the form samples keep."""
    value = get(row, name)
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        raise Unusable("bad_field", f"{name!r} is not a list of paths")
    if not paths:
        raise Unusable("no_images", f"{name!r} is empty")
    return tuple(map(clean_path, paths))


def get_image(row: Row, name: str, fix: str = "name one") -> str:
    """Return the only path of such a field; of several, nothing says on which a box lies."""
    images = get_images(row, name)
    if len(images) > 1:
        cause = f"{name!r} names {len(images)} images, and nothing says on which the box lies"
        raise Unusable("bad_field", cause, fix)
    return images[0]


def clean_path(path: str) -> str:
    """Return a path as samples keep it: without "./" and doubled slashes, else as it was written; so is an address.

    >>> clean_path("./MIG-Bench//images/a.jpg"), clean_path("/data/a.jpg"), clean_path("file:///data/a.jpg")
    ('MIG-Bench/images/a.jpg', '/data/a.jpg', 'file:///data/a.jpg')
    """
    if "://" in path:
        return path
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return ("/" if path.startswith("/") else "") + "/".join(parts) if parts else path


def find_numbers(value: Any) -> list[float]:
    """Return all numbers of a nested list, or of a text, in order.

    >>> find_numbers([[1, [2.5]], "x: 3, -4"])
    [1.0, 2.5, 3.0, -4.0]
    """
    if isinstance(value, bool) or value is None:
        return []
    if isinstance(value, (int, float)):
        try:
            return [float(value)]
        except OverflowError:  # a whole number of hundreds of digits
            return [math.inf]
    if isinstance(value, str):
        return [float(number) for number in _NUMBER.findall(value)]
    if isinstance(value, Iterable) and not isinstance(value, (Mapping, bytes)):
        return [number for item in value for number in find_numbers(item)]
    return []


def get_box(row: Row, name: str) -> Box:
    """Return the four numbers of a field that must hold exactly four, however nested."""
    return read_box(get(row, name), repr(name))


def read_box(value: Any, what: str, several: bool = False) -> Box:
    """Return the four finite numbers in `value`, however nested; with `several`, the first four of whole boxes.

    >>> read_box([[1, 2], [3, 4]], "'bbox'"), read_box("[1,2,3,4] [5,6,7,8]", "'bbox'", several=True)
    ((1.0, 2.0, 3.0, 4.0), (1.0, 2.0, 3.0, 4.0))
    """
    numbers = find_numbers(value)
    if not numbers:
        raise Unusable("no_box", f"{what} is {shorten(value)}")
    if isinstance(value, (list, tuple)) and not all(map(_is_number, value)):
        raise Unusable("bad_box", f"{what} is {shorten(value)}, with something that is no number")
    n_boxes, rest = divmod(len(numbers), 4)
    if rest or (n_boxes != 1 and not several) or not all(abs(number) < 1e12 for number in numbers[:4]):
        raise Unusable("bad_box", f"{what} is {shorten(value)}, not four finite numbers")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _is_number(value: Any) -> bool:
    """Tell whether a member of a box is a number, a text that is one, or a list of such."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_number, value))
    if isinstance(value, str):
        return _NUMBER.fullmatch(value.strip()) is not None
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_FLAGS = {
    **dict.fromkeys(("", "0", "false", "f", "no", "n", "off", "unspecified", "none", "null", "nan"), False),
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
}


def read_flag(value: Any, name: str) -> bool:
    """Return what a flag says, however it is spelt; nothing, and "Unspecified", say no.

    >>> read_flag("0.0", "iscrowd"), read_flag("Unspecified", "difficult"), read_flag(True, "iscrowd")
    (False, False, True)
    """
    if value is None or isinstance(value, (int, float)):
        return bool(value) and value == value  # NaN is an empty cell of a table
    text = str(value).strip().lower()
    if text not in _FLAGS:
        try:
            return bool(float(text))
        except ValueError:
            raise Unusable("bad_field", f"{name!r} is {shorten(value)}, not 0 or 1") from None
    return _FLAGS[text]


def shorten(value: Any) -> str:
    """Return a value as Python writes it, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def show_box(box: Iterable[float]) -> str:
    """Return a box as notes and faults show it.

    >>> show_box((1.0, 2.5, 1 / 3, 1000.0))
    '(1, 2.5, 0.333333, 1000)'
    """
    return "(" + ", ".join(f"{value:g}" for value in box) + ")"


def name_kind(value: Any) -> str:
    """Return what kind of JSON value this is, in words."""
    return _KINDS.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)
