"""Files that are recognised and not read: each says what it is and how to convert it, and is taken for nothing else."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from univg.data.readers import detect, read
from univg.data.readers.strangers import STRANGERS
from univg.errors import UnivgError

KITTI = "Car 0.00 0 -1.58 587.01 173.33 614.12 200.12 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"
BOX_2D = {"x1": 10, "y1": 10, "x2": 50, "y2": 50}
PHRASE = {"region_id": 1, "phrase": "a cat", "x": 1, "y": 2, "width": 3, "height": 4}
VIA = {"filename": "a.jpg", "size": 9, "regions": [], "file_attributes": {}}


FILES: list[tuple[str, Any, str, str]] = [
    (
        "predictions.jsonl",
        [{"id": "1", "text": "(1,2),(3,4)", "answer": [1, 2, 3, 4]}],
        "answers of a model",
        "univg score",
    ),
    ("wrapped.json", {"train": [{"messages": [], "images": ["a.jpg"]}]}, "records in an object", "jq"),
    ("data.json", {"data": [{"problem": "x", "image": "a.jpg"}]}, "records in an object", "jq"),
    ("model.safetensors", b"\x08\0\0\0\0\0\0\0{}", "a model", "--model"),
    ("a.xlsx", b"PK\x03\x04", "an Excel workbook", "CSV"),
    ("train-00000-of-00010.tfrecord", b"\0\1", "a TFRecord", "fiftyone convert"),
    ("coco_train.record-00003-of-00100", b"\0\1", "a TFRecord", "fiftyone convert"),
    ("a.mat", b"MATLAB 5.0 MAT-file, Platform", "a MATLAB file", "scipy"),
    ("a.h5", b"\x89HDF\r\n\x1a\n", "an HDF5 file", "h5py"),
    ("a.npy", b"\x93NUMPY\1\0", "NumPy arrays", "image, problem"),
    ("refs(unc).p", pickle.dumps([{"ref_id": 1}]), "a Python pickle", "univg data fetch"),
    ("refs", pickle.dumps([{"ref_id": 1}], protocol=2), "a Python pickle", "univg data fetch"),
    ("refs(google).p", pickle.dumps([{"ref_id": 1}], protocol=0), "a Python pickle", "univg data fetch"),
    ("a.mp4", b"\0\0\0\x18ftyp", "a video", "frames"),
    (
        "RefCOCO.tsv",
        "index\timage\tquestion\tanswer\tsplit\n0\tAAAA\tcat\t[1,2]\tval\n",
        "VLMEvalKit",
        "rows",
    ),
    (
        "via.csv",
        "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes\n",
        "VIA's CSV",
        "COCO",
    ),
    (
        "ls.csv",
        "annotation_id,annotator,created_at,id,image,label\n1,1,x,1,a.jpg,[]\n",
        "Label Studio's CSV",
        "JSON",
    ),
    ("000001.txt", KITTI, "KITTI", "fiftyone convert"),
    ("P0001.txt", "1.0 2.0 3.0 2.0 3.0 4.0 1.0 4.0 plane 0\n", "DOTA", "datum convert -if dota"),
    ("gt.txt", "1,1,10,20,30,40,1,1,0.9\n", "MOT", "datum convert -if mot_seq"),
    ("a.txt", "0 0.5 0.5 0.25 0.25\n", "YOLO", "data.yaml"),
    ("a.txt", "12 0.1 0.1 0.5 0.1 0.5 0.5\n", "YOLO", "data.yaml"),
    ("tasks.json", [{"data": {"image": "a.jpg"}}], "Label Studio's tasks without annotations", "annotate"),
    ("via.json", {"_via_settings": {}, "_via_img_metadata": {"a.jpg9": VIA}}, "VIA", "COCO format"),
    ("via.json", {"a.jpg9": VIA}, "VIA", "COCO format"),
    (
        "d.json",
        {"info": {}, "categories": {"label": {"labels": []}}, "items": [{"id": "a"}]},
        "Datumaro",
        "datum convert",
    ),
    (
        "a.jpg.json",
        {"tags": [{}], "size": {"height": 1, "width": 2}, "objects": [{"classTitle": "cat"}]},
        "Supervisely",
        "COCO",
    ),
    ("l.ndjson", [{"data_row": {"id": "x"}, "media_attributes": {}, "projects": {}}], "Labelbox", "fiftyone"),
    ("l.json", [{"ID": "x", "Labeled Data": "http://x", "Label": {}}], "Labelbox's older", "fiftyone"),
    (
        "a.jpg.json",
        {"metadata": {"name": "a.jpg"}, "instances": [{"type": "bbox"}]},
        "SuperAnnotate",
        "'COCO'",
    ),
    (
        "a.json",
        {"version": "2.0", "item": {"name": "a.jpg"}, "annotations": [{"name": "cat"}]},
        "V7 Darwin",
        "darwin convert coco",
    ),
    ("e.json", [{"label_hash": "x", "data_units": {}}], "Encord", "CocoExporter"),
    (
        "s.json",
        [{"task_id": "x", "type": "annotation", "response": {"annotations": []}}],
        "Scale AI",
        "image, problem",
    ),
    ("m.manifest", [{"source-ref": "s3://a/b.jpg", "x": {}}], "SageMaker", "fiftyone"),
    ("v.json", {"asset": {"name": "a.jpg"}, "regions": [{"id": "x"}]}, "VoTT", "datum convert -if vott_json"),
    (
        "c.json",
        [{"image": "a.jpg", "annotations": [{"label": "cat", "coordinates": {"x": 1}}]}],
        "CreateML",
        "COCO",
    ),
    (
        "r.json",
        [{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5}],
        "a detector's results",
        "annotation",
    ),
    (
        "b.json",
        [{"name": "a.jpg", "labels": [{"category": "car", "box2d": BOX_2D}]}],
        "BDD100K",
        "bdd100k.label.to_coco",
    ),
    (
        "region_descriptions.json",
        [{"id": 1, "regions": [PHRASE]}],
        "Visual Genome's region",
        "image, problem",
    ),
    (
        "objects.json",
        [{"image_id": 1, "objects": [{"names": ["cat"], "x": 1, "y": 2, "w": 3, "h": 4}]}],
        "Visual Genome's obj",
        "COCO",
    ),
    (
        "q.json",
        {"02930152": {"imageId": "1", "question": "?", "semantic": []}},
        "GQA's questions",
        "image, problem",
    ),
    ("g.json", {"2407890": {"width": 640, "height": 480, "objects": {}}}, "GQA's scene graphs", "COCO"),
    ("a.odgt", [{"ID": "x", "gtboxes": [{"tag": "person"}]}], "CrowdHuman", "COCO"),
]


def put(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list) and path.suffix != ".json":
        content = "".join(json.dumps(row) + "\n" for row in content)
    elif isinstance(content, (list, dict)):
        content = json.dumps(content, indent=1)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "what", "how"), [pytest.param(*row, id=f"{row[2]}: {row[0]}") for row in FILES]
)
def test_files_that_are_recognised(name: str, content: Any, what: str, how: str, tmp_path: Path) -> None:
    path = put(tmp_path / name, content)
    with pytest.raises(UnivgError) as error:
        detect(path)
    assert error.value.cause.startswith("this is ") and what in error.value.cause
    assert error.value.place == str(path) and how in error.value.remedy
    assert "\n" not in str(error.value)


FOLDERS: list[tuple[list[str], str, str]] = [
    (["run.json", "rows-0-of-1.jsonl", "state-0-of-1.json"], "a run of univg evaluate", "univg report"),
    (["config.json", "model.safetensors", "tokenizer.json"], "a model", "--model"),
    (["data.mdb", "lock.mdb"], "an LMDB database", "lmdb"),
    (["train/cats.tfrecord", "train/cats_label_map.pbtxt"], "a TFRecord", "fiftyone convert"),
    (["training/label_2/000001.txt", "training/image_2/000001.png"], "KITTI", "fiftyone convert"),
    (["meta.json", "ds/ann/a.jpg.json", "ds/img/a.jpg"], "Supervisely", "COCO"),
    (["Sentences/1.txt", "Annotations/1.xml"], "Flickr30k Entities", "image, problem"),
    (["images/ADE/training/ADE_train_00000001_seg.png"], "ADE20K", "datum convert -if ade20k2020"),
    (["SegmentationObject/1.png", "JPEGImages/1.jpg"], "Pascal VOC's masks", "datum convert"),
    (["a.jpg", "b/c.PNG"], "pictures without annotations", "--images"),
]


@pytest.mark.parametrize(
    ("names", "what", "how"), [pytest.param(*row, id=f"folder: {row[1]}") for row in FOLDERS]
)
def test_folders_that_are_recognised(names: list[str], what: str, how: str, tmp_path: Path) -> None:
    for name in names:
        put(tmp_path / name, "{}")
    with pytest.raises(UnivgError) as error:
        detect(tmp_path)
    assert (
        error.value.cause.startswith("this is ") and what in error.value.cause and how in error.value.remedy
    )


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return Path.mkdir, (Path(tmp_path / "opened"),)  # type: ignore[return-value]

    for protocol in range(6):
        path = tmp_path / f"refs{protocol}.p"
        path.write_bytes(pickle.dumps(Trap(), protocol=protocol))
        with pytest.raises(UnivgError, match="Python pickle"):
            detect(path)
    assert not (tmp_path / "opened").exists()


def test_every_row_of_the_table_has_an_example() -> None:
    examples = [what for _, _, what, _ in FILES] + [what for _, what, _ in FOLDERS]
    rare = ("SQLite", "older JSON")
    without = [s.what for s in STRANGERS if not any(e in s.what for e in (*examples, *rare))]
    assert without == []


# --- of COCO's family ---


def coco(**more: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 200, "height": 100}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 10, 80, 40]}],
        **more,
    }


def test_captions_have_no_boxes(tmp_path: Path) -> None:
    path = put(tmp_path / "captions.json", coco(annotations=[{"id": 1, "image_id": 1, "caption": "a cat"}]))
    with pytest.raises(UnivgError, match=r"COCO captions.*instances_"):
        list(read(path))


def test_lvis(tmp_path: Path) -> None:
    """LVIS names images by an address, and says of which categories not all are annotated."""
    image = {"id": 1, "coco_url": "http://images.example.org/val2017/a.jpg", "width": 200, "height": 100}
    path = put(
        tmp_path / "lvis.json",
        coco(images=[{**image, "not_exhaustive_category_ids": [], "neg_category_ids": [2]}]),
    )
    (sample,) = read(path)
    assert sample.images == ("val2017/a.jpg",) and sample.boxes == ((0.1, 0.1, 0.5, 0.5),)
    notes: list[str] = []
    path = put(tmp_path / "lvis.json", coco(images=[{**image, "not_exhaustive_category_ids": [1]}]))
    assert list(read(path, on_note=notes.append)) == []
    assert notes == ["1 box(es) are marked not all annotated: there, but no targets"]


def test_keypoints_and_objects365_are_read(tmp_path: Path) -> None:
    person = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [20, 10, 80, 40],
        "keypoints": [1, 2, 2],
        "isfake": 0,
    }
    assert len(list(read(put(tmp_path / "k.json", coco(annotations=[person]))))) == 1
