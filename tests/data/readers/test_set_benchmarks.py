"""Benchmarks whose answers are sets, or nothing: files made by hand exactly in the published form, and their faults."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from univg.data.readers import RecordFault, detect, read
from univg.errors import UnivgError
from univg.grounding.samples import GroundingSample

SIZE = (200, 100)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in (
        "train2014/COCO_train2014_000000000001.jpg",
        "D3/a.jpg",
        "D3/b.jpg",
        "a.jpg",
        "single/s.jpg",
    ):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE).save(path)
    return tmp_path


def put(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def every(path: Path, images: Path) -> tuple[list[GroundingSample], list[RecordFault]]:
    faults: list[RecordFault] = []
    return list(read(path, None, images, faults.append)), faults


def told(faults: list[RecordFault]) -> list[tuple[str, str]]:
    return [(fault.record, fault.kind) for fault in faults]


# --- gRefCOCO ---


def make_ref(number: int, ann_id: Any, **more: Any) -> dict[str, Any]:
    none = ann_id == [-1]
    return {
        "image_id": 1,
        "split": "testA",
        "sentences": [
            {
                "tokens": ["two", "men"],
                "raw": "Two men.",
                "sent_id": 10 * number,
                "sent": f"two men {number}",
                "exist": not none,
            }
        ],
        "file_name": f"COCO_train2014_000000000001_{number}.jpg",
        "category_id": [-1] if none else [1] * len(ann_id) if isinstance(ann_id, list) else 1,
        "ann_id": ann_id,
        "sent_ids": [10 * number],
        "ref_id": number,
        "no_target": none,
        **more,
    }


INSTANCES = {
    "info": {"description": "coco"},
    "images": [
        {"id": 1, "file_name": "COCO_train2014_000000000001.jpg", "width": 200, "height": 100, "license": 1}
    ],
    "licenses": [],
    "annotations": [
        {
            "id": 7,
            "image_id": 1,
            "category_id": 1,
            "bbox": [20, 10, 80, 40],
            "iscrowd": 0,
            "area": 9,
            "segmentation": [],
        },
        {"id": 8, "image_id": 1, "category_id": 1, "bbox": [100.0, 50.0, 100.0, 50.0], "iscrowd": 0},
        {"id": 9, "image_id": 2, "category_id": 1, "bbox": [0, 0, 10, 10], "iscrowd": 0},
    ],
    "categories": [{"id": 1, "name": "person", "supercategory": "person"}],
}


def put_grefcoco(root: Path, refs: list[dict[str, Any]]) -> Path:
    put(root / "instances.json", INSTANCES)
    return put(root / "grefs(unc).json", refs)


def test_grefcoco(root: Path) -> None:
    path = put_grefcoco(root, [make_ref(1, [7, 8]), make_ref(2, [-1]), make_ref(3, 8)])
    assert detect(path) == "grefcoco"
    samples, faults = every(path, root / "images")
    assert not faults and all(sample.complete and not sample.thinking for sample in samples)
    assert [sample.boxes for sample in samples] == [
        ((0.1, 0.1, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0)),
        (),
        ((0.5, 0.5, 1.0, 1.0),),
    ]
    first = samples[0]
    assert first.images == ("train2014/COCO_train2014_000000000001.jpg",)
    assert first.query == 'Which objects fit the description "two men 1"?'
    assert (first.task, first.source) == ("grefcoco_testA", "grefcoco#1@10")


def test_grefcoco_faults(root: Path) -> None:
    refs = [
        make_ref(1, [7, 99]),
        make_ref(2, [9]),
        make_ref(3, [-1, 7]),
        make_ref(4, [7], no_target=True),
        make_ref(5, [7], image_id=5),
        make_ref(6, []),
        make_ref(7, [7], sentences=[{"sent_id": 1, "sent": " "}]),
        make_ref(8, [7]),
    ]
    samples, faults = every(put_grefcoco(root, refs), root / "images")
    assert [sample.source for sample in samples] == ["grefcoco#8@80"]
    expected = ["no_box", "which_image", "bad_field", "several_answers", "missing_image", "bad_field"]
    assert [kind for _, kind in told(faults)] == [*expected, "empty_question"]


def test_grefcoco_needs_its_instances(root: Path) -> None:
    path = put(root / "grefs(unc).json", [make_ref(1, [7])])
    with pytest.raises(UnivgError, match=r"no instances.json beside the expressions"):
        every(path, root / "images")


def test_a_picture_of_another_size_is_refused(root: Path) -> None:
    Image.new("RGB", (300, 100)).save(root / "images/train2014/COCO_train2014_000000000001.jpg")
    samples, faults = every(put_grefcoco(root, [make_ref(1, [7])]), root / "images")
    assert (samples, told(faults)) == ([], [("grefcoco#1@10", "size_mismatch")])


# --- MC-Bench ---


def make_mc_bench() -> dict[str, Any]:
    def image(number: int, text: int, place: int, name: str) -> dict[str, Any]:
        return {
            "id": number,
            "text_id": text,
            "inter_img_id": place,
            "file_name": f"D3/{name}.jpg",
            "height": 100,
            "width": 200,
        }

    def annotation(number: int, image_id: int, text: int, bbox: list[int], group: int = 1) -> dict[str, Any]:
        return {
            "id": number,
            "image_id": image_id,
            "text_id": text,
            "category_id": group,
            "area": 9,
            "bbox": bbox,
            "iscrowd": 0,
        }

    return {
        "info": {"version": "0.2"},
        "descriptions": [
            {
                "id": 0,
                "images_id": [0, 1],
                "text": "People in red",
                "positive_sample": True,
                "text_style": "Referring",
            },
            {
                "id": 1,
                "images_id": [2, 3],
                "text": "The higher flag",
                "positive_sample": False,
                "text_style": "Comparison",
            },
        ],
        "images": [image(0, 0, 0, "a"), image(1, 0, 1, "b"), image(2, 1, 0, "b"), image(3, 1, 1, "a")],
        "annotations": [
            annotation(0, 1, 0, [100, 50, 100, 50], 2),
            annotation(1, 0, 0, [20, 10, 80, 40]),
            annotation(2, 1, 0, [0, 0, 20, 10]),
        ],
        "categories": [{"id": 1, "name": "group 1"}, {"id": 2, "name": "group 2"}],
    }


def test_mc_bench(root: Path) -> None:
    path = put(root / "mc-bench_v0.2_val.json", make_mc_bench())
    assert detect(path) == "mc_bench"
    samples, faults = every(path, root / "images")
    assert not faults and all(sample.complete and sample.thinking for sample in samples)
    first, second = samples
    assert first.targets == (
        (0, (0.1, 0.1, 0.5, 0.5)),
        (1, (0.5, 0.5, 1.0, 1.0)),
        (1, (0.0, 0.0, 0.1, 0.1)),
    )
    assert first.extra["protocol"] == {"groups": [1, 2, 1]}
    assert first.images == ("D3/a.jpg", "D3/b.jpg") and second.images == ("D3/b.jpg", "D3/a.jpg")
    assert first.query == 'Which objects in the images fit the description "People in red"?'
    assert (second.boxes, second.task, second.source) == ((), "comparison", "mc_bench#1")


def test_the_file_that_mc_bench_is_evaluated_with(root: Path) -> None:
    whole = make_mc_bench()
    texts = whole.pop("descriptions")
    for place, image in enumerate(whole["images"]):
        text, pair = texts[image.pop("text_id")]["text"], place // 2
        image |= {"pair_id": pair, "id_in_pair": 1 + place % 2, "description": text}
        image |= {"pair_image_id": image["id"] ^ 1}
        image.pop("inter_img_id")
    for annotation in whole["annotations"]:
        annotation["pair_id"] = annotation.pop("text_id")
    path = put(root / "MC-Bench_coco_format.json", whole)
    assert detect(path) == "mc_bench"
    samples, faults = every(path, root / "images")
    assert not faults
    published, _ = every(put(root / "mc-bench_v0.2_val.json", make_mc_bench()), root / "images")
    assert [one.targets for one in samples] == [one.targets for one in published]
    assert [one.query for one in samples] == [one.query for one in published]


def test_mc_bench_faults(root: Path) -> None:
    whole = make_mc_bench()
    whole["descriptions"][1]["positive_sample"] = True
    whole["descriptions"].append({**whole["descriptions"][0], "id": 2, "images_id": [0, 9]})
    whole["descriptions"].append({**whole["descriptions"][0], "id": 3})
    whole["annotations"].append({**whole["annotations"][0], "text_id": 3, "image_id": 3})
    samples, faults = every(put(root / "mc.json", whole), root / "images")
    assert [sample.source for sample in samples] == ["mc_bench#0"]
    assert told(faults) == [
        ("mc_bench#1", "no_box"),
        ("mc_bench#2", "missing_image"),
        ("mc_bench#3", "which_image"),
    ]


# --- Ref-L4, RefCOCO-M, GroundingME, OpenRef ---

REF_L4 = {
    "id": 1,
    "caption": "The man on the motorcycle closest to the camera.",
    "bbox": [20.0, 10.0, 80.0, 40.0],
    "bbox_area": 3200.0,
    "bbox_id": "coco_536932",
    "ori_category_id": "refcoco_1",
    "image_id": "coco_1",
    "height": 100,
    "width": 200,
    "file_name": "COCO_train2014_000000000001.jpg",
    "is_rewrite": False,
    "split": "val",
}


def test_ref_l4(root: Path) -> None:
    path = put(root / "ref-l4-val.json", [REF_L4, {**REF_L4, "id": 2, "bbox": [20, 10]}])
    assert detect(path) == "ref_l4"
    (sample,), faults = every(path, root / "images")
    assert sample.boxes == ((0.1, 0.1, 0.5, 0.5),) and sample.query == REF_L4["caption"]
    assert (sample.complete, sample.thinking, sample.source) == (False, False, "ref_l4#1")
    assert sample.extra["protocol"]["side_px"] == pytest.approx(3200**0.5)
    assert told(faults) == [("ref_l4#2", "bad_box")]


def encode(size: tuple[int, int] = SIZE) -> bytes:
    raw = io.BytesIO()
    Image.new("RGB", size).save(raw, "JPEG")
    return raw.getvalue()


def put_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_refcoco_m(root: Path) -> None:
    name = "COCO_train2014_000000000009.jpg"
    sample = {
        "id": 5,
        "image_id": 9,
        "category": "person",
        "supercategory": "person",
        "label": "man",
        "sentences": ["left man", "man in blue"],
        "bbox": [20.0, 10.0, 80.0, 40.0],
        "mask": {"counts": "abc", "size": [100, 200]},
    }
    row = {"image": {"bytes": encode(), "path": name}, "image_id": 9, "file_name": name, "samples": [sample]}
    path = put_rows(root / "validation.parquet", [row])
    assert detect(path) == "refcoco_m"
    samples, faults = every(path, root / "images")
    assert not faults and [one.query for one in samples] == ["left man", "man in blue"]
    assert {one.boxes for one in samples} == {((0.1, 0.1, 0.5, 0.5),)}
    assert (root / "images" / samples[0].images[0]).is_file() and samples[0].source == "refcoco_m#9@5/0"


def test_groundingme(root: Path) -> None:
    row = {
        "id": 3,
        "description": "The red cup",
        "image": {"bytes": encode(), "path": None},
        "bbox": [20, 10, 100, 50],
        "detection_type": "none",
        "subtask_l1": "Spatial",
        "subtask_l2": "relation",
        "width": 200,
        "height": 100,
    }
    path = put_rows(root / "test.parquet", [row, {**row, "id": 4, "subtask_l1": "Rejection"}])
    assert detect(path) == "groundingme"
    (found, rejected), faults = every(path, root / "images")
    assert not faults and found.complete and rejected.complete
    assert found.boxes == ((0.1, 0.1, 0.5, 0.5),) and rejected.boxes == ()
    assert (found.task, rejected.task) == ("Spatial", "Rejection")


def make_openref() -> list[dict[str, Any]]:
    proposal = {"x": 10, "y": 10, "width": 40, "height": 40, "original_width": 200, "original_height": 100}
    return [
        {
            "image": "s.jpg",
            "relation_type": "single",
            "proposal": [proposal],
            "positive": "a cup",
            "negative": "a dog",
            "bbox_num": 1,
        },
        {
            "image": "a.jpg",
            "relation_type": "multi",
            "proposal": [proposal, {**proposal, "x": 50}],
            "positive": "cups",
            "negative": "",
            "bbox_num": 2,
        },
        {"image": "a.jpg", "relation_type": "none", "proposal": [], "positive": "a hippo", "bbox_num": 0},
    ]


def test_openref(root: Path) -> None:
    path = put(root / "val.json", make_openref())
    assert detect(path) == "openref"
    samples, faults = every(path, root / "images")
    assert not faults and all(sample.complete for sample in samples)
    assert [(one.task, len(one.boxes), one.images[0]) for one in samples] == [
        ("single", 1, "single/s.jpg"),
        ("negative", 0, "single/s.jpg"),
        ("multi", 2, "a.jpg"),
        ("none", 0, "a.jpg"),
    ]
    assert samples[0].boxes == ((0.1, 0.1, 0.5, 0.5),)


def test_openref_faults(root: Path) -> None:
    rows = make_openref()
    rows[0] |= {"bbox_num": 4, "negative": ""}
    rows[1]["relation_type"] = "many"
    rows[2] |= {"relation_type": "single"}
    rows.append({**make_openref()[1], "proposal": [{"x": 10, "y": 10, "width": 900, "height": 40}] * 2})
    wrong = {"x": 1, "y": 1, "width": 9, "height": 9, "original_width": 400, "original_height": 100}
    rows.append({**make_openref()[1], "proposal": [wrong] * 2})
    samples, faults = every(put(root / "val.json", rows), root / "images")
    expected = ["several_answers", "bad_field", "no_box", "wrong_scale", "size_mismatch"]
    assert (samples, [kind for _, kind in told(faults)]) == ([], expected)
