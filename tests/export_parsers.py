"""What the tests of written formats share: pictures that say where their box lies, and parsers of each format.

The parsers follow each format's own documentation, and share no code with the package's readers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
import yaml
from PIL import Image, ImageDraw

from univg.data.exports import SUFFIXES, Export, export
from univg.data.readers import ImageRoot, RecordFault
from univg.grounding.boxes import Box
from univg.grounding.samples import GroundingSample

BOX = (0.6, 0.1, 0.9, 0.35)
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a picture is stored that each EXIF orientation turns upright."""

Found = set[tuple[str, str, tuple[float, ...]]]
"""(picture, label, box in thousandths of the picture)."""


def draw(path: Path, size: tuple[int, int] = (320, 200), box: Box = BOX, orientation: int = 1) -> str:
    """A grey picture with a red box; return its name."""
    image = Image.new("RGB", size, "grey")
    edges = [value * size[i % 2] for i, value in enumerate(box)]
    ImageDraw.Draw(image).rectangle(edges, fill="red")
    exif = Image.Exif()
    if orientation != 1:
        image, exif[0x0112] = image.transpose(TURNS[orientation]), orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, exif=exif) if path.suffix.lower() in (".jpg", ".jpeg") else image.save(path)
    return path.name


def is_red_inside(path: Path, box_px: Iterable[float]) -> bool:
    """Whether the box lies on the red one, for whoever opens the picture as it is stored."""
    with Image.open(path) as image:
        assert image.getexif().get(0x0112, 1) == 1, "still to be turned"
        x1, y1, x2, y2 = (round(value) for value in box_px)
        inside = image.convert("RGB").crop((x1 + 4, y1 + 4, x2 - 4, y2 - 4))
        return all(low > 200 for low, _ in inside.getextrema()[:1]) and inside.getextrema()[2][1] < 60


def one(images: Iterable[str] | str = "a.jpg", query: str = "Where is it?", **fields: Any) -> GroundingSample:
    names = (images,) if isinstance(images, str) else tuple(images)
    given: dict[str, Any] = {"boxes": (BOX,), "source": "set#1", "extra": {"category": "cup"}}
    return GroundingSample(names, query, **{"task": "referring", "target_image": 0, **given, **fields})


def write(
    folder: Path, to: str, samples: Iterable[GroundingSample], out: str = "out", **how: Any
) -> tuple[Path, int, list[RecordFault], list[str]]:
    """(what was written, count, faults, notes) of samples whose pictures lie in `folder`."""
    path = folder.parent / f"{folder.name}-{out}" / f"set{SUFFIXES[to]}"
    faults: list[RecordFault] = []
    notes: list[str] = []
    given = Export(
        images=ImageRoot(folder), on_fault=faults.append, on_note=notes.append, **{"style": "direct", **how}
    )
    return path, export(samples, to, path, given), faults, notes


# --- the parsers ---


def permille(x1: float, y1: float, x2: float, y2: float) -> tuple[float, ...]:
    return tuple(round(1000 * value, 2) for value in (x1, y1, x2, y2))


def parse_yolo(path: Path) -> Found:
    data = yaml.safe_load((path / "data.yaml").read_text("utf-8"))
    found = set()
    for file in (path / data["train"]).iterdir():
        labels = Path(str(file).replace("/images/", "/labels/")).with_suffix(".txt")
        for line in labels.read_text().splitlines():
            number, cx, cy, w, h = map(float, line.split())
            box = permille(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
            found.add((file.name, data["names"][int(number)], box))
    return found


def parse_coco(path: Path) -> Found:
    coco = json.loads(path.read_text("utf-8"))
    images = {image["id"]: image for image in coco["images"]}
    names = {category["id"]: category["name"] for category in coco["categories"]}
    found = set()
    for annotation in coco["annotations"]:
        image, (x, y, w, h) = images[annotation["image_id"]], annotation["bbox"]
        assert annotation["area"] == pytest.approx(w * h, rel=1e-3, abs=1e-3) and annotation["iscrowd"] == 0
        box = x / image["width"], y / image["height"], (x + w) / image["width"], (y + h) / image["height"]
        found.add((image["file_name"], names[annotation["category_id"]], permille(*box)))
    ids = [row["id"] for kind in ("annotations",) for row in coco[kind]]
    assert ids == list(range(1, len(ids) + 1))
    return found


def parse_label_studio(path: Path) -> Found:
    config = ElementTree.fromstring((path.parent / "label-config.xml").read_text("utf-8"))
    labels = {label.get("value") for label in config.iter("Label")}
    several = config.find("Image").get("valueList") == "$images"  # type: ignore[union-attr]
    found = set()
    for task in json.loads(path.read_text("utf-8")):
        shown = task["data"]["images"] if several else [task["data"]["image"]]
        for result in (result for one in task["predictions"] for result in one["result"]):
            x, y, w, h = (result["value"][name] / 100 for name in ("x", "y", "width", "height"))
            (label,) = result["value"]["rectanglelabels"]
            assert label in labels and result["type"] == "rectanglelabels"
            address = unquote(shown[result["item_index"] if several else 0])
            found.add((address.rpartition("/")[2], label, permille(x, y, x + w, y + h)))
    return found


def parse_ms_swift(path: Path) -> Found:
    found = set()
    for row in map(json.loads, path.read_text("utf-8").splitlines()):
        user, assistant = (turn["content"] for turn in row["messages"])
        objects = row["objects"]
        assert user.count("<image>") == len(row["images"])
        assert assistant.count("<bbox>") == len(objects["bbox"]) and objects["bbox_type"] == "real"
        assert (user + assistant).count("<ref-object>") == len(objects["ref"])
        for box, image in zip(objects["bbox"], objects["image_id"], strict=True):
            name = row["images"][image]
            with Image.open(path.parent.parent / "pictures" / name) as picture:
                size = picture.size * 2
            unit = (value / side for value, side in zip(box, size, strict=True))
            label = objects["ref"][0] if objects["ref"] else "?"
            found.add((Path(name).name, label, permille(*unit)))
    return found


def parse_fiftyone(path: Path) -> Found:
    found = set()
    for row in json.loads((path / "samples.json").read_text("utf-8")):
        for box in row["boxes"]:
            x, y, w, h = box["bounding_box"]
            name = row["images"][box["image"]]
            assert (path / name).is_file()
            found.add((Path(name).name, box["label"], permille(x, y, x + w, y + h)))
    return found


PARSERS: dict[str, Callable[[Path], Found]] = {
    "yolo": parse_yolo,
    "coco": parse_coco,
    "label_studio": parse_label_studio,
    "ms_swift": parse_ms_swift,
    "fiftyone": parse_fiftyone,
}
DETECTION = ["yolo", "coco"]
FOLDERS = ["yolo", "fiftyone"]


def draw_three(folder: Path) -> Path:
    for name, size in (("a.jpg", (320, 200)), ("b.png", (100, 160)), ("c & d #1.jpeg", (64, 48))):
        draw(folder / name, size)
    return folder
