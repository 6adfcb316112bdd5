"""Boxes, their three frames, and the only intersection over union of the project.

A box is four numbers ``x1 y1 x2 y2``: the left, top, right and bottom edge, measured from the image's
upper left corner. The frame stands in the name of whatever holds one:

- ``box_unit``: floats, 0-1 of the image's width and height. The canonical frame, in which everything is kept.
- ``box_permille``: integers, 0-1000 of width and height. What Qwen2-VL and its descendants write.
- ``box_px``: floats, pixels of one stated ``size_wh``.

Conversions only convert. They neither clip nor reorder: :func:`clip_unit`, :func:`is_ordered` and
:func:`is_degenerate` exist so that a repair is visible where it happens.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

Box: TypeAlias = tuple[float, float, float, float]
BoxPermille: TypeAlias = tuple[int, int, int, int]
BoxPx: TypeAlias = tuple[int, int, int, int]
SizeWH: TypeAlias = tuple[int, int]

__all__ = [
    "Box",
    "BoxPermille",
    "SizeWH",
    "area",
    "clip_unit",
    "iou",
    "iou_matrix",
    "is_degenerate",
    "is_ordered",
    "permille_to_unit",
    "px_to_unit",
    "unit_to_permille",
    "unit_to_px",
    "unit_to_whole_px",
]


def unit_to_permille(box_unit: Box) -> BoxPermille:
    """Round a unit box to integers 0-1000, halves upwards; a value outside 0-1 stays outside 0-1000.

    Raises ``ValueError`` for a coordinate that is not finite.

    >>> unit_to_permille((0.0, 0.2504, 0.2505, 1.0))
    (0, 250, 251, 1000)
    """
    x1, y1, x2, y2 = box_unit
    return (
        _round_half_up(x1 * 1000),
        _round_half_up(y1 * 1000),
        _round_half_up(x2 * 1000),
        _round_half_up(y2 * 1000),
    )


def _round_half_up(value: float) -> int:
    # round() goes to the even neighbour, which would make equal steps of an edge unequal in the text.
    if not math.isfinite(value):
        raise ValueError(f"a box coordinate is not finite: {value}")
    return math.floor(value + 0.5)


def permille_to_unit(box_permille: BoxPermille) -> Box:
    """Divide by 1000.

    >>> permille_to_unit((0, 250, 500, 1000))
    (0.0, 0.25, 0.5, 1.0)
    """
    x1, y1, x2, y2 = box_permille
    return x1 / 1000, y1 / 1000, x2 / 1000, y2 / 1000


def unit_to_px(box_unit: Box, size_wh: SizeWH) -> Box:
    """Scale a unit box to the pixels of an image of ``size_wh`` (width, height); no rounding.

    >>> unit_to_px((0.25, 0.5, 0.75, 1.0), (640, 480))
    (160.0, 240.0, 480.0, 480.0)
    """
    width, height = _check_size(size_wh)
    x1, y1, x2, y2 = box_unit
    return x1 * width, y1 * height, x2 * width, y2 * height


def unit_to_whole_px(box_unit: Box, size_wh: SizeWH) -> BoxPx:
    """Return the same rounded to whole pixels, halves upwards, as a model that writes pixels writes them.

    >>> unit_to_whole_px((0.25, 0.5, 0.75, 1.0), (50, 30))
    (13, 15, 38, 30)
    """
    x1, y1, x2, y2 = map(_round_half_up, unit_to_px(box_unit, size_wh))
    return x1, y1, x2, y2


def px_to_unit(box_px: Box, size_wh: SizeWH) -> Box:
    """Divide a pixel box by the width and height of the image it was measured on.

    >>> px_to_unit((160.0, 240.0, 480.0, 480.0), (640, 480))
    (0.25, 0.5, 0.75, 1.0)
    """
    width, height = _check_size(size_wh)
    x1, y1, x2, y2 = box_px
    return x1 / width, y1 / height, x2 / width, y2 / height


def _check_size(size_wh: SizeWH) -> SizeWH:
    width, height = size_wh
    if width <= 0 or height <= 0:
        raise ValueError(f"an image size must be positive, got {width}x{height}")
    return width, height


def clip_unit(box_unit: Box) -> tuple[Box, bool]:
    """Clip to 0-1; the flag says whether anything was outside (or not a number, which becomes 0).

    >>> clip_unit((-0.1, 0.2, 0.5, 1.3))
    ((0.0, 0.2, 0.5, 1.0), True)
    >>> clip_unit((0.0, 0.2, 0.5, 1.0))
    ((0.0, 0.2, 0.5, 1.0), False)
    """
    x1, y1, x2, y2 = (_clip(value) for value in box_unit)
    return (x1, y1, x2, y2), any(not 0.0 <= value <= 1.0 for value in box_unit)


def _clip(value: float) -> float:
    return min(max(0.0, float(value)), 1.0)  # max(0.0, nan) is 0.0, in this order of arguments


def is_ordered(box: Box) -> bool:
    """Tell whether x1 <= x2 and y1 <= y2, in any frame.

    >>> is_ordered((0.0, 0.0, 0.0, 1.0)), is_ordered((0.5, 0.0, 0.4, 1.0))
    (True, False)
    """
    x1, y1, x2, y2 = box
    return x1 <= x2 and y1 <= y2


def is_degenerate(box: Box) -> bool:
    """Tell whether the box holds no area: zero or negative width or height, or a coordinate that is not finite.

    >>> is_degenerate((0.2, 0.2, 0.2, 0.9)), is_degenerate((0.2, 0.2, 0.3, 0.9))
    (True, False)
    """
    x1, y1, x2, y2 = box
    return not (x1 < x2 and y1 < y2 and all(math.isfinite(value) for value in box))


def area(box: Box) -> float:
    """Return width times height in the box's own frame; 0.0 for a degenerate box.

    >>> area((0.0, 0.0, 0.5, 0.5)), area((0.5, 0.5, 0.0, 0.0))
    (0.25, 0.0)
    """
    if is_degenerate(box):
        return 0.0
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1)


def iou(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes in one frame, 0-1; 0.0 if either is degenerate, never NaN.

    Edges are continuous (no "+ 1" of pixel counting) and nothing is added to the union, so scaling an axis
    of both boxes leaves the value as it is: unit, permille and pixel boxes score alike.

    >>> iou((0, 0, 2, 2), (1, 0, 3, 2))
    0.3333333333333333
    >>> iou((0, 0, 1, 1), (1, 0, 2, 1))
    0.0
    """
    area_a, area_b = area(a), area(b)
    if not (0.0 < area_a < math.inf and 0.0 < area_b < math.inf):
        return 0.0
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    intersection = width * height
    # area_a and area_b are each at least the intersection, also after rounding: the quotient cannot pass 1.
    return float(intersection / (area_a + area_b - intersection))


def iou_matrix(boxes_N4: ArrayLike, boxes_M4: ArrayLike) -> NDArray[np.float64]:
    """Return the IoU of every box of the first list with every box of the second: float64 of shape (N, M).

    The same arithmetic as :func:`iou` in the same order, so the values are equal to the last bit.
    Either list may be empty.

    >>> iou_matrix([(0, 0, 2, 2)], [(1, 0, 3, 2), (0, 0, 2, 2)]).tolist()
    [[0.3333333333333333, 1.0]]
    """
    import numpy as np

    a = np.asarray(boxes_N4, dtype=np.float64).reshape(-1, 4)
    b = np.asarray(boxes_M4, dtype=np.float64).reshape(-1, 4)
    with np.errstate(all="ignore"):  # what over- or underflows is masked to 0 below, as in the scalar
        area_N = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
        area_M = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
        width_NM = np.minimum(a[:, None, 2], b[None, :, 2]) - np.maximum(a[:, None, 0], b[None, :, 0])
        height_NM = np.minimum(a[:, None, 3], b[None, :, 3]) - np.maximum(a[:, None, 1], b[None, :, 1])
        intersection_NM = width_NM * height_NM
        quotient_NM = intersection_NM / (area_N[:, None] + area_M[None, :] - intersection_NM)
    usable_NM = (
        _find_usable(a, area_N)[:, None] & _find_usable(b, area_M)[None, :] & (width_NM > 0) & (height_NM > 0)
    )
    return np.where(usable_NM, quotient_NM, 0.0)


def _find_usable(boxes_N4: NDArray[np.float64], area_N: NDArray[np.float64]) -> NDArray[np.bool_]:
    import numpy as np

    ordered = (boxes_N4[:, 0] < boxes_N4[:, 2]) & (boxes_N4[:, 1] < boxes_N4[:, 3])
    finite = np.isfinite(boxes_N4).all(axis=1) & np.isfinite(area_N)
    usable: NDArray[np.bool_] = ordered & finite & (area_N > 0)
    return usable
