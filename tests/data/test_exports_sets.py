"""Sets written in every format that can hold them, empty ones too, and read back equal."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from univg.data.exports import EXPORTS, PICTURED, SUFFIXES, Export, export
from univg.data.readers import ImageRoot, RecordFault, read
from univg.grounding.reading import Asked
from univg.grounding.reading import read as read_answer
from univg.grounding.samples import GroundingSample

LEFT, RIGHT, TOP = (0.0, 0.0, 0.4123, 1.0), (0.6, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 0.2)
TAUGHT = [name for name in EXPORTS if name not in PICTURED] + ["ms_swift"]


def make(boxes: Any, **more: Any) -> GroundingSample:
    fields: dict[str, Any] = {
        "images": ("a.png", "b.png"),
        "query": "Locate every cup in the images.",
        "task": "find_all",
        "thought": "I look at each.",
        "source": "set#1",
        "extra": {"category": "cup"},
    }
    return GroundingSample(**{**fields, **more, "boxes": boxes, "complete": True})


SETS = [
    make([RIGHT, LEFT, TOP], box_images=[1, 0, 1]),
    make([LEFT, TOP], target_image=1, source="set#2"),
    make([], source="set#3", thought="No cup."),
    make([LEFT], target_image=0, images=("a.png",), thinking=False, thought=None, source="set#4"),
    make([], images=("b.png",), thinking=False, thought=None, source="set#5"),
    make([LEFT, LEFT], target_image=0, source="set#6"),
]


@pytest.fixture
def root(tmp_path: Path) -> ImageRoot:
    for name in "ab":
        Image.new("RGB", (200, 100), "white" if name == "a" else "red").save(tmp_path / f"{name}.png")
    return ImageRoot(tmp_path)


def write(path: Path, to: str, samples: list[GroundingSample], root: ImageRoot, **how: Any) -> list[str]:
    if SUFFIXES[to] == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow comes with the train extra")
    faults: list[RecordFault] = []
    notes: list[str] = []
    how = {"images": root, "on_fault": faults.append, "on_note": notes.append, **how}
    assert export(samples, to, path, Export(**how)) == len(samples) - len(faults)
    return [*map(str, faults), *notes]


@pytest.mark.parametrize("to", TAUGHT)
@pytest.mark.parametrize("style", ["think", "direct"])
def test_round_trip(to: str, style: Any, root: ImageRoot) -> None:
    """A set on several images, and a set that is known to be empty."""
    path = root.folder / f"data{SUFFIXES[to]}"
    write(path, to, SETS, root, style=style)
    back = list(read(path, images=root.folder))
    if to == "verl":  # absolute paths, as verl needs them
        back = [
            GroundingSample.from_json({**one.to_json(), "images": [Path(name).name for name in one.images]})
            for one in back
        ]
    assert back == SETS
    assert [one.key for one in back] == [one.key for one in SETS]


unit = st.integers(0, 999)


@st.composite
def sets(draw: Any) -> GroundingSample:
    n_images = draw(st.integers(1, 3))
    boxes, on = [], []
    for _ in range(draw(st.integers(0, 5))):
        (x1, x2), (y1, y2) = (sorted(draw(st.lists(unit, min_size=2, max_size=2, unique=True))) for _ in "xy")
        boxes.append((x1 / 1000, y1 / 1000, x2 / 1000, y2 / 1000))
        on.append(draw(st.integers(0, n_images - 1)))
    return make(boxes, images=tuple(f"{k}.png" for k in range(n_images)), box_images=on)


@settings(max_examples=30, deadline=None)
@given(sets(), st.sampled_from(["jsonl", "sharegpt", "trl"]))
def test_round_trip_of_any_set(sample: GroundingSample, to: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"data{SUFFIXES[to]}")
        export([sample], to, path, Export())
        assert list(read(path)) == [sample]


def test_what_is_taught_reads_as_what_is_true(root: ImageRoot) -> None:
    path = root.folder / "data.json"
    write(path, "sharegpt", SETS, root)
    for row, sample in zip(json.loads(path.read_text()), SETS, strict=True):
        question, answer = (turn["value"] for turn in row["conversations"])
        assert "or none if there is no such object." in question
        reading = read_answer(answer, Asked.of(sample))
        assert reading.format_ok and reading.says_none == (not sample.boxes)
        assert {one.image_index for one in reading.boxes} == {image for image, _ in sample.targets}


def test_the_text_of_a_set_that_was_edited(root: ImageRoot) -> None:
    """It goes before what was kept beside it."""
    path = root.folder / "data.json"
    write(path, "sharegpt", SETS[:1], root)
    row = json.loads(path.read_text())[0]
    for answer, count in (("none", 0), ("Image-2: (0,0),(500,500)", 1)):
        row["conversations"][1]["value"] = f"<think>So.</think><answer>{answer}</answer>"
        path.write_text(json.dumps([row]))
        (back,) = read(path)
        assert back.complete and len(back.boxes) == count
        assert [image for image, _ in back.targets] == [1] * count


def test_ms_swift_has_the_image_of_each_box(root: ImageRoot) -> None:
    path = root.folder / "data.jsonl"
    write(path, "ms_swift", SETS, root)
    first, _, empty, *_ = (json.loads(line) for line in path.read_text().splitlines())
    assert first["objects"]["image_id"] == [0, 1, 1]
    assert first["objects"]["bbox"][0] == [0.0, 0.0, 82.46, 100.0]
    assert first["messages"][1]["content"] == (
        "<think>I look at each.</think><answer>Image-1: <bbox>; Image-2: <bbox>; Image-2: <bbox></answer>"
    )
    assert empty["messages"][1]["content"] == "<think>No cup.</think><answer>none</answer>"
    assert empty["objects"]["bbox"] == []


def test_coco_has_pictures_without_annotations(root: ImageRoot) -> None:
    path = root.folder / "coco.json"
    told = write(path, "coco", [SETS[0], make([], images=("b.png",)), SETS[3]], root)
    value = json.loads(path.read_text())
    names = {image["id"]: image["file_name"] for image in value["images"]}
    boxes = sorted((names[one["image_id"]], one["bbox"]) for one in value["annotations"])
    assert boxes == [
        ("a.png", [0.0, 0.0, 82.46, 100.0]),
        ("b.png", [0.0, 0.0, 200.0, 20.0]),
        ("b.png", [120.0, 0.0, 80.0, 100.0]),
    ]
    assert "1 box stands in several samples, written once" in told
    only_empty = root.folder / "empty.json"
    told = write(only_empty, "coco", [make([])], root)
    value = json.loads(only_empty.read_text())
    assert sorted(image["file_name"] for image in value["images"]) == ["a.png", "b.png"]
    assert value["annotations"] == [] and any("2 pictures are written without boxes" in one for one in told)


def test_coco_reads_back_as_sets(root: ImageRoot) -> None:
    one = {"images": ("a.png",), "query": "Locate every cup in the image.", "task": "detection"}
    samples = [
        make([LEFT, RIGHT], target_image=0, thought=None, **one),
        make([TOP], target_image=0, thought=None, **{**one, "images": ("b.png",)}),
    ]
    path = root.folder / "coco.json"
    write(path, "coco", samples, root)
    back = list(read(path, "coco_detection", root.folder))
    assert [(one.images, one.query, len(one.boxes)) for one in back] == [
        (one.images, one.query, len(one.boxes)) for one in samples
    ]
    for here, there in zip(back, samples, strict=True):
        assert here.complete
        for (_, a), (_, b) in zip(sorted(here.targets), sorted(there.targets), strict=True):
            assert a == pytest.approx(b, abs=1e-5)


def test_yolo_has_empty_labels(root: ImageRoot) -> None:
    path = root.folder / "yolo"
    write(path, "yolo", [SETS[0], SETS[2]], root, split="val")
    assert yaml.safe_load((path / "data.yaml").read_text())["names"] == {0: "cup"}
    assert len((path / "labels/val/b.txt").read_text().splitlines()) == 2
    empty = root.folder / "empty"
    write(empty, "yolo", [SETS[3], SETS[4]], root)
    assert (empty / "labels/train/b.txt").read_text() == ""
    assert (empty / "labels/train/a.txt").read_text()


def test_label_studio_and_fiftyone(root: ImageRoot) -> None:
    tasks = root.folder / "tasks.json"
    write(tasks, "label_studio", SETS[:3], root)
    first, _, empty = json.loads(tasks.read_text())
    (prediction,) = first["predictions"]
    assert sorted(one["item_index"] for one in prediction["result"]) == [0, 1, 1]
    assert empty["predictions"][0]["result"] == []  # nothing is there, as against nobody has looked
    folder = root.folder / "fiftyone"
    write(folder, "fiftyone", SETS[:3], root)
    rows = json.loads((folder / "samples.json").read_text())
    assert [sorted(box["image"] for box in row["boxes"]) for row in rows] == [[0, 1, 1], [1, 1], []]
    assert all(row["complete"] for row in rows)


@pytest.mark.parametrize("to", ["sharegpt", "trl", "ms_swift", "coco"])
def test_what_cannot_be_written_is_told_by_name(to: str, root: ImageRoot) -> None:
    """A set of which nothing says on which image a box lies."""
    path = root.folder / f"data{SUFFIXES[to]}"
    unplaced = make([LEFT, TOP], source="unplaced#1")
    told = write(path, to, [unplaced], root)
    assert any("unplaced#1: no_target_image" in line for line in told)


def test_a_set_with_a_box_that_cannot_be_taught(root: ImageRoot) -> None:
    thin = make([LEFT, (0.1, 0.1, 0.1001, 0.5)], target_image=0, source="thin#1")
    told = write(root.folder / "data.json", "sharegpt", [thin], root)
    assert any("thin#1: degenerate_box" in line for line in told)
