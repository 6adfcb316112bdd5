"""Read the column in which our exports keep what the other framework's format has no place for, as JSON text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from univg.data.formats.faults import Unusable
from univg.data.formats.fields import Row, clean_path
from univg.grounding.boxes import Box, BoxPermille, SizeWH, clip_unit, px_to_unit, unit_to_permille
from univg.grounding.samples import GroundingSample

__all__ = ["METADATA", "SEEN", "add_metadata", "find_metadata", "is_kept_set", "read_seen"]

METADATA = "univg"
SEEN = "seen"
"""Where the text is in pixels of the pictures as a model sees them: their `sizes`, and the `image` that a single box
lies on."""
Targets: TypeAlias = "tuple[tuple[int | None, Box], ...]"


def find_metadata(row: Row) -> str | None:
    """Return what our export kept of a record, whose boxes are then certain to be in its format's own scale."""
    beside = row.get("extra_info")
    kept = row.get(METADATA) or (beside.get(METADATA) if isinstance(beside, Mapping) else None)
    return kept if isinstance(kept, str) else None


def read_seen(metadata: str | None, box_px: Box, image: int | None) -> Box | None:
    """Return the unit box of one that our export wrote in pixels of the image as a model sees it; None of others.

    Raises `Unusable` where the sizes are damaged: nothing tells then what the numbers are.
    """
    try:
        seen = json.loads(metadata or "")[SEEN]
    except (ValueError, TypeError, KeyError):
        return None
    sizes = _check_sizes(seen)
    try:
        return px_to_unit(box_px, sizes[seen["image"] if image is None else image])
    except (ValueError, TypeError, KeyError, IndexError):
        return None


def _check_sizes(seen: Any) -> list[SizeWH]:
    """Return the sizes, in pixels, that were kept of a record's pictures. Raises `Unusable` for what are none."""
    sizes = seen.get("sizes") if isinstance(seen, dict) else None
    whole = isinstance(sizes, list) and all(isinstance(size, list) and len(size) == 2 for size in sizes)
    if not whole or not all(type(side) is int and side > 0 for size in sizes or () for side in size):
        cause = f"{SEEN} in the column {METADATA} does not hold the sizes of the pictures"
        raise Unusable("bad_field", cause, "write the file again, or leave the record out")
    return [(width, height) for width, height in sizes or ()]


def add_metadata(sample: GroundingSample, metadata: str | None) -> GroundingSample:
    """Return `sample` with what our export kept beside it: task, source, target image, exact boxes, extra.

    The text wins over the column where a person has edited it: the exact boxes are only taken if they are the
    ones the text rounds. Raises `Unusable` where the sizes that were kept are damaged.
    """
    try:
        kept: dict[str, Any] = json.loads(metadata or "")
        boxes: list[Box] = [(b[0], b[1], b[2], b[3]) for b in kept.pop("boxes")]
        _round(boxes)  # raises for what are no finite numbers
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        return sample
    sizes = _check_sizes(kept.pop(SEEN)) if SEEN in kept else None
    least = 0 if sizes is None else min((side for size in sizes for side in size), default=1)
    if kept.get("complete") is True:
        return _restore_set(sample, kept, boxes, 1 + 500 / least if least else 1)
    merged = sample.to_json() | kept
    near = bool(least and sample.boxes) and _is_near((0, *sample.boxes[0]), (0, *boxes[0]), 0.501 / least)
    if not sample.boxes or near or _round(sample.boxes) == _round(boxes):
        merged["boxes"] = boxes
    return GroundingSample.from_json({**merged, "images": [clean_path(name) for name in sample.images]})


def is_kept_set(metadata: str | None) -> bool:
    """Tell whether our export says of a record that its boxes are all that is asked for."""
    try:
        kept = json.loads(metadata or "")
    except ValueError:
        return False
    return isinstance(kept, dict) and kept.get("complete") is True


def _restore_set(
    sample: GroundingSample, kept: dict[str, Any], boxes: list[Box], rounding: float
) -> GroundingSample:
    """Return a sample of all boxes that were kept, if they are those of the text, to `rounding` thousandths; else with
    the text's."""
    said = sample.to_json()
    placing = ("boxes", "target_image", "box_images")
    whole = {name: said[name] for name in said if name not in placing} | kept | {"boxes": boxes}
    whole["images"] = [clean_path(name) for name in sample.images]
    restored = GroundingSample.from_json(whole)
    if _are_alike(sample.targets, restored.targets, rounding):
        return restored
    own = {name: said[name] for name in placing if name in said}
    return GroundingSample.from_json({name: whole[name] for name in whole if name not in placing} | own)


def _are_alike(some: Targets, others: Targets, rounding: float) -> bool:
    """Tell whether two lists hold the same boxes on the same images, as far as whole thousandths tell."""
    one, other = ({(image, *_round([box])[0]) for image, box in side} for side in (some, others))
    return all(
        any(_is_near(a, b, rounding) for b in there)
        for here, there in ((one, other), (other, one))
        for a in here
    )


def _is_near(one: tuple[Any, ...], other: tuple[Any, ...], rounding: float) -> bool:
    return one[0] == other[0] and all(abs(a - b) <= rounding for a, b in zip(one[1:], other[1:], strict=True))


def _round(boxes: Iterable[Box]) -> list[BoxPermille]:
    return [unit_to_permille(clip_unit(box)[0]) for box in boxes][:1]
