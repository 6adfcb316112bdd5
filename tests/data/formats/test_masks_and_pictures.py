"""Extents of masks, sizes of images, and where images lie."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from univg.data.formats.faults import Unusable
from univg.data.formats.image_root import ImageRoot, image_size
from univg.data.formats.masks import find_inside, mask_extent, rle_extent
from univg.pictures.images import ImageFault, open_picture

SIDE = st.integers(1, 12)


def lengths(pixels: list[bool]) -> list[int]:
    runs, inside = [0], False
    for pixel in pixels:
        if pixel != inside:
            runs.append(0)
            inside = pixel
        runs[-1] += 1
    return runs


def compressed(runs: list[int]) -> str:
    """COCO's text for run lengths, written from its description: base 32, differences from the fourth on."""
    text = ""
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            part = value & 31
            value >>= 5
            more = value != (-1 if part & 16 else 0)
            text += chr((part | 32 if more else part) + 48)
    return text


@given(SIDE, SIDE, st.data())
def test_extent_of_any_mask(height: int, width: int, data: st.DataObject) -> None:
    pixels = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    inside = [(i // height, i % height) for i, pixel in enumerate(pixels) if pixel]  # column by column
    expected = None
    if inside:
        columns, rows = zip(*inside, strict=True)
        expected = (min(columns), min(rows), max(columns) + 1, max(rows) + 1), (width, height)
    runs = lengths(pixels)
    assert rle_extent({"size": [height, width], "counts": runs}) == expected
    assert rle_extent({"size": [height, width], "counts": compressed(runs)}) == expected
    assert rle_extent([{"size": [height, width], "counts": compressed(runs).encode()}]) == expected


def test_extent_agrees_with_coco() -> None:
    """Text that COCO's own package wrote."""
    coco = pytest.importorskip("pycocotools.mask", reason="COCO's package is only here to compare")
    numpy = pytest.importorskip("numpy")
    drawn = numpy.random.default_rng(0)
    for _ in range(50):
        mask = numpy.zeros((97, 131), dtype=numpy.uint8, order="F")
        for _ in range(int(drawn.integers(1, 4))):
            y, x = int(drawn.integers(0, 96)), int(drawn.integers(0, 130))
            mask[y : y + int(drawn.integers(1, 40)), x : x + int(drawn.integers(1, 60))] = 1
        rle = coco.encode(mask)
        x, y, width, height = (float(v) for v in coco.toBbox(rle))
        assert rle_extent(rle) == ((x, y, x + width, y + height), (131, 97))


@pytest.mark.parametrize(
    "rle",
    [
        *(None, 7, {}, {"size": [2, 2]}),
        *(
            {"size": [2, 2], "counts": text}
            for text in ("~~~", "P", "PPPP", "\u00e9", "oooooooooooooooo0", "/")
        ),
        *(
            {"size": [2, 2], "counts": runs}
            for runs in ([9], [-1, 2], [1 << 70], [1 << 62, 1 << 62], [[1], [2]])
        ),
        *({"size": size, "counts": [1, 2]} for size in ([0, 0], [-2, -2], [1 << 40, 1 << 40], [2])),
    ],
)
def test_what_is_no_mask(rle: object) -> None:
    with pytest.raises(Unusable):
        rle_extent(rle)
    assert rle_extent({"size": [2, 2], "counts": ""}) is rle_extent({"size": [2, 2], "counts": []}) is None


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_extent_of_mask_images(mode: str, tmp_path: Path) -> None:
    mask = Image.new("L", (20, 10))
    mask.paste(1 if mode == "P" else 255, (3, 2, 9, 7))
    if mode == "P":
        mask.putpalette([0, 0, 0] * 256)  # an object number is no brightness
    path = tmp_path / "m.png"
    (mask if mode in ("L", "P") else mask.convert(mode)).save(path)
    if mode == "RGBA":
        return  # opaque black outside counts by its brightness, below
    assert mask_extent(path) == ((3.0, 2.0, 9.0, 7.0), (20, 10))
    Image.new("L", (20, 10)).save(path)
    assert mask_extent(path) is None


@pytest.mark.parametrize(
    ("mode", "outside", "inside"),
    [
        pytest.param("I;16", 0, 1, id="object numbers of 16 bits"),
        pytest.param("I;16", 0, 256, id="object numbers above 255"),
        pytest.param("RGB", (0, 0, 0), (1, 0, 0), id="an object number as a dark colour"),
        pytest.param("RGBA", (0, 0, 0, 255), (0, 0, 1, 255), id="opaque colours"),
        pytest.param(
            "RGBA", (255, 255, 255, 0), (255, 255, 255, 255), id="white all over, transparent outside"
        ),
        pytest.param("RGBA", (0, 0, 0, 0), (0, 0, 0, 255), id="black all over, transparent outside"),
        pytest.param("LA", (0, 255), (9, 255), id="grey with transparency"),
    ],
)
@given(st.integers(0, 15), st.integers(0, 5), st.integers(1, 5), st.integers(1, 5))
def test_extent_whatever_numbers_a_mask_is_painted_with(
    mode: str, outside: Any, inside: Any, x: int, y: int, width: int, height: int
) -> None:
    mask = Image.new(mode, (20, 10), outside)
    mask.paste(Image.new(mode, (width, height), inside), (x, y))
    packed = io.BytesIO()
    mask.save(packed, "PNG")
    packed.seek(0)
    with Image.open(packed) as read:
        assert find_inside(read) == (x, y, x + width, y + height)


def test_a_palette_whose_first_colour_is_not_black_is_read_by_its_colours(tmp_path: Path) -> None:
    mask = Image.new("P", (20, 10), 1)
    mask.paste(0, (3, 2, 9, 7))
    mask.putpalette([255, 255, 255, 0, 0, 0])
    mask.save(tmp_path / "m.png")
    assert mask_extent(tmp_path / "m.png") == ((3.0, 2.0, 9.0, 7.0), (20, 10))


@given(SIDE, SIDE, st.data())
def test_run_lengths_that_end_too_early_are_no_mask(height: int, width: int, data: st.DataObject) -> None:
    pixels = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    runs = lengths(pixels)
    cut = runs[: data.draw(st.integers(1, len(runs)))]
    if sum(cut) == len(pixels):
        rle_extent({"size": [height, width], "counts": compressed(cut)})
        return
    for counts in (cut, compressed(cut)):
        with pytest.raises(Unusable, match=r"end after \d+ of"):
            rle_extent({"size": [height, width], "counts": counts})


def test_sizes_are_those_of_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.jpg"
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    assert image_size(path) == open_picture(path).image.size == (20, 30)
    for name, content in (("none.jpg", None), ("text.jpg", b"hello")):
        if content:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageFault):
            image_size(tmp_path / name)


@pytest.mark.parametrize(
    ("there", "named"),
    [
        ("MIG-Bench/images/common/a.jpg", "./MIG-Bench/images/common/a.jpg"),
        ("common/a.jpg", "./MIG-Bench/images/common/a.jpg"),
        ("images/common/a.jpg", "./MIG-Bench/images/common/a.jpg"),
        ("home/liyou/opensource_datasets/MGrounding-630k/x/a.jpg", "./MGrounding-630k/x/a.jpg"),
        ("x/a.jpg", "x\\a.jpg"),
    ],
)
def test_images_are_found_wherever_the_root_begins(there: str, named: str, tmp_path: Path) -> None:
    (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / there).touch()
    root = ImageRoot(tmp_path)
    assert root.find(named) == tmp_path / there
    assert root.relative(root.path(named)) == there
    assert root.find("y/" + named) is None and root.find("other.jpg") is None
    with pytest.raises(ImageFault, match="check --images"):
        root.path("other.jpg")
