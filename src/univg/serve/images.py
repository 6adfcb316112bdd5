"""A request's images: from addresses to pixels, within bounds.

An image is part of the request (`data:` with base64). Addresses on the network are refused unless the server was
started with them allowed; `file:` and everything else always is.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Sequence

from PIL import Image

from univg.grounding.boxes import SizeWH
from univg.pictures.images import ImageFault, read_picture
from univg.serve.errors import ApiError
from univg.serve.fetching import FetchError, fetch
from univg.serve.limits import Limits


def image_files(
    urls: Sequence[str],
    limits: Limits,
    remote: bool = False,
    fetch: Callable[[str, int, float, int], bytes] = fetch,
) -> list[bytes]:
    """The encoded images behind `urls`; `remote`: those on the network are fetched. Errors: ApiError (400)."""
    files: list[bytes] = []
    fetched, deadline = 0, time.monotonic() + limits.fetch_s
    for number, url in enumerate(urls, start=1):
        name, scheme = f"image {number}", url[:16].partition(":")[0].strip().lower()
        if scheme == "data":
            files.append(_embedded(url, name))
        elif scheme not in ("http", "https"):
            raise _refused(name, "only images within the request are read, no files")
        elif not remote:
            raise _refused(name, "addresses on the network are not fetched by this server")
        else:
            try:
                files.append(fetch(url, limits.body_bytes - fetched, deadline, limits.redirects))
            except FetchError as error:
                message = f"{name}: {error}"
                raise ApiError(400, message, param="messages", code="image_not_fetched") from error
            fetched += len(files[-1])
    return files


def decode_images(
    files: list[bytes], limits: Limits, resized: Callable[[SizeWH], SizeWH]
) -> list[Image.Image]:
    """RGB images, each already of the size that the model sees (`resized`), so that a request which waits holds
    little memory; the model's own processor leaves an image of that size as it is. `files` is used up.

    Errors: ApiError (400), naming the image by its number.
    """
    images: list[Image.Image] = []
    pixels = 0
    for number in range(1, len(files) + 1):
        try:
            image = read_picture(files.pop(0), f"image {number}", limits.megapixels).image
        except ImageFault as fault:
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


def _refused(name: str, why: str) -> ApiError:
    message = f"{name}: {why}: send it as data:image/png;base64,…"
    return ApiError(400, message, param="messages", code="image_url_refused")


def _embedded(url: str, name: str) -> bytes:
    head, comma, content = url[len("data:") :].partition(",")
    if not comma or not head.lower().endswith(";base64"):
        message = f"{name}: not a data:image/png;base64,… address"
        raise ApiError(400, message, param="messages", code="invalid_image")
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        message = f"{name}: the base64 is damaged ({error})"
        raise ApiError(400, message, param="messages", code="invalid_image") from error
