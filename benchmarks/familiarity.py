"""Measure by which share of pixels drawings are told from photographs.

    python benchmarks/familiarity.py FOLDER_OF_PHOTOGRAPHS …

Printed for each split of the world (`drawn`: by other programs; without cairosvg by two) and each folder: the share of
pixels that a picture's 16 most frequent colours cover, least to most, and how many would be noted as strange.
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
from univg.world import SIZES, TRAINED_SIZES, stream
from univg.world.scene import Split


def draw(split: Split, n: int) -> Iterator[Image.Image]:
    """Yield a split's pictures, small and large, easy and hard."""
    for size, difficulty in ((TRAINED_SIZES, 1.0), (SIZES, 0.3)):
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
    parser.add_argument("--n", type=int, default=65, help="samples of each split and size")
    arguments = parser.parse_args()
    print(
        f"{'pictures':34} {'n':>6} {'least':>6} {'1 %':>6} {'median':>6} {'99 %':>6} {'most':>6} {'noted':>6}"
    )
    for split in get_args(Split):
        show(split, draw(split, arguments.n))
    show("drawn, saved as JPEG, quality 90", map(save, draw("drawn", arguments.n // 4)))
    show("drawn, enlarged twice (bicubic)", map(enlarge, draw("drawn", arguments.n // 4)))
    for folder in arguments.folders:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        show(folder.name, (open_picture(path).image for path in files))
        show(f"{folder.name}, in grey", (open_picture(path).image.convert("L") for path in files))


if __name__ == "__main__":
    main()
