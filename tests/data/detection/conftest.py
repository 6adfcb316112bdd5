"""Small detection sets, made anew for each test."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from PIL import Image

from univg.data.readers import RecordFault, read
from univg.grounding.samples import GroundingSample

Everything: TypeAlias = tuple[list[GroundingSample], list[RecordFault], list[str]]


@pytest.fixture
def every() -> Callable[..., Everything]:
    """Read a file: its samples, faults and notes."""

    def read_all(path: Path, images: Path | None = None, reader: str | None = None) -> Everything:
        faults: list[RecordFault] = []
        notes: list[str] = []
        return list(read(path, reader, images, faults.append, notes.append)), faults, notes

    return read_all


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., Path]:
    """Save a grey picture under the test's folder, with an EXIF orientation if one is given."""

    def save(name: str, size: tuple[int, int] = (200, 100), orientation: int = 1) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", size, "grey").save(path, exif=exif)
        return path

    return save


@pytest.fixture
def coco(tmp_path: Path) -> Callable[..., Path]:
    """Write a COCO file: images as `(id, file_name)` or whole entries, annotations as `(image id, bbox)` or whole."""

    def write(images: Iterable[Any], annotations: Iterable[Any], **more: Any) -> Path:
        listed = [
            one if isinstance(one, dict) else {"id": one[0], "file_name": one[1], "width": 200, "height": 100}
            for one in images
        ]
        boxes = [
            one
            if isinstance(one, dict)
            else {"id": k, "image_id": one[0], "category_id": 1, "bbox": list(one[1])}
            for k, one in enumerate(annotations, start=1)
        ]
        path = tmp_path / "instances.json"
        categories = [{"id": 1, "name": "cup"}, {"id": 2, "name": "dog"}]
        path.write_text(
            json.dumps({"images": listed, "annotations": boxes, "categories": categories, **more}), "utf-8"
        )
        return path

    return write
