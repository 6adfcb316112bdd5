"""Measure by which share of pixels the embedded model's drawings are told from photographs.

    python benchmarks/familiarity.py FOLDER_OF_PHOTOGRAPHS …

Printed for the world's pictures (as they are, saved as JPEG, enlarged) and for each folder: the share of pixels that a
picture's 32 most frequent colours cover, least to most, and how many would be noted as strange.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import get_args

from PIL import Image

from univg.models.familiarity import DRAWN_SHARE, drawn_share
from univg.pictures.images import open_picture
from univg.world import stream
from univg.world.scene import Split


def draw(n: int) -> Iterator[Image.Image]:
    """Yield pictures of every split, small and large, easy and hard."""
    for split in get_args(Split):
        for size, difficulty in ((120, 1.0), (448, 0.3)):
            for made in islice(stream(split, 11, difficulty=difficulty, size=size), n):
                yield from made.images


def save(image: Image.Image, quality: int = 90) -> Image.Image:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def enlarge(image: Image.Image) -> Image.Image:
    return image.resize((2 * image.width, 2 * image.height), Image.Resampling.BICUBIC)


def show(name: str, images: Iterable[Image.Image]) -> None:
    shares = sorted(map(drawn_share, images))
    places = (0, len(shares) // 100, len(shares) // 2, len(shares) * 99 // 100, len(shares) - 1)
    noted = sum(share < DRAWN_SHARE for share in shares)
    print(
        f"{name:34} {len(shares):6}", *(f"{shares[place]:6.2f}" for place in places), f"{noted:6}", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--n", type=int, default=200, help="samples of the world for each split and size")
    arguments = parser.parse_args()
    print(
        f"{'pictures':34} {'n':>6} {'least':>6} {'1 %':>6} {'median':>6} {'99 %':>6} {'most':>6} {'noted':>6}"
    )
    show("world", draw(arguments.n))
    show("world saved as JPEG, quality 90", map(save, draw(arguments.n // 7)))
    show("world enlarged twice (bicubic)", map(enlarge, draw(arguments.n // 7)))
    for folder in arguments.folders:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        show(folder.name, (open_picture(path).image for path in files))


if __name__ == "__main__":
    main()
