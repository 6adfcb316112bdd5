"""Write detection sets: a YOLO folder, or COCO's instances JSON.

Both hold pictures with boxes of categories, so samples are gathered by picture: whatever several samples box on one
picture stands in one place, once. Pictures on which a sample boxes nothing are left out, and counted in a note: a
picture without labels teaches that nothing of any category is there, which a question about another picture
does not say. A sample whose boxes are all that it asks for does say it of its category: its pictures without boxes are
written, and counted too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from univg.data.exports.pictures import Pictures, Shot, place
from univg.data.exports.settings import Export, check_folder
from univg.data.exports.targets import clip_targets, find_category, place_boxes
from univg.data.formats.faults import Unusable
from univg.errors import UnivgError
from univg.files import replacing, write_whole
from univg.grounding.boxes import Box, SizeWH, unit_to_px
from univg.grounding.samples import GroundingSample

__all__ = ["write_coco", "write_yolo"]

_DIGITS = 8
"""Of YOLO's shares: a ten-thousandth of a pixel of a large photograph."""


@dataclass
class _Page:
    """A picture, its name in samples, and what is boxed on it: the samples that do, by category and box."""

    shot: Shot
    name: str
    boxes: dict[tuple[str, Box], list[GroundingSample]] = field(default_factory=dict)


@dataclass
class _Gathered:
    pages: dict[Path, _Page] = field(default_factory=dict)
    written: int = 0
    without_category: int = 0
    repeated: int = 0
    others: set[Path] = field(default_factory=set)
    empty: set[Path] = field(default_factory=set)

    @property
    def categories(self) -> list[str]:
        return sorted({category for page in self.pages.values() for category, _ in page.boxes})

    def note(self, how: Export) -> None:
        if self.without_category:
            samples = (
                "1 sample names" if self.without_category == 1 else f"{self.without_category} samples name"
            )
            what = f"{samples} no category, so their question is the class"
            how.note(f"{what}: --category NAME makes them one, extra.category names each")
        if len(self.categories) > 1:
            how.note(f"{len(self.categories)} classes are numbered anew, in the order of their names")
        if self.repeated:
            boxes = "1 box stands" if self.repeated == 1 else f"{self.repeated} boxes stand"
            how.note(f"{boxes} in several samples, written once")
        if empty := sum(not self.pages[file].boxes for file in self.empty):
            pictures = "1 picture is" if empty == 1 else f"{empty} pictures are"
            how.note(f"{pictures} written without boxes: a question says that nothing it asks for is there")
        if left_out := len(self.others - self.pages.keys()):
            pictures = "1 picture" if left_out == 1 else f"{left_out} pictures"
            how.note(f"left out: {pictures} on which no sample boxes anything")


def _gather(samples: Iterable[GroundingSample], how: Export, turned_too: bool = True) -> _Gathered:
    pictures, gathered = Pictures(how), _Gathered()
    for sample in samples:
        with how.reporting(sample):
            category = find_category(sample, how)
            boxed = list(dict.fromkeys(image for image, _ in place_boxes(sample)))
            pages = list(range(len(sample.images))) if sample.complete else boxed
            shots = {image: _find_shot(pictures, sample.images[image], turned_too) for image in pages}
            targets = clip_targets(sample, how)
            if not targets and sample.boxes:
                continue
            if sample.complete:
                gathered.empty.update(shots[image].file for image in pages)
            held = {image for image, _ in targets}
            for image, shot in shots.items():
                if image in held or sample.complete:
                    gathered.pages.setdefault(shot.file, _Page(shot, sample.images[image]))
            for image, box in targets:
                page = gathered.pages[shots[image].file]
                there = page.boxes.setdefault((category or " ".join(sample.query.split()), box), [])
                gathered.repeated += bool(there)
                there.append(sample)
            gathered.written += 1
            gathered.without_category += category is None
            gathered.others.update(shot.file for shot in _find_others(sample, pictures))
    return gathered


def _find_shot(pictures: Pictures, name: str, turned_too: bool) -> Shot:
    shot = pictures.find(name)
    if shot.turned and not turned_too:
        cause = f"{name} is stored on its side (EXIF), and what reads it as it is lays boxes elsewhere"
        raise Unusable("turned_image", cause)
    return shot


def _find_others(sample: GroundingSample, pictures: Pictures) -> Iterator[Shot]:
    for name in sample.images:
        with suppress(Unusable):  # nothing is boxed on it, so nobody will miss it here
            yield pictures.find(name)


# --- YOLO ---


def write_yolo(path: Path, samples: Iterator[GroundingSample], how: Export) -> int:
    """Write `data.yaml`, `images/SPLIT` and `labels/SPLIT`; return how many samples.

    A folder that was written before takes a further split; the classes that are there keep their numbers.
    `UnivgError` if anything else is in the folder.
    """
    data = _read_data(path, how.split)
    gathered = _gather(samples, how)
    if not gathered.pages:
        return 0
    names: dict[int, str] = dict(enumerate(data.get("names", {}).values()))
    for category in gathered.categories:
        if category not in names.values():
            names[len(names)] = category
    numbers = {name: number for number, name in names.items()}
    with ExitStack() as stack:
        images, labels = (
            stack.enter_context(replacing(path / kind / how.split)) for kind in ("images", "labels")
        )
        placed = place((page.shot for page in gathered.pages.values()), images, how)
        labels.mkdir()
        for file, page in gathered.pages.items():
            lines = [_make_line(numbers[category], box) for category, box in page.boxes]
            (labels / Path(placed[file]).with_suffix(".txt").name).write_text("".join(lines))
    splits: dict[str, Any] = {**data, how.split: f"images/{how.split}"}
    if "train" in splits and splits.get("val") in (None, splits["train"]):
        splits["val"] = splits["train"]
        how.note(
            "val in data.yaml is train, for want of another: add one with --split val and the same --out"
        )
    text = yaml.safe_dump({**splits, "names": names}, allow_unicode=True, sort_keys=False, width=10**6)
    write_whole(path / "data.yaml", text)
    gathered.note(how)
    return gathered.written


def _read_data(path: Path, split: str) -> dict[str, Any]:
    """Return what is in the `data.yaml` of a folder that takes another split; nothing of an empty folder."""
    file = path / "data.yaml"
    if not file.is_file() or (path / "images" / split).exists() or (path / "labels" / split).exists():
        check_folder(path)
        return {}
    try:
        data: dict[str, Any] = yaml.safe_load(file.read_text("utf-8"))
        names = data["names"]
        data["names"] = dict(enumerate(names)) if isinstance(names, list) else dict(sorted(names.items()))
        data.pop("nc", None)
        known = data.keys() <= {"train", "val", "test", "names"}
        numbered = list(data["names"]) == list(range(len(names)))
        if not (known and numbered and all(map(str.strip, data["names"].values()))):
            raise ValueError
    except (yaml.YAMLError, OSError, ValueError, TypeError, KeyError, AttributeError):
        cause = "not as it is written here (train, val, test, names from 0), so no split can be added"
        raise UnivgError(cause, file, "name another folder with --out") from None
    return data


def _make_line(number: int, box: Box) -> str:
    """Return a label line: the class, the box's middle, its width and height.

    >>> _make_line(3, (0.25, 0.5, 0.75, 1.0))
    '3 0.50000000 0.75000000 0.50000000 0.50000000\\n'
    """
    x1, y1, x2, y2 = box
    values = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
    return " ".join([str(number), *(f"{value:.{_DIGITS}f}" for value in values)]) + "\n"


# --- COCO ---


def write_coco(path: Path, samples: Iterator[GroundingSample], how: Export) -> int:
    """Write the instances JSON, or a folder of `annotations` and `images/SPLIT`; return how many samples.

    Boxes refer to upright pictures. In a folder they are written so; a JSON file alone cannot hold photographs
    that are stored on their side.
    """
    if path.suffix == ".json":
        gathered = _gather(samples, how, turned_too=False)
        names = {file: page.name for file, page in gathered.pages.items()}
        write_whole(path, _make_coco(gathered, names))
    else:
        check_folder(path)
        gathered = _gather(samples, how)
        if not gathered.pages:
            return 0
        with replacing(path) as folder:
            shots = (page.shot for page in gathered.pages.values())
            names = place(shots, folder / "images" / how.split, how)
            (folder / "annotations").mkdir()
            instances = folder / "annotations" / f"instances_{how.split}.json"
            instances.write_text(_make_coco(gathered, names), "utf-8")
    gathered.note(how)
    return gathered.written


def _make_coco(gathered: _Gathered, names: Mapping[Path, str]) -> str:
    numbers = {name: number for number, name in enumerate(gathered.categories, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (file, page) in enumerate(gathered.pages.items(), start=1):
        width, height = page.shot.size_wh
        images.append({"id": number, "file_name": names[file], "width": width, "height": height})
        for (category, box), samples in page.boxes.items():
            place = {"id": len(annotations) + 1, "image_id": number, "category_id": numbers[category]}
            annotations.append({**place, **_make_annotation(box, page.shot.size_wh, samples)})
    categories = [{"id": number, "name": name, "supercategory": ""} for name, number in numbers.items()]
    whole = {"images": images, "annotations": annotations, "categories": categories}
    return json.dumps(whole, ensure_ascii=False) + "\n"


def _make_annotation(box: Box, size_wh: SizeWH, samples: list[GroundingSample]) -> dict[str, Any]:
    """Return an instance; the questions that ask for it stand in `caption` and `attributes`."""
    x1, y1, x2, y2 = unit_to_px(box, size_wh)
    width, height = x2 - x1, y2 - y1
    questions = list(dict.fromkeys(sample.query for sample in samples))
    sources = list(dict.fromkeys(sample.source for sample in samples))
    return {
        "bbox": [round(value, 4) for value in (x1, y1, width, height)],
        "area": round(width * height, 4),
        "iscrowd": 0,
        "segmentation": [],
        "caption": questions[0],
        "attributes": {"questions": questions, "sources": sources, "task": samples[0].task},
    }
