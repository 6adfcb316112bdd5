"""Records of a file that a stage cannot use: told before anything is trained, and refused where they are many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from univg.data.published import FaultBook
from univg.data.readers import RecordFault
from univg.errors import UnivgError, one_line

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Dropped", "tell_dropped"]


@dataclass(frozen=True)
class Dropped:
    """What was left out of the file `path`, of which `used` samples are of use; `book` says why.

    `remarks`: by kind, what was found of records that are used all the same, such as boxes that were clipped; and
    `notes`: what was found of the file as a whole, such as a scale that is not the format's.
    """

    path: str
    used: int
    book: FaultBook
    remarks: Counter[str] = field(default_factory=Counter)
    notes: Sequence[str] = ()

    @classmethod
    def of(cls, path: str, used: int, faults: Iterable[RecordFault], notes: Sequence[str] = ()) -> Dropped:
        """Count `faults`, those of used records apart."""
        book, remarks = FaultBook(), Counter[str]()
        for fault in faults:
            if fault.usable:
                remarks[fault.kind] += 1
            else:
                book.add(fault)
        return cls(path, used, book, remarks, notes)

    def describe(self) -> list[str]:
        """Say how many records were left out, and of each cause how often and where first; then what else was found."""
        lines = [f"data: {self.path}: {note}" for note in self.notes]
        if self.remarks:
            counts = ", ".join(f"{count} {kind}" for kind, count in self.remarks.most_common())
            lines.append(f"data: {self.path}: {counts} in records that are used: see univg data validate")
        if self.book.left_out:
            lines.append(f"data: {self.path}: {self.book.left_out} of {self._records} records left out")
            lines += [f"  {self._name(kind)}" for kind in self.book.first]
        return lines

    def check(self, limit: float) -> None:
        """Raise UnivgError where more than the share `limit` was left out, or nothing is of use."""
        left_out = self.book.left_out
        if self.used and left_out <= limit * self._records:
            return
        if not self._records:
            raise UnivgError("data: it holds no record", self.path, "check the reader and the file")
        kind = self.book.counts.most_common(1)[0][0]
        what = f"data: {left_out} of {self._records} records cannot be used"
        told = "; ".join(map(self._name, self.book.first))
        allow = min(1.0, -(-100 * left_out // self._records) / 100)
        instead = f", or go on without them: max_dropped={allow:g}" if self.used else ""
        raise UnivgError(f"{what} ({told})", self.path, self.book.first[kind][0].fix + instead)

    def to_json(self) -> dict[str, Any]:
        """Return what a run's record keeps."""
        return {"file": self.path, "records": self._records, "causes": dict(self.book.counts)}

    @property
    def _records(self) -> int:
        return self.used + self.book.left_out

    def _name(self, kind: str) -> str:
        first = self.book.first[kind][0]
        return f"{self.book.counts[kind]} {kind}, first {one_line(first.record)}: {one_line(first.cause)}"


def tell_dropped(dropped: Iterable[Dropped], console: Console) -> None:
    """Print what was found in a run's files, and what was left out of them."""
    for line in (line for each in dropped for line in each.describe()):
        console.print(line, style="yellow")
