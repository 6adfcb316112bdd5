"""Real files in, upright RGB out; everything else is one line that says what, which file and what to do."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from univg.pictures.images import ImageFault, as_picture, open_picture

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def pixel(path: Path, xy: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    picture = open_picture(path)
    assert picture.image.mode == "RGB"
    value = picture.image.getpixel(xy)
    assert isinstance(value, tuple)
    return value


def exif_rotated(path: Path) -> None:
    image = Image.new("RGB", (40, 20), RED)
    image.paste(BLUE, (20, 0, 40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # "the right side is up": a phone held upright
    image.save(path, exif=exif)


def transparent_palette(path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([*RED, *GREEN])
    image.save(path, transparency=1)


def opaque_palette(path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([*RED, *GREEN])
    image.save(path)


def grey_16(value: int) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(np.full((4, 4), value, np.uint16)).save(path)


def floats(*values: float) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(np.array([values], np.float32)).save(path)


def new(mode: str, colour: object) -> Callable[[Path], None]:
    return lambda path: Image.new(mode, (4, 4), colour).save(path)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "write", "expected"),
    [
        ("rgb.png", new("RGB", RED), RED),
        ("rgb.bmp", new("RGB", RED), RED),
        ("rgb.webp", new("RGB", (255, 255, 255)), (255, 255, 255)),
        ("grey.png", new("L", 77), (77, 77, 77)),
        ("one_bit.png", new("1", 1), (255, 255, 255)),
        ("one_bit.tiff", new("1", 0), (0, 0, 0)),
        ("alpha.png", new("RGBA", (*RED, 0)), (255, 255, 255)),
        ("half_alpha.png", new("RGBA", (0, 0, 0, 128)), (127, 127, 127)),
        ("grey_alpha.png", new("LA", (0, 0)), (255, 255, 255)),
        ("grey_opaque.png", new("LA", (9, 255)), (9, 9, 9)),
        ("cmyk.tiff", new("CMYK", (0, 255, 255, 0)), RED),
        ("palette.png", opaque_palette, GREEN),
        ("palette_hole.png", transparent_palette, (255, 255, 255)),
        ("palette_hole.gif", transparent_palette, (255, 255, 255)),
        ("grey16_top.png", grey_16(65535), (255, 255, 255)),
        ("grey16_mid.png", grey_16(32768), (128, 128, 128)),
        ("grey16_low.png", grey_16(300), (1, 1, 1)),  # cut off instead of scaled, it would be white
        ("grey16.tiff", grey_16(32768), (128, 128, 128)),
        ("float_unit.tiff", floats(0.5, 1.0), (128, 128, 128)),
        ("float_bytes.tiff", floats(200.0, 255.0), (200, 200, 200)),
        ("float_wide.tiff", floats(-1000.0, 1000.0), (0, 0, 0)),
        ("int32.tiff", lambda p: Image.fromarray(np.array([[-5, 70000]], np.int32)).save(p), (0, 0, 0)),
    ],
)
def test_every_mode_becomes_rgb(
    tmp_path: Path, name: str, write: Callable[[Path], None], expected: tuple[int, int, int]
) -> None:
    write(tmp_path / name)
    assert pixel(tmp_path / name) == expected


def test_cmyk_jpeg(tmp_path: Path) -> None:
    new("CMYK", (0, 255, 255, 0))(tmp_path / "a.jpg")
    red, green, blue = pixel(tmp_path / "a.jpg")
    assert red > 240
    assert green < 15
    assert blue < 15


def test_a_transparent_grey_of_16_bits_is_white(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[1000, 2000]], np.uint16))
    image.save(tmp_path / "a.png", transparency=1000)
    assert open_picture(tmp_path / "a.png").image.getpixel((0, 0)) == (255, 255, 255)
    assert open_picture(tmp_path / "a.png").image.getpixel((1, 0)) == (8, 8, 8)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif_rotated(tmp_path / "a.jpg")
    picture = open_picture(tmp_path / "a.jpg")
    assert picture.image.size == (20, 40)
    top, bottom = picture.image.getpixel((10, 5)), picture.image.getpixel((10, 35))
    assert isinstance(top, tuple)
    assert isinstance(bottom, tuple)
    assert top[0] > 200 > 50 > top[2]
    assert bottom[2] > 200 > 50 > bottom[0]


def test_broken_exif_does_not_lose_the_picture(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), RED).save(tmp_path / "a.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert open_picture(tmp_path / "a.jpg").image.size == (4, 4)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_of_an_animation_the_first_frame_is_taken_and_said(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if name.endswith("webp") else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=50, **options)
    picture = open_picture(tmp_path / name)
    assert picture.image.getpixel((3, 3)) == RED
    assert picture.notes == ("animated, first frame used",)


def test_pages_are_said(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
    pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
    assert open_picture(tmp_path / "a.tiff").notes == ("several pages, first one used",)


@pytest.mark.parametrize("size_wh", [(1, 1), (10, 1), (1000, 100), (200, 1), (1, 200)])
def test_shapes_that_are_fine(tmp_path: Path, size_wh: tuple[int, int]) -> None:
    Image.new("RGB", size_wh, RED).save(tmp_path / "a.png")
    assert open_picture(tmp_path / "a.png").image.size == size_wh


def test_forty_megapixels(tmp_path: Path) -> None:
    Image.new("L", (8000, 5000), 50).save(tmp_path / "a.png", compress_level=1)
    assert open_picture(tmp_path / "a.png").image.size == (8000, 5000)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing: a decompression bomb's outside."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


def encoded(kind: str, size_wh: tuple[int, int] = (64, 64)) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (*size_wh[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty.png": (b"", "the file is empty"),
    "text.png": (b"hello, this is no image at all\n", "no image that can be read"),
    "page.pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj", "no image that can be read"),
    "program.eps": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
        "no image that can be read",
    ),
    "cut.png": (encoded("png")[:4000], "damaged or cut off"),
    "cut.jpg": (encoded("jpeg")[:1500], "damaged or cut off"),
    "cut.webp": (encoded("webp")[:300], "damaged or cut off"),
    "cut.bmp": (encoded("bmp")[:3000], "damaged or cut off"),
    "cut.tiff": (encoded("tiff")[:3000], "damaged or cut off"),
    "cut.gif": (encoded("gif")[:2000], "damaged or cut off"),
    "stub.png": (encoded("png")[:12], "damaged or cut off"),
    "stub.jpg": (encoded("jpeg")[:20], "damaged or cut off"),
    "bomb.png": (png_header(11_000, 10_000), "11000x10000) is larger than 100 megapixels"),
    "huge_bomb.png": (png_header(100_000, 100_000), "larger than 100 megapixels"),
    "strip.png": (png_header(2010, 10), "longer than 200:1"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_picture_is_one_line(tmp_path: Path, name: str) -> None:
    content, cause = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageFault) as caught:
        open_picture(tmp_path / name)
    fault = caught.value
    assert cause in fault.cause
    assert fault.path == str(tmp_path / name)
    assert fault.remedy
    assert str(fault) == f"{fault.cause}: {fault.path}: {fault.remedy}"
    assert "\n" not in str(fault)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("nowhere.png", "no such file"),
        ("", "a folder"),
        ("line\nbreak.png", "no such file"),
        ("x" * 300 + ".png", "cannot be read"),
        ("null\0byte.png", "no valid path"),
    ],
)
def test_a_path_that_leads_to_no_file_is_one_line(tmp_path: Path, name: str, cause: str) -> None:
    with pytest.raises(ImageFault, match=cause) as caught:
        open_picture(f"{tmp_path}/{name}")
    assert len(str(caught.value).splitlines()) == 1


def test_an_address_is_not_opened() -> None:
    with pytest.raises(ImageFault, match="download the image first"):
        open_picture("https://example.org/a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageFault, match="no regular file"):
        open_picture(tmp_path / "pipe.png")


def test_the_limit_can_be_set(tmp_path: Path) -> None:
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    assert open_picture(tmp_path / "a.png", max_megapixels=0.02).image.size == (200, 100)
    with pytest.raises(ImageFault, match=r"larger than 0\.019 megapixels"):
        open_picture(tmp_path / "a.png", max_megapixels=0.019)


def test_a_fault_crosses_process_borders() -> None:
    fault = pickle.loads(pickle.dumps(ImageFault("a.png", "cause", "remedy")))
    assert (fault.path, fault.cause, fault.remedy) == ("a.png", "cause", "remedy")


KINDS = [
    kind for kind in ("png", "jpeg", "gif", "bmp", "tiff", "webp") if kind != "webp" or features.check("webp")
]
WHOLE = {kind: encoded(kind, (16, 16)) for kind in KINDS}


@given(
    kind=st.sampled_from(KINDS),
    edits=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 1000),
)
def test_damaged_bytes_give_a_picture_or_a_fault(
    tmp_path_factory: pytest.TempPathFactory, kind: str, edits: list[tuple[int, int]], cut: int
) -> None:
    content = bytearray(WHOLE[kind])
    for place, value in edits:
        content[place % len(content)] = value
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind}"
    path.write_bytes(content[: len(content) - cut] if cut < len(content) else content)
    try:
        mode = open_picture(path).image.mode
    except ImageFault as fault:
        told = str(fault)
    else:
        told = mode
    assert told == "RGB" or len(told.splitlines()) == 1


def test_a_pillow_image_is_converted_as_its_file_would_be(tmp_path: Path) -> None:
    deep = Image.new("I;16", (4, 3), 65535)
    turned = Image.new("RGB", (4, 2), "blue")
    turned.getexif()[0x0112] = 6
    for name, image in {"deep.png": deep, "turned.jpg": turned}.items():
        image.save(tmp_path / name, exif=image.getexif())
        given = as_picture(Image.open(tmp_path / name), name).image
        opened = open_picture(tmp_path / name).image
        assert given.size == opened.size and given.mode == "RGB" and given.tobytes() == opened.tobytes()
    with pytest.raises(ImageFault, match="longer than 200:1"):
        as_picture(Image.new("RGB", (1, 201)), "thin")
