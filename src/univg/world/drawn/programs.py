"""Three programs draw a page, each with its own primitives: SVG through cairosvg, matplotlib, plain Pillow.

`measure` returns the extents of what a program is told to draw, in pixels, from the geometry of its primitives: a
circle's radius, a path's curves, half of a round-joined stroke.
"""

from __future__ import annotations

import functools
import importlib
import io
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageColor, ImageDraw, ImageFont

from univg.errors import UnivgError
from univg.grounding.boxes import Box
from univg.world.drawn.pages import Item, Page
from univg.world.looks import RGB

ALL_SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "ring", "heart")
TITLES = ("Shapes", "My drawing", "Figure 1", "Exercise 3", "Test picture", "A", "page 1")
CSS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "black", "white")
CSS_COLOURS: dict[str, RGB] = {name: ImageColor.getrgb(name)[:3] for name in CSS}
TABLEAU = CSS_COLOURS | {
    "red": (214, 39, 40), "green": (44, 160, 44), "blue": (31, 119, 180), "purple": (148, 103, 189),
    "orange": (255, 127, 14), "cyan": (23, 190, 207),
}  # fmt: skip
"""The colours that matplotlib gives by turns, under the names that it has for them."""
INSTALL = "pip install 'univg[drawn]' (its cairocffi needs the system's libcairo: apt-get install libcairo2)"
Point = tuple[float, float]


@dataclass(frozen=True)
class Program:
    """How a program draws a page and how large its items come out; the shapes and palettes that it has."""

    measure: Callable[[Page], list[Box]]
    draw: Callable[[Page], Image.Image]
    shapes: tuple[str, ...]
    palettes: tuple[dict[str, RGB], ...]
    grounds: tuple[str, ...]


@functools.lru_cache(maxsize=1)
def list_programs() -> tuple[str, ...]:
    """Name the programs that can draw here: cairosvg only where it is installed."""
    return tuple(name for name in PROGRAMS if name != "svg" or not tell_missing())


def tell_missing() -> str:
    """Say that SVG cannot be drawn here, and how it can; "" if it can."""
    try:
        _import_cairosvg()
    except UnivgError as error:
        return f"{error.cause}; the other programs draw all pictures of the split: {error.remedy}"
    return ""


def _import_cairosvg() -> Any:
    try:
        return importlib.import_module("cairosvg")
    except (ImportError, OSError) as error:  # OSError: libcairo is missing
        raise UnivgError(
            f"SVG is drawn by cairosvg, which cannot be used ({error})", remedy=INSTALL
        ) from error


def _around(item: Item, across: float, down: float | None = None) -> Box:
    """Return the box that reaches so far from an item's middle, to both sides and up and down."""
    down = across if down is None else down
    return item.x - across, item.y - down, item.x + across, item.y + down


def _extent(points: Iterable[Point], stroke: float = 0.0) -> Box:
    xs, ys = zip(*points, strict=True)
    return min(xs) - stroke / 2, min(ys) - stroke / 2, max(xs) + stroke / 2, max(ys) + stroke / 2


def _star(item: Item, inner: float) -> list[Point]:
    angles = [math.pi * i / 5 - math.pi / 2 for i in range(10)]
    radii = (item.reach, inner * item.reach)
    return [
        (item.x + radii[i % 2] * math.cos(a), item.y + radii[i % 2] * math.sin(a))
        for i, a in enumerate(angles)
    ]


# ---- SVG ---------------------------------------------------------------------------------------------------------


def _svg_stroke(item: Item) -> float:
    if item.shape == "ring":
        return 0.4 * item.reach
    return {
        "filled": 0.0,
        "edged": max(1.0, round(0.08 * item.reach)),
        "hollow": max(2.0, 0.12 * item.reach),
    }[item.fill]


def _svg_triangle(item: Item) -> list[Point]:
    return [(item.x, item.y - item.reach), (item.x + item.reach, item.y + 0.8 * item.reach),
            (item.x - item.reach, item.y + 0.8 * item.reach)]  # fmt: skip


def _svg_heart(item: Item) -> list[Point]:
    """Return the corners of two cubic curves, the second one the mirror of the first."""
    x, y, r = item.x, item.y, item.reach
    return [(x, y + 0.9 * r), (x - 1.7 * r, y - 0.1 * r), (x - 0.8 * r, y - 1.3 * r), (x, y - 0.4 * r)]


def _cubic(p: list[Point], t: float) -> Point:
    weights = ((1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t * t, t**3)
    x, y = (sum(w * point[axis] for w, point in zip(weights, p, strict=True)) for axis in (0, 1))
    return x, y


def _measure_svg_item(item: Item) -> Box:
    stroke, r = _svg_stroke(item), item.reach
    if item.shape == "circle":
        return _around(item, r + stroke / 2)
    if item.shape == "ring":
        return _around(item, r)
    if item.shape == "square":
        return _around(item, 0.9 * r + stroke / 2)
    if item.shape == "diamond":
        return _around(item, 0.7 * r * math.sqrt(2) + stroke / 2)
    if item.shape == "cross":
        return _around(item, r + stroke / 2)
    if item.shape == "heart":
        curve = [_cubic(_svg_heart(item), i / 200) for i in range(201)]
        return _extent([*curve, *((2 * item.x - x, y) for x, y in curve)], stroke)
    return _extent(_svg_triangle(item) if item.shape == "triangle" else _star(item, 0.382), stroke)


def _svg_element(item: Item) -> str:
    x, y, r = item.x, item.y, item.reach
    if item.shape == "circle":
        return f'<circle cx="{x}" cy="{y}" r="{r}"'
    if item.shape == "ring":
        return f'<circle cx="{x}" cy="{y}" r="{0.8 * r}"'
    if item.shape == "square":
        return f'<rect x="{x - 0.9 * r}" y="{y - 0.9 * r}" width="{1.8 * r}" height="{1.8 * r}"'
    if item.shape == "diamond":
        turned = f'transform="rotate(45 {x} {y})"'
        return f'<rect x="{x - 0.7 * r}" y="{y - 0.7 * r}" width="{1.4 * r}" height="{1.4 * r}" {turned}'
    if item.shape == "cross":
        arm, rest = 0.6 * r, 0.7 * r
        d = f"M{x - 0.3 * r} {y - r}h{arm}v{rest}h{rest}v{arm}h{-rest}v{rest}h{-arm}v{-rest}h{-rest}v{-arm}h{rest}z"
        return f'<path d="{d}"'
    if item.shape == "heart":
        start, one, two, end = _svg_heart(item)
        three, four = ((2 * x - u, v) for u, v in (two, one))
        curves = f"C{one[0]} {one[1]} {two[0]} {two[1]} {end[0]} {end[1]}C{three[0]} {three[1]} {four[0]} {four[1]}"
        return f'<path d="M{start[0]} {start[1]}{curves} {start[0]} {start[1]}z"'
    points = _svg_triangle(item) if item.shape == "triangle" else _star(item, 0.382)
    return f'<polygon points="{" ".join(f"{u:.3f},{v:.3f}" for u, v in points)}"'


def _draw_svg(page: Page) -> Image.Image:
    cairosvg = _import_cairosvg()
    (width, height), rng = page.size_wh, random.Random(page.seed)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">',
             f'<rect width="100%" height="100%" fill="rgb{page.ground}"/>']  # fmt: skip
    if rng.random() < 0.3:
        size, grey = max(9, height // 16), "#777" if sum(page.ground) > 300 else "#bbb"
        parts.append(
            f'<text x="5" y="{height - 6}" font-size="{size}" fill="{grey}">{rng.choice(TITLES)}</text>'
        )
    edge = "black" if sum(page.ground) > 300 else "white"
    for item in page.items:
        own = f"rgb{page.palette[item.colour]}"
        inside = "none" if item.shape == "ring" or item.fill == "hollow" else own
        line = edge if item.fill == "edged" and item.shape != "ring" else own
        stroke = _svg_stroke(item)
        pen = f'stroke="{line}" stroke-width="{stroke}" stroke-linejoin="round"' if stroke else ""
        parts.append(f'{_svg_element(item)} fill="{inside}" {pen}/>')
    png = cairosvg.svg2png(bytestring="".join([*parts, "</svg>"]).encode())
    return Image.open(io.BytesIO(png)).convert("RGB")


# ---- matplotlib --------------------------------------------------------------------------------------------------

DPI = 100


def _make_patches(page: Page) -> list[Any]:
    """Make a patch of each item, in pixels from the lower left corner."""
    from matplotlib import patches
    from matplotlib.markers import MarkerStyle
    from matplotlib.path import Path
    from matplotlib.transforms import Affine2D

    height = page.size_wh[1]
    edge = "black" if sum(page.ground) > 300 else "white"
    made: list[Any] = []
    for item in page.items:
        at, r = (item.x, height - item.y), item.reach
        own = tuple(value / 255 for value in page.palette[item.colour])
        how: dict[str, Any] = {"facecolor": own, "edgecolor": "none", "linewidth": 0}
        if item.fill == "edged":
            how |= {"edgecolor": edge, "linewidth": max(1.0, 0.05 * r)}
        if item.fill == "hollow" and item.shape != "ring":
            how |= {"facecolor": "none", "edgecolor": own, "linewidth": max(1.5, 0.08 * r)}
        how |= {"joinstyle": "round", "snap": False}
        if item.shape == "circle":
            made.append(patches.Circle(at, r, **how))
        elif item.shape == "square":
            made.append(patches.Rectangle((at[0] - 0.85 * r, at[1] - 0.85 * r), 1.7 * r, 1.7 * r, **how))
        elif item.shape in ("triangle", "diamond"):
            made.append(
                patches.RegularPolygon(at, {"triangle": 3, "diamond": 4}[item.shape], radius=r, **how)
            )
        elif item.shape == "ring":
            made.append(patches.Annulus(at, r, 0.45 * r, **how))
        else:
            marker = MarkerStyle("P")
            cross = marker.get_path().transformed(marker.get_transform())
            path = Path.unit_regular_star(5, 0.5) if item.shape == "star" else cross
            scale = r if item.shape == "star" else 2 * r
            made.append(patches.PathPatch(path.transformed(Affine2D().scale(scale).translate(*at)), **how))
    return made


def _measure_matplotlib(page: Page) -> list[Box]:
    height, boxes = page.size_wh[1], []
    for patch in _make_patches(page):
        extent = patch.get_path().transformed(patch.get_patch_transform()).get_extents()
        half = patch.get_linewidth() * DPI / 72 / 2
        boxes.append(
            (extent.x0 - half, height - extent.y1 - half, extent.x1 + half, height - extent.y0 + half)
        )
    return boxes


def _draw_matplotlib(page: Page) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    (width, height), rng = page.size_wh, random.Random(page.seed)
    red, green, blue = (value / 255 for value in page.ground)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=(red, green, blue))
    canvas: Any = FigureCanvasAgg(figure)
    left, top, right, bottom = page.area
    place = (left / width, 1 - bottom / height, (right - left) / width, (bottom - top) / height)
    axes = figure.add_axes(place, facecolor="none")
    axes.set_xlim(left, right)
    axes.set_ylim(height - bottom, height - top)
    if left > 0:
        ink = "black" if sum(page.ground) > 300 else "white"
        axes.tick_params(labelsize=max(5, height / 50), colors=ink)
        if rng.random() < 0.5:
            axes.grid(color="0.8" if ink == "black" else "0.3")
        axes.set_axisbelow(True)
        if rng.random() < 0.5:
            axes.set_title(rng.choice(TITLES), fontsize=max(6, height / 35), color=ink)
    else:
        axes.set_axis_off()
    for patch in _make_patches(page):
        axes.add_patch(patch)
    canvas.draw()
    return Image.frombytes("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba())).convert("RGB")


# ---- Pillow ------------------------------------------------------------------------------------------------------


def _pillow_star(item: Item) -> list[tuple[int, int]]:
    return [(int(x), int(y)) for x, y in _star(item, 0.42)]


def _measure_pillow_item(item: Item) -> Box:
    """Return the pixels that Pillow's integer primitives fill: both ends of each belong to it."""
    x, y, r = int(item.x), int(item.y), int(item.reach)
    if item.shape == "star":
        x1, y1, x2, y2 = _extent(_pillow_star(item))
    elif item.shape == "triangle" or item.shape == "square":
        x1, y1, x2, y2 = x - r, y - r, x + r, y + r
    else:
        x1, y1, x2, y2 = _around(Item("", "", x, y, r), r)
    return x1, y1, x2 + 1, y2 + 1


def _draw_pillow(page: Page) -> Image.Image:
    rng = random.Random(page.seed)
    picture = Image.new("RGB", page.size_wh, page.ground)
    draw = ImageDraw.Draw(picture)
    if rng.random() < 0.3:
        grey = (120,) * 3 if sum(page.ground) > 300 else (180,) * 3
        draw.text((4, 2), rng.choice(TITLES), fill=grey, font=ImageFont.load_default())
    edge = (0, 0, 0) if sum(page.ground) > 300 else (255, 255, 255)
    for item in page.items:
        _draw_pillow_item(draw, page, item, edge)
    return picture


def _draw_pillow_item(draw: ImageDraw.ImageDraw, page: Page, item: Item, edge: RGB) -> None:
    x, y, r = int(item.x), int(item.y), int(item.reach)
    own, box = page.palette[item.colour], (x - r, y - r, x + r, y + r)
    how: dict[str, Any] = {"fill": own}
    if item.fill == "edged":
        how |= {"outline": edge, "width": max(1, r // 14)}
    if item.fill == "hollow":
        how = {"fill": None, "outline": own, "width": max(2, r // 8)}
    if item.shape == "circle":
        draw.ellipse(box, **how)
    elif item.shape == "ring":
        draw.ellipse(box, outline=own, width=max(2, int(0.45 * r)))
    elif item.shape == "square":
        draw.rectangle(box, **how)
    elif item.shape == "triangle":
        draw.polygon([(x, y - r), (x + r, y + r), (x - r, y + r)], **how)
    elif item.shape == "diamond":
        draw.polygon([(x, y - r), (x + r, y), (x, y + r), (x - r, y)], **how)
    elif item.shape == "star":
        draw.polygon(_pillow_star(item), **how)
    elif item.shape == "cross":
        third = max(1, r // 3)
        draw.rectangle((x - third, y - r, x + third, y + r), fill=own)
        draw.rectangle((x - r, y - third, x + r, y + third), fill=own)
    else:  # a heart: two lobes over a point
        low = y - r + r
        draw.ellipse((x - r, y - r, x, low), fill=own)
        draw.ellipse((x, y - r, x + r, low), fill=own)
        draw.polygon([(x - r + r // 8, y - r // 4), (x + r - r // 8, y - r // 4), (x, y + r)], fill=own)


PROGRAMS: dict[str, Program] = {
    "svg": Program(
        lambda page: [_measure_svg_item(item) for item in page.items],
        _draw_svg,
        ALL_SHAPES,
        (CSS_COLOURS,),
        (
            "white",
            "white",
            "white",
            "white",
            "lightgrey",
            "lightyellow",
            "lightblue",
            "beige",
            "black",
            "navy",
        ),
    ),
    "matplotlib": Program(
        _measure_matplotlib,
        _draw_matplotlib,
        tuple(shape for shape in ALL_SHAPES if shape != "heart"),
        (TABLEAU, CSS_COLOURS),
        ("white", "white", "white", "white", "whitesmoke", "lightgrey", "black"),
    ),
    "pillow": Program(
        lambda page: [_measure_pillow_item(item) for item in page.items],
        _draw_pillow,
        ALL_SHAPES,
        (CSS_COLOURS,),
        ("white", "white", "white", "black", "grey", "lightgrey", "skyblue", "darkgreen", "pink"),
    ),
}
"""The programs by name."""


def measure_page(page: Page) -> list[Box]:
    """Return each item's exact box in unit coordinates, from the geometry of the program that draws the page."""
    width, height = page.size_wh
    boxes = []
    for x1, y1, x2, y2 in PROGRAMS[page.program].measure(page):
        box = (x1 / width, y1 / height, x2 / width, y2 / height)
        boxes.append(tuple(round(min(1.0, max(0.0, value)), 6) for value in box))
    return boxes  # type: ignore[return-value]


def draw_page(page: Page) -> Image.Image:
    """Have its program draw the page. Raises UnivgError where it is not installed."""
    return PROGRAMS[page.program].draw(page)
