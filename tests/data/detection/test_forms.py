"""What four numbers mean, decided over a whole file: which form, in which scale, and which number comes first."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from univg.data.readers import RecordFault
from univg.errors import UnivgError
from univg.grounding.boxes import Box
from univg.grounding.samples import GroundingSample

Everything: TypeAlias = tuple[list[GroundingSample], list[RecordFault], list[str]]
Every = Callable[..., Everything]
Save = Callable[..., Path]

_DRAW = random.Random(0)
BOXES = [
    (
        round(x, 4),
        round(y, 4),
        round(x + _DRAW.uniform(0.1, 1 - x), 4),
        round(y + _DRAW.uniform(0.1, 1 - y), 4),
    )
    for x, y in ((_DRAW.uniform(0, 0.85), _DRAW.uniform(0, 0.85)) for _ in range(30))
]
"""Boxes all over the picture, 0-1."""

FORMS: dict[str, Callable[[float, float, float, float], Box]] = {
    "x1 y1 x2 y2": lambda x1, y1, x2, y2: (x1, y1, x2, y2),
    "x y width height": lambda x1, y1, x2, y2: (x1, y1, x2 - x1, y2 - y1),
    "centre x, centre y, width, height": lambda x1, y1, x2, y2: (
        (x1 + x2) / 2,
        (y1 + y2) / 2,
        x2 - x1,
        y2 - y1,
    ),
}
SCALES = {"in pixels": (800, 600), "0-1": (1, 1), "in percent": (100, 100)}


def scale(box: Box, full: tuple[int, int]) -> Box:
    x1, y1, x2, y2 = box
    return x1 * full[0], y1 * full[1], x2 * full[0], y2 * full[1]


def save(folder: Path, to: str, boxes: list[Box]) -> Path:
    """Write a set of one picture, whose numbers stand in the file as they are given."""
    if to == "yolo":
        (folder / "classes.txt").write_text("cup")
        lines = [" ".join(["0", *(f"{value:.6f}" for value in box)]) for box in boxes]
        (folder / "a.txt").write_text("\n".join(lines))
        return folder
    if to == "label_studio":
        names = ("x", "y", "width", "height")
        result = [
            {
                "id": str(k),
                "type": "rectanglelabels",
                "original_width": 800,
                "original_height": 600,
                "value": {**dict(zip(names, box, strict=True)), "rectanglelabels": ["cup"]},
            }
            for k, box in enumerate(boxes)
        ]
        path = folder / "tasks.json"
        path.write_text(json.dumps([{"data": {"image": "a.jpg"}, "annotations": [{"result": result}]}]))
        return path
    annotations = [{"id": k, "image_id": 1, "category_id": 1, "bbox": box} for k, box in enumerate(boxes)]
    image: dict[str, Any] = {"id": 1, "file_name": "a.jpg"}
    whole = {"images": [image], "annotations": annotations, "categories": [{"id": 1, "name": "cup"}]}
    path = folder / "instances.json"
    path.write_text(json.dumps(whole))
    return path


@pytest.mark.parametrize("to", ["coco", "yolo", "label_studio"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "scale_name",
    [
        pytest.param("in pixels", id="boxes of another form, in pixels"),
        pytest.param("0-1", id="boxes of another form, 0-1"),
        pytest.param("in percent", id="boxes of another form, in percent"),
    ],
)
def test_form_and_scale_are_decided_together(
    to: str, form: str, scale_name: str, tmp_path: Path, picture: Save, every: Every
) -> None:
    picture("a.jpg", (800, 600))
    path = save(tmp_path, to, [FORMS[form](*scale(box, SCALES[scale_name])) for box in BOXES])
    (sample,), faults, notes = every(path, tmp_path)
    assert [fault for fault in faults if fault.kind != "out_of_range"] == []
    assert len(sample.boxes) == len(BOXES)
    for box, right in zip(sample.boxes, BOXES, strict=True):
        assert box == pytest.approx(right, abs=1e-4)
    own = {"coco": (1, "in pixels"), "yolo": (2, "0-1"), "label_studio": (1, "in percent")}[to]
    if form != list(FORMS)[own[0]]:
        assert any(f"boxes are written {form}, not" in note for note in notes)
    if scale_name != own[1]:
        assert any(f"boxes are written {scale_name}, not {own[1]}" in note for note in notes)


@pytest.mark.parametrize("to", ["coco", "yolo"])
def test_y_written_first(to: str, tmp_path: Path, picture: Save, every: Every) -> None:
    """Told in the manual as: boxes that fit only with x and y exchanged."""
    picture("a.jpg", (400, 900))
    turned = [(y1, x1, y2, x2) for x1, y1, x2, y2 in (scale(box, (400, 900)) for box in BOXES)]
    path = save(tmp_path, to, turned)
    with pytest.raises(UnivgError, match="none with x and y exchanged: they are written y first"):
        every(path, tmp_path)


def test_a_few_boxes_0_1_of_another_form_are_never_a_pixel(
    tmp_path: Path, picture: Save, every: Every
) -> None:
    """Too few to tell the form: each is said to be wrong, and none is read as a box of one pixel."""
    picture("a.jpg", (800, 600))
    samples, faults, notes = every(save(tmp_path, "coco", [(0.3, 0.2, 0.9, 0.8)]), tmp_path)
    assert all(box[2] - box[0] > 0.1 for sample in samples for box in sample.boxes)
    assert faults[0].kind == "out_of_range" and any("written 0-1, not in pixels" in note for note in notes)


def test_thousandths_on_a_larger_picture_are_asked_about(tmp_path: Path, picture: Save, every: Every) -> None:
    """Told in the manual as: boxes that may be 0-1000 on larger pictures."""
    picture("a.jpg", (1920, 1080))
    thousandths = [FORMS["x y width height"](*scale(box, (1000, 1000))) for box in BOXES]
    _, _, notes = every(save(tmp_path, "coco", thousandths), tmp_path)
    assert any("0-1000? Read as pixels" in note for note in notes)
    pixels = [FORMS["x y width height"](*scale(box, (1920, 1080))) for box in BOXES]
    assert every(save(tmp_path, "coco", pixels), tmp_path)[2] == []
