"""Say what files are that people bring and that cannot be read here, and how to convert them, before they are mistaken.

One table: what it is, how to make something of it that can be read, and the signs by which it shows (`Stranger`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from univg.data.readers.glimpse import Glimpse, take_glimpse
from univg.errors import UnivgError
from univg.pictures.images import names_picture

__all__ = ["STRANGERS", "Stranger", "find_stranger", "refuse_stranger"]


def _never(glimpse: Glimpse) -> bool:
    return False


@dataclass(frozen=True)
class Stranger:
    """A kind of file that is recognised, not read. Any one of its signs is enough.

    - `fields`: the fields of the first record, or of the object; `within`: the same of the first entry of an object
      whose entries stand by their ids. Separated by blanks; all must be there.
    - `starts`, `suffixes`: how the file, or its name, begins and ends.
    - `holds`: what a folder has in it, all of it. `lines`: what the first line of a text matches.
    - `shows`: any other sign.
    """

    what: str
    how: str
    fields: str = ""
    within: str = ""
    starts: tuple[bytes, ...] = ()
    suffixes: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    lines: str = ""
    shows: Callable[[Glimpse], bool] = _never

    def fits(self, glimpse: Glimpse) -> bool:
        """Tell whether a file or folder shows one of the signs."""
        return bool(
            (self.fields and glimpse.record.keys() >= set(self.fields.split()))
            or (self.within and glimpse.value.keys() >= set(self.within.split()))
            or (self.starts and glimpse.head.startswith(self.starts))
            or (self.suffixes and glimpse.suffix in self.suffixes)
            or (self.holds and all(any(_meets(name, n) for n in glimpse.names) for name in self.holds))
            or (self.lines and glimpse.lines and re.match(self.lines, glimpse.lines[0]))
            or self.shows(glimpse)
        )


def _meets(name: str, found: str) -> bool:
    return found == name or ("*" in name and Path(found).match(name))


def _datumaro(kind: str) -> str:
    return f"datum convert -if {kind} -i FOLDER -f coco -o OUT (pip install 'datumaro[cli]'), and give its COCO JSON"


def _fiftyone(kind: str) -> str:
    return (
        f"fiftyone convert --input-dir FOLDER --input-type fiftyone.types.{kind} --output-dir OUT "
        "--output-type fiftyone.types.COCODetectionDataset (pip install fiftyone)"
    )


_ROWS = "write JSON Lines with image, problem (the text) and solution ([x1, y1, x2, y2] in pixels): --format vlm_r1"


_WRAPPED = re.compile(
    rb"\s*\{\s*\"(data|train|training|val|valid|validation|test|records|samples|items|dataset)\"\s*:\s*\["
)
_OF_ROWS = {"conversations", "messages", "problem", "question", "query", "instruction", "prompt"}


def _is_wrapped(glimpse: Glimpse) -> bool:
    """Tell whether rows stand in an object, under the name of a split."""
    return bool(_WRAPPED.match(glimpse.head) and glimpse.value.keys() & _OF_ROWS)


def _is_unlabelled_task(glimpse: Glimpse) -> bool:
    data = glimpse.record.get("data")
    return glimpse.record.keys() <= {"data", "id", "meta"} and isinstance(data, dict) and bool(data)


def _is_in_regions(glimpse: Glimpse) -> bool:
    regions = glimpse.record.get("regions")
    return (
        isinstance(regions, list)
        and bool(regions)
        and isinstance(regions[0], dict)
        and "phrase" in regions[0]
    )


def _is_in_objects(glimpse: Glimpse) -> bool:
    found = glimpse.record.get("objects")
    return (
        isinstance(found, list)
        and bool(found)
        and isinstance(found[0], dict)
        and {"names", "x", "w"} <= found[0].keys()
    )


def _is_supervisely(glimpse: Glimpse) -> bool:
    size = glimpse.record.get("size")
    return isinstance(size, dict) and "height" in size and {"objects", "tags"} <= glimpse.record.keys()


def _is_create_ml(glimpse: Glimpse) -> bool:
    found = glimpse.record.get("annotations")
    first = found[0] if isinstance(found, list) and found else {}
    return isinstance(first, dict) and "coordinates" in first and "label" in first


def _is_bdd(glimpse: Glimpse) -> bool:
    labels = glimpse.record.get("labels")
    first = labels[0] if isinstance(labels, list) and labels else {}
    return "name" in glimpse.record and isinstance(first, dict) and ("box2d" in first or "poly2d" in first)


def _is_answer(glimpse: Glimpse) -> bool:
    row = glimpse.record
    return {"text", "answer"} <= row.keys() and not row.keys() & {
        "images",
        "image",
        "question",
        "problem",
        "conversations",
    }


def _holds_only_pictures(glimpse: Glimpse) -> bool:
    files = [name for name in glimpse.names if "." in name.rpartition("/")[2]]
    return bool(files) and all(map(names_picture, files))


_KITTI = r"[A-Za-z_-]+ -?\d+(\.\d+)? -?\d ( ?-?\d+(\.\d+)?){12,13}\s*$"

STRANGERS = (
    # --- ours ---
    Stranger(
        "answers of a model, not data",
        "score them with univg score FILE",
        shows=_is_answer,
    ),
    Stranger(
        "a run of univg evaluate, not data",
        "see it with univg report FOLDER",
        holds=("run.json", "rows-*.jsonl"),
    ),
    Stranger(
        "a model, not data",
        "name it with --model, and give the data here",
        suffixes=(".safetensors", ".gguf", ".pt", ".pth", ".onnx", ".ckpt"),
        shows=lambda g: (
            "config.json" in g.names
            and any(n.endswith((".safetensors", "pytorch_model.bin")) for n in g.names)
        ),
    ),
    # --- containers ---
    Stranger("an Excel workbook", "save the sheet as CSV", suffixes=(".xlsx", ".xls", ".xlsm", ".ods")),
    Stranger("NumPy arrays", _ROWS, starts=(b"\x93NUMPY",), suffixes=(".npz",)),
    Stranger(
        "a TFRecord",
        _fiftyone("TFObjectDetectionDataset"),
        suffixes=(".tfrecord", ".tfrecords", ".record"),
        shows=lambda g: (
            re.search(r"\.(tfrecords?|record)-\d+-of-\d+$", g.path.name) is not None
            or any(name.endswith((".tfrecord", ".tfrecords", ".record")) for name in g.names)
        ),
    ),
    Stranger(
        "a MATLAB file",
        f"load it with scipy.io.loadmat (version 7.3: h5py), and {_ROWS}",
        starts=(b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file"),
        suffixes=(".mat",),
    ),
    Stranger("an HDF5 file", f"read it with h5py, and {_ROWS}", starts=(b"\x89HDF\r\n\x1a\n",)),
    Stranger("an SQLite database", f"query it, and {_ROWS}", starts=(b"SQLite format 3\0",)),
    Stranger(
        "an LMDB database",
        f"read it with the package lmdb, and {_ROWS}",
        holds=("data.mdb",),
        suffixes=(".mdb",),
    ),
    Stranger(
        "a Python pickle, which may run anything when it is opened, so it is not; refer's refs(unc).p is one",
        "take RefCOCO as rows, as lmms-eval has it: univg data fetch refcoco",
        starts=tuple(b"\x80" + bytes([version]) for version in range(2, 6)),
        suffixes=(".p", ".pkl", ".pickle"),
    ),
    Stranger(
        "a video", "extract its frames, and annotate them", suffixes=(".mp4", ".avi", ".mov", ".mkv", ".webm")
    ),
    # --- texts ---
    Stranger(
        "VLMEvalKit's TSV, with pictures in base64",
        "take the same set as rows: univg data fetch refcoco",
        lines=r"(?=.*\bindex\b)(?=.*\b(image|image_path)\b)(?=.*\b(question|answer|bbox)\b)[^\t]*\t",
    ),
    Stranger(
        "VIA's CSV (VGG Image Annotator)",
        "export from VIA as 'COCO format'",
        lines=r"#?.*\bfilename\b.*\bregion_shape_attributes\b",
    ),
    Stranger(
        "Label Studio's CSV",
        "export as JSON or JSON-MIN",
        lines=r".*\bannotation_id\b.*\bannotator\b|.*\bannotator\b.*\bannotation_id\b",
    ),
    Stranger(
        "KITTI's labels (text)",
        _fiftyone("KITTIDetectionDataset"),
        lines=_KITTI,
        holds=("label_2/*.txt",),
    ),
    Stranger(
        "DOTA's labels (text, four corners)",
        _datumaro("dota"),
        lines=r"(imagesource:.*|(-?\d+(\.\d+)? ){8}[\w-]+( [012])?\s*)$",
    ),
    Stranger(
        "MOT Challenge's text",
        _datumaro("mot_seq"),
        lines=r"\d+,-?\d+(,-?\d+(\.\d+)?){4,8}\s*$",
    ),
    Stranger(
        "one label file of YOLO, without the names of its classes",
        "give the folder with data.yaml, or the data.yaml",
        lines=r"\d+( -?\d*\.?\d+(e-?\d+)?){4,}\s*$",
    ),
    # --- annotation tools ---
    Stranger(
        "records in an object, under the name of a split or the like",
        "write their list alone: jq .train FILE > train.json",
        shows=_is_wrapped,
    ),
    Stranger(
        "Label Studio's tasks without annotations",
        "annotate them, and export as JSON",
        shows=_is_unlabelled_task,
    ),
    Stranger(
        "a project of VIA (VGG Image Annotator)",
        "export from VIA as 'COCO format'",
        fields="_via_img_metadata",
        within="filename size regions",
    ),
    Stranger(
        "Datumaro's JSON",
        _datumaro("datumaro"),
        fields="categories items",
        shows=lambda g: "items" in g.record and "dm_format_version" in g.record,
    ),
    Stranger(
        "Supervisely's JSON",
        "export as COCO with the app 'Export to COCO' in Supervisely",
        shows=_is_supervisely,
        holds=("meta.json", "*/ann/*.json"),
    ),
    Stranger(
        "Labelbox's export",
        "import it with fiftyone.utils.labelbox, and export as COCO",
        fields="data_row projects",
    ),
    Stranger(
        "Labelbox's older export",
        "import it with fiftyone.utils.labelbox, and export as COCO",
        fields="ID Label",
    ),
    Stranger(
        "SuperAnnotate's JSON",
        "sa.export_annotation(FOLDER, OUT, 'COCO', NAME, 'Vector') with the package superannotate",
        fields="instances metadata",
    ),
    Stranger(
        "V7 Darwin's JSON",
        "darwin convert coco FILES OUT (pip install darwin-py)",
        fields="item annotations version",
    ),
    Stranger(
        "V7 Darwin's older JSON",
        "darwin convert coco FILES OUT (pip install darwin-py)",
        fields="image annotations dataset",
    ),
    Stranger(
        "Encord's JSON",
        "export as COCO with the package encord (CocoExporter)",
        fields="label_hash data_units",
    ),
    Stranger("Scale AI's tasks", _ROWS, fields="task_id response"),
    Stranger(
        "a manifest of SageMaker Ground Truth",
        "import it with the package fiftyone, and export as COCO",
        fields="source-ref",
    ),
    Stranger("VoTT's JSON", _datumaro("vott_json"), fields="asset regions", within="asset regions"),
    Stranger(
        "CreateML's JSON",
        "export as COCO (Roboflow: 'COCO JSON'), or " + _datumaro("roboflow_create_ml"),
        shows=_is_create_ml,
    ),
    # --- published sets ---
    Stranger(
        "a detector's results in COCO's form, not annotations",
        "give the annotation file; to score boxes, write what univg score reads",
        fields="image_id category_id bbox score",
    ),
    Stranger(
        "BDD100K's labels",
        f"python -m bdd100k.label.to_coco -m det -i FILE -o OUT (pip install bdd100k), or {_fiftyone('BDDDataset')}",
        shows=_is_bdd,
    ),
    Stranger("Visual Genome's region descriptions", _ROWS, shows=_is_in_regions),
    Stranger(
        "Visual Genome's objects", "write them as COCO: a box is x, y, w, h in pixels", shows=_is_in_objects
    ),
    Stranger("GQA's questions, which have no boxes of their own", _ROWS, within="imageId question semantic"),
    Stranger(
        "GQA's scene graphs",
        "write them as COCO: a box is x, y, w, h in pixels",
        within="width height objects",
    ),
    Stranger(
        "CrowdHuman's annotations (odgt)",
        "write gtboxes as COCO: vbox or fbox is x, y, w, h",
        fields="ID gtboxes",
    ),
    Stranger(
        "Flickr30k Entities, whose XML names phrases by number",
        _ROWS,
        holds=("Sentences/*.txt", "Annotations/*.xml"),
    ),
    Stranger(
        "ADE20K's masks",
        _datumaro("ade20k2020"),
        shows=lambda g: any("ADE_train_" in name or "ADE_val_" in name for name in g.names),
    ),
    Stranger(
        "Pascal VOC's masks alone",
        _datumaro("voc_instance_segmentation"),
        shows=lambda g: (
            any(name in g.names for name in ("SegmentationObject", "SegmentationClass"))
            and not any(name.endswith((".xml", ".json")) for name in g.names)
        ),
    ),
    Stranger(
        "pictures without annotations",
        "give the file or folder of annotations, and this folder with --images",
        shows=_holds_only_pictures,
    ),
)
"""Everything that is recognised and not read; the first that fits is meant."""


def find_stranger(path: Path) -> Stranger | None:
    """Return what a file or folder is, if it is one of those that cannot be read here."""
    glimpse = take_glimpse(path)
    return next((stranger for stranger in STRANGERS if stranger.fits(glimpse)), None)


def refuse_stranger(path: Path) -> None:
    """Raise `UnivgError` saying what a file or folder is and how to convert it, if it is one that cannot be read."""
    stranger = find_stranger(path)
    if stranger is not None:
        raise UnivgError(f"this is {stranger.what}", path, stranger.how)
