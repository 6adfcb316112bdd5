"""Choose the samples of a report's gallery, and make a card of each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from univg.data.dataset import reopen_pictures
from univg.evaluate.pairs import Pair, Pairing
from univg.evaluate.runs import Run
from univg.evaluate.sets import is_set, list_boxes, list_truths
from univg.grounding.reading import Asked, read
from univg.pictures.images import ImageFault
from univg.pictures.pages import place_percent, thumbnail_url

THUMB_PX = 220


@dataclass(frozen=True)
class CardPicture:
    """A picture of a card, with boxes in percent of its width and height (left, top, width, height)."""

    address: str
    truths: Sequence[tuple[float, ...]]
    answers: Sequence[tuple[float, ...]]
    others: Sequence[tuple[float, ...]] = ()


@dataclass(frozen=True)
class Card:
    """One sample of one run. `missing` says why there are no pictures; `other` is the answer of the run that it is set
    beside, and `apart` how far they are from each other."""

    run: str
    row: Mapping[str, Any]
    thought: str | None
    frames: Sequence[CardPicture]
    missing: str | None
    other: Mapping[str, Any] | None = None
    apart: float = 0.0

    @property
    def outcome(self) -> str:
        return "hit" if self.row["hit_50"] else "miss"

    @property
    def fault(self) -> str:
        return self.row["fault"] or "none"

    @property
    def score_name(self) -> str:
        return "soft-F1" if is_set(self.row) else "IoU"

    @property
    def remarks(self) -> Sequence[str]:
        """What of a set no box shows: that nothing is there, and that the answer says so."""
        if not is_set(self.row):
            return ()
        told = [] if self.row["truths_unit"] else ["Nothing of the kind is there."]
        return [*told, "The answer: nothing of the kind."] if self.row["refused"] else told


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
        if is_set(row) and not row["truths_unit"]:
            kind += ", nothing there"
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


def make_pair_cards(pairing: Pairing, count: int) -> list[Card]:
    """Make up to `count` cards of samples that two runs answer differently, those furthest apart first."""
    label = f"{pairing.second.label} beside {pairing.first.label}"
    return [
        replace(_make_card(pairing.second, pair.second, pair), run=label)
        for pair in pairing.differing[:count]
    ]


def _make_card(run: Run, row: Mapping[str, Any], pair: Pair | None = None) -> Card:
    frames, missing = [], None
    # Of an answer of one box, what is scored: the first, and the truth where it was asked about.
    sides = [list_truths(row), list_boxes(row), list_boxes(pair.first) if pair else []]
    if not is_set(row):
        sides = [side[:1] for side in sides]
    try:
        for index, picture in enumerate(reopen_pictures(row, run.about)):
            here = [
                [
                    place_percent(box)
                    for image, box in side
                    if index == (row["image_index"] if image is None else image)
                ]
                for side in sides
            ]
            frames.append(CardPicture(thumbnail_url(picture, THUMB_PX), *here))
    except ImageFault as fault:
        missing = str(fault)
    thought = read(row["text"], Asked(style=row["style"])).thought
    beside, apart = (pair.first, pair.overlap) if pair else (None, 0.0)
    return Card(run.label, row, thought, frames, missing, beside, apart)
