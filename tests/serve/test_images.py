"""The addresses that clients put images into, and the one line that says what is wrong with them."""

from __future__ import annotations

import base64
import io
import textwrap
import tracemalloc
from collections.abc import Callable
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("starlette", reason="the server needs: pip install 'univg[serve]'")

from univg.serve.errors import ApiError
from univg.serve.images import Bounds, read_images

BOUNDS = Bounds(megapixels=100, image_megapixels=40)


def encode(kind: str = "PNG", width: int = 5) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(width).integers(0, 256, (width, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


FILE = next(  # one whose base64 holds +, / and =
    data
    for width in range(5, 99)
    if set("+/=") <= set(base64.b64encode(data := encode(width=width)).decode())
)
PIXELS = np.asarray(Image.open(io.BytesIO(FILE)))
BASE64 = base64.b64encode(FILE).decode()


def read(*urls: str) -> list[Image.Image]:
    return read_images(urls, BOUNDS, lambda size_wh: size_wh)


READ: dict[str, str] = {
    "as it should be": f"data:image/png;base64,{BASE64}",
    "base64 unpadded": f"data:image/png;base64,{BASE64.rstrip('=')}",
    "padded too much": f"data:image/png;base64,{BASE64.rstrip('=')}====",
    "base64 wrapped at 76 columns": "data:image/png;base64," + base64.encodebytes(FILE).decode(),
    "wrapped, as Windows does": "data:image/png;base64,\r\n"
    + base64.encodebytes(FILE).decode().replace("\n", "\r\n"),
    "wrapped and indented": "data:image/png;base64,\n"
    + textwrap.indent(base64.encodebytes(FILE).decode(), "    "),
    "wrapped by blanks": "data:image/png;base64," + " ".join(textwrap.wrap(BASE64, 64)),
    "base64 with white space": f"data:image/png;base64, {BASE64[:11]} {BASE64[11:50]}\t{BASE64[50:]}\n\n",
    "base64 in the alphabet for addresses": f"data:image/png;base64,{BASE64.translate(str.maketrans('+/', '-_'))}",
    "the same, unpadded": "data:image/png;base64," + base64.urlsafe_b64encode(FILE).decode().rstrip("="),
    "base64 percent-encoded": f"data:image/png;base64,{quote(BASE64, safe='')}",
    "percent-encoded, small letters": "data:image/png;base64,"
    + BASE64.replace("+", "%2b").replace("/", "%2f").replace("=", "%3d"),
    "percent-encoded lines": f"data:image/png;base64,{quote(base64.encodebytes(FILE), safe='')}",
    "a head in capitals": f"DATA:IMAGE/PNG;BASE64,{BASE64}",
    "a charset in the head": f"data:image/png;charset=utf-8;base64,{BASE64}",
    "a name": f"data:image/png;name=a%20b.png;base64,{BASE64}",
    "base64 before another parameter": f"data:image/png;base64;charset=utf-8,{BASE64}",
    "blanks in the head": f" data: image/png ; base64 ,{BASE64}",
    "no type in the head": f"data:;base64,{BASE64}",
    "another type than the image's": f"data:image/jpeg;base64,{BASE64}",
    "a type that is none": f"data:application/octet-stream;base64,{BASE64}",
}


@pytest.mark.parametrize("name", READ)
def test_an_image_is_read_however_it_is_written(name: str) -> None:
    [image] = read(READ[name])
    assert np.array_equal(np.asarray(image), PIXELS)


REFUSED: dict[str, tuple[str, str]] = {
    "nothing": ("", "the address is empty"),
    "blanks": ("  ", "the address is empty"),
    "an image of nothing": ("data:image/png;base64,", "nothing follows the comma"),
    "blanks after the comma": ("data:image/png;base64, \n", "the image is empty"),
    "no comma": (f"data:image/png;base64{BASE64}", "not a data:"),
    "not said to be base64": (f"data:image/png,{BASE64}", "not a data:"),
    "base64 without its head": (BASE64, "base64 alone"),
    "base64 of a photograph alone": (base64.b64encode(encode("JPEG")).decode(), "base64 alone"),
    "base64 as Python's b'…'": (f"data:image/png;base64,{BASE64.encode()!r}", "decode() it first"),
    "base64 whose + signs became blanks": (
        f"data:image/png;base64,{(BASE64 * 9).replace('+', ' ')}",
        "+ signs",
    ),
    "cut off within a character": (f"data:image/png;base64,{BASE64.rstrip('=')[:41]}", "cut off"),
    "an image that is cut off": (f"data:image/png;base64,{BASE64[:80]}", "damaged or cut off"),
    "two in one": (f"data:image/png;base64,{BASE64}{BASE64}", "something follows its end"),
    "a stray character": (f"data:image/png;base64,{BASE64[:9]}*{BASE64[9:]}", "holds '*'"),
    "a quote at its end": (f'data:image/png;base64,{BASE64.rstrip("=")}"', "holds '\"'"),
    "a stray %": (f"data:image/png;base64,{BASE64[:9]}%{BASE64[9:]}", "% that escapes nothing"),
    "encoded twice": (f"data:image/png;base64,{quote(quote(BASE64, safe=''))}", "holds '%'"),
    "a text": ("data:image/png;base64," + base64.b64encode(b"hello").decode(), "no image"),
    "a drawing": ("data:image/svg+xml;base64," + base64.b64encode(b"<svg/>").decode(), "no image"),
    "a path": ("a.png", "no files"),
    "an address": ("https://example.org/a.png", "not fetched"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_image_that_cannot_be_read_is_named_by_its_number(name: str) -> None:
    url, words = REFUSED[name]
    with pytest.raises(ApiError) as refused:
        read(READ["as it should be"], url)
    message = refused.value.body()["error"]["message"]
    assert refused.value.status == 400 and words in message and "image 2" in message


@given(st.binary(min_size=1, max_size=300), st.randoms(use_true_random=False), st.booleans())
def test_every_way_to_write_base64_gives_the_same_bytes(data: bytes, random: object, safe: bool) -> None:
    from univg.serve.images import _decode

    content = (base64.urlsafe_b64encode if safe else base64.b64encode)(data).decode()
    pick: Callable[..., str] = random.choice  # type: ignore[attr-defined]
    written = "".join(
        pick([one, f"%{ord(one):02X}", f"%{ord(one):02x}"]) + pick(["", "", "\n", "%0A", "\t"])
        for one in content
    )
    if pick(["", "a"]):
        written = written.replace("=", "").replace("%3D", "").replace("%3d", "")
    assert _decode(f"data:;base64,{written}", "image 1") == data


@pytest.mark.parametrize("piece", ["%41%2b", "A\n", "QUJD", "%4"])
def test_decoding_takes_a_few_times_the_memory_of_the_text(piece: str) -> None:
    url = "data:image/png;base64," + piece * (1 << 18)
    tracemalloc.start()
    try:
        with pytest.raises(ApiError):
            read(url)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * len(url) + (12 << 20)
