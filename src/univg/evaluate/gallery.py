"""Choose the samples of a report's gallery, and make a card of each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from univg.data.dataset import reopen_pictures
from univg.evaluate.runs import Run
from univg.grounding.reading import Asked, read
from univg.pictures.images import ImageFault
from univg.pictures.pages import place_percent, thumbnail_url

THUMB_PX = 220


@dataclass(frozen=True)
class CardPicture:
    """A picture of a card, with boxes in percent of its width and height (left, top, width, height)."""

    address: str
    truth: tuple[float, ...] | None
    answer: tuple[float, ...] | None


@dataclass(frozen=True)
class Card:
    """One sample of one run. `missing` says why there are no pictures."""

    run: str
    row: Mapping[str, Any]
    thought: str | None
    frames: Sequence[CardPicture]
    missing: str | None

    @property
    def outcome(self) -> str:
        return "hit" if self.row["hit_50"] else "miss"

    @property
    def fault(self) -> str:
        return self.row["fault"] or "none"


def make_cards(run: Run, count: int) -> list[Card]:
    """Make up to `count` cards, the same for the same rows."""
    return [_make_card(run, row) for row in choose_rows(list(run.rows.values()), count)]


def choose_rows(rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """Choose of every task every kind of outcome in turn (each fault, misses, hits), so that the rare is seen too.

    Within a kind the order is that of a hash: neither the file's nor the scores'.
    """
    kinds: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        kind = row["fault"] or ("hit" if row["hit_50"] else "miss")
        kinds.setdefault((row["task"], kind), []).append(row)
    queues = [
        sorted(kinds[kind], key=lambda row: hashlib.sha256(row["key"].encode()).digest(), reverse=True)
        for kind in sorted(kinds)
    ]
    chosen: list[Mapping[str, Any]] = []
    while len(chosen) < count and any(queues):
        for queue in queues:
            if queue and len(chosen) < count:
                chosen.append(queue.pop())
    return sorted(chosen, key=lambda row: (row["task"], row["hit_50"], row["iou"], row["key"]))


def _make_card(run: Run, row: Mapping[str, Any]) -> Card:
    frames, missing = [], None
    try:
        for index, picture in enumerate(reopen_pictures(row, run.about)):
            address = thumbnail_url(picture, THUMB_PX)
            boxes = row["boxes_unit"]
            truth = place_percent(row["truth_unit"]) if index == row["image_index"] else None
            on = boxes and index == row.get("box_images", [row["image_index"]])[0]
            frames.append(CardPicture(address, truth, place_percent(boxes[0]) if on else None))
    except ImageFault as fault:
        missing = str(fault)
    return Card(run.label, row, read(row["text"], Asked(style=row["style"])).thought, frames, missing)
