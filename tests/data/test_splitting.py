"""Splits in which no picture stands on both sides."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from univg.data.splitting import split_by_image
from univg.errors import UnivgError
from univg.grounding.samples import GroundingSample


def asked(*images: str) -> GroundingSample:
    return GroundingSample(images, "Where?", "diff")


@given(
    st.lists(st.lists(st.integers(0, 30).map(str), min_size=1, max_size=4), min_size=1, max_size=40),
    st.floats(0, 1),
    st.integers(0, 3),
)
def test_no_picture_is_on_both_sides(groups: list[list[str]], share: float, seed: int) -> None:
    samples = [asked(*images) for images in groups]
    try:
        split = split_by_image(samples, share, seed)
    except UnivgError:
        return
    sides = {side: [s for s in samples if split.is_test(s) == side] for side in (True, False)}
    seen = {side: {name for s in some for name in s.images} for side, some in sides.items()}
    assert not seen[True] & seen[False]
    assert (split.test, split.train) == (len(sides[True]), len(sides[False]))
    assert split.test <= round(share * len(samples))
    random.Random(0).shuffle(samples)
    assert split_by_image(samples, share, seed).test_images == split.test_images  # whatever the order


def test_the_share_is_met_where_pictures_are_not_shared() -> None:
    samples = [asked(f"{i}.jpg", f"{i}-crop.jpg") for i in range(200)]
    split = split_by_image(samples, 0.1)
    assert (split.test, split.train, split.groups, split.largest) == (20, 180, 200, 1)
    assert split_by_image(samples, 0.1, seed=1).test_images != split.test_images


def test_one_picture_under_two_names_is_one_picture() -> None:
    samples = [asked("a.jpg"), asked("copy-of-a.jpg"), asked("b.jpg"), asked("c.jpg")]
    split = split_by_image(samples, 0.5, identify=lambda name: name.removeprefix("copy-of-"))
    assert split.is_test(samples[0]) == split.is_test(samples[1])


def test_a_piece_goes_with_the_picture_it_is_of() -> None:
    piece = GroundingSample(
        ("crop.png", "b.jpg"), "Where?", "refer_grounding", extra={"from": ["voc#a", "voc#b"]}
    )
    whole = GroundingSample(("a.jpg",), "Where?", "region", extra={"from": ["voc#a"]})
    others = [asked(f"{i}.jpg") for i in range(6)]
    for seed in range(8):
        split = split_by_image([piece, whole, *others], 0.5, seed)
        assert split.is_test(piece) == split.is_test(whole)


def test_samples_that_hang_together_cannot_be_split() -> None:
    with pytest.raises(UnivgError, match="ask for a larger share"):
        split_by_image([asked("a", str(i)) for i in range(10)], 0.3)
