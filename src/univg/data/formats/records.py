"""What every reader shares: where it reads from, how it reports what it cannot use, and the loop over records.

A reader turns a published file into samples. A record that cannot become one is a `RecordFault`: it names the
record by the source's own id, says what is wrong and what to do, and goes to the caller, who counts it. Without
anybody to take it, it is raised: nothing is dropped in silence.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from univg.data.formats.image_root import ImageRoot
from univg.errors import one_line
from univg.grounding.samples import GroundingSample, SampleError

__all__ = [
    "FAULTS",
    "ReadError",
    "RecordError",
    "RecordFault",
    "Row",
    "Source",
    "Unusable",
    "samples_from",
]

FAULTS: dict[str, tuple[str, str]] = {
    "not_json": ("a line that is no JSON", "write the line again, or remove it"),
    "missing_field": ("a field of the format is not there", "give the field, or name the right --format"),
    "bad_field": ("a field holds something of another kind", "correct the field, or name the right --format"),
    "empty_question": ("there is no question", "give the question"),
    "no_images": ("there is no image", "name at least one image"),
    "image_tags": ("the number of <image> tags is not the number of images", "make the two equal"),
    "no_box": ("the answer holds no box", "give a box x1 y1 x2 y2, or leave the record out"),
    "bad_box": ("the box is not four finite numbers", "give four numbers x1 y1 x2 y2"),
    "inverted_box": ("x2 < x1 or y2 < y1", "look at the image and put the corners right"),
    "degenerate_box": ("the box encloses no area", "look at the image and draw the box"),
    "out_of_range": ("a corner lies outside the image", "clip the box, or draw it again"),
    "wrong_scale": ("the box is written in another scale than the file's", "convert it to the file's scale"),
    "size_mismatch": (
        "the image has not the size the annotation states",
        "find the image that was annotated",
    ),
    "not_visible": ("the object is not in the image it should be found in", "choose another frame"),
    "missing_image": ("the image is not there", "check --images, or fetch the image"),
    "bad_image": ("the image cannot be decoded", "export or download it again"),
    "too_many_tokens": ("the prompt is longer than allowed", "lower --max-pixels, or leave the record out"),
    "no_thought": ("there is no thought to teach", "add thoughts first, or choose --style direct"),
    "no_answer": ("there is no ground truth to teach or reward", "give the record a box, or leave it out"),
}
"""Every kind of fault: what it means, and what to do if the reader knows nothing better."""

Row: TypeAlias = Mapping[str, Any]


class ReadError(ValueError):
    """A file that cannot be read at all, or not as what it was said to be; one line."""


class RecordError(ReadError):
    """A record that cannot be used, where nobody takes faults; `fault` has the parts."""

    def __init__(self, fault: RecordFault) -> None:
        self.fault = fault
        super().__init__(str(fault))


@dataclass(frozen=True, slots=True)
class RecordFault:
    """What is wrong with one record.

    - `record`: `"<set>#<the source's record id>"`, as in a sample's `source`.
    - `kind`: a key of `FAULTS`.
    - `cause`, `fix`: what is wrong here, and what to do.
    - `usable`: whether a sample came out all the same (a box that is inverted is still ground truth).

    >>> print(RecordFault("mig_bench#diff/3", "no_box", "answer is []", "give a box x1 y1 x2 y2"))
    mig_bench#diff/3: no_box: answer is []: give a box x1 y1 x2 y2
    """

    record: str
    kind: str
    cause: str
    fix: str = ""
    usable: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "fix", self.fix or FAULTS[self.kind][1])

    def __str__(self) -> str:
        return f"{one_line(self.record)}: {self.kind}: {one_line(self.cause)}: {self.fix}"

    def to_json(self) -> dict[str, Any]:
        return {
            "record": self.record,
            "kind": self.kind,
            "cause": self.cause,
            "fix": self.fix,
            "usable": self.usable,
        }


class Unusable(Exception):
    """Raised, or yielded, by a conversion for what cannot become a sample; the loop adds the record's id."""

    def __init__(self, kind: str, cause: str, fix: str = "", part: str = "") -> None:
        self.kind, self.cause, self.fix, self.part = kind, cause, fix, part
        super().__init__(cause)


@dataclass(frozen=True)
class Source:
    """What a reader reads: the published file or folder, its images, and who hears of faults and findings.

    - `images`: where the images lie; only sets whose boxes are in pixels need it.
    - `on_fault`: takes each `RecordFault`; without it the first one is raised as `RecordError`.
    - `on_note`: takes what was found out about the file as a whole, such as its scale.
    """

    path: Path
    images: ImageRoot | None = None
    on_fault: Callable[[RecordFault], None] | None = None
    on_note: Callable[[str], None] | None = None
    _said: set[str] = field(default_factory=set, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        path: str | os.PathLike[str],
        images: str | os.PathLike[str] | None = None,
        on_fault: Callable[[RecordFault], None] | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> Source:
        """A source from plain paths."""
        return cls(Path(path), ImageRoot(images) if images is not None else None, on_fault, on_note)

    def fault(self, fault: RecordFault) -> None:
        if self.on_fault is None:
            raise RecordError(fault)
        self.on_fault(fault)

    def note(self, text: str) -> None:
        """Say something about the file, once."""
        if self.on_note is not None and text not in self._said:
            self._said.add(text)
            self.on_note(text)


Convert: TypeAlias = Callable[[Row, str], Iterable["GroundingSample | Unusable"]]


def samples_from(
    source: Source,
    set_name: str,
    rows: Iterable[tuple[str, Row | Unusable]],
    convert: Convert,
    id_fields: tuple[str, ...] = ("id",),
) -> Iterator[GroundingSample]:
    """The samples of `rows`, each `(position, row)`, as `convert(row, record)` makes them.

    `record` is `"<set>#<id>"` with the first of `id_fields` that the row has, else its position. What
    `convert` raises or yields as `Unusable`, and samples that are none, go to the source's `on_fault`.
    """
    for position, row in rows:
        record = f"{set_name}#{_id(row, id_fields, position)}"
        try:
            if isinstance(row, Unusable):
                raise row
            if not isinstance(row, Mapping):
                raise Unusable("bad_field", f"a record is an object with named fields, not {kind_of(row)}")
            for made in convert(row, record):
                if isinstance(made, Unusable):
                    source.fault(fault_of(made, record))
                else:
                    yield made
        except (Unusable, SampleError) as error:
            source.fault(fault_of(error, record))


def fault_of(error: Unusable | SampleError, record: str) -> RecordFault:
    """The fault that an error about a record is."""
    if isinstance(error, Unusable):
        part = f"{record}@{error.part}" if error.part else record
        return RecordFault(part, error.kind, error.cause, error.fix)
    field_name = str(error).partition(":")[0]
    kinds = {"query": "empty_question", "images": "no_images", "boxes": "bad_box"}
    return RecordFault(record, kinds.get(field_name, "bad_field"), str(error))


def _id(row: Any, id_fields: tuple[str, ...], position: str) -> str:
    if isinstance(row, Mapping):
        for name in id_fields:
            if isinstance(row.get(name), (str, int)) and str(row[name]):
                return str(row[name])
    return position


# --- fields of a row ---

_NUMBER = re.compile(r"[+-]?(?:\d{1,15}(?:\.\d{0,20})?|\.\d{1,20})(?:[eE][+-]?\d{1,3})?")


def get(row: Row, name: str) -> Any:
    """A field that must be there."""
    if name not in row or row[name] is None:
        raise Unusable(
            "missing_field", f"there is no {name!r}; the record has {', '.join(map(str, row)) or 'nothing'}"
        )
    return row[name]


def get_text(row: Row, name: str) -> str:
    """A field that must be text."""
    value = get(row, name)
    if not isinstance(value, str):
        raise Unusable("bad_field", f"{name!r} is {kind_of(value)}, not text")
    return value


def get_question(row: Row, name: str) -> str:
    """A text that must not be blank, as it stands."""
    value = get_text(row, name)
    if not value.strip():
        raise Unusable("empty_question", f"{name!r} is blank")
    return value


def get_list(row: Row, name: str) -> list[Any]:
    value = get(row, name)
    if not isinstance(value, list):
        raise Unusable("bad_field", f"{name!r} is {kind_of(value)}, not a list")
    return value


def get_images(row: Row, name: str) -> list[str]:
    """A field that must be a list of paths (a single path is a list of one), in the form samples keep."""
    value = get(row, name)
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) and path for path in paths):
        raise Unusable("bad_field", f"{name!r} is not a list of paths")
    if not paths:
        raise Unusable("no_images", f"{name!r} is empty")
    return [clean_path(path) for path in paths]


def clean_path(path: str) -> str:
    """A path as samples keep it: without "./" and doubled slashes, else as it was written.

    >>> clean_path("./MIG-Bench//images/a.jpg"), clean_path("/data/a.jpg")
    ('MIG-Bench/images/a.jpg', '/data/a.jpg')
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return ("/" if path.startswith("/") else "") + "/".join(parts) if parts else path


def numbers_in(value: Any) -> list[float]:
    """All numbers of a nested list, or of a text, in order.

    >>> numbers_in([[1, [2.5]], "x: 3, -4"])
    [1.0, 2.5, 3.0, -4.0]
    """
    if isinstance(value, bool) or value is None:
        return []
    if isinstance(value, (int, float)):
        return [float(value)]
    if isinstance(value, str):
        return [float(number) for number in _NUMBER.findall(value)]
    if isinstance(value, Iterable) and not isinstance(value, (Mapping, bytes)):
        return [number for item in value for number in numbers_in(item)]
    return []


def get_four(row: Row, name: str) -> tuple[float, float, float, float]:
    """A field that must hold exactly four numbers."""
    value = get(row, name)
    return four(value, repr(name))


def four(value: Any, what: str) -> tuple[float, float, float, float]:
    """Exactly four finite numbers of `value`, or `Unusable` that speaks of `what`."""
    numbers = numbers_in(value)
    if not numbers:
        raise Unusable("no_box", f"{what} is {shorten(value)}")
    if len(numbers) != 4 or not all(abs(number) < 1e12 for number in numbers):
        raise Unusable("bad_box", f"{what} is {shorten(value)}, not four finite numbers")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def kind_of(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)
