"""A request's images, from addresses to pixels, within bounds.

An image is part of the request (`data:` with base64). Nothing is fetched, from the network or from disk: a server that
fetches nothing cannot be made to.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence

from PIL import Image

from univg.errors import UnivgError
from univg.grounding.boxes import SizeWH
from univg.pictures.images import read_picture
from univg.serve.config import Limits
from univg.serve.errors import ApiError

__all__ = ["read_images"]


def read_images(
    urls: Sequence[str], limits: Limits, resized: Callable[[SizeWH], SizeWH]
) -> list[Image.Image]:
    """Return RGB images, each already of the size that the model sees (`resized`), so that a request which waits holds
    little memory; the model's own processor leaves an image of that size as it is.

    Raises ApiError (400), naming the image by its number.
    """
    images: list[Image.Image] = []
    pixels = 0
    for number, url in enumerate(urls, start=1):
        try:
            image = read_picture(_decode(url, f"image {number}"), f"image {number}", limits.megapixels).image
        except UnivgError as fault:
            raise ApiError(400, str(fault), param="messages", code="invalid_image") from fault
        pixels += image.width * image.height
        if pixels > limits.megapixels * 1e6:
            message = (
                f"the images are larger than {limits.megapixels:g} megapixels together: shrink them first"
            )
            raise ApiError(400, message, param="messages", code="images_too_large")
        size_wh = resized(image.size)
        if image.size != size_wh:
            image = image.resize(size_wh, Image.Resampling.BICUBIC)
        images.append(image)
    return images


def _decode(url: str, name: str) -> bytes:
    """Return the file that a `data:` address holds. Raises ApiError (400) for every other address."""
    scheme = url[:16].partition(":")[0].strip().lower()
    if scheme != "data":
        why = "only images within the request are read, no files"
        if scheme in ("http", "https"):
            why = "addresses on the network are not fetched by this server"
        message = f"{name}: {why}: send it as data:image/png;base64,…"
        raise ApiError(400, message, param="messages", code="image_url_refused")
    head, comma, content = url.partition(":")[2].partition(",")
    if not comma or not head.lower().endswith(";base64"):
        message = f"{name}: not a data:image/png;base64,… address"
        raise ApiError(400, message, param="messages", code="invalid_image")
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        message = f"{name}: the base64 is damaged ({error})"
        raise ApiError(400, message, param="messages", code="invalid_image") from error
