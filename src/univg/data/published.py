"""Open published files by their format, as often as needed, and keep account of what is wrong with them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from univg.data.readers import READERS, RecordFault, detect, read
from univg.errors import UnivgError, offer
from univg.files import check_exists
from univg.grounding.samples import GroundingSample
from univg.terminal import progress

__all__ = ["FaultBook", "PublishedFile", "find_default_images"]

SHOWN_OF_EACH = 5


class FaultBook:
    """Count faults by kind, keep the first few of each, and write each to a file if one is given."""

    def __init__(self, file: IO[str] | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, list[RecordFault]] = {}
        self.left_out = 0
        self.notes: list[str] = []
        self._file = file

    def add(self, fault: RecordFault) -> None:
        self.counts[fault.kind] += 1
        self.left_out += not fault.usable
        kept = self.first.setdefault(fault.kind, [])
        if len(kept) < SHOWN_OF_EACH:
            kept.append(fault)
        if self._file is not None:
            self._file.write(json.dumps(fault.to_json(), ensure_ascii=False) + "\n")

    def __len__(self) -> int:
        return self.counts.total()


def find_default_images(path: Path) -> Path:
    """Return where the images of a file or folder lie, if nobody says: under the folder, or the one of the file."""
    return path if path.is_dir() else path.parent


@dataclass(frozen=True)
class PublishedFile:
    """A file or folder of the format `format` (a key of `READERS`), its images under `images`."""

    path: Path
    format: str
    images: Path | None = None
    complete: bool = False
    """Whether whoever reads knows that answers hold all that is asked for."""

    @classmethod
    def open(
        cls, path: Path, format: str | None = None, images: Path | None = None, complete: bool = False
    ) -> PublishedFile:
        """Find out the format, unless it is named. Raises UnivgError if file or format do not exist, or none fits."""
        if format is not None and format not in READERS:
            raise UnivgError("no such format", f"--format {format}", offer(format, READERS))
        check_exists(path)
        return cls(path, format or detect(path), images, complete)

    def with_images(self) -> PublishedFile:
        """Return the same with the images where they lie if nobody said so."""
        return replace(self, images=self.images or find_default_images(self.path))

    def read(self, book: FaultBook | None = None, doing: str = "reading") -> Iterator[GroundingSample]:
        """Yield the samples from the first on, with a count on stderr; faults and notes go to `book`.

        Raises UnivgError for a file that cannot be read.
        """
        book = FaultBook() if book is None else book  # an empty book is false
        samples = read(self.path, self.format, self.images, book.add, book.notes.append, self.complete)
        with progress() as bar:
            yield from bar.track(samples, description=doing)
