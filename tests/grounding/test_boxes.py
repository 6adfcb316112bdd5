"""Boxes: conversions that only convert, one IoU that agrees with the textbook and with itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from univg.grounding.boxes import (
    area,
    clip_unit,
    iou,
    iou_matrix,
    is_degenerate,
    is_ordered,
    permille_to_unit,
    px_to_unit,
    unit_to_permille,
    unit_to_px,
)

unit = st.floats(0, 1)
any_float = st.floats(width=64)
small = st.floats(-1e6, 1e6)
unit_box = st.tuples(unit, unit, unit, unit)
real_box = st.tuples(small, small, small, small)
any_box = st.tuples(any_float, any_float, any_float, any_float)
# Corners on a grid, put in order: overlapping, touching, nested and degenerate boxes all come up often.
grid = st.integers(0, 12)
grid_box = st.tuples(grid, grid, grid, grid).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)
size = st.tuples(st.integers(1, 10_000), st.integers(1, 10_000))

# Worked by hand: (a, b, intersection, union). torchvision.ops.box_iou gives the same quotients.
IOU_TABLE = [
    ("same", (0, 0, 2, 2), (0, 0, 2, 2), 4, 4),
    ("half beside", (0, 0, 2, 2), (1, 0, 3, 2), 2, 6),
    ("corner", (0, 0, 2, 2), (1, 1, 3, 3), 1, 7),
    ("nested", (0, 0, 4, 4), (1, 1, 2, 3), 2, 16),
    ("cross", (0, 2, 6, 4), (2, 0, 4, 6), 4, 20),
    ("touching edge", (0, 0, 1, 1), (1, 0, 2, 1), 0, 2),
    ("touching corner", (0, 0, 1, 1), (1, 1, 2, 2), 0, 2),
    ("apart", (0, 0, 1, 1), (5, 5, 6, 6), 0, 2),
    ("negative coordinates", (-2, -2, 0, 0), (-1, -1, 1, 1), 1, 7),
    ("thin", (0, 0, 1000, 1), (0, 0, 1, 1000), 1, 1999),
]
DEGENERATE = [
    ("no width", (1, 0, 1, 5)),
    ("no height", (0, 1, 5, 1)),
    ("point", (1, 1, 1, 1)),
    ("inverted x", (2, 0, 1, 5)),
    ("inverted y", (0, 5, 5, 1)),
    ("inverted both", (2, 2, 0, 0)),
    ("nan", (0, 0, math.nan, 1)),
    ("infinite", (0, 0, math.inf, 1)),
    ("all infinite", (-math.inf, -math.inf, math.inf, math.inf)),
]


@pytest.mark.parametrize(
    ("a", "b", "intersection", "union"), [row[1:] for row in IOU_TABLE], ids=lambda v: None
)
def test_iou_by_hand(a, b, intersection, union):
    assert iou(a, b) == intersection / union
    assert iou_matrix([a], [b])[0, 0] == intersection / union


@pytest.mark.parametrize("box", [row[1] for row in DEGENERATE], ids=[row[0] for row in DEGENERATE])
def test_degenerate_boxes_overlap_nothing(box):
    assert is_degenerate(box)
    assert area(box) == 0.0
    for other in (box, (0, 0, 2, 2)):
        assert iou(box, other) == iou(other, box) == 0.0
        assert iou_matrix([box], [other])[0, 0] == iou_matrix([other], [box])[0, 0] == 0.0


def test_order_and_degeneracy_are_two_questions():
    assert is_ordered((0, 0, 0, 1))
    assert is_degenerate((0, 0, 0, 1))
    assert not is_ordered((0.5, 0, 0.4, 1))
    assert not is_ordered((0, math.nan, 1, 1))


@given(any_box, any_box)
def test_iou_is_bounded_symmetric_and_never_nan(a, b):
    value = iou(a, b)
    assert 0.0 <= value <= 1.0
    assert value == iou(b, a)


@given(real_box)
def test_iou_with_itself_is_one_exactly_unless_it_has_no_area(box):
    assert iou(box, box) == (0.0 if area(box) == 0.0 else 1.0)


@given(grid_box, grid_box, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_iou_does_not_change_when_an_axis_is_scaled(a, b, sx, sy):
    def scaled(box):
        return box[0] * sx, box[1] * sy, box[2] * sx, box[3] * sy

    assert iou(scaled(a), scaled(b)) == pytest.approx(iou(a, b), abs=1e-9)


@given(grid_box, grid_box)
def test_iou_counts_cells(a, b):
    def cells(box):
        return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}

    both, either = cells(a) & cells(b), cells(a) | cells(b)
    expected = len(both) / len(either) if cells(a) and cells(b) else 0.0
    assert iou(a, b) == expected


@given(st.lists(any_box | grid_box, max_size=5), st.lists(any_box | grid_box, max_size=5))
def test_iou_matrix_equals_the_scalar_to_the_last_bit(a, b):
    matrix = iou_matrix(a, b)
    assert matrix.shape == (len(a), len(b))
    assert matrix.dtype == np.float64
    assert matrix.tolist() == [[iou(x, y) for y in b] for x in a]


@given(unit_box)
def test_permille_round_trip_stays_within_half_a_unit(box):
    back = permille_to_unit(unit_to_permille(box))
    assert all(abs(x - y) <= 0.0005 + 1e-12 for x, y in zip(box, back, strict=True))


@given(st.tuples(*[st.integers(-2000, 3000)] * 4))
def test_permille_survives_unit_exactly(box):
    assert unit_to_permille(permille_to_unit(box)) == box


@given(unit_box, size)
def test_pixel_round_trip(box, size_wh):
    assert px_to_unit(unit_to_px(box, size_wh), size_wh) == pytest.approx(box, abs=1e-12)


@pytest.mark.parametrize(
    ("value", "permille"),
    [(0.0005, 1), (0.0015, 2), (0.0025, 3), (0.00049, 0), (1.0, 1000), (1.003, 1003), (-0.0006, -1)],
)
def test_halves_round_up_and_nothing_is_clipped(value, permille):
    # round() would give 0, 2, 2: a box would change its size by where it stands
    assert unit_to_permille((value, 0, 0, 0))[0] == permille


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_permille_of_no_number_is_an_error(bad):
    with pytest.raises(ValueError, match="not finite"):
        unit_to_permille((0, bad, 1, 1))


@pytest.mark.parametrize("size_wh", [(0, 10), (10, 0), (-1, 10)])
def test_an_image_without_size_is_an_error(size_wh):
    with pytest.raises(ValueError, match="positive"):
        px_to_unit((0, 0, 1, 1), size_wh)
    with pytest.raises(ValueError, match="positive"):
        unit_to_px((0, 0, 1, 1), size_wh)


def test_x_goes_with_width_and_y_with_height():
    assert unit_to_px((0.5, 0.5, 1, 1), (200, 10)) == (100, 5, 200, 10)
    assert px_to_unit((100, 5, 200, 10), (200, 10)) == (0.5, 0.5, 1, 1)


@given(any_box)
def test_clipping_ends_inside_and_flags_exactly_what_it_changed(box):
    clipped, outside = clip_unit(box)
    assert all(0.0 <= value <= 1.0 for value in clipped)
    assert outside == (clipped != box)
    assert clip_unit(clipped) == (clipped, False)
