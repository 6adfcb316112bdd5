"""Paint scenes of the second world: each part through a mask of its own, then what a camera and a file do to it.

A stroke lies inside its outline, and a hand-drawn outline is put back into the extent of the exact one, so that a box
stays that of the polygons, to half a pixel, in every look.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Sequence

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from univg.grounding.boxes import Box, SizeWH
from univg.world.grounds import list_tones, paint_ground, scatter
from univg.world.looks import RGB, Look, contrast, shade
from univg.world.scene import Scene, Thing
from univg.world.shapes import SIMPLE_SHAPES

MARK: RGB = (255, 0, 0)
CLEAR = 165.0
"""How far a thing's colour is from its ground (see `contrast`) where it needs no rim to be seen."""
STROKED = ("outlined", "sketched", "lines")
NARROW = 0.035
"""Of a thing's side: the width of a rim that is there for contrast alone."""
Points = list[tuple[float, float]]


def paint(scene: Scene, size: SizeWH) -> Image.Image:
    """Paint a scene that has a look as an RGB image of `size` pixels."""
    look = scene.look
    assert look is not None
    canvas = paint_ground(scene.background, size)
    if look.scribbles or look.labels:
        scatter(canvas, scene.background, look.scribbles, look.labels, look.seed)
    for thing in scene.things:
        _paint_thing(canvas, scene, look, thing)
    for mark in scene.marks:
        _paint_mark(canvas, mark, max(1, round(look.longest / 56)))
    return develop(canvas, look)


def find_rim(colour: RGB, look: Look, tones: Sequence[RGB]) -> RGB | None:
    """Return the colour of a part's rim: the look's, or, where the part would not be seen, one that shows; or None."""
    unseen = min(contrast(colour, tone) for tone in tones) < CLEAR
    if not unseen:
        if look.finish not in STROKED or look.finish == "lines":
            return None
        return look.rim or shade(colour, 0.6)
    light = sum(map(sum, tones)) / len(tones) > 384
    rim = (0, 0, 0) if light else (255, 255, 255)
    return rim if contrast(rim, colour) > CLEAR else shade((128, 128, 128), 1.2)


def _paint_thing(canvas: Image.Image, scene: Scene, look: Look, thing: Thing) -> None:
    width, height = canvas.size
    zoom = scene.camera.zoom
    side = 2 * thing.extent * min(canvas.size) * zoom
    tones = list_tones(scene.background)
    own = look.palette[thing.identity.colour]
    rng = random.Random(f"{look.seed}/{thing.identity}") if look.finish == "sketched" else None
    for outline in scene.outlines(thing):
        part = outline.part
        colour = part.tint or own
        pattern = "plain" if part.tint else thing.identity.pattern
        polygons = [[(x * width, y * height) for x, y in polygon] for polygon in outline.polygons]
        holes = [[(x * width, y * height) for x, y in polygon] for polygon in outline.holes]
        if rng is not None:
            polygons = [_wobble(polygon, rng) for polygon in polygons]
        rim = find_rim(colour, look, tones)
        hollow = (
            look.finish == "lines"
            and rim is None
            and pattern == "plain"
            and thing.identity.shape in SIMPLE_SHAPES
        ) and thing.identity.colour != "black"
        share = look.rim_share if look.finish in STROKED else NARROW
        # Of a ring's band, colour must remain between its two rims.
        stroke = min((0.05 if part.holes else 0.12) * side, max(1.6 if hollow else 1.1, share * side))
        cut = Stencil.cut(polygons, holes, canvas.size, look.smooth, stroke if rim or hollow else 0.0)
        if cut is None:
            continue
        if hollow:
            canvas.paste(own, cut.at, cut.rim)
            continue
        fill: RGB | Image.Image = colour
        if pattern != "plain":
            fill = paint_swatch(pattern, colour, max(2.0, side / 8), cut.mask.size)
        if look.finish == "shaded":
            fill = _shade_fill(fill, cut.mask.size, look.seed)
        canvas.paste(fill, cut.at, cut.mask)
        if rim is not None:
            canvas.paste(rim, cut.at, cut.rim)


class Stencil:
    """The masks of one part, and where their upper left corner lies on the canvas."""

    def __init__(self, at: tuple[int, int], mask: Image.Image, rim: Image.Image | None) -> None:
        self.at = at
        self.mask = mask
        self.rim = rim

    @classmethod
    def cut(
        cls, polygons: Sequence[Points], holes: Sequence[Points], size: SizeWH, smooth: bool, stroke: float
    ) -> Stencil | None:
        """Cut the masks of polygons in pixels, the strokes `stroke` wide inside them; None if all lie outside."""
        xs = [x for polygon in polygons for x, _ in polygon]
        ys = [y for polygon in polygons for _, y in polygon]
        left, top = max(0, math.floor(min(xs))), max(0, math.floor(min(ys)))
        width, height = min(size[0], math.ceil(max(xs))) - left, min(size[1], math.ceil(max(ys))) - top
        if width <= 0 or height <= 0:
            return None
        scale = (4 if max(width, height) < 90 else 2) if smooth else 1
        big = (width * scale, height * scale)

        mask = Image.new("L", big)
        brush = ImageDraw.Draw(mask)
        solid, gaps = ([_snap(each, left, top, scale) for each in lines] for lines in (polygons, holes))
        for polygon in solid:
            brush.polygon(polygon, fill=255)
        for hole in gaps:
            brush.polygon(hole, fill=0)
        rim = None
        if stroke:
            rim = Image.new("L", big)
            pen = ImageDraw.Draw(rim)
            for line in (*solid, *gaps):
                pen.line(
                    [*line, line[0], line[1]], fill=255, width=2 * round(stroke * scale) + 1, joint="curve"
                )
            rim = ImageChops.darker(rim, mask)
        if scale > 1:
            mask, rim = mask.reduce(scale), rim and rim.reduce(scale)
        return cls((left, top), mask, rim)


def _snap(polygon: Points, left: int, top: int, scale: int) -> list[tuple[int, int]]:
    """Return a polygon's corners as the pixels of a mask: the outermost whose middles lie within it.

    Pillow drops what comes after the point, and fills the last row and column too.
    """
    xs = _snap_axis([(x - left) * scale - 0.5 for x, _ in polygon])
    ys = _snap_axis([(y - top) * scale - 0.5 for _, y in polygon])
    return list(zip(xs, ys, strict=True))


def _snap_axis(values: list[float]) -> list[int]:
    middle = (min(values) + max(values)) / 2
    return [math.ceil(value) if value < middle else math.floor(value) for value in values]


def paint_swatch(name: str, colour: RGB, cell: float, size: SizeWH) -> Image.Image:
    """Paint a swatch of `size`: the colour with stripes, dots or checks of a second tone, `cell` pixels wide.

    The colour that gives the name keeps most of the area or of the contrast: white stays light, black dark.
    """
    light = sum(colour)
    second = shade(colour, 1.45 if light < 150 else 1.72 if light < 330 else 0.6 if light > 700 else 0.36)
    swatch = Image.new("RGB", size, colour)
    draw = ImageDraw.Draw(swatch)
    width, height = size
    step = max(2, round(cell))
    if name == "striped":
        for x in range(-height, width, 2 * step):
            draw.polygon(
                [(x, 0), (x + step, 0), (x + step + height, height), (x + height, height)], fill=second
            )
    elif name == "dotted":
        radius, pitch = cell * 0.5, max(3, round(cell * 1.6))
        for row, y in enumerate(range(step // 2, height + step, pitch)):
            for x in range(step // 2 + (row % 2) * (pitch // 2), width + step, pitch):
                draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=second)
    else:
        for row, y in enumerate(range(0, height, step)):
            for x in range((row % 2) * step, width, 2 * step):
                draw.rectangle([x, y, x + step - 1, y + step - 1], fill=second)
    return swatch


def _shade_fill(fill: RGB | Image.Image, size: SizeWH, seed: int) -> Image.Image:
    """Light a fill from one side: lighter there, a little darker on the other, and never another colour."""
    plain = fill if isinstance(fill, Image.Image) else Image.new("RGB", size, fill)
    light = Image.blend(plain, Image.new("RGB", size, (255, 255, 255)), 0.22)
    dark = Image.blend(plain, Image.new("RGB", size, (0, 0, 0)), 0.14)
    if seed % 2:
        ramp = Image.radial_gradient("L")
    else:
        ramp = Image.linear_gradient("L").transpose(
            (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180)[seed // 2 % 2]
        )
    return Image.composite(dark, light, ramp.resize(size, Image.Resampling.BILINEAR))


def _wobble(polygon: Points, rng: random.Random) -> Points:
    """Draw an outline as by hand, in the exact extent of the true one."""
    middle_x = sum(x for x, _ in polygon) / len(polygon)
    middle_y = sum(y for _, y in polygon) / len(polygon)
    reach = rng.uniform(0.01, 0.03)
    waves = [(rng.choice((2, 3, 5, 8)), rng.uniform(0, 2 * math.pi)) for _ in range(2)]
    points = _subdivide(polygon)
    drawn = []
    for i, (x, y) in enumerate(points):
        at = 2 * math.pi * i / len(points)
        grown = 1 + reach * sum(math.sin(often * at + phase) for often, phase in waves)
        drawn.append((middle_x + (x - middle_x) * grown, middle_y + (y - middle_y) * grown))
    return _fit_extent(drawn, polygon)


def _subdivide(polygon: Points) -> Points:
    pieces = max(1, 28 // len(polygon))
    return [
        (x + (u - x) * k / pieces, y + (v - y) * k / pieces)
        for (x, y), (u, v) in zip(polygon, [*polygon[1:], polygon[0]], strict=True)
        for k in range(pieces)
    ]


def _fit_extent(points: Points, like: Points) -> Points:
    def fit(values: list[float], wanted: list[float]) -> list[float]:
        low, span = min(values), max(values) - min(values)
        start, factor = min(wanted), (max(wanted) - min(wanted)) / (span or 1.0)
        return [start + (value - low) * factor for value in values]

    xs = fit([x for x, _ in points], [x for x, _ in like])
    ys = fit([y for _, y in points], [y for _, y in like])
    return list(zip(xs, ys, strict=True))


def _paint_mark(canvas: Image.Image, box: Box, width: int) -> None:
    """Draw a red frame around the box, just outside it, so that it hides nothing of what it marks."""
    across, down = canvas.size
    frame = [
        max(0, round(box[0] * across) - width),
        max(0, round(box[1] * down) - width),
        min(across - 1, round(box[2] * across) + width - 1),
        min(down - 1, round(box[3] * down) + width - 1),
    ]
    ImageDraw.Draw(canvas).rectangle(frame, outline=MARK, width=width)


def develop(picture: Image.Image, look: Look) -> Image.Image:
    """Do to a picture what the look's lens, sensor and file do."""
    if look.blur:
        picture = picture.filter(ImageFilter.BoxBlur(look.blur))
    if look.noise:
        picture = _add_noise(picture, look.noise, look.grain)
    if look.tones:
        picture = picture.quantize(look.tones, dither=Image.Dither.NONE).convert("RGB")
    if look.quality:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=look.quality)
        picture = Image.open(file).convert("RGB")
    return picture


def _add_noise(picture: Image.Image, levels: int, seed: int) -> Image.Image:
    """Add noise of at most `levels` to each pixel, one tile of it repeated over large pictures."""
    width, height = picture.size
    tile = min(width, 256), min(height, 256)
    grain = Image.frombytes("L", tile, random.Random(seed).randbytes(tile[0] * tile[1]))
    if tile != picture.size:
        whole = Image.new("L", picture.size)
        for top in range(0, height, tile[1]):
            for left in range(0, width, tile[0]):
                whole.paste(grain, (left, top))
        grain = whole
    weak = grain.point([round((value - 127.5) / 127.5 * levels) + 128 for value in range(256)])
    noise = Image.merge("RGB", (weak, weak, weak))
    return ImageChops.add(picture, noise, 1, -128)
