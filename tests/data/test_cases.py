"""Inputs rebuilt from public bug reports, through the public reading: what is right, what is told, what is refused.

They lie beside the repository; each kind has small inputs of its own in the other tests.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from univg.cli.main import main
from univg.data.formats.scale import lesson_fault
from univg.data.readers import RecordFault, detect, read
from univg.errors import UnivgError
from univg.grounding.boxes import unit_to_px

CASES = Path(__file__).parents[3] / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.exists(), reason="the rebuilt bug reports are not here")

OWL = (64.2, 48.0, 320.4, 240.0)
CUP = (64.0, 48.0, 320.0, 240.0)
WIDE = (640, 480)


def boxes_of(
    case: str, images: str = "images"
) -> tuple[list[tuple[str, tuple[float, ...]]], list[RecordFault], list[str]]:
    """Every box as (picture, unit box), the faults and the notes."""
    faults: list[RecordFault] = []
    notes: list[str] = []
    path = CASES / case
    folder = (path.parent if path.is_file() else path) / images
    found = [
        (sample.images[sample.target_image or 0], box)
        for sample in read(path, None, folder, faults.append, notes.append)
        for box in sample.boxes
    ]
    return found, faults, notes


def in_px(
    found: Sequence[tuple[str, Any]], size: tuple[int, int] = WIDE
) -> list[tuple[str, tuple[float, ...]]]:
    return [(name, tuple(round(value, 1) for value in unit_to_px(box, size))) for name, box in found]


def test_windows_paths_of_label_studio() -> None:
    found, faults, _ = boxes_of("01-coco-windows-names/result.json")
    assert in_px(found) == [(name, CUP) for name in ("a b.jpg", "café 100%.jpg", "sub/c.jpg")]
    assert [(fault.record, fault.kind) for fault in faults] == [("coco#3", "missing_image")]


def test_two_images_with_one_id() -> None:
    found, faults, _ = boxes_of("02-coco-same-image-id/instances.json")
    assert (found, [fault.kind for fault in faults]) == ([], ["ambiguous_id"])


@pytest.mark.parametrize(
    ("name", "pictures", "noted"),
    [
        ("string-zero", ["a.jpg", "b.jpg"], False),
        ("string-false", ["a.jpg", "b.jpg"], False),
        ("mixed", ["b.jpg"], True),
        ("all-one", [], True),
    ],
)
def test_crowds(name: str, pictures: list[str], noted: bool) -> None:
    found, faults, notes = boxes_of(f"03-coco-crowd-flags/{name}.json")
    assert (in_px(found), faults) == ([(picture, CUP) for picture in pictures], [])
    assert any("marked crowd" in note for note in notes) == noted


def test_boxes_drawn_on_the_stored_frame() -> None:
    found, faults, notes = boxes_of("04-exif-raw-frame/coco.json")
    assert in_px(found) == [("o1.jpg", CUP)]
    assert {fault.record: fault.kind for fault in faults} == {f"coco#{i}": "size_mismatch" for i in (1, 2, 3)}
    assert all("EXIF orientation" in fault.cause for fault in faults)
    assert any("3 image(s) are stored rotated" in note for note in notes)


def test_renamed_voc_files() -> None:
    found, faults, _ = boxes_of("05-voc-renamed-files", "")
    other = (320.0, 240.0, 480.0, 360.0)
    assert in_px(found) == [("JPEGImages/a.jpg", CUP), ("JPEGImages/b.jpg", other)]
    assert [(fault.record, fault.kind) for fault in faults] == [("voc#b", "other_name")]


def test_voc_flags_and_suffixes() -> None:
    found, faults, notes = boxes_of("06-voc-flags", "")
    names = ["p0.JPG", "p1.jpg", "p2.jpg", "p3.jpg", "p4.PNG", "p5.bmp"]
    assert in_px(found) == [(f"JPEGImages/{name}", OWL) for name in names]
    assert (faults, notes) == ([], ["1 box(es) are marked difficult: there, but no targets"])


def test_voc_edges() -> None:
    found, faults, _ = boxes_of("06b-voc-one-based", "")
    assert in_px(found, (500, 375)) == [
        ("JPEGImages/v.jpg", (1.0, 1.0, 500.0, 375.0)),
        ("JPEGImages/z.jpg", (0.0, 0.0, 500.0, 375.0)),
    ]
    assert [(fault.record, fault.kind) for fault in faults] == [
        ("voc#q", "missing_image"),
        ("voc#v@1", "degenerate_box"),
    ]
    found, faults, _ = boxes_of("06c-voc-floats-order", "")
    assert (in_px(found), faults) == ([("JPEGImages/f 1.jpg", CUP)], [])


COCO_07 = {
    "bom": "", "cat-dict": "", "dict-bbox": "", "float-cat": "", "info-string": "", "nested-bbox": "", "no-size": "",
    "seg-only": "", "str-bbox": "", "str-cat": "", "str-image": "", "text-bbox": "", "zero-cat": "", "unit-bbox": "",
    "same-annotation-twice": "repeated_box", "nan": "bad_box", "no-bbox": "bad_box", "neg-wh": "inverted_box",
    "zero-w": "degenerate_box",
}  # fmt: skip


@pytest.mark.parametrize("name", COCO_07)
def test_coco_ids_and_boxes(name: str) -> None:
    found, faults, _ = boxes_of(f"07-coco-ids/{name}.json")
    assert [fault.kind for fault in faults] == [kind for kind in [COCO_07[name]] if kind]
    assert in_px(found) == ([("a.jpg", CUP)] if all(fault.usable for fault in faults) else [])


def test_coco_files_that_say_another_thing() -> None:
    found, _, notes = boxes_of("07-coco-ids/percent-bbox.json")
    assert in_px(found) == [("a.jpg", (10.0, 10.0, 50.0, 50.0))] and "percent?" in notes[0]
    for name in ("same-name", "same-file-twice"):
        found, faults, _ = boxes_of(f"07-coco-ids/{name}.json")
        assert in_px(found) == [("a.jpg", CUP), ("a.jpg", (400.0, 300.0, 450.0, 350.0))] and not faults


def test_a_coco_file_of_every_picture_twice() -> None:
    found, faults, notes = boxes_of("16-coco-same-file-twice/merged.json")
    written = json.loads((CASES / "16-coco-same-file-twice/merged.json").read_text())
    named = {image["id"]: image["file_name"] for image in written["images"]}
    sides = [(named[a["image_id"]], *a["bbox"]) for a in written["annotations"]]
    assert sorted(in_px(found)) == sorted((name, (x, y, x + w, y + h)) for name, x, y, w, h in sides)
    assert faults == [] and "8 image(s) are listed more than once" in notes[0]


def test_one_name_in_two_folders_of_cvat() -> None:
    found, faults, _ = boxes_of("19-cvat-for-images/annotations.xml")
    assert in_px(found) == [("s 1/a.jpg", CUP), ("s 2/a.jpg", (320.0, 240.0, 480.0, 360.0))] and faults == []


def test_a_rectangle_of_labelme_drawn_from_the_right() -> None:
    found, faults, _ = boxes_of("20-labelme-folder", ".")
    assert in_px(found) == [("a.jpg", CUP)] and faults == []


def test_answers_are_for_scoring() -> None:
    with pytest.raises(UnivgError, match=r"answers of a model, not data.*univg score"):
        boxes_of("23-score/predictions.jsonl", ".")


def test_rows_drawn_on_the_stored_frame() -> None:
    found, faults, _ = boxes_of("04-exif-raw-frame/vlm_r1.json")
    assert found == [] and [fault.kind for fault in faults] == ["size_mismatch"] * 3


@pytest.mark.parametrize("name", ["mix", "one-turn"])
def test_fractions_of_llava(name: str) -> None:
    found, faults, notes = boxes_of(f"08-llava-unit-floats/{name}.json")
    assert found == [("vg/r.jpg", (0.21, 0.92, 0.36, 1.0)), ("vg/s.jpg", (0.09, 0.09, 0.54, 0.54))]
    assert faults == [] and "boxes are written 0-1" in notes[0]
    assert any("2 question(s) are answered with text" in note for note in notes) == (name == "mix")


def test_absolute_pixels_in_chat_messages() -> None:
    found, faults, notes = boxes_of("10-messages-absolute-pixels/screens.json")
    written = [(483, 954, 519, 987), (419, 507, 429, 519), (1746, 1012, 1767, 1028)]
    written += [(900, 100, 1300, 400), (100, 600, 400, 1000)]
    assert in_px(found, (1920, 1080)) == [("screen.png", tuple(map(float, box))) for box in written]
    assert faults == [] and "boxes are written in pixels" in notes[0]


def test_objects_of_ms_swift() -> None:
    for name in ("new", "old"):
        found, faults, _ = boxes_of(f"11-ms-swift-objects/{name}.jsonl")
        assert in_px(found) == [("a.jpg", CUP)]
        assert [fault.kind for fault in faults] == (["wrong_scale"] if name == "new" else [])


@pytest.mark.parametrize(("name", "picture"), [("parts", "b.jpg"), ("parts-url", "a.jpg")])
def test_images_in_parts(name: str, picture: str) -> None:
    found, faults, _ = boxes_of(f"12-qwen-content-parts/{name}.jsonl")
    assert [(Path(where).name, box) for where, box in found] == [
        (picture, (0.1, 0.1, 0.5, 0.5))
    ] and not faults


def test_refcoco_rows_and_their_table() -> None:
    found, faults, notes = boxes_of("15-refcoco-rows/rows.json")
    assert {box for _, box in in_px(found)} == {CUP} and len(found) == 3 and faults == []
    assert any("twelve digits" in note for note in notes)
    with pytest.raises(UnivgError, match="VLMEvalKit"):
        detect(CASES / "15-refcoco-rows/RefCOCO.tsv")


def test_boxes_that_must_not_be_taught() -> None:
    told = {}
    for name in ("bad.json", "badboxes.jsonl", "mixed.jsonl"):
        samples = read(CASES / "18-train" / name, on_fault=lambda fault: None)
        told[name] = [found[0] for one in samples if (found := lesson_fault(one.boxes[0]))]
    assert told == {
        "bad.json": ["out_of_range"],
        "badboxes.jsonl": ["inverted_box", "degenerate_box", "wrong_scale", "out_of_range"],
        "mixed.jsonl": told["mixed.jsonl"],
    }


def test_folders_say_what_they_are() -> None:
    assert detect(CASES / "21-folders/coco") == "coco" and detect(CASES / "21-folders/yolo") == "yolo"
    found, faults, _ = boxes_of("21-folders/yolo", "")
    assert [(name, tuple(round(v, 6) for v in box)) for name, box in found] == [
        ("images/a.jpg", (0.1, 0.1, 0.5, 0.5))
    ]
    found, more, _ = boxes_of("21-folders/coco", "")
    assert [Path(name).name for name, _ in found] == ["a.jpg"] and faults == more == []


@pytest.mark.parametrize(
    ("name", "what"),
    [
        *(
            (name, 2)
            for name in ("array.jsonl", "bom.jsonl", "comma.jsonl", "crlf.jsonl", "lines.json", "pretty.json")
        ),
        ("one.json", 1),
        ("utf16.json", 1),
        ("gbk.json", "perhaps GBK.*iconv"),
        ("trailing.json", "a comma stands before the closing ']'.*remove the comma"),
    ],
)
def test_files_as_people_have_them(name: str, what: int | str) -> None:
    if isinstance(what, str):
        with pytest.raises(UnivgError, match=what):
            boxes_of(f"22-files/{name}", "")
        return
    found, faults, _ = boxes_of(f"22-files/{name}", "")
    assert found == [("a.png", (0.1, 0.1, 0.5, 0.5))] * what and faults == []


def test_answers_as_models_write_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(CASES / "23-score/predictions.jsonl"), "--out", str(tmp_path / "s.jsonl")]) == 0
    scores = {row["id"]: row for row in map(json.loads, (tmp_path / "s.jsonl").read_text().splitlines())}
    assert len(scores) == 15
    assert [name for name, row in scores.items() if row["iou"] < 0.999] == ["refusal-zh"]
    assert scores["refusal-zh"]["fault"] == "no_box"
    several = [name for name, row in scores.items() if row["fault"] == "several_boxes"]
    assert several == ["cog-two", "ndjson"]
