"""The report's gallery: which samples are shown, and what stands on each card."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from univg.evaluate.benchmarks import pictures_of
from univg.evaluate.runs import Run
from univg.grounding.reading import Asked, read
from univg.pictures.drawing import fit
from univg.pictures.images import ImageFault

THUMB_PX = 220


@dataclass(frozen=True)
class Frame:
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
    frames: Sequence[Frame]
    missing: str | None

    @property
    def outcome(self) -> str:
        return "hit" if self.row["hit_50"] else "miss"

    @property
    def fault(self) -> str:
        return self.row["fault"] or "none"


def cards_of(run: Run, count: int) -> list[Card]:
    """Up to `count` cards, the same for the same rows."""
    return [_card(run, row) for row in choose(list(run.rows.values()), count)]


def choose(rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """Every kind of outcome of every task in turn (each fault, misses, hits), so that what is rare is seen too.

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


def _card(run: Run, row: Mapping[str, Any]) -> Card:
    frames, missing = [], None
    try:
        for index, picture in enumerate(pictures_of(row, run.about)):
            address = data_address(_jpeg(fit(picture, THUMB_PX, 2 * THUMB_PX)), "jpeg")
            on = index == row["image_index"]
            boxes = row["boxes_unit"]
            truth = _percent(row["truth_unit"]) if on else None
            frames.append(Frame(address, truth, _percent(boxes[0]) if on and boxes else None))
    except ImageFault as fault:
        missing = str(fault)
    return Card(run.label, row, read(row["text"], Asked(style=row["style"])).thought, frames, missing)


def _percent(box_unit: Sequence[float]) -> tuple[float, ...]:
    x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in box_unit)
    left, top, right, bottom = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
    return tuple(round(100 * value, 3) for value in (left, top, right - left, bottom - top))


def data_address(content: bytes, kind: str) -> str:
    """An image as an address that holds it."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()
