"""A request's images, from addresses to pixels, within bounds.

An image is part of the request (`data:` with base64). Nothing is fetched, from the network or from disk: a server that
fetches nothing cannot be made to.
"""

from __future__ import annotations

import base64
import re
import string
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from PIL import Image

from univg.errors import UnivgError
from univg.grounding.boxes import SizeWH
from univg.pictures.images import read_picture
from univg.serve.errors import ApiError

__all__ = ["FORMATS", "Bounds", "read_images"]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""What browsers show; a phone's JPEG of several pictures (MPO) is a JPEG here. Not TIFF, JPEG 2000 or AVIF: their
readers are many and large, and whoever has such files can send them as PNG."""

_ALPHABET = (string.ascii_letters + string.digits + "+/").encode()
_STANDARD = bytes.maketrans(b"-_", b"+/")  # from the alphabet for addresses
_BLANKS = string.whitespace.encode()
_BARE = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR")  # how PNG, JPEG, GIF and WebP begin in base64
_PIECE = 1 << 16  # bytes whose escapes are decoded at a time
_LINES = 1000  # lines that are looked at


class Bounds(NamedTuple):
    """How many megapixels all images of a request may have together, and each of them."""

    megapixels: float
    image_megapixels: float


def read_images(
    urls: Sequence[str], bounds: Bounds, resized: Callable[[SizeWH], SizeWH]
) -> list[Image.Image]:
    """Return RGB images, each already of the size that the model sees (`resized`), so that a request which waits holds
    little memory; the model's own processor leaves an image of that size as it is.

    Raises ApiError (400), naming the image by its number.
    """
    images: list[Image.Image] = []
    pixels = 0
    for number, url in enumerate(urls, start=1):
        try:
            name = f"image {number}"
            file = _decode(url, name)
            image = read_picture(file, name, bounds.image_megapixels, FORMATS, halve_jpeg=True).image
        except UnivgError as fault:
            raise ApiError(400, str(fault), param="messages", code="invalid_image") from fault
        pixels += image.width * image.height
        if pixels > bounds.megapixels * 1e6:
            message = (
                f"the images are larger than {bounds.megapixels:g} megapixels together: shrink them first"
            )
            raise ApiError(400, message, param="messages", code="images_too_large")
        size_wh = resized(image.size)
        if image.size != size_wh:
            image = image.resize(size_wh, Image.Resampling.BICUBIC)
        images.append(image)
    return images


def _decode(url: str, name: str) -> bytes:
    """Return the file that a `data:` address holds, whatever type it states: the content decides.

    Raises ApiError (400) for every other address.
    """
    start = url[:64].lstrip()
    scheme = start.partition(":")[0].strip().lower()
    if scheme != "data":
        why = "only images within the request are read, no files"
        if scheme in ("http", "https"):
            why = "addresses on the network are not fetched by this server"
        elif not start:
            why = "the address is empty"
        elif start.startswith(_BARE):
            why = "base64 alone, without what it is"
        message = f"{name}: {why}: send it as data:image/png;base64,…"
        raise ApiError(400, message, param="messages", code="image_url_refused")
    head, comma, content = url.partition(":")[2].partition(",")
    if not comma or "base64" not in (one.strip().lower() for one in head[:1000].split(";")):
        raise _refuse(name, "not a data:image/png;base64,… address")
    with suppress(ValueError):  # as it should be, which needs no copies
        if plain := base64.b64decode(content, validate=True):
            return plain
    data = content.encode()
    return _decode_base64(_decode_percent(data, name) if b"%" in data else data, name)


def _decode_percent(data: bytes, name: str) -> bytes:
    """Return the bytes with their %2B and the like decoded, a piece at a time: each escape takes memory meanwhile."""
    if re.search(rb"%(?![0-9A-Fa-f]{2})", data):
        raise _refuse(name, "the base64 is damaged: a % that escapes nothing")
    pieces, start = [], 0
    while start < len(data):
        end = start + _PIECE
        while b"%" in data[end - 2 : end]:  # no escape is cut in two
            end += 1
        pieces.append(unquote_to_bytes(data[start:end]))
        start = end
    return b"".join(pieces)


def _decode_base64(data: bytes, name: str) -> bytes:
    """Return what base64 holds: of either alphabet, padded or not, in lines or with blanks.

    Raises ApiError (400) for what is damaged, and where blanks may be the + signs that decoding a form takes away:
    without them another picture could come out.
    """
    if data[:2] in (b"b'", b'b"'):
        raise _refuse(name, "the base64 is Python's way to write bytes, b'…': decode() it first")
    if b" " in data and b"+" not in data and b"-" not in data and not _is_in_lines(data):
        raise _refuse(name, "the base64 has blanks where its + signs may have been: send it without blanks")
    content = data.translate(_STANDARD, _BLANKS).rstrip(b"=")
    strange = content.translate(None, _ALPHABET)
    if strange:
        what = "something follows its end" if strange[:1] == b"=" else f"it holds {chr(strange[0])!r}"
        raise _refuse(name, f"the base64 is damaged: {what}")
    if not content:
        raise _refuse(name, "nothing follows the comma: the image is empty")
    if len(content) % 4 == 1:
        raise _refuse(name, "the base64 is damaged: it is cut off")
    return base64.b64decode(content + b"=" * (-len(content) % 4))


def _is_in_lines(data: bytes) -> bool:
    """Tell whether blanks divide the text into pieces of one length, the last one excepted."""
    pieces = data.split(maxsplit=_LINES)
    return len({len(piece) for piece in pieces[:-1]}) <= 1


def _refuse(name: str, why: str) -> ApiError:
    return ApiError(400, f"{name}: {why}", param="messages", code="invalid_image")
