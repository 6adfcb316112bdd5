"""Formats that hold pictures, or boxes measured on them: what is written is read back by other means; the faults."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from univg.cli.main import main
from univg.data.exports import PICTURED, SUFFIXES, Export, export
from univg.data.readers import READERS, ImageRoot, RecordFault, read
from univg.errors import UnivgError
from univg.grounding.boxes import Box
from univg.grounding.samples import GroundingSample, write_jsonl

BOX = (0.6, 0.1, 0.9, 0.35)
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a picture is stored that each EXIF orientation turns upright."""

Found = set[tuple[str, str, tuple[float, ...]]]
"""(picture, label, box in thousandths of the picture)."""


def draw(path: Path, size: tuple[int, int] = (320, 200), box: Box = BOX, orientation: int = 1) -> str:
    """A grey picture with a red box; return its name."""
    image = Image.new("RGB", size, "grey")
    edges = [value * size[i % 2] for i, value in enumerate(box)]
    ImageDraw.Draw(image).rectangle(edges, fill="red")
    exif = Image.Exif()
    if orientation != 1:
        image, exif[0x0112] = image.transpose(TURNS[orientation]), orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, exif=exif) if path.suffix.lower() in (".jpg", ".jpeg") else image.save(path)
    return path.name


def is_red_inside(path: Path, box_px: Iterable[float]) -> bool:
    """Whether the box lies on the red one, for whoever opens the picture as it is stored."""
    with Image.open(path) as image:
        assert image.getexif().get(0x0112, 1) == 1, "still to be turned"
        x1, y1, x2, y2 = (round(value) for value in box_px)
        inside = image.convert("RGB").crop((x1 + 4, y1 + 4, x2 - 4, y2 - 4))
        return all(low > 200 for low, _ in inside.getextrema()[:1]) and inside.getextrema()[2][1] < 60


def one(images: Iterable[str] | str = "a.jpg", query: str = "Where is it?", **fields: Any) -> GroundingSample:
    names = (images,) if isinstance(images, str) else tuple(images)
    given: dict[str, Any] = {"boxes": (BOX,), "source": "set#1", "extra": {"category": "cup"}}
    return GroundingSample(names, query, **{"task": "referring", "target_image": 0, **given, **fields})


def write(
    folder: Path, to: str, samples: Iterable[GroundingSample], out: str = "out", **how: Any
) -> tuple[Path, int, list[RecordFault], list[str]]:
    """(what was written, count, faults, notes) of samples whose pictures lie in `folder`."""
    path = folder.parent / f"{folder.name}-{out}" / f"set{SUFFIXES[to]}"
    faults: list[RecordFault] = []
    notes: list[str] = []
    given = Export(
        images=ImageRoot(folder), on_fault=faults.append, on_note=notes.append, **{"style": "direct", **how}
    )
    return path, export(samples, to, path, given), faults, notes


# --- independent parsers: of each format's own documentation, not of our readers ---


def permille(x1: float, y1: float, x2: float, y2: float) -> tuple[float, ...]:
    return tuple(round(1000 * value, 2) for value in (x1, y1, x2, y2))


def parse_yolo(path: Path) -> Found:
    data = yaml.safe_load((path / "data.yaml").read_text("utf-8"))
    found = set()
    for file in (path / data["train"]).iterdir():
        labels = Path(str(file).replace("/images/", "/labels/")).with_suffix(".txt")
        for line in labels.read_text().splitlines():
            number, cx, cy, w, h = map(float, line.split())
            box = permille(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
            found.add((file.name, data["names"][int(number)], box))
    return found


def parse_coco(path: Path) -> Found:
    coco = json.loads(path.read_text("utf-8"))
    images = {image["id"]: image for image in coco["images"]}
    names = {category["id"]: category["name"] for category in coco["categories"]}
    found = set()
    for annotation in coco["annotations"]:
        image, (x, y, w, h) = images[annotation["image_id"]], annotation["bbox"]
        assert annotation["area"] == pytest.approx(w * h, rel=1e-3, abs=1e-3) and annotation["iscrowd"] == 0
        box = x / image["width"], y / image["height"], (x + w) / image["width"], (y + h) / image["height"]
        found.add((image["file_name"], names[annotation["category_id"]], permille(*box)))
    ids = [row["id"] for kind in ("annotations",) for row in coco[kind]]
    assert ids == list(range(1, len(ids) + 1))
    return found


def parse_label_studio(path: Path) -> Found:
    config = ElementTree.fromstring((path.parent / "label-config.xml").read_text("utf-8"))
    labels = {label.get("value") for label in config.iter("Label")}
    several = config.find("Image").get("valueList") == "$images"  # type: ignore[union-attr]
    found = set()
    for task in json.loads(path.read_text("utf-8")):
        shown = task["data"]["images"] if several else [task["data"]["image"]]
        for result in (result for one in task["predictions"] for result in one["result"]):
            x, y, w, h = (result["value"][name] / 100 for name in ("x", "y", "width", "height"))
            (label,) = result["value"]["rectanglelabels"]
            assert label in labels and result["type"] == "rectanglelabels"
            address = unquote(shown[result["item_index"] if several else 0])
            found.add((address.rpartition("/")[2], label, permille(x, y, x + w, y + h)))
    return found


def parse_ms_swift(path: Path) -> Found:
    found = set()
    for row in map(json.loads, path.read_text("utf-8").splitlines()):
        user, assistant = (turn["content"] for turn in row["messages"])
        objects = row["objects"]
        assert user.count("<image>") == len(row["images"])
        assert assistant.count("<bbox>") == len(objects["bbox"]) and objects["bbox_type"] == "real"
        assert (user + assistant).count("<ref-object>") == len(objects["ref"])
        for box, image in zip(objects["bbox"], objects["image_id"], strict=True):
            name = row["images"][image]
            with Image.open(path.parent.parent / "pictures" / name) as picture:
                size = picture.size * 2
            unit = (value / side for value, side in zip(box, size, strict=True))
            label = objects["ref"][0] if objects["ref"] else "?"
            found.add((Path(name).name, label, permille(*unit)))
    return found


def parse_fiftyone(path: Path) -> Found:
    found = set()
    for row in json.loads((path / "samples.json").read_text("utf-8")):
        for box in row["boxes"]:
            x, y, w, h = box["bounding_box"]
            name = row["images"][box["image"]]
            assert (path / name).is_file()
            found.add((Path(name).name, box["label"], permille(x, y, x + w, y + h)))
    return found


PARSERS: dict[str, Callable[[Path], Found]] = {
    "yolo": parse_yolo,
    "coco": parse_coco,
    "label_studio": parse_label_studio,
    "ms_swift": parse_ms_swift,
    "fiftyone": parse_fiftyone,
}
DETECTION = ["yolo", "coco"]
FOLDERS = ["yolo", "fiftyone"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for name, size in (("a.jpg", (320, 200)), ("b.png", (100, 160)), ("c & d #1.jpeg", (64, 48))):
        draw(folder / name, size)
    return folder


# --- what is written ---


@pytest.mark.parametrize("to", PICTURED)
def test_every_box_is_read_back(to: str, pictures: Path) -> None:
    samples = [
        one(query="Find the cup."),
        one(("a.jpg", "b.png"), "Find the bowl.", target_image=1, extra={"category": "bowl"}),
        one("c & d #1.jpeg", "Find every spoon.", boxes=(BOX, (0, 0, 1, 1)), extra={"category": "spoon"}),
    ]
    path, count, faults, _ = write(pictures, to, samples)
    assert (count, faults) == (3, [])
    assert PARSERS[to](path) == {
        ("a.jpg", "cup", permille(*BOX)),
        ("b.png", "bowl", permille(*BOX)),
        ("c & d #1.jpeg", "spoon", permille(*BOX)),
        ("c & d #1.jpeg", "spoon", permille(0, 0, 1, 1)),
    }


_LOW, _SIDE = st.floats(0, 0.9), st.floats(0.01, 0.1)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(_LOW, _LOW, _SIDE, _SIDE), min_size=1, max_size=5, unique=True),
    st.text(st.characters(exclude_categories=["C"]), min_size=1).filter(str.strip),
    st.tuples(st.integers(30, 3000), st.integers(30, 3000)),
)
def test_any_box_and_any_name_is_read_back(corners: Any, name: str, size: tuple[int, int]) -> None:
    boxes = [(x, y, x + w, y + h) for x, y, w, h in corners]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "pictures")
        folder.mkdir()
        Image.new("1", size).save(folder / "a.png")
        for to in PICTURED:
            sample = one("a.png", "Where?", boxes=boxes, extra={"category": name})
            path, count, faults, _ = write(folder, to, [sample], out=to)
            assert (count, faults) == (1, [])
            found = PARSERS[to](path)
            label = "?" if to == "ms_swift" else " ".join(name.split())
            assert {(picture, named) for picture, named, _ in found} == {("a.png", label)}
            got = sorted(box for _, _, box in found)
            wanted = sorted({permille(*box) for box in boxes})
            near = 1000 * 0.0006 / min(size) + 0.011  # pixels to three digits, and the thousandths' own
            assert len(got) == len(wanted)
            for box in wanted:
                assert any(box == pytest.approx(other, abs=near) for other in got)


@pytest.mark.parametrize(
    ("to", "reader"),
    [(to, to) for to in PICTURED if to != "fiftyone"],
)
def test_our_readers_read_it_back(to: str, reader: str, pictures: Path) -> None:
    if reader not in READERS:
        pytest.skip(f"there is no reader {reader}")
    samples = [one("a.jpg", "Find the cup."), one("b.png", "Find the cup.", source="set#2")]
    path, _, _, _ = write(pictures, to, samples)
    folder = path if to == "yolo" else pictures
    faults: list[RecordFault] = []
    back = list(read(path, reader, folder, faults.append))
    assert not faults
    assert sorted(Path(name).name for sample in back for name in sample.images) == ["a.jpg", "b.png"]
    for sample in back:
        assert sample.boxes[0] == pytest.approx(BOX, abs=1e-4) and "cup" in sample.query


@pytest.mark.parametrize(
    "to", [pytest.param(to, id=f"two samples of one picture, in {to}") for to in DETECTION]
)
def test_two_samples_of_one_picture(to: str, pictures: Path) -> None:
    again = one("./a.jpg", "Once more?")
    other = one("a.jpg", "And the spoon?", boxes=((0, 0, 0.5, 0.5),), extra={"category": "spoon"})
    path, count, faults, notes = write(pictures, to, [one(), again, other])
    assert (count, faults) == (3, [])
    assert PARSERS[to](path) == {
        ("a.jpg", "cup", permille(*BOX)),
        ("a.jpg", "spoon", permille(0, 0, 0.5, 0.5)),
    }
    assert any("1 boxes stand in several samples" in note for note in notes)
    if to == "yolo":
        assert len(list((path / "labels/train").iterdir())) == 1
    else:
        cup, _ = json.loads(path.read_text())["annotations"]
        assert cup["caption"] == "Where is it?" and cup["attributes"]["questions"][1] == "Once more?"


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("1/x.jpg", "2/x.jpg"), id="pictures of one name in two folders"),
        pytest.param(("1/y/x.jpg", "2/y/x.jpg"), id="pictures of one name in folders of one name"),
        pytest.param(("x.jpg", "x.png"), id="a.jpg beside a.png, which would share a label file"),
        pytest.param(("1/x.jpg", "2/X.JPG"), id="names that differ by case alone"),
        pytest.param(("1/x.jpg", "2/x.jpg", "1__x.jpg"), id="a name that another one would be changed to"),
        pytest.param(("images/x.jpg", "labels/x.jpg"), id="folders called images and labels"),
    ],
)
@pytest.mark.parametrize("to", FOLDERS)
def test_no_picture_overwrites_another(to: str, names: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    boxes = [(0.1 * (n + 1), 0.1, 0.9, 0.9) for n in range(len(names))]
    samples = []
    for number, (name, box) in enumerate(zip(names, boxes, strict=True)):
        draw(folder / name, (100 + number, 100), box)
        samples.append(one(name, boxes=(box,)))
    path, count, faults, _ = write(folder, to, samples)
    assert (count, faults) == (len(names), [])
    found = PARSERS[to](path)
    assert len({name for name, _, _ in found}) == len(names)
    root = path / "images" / ("train" if to == "yolo" else "")
    for name, _, box in found:
        with Image.open(root / name) as image:
            number = image.width - 100  # the picture says itself which one it is
        assert box == permille(*boxes[number])


def test_a_picture_is_linked_where_that_is_asked(pictures: Path) -> None:
    for link in (True, False):
        path, _, _, _ = write(pictures, "yolo", [one()], out=f"out{link}", link=link)
        assert (path / "images/train/a.jpg").samefile(pictures / "a.jpg") == link


@pytest.mark.parametrize("orientation", TURNS)
def test_a_photograph_stored_on_its_side_is_written_upright(orientation: int, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    name = draw(folder / "turned.jpg", orientation=orientation)
    for to in ("yolo", "fiftyone"):
        path, count, faults, notes = write(folder, to, [one(name)], out=to)
        assert (count, faults) == (1, []) and any("written upright" in note for note in notes)
        (picture,) = (path / "images").rglob("*.jpg")
        assert is_red_inside(picture, (192, 20, 288, 70))
    path, _, _, _ = write(folder, "ms_swift", [one(name), one(name)], out="swift")
    row = json.loads(path.read_text().splitlines()[0])
    assert is_red_inside(Path(row["images"][0]), row["objects"]["bbox"][0])
    path = tmp_path / "coco"
    how = Export(images=ImageRoot(folder))
    assert export([one(name)], "coco", path, how) == 1
    (image,) = json.loads((path / "annotations/instances_train.json").read_text())["images"]
    assert (image["width"], image["height"]) == (320, 200)
    assert is_red_inside(path / "images/train" / image["file_name"], (192, 20, 288, 70))
    path, _, _, _ = write(folder, "label_studio", [one(name)], out="ls")  # browsers turn it
    (task,) = json.loads(path.read_text())
    assert task["predictions"][0]["result"][0]["original_width"] == 320


def test_what_trainers_do_not_open_becomes_png(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    draw(folder / "a.gif")
    path, _, faults, _ = write(folder, "yolo", [one("a.gif")])
    assert not faults and is_red_inside(path / "images/train/a.png", (192, 20, 288, 70))


@pytest.mark.parametrize(
    ("fields", "label"),
    [
        ({"extra": {"category": " tea\n cup "}}, "tea cup"),
        ({"task": "detection", "query": "Locate every tea cup in the image.", "extra": {}}, "tea cup"),
        ({"query": "my  cup", "extra": {}}, "my cup"),
    ],
    ids=["the category that is stated", "what a detection set asks for", "else the question"],
)
@pytest.mark.parametrize("to", DETECTION)
def test_which_name_is_the_class(to: str, fields: dict[str, Any], label: str, pictures: Path) -> None:
    path, _, _, notes = write(pictures, to, [one(**fields)])
    assert {found[1] for found in PARSERS[to](path)} == {label}
    assert any("name no category" in note for note in notes) == (label == "my cup")
    path, _, _, _ = write(pictures, to, [one(**fields)], out="one", category="thing")
    assert {found[1] for found in PARSERS[to](path)} == {"thing"}


def test_pictures_on_which_nothing_is_boxed_are_told(pictures: Path) -> None:
    for to in DETECTION:
        path, _, _, notes = write(pictures, to, [one(("a.jpg", "b.png"))], out=to)
        assert {found[0] for found in PARSERS[to](path)} == {"a.jpg"}
        assert "1 pictures on which no sample boxes anything are left out" in notes


def test_a_detection_set_gives_one_task_a_picture(pictures: Path) -> None:
    samples = [
        one("a.jpg", f"Locate the {name} in the image.", task="detection", extra={}, source=f"coco#1@{name}")
        for name in ("cup", "bowl")
    ]
    path, count, _, _ = write(pictures, "label_studio", samples)
    (task,) = json.loads(path.read_text())
    assert count == 2 and len(task["predictions"][0]["result"]) == 2
    assert task["data"]["source"] == "coco#1@cup\ncoco#1@bowl"
    path, _, _, _ = write(pictures, "fiftyone", samples)
    assert [len(row["boxes"]) for row in json.loads((path / "samples.json").read_text())] == [2]


def test_label_studio_addresses_and_scores(pictures: Path) -> None:
    said = {"category": "cup", "score": 0.25, "model_version": "run-7"}
    path, _, _, _ = write(pictures, "label_studio", [one("c & d #1.jpeg", extra=said)])
    (task,) = json.loads(path.read_text())
    assert task["data"]["image"] == "/data/local-files/?d=pictures/c%20%26%20d%20%231.jpeg"
    assert (task["predictions"][0]["score"], task["predictions"][0]["model_version"]) == (0.25, "run-7")
    path, _, _, _ = write(pictures, "label_studio", [one()], image_url="https://host/p/")
    assert json.loads(path.read_text())[0]["data"]["image"] == "https://host/p/a.jpg"
    with pytest.raises(UnivgError, match="name that folder with --images"):
        export([one()], "label_studio", path, Export())


def test_a_sample_without_boxes_is_a_task_to_be_annotated(pictures: Path) -> None:
    path, count, faults, _ = write(pictures, "label_studio", [one(boxes=())])
    assert (count, faults) == (1, []) and json.loads(path.read_text())[0]["predictions"] == []


def test_ms_swift_conversations(pictures: Path) -> None:
    thoughtful = one(("a.jpg", "b.png"), "Where is the cup?", target_image=1, thought="It is red.")
    path, _, _, _ = write(pictures, "ms_swift", [thoughtful, one(query="Find a cupboard.")], style="think")
    (row,) = map(json.loads, path.read_text().splitlines())
    user, assistant = (turn["content"] for turn in row["messages"])
    assert user.startswith("<image><image>Where is the <ref-object>?")
    assert assistant == "<think>It is red.</think><answer><bbox></answer>"
    assert row["objects"] == {
        "ref": ["cup"],
        "bbox": [[60.0, 16.0, 90.0, 56.0]],
        "bbox_type": "real",
        "image_id": [1],
    }
    path, _, _, _ = write(pictures, "ms_swift", [one(query="Find a cupboard.")])
    assert json.loads(path.read_text())["objects"]["ref"] == []


# --- what is not ---

REFUSED = [
    pytest.param({"boxes": ((0.9, 0.1, 0.6, 0.35),)}, "inverted_box", id="a box that is inverted"),
    pytest.param({"boxes": ((0.6, 0.1, 0.6, 0.35),)}, "degenerate_box", id="a box without area"),
    pytest.param(
        {"boxes": ((0.6, 0.1, 0.600001, 0.35),)}, "degenerate_box", id="a box thinner than its digits"
    ),
    pytest.param({"boxes": ((60, 10, 90, 35),)}, "wrong_scale", id="a box in another scale"),
    pytest.param({"boxes": ((1.01, 0.1, 1.2, 0.3),)}, "out_of_range", id="a box wholly outside"),
    pytest.param({"images": ("gone.jpg",)}, "missing_image", id="a picture that is not there"),
    pytest.param({"images": ("broken.jpg",)}, "bad_image", id="a picture that is none"),
    pytest.param({"extra": {"category": " "}}, "bad_field", id="a category that is blank"),
    pytest.param({"extra": {"category": 7}}, "bad_field", id="a category that is no text"),
    pytest.param(
        {"images": ("a.jpg", "b.png"), "target_image": None},
        "no_target_image",
        id="several pictures, and nothing says which is boxed",
    ),
]


@pytest.mark.parametrize(("fields", "kind"), REFUSED)
@pytest.mark.parametrize("to", PICTURED)
def test_what_cannot_be_written_is_told(to: str, fields: dict[str, Any], kind: str, pictures: Path) -> None:
    (pictures / "broken.jpg").write_text("no picture")
    bad = GroundingSample.from_json({**one(source="set#bad").to_json(), **fields})
    path, count, faults, _ = write(pictures, to, [one(), bad])
    assert count == 1 and [(fault.record, fault.kind, fault.usable) for fault in faults] == [
        ("set#bad", kind, False)
    ]
    assert {name for name, _, _ in PARSERS[to](path)} == {"a.jpg"}
    with pytest.raises(UnivgError, match=kind):
        export([bad], to, path.with_name("x" + path.name), Export("direct", ImageRoot(pictures)))


@pytest.mark.parametrize("to", ["yolo", "coco", "ms_swift"])
def test_no_box_is_told(to: str, pictures: Path) -> None:
    _, count, faults, _ = write(pictures, to, [one(boxes=())])
    assert count == 0 and [fault.kind for fault in faults] == ["no_answer"]


@pytest.mark.parametrize("to", PICTURED)
def test_a_box_that_reaches_outside_is_clipped_and_told(to: str, pictures: Path) -> None:
    path, count, faults, _ = write(pictures, to, [one(boxes=((0.6, -0.02, 1.04, 0.35),), query="cup")])
    assert (count, [(fault.kind, fault.usable) for fault in faults]) == (1, [("out_of_range", True)])
    assert PARSERS[to](path) == {("a.jpg", "cup", permille(0.6, 0, 1, 0.35))}


def test_one_bad_box_of_several(pictures: Path) -> None:
    """In detection sets it costs itself; an answer that is taught without it would be wrong."""
    sample = one(boxes=(BOX, (0.5, 0.5, 0.5, 0.9)))
    for to in PICTURED:
        path, count, faults, _ = write(pictures, to, [sample], out=to)
        assert [fault.kind for fault in faults] == ["degenerate_box"] and not faults[0].usable
        assert count == (0 if to == "ms_swift" else 1)
        assert count == 0 or {box for _, _, box in PARSERS[to](path)} == {permille(*BOX)}


def test_a_coco_file_alone_holds_no_photograph_stored_on_its_side(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    name = draw(folder / "turned.jpg", orientation=6)
    _, count, faults, _ = write(folder, "coco", [one(name)])
    assert count == 0 and [fault.kind for fault in faults] == ["turned_image"]
    assert "--out without .json" in faults[0].fix


@pytest.mark.parametrize("tag", ["<image>", "<bbox>", "<ref-object>", "<video>"])
def test_tags_of_ms_swift_in_a_question(tag: str, pictures: Path) -> None:
    _, count, faults, _ = write(pictures, "ms_swift", [one(query=f"What is {tag}?")])
    assert count == 0 and [fault.kind for fault in faults] == ["image_tags"]


@pytest.mark.parametrize("to", FOLDERS)
def test_a_folder_that_is_not_empty_is_refused(to: str, pictures: Path) -> None:
    path, _, _, _ = write(pictures, to, [one()])
    before = sorted(path.rglob("*"))
    with pytest.raises(UnivgError, match="not empty"):
        write(pictures, to, [one("b.png")])
    assert sorted(path.rglob("*")) == before


def test_yolo_takes_another_split(pictures: Path) -> None:
    path, _, _, notes = write(pictures, "yolo", [one()])
    assert any("val in data.yaml is train" in note for note in notes)
    samples = [one("b.png", extra={"category": "bowl"}), one("b.png", boxes=((0, 0, 0.5, 0.5),))]
    _, count, _, notes = write(pictures, "yolo", samples, split="val")
    data = yaml.safe_load((path / "data.yaml").read_text())
    assert count == 2 and not any("val in" in note for note in notes)
    assert data == {"train": "images/train", "val": "images/val", "names": {0: "cup", 1: "bowl"}}
    assert (path / "labels/val/b.txt").read_text().startswith("1 0.75")
    (path / "data.yaml").write_text("path: elsewhere\nnames: [cup]\n")
    with pytest.raises(UnivgError, match="no split can be added"):
        write(pictures, "yolo", [one()], split="test")


# --- the command ---


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["data", "convert", *map(str, arguments)])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_convert_tells_and_fails(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = pictures.parent / "a.jsonl"
    write_jsonl(file, [one(), one("gone.jpg", source="set#2")])
    folder = pictures.parent / "ds"
    code, told, _ = call(capsys, file, "--to", "yolo", "--out", folder, "--images", pictures)
    assert code == 1 and "1 samples" in told and "missing_image  set#2" in told
    assert (folder / "labels/train/a.txt").read_text() == "0 0.75000000 0.22500000 0.30000000 0.25000000\n"
    code, _, error = call(capsys, file, "--to", "yolo", "--out", folder, "--images", pictures)
    assert code == 2 and "not empty" in error and error.count("\n") == 1
    code, _, error = call(capsys, file, "--to", "fiftyone", "--out", "x.json")
    assert code == 2 and "fiftyone is a folder" in error
    for out in (pictures.parent / "c.json", pictures.parent / "coco"):
        assert call(capsys, file, "--to", "coco", "--out", out, "--images", pictures)[0] == 1
        assert out.exists()


def test_the_import_script_is_plain_python_of_its_own(pictures: Path) -> None:
    path, _, _, _ = write(pictures, "fiftyone", [one(("a.jpg", "b.png"))])
    script = (path / "import_fiftyone.py").read_text("utf-8")
    compile(script, "import_fiftyone.py", "exec")
    assert not re.search(r"import univg|from univg", script)
