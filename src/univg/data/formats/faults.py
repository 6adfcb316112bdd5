"""Name what is wrong with single records: every kind of fault, what it means and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from univg.errors import UnivgError, one_line
from univg.grounding.samples import SampleError

__all__ = ["FAULTS", "OnFault", "RecordFault", "Unusable", "name_fault", "refuse", "report"]

FAULTS: dict[str, tuple[str, str]] = {
    "not_json": ("a line that is no JSON", "write the line again, or remove it"),
    "missing_field": ("a field of the format is not there", "give the field, or name the right --format"),
    "bad_field": ("a field holds something of another kind", "correct the field, or name the right --format"),
    "empty_question": ("there is no question", "give the question"),
    "no_images": ("there is no image", "name at least one image"),
    "image_tags": ("the number of <image> tags is not the number of images", "make the two equal"),
    "box_tags": ("the tags of boxes are not as many as the boxes", "make the two equal"),
    "no_box": ("the answer holds no box", "give a box x1 y1 x2 y2, or leave the record out"),
    "bad_box": ("the box is not four finite numbers", "give four numbers x1 y1 x2 y2"),
    "inverted_box": ("x2 < x1 or y2 < y1", "look at the image and put the corners right"),
    "degenerate_box": ("the box encloses no area", "look at the image and draw the box"),
    "repeated_box": (
        "an object is written twice; it counts once, as an answer twice",
        "remove one of the two",
    ),
    "ambiguous_id": ("two entries have the same id", "give each entry an id of its own"),
    "unknown_class": ("a category that no name belongs to", "name it, or correct its number"),
    "several_answers": ("several annotations of one image differ", "mark the one that is right"),
    "other_name": (
        "the annotation names another picture than the file's own",
        "correct the name in the file",
    ),
    "out_of_range": ("a corner lies outside the image", "clip the box, or draw it again"),
    "wrong_scale": ("the box is written in another scale than the file's", "convert it to the file's scale"),
    "size_mismatch": (
        "the image has not the size the annotation states",
        "find the image that was annotated",
    ),
    "which_image": (
        "nothing tells on which of the images a box lies, or two things tell otherwise",
        "say beside each box on which image it lies",
    ),
    "not_visible": ("the object is not in the image it should be found in", "choose another frame"),
    "frame_mismatch": (
        "frames and their masks or boxes do not match",
        "fetch frames and masks of one release",
    ),
    "missing_image": ("the image is not there", "check --images, or fetch the image"),
    "bad_image": ("the image cannot be decoded", "export or download it again"),
    "no_target_image": ("nothing says on which image the box lies", "give target_image"),
    "turned_image": (
        "the photograph is stored on its side",
        "write a folder, --out without .json: it holds an upright copy",
    ),
    "too_many_tokens": ("the prompt is longer than allowed", "lower --max-pixels, or leave the record out"),
    "no_thought": ("there is no thought to teach", "add thoughts first, or choose --style direct"),
    "reserved_text": (
        "a text spells a mark of the chat, or a tag of the answer's form",
        "take it out of the text",
    ),
    "failed_request": ("a request that was not answered", "ask again"),
    "unknown_id": ("an answer to a sample that there is not", "check its id, or name the right --data"),
    "repeated_answer": ("a second answer to one sample; the first counts", "keep the one that is meant"),
    "no_answer": ("there is no ground truth to teach or reward", "give the record a box, or leave it out"),
}
"""Every kind of fault: what it means, and what to do if the reader knows nothing better."""


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
        return asdict(self)


OnFault = Callable[[RecordFault], None]


def report(fault: RecordFault, on_fault: OnFault | None) -> None:
    """Hand a fault to whoever takes faults; raise it as `UnivgError` if nobody does: nothing is dropped in silence."""
    if on_fault is None:
        raise UnivgError(f"{fault.kind}: {one_line(fault.cause)}", fault.record, fault.fix)
    on_fault(fault)


class Unusable(Exception):
    """Raised for what cannot become a sample. `records.make_samples` catches it and adds the record's name."""

    def __init__(self, kind: str, cause: str, fix: str = "") -> None:
        self.kind, self.cause, self.fix = kind, cause, fix
        super().__init__(cause)


def refuse(fault: tuple[str, str] | None) -> None:
    """Raise `Unusable` for a `(kind, cause)` that was found; None is no fault."""
    if fault is not None:
        raise Unusable(*fault)


def name_fault(error: Unusable | SampleError, record: str) -> RecordFault:
    """Return the fault that an error about a record is."""
    if isinstance(error, Unusable):
        return RecordFault(record, error.kind, error.cause, error.fix)
    kinds = {"query": "empty_question", "images": "no_images", "boxes": "bad_box"}
    return RecordFault(record, kinds.get(str(error).partition(":")[0], "bad_field"), str(error))
