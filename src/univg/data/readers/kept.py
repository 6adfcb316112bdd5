"""Read the column in which our exports keep what the other framework's format has no place for, as JSON text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from univg.data.formats.fields import Row, clean_path
from univg.grounding.boxes import Box, BoxPermille, clip_unit, unit_to_permille
from univg.grounding.samples import GroundingSample

__all__ = ["METADATA", "add_metadata", "find_metadata"]

METADATA = "univg"


def find_metadata(row: Row) -> str | None:
    """Return what our export kept of a record, whose boxes are then certain to be in its format's own scale."""
    beside = row.get("extra_info")
    kept = row.get(METADATA) or (beside.get(METADATA) if isinstance(beside, Mapping) else None)
    return kept if isinstance(kept, str) else None


def add_metadata(sample: GroundingSample, metadata: str | None) -> GroundingSample:
    """Return `sample` with what our export kept beside it: task, source, target image, exact boxes, extra.

    The text wins over the column where a person has edited it: the exact boxes are only taken if they are the
    ones the text rounds.
    """
    try:
        kept: dict[str, Any] = json.loads(metadata or "")
        boxes: list[Box] = [(b[0], b[1], b[2], b[3]) for b in kept.pop("boxes")]
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        return sample
    merged = sample.to_json() | kept
    if not sample.boxes or _round(sample.boxes) == _round(boxes):
        merged["boxes"] = boxes
    return GroundingSample.from_json({**merged, "images": [clean_path(name) for name in sample.images]})


def _round(boxes: Iterable[Box]) -> list[BoxPermille]:
    return [unit_to_permille(clip_unit(box)[0]) for box in boxes][:1]
