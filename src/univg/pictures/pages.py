"""Write HTML pages that need no server and no other file: pictures inside, boxes as overlays."""

from __future__ import annotations

import base64
import io
from importlib.resources import files
from typing import Any

from PIL import Image

from univg.grounding.boxes import Box
from univg.pictures.drawing import drop_marks, fit

__all__ = ["data_url", "place_percent", "render_page", "thumbnail_url"]


def data_url(image: Image.Image | bytes, kind: str = "jpeg", quality: int = 85) -> str:
    """Return an address that holds a picture; ``bytes`` are taken as a picture of ``kind``, encoded already.

    >>> data_url(b"abc", "png")
    'data:image/png;base64,YWJj'
    """
    if isinstance(image, Image.Image):
        buffer = io.BytesIO()
        image.save(buffer, kind.upper(), quality=quality)
        image = buffer.getvalue()
    return f"data:image/{kind};base64," + base64.b64encode(image).decode("ascii")


def thumbnail_url(image: Image.Image, height_px: int) -> str:
    """Return an address that holds a picture as JPEG, ``height_px`` high and at most twice as wide."""
    return data_url(fit(image, height_px, 2 * height_px))


def place_percent(box_unit: Box) -> tuple[float, float, float, float]:
    """Return a box as left, top, width and height in percent of its picture, as a page places it.

    >>> place_percent((0.1, 0.5, 0.3, 1.2))
    (10.0, 50.0, 20.0, 50.0)
    """
    x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in box_unit)
    left, top, right, bottom = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
    return tuple(round(100 * value, 3) for value in (left, top, right - left, bottom - top))  # type: ignore[return-value]


def render_page(room: str, template: str, **values: Any) -> str:
    """Fill the Jinja template that lies in the package ``univg.<room>``; every value is escaped, none may lack.

    Its filter ``drop_marks`` is that of `univg.pictures.drawing`.
    """
    from jinja2 import Environment, StrictUndefined

    source = files(f"univg.{room}").joinpath(template).read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["drop_marks"] = drop_marks
    return environment.from_string(source).render(**values)
