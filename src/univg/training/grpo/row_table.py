"""Rows of any source in the type that TRL's GRPO trainer asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets  # type: ignore[import-untyped]
from datasets.table import InMemoryTable  # type: ignore[import-untyped]


class RowTable(datasets.Dataset):  # type: ignore[misc]
    """A `datasets.Dataset` whose rows are those of a sequence or a map-style torch dataset, made when asked for.

    TRL asks for one row once a rollout and once a micro-batch; the rows of the last batch are therefore kept.
    """

    _rows: Any
    _kept: dict[int, dict[str, Any]]

    @classmethod
    def of(cls, rows: Any) -> Any:
        """`rows` as a table; what is one already (or None) stays as it is."""
        if rows is None or isinstance(rows, (datasets.Dataset, datasets.IterableDataset)):
            return rows
        table = cls(InMemoryTable.from_pydict({"row": range(len(rows))}), fingerprint="rows")
        table._rows, table._kept = rows, {}
        return table

    def __getitem__(self, place: Any) -> Any:
        if not isinstance(place, int):
            return super().__getitem__(place)
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[int]) -> list[dict[str, Any]]:
        wanted = dict.fromkeys(places)
        self._kept = {
            place: self._kept[place] if place in self._kept else self._rows[place] for place in wanted
        }
        return [self._kept[place] for place in places]
