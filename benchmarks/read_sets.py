"""Measure what reading whole sets into samples takes: a COCO file, a table, a YOLO folder, conversations.

    python benchmarks/read_sets.py --images 20000

Makes each set in a temporary folder (pictures of one pixel colour, 64x48), reads it in a process of its own, and prints
samples, seconds and peak memory. Formats that this version does not read are passed over, so that two versions can be
measured side by side: set PYTHONPATH to the other's `src`.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

BOXES = 5
WIDTH, HEIGHT = 640, 480


def draw_boxes(dice: random.Random) -> list[tuple[int, int, int, int]]:
    """Draw x y width height of an image's objects."""

    def draw() -> tuple[int, int, int, int]:
        return dice.randrange(400), dice.randrange(300), 60 + dice.randrange(170), 60 + dice.randrange(110)

    return [draw() for _ in range(BOXES)]


def make_coco(root: Path, images: int, dice: random.Random) -> Path:
    """Write instances.json: images and boxes apart."""
    listed: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for k in range(images):
        listed.append({"id": k, "file_name": f"{k:08d}.jpg", "width": WIDTH, "height": HEIGHT})
        for box in draw_boxes(dice):
            objects.append(
                {
                    "id": len(objects),
                    "image_id": k,
                    "category_id": dice.randrange(80),
                    "bbox": box,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": k, "name": f"thing {k}"} for k in range(80)]
    path = root / "instances.json"
    path.write_text(json.dumps({"images": listed, "annotations": objects, "categories": categories}))
    return path


def make_csv(root: Path, images: int, dice: random.Random) -> Path:
    """Write a table in TensorFlow's manner: one row an object."""
    lines = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for k in range(images):
        for x, y, w, h in draw_boxes(dice):
            lines.append(f"{k:08d}.jpg,{WIDTH},{HEIGHT},thing {dice.randrange(80)},{x},{y},{x + w},{y + h}")
    path = root / "labels.csv"
    path.write_text("\n".join(lines))
    return path


def make_yolo(root: Path, images: int, dice: random.Random) -> Path:
    """Write a YOLO folder: a label file and a picture for each image."""
    for name in ("images", "labels"):
        (root / name).mkdir()
    (root / "data.yaml").write_text(
        json.dumps({"train": "images", "names": [f"thing {k}" for k in range(80)]})
    )
    Image.new("RGB", (64, 48)).save(root / "one.png")
    picture = (root / "one.png").read_bytes()
    for k in range(images):
        (root / f"images/{k:08d}.png").write_bytes(picture)
        lines = [
            f"{dice.randrange(80)} {(x + w / 2) / WIDTH:.6f} {(y + h / 2) / HEIGHT:.6f} "
            f"{w / WIDTH:.6f} {h / HEIGHT:.6f}"
            for x, y, w, h in draw_boxes(dice)
        ]
        (root / f"labels/{k:08d}.txt").write_text("\n".join(lines))
    return root


def make_chat(root: Path, images: int, dice: random.Random) -> Path:
    """Write conversations with a thought and a box, as UniVG-R1's first stage has them."""
    rows = []
    for k in range(images * BOXES):
        x, y, w, h = draw_boxes(dice)[0]
        said = f"<think>The first image shows it, the second too.</think><answer>({x},{y}),({x + w},{y + h})</answer>"
        turns = [{"from": "human", "value": "<image><image>Where is it?"}, {"from": "gpt", "value": said}]
        rows.append({"images": [f"{k}a.jpg", f"{k}b.jpg"], "conversations": turns})
    path = root / "stage1.json"
    path.write_text(json.dumps(rows))
    return path


SETS: dict[str, Callable[[Path, int, random.Random], Path]] = {
    "coco": make_coco,
    "csv": make_csv,
    "yolo": make_yolo,
    "cotsft": make_chat,
}


def measure(name: str, path: Path) -> None:
    """Read a set and print samples, seconds and peak memory."""
    from univg.data.readers import READERS, read

    if name not in READERS:
        print(f"{name:8}  not read by this version")
        return
    images = path if path.is_dir() else None
    start = time.perf_counter()
    count = sum(1 for _ in read(path, name, images, on_fault=lambda fault: None))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name:8}  {count:>8} samples  {seconds:6.1f} s  {peak:6.0f} MB")


def main() -> None:
    """Make and read each set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--only", nargs=2, metavar=("FORMAT", "PATH"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.only:
        measure(chosen.only[0], Path(chosen.only[1]))
        return
    print(f"{chosen.images} images, {BOXES} boxes each")
    for name, make in SETS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = make(Path(folder), chosen.images, random.Random(0))
            subprocess.run([sys.executable, __file__, "--only", name, str(path)], check=True)


if __name__ == "__main__":
    main()
