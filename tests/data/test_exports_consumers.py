"""What is written, opened with the libraries that it is written for; each is skipped where it is not installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from univg.data.exports import SUFFIXES, Export, export
from univg.data.readers import ImageRoot
from univg.grounding.samples import GroundingSample

pytestmark = pytest.mark.slow

BOX = (0.6, 0.1, 0.9, 0.35)
COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures of one name with a coloured box each, the second stored on its side (EXIF)."""
    for place, colour, turned in (("1", "red", False), ("2", "blue", True)):
        image = Image.new("RGB", (320, 200), "grey")
        ImageDraw.Draw(image).rectangle((192, 20, 288, 70), fill=colour)
        exif = Image.Exif()
        if turned:
            image, exif[0x0112] = image.transpose(Image.Transpose.ROTATE_90), 6
        path = tmp_path / "pictures" / place / "x.jpg"
        path.parent.mkdir(parents=True)
        image.save(path, exif=exif, quality=95)
    return tmp_path / "pictures"


def samples() -> list[GroundingSample]:
    given: dict[str, Any] = {"task": "diff", "boxes": (BOX,)}
    both = ("1/x.jpg", "2/x.jpg")
    return [
        GroundingSample(
            both[:1], "Where is the red one?", **given, extra={"category": "red"}, source="set#1"
        ),
        GroundingSample(both, "And the blue one?", **given, target_image=1, extra={"category": "blue"}),
    ]


def write(folder: Path, to: str, out: str) -> Path:
    path = folder.parent / f"{out}{SUFFIXES[to] if to != 'coco' else ''}"
    assert export(samples(), to, path, Export("direct", ImageRoot(folder))) == 2
    return path


def is_inside(picture: Any, box_px: Any, label: str) -> bool:
    """Whether the colour of the label's name fills the box of a picture (RGB)."""
    x1, y1, x2, y2 = (int(value) for value in box_px)
    pixels = Image.fromarray(picture).crop((x1 + 6, y1 + 6, x2 - 6, y2 - 6)).getextrema()
    return all(
        abs(edge - wanted) < 30
        for band, wanted in zip(pixels, COLOURS[label], strict=True)
        for edge in band  # type: ignore[union-attr]
    )


@pytest.mark.parametrize("to", ["yolo", "coco"])
def test_supervision(to: str, folder: Path) -> None:
    supervision = pytest.importorskip("supervision", reason="supervision is not installed")
    path = write(folder, to, "set")
    if to == "yolo":
        places = [path / "images/train", path / "labels/train", path / "data.yaml"]
        found = supervision.DetectionDataset.from_yolo(*map(str, places))
    else:
        places = [path / "images/train", path / "annotations/instances_train.json"]
        found = supervision.DetectionDataset.from_coco(*map(str, places))
    assert found.classes == ["blue", "red"] and len(found) == 2
    for _, picture, boxes in found:
        (box,), (number,) = boxes.xyxy, boxes.class_id
        assert box == pytest.approx([192, 20, 288, 70], abs=0.01)
        assert is_inside(picture[:, :, ::-1].copy(), box, found.classes[number])


def test_ultralytics(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path / "config"))
    data = pytest.importorskip("ultralytics.data", reason="ultralytics is not installed")
    from ultralytics.data.utils import check_det_dataset  # type: ignore[import-not-found]

    said = check_det_dataset(str(write(folder, "yolo", "set") / "data.yaml"), autodownload=False)
    found = data.YOLODataset(said["train"], data=said, augment=False, imgsz=320)
    assert len(found) == 2
    for row in found.get_labels():
        (box,), ((number,),) = row["bboxes"], row["cls"]
        assert box == pytest.approx([0.75, 0.225, 0.3, 0.25])
        with Image.open(row["im_file"]) as picture:
            assert picture.getexif().get(0x0112, 1) == 1
        assert row["shape"] == (200, 320) and said["names"][int(number)] in COLOURS


def test_pycocotools(folder: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    found = coco.COCO(str(write(folder, "coco", "set") / "annotations/instances_train.json"))
    assert [found.loadCats(number)[0]["name"] for number in found.getCatIds()] == ["blue", "red"]
    assert [one["bbox"] for one in found.loadAnns(found.getAnnIds())] == [[192, 20, 96, 50]] * 2


def test_datumaro(folder: Path) -> None:
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed")
    for to, kind in (("coco", "coco"), ("yolo", "yolo")):
        found = datumaro.Dataset.import_from(str(write(folder, to, to)), kind)
        boxes = [box for item in found if item.subset == "train" for box in item.annotations]
        assert [box.get_bbox() for box in boxes] == [pytest.approx([192, 20, 96, 50])] * 2


def test_label_studio(folder: Path) -> None:
    sdk = pytest.importorskip("label_studio_sdk.label_interface", reason="label_studio_sdk is not installed")
    path = write(folder, "label_studio", "tasks")
    interface = sdk.LabelInterface(path.with_name("label-config.xml").read_text("utf-8"))
    interface.validate()
    for task in json.loads(path.read_text("utf-8")):
        assert interface.validate_task({"data": task["data"]})
        for prediction in task["predictions"]:
            assert not interface.validate_prediction(prediction, return_errors=True)


def test_fiftyone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FiftyOne itself over an imitation of its database, since it brings no `mongod` everywhere."""
    mongomock = pytest.importorskip("mongomock", reason="mongomock is not installed")
    pymongo = pytest.importorskip("pymongo", reason="fiftyone is not installed")
    import mongomock.codec_options as options

    class Client(mongomock.MongoClient):
        _closed = False

        def server_info(self) -> dict[str, Any]:
            return {"version": "6.0.0", "versionArray": [6, 0, 0, 0]}

    monkeypatch.setattr(options, "is_supported", lambda given: given)
    monkeypatch.setattr(pymongo, "MongoClient", Client)
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", "mongodb://localhost:27017")
    monkeypatch.setenv("FIFTYONE_DO_NOT_TRACK", "1")
    connection = pytest.importorskip("mongoengine.connection", reason="fiftyone is not installed")
    monkeypatch.setattr(connection, "MongoClient", Client)
    pytest.importorskip("fiftyone", reason="fiftyone is not installed")
    path = write(folder, "fiftyone", "set")
    monkeypatch.syspath_prepend(str(path))
    monkeypatch.delitem(sys.modules, "import_fiftyone", raising=False)
    import import_fiftyone  # type: ignore[import-not-found]

    dataset = import_fiftyone.make_dataset(path, "test")
    assert (dataset.media_type, dataset.group_slices) == ("group", ["image_1", "image_2"])
    found = {}
    for slice_name in dataset.group_slices:
        dataset.group_slice = slice_name
        for sample in dataset:
            for box in sample.ground_truth.detections:
                found[slice_name, box.label] = box.bounding_box
                with Image.open(sample.filepath) as picture:
                    import numpy as np

                    assert is_inside(np.asarray(picture.convert("RGB")), (192, 20, 288, 70), box.label)
    wanted = pytest.approx([0.6, 0.1, 0.3, 0.25])
    assert found == {("image_1", "red"): wanted, ("image_2", "blue"): wanted}
