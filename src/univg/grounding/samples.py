"""Grounding samples: the one record that readers produce and everything downstream consumes.

A sample is images, a query, and what is known of the answer. It is frozen; its :attr:`GroundingSample.key`
is computed from what defines question and answer, so that results can be matched to samples by content.
Files are JSON Lines, UTF-8, one sample a line, read and written as streams.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, TypeAlias

from univg.errors import UnivgError
from univg.files import replacing
from univg.grounding.boxes import Box

__all__ = ["GroundingSample", "LineFault", "SampleError", "read_jsonl", "write_jsonl"]


class SampleError(UnivgError):
    """Report a sample, or a line of a file, that cannot be accepted; readers catch it and leave out the record."""


@dataclass(frozen=True, slots=True)
class GroundingSample:
    """One question about one or more images, with its answer as far as it is known.

    - ``images``: one path or more, absolute or relative to an image root the reader of the sample knows.
    - ``query``: the question as its author wrote it, without prompt wording; not blank.
    - ``task``: the task's name, such as ``"diff"``, ``"common_object"``, ``"referring"`` or ``"video"``.
    - ``boxes``: ground truth in the unit frame of the target image, in the file's order; the first is the
      one that is scored, unless they are ``complete``. Finite, but neither clipped nor ordered: published ground
      truth holds inverted boxes and edges beyond 1, which are to be reported, not hidden.
    - ``target_image``: the image the boxes lie on, counted from 0; None if the file does not say.
    - ``complete``: True if ``boxes`` are all that the question asks for, so that the answer is a set, which is scored
      as one; without boxes, it is then known that nothing fits. False: nothing is known of further ones.
    - ``box_images``: the image of each box, from 0 or None, where they do not all lie on ``target_image`` (which is
      then None). Images that are all the same become ``target_image``.
    - ``thought``: a chain of thought that leads to the answer, if there is one.
    - ``thinking``: False for the paper's single-image simple references, which are answered by a bare box.
    - ``source``: where it came from, as ``"<set>#<record id>"``.
    - ``extra``: whatever else the file said, JSON values under text keys; copied deeply and read-only.

    Lists become tuples and numbers become floats, so equal content makes equal samples with equal keys.
    Raises :class:`SampleError` naming the field at fault.

    >>> sample = GroundingSample(["a.png", "b.png"], "Where?", "diff", boxes=[[0, 0, 0.5, 1]], target_image=1)
    >>> sample.boxes
    ((0.0, 0.0, 0.5, 1.0),)
    >>> GroundingSample.from_json(sample.to_json()) == sample
    True
    >>> GroundingSample(("a.png",), "Where is it?", "diff", target_image=1)
    Traceback (most recent call last):
        ...
    univg.grounding.samples.SampleError: target_image: 1 does not exist among 1 image(s), counted from 0
    """

    images: tuple[str, ...]
    query: str
    task: str
    boxes: tuple[Box, ...] = ()
    target_image: int | None = None
    thought: str | None = None
    thinking: bool = True
    source: str = ""
    # Left out of the hash only because a mapping has none; equality still compares it.
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    complete: bool = False
    box_images: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        put = object.__setattr__  # a frozen dataclass gives no other way to normalise
        put(self, "images", _check_images(self.images))
        put(self, "boxes", _check_boxes(self.boxes))
        for name in ("query", "task"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name).strip():
                raise SampleError(f"{name}: must be text that is not blank, got {getattr(self, name)!r}")
        if not isinstance(self.source, str):
            raise SampleError(f"source: must be text, got {self.source!r}")
        if self.thought is not None and not isinstance(self.thought, str):
            raise SampleError(f"thought: must be text or None, got {self.thought!r}")
        for name in ("thinking", "complete"):
            if not isinstance(getattr(self, name), bool):
                raise SampleError(f"{name}: must be true or false, got {getattr(self, name)!r}")
        target = _check_image("target_image", self.target_image, len(self.images))
        on = _check_box_images(self.box_images, len(self.boxes), len(self.images))
        if on and len(set(on)) == 1:
            if target is not None and target != on[0]:
                raise SampleError(f"box_images: all are on image {on[0]}, but target_image is {target}")
            target, on = on[0], ()
        if on and target is not None:
            raise SampleError(f"target_image: must be None where box_images are several, got {target}")
        put(self, "target_image", target)
        put(self, "box_images", on)
        if not isinstance(self.extra, Mapping) or not all(isinstance(name, str) for name in self.extra):
            raise SampleError(f"extra: must be a mapping with text keys, got {self.extra!r}")
        put(self, "extra", MappingProxyType(copy.deepcopy(dict(self.extra))))

    @property
    def name(self) -> str:
        """What it is called in notes and errors: where it comes from, else its key."""
        return self.source or self.key

    @property
    def targets(self) -> tuple[tuple[int | None, Box], ...]:
        """The image of each box, from 0 or None where nothing says it, and the box.

        >>> boxes = [(0, 0, 1, 1), (0, 0, 0.5, 0.5)]
        >>> GroundingSample(["a", "b"], "Every cat.", "find_all", boxes, box_images=[1, 0], complete=True).targets
        ((1, (0.0, 0.0, 1.0, 1.0)), (0, (0.0, 0.0, 0.5, 0.5)))
        """
        on = self.box_images or (self.target_image,) * len(self.boxes)
        return tuple(zip(on, self.boxes, strict=True))

    @property
    def is_answered(self) -> bool:
        """Whether the answer is known: a box, or that there is none."""
        return bool(self.boxes) or self.complete

    @property
    def key(self) -> str:
        """32 hexadecimal digits that name the question and its answer.

        Computed from images, query, task, boxes, their images, complete and thinking. The thought, the source and the
        extra are left out: with another thought it is still the same question.
        """
        content = {name: value for name, value in self.to_json().items() if name in _KEY_FIELDS}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:32]

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary of every field, of JSON types only as far as ``extra`` is.

        ``complete`` and ``box_images`` are there only where they say something: one box reads and is named as ever.
        """
        of_a_set: dict[str, Any] = {"complete": True} if self.complete else {}
        if self.box_images:
            of_a_set["box_images"] = list(self.box_images)
        return {
            "images": list(self.images),
            "query": self.query,
            "task": self.task,
            "boxes": [list(box) for box in self.boxes],
            "target_image": self.target_image,
            **of_a_set,
            "thought": self.thought,
            "thinking": self.thinking,
            "source": self.source,
            "extra": copy.deepcopy(dict(self.extra)),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> GroundingSample:
        """Make a sample of what :meth:`to_json` gives; an unknown or missing field is a SampleError naming it."""
        if not isinstance(record, Mapping):
            raise SampleError(f"a sample is an object with named fields, got {type(record).__name__}")
        unknown = sorted(str(name) for name in record if name not in _FIELDS)
        if unknown:
            raise SampleError(f"unknown field(s) {', '.join(unknown)}; a sample has {', '.join(_FIELDS)}")
        missing = [name for name in ("images", "query", "task") if name not in record]
        if missing:
            raise SampleError(f"missing field(s) {', '.join(missing)}")
        return cls(**record)

    def __reduce__(self) -> tuple[Any, ...]:
        # A mappingproxy cannot be pickled, and samples travel to data-loader workers.
        return GroundingSample.from_json, (self.to_json(),)


_FIELDS = tuple(item.name for item in fields(GroundingSample))
_KEY_FIELDS = frozenset(
    {"images", "query", "task", "boxes", "target_image", "thinking", "complete", "box_images"}
)


def _check_images(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise SampleError(f"images: must be a list of at least one path, got {value!r}")
    for path in value:
        if not isinstance(path, str) or not path:
            raise SampleError(f"images: a path must be text that is not empty, got {path!r}")
    return tuple(value)


def _check_boxes(value: Any) -> tuple[Box, ...]:
    try:
        return tuple(_check_box(box) for box in value)
    except TypeError:
        raise SampleError(f"boxes: must be a list of boxes x1 y1 x2 y2, got {value!r}") from None


def _check_box(value: Any) -> Box:
    if isinstance(value, str):
        raise SampleError(f"boxes: a box is four finite numbers, got {value!r}")
    numbers = tuple(value)
    if len(numbers) != 4 or any(isinstance(number, (str, bool)) for number in numbers):
        raise SampleError(f"boxes: a box is four finite numbers, got {value!r}")
    try:
        # + 0.0 turns -0.0 into 0.0: equal boxes, but another text and so another key
        x1, y1, x2, y2 = (float(number) + 0.0 for number in numbers)
    except (TypeError, ValueError, OverflowError):
        raise SampleError(f"boxes: a box is four finite numbers, got {value!r}") from None
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise SampleError(f"boxes: a box is four finite numbers, got {value!r}")
    return x1, y1, x2, y2


def _check_box_images(value: Any, n_boxes: int, n_images: int) -> tuple[int | None, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise SampleError(f"box_images: must be a list of image numbers, got {value!r}")
    if value and len(value) != n_boxes:
        raise SampleError(f"box_images: {len(value)} numbers for {n_boxes} boxes")
    return tuple(_check_image("box_images", one, n_images) for one in value)


def _check_image(name: str, value: Any, n_images: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise SampleError(f"{name}: must be an image's number or None, got {value!r}")
    index = value.__index__()
    if not 0 <= index < n_images:
        raise SampleError(f"{name}: {index} does not exist among {n_images} image(s), counted from 0")
    return int(index)


@dataclass(frozen=True, slots=True)
class LineFault:
    """A last line that was cut short, as :func:`read_jsonl` reports it."""

    path: str
    line_number: int
    """Counted from 1."""
    why: str

    def __str__(self) -> str:
        return f"{self.path}, line {self.line_number}: {self.why}; the line was left out"


def read_jsonl(
    path: str | os.PathLike[str], on_fault: Callable[[LineFault], None] | None = None
) -> Iterator[GroundingSample]:
    """Read samples one line at a time; blank lines are passed over.

    A *last* line that is not complete JSON is what an interrupted writer leaves behind: it is reported to
    ``on_fault`` (or as a warning) and left out. Any other line that is no sample raises :class:`SampleError`
    with path, line number and reason: a file damaged in the middle is not what it claims to be.
    """
    for line_number, line, is_last in _read_lines(path):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:  # ValueError covers broken JSON and broken UTF-8
            why = f"not complete JSON ({error})"
            if not is_last:
                raise SampleError(f"{os.fspath(path)}, line {line_number}: {why}") from None
            _report(LineFault(os.fspath(path), line_number, why), on_fault)
            return
        try:
            sample = GroundingSample.from_json(record)
        except SampleError as error:
            raise SampleError(f"{os.fspath(path)}, line {line_number}: {error}") from None
        yield sample


_Line: TypeAlias = tuple[int, bytes, bool]


def _read_lines(path: str | os.PathLike[str]) -> Iterator[_Line]:
    """Number, content and "is the last one" of every line that is not blank; holds one line ahead.

    Bytes, because text mode would also break lines at the separators Unicode knows inside a query.
    """
    held: tuple[int, bytes] | None = None
    with open(path, "rb") as file:
        for line_number, raw in enumerate(file, start=1):
            line = raw.removeprefix(b"\xef\xbb\xbf") if line_number == 1 else raw
            if not line.strip():
                continue
            if held is not None:
                yield *held, False
            held = line_number, line
    if held is not None:
        yield *held, True


def _report(fault: LineFault, on_fault: Callable[[LineFault], None] | None) -> None:
    if on_fault is None:
        warnings.warn(str(fault), stacklevel=3)
    else:
        on_fault(fault)


def write_jsonl(path: str | os.PathLike[str], samples: Iterable[GroundingSample]) -> int:
    """Write samples as they come, one a line, and return how many.

    The file appears complete or not at all, so it may be rewritten from a stream that reads it.
    Raises :class:`SampleError` for an ``extra`` that JSON cannot hold.
    """
    count = 0
    with replacing(path) as partial, open(partial, "wb") as file:
        for sample in samples:
            file.write(_encode(sample))
            count += 1
    return count


def _encode(sample: GroundingSample) -> bytes:
    record = sample.to_json()
    try:
        try:
            return json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
        except UnicodeEncodeError:  # half of a surrogate pair: only an escape can hold it
            return json.dumps(record, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"
    except (TypeError, ValueError) as error:
        raise SampleError(f"sample {sample.name}: extra is not JSON ({error})") from None
