"""Pictures for people: boxes with labels, images side by side, contact sheets, files written whole or never.

Sizes follow the image: a line or a letter takes the same share of a thumbnail as of a 40-megapixel photo.
Boxes come in the unit frame (0-1 of the image's width and height).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from univg.files import replacing
from univg.grounding.boxes import Box, unit_to_px
from univg.pictures.fonts import Font, fit_font

Colour = tuple[int, int, int]
SheetCell = tuple[Sequence[Image.Image], Box | None, int | Collection[int] | None, Sequence[str]]

ANSWER: Colour = (235, 30, 99)
TRUTH: Colour = (0, 150, 90)
OTHERS: Colour = (40, 110, 220)
INK: Colour = (28, 28, 32)
FAINT: Colour = (120, 120, 128)
HAIRLINE: Colour = (222, 222, 226)
WHITE: Colour = (255, 255, 255)

SHEET_CELLS = 60  # more samples than anybody looks at would only make a file that no viewer opens
SHEET_PX = 4000
"""The highest contact sheet, but for a first row that is higher."""
THUMB_PX = 220
_MARK = re.compile(r"<\|[^|>]*\|>")
_SHEET_ROW = 3  # wider cells would be mostly empty: few samples have more images


def draw_box(
    image: Image.Image, box_unit: Box, label: str | None = None, colour: Colour = ANSWER
) -> Image.Image:
    """Return a copy of `image` (RGB) with one box, and a label on it.

    The line lies outside the box where there is room, so that a small thing stays visible inside it.
    """
    drawn = image.convert("RGB") if image.mode != "RGB" else image.copy()
    short = min(drawn.size)
    width = max(2 if short >= 48 else 1, round(short * 0.009))
    halo = max(1, round(width * 0.4)) if short >= 64 else 0
    inner = _find_rectangle(box_unit, drawn.size)
    pen = ImageDraw.Draw(drawn)
    if halo:  # white on both sides of the line: visible on any background, one of its own colour included
        pen.rectangle(_grow(inner, width + halo, drawn.size), outline=WHITE, width=width + 2 * halo)
    pen.rectangle(_grow(inner, width, drawn.size), outline=colour, width=width)
    if label:
        _draw_label(drawn, inner, label, colour, width + halo)
    return drawn


def draw_targets(
    images: Sequence[Image.Image], targets: Iterable[tuple[int | None, Box]], colour: Colour = ANSWER
) -> list[Image.Image]:
    """Return the images with each box of `targets` drawn on its own, from 0; a box without one stays undrawn."""
    drawn = list(images)
    for on, box in targets:
        if on is not None:
            drawn[on] = draw_box(drawn[on], box, colour=colour)
    return drawn


def count_targets(targets: Sequence[tuple[int | None, Box]]) -> str:
    """Say how many boxes an answer that is a set holds, and on how many images.

    >>> whole = (0.0, 0.0, 1.0, 1.0)
    >>> count_targets([(0, whole), (1, whole), (1, whole)]), count_targets([(0, whole)]), count_targets([])
    ('3 boxes on 2 images', '1 box', 'nothing of the kind')
    """
    if not targets:
        return "nothing of the kind"
    n_images = len({on for on, _ in targets})
    return f"{len(targets)} box{'es' * (len(targets) > 1)}" + (
        f" on {n_images} images" if n_images > 1 else ""
    )


def draw_side_by_side(
    images: Sequence[Image.Image],
    boxes: Sequence[Sequence[Box | tuple[Box, str]]] | None = None,
    captions: Sequence[str] | None = None,
    title: str | None = None,
    footer: Sequence[str] = (),
    highlight: int | Collection[int] | None = None,
    cell_px: int = 448,
    per_row: int | None = None,
) -> Image.Image:
    """Draw images next to one another on white: `boxes[i]` drawn on image i (a box, or one with its label),
    `captions[i]` below.

    `title` stands on top and `footer` below everything, both wrapped. Images of a row have one height,
    `cell_px`, unless they are longer than 2:1; `per_row` of them stand in a row (None: by their number).
    The captions at `highlight` take the colour of the boxes.
    """
    if not images:
        raise ValueError("draw_side_by_side needs at least one image")
    per_row = per_row or {4: 2, 5: 3, 6: 3}.get(len(images), min(len(images), 4))
    gutter, caption_size = max(8, cell_px // 18), max(12, round(cell_px * 0.05))
    thumbs, labels = [], []
    for i, image in enumerate(images):
        thumb = fit(image, cell_px, max_width_px=2 * cell_px)
        for one in boxes[i] if boxes else ():
            thumb = draw_box(thumb, *one) if len(one) == 2 else draw_box(thumb, one)
        thumbs.append(_add_edge(thumb))
        if captions:
            colour = ANSWER if _is_among(i, highlight) else FAINT
            labels.append(draw_text([captions[i]], max(thumb.width, cell_px // 2), caption_size, colour))
    rows = [
        _draw_row(thumbs[i : i + per_row], labels[i : i + per_row], gutter, gutter // 3)
        for i in range(0, len(thumbs), per_row)
    ]
    body = stack(rows, gap=gutter)
    if title:
        size = max(14, round(cell_px * 0.06))
        body = stack([draw_text([title], max(body.width, cell_px), size, INK), body], gap=gutter)
    if footer:
        body = stack([body, draw_text(footer, max(body.width, cell_px), caption_size, INK)], gap=gutter)
    return padded(body, gutter)


def draw_contact_sheet(
    cells: Iterable[SheetCell],
    title: str | None = None,
    columns: int = 3,
    thumb_px: int = THUMB_PX,
    mark: str = "target",
    of: int | None = None,
) -> tuple[Image.Image, int]:
    """Draw a sheet for checking data by eye, as many rows as fit; return it and how many of the cells it shows.

    Each cell is `(images, box_unit, target_index, lines)`: the images of a sample, three in a row, with the
    box drawn on the target (none where `box_unit` or `target_index` is None), which is called `mark`, and the
    `lines` wrapped below, of which the first stands out. Several targets are drawn already (:func:`draw_targets`), and
    `target_index` then names their images. The title says how many are shown, if fewer than `of`
    (default: than there are cells).
    """
    gutter, title_size = max(10, thumb_px // 12), max(16, thumb_px // 9)
    gap = max(4, gutter // 3)
    # Thumbnails first: full-size images of a stream of samples need not stay in memory.
    small = [
        ([fit(image, thumb_px) for image in images], box_unit, target_index, list(lines))
        for images, box_unit, target_index, lines in cells
    ]
    if not small:
        raise ValueError("draw_contact_sheet needs at least one cell")
    columns = min(columns, len(small))
    most = max(len(images) for images, *_ in small)
    width = min(max(most, 2), _SHEET_ROW) * (thumb_px + 2 + gap)
    tiles = [_draw_cell(cell, width, gap, thumb_px, mark) for cell in small]
    rows: list[Image.Image] = []
    shown, left = 0, SHEET_PX - 2 * gutter - 4 * title_size
    for i in range(0, len(tiles), columns):
        row = beside(tiles[i : i + columns], gutter)
        left -= row.height + 2 * gutter + 1
        if rows and left < 0:
            break
        if rows:
            rows.append(Image.new("RGB", ((width + gutter) * columns - gutter, 1), HAIRLINE))
        rows.append(row)
        shown += len(tiles[i : i + columns])
    if title:
        title = title if shown == (of or len(tiles)) else f"{title} · the first {shown} shown"
        rows.insert(0, draw_text([title], rows[0].width, title_size, INK))
    return padded(stack(rows, gap=gutter), gutter), shown


def save_picture(image: Image.Image, path: str | os.PathLike[str], **options: object) -> Path:
    """Write `image` to `path` (format by suffix), whole or not at all; a failure leaves what stood there.

    Errors: `OSError` from the disk, `ValueError` for a suffix Pillow cannot write.
    """
    path = Path(path)
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise ValueError(f"no image format is written under the suffix {path.suffix!r}: {path}")
    with replacing(path) as partial, partial.open("xb") as file:
        image.save(file, format=kind, **options)
    return path


def fit(image: Image.Image, cell_px: int, max_width_px: int | None = None) -> Image.Image:
    """Return `image` (RGB) scaled to be `cell_px` high and at most `max_width_px` (else `cell_px`) wide.

    Never enlarged more than 8 times.
    """
    scale = min((max_width_px or cell_px) / image.width, cell_px / image.height, 8.0)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    rgb = image.convert("RGB") if image.mode != "RGB" else image
    return rgb if size == rgb.size else rgb.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def drop_marks(text: str) -> str:
    """Return a text without the marks in it that are for a model, not for people.

    >>> drop_marks("Find <|object_ref_start|>the dog<|object_ref_end|>.")
    'Find the dog.'
    """
    return _MARK.sub("", text)


def draw_text(lines: Sequence[str], width_px: int, size: int, colour: Colour = INK) -> Image.Image:
    """Draw `lines` without marks for models, wrapped to `width_px`, anti-aliased on white."""
    font, wrapped = _wrap(lines, width_px, size)
    step = math.ceil(size * 1.32)
    block = Image.new("RGB", (max(1, width_px), max(1, step * len(wrapped))), WHITE)
    pen = ImageDraw.Draw(block)
    for i, line in enumerate(wrapped):
        pen.text((0, i * step + size), line, fill=colour, font=font, anchor="ls")
    return block


def stack(parts: Sequence[Image.Image], gap: int) -> Image.Image:
    """Put images under one another on white."""
    width = max(part.width for part in parts)
    out = Image.new("RGB", (width, sum(p.height for p in parts) + gap * (len(parts) - 1)), WHITE)
    y = 0
    for part in parts:
        out.paste(part, (0, y))
        y += part.height + gap
    return out


def beside(parts: Sequence[Image.Image], gap: int) -> Image.Image:
    """Put images next to one another on white, tops aligned."""
    height = max(part.height for part in parts)
    out = Image.new("RGB", (sum(p.width for p in parts) + gap * (len(parts) - 1), height), WHITE)
    x = 0
    for part in parts:
        out.paste(part, (x, 0))
        x += part.width + gap
    return out


def padded(image: Image.Image, margin: int) -> Image.Image:
    """Return `image` with a white margin."""
    out = Image.new("RGB", (image.width + 2 * margin, image.height + 2 * margin), WHITE)
    out.paste(image, (margin, margin))
    return out


def _add_edge(image: Image.Image) -> Image.Image:
    """Return `image` inside a hairline, so that a white picture does not melt into the white page."""
    out = Image.new("RGB", (image.width + 2, image.height + 2), HAIRLINE)
    out.paste(image, (1, 1))
    return out


def _draw_row(
    thumbs: Sequence[Image.Image], labels: Sequence[Image.Image], gutter: int, gap: int
) -> Image.Image:
    """Draw thumbs centred on one line, their captions on another; `labels` may be empty."""
    height = max(thumb.height for thumb in thumbs)
    tiles = []
    for i, thumb in enumerate(thumbs):
        width = max(thumb.width, labels[i].width if labels else 0)
        tile = Image.new("RGB", (width, height + (gap + labels[i].height if labels else 0)), WHITE)
        tile.paste(thumb, (0, (height - thumb.height) // 2))
        if labels:
            tile.paste(labels[i], (0, height + gap))
        tiles.append(tile)
    return beside(tiles, gutter)


def _draw_cell(cell: SheetCell, width: int, gap: int, thumb_px: int, mark: str) -> Image.Image:
    images, box_unit, target_index, lines = cell
    thumbs, labels = [], []
    for i, image in enumerate(images):
        thumb = fit(image, thumb_px)
        target = _is_among(i, target_index)
        thumbs.append(_add_edge(draw_box(thumb, box_unit) if target and box_unit is not None else thumb))
        name = f"image {i + 1}" + (f" · {mark}" if target else "")
        labels.append(draw_text([name], thumb_px, max(11, thumb_px // 15), ANSWER if target else FAINT))
    size = max(12, thumb_px // 13)
    parts = [
        _draw_row(thumbs[at : at + _SHEET_ROW], labels[at : at + _SHEET_ROW], gap, gap)
        for at in range(0, len(thumbs), _SHEET_ROW)
    ]
    if lines:
        parts.append(draw_text(lines[:1], width, size, OTHERS))
    if len(lines) > 1:
        parts.append(draw_text(lines[1:], width, size, INK))
    content = stack(parts, gap=gap) if parts else Image.new("RGB", (1, 1), WHITE)
    out = Image.new("RGB", (width, content.height), WHITE)
    out.paste(content, (0, 0))
    return out


def _is_among(image: int, named: int | Collection[int] | None) -> bool:
    return image == named if named is None or isinstance(named, int) else image in named


def _find_rectangle(box_unit: Box, size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the box as inclusive pixel corners inside the image, at least one pixel wide and high."""
    if not all(math.isfinite(v) for v in box_unit):
        raise ValueError(f"a box that can be drawn has finite corners, not {box_unit}")
    x1, y1, x2, y2 = unit_to_px(box_unit, size_wh)
    width, height = size_wh
    left = min(max(round(min(x1, x2)), 0), width - 1)
    top = min(max(round(min(y1, y2)), 0), height - 1)
    right = min(max(round(max(x1, x2)) - 1, left), width - 1)
    bottom = min(max(round(max(y1, y2)) - 1, top), height - 1)
    return left, top, right, bottom


def _grow(inner: tuple[int, int, int, int], by: int, size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    # At the image's edge the line moves inward: a box around everything must still be seen.
    left, top, right, bottom = inner
    width, height = size_wh
    return max(left - by, 0), max(top - by, 0), min(right + by, width - 1), min(bottom + by, height - 1)


def _draw_label(
    image: Image.Image, inner: tuple[int, int, int, int], label: str, colour: Colour, offset: int
) -> None:
    """Draw a filled, rounded tag: above the box if it fits, else below it, else inside its upper left corner."""
    size = min(max(11, round(min(image.size) * 0.042)), 160)
    font, [text] = fit_font([label], size)
    pad = max(2, round(size * 0.35))
    wide, high = math.ceil(font.getlength(text)) + 2 * pad, round(size * 1.2) + pad
    if wide > image.width or high > image.height:
        return  # a picture too small to be written on; the box says it all
    left, top, _, bottom = inner
    x = min(max(left - offset, 0), image.width - wide)
    above, below, inside = top - offset - high, bottom + offset + 1, min(top + offset, image.height - high)
    y = above if above >= 0 else below if below + high <= image.height else inside
    # Drawn four times too large and scaled down: Pillow's rounded corners are not anti-aliased.
    mask = Image.new("L", (wide * 4, high * 4), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, wide * 4 - 1, high * 4 - 1), radius=size, fill=255)
    image.paste(colour, (x, y), mask.resize((wide, high), Image.Resampling.BOX))
    ImageDraw.Draw(image).text((x + pad, y + high // 2), text, fill=WHITE, font=font, anchor="lm")


def _wrap(lines: Sequence[str], width_px: int, size: int) -> tuple[Font, list[str]]:
    font, texts = fit_font([line for text in lines for line in drop_marks(text).split("\n")], size)
    wrapped: list[str] = []
    for text in texts:
        current = ""
        for word in _split_pieces(text, font, width_px):
            joined = f"{current} {word}" if current else word
            if current and font.getlength(joined) > width_px:
                wrapped.append(current)
                joined = word
            current = joined
        wrapped.append(current)
    return font, wrapped


def _split_pieces(text: str, font: Font, width_px: int) -> Iterable[str]:
    """Return the words of `text`; one wider than the line is cut (a content key, a text without spaces)."""
    for word in text.split():
        while len(word) > 1 and font.getlength(word) > width_px:
            cut = max(1, int(len(word) * width_px / font.getlength(word)))
            while cut > 1 and font.getlength(word[:cut]) > width_px:
                cut -= 1
            yield word[:cut]
            word = word[cut:]
        yield word
