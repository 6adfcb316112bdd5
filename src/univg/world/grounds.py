"""Paint what lies under the things of a picture: its ground, then scribbles and labels that are none of them."""

from __future__ import annotations

import functools
import math
import random
from typing import Literal, TypeAlias

from PIL import Image, ImageDraw, ImageFont

from univg.grounding.boxes import SizeWH
from univg.world.looks import RGB, contrast, shade
from univg.world.scene import Background

GroundKind: TypeAlias = Literal["flat", "gradient", "photo", "bands", "grid", "dots", "checks"]
TEXTURED: tuple[GroundKind, ...] = (
    "gradient",
    "gradient",
    "photo",
    "photo",
    "bands",
    "grid",
    "dots",
    "checks",
)
WORDS: tuple[str, ...] = (
    "A", "B", "C", "7", "12", "Fig. 2", "page 3", "draft", "note", "x = 4", "hello", "sample",
    "no. 5", "3 cm", "home", "Monday", "?", "1984", "north", "step 1",
)  # fmt: skip


def list_tones(background: Background) -> tuple[RGB, ...]:
    """List the colours that a thing may lie on."""
    if background.kind == "flat":
        return (background.tone,)
    one, other = background.tone, background.second
    middle = ((one[0] + other[0]) // 2, (one[1] + other[1]) // 2, (one[2] + other[2]) // 2)
    return one, other, middle


def paint_ground(background: Background, size: SizeWH) -> Image.Image:
    """Paint a ground of two tones as an RGB image."""
    base = Image.new("RGB", size, background.tone)
    if background.kind == "flat":
        return base
    rng = random.Random(background.seed)
    if background.kind == "gradient":
        return Image.composite(Image.new("RGB", size, background.second), base, _ramp(size, rng.randrange(4)))
    if background.kind == "photo":
        return Image.composite(Image.new("RGB", size, background.second), base, _clouds(size, rng))
    draw = ImageDraw.Draw(base)
    step = max(3, round(min(size) / rng.uniform(4, 18)))
    _PATTERNS[background.kind](draw, size, step, background.second)
    return base


def _ramp(size: SizeWH, way: int) -> Image.Image:
    turned = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)[way]
    gradient = Image.linear_gradient("L")
    return (gradient.transpose(turned) if turned else gradient).resize(size, Image.Resampling.BILINEAR)


def _clouds(size: SizeWH, rng: random.Random) -> Image.Image:
    """Blend noise of several scales, as surfaces out of focus have it, with a grain on top."""
    noise: Image.Image | None = None
    for cells, weight in (
        (rng.choice((3, 4, 6)), 1.0),
        (rng.choice((11, 16)), 0.4),
        (rng.choice((40, 64)), 0.25),
    ):
        layer = Image.frombytes("L", (cells, cells), rng.randbytes(cells * cells))
        grown = layer.resize(size, Image.Resampling.BICUBIC if cells < 10 else Image.Resampling.BILINEAR)
        noise = grown if noise is None else Image.blend(noise, grown, weight)
    assert noise is not None
    return noise


def _bands(draw: ImageDraw.ImageDraw, size: SizeWH, step: int, colour: RGB) -> None:
    for y in range(0, size[1], 2 * step):
        draw.rectangle([0, y, size[0], y + step - 1], fill=colour)


def _grid(draw: ImageDraw.ImageDraw, size: SizeWH, step: int, colour: RGB) -> None:
    for x in range(step // 2, size[0], step):
        draw.line([x, 0, x, size[1]], fill=colour)
    for y in range(step // 2, size[1], step):
        draw.line([0, y, size[0], y], fill=colour)


def _dots(draw: ImageDraw.ImageDraw, size: SizeWH, step: int, colour: RGB) -> None:
    radius = max(1, step // 8)
    for y in range(step // 2, size[1], step):
        for x in range(step // 2, size[0], step):
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)


def _checks(draw: ImageDraw.ImageDraw, size: SizeWH, step: int, colour: RGB) -> None:
    for row, y in enumerate(range(0, size[1], step)):
        for x in range(row % 2 * step, size[0], 2 * step):
            draw.rectangle([x, y, x + step - 1, y + step - 1], fill=colour)


_PATTERNS = {"bands": _bands, "grid": _grid, "dots": _dots, "checks": _checks}


# ---- what lies about -------------------------------------------------------------------------------------------


def scatter(canvas: Image.Image, background: Background, scribbles: int, labels: int, seed: int) -> None:
    """Draw open lines and words in a grey that stands out little: no colour that is asked for, no closed shape."""
    rng = random.Random(seed)
    draw = ImageDraw.Draw(canvas)
    grey = _soft_grey(background)
    width, height = canvas.size
    short = min(canvas.size)
    for _ in range(scribbles):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        draw.line(_scribble(rng, x, y, rng.uniform(0.05, 0.3) * short), fill=grey, width=max(1, short // 110))
    for _ in range(labels):
        font = _load_font(max(8, round(short * rng.uniform(0.04, 0.09))))
        at = (rng.uniform(0, 0.85) * width, rng.uniform(0, 0.92) * height)
        draw.text(at, rng.choice(WORDS), fill=grey, font=font)


def _soft_grey(background: Background) -> RGB:
    """Choose the grey nearest to the ground that can still be read on it."""
    tones = list_tones(background)
    greys = [(level, level, level) for level in range(60, 200, 10)]
    seen = [grey for grey in greys if min(contrast(grey, tone) for tone in tones) > 150]
    return min(
        seen or [shade(background.tone, 0.5)], key=lambda grey: min(contrast(grey, tone) for tone in tones)
    )


def _scribble(rng: random.Random, x: float, y: float, reach: float) -> list[tuple[float, float]]:
    """Return an open line: straight, zigzag, or a wave."""
    kind, turn = rng.randrange(3), rng.uniform(0, math.pi)
    cos, sin = math.cos(turn), math.sin(turn)
    steps = (2, rng.randint(4, 8), 14)[kind]
    height = (0.0, 0.25, 0.15)[kind] * reach
    points = []
    for i in range(steps):
        along = reach * i / (steps - 1)
        across = height * (math.sin(i * 0.9) if kind == 2 else (-1) ** i)
        points.append((x + cos * along - sin * across, y + sin * along + cos * across))
    return points


@functools.lru_cache(maxsize=64)
def _load_font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
