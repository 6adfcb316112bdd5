"""Folders: which format they hold, where a COCO folder's pictures lie, and damaged files of every kind."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from PIL import Image

from univg.data.readers import RecordFault, detect, read
from univg.errors import UnivgError
from univg.grounding.boxes import Box
from univg.grounding.samples import GroundingSample

Everything: TypeAlias = tuple[list[GroundingSample], list[RecordFault], list[str]]
Save = Callable[..., Path]
Every = Callable[..., Everything]

CUP = (20, 10, 80, 40)
CUP_UNIT = (0.1, 0.1, 0.5, 0.5)


def put(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def coco_text(*names: str, size: tuple[int, int] = (200, 100)) -> str:
    images = [
        {"id": k, "file_name": name, "width": size[0], "height": size[1]} for k, name in enumerate(names)
    ]
    boxes = [{"id": k, "image_id": k, "category_id": 1, "bbox": CUP} for k in range(len(names))]
    categories = [{"id": 1, "name": "cup"}]
    return json.dumps({"info": {}, "images": images, "annotations": boxes, "categories": categories})


@pytest.mark.parametrize(
    ("annotations", "name", "picture_name"),
    [
        pytest.param(
            "annotations/instances_train2017.json", "1.jpg", "train2017/1.jpg", id="COCO's own layout"
        ),
        pytest.param("annotations/instances_default.json", "1.jpg", "images/1.jpg", id="CVAT's COCO folder"),
        pytest.param(
            "annotations/instances_val.json", "1.jpg", "images/val/1.jpg", id="a split's folder under images"
        ),
        pytest.param(
            "annotations/instances_val.json", "val/1.jpg", "images/val/1.jpg", id="a split in the names"
        ),
        pytest.param("train/_annotations.coco.json", "1.jpg", "train/1.jpg", id="RoboFlow's COCO folder"),
        pytest.param("result.json", "images\\1.jpg", "images/1.jpg", id="Label Studio's COCO export"),
        pytest.param("labels.json", "1.jpg", "1.jpg", id="a COCO file beside the pictures"),
    ],
)
def test_coco_folders(
    annotations: str, name: str, picture_name: str, tmp_path: Path, picture: Save, every: Every
) -> None:
    """A picture of the same name in another split's folder, of another size, is never taken."""
    picture(picture_name)
    if "/" in picture_name and "images/1" not in picture_name:
        picture("other/1.jpg", (100, 200))
    put(tmp_path, annotations, coco_text(name))
    put(tmp_path, "annotations/captions_train2017.json", coco_text("x.jpg"))
    assert detect(tmp_path) == "coco"
    for images in (tmp_path, None):
        (sample,), faults, _ = every(tmp_path, images)
        assert (sample.boxes, faults) == ((CUP_UNIT,), [])
        assert sample.images[0] == (picture_name if images else (tmp_path / picture_name).as_posix())


def test_the_place_where_most_pictures_are(tmp_path: Path, picture: Save, every: Every) -> None:
    """A name that is not there takes no other's picture, wherever that lies."""
    for name in ("images/a.jpg", "images/sub/c.jpg", "images/d.jpg"):
        picture(name)
    names = ("images\\a.jpg", "images\\sub\\c.jpg", "..\\..\\upload\\d.jpg", "..\\label\\c.jpg")
    put(tmp_path, "result.json", coco_text(*names))
    samples, faults, _ = every(tmp_path, tmp_path)
    assert [sample.images[0] for sample in samples] == ["images/a.jpg", "images/d.jpg", "images/sub/c.jpg"]
    assert [(fault.record, fault.kind) for fault in faults] == [("coco#3", "missing_image")]


def test_a_coco_folder_with_two_places_of_pictures(tmp_path: Path, picture: Save, every: Every) -> None:
    """Without the split's name nothing says whose pictures are meant."""
    picture("1.jpg"), picture("images/1.jpg")
    put(tmp_path, "annotations/instances_x.json", coco_text("1.jpg"))
    with pytest.raises(UnivgError, match=r"its pictures may be those in .* or .*images.*--images"):
        every(tmp_path, tmp_path)
    (sample,), _, _ = every(tmp_path, tmp_path / "images")
    assert sample.images == ("1.jpg",)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        pytest.param(
            ["annotations/instances_train.json", "annotations/instances_val.json"],
            "2 COCO files in this folder (annotations/instances_train.json, annotations/instances_val.json)",
            id="a folder with two COCO files",
        ),
        pytest.param(
            ["a.xml", "labels/a.txt"],
            "annotations in several formats: voc (a.xml), yolo (labels/a.txt)",
            id="a folder with VOC and YOLO",
        ),
        pytest.param(
            ["labels/a.txt", "instances_x.json"],
            "annotations in several formats: yolo (labels/a.txt), coco (instances_x.json)",
            id="a folder with YOLO and COCO",
        ),
        pytest.param(
            ["boxes.csv", "instances_x.json"],
            "annotations in several formats: coco (instances_x.json), csv (boxes.csv)",
            id="a folder with COCO and a table",
        ),
        pytest.param(
            ["A/data.yaml", "A/labels/a.txt", "B/data.yaml", "B/labels/a.txt"],
            "no set, but a folder of sets (A/data.yaml, B/data.yaml)",
            id="a folder of two YOLO sets",
        ),
    ],
)
def test_folders_that_hold_several_sets(files: list[str], says: str, tmp_path: Path, every: Every) -> None:
    texts = {".xml": "<annotation/>", ".txt": "0 .5 .5 .1 .1", ".json": coco_text("a.jpg")}
    texts |= {".yaml": "names: [cup]", ".csv": "image,class,xmin,ymin,xmax,ymax\na.jpg,cup,1,1,9,9"}
    for name in files:
        put(tmp_path, name, texts[Path(name).suffix])
    with pytest.raises(UnivgError) as told:
        every(tmp_path, tmp_path)
    assert says in str(told.value)


def test_a_yaml_file_that_is_no_set(tmp_path: Path) -> None:
    with pytest.raises(UnivgError, match="a YAML file without names of classes"):
        detect(put(tmp_path, "sft.yaml", "lr: 1e-5"))


# --- damaged files ---

PICTURES = {"images/train/1.jpg": (200, 100), "images/val/1.jpg": (120, 300), "images/val/2.png": (64, 64)}
LABELS = {
    "labels/train/1.txt": "0 0.5 0.5 0.25 0.5\n1 0.2 0.3 0.1 0.2\n",
    "labels/val/1.txt": "1 0.31 0.42 0.2 0.1\n",
    "labels/val/2.txt": "0 0.6 0.6 0.3 0.1\n",
}
SETS: dict[str, dict[str, str]] = {
    "yolo": {
        "data.yaml": "path: .\ntrain: images/train\nval: images/val\nnc: 2\nnames:\n  0: cat\n  1: dog\n",
        **LABELS,
    },
    "yolo lists": {
        "data.yaml": "train: t.txt\nval: images/val\nnames: [a, b]",
        "t.txt": "images/train/1.jpg\n",
        **LABELS,
    },
    "csv": {
        "b.csv": "filename,width,height,class,xmin,ymin,xmax,ymax\nimages/train/1.jpg,200,100,cat,75,25,125,75\n"
        "images/train/1.jpg,200,100,dog,30,20,50,40\nimages/val/1.jpg,120,300,dog,25,111,49,141\n"
    },
    "csv of sides": {
        "b.csv": "image;class;x;y;w;h\nimages/train/1.jpg;cat;75,0;25,0;50,0;50,0\n"
        "images/train/1.jpg;dog;0,0;20,0;20,5;20,5\nimages/val/1.jpg;dog;1,5;111,0;24,0;30,0\n"
    },
    "csv without a header": {
        "b.csv": "images/train/1.jpg,75,25,125,75,cat\nimages/val/1.jpg,25,111,49,141,dog\n"
    },
    "csv of AutoML": {
        "b.csv": "TRAIN,gs://b/images/train/1.jpg,cat,0.375,0.25,,,0.625,0.75,,\n"
        "TEST,gs://b/images/val/1.jpg,dog,0.2,0.37,,,0.4,0.47,,\n"
    },
    "open images": {
        "b.csv": "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf\n"
        "2,x,/m/2,1,0.45,0.75,0.55,0.65,0\n2,x,/m/1,1,0.375,0.625,0.25,0.75,0\n",
        "class-descriptions-boxable.csv": "/m/1,cat\n/m/2,dog\n",
    },
    "coco": {
        "annotations/instances_train.json": coco_text("1.jpg"),
    },
}
DAMAGES = [*"\n, 0-.\t;\":[{]'\r/\0", "nan", "1e9", "images", "99", "..", "\ufeff", "&a", "*a", "!!x", "ü"]


def damage(text: str, draw: random.Random) -> bytes:
    """Change a few places of a text: something put in, taken out, overwritten, repeated, or a line left out."""
    raw = bytearray(text.encode())
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        at, kind = draw.randrange(len(raw) + 1), draw.randrange(5)
        if kind == 0:
            raw[at:at] = draw.choice(DAMAGES).encode()
        elif kind == 1:
            del raw[at : at + draw.randint(1, 8)]
        elif kind == 2:
            raw[at : at + 1] = bytes([draw.randrange(256)])
        elif kind == 3:
            there = draw.randrange(len(raw) + 1)
            raw[at:at] = raw[there : there + draw.randint(1, 30)]
        else:
            lines = raw.split(b"\n")
            del lines[draw.randrange(len(lines))]
            raw = bytearray(b"\n".join(lines))
    return bytes(raw)


def boxes_of(samples: Iterator[GroundingSample]) -> set[tuple[str, Box]]:
    return {(sample.images[0], box) for sample in samples for box in sample.boxes}


def check_damaged(name: str, times: int, tmp_path: Path) -> None:
    for file, size in PICTURES.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(tmp_path / file)
    files = SETS[name]
    for file, text in files.items():
        put(tmp_path, file, text)
    target = tmp_path if name in ("yolo", "yolo lists", "coco") else tmp_path / "b.csv"
    right = boxes_of(read(target, images=tmp_path))
    assert right
    draw = random.Random(name)
    for _ in range(times):
        file = draw.choice(list(files))
        (tmp_path / file).write_bytes(damage(files[file], draw))
        faults: list[RecordFault] = []
        found: set[tuple[str, Box]] = set()
        told = ""
        try:
            found = boxes_of(read(target, images=tmp_path, on_fault=faults.append))
        except UnivgError as error:
            told = str(error)
        assert "\n" not in told
        for image, box in found - right:
            assert not any(box == other for there, other in right if there != image), (image, box)
        put(tmp_path, file, files[file])


@pytest.mark.parametrize("name", SETS)
def test_a_damaged_file_gives_samples_faults_or_one_line(name: str, tmp_path: Path) -> None:
    check_damaged(name, 60, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_two_thousand_damaged_files(name: str, tmp_path: Path) -> None:
    check_damaged(name, 2000, tmp_path)
