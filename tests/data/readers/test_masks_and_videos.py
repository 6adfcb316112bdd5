"""Masks, videos and rows in pixels as people have them: what is read, what is refused and what is told."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from univg.data.readers import RecordFault, read
from univg.errors import UnivgError
from univg.grounding.samples import GroundingSample

UNIT = (0.1, 0.1, 0.5, 0.5)
TEXT = "the thing that keeps rain off"
Every = tuple[list[GroundingSample], list[RecordFault], list[str]]


def every(path: Path, images: Path | None = None, reader: str | None = None) -> Every:
    faults: list[RecordFault] = []
    notes: list[str] = []
    return list(read(path, reader, images, faults.append, notes.append)), faults, notes


def save(path: Path, size: tuple[int, int] = (200, 100), orientation: int = 1, color: str = "white") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, color).save(path, exif=exif)
    return path


def put(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def kinds(faults: list[RecordFault]) -> list[str]:
    return [fault.kind for fault in faults]


# --- one row of each set in pixels: the box x1 y1 x2 y2 on a picture of 200x100 ---


def lines_row(box: list[float], **more: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": "<image>The dog."}, {"from": "gpt", "value": str(box)}]
    return {"image": "a.jpg", "conversations": turns, **more}


def sides_row(box: list[float], **more: Any) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    return {"image": "a.jpg", "answer": ["The dog."], "bbox": [x1, y1, x2 - x1, y2 - y1], **more}


ROWS: dict[str, Callable[..., dict[str, Any]]] = {
    "vlm_r1": lambda box, **more: {"image": "a.jpg", "problem": "The dog.", "solution": box, **more},
    "vlm_r1_lines": lines_row,
    "refcoco": sides_row,
    "lisa": lambda box, **more: {"image_path": "a.jpg", "instruction": TEXT, "boxes": [box], **more},
    "llmseg": lambda box, **more: {"image_path": "a.jpg", "question": TEXT, "bbox": [[box]], **more},
    "reasonvos": lambda box, **more: {
        "image_list": ["b.jpg", "c.jpg", "a.jpg"],
        "question": TEXT,
        "bbox_list": ["[]", "[]", str(box)],
        **more,
    },
}
PIXELS = [20, 10, 100, 50]


@pytest.mark.parametrize(
    "reader", [pytest.param(name, id=f"a stated size is compared: {name}") for name in ROWS]
)
def test_a_stated_size_is_compared(reader: str, tmp_path: Path) -> None:
    save(tmp_path / "a.jpg")
    make = ROWS[reader]
    rows = [make(PIXELS), make(PIXELS, width=200, height=100), make(PIXELS, image_width=100, image_height=50)]
    samples, faults, _ = every(put(tmp_path / "x.json", rows), tmp_path, reader)
    assert [sample.boxes for sample in samples] == [(UNIT,)] * 2
    assert kinds(faults) == ["size_mismatch"] and "200x100, and the annotation says 100x50" in faults[0].cause


@pytest.mark.parametrize(
    "reader", [pytest.param(name, id=f"a size of the stored frame: {name}") for name in ROWS]
)
def test_a_stated_size_of_the_stored_frame_is_refused_in_its_own_words(reader: str, tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", (100, 200), orientation=6)  # shown as 200x100
    make = ROWS[reader]
    samples, faults, notes = every(put(tmp_path / "x.json", [make(PIXELS)]), tmp_path, reader)
    assert [sample.boxes for sample in samples] == [(UNIT,)] and not faults
    assert any("1 image(s) are stored rotated" in note for note in notes)
    rows = [make(PIXELS), make(PIXELS, width=100, height=200)]
    samples, faults, _ = every(put(tmp_path / "x.json", rows), tmp_path, reader)
    assert not samples and kinds(faults) == ["size_mismatch"] * 2
    assert all("drawn on the stored frame" in fault.cause for fault in faults)


@pytest.mark.parametrize(
    "reader", [pytest.param(name, id=f"one scale for the file: {name}") for name in ROWS]
)
def test_the_scale_is_decided_for_the_file(reader: str, tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", (400, 300))
    make = ROWS[reader]

    def boxes(rows: list[dict[str, Any]]) -> Every:
        return every(put(tmp_path / "x.json", rows), tmp_path, reader)

    samples, faults, notes = boxes([make([0.125, 0.25, 0.5, 0.75])] * 2)
    assert {sample.boxes for sample in samples} == {((0.125, 0.25, 0.5, 0.75),)} and not faults
    assert notes == [
        "boxes are written 0-1, not in pixels (no number of 2 box(es) passes 1.05): read as such"
    ]
    samples, faults, notes = boxes([make([125, 250, 500, 750])] * 6)
    assert {sample.boxes for sample in samples} == {((0.125, 0.25, 0.5, 0.75),)} and not faults
    assert "boxes are written 0-1000, not in pixels" in notes[0]
    samples, faults, notes = boxes([make([12.5, 25, 50, 75])] * 12)
    assert {sample.boxes for sample in samples} == {((0.125, 0.25, 0.5, 0.75),)} and not faults
    assert "boxes are written in percent, not in pixels" in notes[0]
    samples, faults, notes = boxes([make([40, 30, 200, 150]), make([0.125, 0.25, 0.5, 0.75])])
    assert [sample.boxes for sample in samples] == [(UNIT,)] and kinds(faults) == ["wrong_scale"]
    samples, faults, _ = boxes([make([40, 30, 200, 150]), make([40, 30, 2000, 1500])])
    assert len(samples) == 1 and kinds(faults) == ["wrong_scale"]
    assert "lies far outside the 400x300 image" in faults[0].cause


def test_boxes_0_1000_on_large_photographs_are_told(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", (3200, 3000))
    rows = [ROWS["vlm_r1"]([125, 250, 500, 750])] * 10
    samples, _, notes = every(put(tmp_path / "x.json", rows), tmp_path)
    assert {sample.boxes for sample in samples} == {((0.125, 0.25, 0.5, 0.75),)}
    _, _, few = every(put(tmp_path / "x.json", rows[:3]), tmp_path)
    assert "0-1000, not in pixels" in notes[0] and "0-1000? Read as pixels" in few[0]


@pytest.mark.parametrize(
    ("factor", "told"),
    [
        pytest.param(100, "boxes are written in percent, not 0-1000", id="MIG-Bench in percent"),
        pytest.param(3000, "boxes are written in pixels", id="MIG-Bench in pixels"),
    ],
)
def test_sets_without_pixels(factor: int, told: str, tmp_path: Path) -> None:
    answer = [value * factor for value in (0.125, 0.25, 0.5, 0.75)]
    row = {"task": "diff", "images": ["a.png", "b.png"], "question": "What?", "answer": answer}
    path = put(tmp_path / "x.json", [row] * 10)
    if factor == 3000:
        with pytest.raises(UnivgError, match=told):
            every(path, reader="mig_bench")
        return
    samples, faults, notes = every(path, reader="mig_bench")
    assert {sample.boxes for sample in samples} == {((0.125, 0.25, 0.5, 0.75),)}
    assert told in notes[0] and not faults


# --- lmms-eval rows ---

COCO = "COCO_train2014_000000581857"


def lmms(image: Any, **more: Any) -> dict[str, Any]:
    return {"question_id": "7", "image": image, "answer": ["a", "b"], "bbox": [20, 10, 80, 40], **more}


@pytest.mark.parametrize(
    ("there", "row"),
    [
        pytest.param(
            f"{COCO}.jpg", lmms(f"{COCO}_0.jpg", file_name=f"{COCO}_16.jpg"), id="COCO names with a number"
        ),
        pytest.param(
            f"train2014/{COCO}.jpg", lmms(f"{COCO}_0.jpg"), id="COCO names, the picture in train2014"
        ),
        pytest.param(
            "train2017/000000581857.jpg", lmms(f"{COCO}_3.jpg"), id="COCO names of 2014, pictures of 2017"
        ),
        pytest.param(
            f"{COCO}.jpg", lmms("000000581857.jpg", file_name=f"{COCO}_1.jpg"), id="one number, two names"
        ),
        pytest.param("a.jpg", lmms("a.jpg", file_name="elsewhere.jpg"), id="a second name that is not there"),
        pytest.param("a.jpg", lmms({"path": "a.jpg", "bytes": None}, iscrowd="0"), id="a path in an object"),
    ],
)
def test_the_picture_of_a_row(there: str, row: dict[str, Any], tmp_path: Path) -> None:
    save(tmp_path / there)
    save(tmp_path / "COCO_train2014_000000000001.jpg", (50, 50))
    samples, faults, _ = every(put(tmp_path / "x.json", [row]), tmp_path)
    assert [(s.images, s.boxes) for s in samples] == [((there,), (UNIT,))] * 2 and not faults
    assert [sample.source for sample in samples] == ["refcoco#7@0", "refcoco#7@1"]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        pytest.param(lmms("a.jpg", file_name="b.jpg"), "other_name", id="two names of two pictures"),
        pytest.param(
            lmms(f"{COCO}_0.jpg", file_name="COCO_train2014_000000000001.jpg"), "other_name", id="two numbers"
        ),
        pytest.param(
            lmms("none.jpg", file_name="b.jpg"), "missing_image", id="the picture itself is not there"
        ),
        pytest.param(lmms(f"{COCO[:-1]}8_0.jpg"), "missing_image", id="another number is another picture"),
        pytest.param(lmms("a.jpg", iscrowd="perhaps"), "bad_field", id="a flag that says nothing"),
        pytest.param(lmms("a.jpg", bbox=[1, 2, 3, 4, 5, 6, 7, 8]), "bad_box", id="two boxes in a row"),
    ],
)
def test_rows_that_are_refused(row: dict[str, Any], kind: str, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", f"{COCO}.jpg", "COCO_train2014_000000000001.jpg"):
        save(tmp_path / name)
    samples, faults, _ = every(put(tmp_path / "x.json", [row]), tmp_path)
    assert not samples and kinds(faults) == [kind]


def test_embedded_pictures_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    """Rows may call every picture the same, and a picture of that name may lie there already."""
    pa = pytest.importorskip("pyarrow", reason="pyarrow comes with the train extra")
    parquet = pytest.importorskip("pyarrow.parquet")
    save(tmp_path / "images" / "image.png", (30, 30))
    raws = []
    for size in ((200, 100), (100, 50)):
        raw = io.BytesIO()
        Image.new("RGB", size).save(raw, "PNG")
        raws.append(raw.getvalue())
    rows = [lmms({"bytes": raw, "path": "image.png"}, file_name="image.png") for raw in (*raws, raws[0])]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    samples, faults, _ = every(tmp_path / "x.parquet", tmp_path / "images")
    assert not faults
    assert [(tmp_path / "images" / s.images[0]).read_bytes() for s in samples[::2]] == [*raws, raws[0]]
    assert [sample.boxes[0] for sample in samples[::2]] == [UNIT, (0.2, 0.2, 1.0, 1.0), UNIT]


def test_vlm_r1_with_several_images_says_nothing_of_the_box(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg")
    row = {**ROWS["vlm_r1"](PIXELS), "image": ["a.jpg", "a.jpg"]}
    samples, (fault,), _ = every(put(tmp_path / "x.json", [row]), tmp_path)
    assert not samples and "nothing says on which the box lies" in fault.cause


@pytest.mark.parametrize(
    ("answer", "target", "n"),
    [
        pytest.param("[20, 10, 100, 50]", 1, 1, id="nothing said: the last image"),
        pytest.param("In the first image: [20, 10, 100, 50]", 0, 1, id="the answer names the image"),
        pytest.param('[{"bbox_2d": [20, 10, 100, 50], "image_idx": 0}]', 0, 1, id="a key beside the box"),
        pytest.param("[20, 10, 100, 50] [0, 0, 200, 100]", 1, 2, id="two boxes of one answer"),
        pytest.param("Image 1: [20, 10, 100, 50] Image 2: [0, 0, 9, 9]", None, 0, id="boxes on two images"),
    ],
)
def test_lines_with_several_images(answer: str, target: int | None, n: int, tmp_path: Path) -> None:
    save(tmp_path / "a.jpg")
    save(tmp_path / "b.jpg")
    row = lines_row([], image=["b.jpg", "a.jpg"])
    row["conversations"] = [
        {"from": "human", "value": "<image><image>Where?"},
        {"from": "gpt", "value": answer},
    ]
    samples, faults, _ = every(put(tmp_path / "x.json", [row]), tmp_path, "vlm_r1_lines")
    assert [(s.target_image, s.boxes[0], len(s.boxes)) for s in samples] == [(target, UNIT, n)] * bool(n)
    assert kinds(faults) == ["which_image"] * (not n)


@pytest.mark.parametrize("reader", ["lisa", "llmseg", "reasonvos"])
def test_further_boxes_of_prepared_sets_are_kept_and_told(reader: str, tmp_path: Path) -> None:
    save(tmp_path / "a.jpg")
    row = ROWS[reader](PIXELS)
    field = {"lisa": "boxes", "llmseg": "bbox", "reasonvos": "bbox_list"}[reader]
    row[field] = (
        [*row[field][:2], [PIXELS, [0, 0, 200, 100]]] if reader == "reasonvos" else [PIXELS, [0, 0, 200, 100]]
    )
    (sample,), faults, notes = every(put(tmp_path / "x.json", [row]), tmp_path)
    assert (sample.boxes, sample.extra["further_boxes"]) == ((UNIT,), [[0.0, 0.0, 1.0, 1.0]]) and not faults
    assert notes[0].startswith("records with several boxes are asked for the first")


# --- ReasonSeg, raw ---


def shape(label: str, *points: tuple[float, float], **more: Any) -> dict[str, Any]:
    return {"label": label, "points": [list(point) for point in points], **more}


CORNERS = ((20, 10), (100, 50), (20, 50))
FIRST, SECOND = shape("target", *CORNERS), shape("target", (0, 0), (200, 0), (200, 100))
FLAG, IGNORE = shape("Flag", (1, 1), (9, 9), (1, 9)), shape("ignore area", (1, 1), (9, 9), (1, 9))


def put_shapes(folder: Path, shapes: list[Any], **more: Any) -> Path:
    save(folder / "a.jpg")
    return put(folder / "a.json", {"text": [TEXT], "is_sentence": True, "shapes": shapes, **more})


@pytest.mark.parametrize(
    ("shapes", "more", "boxes"),
    [
        pytest.param([FLAG, IGNORE, FIRST], {}, [UNIT], id="shapes labelled flag or ignore are no targets"),
        pytest.param(
            [FIRST, FLAG, SECOND], {}, [UNIT, (0, 0, 1, 1)], id="every target is a box, the first is scored"
        ),
        pytest.param([FIRST], {"imageWidth": 200, "imageHeight": 100}, [UNIT], id="a size that agrees"),
        pytest.param(
            [shape("x", (60, 30), (60, 50), shape_type="circle")], {}, [(0.2, 0.1, 0.4, 0.5)], id="a circle"
        ),
        pytest.param(
            [shape("x", (100, 10), (20, 50))], {"imagePath": "..\\x\\a.jpg"}, [UNIT], id="two corners"
        ),
    ],
)
def test_shapes_that_are_targets(
    shapes: list[Any], more: dict[str, Any], boxes: list[Any], tmp_path: Path
) -> None:
    (sample,), faults, _ = every(put_shapes(tmp_path, shapes, **more), tmp_path, "reasonseg_raw")
    assert list(sample.boxes) == boxes and not faults and sample.extra["label"] not in ("Flag", "ignore area")


@pytest.mark.parametrize(
    ("shapes", "more", "kind", "told"),
    [
        pytest.param(
            [FLAG, IGNORE], {}, "no_box", "1 labelled flag, 1 labelled ignore", id="no shape is a target"
        ),
        pytest.param([], {}, "no_box", "it is empty", id="no shapes"),
        pytest.param([shape("x", (1, 2))], {}, "no_box", "has no points", id="a shape without points"),
        pytest.param([shape("x", (1, 2), (float("nan"), 4))], {}, "no_box", "no points", id="a shape of NaN"),
        pytest.param(["x"], {}, "bad_field", "is no object", id="a shape that is no object"),
        pytest.param(
            [FIRST], {"imageWidth": 100, "imageHeight": 50}, "size_mismatch", "100x50", id="another size"
        ),
        pytest.param(
            [FIRST], {"imagePath": "b.jpg"}, "other_name", "b.jpg", id="imagePath names another picture"
        ),
    ],
)
def test_shapes_that_are_refused(
    shapes: list[Any], more: dict[str, Any], kind: str, told: str, tmp_path: Path
) -> None:
    save(tmp_path / "b.jpg")
    samples, (fault,), _ = every(put_shapes(tmp_path, shapes, **more), tmp_path, "reasonseg_raw")
    assert not samples and fault.kind == kind and told in fault.cause


# --- LLM-Seg40K, raw ---

RLE = {"size": [4, 5], "counts": [5, 2, 2, 2, 9]}
RLE_BOX = (0.2, 0.25, 0.6, 0.75)
RLE_WHOLE = {"size": [4, 5], "counts": [0, 20]}
RLE_NONE = {"size": [4, 5], "counts": [20]}


@pytest.mark.parametrize(
    ("rle", "boxes"),
    [
        pytest.param([RLE, RLE_WHOLE], [RLE_BOX, (0, 0, 1, 1)], id="a list of masks is a list of boxes"),
        pytest.param([RLE_NONE, RLE], [RLE_BOX], id="an empty mask among others"),
        pytest.param([RLE_NONE], "no_box", id="only empty masks"),
        pytest.param({**RLE, "counts": [5, 2, 2, 2]}, "bad_field", id="run lengths that end too early"),
        pytest.param({**RLE, "size": [5, 5]}, "bad_field", id="run lengths of another size"),
        pytest.param({"size": [8, 5], "counts": [5, 2, 33]}, "size_mismatch", id="a mask of another picture"),
        pytest.param({"size": [5, 4], "counts": [5, 2, 13]}, "size_mismatch", id="a mask turned on its side"),
    ],
)
def test_masks_of_llmseg(rle: Any, boxes: Any, tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", (5, 4))
    pair = {"question": TEXT, "answer": "it", "rle_seg": rle}
    samples, faults, _ = every(put(tmp_path / "x.json", {"a.jpg": {"qa_pairs": [pair]}}), tmp_path)
    assert [list(s.boxes) for s in samples] == ([boxes] if isinstance(boxes, list) else [])
    assert kinds(faults) == ([] if isinstance(boxes, list) else [boxes])


# --- ReVOS ---


def put_revos(folder: Path, masks: dict[str, Any], frames: list[str], **expression: Any) -> Path:
    put(folder / "mask_dict.json", masks)
    expressions = {"0": {"exp": TEXT, "obj_id": [1], "anno_id": [11], **expression}}
    return put(folder / "meta.json", {"videos": {"v": {"frames": frames, "expressions": expressions}}})


THREE = ["00000", "00001", "00002"]


@pytest.mark.parametrize(
    ("masks", "frames", "expression", "kind", "told"),
    [
        pytest.param(
            {"11": [RLE] * 2},
            THREE,
            {},
            "frame_mismatch",
            "2 mask(s), and the video 3",
            id="fewer masks than frames",
        ),
        pytest.param(
            {"11": [RLE] * 4},
            THREE,
            {},
            "frame_mismatch",
            "4 mask(s), and the video 3",
            id="more masks than frames",
        ),
        pytest.param(
            {"12": [RLE] * 3},
            THREE,
            {},
            "no_box",
            "no masks of the annotation 11",
            id="an annotation without masks",
        ),
        pytest.param(
            {"11": [RLE] * 3}, THREE[:2] * 2, {}, "frame_mismatch", "listed twice", id="a frame listed twice"
        ),
        pytest.param(
            {"11": [RLE] * 3}, THREE[::-1], {}, "frame_mismatch", "listed behind", id="frames out of order"
        ),
        pytest.param(
            {"11": [RLE] * 3},
            THREE,
            {"obj_id": [1, 2]},
            "frame_mismatch",
            "2 object(s)",
            id="objects and annotations not as many",
        ),
        pytest.param(
            {"11": [RLE] * 3}, THREE, {"anno_id": []}, "no_box", "is empty", id="an expression of nothing"
        ),
        pytest.param(
            {"11": [RLE, RLE, None]}, THREE, {}, "not_visible", "not seen", id="an object that is not seen"
        ),
        pytest.param(
            {"11": [RLE, RLE, {"size": [4, 5], "counts": "~"}]},
            THREE,
            {},
            "bad_field",
            "annotation 11",
            id="a damaged mask is not one that is not seen",
        ),
        pytest.param(
            {"11": [RLE] * 3}, THREE[:2], {}, "missing_image", "fewer than three", id="a video of two frames"
        ),
    ],
)
def test_revos_that_is_refused(
    masks: dict[str, Any], frames: list[str], expression: dict[str, Any], kind: str, told: str, tmp_path: Path
) -> None:
    samples, (fault,), _ = every(put_revos(tmp_path, masks, frames, **expression))
    assert not samples and fault.kind == kind and told in fault.cause


def test_revos_of_several_objects_is_asked_for_the_box_around_them(tmp_path: Path) -> None:
    other = {"size": [4, 5], "counts": [16, 1, 3]}
    masks = {"11": [None, None, RLE], "12": [None, None, other]}
    path = put_revos(tmp_path, masks, THREE, obj_id=[1, 2], anno_id=[11, 12])
    (sample,), faults, notes = every(path)
    assert sample.boxes == ((0.2, 0.0, 1.0, 0.75),) and not faults
    assert sample.extra["boxes_of_objects"] == [list(RLE_BOX), [0.8, 0.0, 1.0, 0.25]]
    assert "expressions of several objects are asked for the box around all" in notes[0]
    masks["12"][2] = {"size": [8, 5], "counts": [16, 1, 23]}
    _, (fault,), _ = every(put_revos(tmp_path, masks, THREE, obj_id=[1, 2], anno_id=[11, 12]))
    assert fault.kind == "frame_mismatch" and "5x4 and 5x8" in fault.cause


@pytest.mark.parametrize(
    ("size", "orientation", "told"),
    [
        pytest.param((5, 4), 1, "", id="a mask of the frame's size"),
        pytest.param(
            (10, 8), 1, "is 10x8, and the annotation says 5x4", id="a mask of another size than its frame's"
        ),
        pytest.param((5, 4), 6, "drawn on the stored frame", id="a mask of a rotated frame"),
    ],
)
def test_masks_and_frames_have_one_size(
    size: tuple[int, int], orientation: int, told: str, tmp_path: Path
) -> None:
    for name in THREE:
        save(tmp_path / "JPEGImages" / "v" / f"{name}.JPG", size, orientation)
    samples, faults, _ = every(put_revos(tmp_path, {"11": [RLE] * 3}, THREE), tmp_path)
    assert len(samples) == (not told) and all(told in fault.cause for fault in faults)
    assert not told or kinds(faults) == ["size_mismatch"]
    assert told or samples[0].images[2] == "JPEGImages/v/00002.JPG"


# --- ReasonVOS ---


def put_reasonvos(folder: Path, masks: list[str], obj_id: Any = 3) -> Path:
    for name in masks:
        path = folder / "Annotations" / "MOSE_v_3" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        mask = Image.new("L", (200, 100))
        mask.paste(255, (20, 10, 100, 50))
        mask.save(path)
    expressions = [{"obj_id": obj_id, "exp_id": 0, "exp_text": TEXT, "is_sent": 1}]
    meta = {"videos": {"v": {"source": "MOSE", "frames": THREE, "expressions": expressions}}}
    return put(folder / "meta_expressions.json", meta)


def test_a_mask_that_is_not_there_is_not_an_object_that_is_not_seen(tmp_path: Path) -> None:
    """The row: a mask that is not there is not an object that is not seen."""
    path = put_reasonvos(tmp_path, THREE[:2])
    samples, (fault,), _ = every(path)
    assert not samples and fault.kind == "frame_mismatch"
    assert "MOSE_v_3 has 2 mask(s), and the video 3 frame(s): that of the asked frame 00002" in fault.cause
    Image.new("L", (200, 100)).save(tmp_path / "Annotations" / "MOSE_v_3" / "00002.png")
    samples, (fault,), _ = every(path)
    assert not samples and fault.kind == "not_visible"


def test_masks_missing_of_other_frames_are_told(tmp_path: Path) -> None:
    """The row: masks missing of other frames."""
    (sample,), faults, notes = every(put_reasonvos(tmp_path, THREE[1:], obj_id=[3]))
    assert sample.boxes == (UNIT,) and not faults
    assert notes == ["MOSE_v_3 has 2 mask(s), and the video 3 frame(s): those that are there are used"]


@pytest.mark.parametrize(
    ("damage", "kind", "told"),
    [
        pytest.param("strange", "frame_mismatch", "none of these is 00009", id="a mask of no frame"),
        pytest.param("broken", "bad_image", "cannot be decoded", id="a mask that cannot be decoded"),
        pytest.param("jpeg", "bad_image", "is a JPEG", id="a mask with blurred edges"),
        pytest.param(
            "size", "size_mismatch", "the annotation says 100x50", id="a mask image of another size"
        ),
        pytest.param("folder", "no_box", "no masks", id="an object without masks"),
    ],
)
def test_masks_of_reasonvos_that_are_refused(damage: str, kind: str, told: str, tmp_path: Path) -> None:
    path = put_reasonvos(tmp_path, THREE, obj_id=4 if damage == "folder" else 3)
    masks = tmp_path / "Annotations" / "MOSE_v_3"
    for name in THREE:
        save(tmp_path / "JPEGImages" / "v" / f"{name}.jpg")
    if damage == "strange":
        Image.new("L", (200, 100)).save(masks / "00009.png")
    elif damage == "broken":
        (masks / "00002.png").write_bytes((masks / "00002.png").read_bytes()[:40])
    elif damage == "jpeg":
        Image.new("L", (200, 100), 9).save(masks / "00002.png", "JPEG")
    elif damage == "size":
        Image.new("L", (100, 50), 9).save(masks / "00002.png")
    samples, (fault,), _ = every(path, tmp_path)
    assert not samples and fault.kind == kind and told in fault.cause


# --- prepared videos ---


@pytest.mark.parametrize("n", [2, 4, 5])
def test_images_and_boxes_that_are_not_as_many(n: int, tmp_path: Path) -> None:
    save(tmp_path / "a.jpg")
    row = {**ROWS["reasonvos"](PIXELS), "bbox_list": [PIXELS] * n}
    samples, (fault,), _ = every(put(tmp_path / "x.json", [row]), tmp_path)
    assert not samples and fault.kind == ("no_box" if n == 2 else "frame_mismatch")
    assert f"3 image(s) and {n} box(es)" in fault.cause


REVOS = {"video_id": "v", "frames": [0, 1, 2], "question": TEXT, "bbox_list": [[], [], PIXELS]}


@pytest.mark.parametrize(
    ("frames", "kind", "usable"),
    [
        pytest.param([0, 2, 1], "frame_mismatch", True, id="numbers of frames out of order"),
        pytest.param([0, 1, 1], "frame_mismatch", True, id="a number of a frame twice"),
        pytest.param([0, 1, 9], "missing_image", False, id="a number that no frame has"),
        pytest.param([0, 1, True], "missing_image", False, id="true in the place of a number"),
        pytest.param([0, 1], "no_box", False, id="two frames"),
    ],
)
def test_frames_of_revos(frames: list[Any], kind: str, usable: bool, tmp_path: Path) -> None:
    for name in ("1.jpg", "10.jpg", "2.jpg", "._1.jpg"):  # macOS leaves files that begin so
        save(tmp_path / "v" / name)
    (plain,), faults, _ = every(put(tmp_path / "x.json", [REVOS]), tmp_path)
    assert plain.images == ("v/1.jpg", "v/2.jpg", "v/10.jpg") and not faults
    samples, (fault,), _ = every(put(tmp_path / "x.json", [{**REVOS, "frames": frames}]), tmp_path)
    assert (fault.kind, fault.usable, len(samples)) == (kind, usable, int(usable))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        pytest.param("2.png", "2.jpg and 2.png for one frame", id="two pictures of one frame"),
        pytest.param("cover.jpg", "has no number", id="a picture without a number among the frames"),
    ],
)
def test_folders_whose_frames_are_not_clear(name: str, told: str, tmp_path: Path) -> None:
    for frame in ("1.jpg", "2.jpg", "3.jpg", name):
        save(tmp_path / "v" / frame)
    samples, (fault,), _ = every(put(tmp_path / "x.json", [REVOS]), tmp_path)
    assert not samples and fault.kind == "frame_mismatch" and told in fault.cause


@given(st.integers(3, 40), st.integers(0, 45))
def test_masks_by_place_are_only_believed_if_there_are_as_many(n_frames: int, n_masks: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        frames = [f"{i:05d}" for i in range(n_frames)]
        samples, faults, _ = every(put_revos(Path(folder), {"11": [RLE] * n_masks}, frames))
    assert len(samples) == (n_masks == n_frames) and len(samples) + len(faults) == 1
