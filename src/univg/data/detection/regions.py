"""Read the regions of Label Studio's answers: what each is called, and the box around it, in percent of its image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from univg.data.detection.shapes import (
    ellipse_extent,
    extent,
    polygon_extent,
    read_number,
    read_rotation,
    to_sides,
    turn,
)
from univg.data.formats.faults import Unusable
from univg.data.formats.records import Source
from univg.grounding.boxes import Box, SizeWH

__all__ = ["LABELS", "Region", "collect_labels", "has_place", "list_shaped", "name_labels", "read_extent"]

Region: TypeAlias = Mapping[str, Any]

LABELS = tuple(
    f"{kind}labels" for kind in ("rectangle", "polygon", "ellipse", "brush", "bitmask", "keypoint", "vector")
)
_SHAPES = ("rectangle", "polygon", "ellipse")
_ABOUT = ("choices", "textarea", "rating", "number", "datetime", "taxonomy", "pairwise", "ranker")
"""What is said of a region, whose place it repeats."""


def collect_labels(regions: Iterable[Any]) -> dict[str, list[str]]:
    """Return labels that stand in a result of their own beside the shape's, by the region's id; else its one choice."""
    labels: dict[str, list[str]] = defaultdict(list)
    choices: dict[str, list[str]] = defaultdict(list)
    for region in regions:
        value = region.get("value") if isinstance(region, Mapping) else None
        if isinstance(value, Mapping) and region.get("id") is not None:
            for kind in (*LABELS, "labels"):
                labels[str(region["id"])] += [
                    text
                    for text in _list_texts(value.get(kind))
                    if kind == "labels" or kind != region.get("type")
                ]
            choices[str(region["id"])] += _list_texts(value.get("choices"))
    return {
        name: [*dict.fromkeys(labels[name])] or (choices[name] if len(choices[name]) == 1 else [])
        for name in labels
    }


def list_shaped(regions: Iterable[Any]) -> set[str]:
    """Return the ids of regions whose shape is a result of its own, not only repeated by their labels."""
    named = (region for region in regions if isinstance(region, Mapping) and region.get("id") is not None)
    return {
        str(region["id"])
        for region in named
        if str(region.get("type")).lower() != "labels" and _is_shape(region)
    }


def _is_shape(region: Region) -> bool:
    return (
        str(region.get("type"))
        .lower()
        .startswith((*_SHAPES, "brush", "bitmask", "keypoint", "vector", "video"))
    )


def _list_texts(value: Any) -> list[str]:
    return (
        [text for text in value if isinstance(text, str) and text.strip()] if isinstance(value, list) else []
    )


def name_labels(region: Region, others: list[str]) -> list[str]:
    own = [text for kind in (*LABELS, "labels") for text in _list_texts(region["value"].get(kind))]
    names = [*dict.fromkeys(text.strip() for text in own or others)]
    if not names:
        raise Unusable("missing_field", "the region has no label")
    return names


def has_place(source: Source, region: Region, shaped: set[str]) -> bool:
    """Tell whether a result is a shape that a box can be made of; those that are none are noted, masks refused.

    `shaped`: the ids of regions whose shape is a result of its own, beside which labels repeat it.
    """
    kind, value = str(region.get("type")).lower(), region.get("value")
    if kind == "labels" and str(region.get("id")) in shaped:
        return False
    if not isinstance(value, Mapping):
        if kind.startswith(_SHAPES):
            raise Unusable("missing_field", f"the {kind} has no 'value'")
        return False
    if kind.startswith(("brush", "bitmask")) or "rle" in value or "imageDataURL" in value:
        fix = "export as COCO, or as PNG masks with label-studio-converter, or draw rectangles"
        raise Unusable("no_box", "a mask painted with the brush, which is not read", fix)
    if kind.startswith("video") or "sequence" in value:
        raise Unusable("no_box", "an object in a video", "extract the frames, and annotate them as images")
    if kind.startswith(("keypoint", "vector")):
        source.count(f"region(s) that have no box are passed over: {kind}")
        return False
    placed = "x" in value or "points" in value
    if placed and not kind.startswith((*_SHAPES, "labels", *_ABOUT)):
        source.count(f"region(s) of a kind that is not known are passed over: {kind}")
    return kind.startswith(_SHAPES) or (kind == "labels" and placed)


def read_extent(source: Source, region: Region, size: SizeWH | None) -> Box:
    """Return x y width height in percent."""
    turned_by = region.get("image_rotation")
    if turned_by and read_number(region, "image_rotation") % 360:
        cause = f"the image was turned by {turned_by} degrees in Label Studio, and its frame is not certain"
        raise Unusable("bad_box", cause, "turn the image back and draw the region again")
    value: Mapping[str, Any] = region["value"]
    if "points" in value:
        return to_sides(polygon_extent(value["points"]))
    degrees = read_rotation(value)
    x, y = read_number(value, "x"), read_number(value, "y")
    if "radiusX" in value:
        radii = (read_number(value, "radiusX"), read_number(value, "radiusY"))
        across, down = _find_pixels(source, size, degrees)
        box = ellipse_extent((x * across, y * down), (radii[0] * across, radii[1] * down), degrees)
        return to_sides((box[0] / across, box[1] / down, box[2] / across, box[3] / down))
    width, height = read_number(value, "width"), read_number(value, "height")
    if not degrees % 360 or width <= 0 or height <= 0:
        return x, y, width, height
    across, down = _find_pixels(source, size, degrees)
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    in_px = turn([(a * across, b * down) for a, b in corners], (x * across, y * down), degrees)
    return to_sides(extent((a / across, b / down) for a, b in in_px))


def _find_pixels(source: Source, size: SizeWH | None, degrees: float) -> tuple[float, float]:
    """Return what makes percent square, as angles need it."""
    if not degrees % 360:
        return 1.0, 1.0
    if size is None:
        cause = "a region that is turned, of an image whose original_width and original_height are not stated"
        raise Unusable("missing_field", cause)
    source.count("turned region(s) are given the extent of what is turned")
    return size[0] / 100, size[1] / 100
