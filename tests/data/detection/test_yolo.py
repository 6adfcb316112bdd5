"""YOLO folders as people have them: layouts, spellings of data.yaml, kinds of lines, and whose labels are whose."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from univg.data.detection import DETECTION
from univg.data.detection.yolo_folder import YoloFolder
from univg.data.readers import RecordFault, Source, detect
from univg.errors import UnivgError
from univg.grounding.boxes import Box
from univg.grounding.samples import GroundingSample

Everything: TypeAlias = tuple[list[GroundingSample], list[RecordFault], list[str]]
Save = Callable[..., Path]
Every = Callable[..., Everything]

CUP = "0 0.3 0.3 0.4 0.4"
CUP_UNIT = (0.1, 0.1, 0.5, 0.5)


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8"))
    return folder


def near(box: Box, other: Box, slack: float = 1e-9) -> bool:
    return all(abs(a - b) <= slack for a, b in zip(box, other, strict=True))


# --- data.yaml, and which folder is meant ---


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("names: [cup, dog]\n", id="names as a list"),
        pytest.param("names:\n  0: cup\n  1: dog\n", id="names by number"),
        pytest.param("names: {'0': cup, '1': dog}\n", id="numbers in quotes"),
        pytest.param("names:\n- 0: cup\n- 1: dog\n", id="a list of numbers with names"),
        pytest.param(
            "train: images/train\nval: images/val\nnc: 2\nnames: [cup, dog]\n", id="splits as folders"
        ),
        pytest.param("train: [images/train, images/val]\nnames: [cup, dog]\n", id="a split as a list"),
        pytest.param("path: .\ntrain: images\nnames: [cup, dog]\n", id="one folder above the splits"),
        pytest.param(
            "path: /there/me/{name}\ntrain: images/train\nval: images/val\nnames: [cup, dog]\n",
            id="path of another machine",
        ),
        pytest.param(
            "path: ../datasets/{name}\ntrain: images/train\nval: images/val\nnames: [cup, dog]\n",
            id="path of another layout",
        ),
        pytest.param(
            "path: C:\\\\me\\\\{name}\ntrain: images\\\\train\nval: images\\\\val\nnames: [cup, dog]\n",
            id="Windows paths in data.yaml",
        ),
        pytest.param(
            "train: C:\\\\me\\\\set\\\\images\\\\train\nval: D:/set/images/val\nnames: [cup, dog]\n",
            id="Windows paths in full",
        ),
        pytest.param(
            "train: ../images/train\nval: ../images/val\nnames: [cup, dog]\n", id="RoboFlow's ../train/images"
        ),
        pytest.param(
            "train: {name}/images/train\nval: {name}/images/val\nnames: [cup, dog]\n",
            id="the folder's own name first",
        ),
        pytest.param(
            "train: train.txt\nval: images/val\nnames: [cup, dog]\n", id="a split as a list of pictures"
        ),
        pytest.param(
            "\ufefftrain: images/train\r\nval: images/val\r\ntest:\r\nnames: [cup, dog]\r\n",
            id="a byte-order mark and CRLF",
        ),
    ],
)
def test_one_set_however_data_yaml_is_written(text: str, tmp_path: Path, picture: Save, every: Every) -> None:
    """The same file names in two splits: each picture keeps its own labels."""
    picture("images/train/1.jpg"), picture("images/val/1.jpg", (100, 200))
    write(
        tmp_path,
        {
            "data.yaml": text.replace("{name}", tmp_path.name),
            "train.txt": "./images/train/1.jpg\n\n",
            "labels/train/1.txt": CUP,
            "labels/val/1.txt": "1 0.5 0.5 0.2 0.2\n",
        },
    )
    for path in (tmp_path, tmp_path / "data.yaml"):
        assert detect(path) == "yolo"
        samples, faults, _ = every(path, tmp_path)
        assert faults == []
        assert [(sample.images[0], sample.query.split()[2]) for sample in samples] == [
            ("images/train/1.jpg", "cup"),
            ("images/val/1.jpg", "dog"),
        ]
        assert near(samples[0].boxes[0], CUP_UNIT) and near(samples[1].boxes[0], (0.4, 0.4, 0.6, 0.6))


@pytest.mark.parametrize(
    ("picture_name", "labels_name", "names_name"),
    [
        pytest.param("images/a.jpg", "labels/a.txt", "classes.txt", id="classes.txt without data.yaml"),
        pytest.param("images/a.JPG", "labels/a.txt", "classes.txt", id="a picture called .JPG"),
        pytest.param("images/a.bmp", "labels/a.txt", "labels/classes.txt", id="classes.txt among the labels"),
        pytest.param(
            "train/images/x/a.PNG", "train/labels/x/a.txt", "data.yaml", id="folders in a split's folders"
        ),
        pytest.param("JPEGImages/a.jpg", "labels/a.txt", "obj.names", id="darknet's names and folders"),
        pytest.param("a.jpg", "a.txt", "_darknet.labels", id="labels beside the pictures"),
        pytest.param(
            "obj_train_data/a.b.jpg", "obj_train_data/a.b.txt", "obj.names", id="CVAT's YOLO export"
        ),
        pytest.param(
            "images/images/a.jpg", "images/labels/a.txt", "classes.txt", id="the last images is labels"
        ),
    ],
)
def test_layouts(
    picture_name: str, labels_name: str, names_name: str, tmp_path: Path, picture: Save, every: Every
) -> None:
    picture(picture_name)
    names = "names: [cup, dog]" if names_name.endswith("yaml") else "cup\ndog\n"
    write(tmp_path, {labels_name: CUP, names_name: names})
    assert detect(tmp_path) == "yolo"
    (sample,), faults, notes = every(tmp_path, tmp_path)
    assert (sample.images, faults, notes) == ((picture_name,), [], [])
    assert sample.query == "Locate the cup in the image." and near(sample.boxes[0], CUP_UNIT)


def test_a_part_of_a_set(tmp_path: Path, picture: Save, every: Every) -> None:
    for split in ("train", "val"):
        picture(f"images/{split}/1.jpg"), write(tmp_path, {f"labels/{split}/1.txt": CUP})
    write(tmp_path, {"data.yaml": "train: images/train\nval: images/val\nnames: [cup]"})
    for part in ("labels/val", "images/val"):
        samples, faults, _ = every(tmp_path / part, tmp_path, "yolo")
        assert ([sample.images[0] for sample in samples], faults) == (["images/val/1.jpg"], [])
    assert len(every(tmp_path / "labels", tmp_path)[0]) == 2


def test_labels_alone_with_pictures_elsewhere(tmp_path: Path, every: Every, picture: Save) -> None:
    for split, size in (("train", (200, 100)), ("val", (100, 200))):
        picture(f"pictures/{split}/1.jpg", size)
        write(tmp_path, {f"set/labels/{split}/1.txt": CUP})
    write(tmp_path, {"set/classes.txt": "cup"})
    samples, faults, _ = every(tmp_path / "set", tmp_path / "pictures")
    assert ([sample.images[0] for sample in samples], faults) == (["train/1.jpg", "val/1.jpg"], [])
    assert [sample.source for sample in samples] == ["yolo#labels/train/1@cup", "yolo#labels/val/1@cup"]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        pytest.param(
            {"data.yaml": "names: [cup]\nnc: 3"},
            "nc is 3, and 1 classes are named",
            id="nc beside other names",
        ),
        pytest.param({"data.yaml": "names: {cup: 0}"}, "no number with its name", id="names as keys"),
        pytest.param(
            {"data.yaml": "names: {0: cup, 0: dog}"},
            "'0' stands there twice",
            id="one class number named twice",
        ),
        pytest.param({"data.yaml": "names:\n\t- cup"}, "no YAML", id="a data.yaml with tabs"),
        pytest.param({"data.yaml": "names:"}, "no names of classes", id="no names"),
        pytest.param(
            {"data.yaml": "names: [cup]\nkpt_shape: 17"}, "kpt_shape is '17'", id="kpt_shape without its size"
        ),
        pytest.param(
            {"data.yaml": "train: nowhere\nnames: [cup]"},
            "nothing that it names is there (train: nowhere)",
            id="no split is there",
        ),
        pytest.param({}, "the names of the classes are nowhere", id="no names of classes anywhere"),
        pytest.param(
            {"data.yaml": "names: [dog]", "classes.txt": "cup"},
            "class 0 is 'dog' in data.yaml and 'cup' in classes.txt",
            id="two lists of classes that differ",
        ),
        pytest.param(
            {"a.yaml": "names: [dog]", "b.yaml": "names: [cup]"},
            "a.yaml and b.yaml both name classes, and differ",
            id="two data.yaml that differ",
        ),
        pytest.param(
            {"data.yaml": "train: ../x\nnames: [cup]", "../x/1.txt": "", "x/1.txt": ""},
            "../x may be",
            id="a split that may be two folders",
        ),
        pytest.param(
            {"data.yaml": "names: [cup, dog]", "labels/b.txt": "1 .5 .5 .1 .1\n2 .5 .5 .1 .1"},
            "labels number the classes 1 to 2",
            id="classes numbered from 1",
        ),
        pytest.param(
            {"data.yaml": "names: [cup]", "labels/a.txt": "0 .5 .5 .4 .4 .5 .5 2 .6 .6 1"},
            "write kpt_shape: [2, 3]",
            id="keypoints without kpt_shape",
        ),
    ],
)
def test_what_stops_a_set(
    files: dict[str, str], says: str, tmp_path: Path, picture: Save, every: Every
) -> None:
    folder = tmp_path / "set"
    picture("set/images/a.jpg"), picture("set/images/b.jpg")
    write(folder, {"labels/a.txt": "1 .5 .5 .1 .1" if "labels/b.txt" in files else CUP, **files})
    with pytest.raises(UnivgError) as told:
        every(folder, tmp_path, "yolo")
    assert says in str(told.value) and "\n" not in str(told.value)


def test_names_that_yaml_takes_for_something_else(tmp_path: Path, picture: Save, every: Every) -> None:
    picture("images/a.jpg")
    write(tmp_path, {"labels/a.txt": "0 .5 .5 .1 .1\n1 .5 .5 .2 .2\n2 .5 .5 .3 .3"})
    write(tmp_path, {"data.yaml": "names: [no, 010, 1.50]"})
    samples, faults, _ = every(tmp_path, tmp_path)
    assert faults == []
    assert {sample.query.split()[2] for sample in samples} == {"no", "010", "1.50"}


# --- whose labels ---


def test_what_is_without_its_other(tmp_path: Path, picture: Save, every: Every) -> None:
    for name in ("a.jpg", "empty.jpg", "bare.jpg", "bare2.jpg"):
        picture(f"images/{name}")
    write(
        tmp_path,
        {
            "classes.txt": "cup",
            "labels/a.txt": CUP,
            "labels/empty.txt": " \n",
            "labels/lost.txt": f"{CUP}\n{CUP}",
        },
    )
    samples, faults, notes = every(tmp_path, tmp_path)
    assert [sample.images[0] for sample in samples] == ["images/a.jpg"]
    (fault,) = faults
    assert (fault.record, fault.kind) == ("yolo#labels/lost", "missing_image")
    assert "its 2 box(es) are left out" in fault.cause
    assert "1 label file(s) are empty: images without objects" in notes
    assert "2 picture(s) have no label file, as images/bare.jpg: left out" in notes
    images = DETECTION["yolo"](Source.of(tmp_path, tmp_path, faults.append))
    assert {image.name: len(image.instances) for image in images} == {
        "images/a.jpg": 1,
        "images/empty.jpg": 0,
    }


@pytest.mark.parametrize(
    ("pictures", "files", "kinds"),
    [
        pytest.param(
            ["images/a.jpg", "images/a.png"],
            {"labels/a.txt": CUP},
            ["ambiguous_id"],
            id="two pictures with one label file",
        ),
        pytest.param(
            ["images/a.jpg"],
            {"labels/a.txt": CUP, "images/a.txt": "0 .5 .5 .1 .1"},
            ["ambiguous_id"],
            id="two label files that differ",
        ),
        pytest.param(
            ["images/val/a.jpg"],
            {"labels/train/a.txt": CUP},
            ["missing_image"],
            id="labels of another folder's picture",
        ),
        pytest.param(
            ["images/b.jpg"], {"labels/a.txt": CUP}, ["missing_image"], id="labels without a picture"
        ),
        pytest.param(
            ["images/a.jpg"], {"labels/sub/a.txt": CUP}, ["missing_image"], id="labels one folder deeper"
        ),
        pytest.param(
            [],
            {"images/a.jpg": "no picture", "labels/a.txt": CUP},
            ["bad_image"],
            id="a picture that is none",
        ),
    ],
)
def test_no_box_on_another_picture(
    pictures: list[str], files: dict[str, str], kinds: list[str], tmp_path: Path, picture: Save, every: Every
) -> None:
    for name in pictures:
        picture(name)
    write(tmp_path, {"classes.txt": "cup", **files})
    samples, faults, _ = every(tmp_path, tmp_path)
    assert (samples, [fault.kind for fault in faults]) == ([], kinds)


def test_same_labels_in_both_places(tmp_path: Path, picture: Save, every: Every) -> None:
    picture("images/a.jpg"), write(tmp_path, {"classes.txt": "cup", "labels/a.txt": CUP, "images/a.txt": CUP})
    (sample,), faults, _ = every(tmp_path, tmp_path)
    assert (len(sample.boxes), faults) == (1, [])


def test_lists_of_pictures(tmp_path: Path, picture: Save, every: Every) -> None:
    """A list names pictures by paths of its own kinds; one that is not there costs only itself."""
    for name in ("train/1.jpg", "val/1.jpg", "val/2.jpg", "out.jpg"):
        picture(f"images/{name}"), write(tmp_path, {f"labels/{name[:-4]}.txt": CUP})
    write(
        tmp_path,
        {
            "data.yaml": "train: train.txt\nval: val.txt\nnames: [cup]",
            "train.txt": "C:\\me\\set\\images\\train\\1.jpg\r\n/there/images/nowhere/1.jpg\r\n",
            "val.txt": "images/val/1.jpg\n./images/val/2.jpg\nimages/val/2.jpg\n",
        },
    )
    samples, faults, notes = every(tmp_path, tmp_path)
    assert [sample.images[0] for sample in samples] == [
        "images/train/1.jpg",
        "images/val/1.jpg",
        "images/val/2.jpg",
    ]
    assert [(fault.record, fault.kind) for fault in faults] == [("yolo#train.txt line 2", "missing_image")]
    assert any("1 picture(s) are listed more than once" in note for note in notes)
    assert any("labels/out.txt: left out" in note for note in notes)


def test_rotated_pictures_and_empty_sets_are_told(tmp_path: Path, picture: Save, every: Every) -> None:
    """Shares of a picture are taken of the one that is shown; the format says of no size."""
    picture("images/a.jpg", (200, 100), 6)
    write(tmp_path, {"classes.txt": "cup", "labels/a.txt": CUP})
    (sample,), faults, notes = every(tmp_path, tmp_path)
    assert faults == [] and near(sample.boxes[0], CUP_UNIT)
    assert any("1 image(s) are stored rotated" in note for note in notes)
    (image,) = DETECTION["yolo"](Source.of(tmp_path, tmp_path))
    assert image.size_wh == (100, 200)


def test_texts_that_are_no_labels(tmp_path: Path, picture: Save) -> None:
    """Other formats of one text a picture are not taken for YOLO's: KITTI's, DOTA's, lists of names."""
    picture("a.jpg")
    texts = (
        "Car 0.00 0 -1.57 599.41 156.40 629.75 189.25 2.85 2.63 12.34 0.47 1.49 69.44 -1.56",
        "937.0 913.0 921.0 912.0 923.0 874.0 940.0 875.0 small-vehicle 0",
        "000012 -1",
        "a cup on a table",
    )
    for text in texts:
        write(tmp_path, {"a.txt": text})
        with pytest.raises(UnivgError) as told:
            detect(tmp_path)
        assert "classes" not in str(told.value)


def test_a_split_that_is_not_there(tmp_path: Path, picture: Save, every: Every) -> None:
    picture("images/train/1.jpg")
    write(
        tmp_path,
        {"labels/train/1.txt": CUP, "data.yaml": "train: images/train\nval: images/val\nnames: [cup]"},
    )
    samples, faults, notes = every(tmp_path, tmp_path)
    assert (len(samples), faults) == (1, [])
    assert notes == ["val: images/val, which data.yaml names, is not there: left out"]


# --- lines ---

SHAPED = "names: [cup, dog]\nkpt_shape: [2, 3]\n"


@pytest.mark.parametrize(
    ("lines", "note"),
    [
        pytest.param(f"{CUP}\r\n", "", id="a line with CRLF"),
        pytest.param(f"\ufeff{CUP}", "", id="labels with a byte-order mark"),
        pytest.param("0\t0.3\t0.3\t0.4\t0.4", "", id="tabs between numbers"),
        pytest.param("0, 0.3, 0.3, 0.4, 0.4", "", id="commas between numbers"),
        pytest.param("0,0.3,0.3,0.4,0.4", "", id="commas without blanks"),
        pytest.param("0;0.3;0.3;0.4;0.4", "", id="semicolons between numbers"),
        pytest.param("0 0,3 0,3 0,4 0,4", "decimal comma", id="a decimal comma"),
        pytest.param("0.0 3e-1 .3 0.4 +0.4", "", id="a class as a float"),
        pytest.param("cup 0.3 0.3 0.4 0.4", "", id="a class by its name"),
        pytest.param(f"{CUP} 0.97", "a confidence or a track", id="a sixth number"),
        pytest.param(f"{CUP} 0.97 12", "a confidence or a track", id="a confidence and a track"),
        pytest.param("0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5", "their extent is taken", id="an oriented box"),
        pytest.param("0 0.1 0.2 0.5 0.1 0.4 0.5 0.3 0.5 0.1 0.3", "their extent is taken", id="a polygon"),
        pytest.param("0 0.1,0.1 0.5,0.1 0.5,0.5", "their extent is taken", id="points as pairs"),
        pytest.param(
            "0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n1 0.5 0.5 0.2 0.2",
            "their extent is taken",
            id="polygons and boxes",
        ),
        pytest.param(f"{CUP} 0.2 0.2 2 0.4 0.4 0", "the box is read", id="keypoints by kpt_shape"),
    ],
)
def test_lines(lines: str, note: str, tmp_path: Path, picture: Save, every: Every) -> None:
    picture("images/a.jpg")
    yaml = SHAPED if "2 0.4" in lines else "names: [cup, dog]"
    write(tmp_path, {"data.yaml": yaml, "labels/a.txt": lines})
    samples, faults, notes = every(tmp_path, tmp_path)
    assert faults == [] and near(samples[0].boxes[0], CUP_UNIT)
    assert samples[0].query == "Locate the cup in the image."
    assert len(notes) == bool(note) and note in "".join(notes)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        pytest.param("7 0.3 0.3 0.4 0.4", "unknown_class", id="a class number outside names"),
        pytest.param("-1 0.3 0.3 0.4 0.4", "unknown_class", id="a negative class"),
        pytest.param("0.5 0.3 0.3 0.4 0.4", "unknown_class", id="half a class"),
        pytest.param("mug 0.3 0.3 0.4 0.4", "unknown_class", id="a class by an unknown name"),
        pytest.param("0 0.3 0.3 0.4", "bad_box", id="three numbers"),
        pytest.param("0", "bad_box", id="a class alone"),
        pytest.param("0 nan 0.3 0.4 0.4", "bad_box", id="nan"),
        pytest.param("0 inf 0.3 0.4 0.4", "bad_box", id="an infinite number"),
        pytest.param("0 1_0 0.3 0.4 0.4", "bad_box", id="a number that only Python reads"),
        pytest.param("0 0.3 0.3 0.4 -0.4", "inverted_box", id="a negative height"),
        pytest.param("0 0.3 0.3 0 0.4", "degenerate_box", id="no width"),
        pytest.param("0 60 30 80 40", "wrong_scale", id="a box in pixels among others 0-1"),
        pytest.param("0 0.9 0.9 0.4 0.4", "out_of_range", id="a box over the edge"),
        pytest.param("0 0.3 0.3 0.4 0.4 0.2 0.2 0.9", "bad_box", id="keypoints or a polygon with confidence"),
        pytest.param("0 10,20 30,20 30,40 10,40", "bad_box", id="commas that may be points or decimals"),
        pytest.param("0 0,3 0.3 0.4 0,4", "bad_box", id="decimal commas beside points"),
        pytest.param("1 0.5 0.5 0.2 0.2", "repeated_box", id="a label written twice"),
    ],
)
def test_bad_lines_cost_only_themselves(
    line: str, kind: str, tmp_path: Path, picture: Save, every: Every
) -> None:
    picture("images/a.jpg"), write(tmp_path, {"data.yaml": "names: [cup, dog]"})
    write(tmp_path, {"labels/a.txt": f"1 0.5 0.5 0.2 0.2\n\n{line}\n"})
    samples, faults, _ = every(tmp_path, tmp_path)
    assert [(fault.record, fault.kind) for fault in faults] == [("yolo#labels/a@line 3", kind)]
    dogs = [sample for sample in samples if "dog" in sample.query]
    assert near(dogs[0].boxes[0], (0.4, 0.4, 0.6, 0.6)) and len(samples) == 1 + (kind == "out_of_range")


def test_lines_that_do_not_fit_kpt_shape(tmp_path: Path, picture: Save, every: Every) -> None:
    picture("images/a.jpg")
    write(tmp_path, {"data.yaml": SHAPED, "labels/a.txt": f"{CUP} 0.2 0.2 0.4 0.4"})
    samples, faults, _ = every(tmp_path, tmp_path)
    assert (samples, [fault.kind for fault in faults]) == ([], ["bad_box"])


@pytest.mark.parametrize(
    ("scale", "size", "note"),
    [
        pytest.param((200, 100), (200, 100), "in pixels, not 0-1", id="labels in pixels"),
        pytest.param((100, 100), (800, 600), "in percent, not 0-1", id="labels in percent"),
        pytest.param((1000, 1000), (200, 100), "0-1000, not 0-1", id="labels 0-1000"),
    ],
)
def test_other_scales(
    scale: tuple[int, int], size: tuple[int, int], note: str, tmp_path: Path, picture: Save, every: Every
) -> None:
    picture("images/a.jpg", size)
    boxes = [(0.3 + k / 10, 0.3, 0.4, 0.4 - k / 20) for k in range(5)]
    lines = [" ".join(f"{v * s:g}" for v, s in zip(box, scale * 2, strict=True)) for box in boxes]
    write(tmp_path, {"classes.txt": "cup", "labels/a.txt": "\n".join(f"0 {line}" for line in lines)})
    (sample,), faults, notes = every(tmp_path, tmp_path)
    assert faults == [] and near(sample.boxes[0], CUP_UNIT, 1e-6) and len(sample.boxes) == 5
    assert any(note in text for text in notes)


@pytest.mark.parametrize("form", ["corners", "top left"])
def test_other_forms(form: str, tmp_path: Path, picture: Save, every: Every) -> None:
    picture("images/a.jpg")
    lines = []
    for k in range(8):
        x, y, size = 0.02 + 0.08 * k, 0.05 * k, 0.35
        lines.append(
            f"0 {x:.3f} {y:.3f} "
            + (f"{x + size:.3f} {y + size:.3f}" if form == "corners" else f"{size} {size}")
        )
    if form == "corners":
        lines.append("0 0.5 0.55 0.9 0.95")
    write(tmp_path, {"classes.txt": "cup", "labels/a.txt": "\n".join(lines)})
    (sample,), faults, notes = every(tmp_path, tmp_path)
    assert faults == [] and near(sample.boxes[1], (0.1, 0.05, 0.45, 0.4))
    assert any("read as such" in note for note in notes)


unit = st.floats(0, 1, allow_nan=False, width=32)


@given(
    boxes=st.lists(st.tuples(unit, unit, unit, unit, st.integers(0, 2)), min_size=1, max_size=6),
    digits=st.integers(6, 12),
    blank=st.sampled_from([" ", "\t", "  ", ", ", ";"]),
    end=st.sampled_from(["\n", "\r\n"]),
    nested=st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_back(
    boxes: list[tuple[float, float, float, float, int]],
    digits: int,
    blank: str,
    end: str,
    nested: bool,
    tmp_path: Path,
) -> None:
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    kept: dict[str, tuple[int, Box]] = {}  # by the line: boxes that are one once printed count once
    for x1, y1, x2, y2, number in boxes:
        a, b, c, d = box = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
        if c - a > 0.01 and d - b > 0.01:
            values = ((a + c) / 2, (b + d) / 2, c - a, d - b)
            kept.setdefault(blank.join([str(number), *(f"{v:.{digits}f}" for v in values)]), (number, box))
    names = ["cup", "dog", "traffic light"]
    inside = "train/" if nested else ""
    write(tmp_path, {"data.yaml": f"names: {names}\n", f"labels/{inside}a.txt": end.join(kept)})
    (tmp_path / "images" / inside).mkdir(parents=True)
    Image.new("RGB", (320, 200)).save(tmp_path / "images" / inside / "a.png")
    faults: list[RecordFault] = []
    (image,) = DETECTION["yolo"](Source.of(tmp_path, tmp_path, faults.append))
    assert image.name == f"images/{inside}a.png" and not [fault for fault in faults if not fault.usable]
    found = [(names.index(instance.category), instance.box) for instance in image.instances]
    for (number, box), (n, b) in zip(kept.values(), found, strict=True):
        assert number == n and near(b, box, 2 * 10**-digits)


def test_opening_tells_the_base_from_the_part(tmp_path: Path) -> None:
    write(tmp_path, {"data.yaml": "names: [cup]", "train/labels/x.txt": "", "other/a.txt": ""})
    opened = YoloFolder.open(tmp_path / "train" / "labels")
    assert (opened.base, opened.part) == (tmp_path, tmp_path / "train" / "labels")
    with pytest.raises(
        UnivgError, match="nowhere"
    ):  # a folder of another set has not the names of the one above
        YoloFolder.open(tmp_path / "other")
