"""Draw scenes as pixels: anti-aliased by drawing at twice the size, on varied grounds, with Pillow alone."""

from __future__ import annotations

import functools
import random

from PIL import Image, ImageDraw

from univg.grounding.boxes import Box
from univg.world.identity import COLOURS
from univg.world.painting import paint
from univg.world.scene import Background, Outline, Scene, Thing

OVERSAMPLE = 2
MARK = (255, 0, 0)
RGB = tuple[int, int, int]


def size_for(aspect: float, longest: int) -> tuple[int, int]:
    """Return (width, height) in pixels with the longer side `longest`."""
    if aspect >= 1:
        return longest, max(1, round(longest / aspect))
    return max(1, round(longest * aspect)), longest


def render(scene: Scene, longest: int = 120) -> Image.Image:
    """Draw the scene as an RGB image whose longer side has `longest` pixels, or as many as its look says.

    The picture's content is the same at every size: pattern cells and mark widths are parts of the side.
    """
    if scene.look is not None:
        return paint(scene, size_for(scene.aspect, scene.look.longest))
    width, height = size_for(scene.aspect, longest)
    big = (width * OVERSAMPLE, height * OVERSAMPLE)
    canvas = _ground(scene.background, big)
    draw = ImageDraw.Draw(canvas)
    for thing in scene.things:
        _paint(canvas, draw, scene, thing)
    for mark in scene.marks:
        _outline_box(draw, mark, big, max(OVERSAMPLE, round(longest * OVERSAMPLE / 56)))
    return canvas.reduce(OVERSAMPLE)


def _paint(canvas: Image.Image, draw: ImageDraw.ImageDraw, scene: Scene, thing: Thing) -> None:
    width, height = canvas.size
    for outline in scene.outlines(thing):
        part = outline.part
        points = [[(x * width, y * height) for x, y in polygon] for polygon in outline.polygons]
        plain = part.tint is not None or thing.identity.pattern == "plain"
        colour = part.tint or COLOURS[thing.identity.colour]
        if plain and not part.holes:
            for polygon in points:
                draw.polygon(polygon, fill=colour)
        else:
            _paint_through_mask(canvas, outline, scene, thing, points, colour, plain)


def _paint_through_mask(
    canvas: Image.Image,
    outline: Outline,
    scene: Scene,
    thing: Thing,
    points: list[list[tuple[float, float]]],
    colour: RGB,
    plain: bool,
) -> None:
    xs = [x for polygon in points for x, _ in polygon]
    ys = [y for polygon in points for _, y in polygon]
    left, top = int(min(xs)) - 1, int(min(ys)) - 1
    size = (int(max(xs)) + 2 - left, int(max(ys)) + 2 - top)
    mask = Image.new("L", size)
    brush = ImageDraw.Draw(mask)
    for polygon in points:
        brush.polygon([(x - left, y - top) for x, y in polygon], fill=255)
    width, height = canvas.size
    for hole in outline.holes:
        brush.polygon([(x * width - left, y * height - top) for x, y in hole], fill=0)
    if plain:
        canvas.paste(colour, (left, top), mask)
    else:
        cell = max(2, round(min(canvas.size) * thing.extent * scene.camera.zoom / 4))
        canvas.paste(_pattern(thing.identity.pattern, colour, cell, size), (left, top), mask)


def _pattern(name: str, colour: RGB, cell: int, size: tuple[int, int]) -> Image.Image:
    """Draw a swatch of `size`: the colour with stripes, dots or checks of a second tone far from it."""
    dark = sum(colour) < 330
    second = tuple(int(v + (255 - v) * 0.72) if dark else int(v * 0.34) for v in colour)
    swatch = Image.new("RGB", size, colour)
    draw = ImageDraw.Draw(swatch)
    width, height = size
    if name == "striped":
        for x in range(-height, width, 2 * cell):
            draw.polygon(
                [(x, 0), (x + cell, 0), (x + cell + height, height), (x + height, height)], fill=second
            )
    elif name == "dotted":
        radius = cell * 0.5
        for row, y in enumerate(range(cell // 2, height + cell, round(cell * 1.6))):
            for x in range(cell // 2 + (row % 2) * round(cell * 0.8), width + cell, round(cell * 1.6)):
                draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=second)
    else:
        for row, y in enumerate(range(0, height, cell)):
            for x in range((row % 2) * cell, width, 2 * cell):
                draw.rectangle([x, y, x + cell - 1, y + cell - 1], fill=second)
    return swatch


def _outline_box(draw: ImageDraw.ImageDraw, box: Box, size_wh: tuple[int, int], width: int) -> None:
    """Draw a red frame around the box, just outside it, so that it hides nothing of what it marks."""
    x1, y1, x2, y2 = box[0] * size_wh[0], box[1] * size_wh[1], box[2] * size_wh[0], box[3] * size_wh[1]
    frame = [
        max(0, x1 - width),
        max(0, y1 - width),
        min(size_wh[0] - 1, x2 + width - 1),
        min(size_wh[1] - 1, y2 + width - 1),
    ]
    draw.rectangle(frame, outline=MARK, width=width)


@functools.lru_cache(maxsize=8)
def _ramp(size: tuple[int, int], across: bool) -> Image.Image:
    gradient = Image.linear_gradient("L")
    return (gradient.rotate(90) if across else gradient).resize(size, Image.Resampling.BILINEAR)


def _ground(background: Background, size: tuple[int, int]) -> Image.Image:
    base = Image.new("RGB", size, background.tone)
    if background.kind == "flat":
        return base
    other = Image.new("RGB", size, background.second)
    rng = random.Random(background.seed)
    if background.kind == "gradient":
        return Image.composite(other, base, _ramp(size, rng.random() < 0.5))
    if background.kind == "noise":
        cells = rng.choice((6, 9, 14))
        noise = Image.frombytes("L", (cells, cells), rng.randbytes(cells * cells))
        return Image.composite(other, base, noise.resize(size, Image.Resampling.BILINEAR))
    draw = ImageDraw.Draw(base)
    step = max(4, round(size[1] / rng.choice((3, 4, 5))))
    for y in range(0, size[1], 2 * step):
        draw.rectangle([0, y, size[0], y + step - 1], fill=background.second)
    return base
