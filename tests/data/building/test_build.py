"""Tasks out of detection sets: unique targets, balance, seeds; and the detection readers."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from univg.data.building.build import TASK_FAMILIES, BuiltTask, Crop, Shortfall, build
from univg.data.building.desk import Desk
from univg.data.detection import DETECTION, DetectionImage, Instance
from univg.data.readers import RecordFault, Source, detect, read
from univg.grounding.boxes import area, iou

BCCD = Path(__file__).parents[4] / "shared" / "data" / "bccd_voc"
needs_bccd = pytest.mark.skipif(not BCCD.exists(), reason="the BCCD photographs are not here")


def scattered(n: int = 60, videos: bool = True, seed: int = 0) -> list[DetectionImage]:
    """Images with up to six objects of five categories, some in videos with tracks."""
    rng = random.Random(seed)
    images = []
    for i in range(n):
        instances = []
        for slot in rng.sample(range(9), rng.randint(1, 6)):
            x, y = slot % 3 / 3, slot // 3 / 3
            side = rng.uniform(0.1, 0.3)
            category = rng.choice(("cat", "dog", "bus", "cup", "hat"))
            instances.append(Instance(category, (x, y, x + side, y + side), alone=rng.random() > 0.05))
        if videos:
            place = 0.05 * (i % 10)
            instances.append(Instance("kite", (place, 0.4, place + 0.3, 0.7), track="k"))
        video = f"v{i // 10}" if videos else None
        images.append(DetectionImage(f"{i}.jpg", f"coco#{i}", (640, 480), tuple(instances), video, i % 10))
    return images


def check_unique(task: BuiltTask) -> None:
    """The target is the only thing that the question fits, by the annotations of all that is shown."""
    shown = [shot for shot in task.shown if isinstance(shot, DetectionImage)]
    target = task.shown[task.target]
    assert isinstance(target, DetectionImage)
    same = [instance for instance in target.instances if instance.category == task.category]
    if task.family == "common_object":
        once = [
            {name for name, k in Counter(i.category for i in image.instances).items() if k == 1}
            for image in shown
        ]
        assert set.intersection(*once) == {task.category}
        if "share one object" in task.query:
            assert set.intersection(*({i.category for i in image.instances} for image in shown)) == {
                task.category
            }
    elif task.family == "refer_grounding":
        assert [instance.box for instance in same] == [task.box]
        assert isinstance(task.shown[0], Crop) and task.shown[0].image.record != target.record
    elif task.family == "group_grounding":
        all_boxes = [i.box for image in shown for i in image.instances if i.category == task.category]
        if "largest" in task.query:
            others = sorted(map(area, all_boxes), reverse=True)[1]
            assert area(task.box) >= 1.5 * others
        else:
            assert all_boxes == [task.box]
    elif task.family == "region":
        crops = [shot.box for shot in task.shown if isinstance(shot, Crop)]
        assert len(crops) == len(task.shown) - 1 and crops.count(task.box) == 1
        assert all(iou(a, b) <= 0.2 for a in crops for b in crops if a != b)
    elif task.family == "object_tracking":
        assert [image.frame for image in shown] == sorted({image.frame for image in shown})
        assert task.target > 0
    assert task.box in [instance.box for instance in same] or task.family == "region"


def test_targets_are_unique_and_shares_are_even() -> None:
    tasks = list(build(scattered(), 300, seed=3))
    for task in tasks:
        check_unique(task)
    assert Counter(task.family for task in tasks) == dict.fromkeys(TASK_FAMILIES, 60)
    for family in ("common_object", "refer_grounding", "region"):
        used = Counter(task.category for task in tasks if task.family == family)
        assert max(used.values()) <= 2 * min(used.values()) + 2
    places = Counter(t.target for t in tasks if t.family == "common_object" and len(t.shown) == 3)
    assert max(places.values()) - min(places.values()) <= 1
    assert len({(t.family, t.query, str(t.shown)) for t in tasks}) == 300


def test_a_seed_decides_everything() -> None:
    def made(seed: int) -> list[Any]:
        return [(t.family, t.query, t.box, t.target) for t in build(scattered(), 40, seed)]

    assert made(1) == made(1)
    assert made(1) != made(2)


def test_single_images_are_asked_where_it_is_wanted_each_thing_once() -> None:
    images = scattered()
    told: list[Shortfall] = []
    tasks = list(build(images, 10_000, families=["referring"], on_shortfall=told.append))
    assert "referring" not in TASK_FAMILIES and [shortfall.family for shortfall in told] == ["referring"]
    asked = [(task.category, task.records[0]) for task in tasks]
    once = Desk(images, random.Random(0)).once
    alone = {(category, image.record) for category, found in once.items() for image in found}
    assert len(asked) == len(set(asked)) and set(asked) == alone
    for task in tasks:
        [image] = task.shown
        assert isinstance(image, DetectionImage) and f"the {task.category} " in task.query
        assert [i.box for i in image.instances if i.category == task.category] == [task.box]


def test_what_the_set_does_not_allow_is_told() -> None:
    told: list[Shortfall] = []
    one = DetectionImage("a.jpg", "coco#1", (640, 480), (Instance("cat", (0.1, 0.1, 0.5, 0.5)),))
    tasks = list(build([one], 20, on_shortfall=told.append))
    assert {task.family for task in tasks} == {"region"}
    assert {shortfall.family for shortfall in told} == set(TASK_FAMILIES) - {"region"}
    assert all(shortfall.why and str(shortfall).startswith(shortfall.family) for shortfall in told)
    assert list(build([], 5, on_shortfall=told.append)) == []
    with pytest.raises(ValueError, match="choose from common_object"):
        list(build([one], 1, families=["nope"]))


def test_nothing_rests_on_what_a_sloppy_annotation_leaves_out() -> None:
    """A cat is in nine of ten images; where none is annotated, it is not taken for absent."""
    cat, dog = Instance("cat", (0.1, 0.1, 0.4, 0.4)), Instance("dog", (0.6, 0.6, 0.9, 0.9))
    images = [
        DetectionImage(
            f"{i}.jpg", f"coco#{i}", (640, 480), (dog,) if i % 10 == 0 else (cat, dog)[: 1 + i % 2]
        )
        for i in range(40)
    ]
    sloppy = {image.record for image in images if cat not in image.instances}
    for task in build(images, 60, families=["common_object", "group_grounding"]):
        check_unique(task)
        assert not sloppy & {shot.record for shot in task.shown if isinstance(shot, DetectionImage)}


@needs_bccd
def test_real_photographs() -> None:
    faults: list[RecordFault] = []
    images = DETECTION["voc"](Source.of(BCCD, BCCD, faults.append))
    assert len(images) == 364
    assert {(fault.record, fault.kind) for fault in faults} == {
        ("voc#BloodImage_00338@12", "degenerate_box"),
        ("voc#BloodImage_00343@3", "degenerate_box"),
    }
    families = [name for name in TASK_FAMILIES if name != "object_tracking"]
    tasks = list(build(images, 120, families=families))
    assert Counter(task.family for task in tasks) == dict.fromkeys(families, 30)
    for task in tasks:
        check_unique(task)


# --- the readers ---


def coco(**changes: Any) -> dict[str, Any]:
    return {
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 2, "bbox": [20, 10, 80, 40]},
            {"id": 2, "image_id": 5, "category_id": 3, "bbox": [0, 0, 10, 10], "iscrowd": 1},
        ],
        "images": [{"id": 5, "file_name": "a.jpg", "width": 200, "height": 100}],
        "categories": [{"id": 2, "name": "dog"}, {"id": 3, "name": "people"}],
        **changes,
    }


def test_coco(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"info": {"year": 2017}, "licenses": [], **coco()}))
    assert detect(path) == "coco"
    (sample,) = read(path)
    assert (sample.images, sample.query) == (("a.jpg",), "Locate the dog in the image.")
    assert (sample.boxes, sample.source) == (((0.1, 0.1, 0.5, 0.5),), "coco#5@dog")


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        ({"bbox": [20, 10, 0, 40]}, "degenerate_box"),
        ({"bbox": [20, 10, -5, 40]}, "inverted_box"),
        ({"bbox": [20, 10, 500, 40]}, "out_of_range"),
        ({"bbox": [20, 10]}, "bad_box"),
        ({"bbox": None}, "bad_box"),
        ({"category_id": 99}, "missing_field"),
        ({"image_id": 99}, "missing_image"),
    ],
)
def test_coco_faults(annotation: dict[str, Any], kind: str, tmp_path: Path) -> None:
    entry = {"id": 1, "image_id": 5, "category_id": 2, "bbox": [20, 10, 80, 40], **annotation}
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(coco(annotations=[entry])))
    faults: list[RecordFault] = []
    samples = list(read(path, on_fault=faults.append))
    assert [fault.kind for fault in faults] == [kind]
    assert len(samples) == (kind == "out_of_range") == faults[0].usable


def test_sizes_are_checked_against_the_files(tmp_path: Path) -> None:
    Image.new("RGB", (100, 200)).save(tmp_path / "a.jpg")
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(coco()))
    faults: list[RecordFault] = []
    assert list(read(path, images=tmp_path, on_fault=faults.append)) == []
    assert [fault.kind for fault in faults] == ["size_mismatch"]
    assert "100x200" in faults[0].cause and "200x100" in faults[0].cause


VOC = """<annotation><filename>{name}</filename>
<size><width>200</width><height>100</height><depth>3</depth></size>{objects}</annotation>"""
DOG = """<object><name>dog</name><difficult>{difficult}</difficult>
<bndbox><ymin>10</ymin><xmin>{xmin}</xmin><ymax>50</ymax><xmax>100</xmax></bndbox></object>"""


def test_voc(tmp_path: Path) -> None:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "JPEGImages").mkdir()
    Image.new("RGB", (200, 100)).save(tmp_path / "JPEGImages" / "a.jpg")
    objects = DOG.format(difficult=0, xmin=20)
    (tmp_path / "Annotations" / "a.xml").write_text(
        VOC.format(name="a", objects=objects)
    )  # no suffix: common
    (tmp_path / "Annotations" / "b.xml").write_text("<annotation>")
    (tmp_path / "Annotations" / "c.xml").write_text(VOC.format(name="c.jpg", objects=objects))
    assert detect(tmp_path) == "voc"
    faults: list[RecordFault] = []
    (sample,) = read(tmp_path, images=tmp_path, on_fault=faults.append)
    assert (sample.images, sample.boxes) == (("JPEGImages/a.jpg",), ((0.1, 0.1, 0.5, 0.5),))
    assert [(fault.record, fault.kind) for fault in faults] == [
        ("voc#b", "bad_field"),
        ("voc#c", "missing_image"),
    ]
    for bad, kind in ((DOG.format(difficult=0, xmin="x"), "bad_box"), ("<object/>", "missing_field")):
        (tmp_path / "Annotations" / "a.xml").write_text(VOC.format(name="a.jpg", objects=bad))
        faults.clear()
        assert list(read(tmp_path, images=tmp_path, on_fault=faults.append)) == []
        assert kind in [fault.kind for fault in faults]
    difficult = DOG.format(difficult=1, xmin=20)
    (tmp_path / "Annotations" / "a.xml").write_text(VOC.format(name="a.jpg", objects=difficult))
    assert list(read(tmp_path, images=tmp_path, on_fault=faults.append)) == []
