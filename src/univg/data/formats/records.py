"""Turn records into samples: the source of a reader, and the one loop that all readers share.

A reader turns a published file into samples. A record that cannot become one is a `RecordFault`: it names the
record by the source's own id, says what is wrong and what to do, and goes to the caller, who counts it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from univg.data.formats.faults import OnFault, Unusable, name_fault, report
from univg.data.formats.fields import Row, name_kind
from univg.data.formats.image_root import ImageRoot, Stored, stored_size
from univg.data.formats.rows import Rows, read_rows
from univg.grounding.boxes import SizeWH
from univg.grounding.samples import GroundingSample, SampleError
from univg.pictures.images import ImageFault

__all__ = ["Read", "Source", "Split", "make_samples", "read_stated", "reads"]


@dataclass(frozen=True)
class Source:
    """Hold what a reader reads: the published file or folder, its images, and who takes faults and findings.

    - `images`: where the images lie; only sets whose boxes are in pixels need it.
    - `on_fault`: takes each `RecordFault`; without it the first one is raised as `UnivgError`.
    - `on_note`: takes what was found out about the file as a whole, such as its scale.
    - `complete`: whether whoever reads knows that answers hold all that is asked for, so that they are sets.
    """

    path: Path
    images: ImageRoot | None = None
    on_fault: OnFault | None = None
    on_note: Callable[[str], None] | None = None
    complete: bool = False
    _said: set[str] = field(default_factory=set, repr=False, compare=False)
    _counted: Counter[str] = field(default_factory=Counter, repr=False, compare=False)
    _rotated: set[Path] = field(default_factory=set, repr=False, compare=False)
    on_stored: list[str] = field(default_factory=list, repr=False, compare=False)
    """Pictures whose boxes were drawn on the stored frame, not on the one shown, as the file's own sizes prove."""

    @classmethod
    def of(
        cls,
        path: str | os.PathLike[str],
        images: str | os.PathLike[str] | None = None,
        on_fault: OnFault | None = None,
        on_note: Callable[[str], None] | None = None,
        complete: bool = False,
    ) -> Source:
        """Make a source from plain paths."""
        root = ImageRoot(images, path) if images is not None else None
        return cls(Path(path), root, on_fault, on_note, complete)

    @contextmanager
    def reporting(self, record: str) -> Iterator[None]:
        """Report what the block raises as `Unusable` or `SampleError` as a fault of `record`, and go on behind it."""
        try:
            yield
        except (Unusable, SampleError) as error:
            report(name_fault(error, record), self.on_fault)

    def note(self, text: str) -> None:
        """Say something about the file, once: of what differs in its example alone (", as …"), the first."""
        said = text.partition(", as ")[0]
        if self.on_note is not None and said not in self._said:
            self._said.add(said)
            self.on_note(text)

    def count(self, text: str) -> None:
        """Count what is the same of many things, such as "shape(s) are left out": said at the end, with the number."""
        self._counted[text] += 1

    def read_size(self, image: str, stated_wh: tuple[Any, Any] = (None, None)) -> SizeWH:
        """Return width and height of an image that boxes in pixels are measured on, or raise `Unusable`.

        `stated_wh`: what the file says of it, if it does; another size than the picture's is refused.
        """
        if self.images is None:
            cause = f"its boxes are in pixels, so {image} is needed"
            raise Unusable("missing_image", cause, "say with --images where it lies")
        path = self.images.find(image)
        if path is None:
            raise Unusable("missing_image", self.images.explain(image))
        return self.check_size(path, image, stated_wh)

    def check_size(self, path: Path, name: str, stated_wh: tuple[Any, Any] = (None, None)) -> SizeWH:
        """Return the same of the file `path`, which faults call `name`."""
        try:
            stored = stored_size(path)
        except ImageFault as error:
            raise Unusable("bad_image", f"{name}: {error.cause}", error.remedy) from None
        upright, stated = stored.upright_wh, read_stated(stated_wh)
        if stored.orientation != 1:
            self._rotated.add(path)
        if stated is not None and stated == (upright[1], upright[0]) == stored.size_wh != upright:
            self.on_stored.append(name)
            raise _refuse_stored(name, stored)
        if stated is not None and stated != upright:
            cause = f"{name} is {upright[0]}x{upright[1]}, and the annotation says {stated[0]}x{stated[1]}"
            raise Unusable("size_mismatch", cause)
        return upright

    def check_frame(self, path: Path, name: str, stated_wh: tuple[Any, Any]) -> None:
        """Raise `Unusable` for a rotated picture that states nothing, where others prove that the file draws on stored
        frames.

        Turned by 180 degrees, or square, a picture has the same size stored and shown: only others of its file tell.
        """
        stored, stated = stored_size(path), read_stated(stated_wh)
        proven = stated is not None and stored.upright_wh != stored.size_wh
        if self.on_stored and stored.orientation != 1 and not proven:
            raise _refuse_stored(name, stored, f", as {self.on_stored[0]}'s were")

    def tell_counted(self) -> None:
        """Note what was counted, and how many pictures are stored rotated: their boxes may be meant otherwise."""
        for text, number in self._counted.items():
            self.note(f"{number} {text}")
        self._counted.clear()
        if self._rotated:
            first = min(self._rotated).name
            self.note(
                f"{len(self._rotated)} image(s) are stored rotated (EXIF orientation), as {first}: boxes that are not "
                "refused are taken to lie on the upright picture"
            )


def read_stated(stated_wh: tuple[Any, Any]) -> SizeWH | None:
    """Return width and height as a file states them; None if it states none: nothing, no number, or not above 0.

    >>> read_stated(("640", 480.0)), read_stated((0, 0)), read_stated((None, "x"))
    ((640, 480), None, None)
    """
    try:
        width, height = (int(float(side)) for side in stated_wh)
    except (TypeError, ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def _refuse_stored(name: str, stored: Stored, as_others: str = "") -> Unusable:
    width, height = stored.size_wh
    cause = (
        f"{name} is stored as {width}x{height} and shown turned (EXIF orientation {stored.orientation}): the boxes "
        f"were drawn on the stored frame{as_others}"
    )
    return Unusable("size_mismatch", cause, "remove the orientation from the file, or annotate it upright")


Made = TypeVar("Made")
Split: TypeAlias = Callable[[Row], Iterable[tuple[str, Any]]]


def make_samples(
    source: Source,
    set_name: str,
    rows: Rows,
    convert: Callable[[Any, str], Iterable[Made]],
    id_fields: tuple[str, ...] = ("id",),
    split: Split | None = None,
) -> Iterator[Made]:
    """Yield the samples, or what else `convert(row, record)` makes, of `rows`, each `(position, row)`.

    `record` is `"<set>#<id>"` with the first of `id_fields` that the row has, else its position. Of a record that
    asks several questions, `split` makes `(name, part)` pairs; each part is then converted as `"<set>#<id>@<name>"`
    (the name may be empty), so that one bad question costs no other. What any of them raise as `Unusable`, and
    samples that are none, go to the source's `on_fault`.
    """
    for position, row in rows:
        record = f"{set_name}#{_find_id(row, id_fields, position)}"
        with source.reporting(record):
            if isinstance(row, Unusable):
                raise row
            if not isinstance(row, Mapping):
                raise Unusable("bad_field", f"a record is an object with named fields, not {name_kind(row)}")
            if split is None:
                yield from convert(row, record)
                continue
            for name, part in split(row):
                part_record = f"{record}@{name}" if name else record
                with source.reporting(part_record):
                    yield from convert(part, part_record)
    source.tell_counted()


def _find_id(row: Any, id_fields: tuple[str, ...], position: str) -> str:
    if isinstance(row, Mapping):
        for name in id_fields:
            if isinstance(row.get(name), (str, int)) and str(row[name]):
                return str(row[name])
    return position


Read: TypeAlias = Callable[[Source], Iterator[GroundingSample]]


def reads(
    set_name: str,
    id_fields: tuple[str, ...] = ("id",),
    rows: Callable[[Path], Rows] = read_rows,
    split: Split | None = None,
) -> Callable[[Callable[[Source, Any, str], Iterable[GroundingSample]]], Read]:
    """Make a function that converts one record of a source a reader of the whole source (see `make_samples`).

    @reads("my_set")
    def read_my_set(source: Source, row: Row, record: str) -> Iterable[GroundingSample]:
        yield GroundingSample(get_images(row, "images"), get_question(row, "question"), "diff", source=record)
    """

    def decorate(convert: Callable[[Source, Any, str], Iterable[GroundingSample]]) -> Read:
        @wraps(convert)
        def read(source: Source) -> Iterator[GroundingSample]:
            convert_here = partial(convert, source)
            return make_samples(source, set_name, rows(source.path), convert_here, id_fields, split)

        return read

    return decorate
