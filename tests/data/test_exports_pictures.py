"""Formats that hold pictures, or boxes measured on them: what is written is read back by other means."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from export_parsers import (
    BOX,
    DETECTION,
    FOLDERS,
    PARSERS,
    TURNS,
    draw,
    draw_three,
    is_red_inside,
    one,
    permille,
    write,
)
from univg.data.exports import PICTURED, Export, export
from univg.data.readers import READERS, ImageRoot, RecordFault, read
from univg.errors import UnivgError


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_three(tmp_path / "pictures")


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
    assert any("1 box stands in several samples" in note for note in notes)
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
    """Told in the manual as: a photograph stored on its side (EXIF), in a folder."""
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


@pytest.mark.parametrize(
    ("to", "embed"),
    [
        *((to, False) for to in ("sharegpt", "llamafactory", "verl", "easyr1", "trl")),
        ("verl", True),
        ("easyr1", True),
    ],
)
def test_a_photograph_stored_on_its_side_is_named_upright_where_files_are_named(
    to: str, embed: bool, tmp_path: Path
) -> None:
    """Told in the manual as: a photograph stored on its side, for LLaMA-Factory, ms-swift, verl or EasyR1."""
    folder = tmp_path / "pictures"
    names = draw(folder / "turned.jpg", orientation=6), draw(folder / "a.jpg")
    path, count, faults, notes = write(folder, to, [one(names), one(names)], embed=embed)
    assert (count, faults) == (2, [])
    told = [note for note in notes if "upright copies are in" in note]
    assert len(told) == (to != "trl") and all(note.startswith("1 photographs") for note in told)
    for shown in list_pictures(path, folder):
        if to != "trl":  # whose users open pictures by `datasets`, which turns them
            assert is_red_inside(shown, (192, 20, 288, 70))


def list_pictures(path: Path, folder: Path) -> list[Path]:
    """Where the pictures of a file's rows lie; those within rows are written there first."""
    if path.suffix == ".parquet":
        rows = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    else:
        text = path.read_text("utf-8")
        rows = (
            json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
        )
    found = []
    for number, shown in enumerate(image for row in rows for image in row["images"]):
        if isinstance(shown, dict) and "bytes" in shown:
            found.append(path.with_name(f"within-{number}.jpg"))
            found[-1].write_bytes(shown["bytes"])
        else:
            found.append(folder / (shown["image"] if isinstance(shown, dict) else shown))
    return found


def test_what_trainers_do_not_open_becomes_png(tmp_path: Path) -> None:
    """Told in the manual as: a picture of a kind that trainers do not open."""
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
    assert any("no category" in note for note in notes) == (label == "my cup")
    path, _, _, _ = write(pictures, to, [one(**fields)], out="one", category="thing")
    assert {found[1] for found in PARSERS[to](path)} == {"thing"}


def test_pictures_on_which_nothing_is_boxed_are_told(pictures: Path) -> None:
    """Told in the manual as: further pictures of a sample, on which nothing is boxed."""
    for to in DETECTION:
        path, _, _, notes = write(pictures, to, [one(("a.jpg", "b.png"))], out=to)
        assert {found[0] for found in PARSERS[to](path)} == {"a.jpg"}
        assert "left out: 1 picture on which no sample boxes anything" in notes


def test_a_detection_set_gives_one_task_a_picture(pictures: Path) -> None:
    """Told in the manual as: a detection set, for people to look at."""
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
    """Told in the manual as: a sample without boxes, for people to look at."""
    path, count, faults, _ = write(pictures, "label_studio", [one(boxes=())])
    assert (count, faults) == (1, []) and json.loads(path.read_text())[0]["predictions"] == []


def test_ms_swift_conversations(pictures: Path) -> None:
    """Told in the manual as: a category that stands once in the question, for ms-swift."""
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


def test_the_import_script_is_plain_python_of_its_own(pictures: Path) -> None:
    path, _, _, _ = write(pictures, "fiftyone", [one(("a.jpg", "b.png"))])
    script = (path / "import_fiftyone.py").read_text("utf-8")
    compile(script, "import_fiftyone.py", "exec")
    assert not re.search(r"import univg|from univg", script)


@pytest.mark.parametrize(
    "to", ["coco", "label_studio", "fiftyone", "verl", "easyr1", "yolo", "jsonl", "llamafactory"]
)
def test_names_that_are_no_unicode(to: str, tmp_path: Path) -> None:
    """Told in the manual as: a file whose name is not UTF-8, or a broken sign in a text."""
    folder = tmp_path / "pictures"
    odd = os.fsdecode(b"caf\xe9.jpg")
    draw(folder / "a.jpg"), draw(folder / odd)
    samples = [one("a.jpg"), one(odd, source=f"yolo#{odd}"), one("a.jpg", "Where is \ud83d?")]
    path, count, faults, _ = write(folder, to, samples)
    assert [fault.kind for fault in faults] == ["bad_field"] * (3 - count)
    assert count == {"yolo": 2, "jsonl": 3, "llamafactory": 3}.get(to, 1) and path.exists()
    assert all("convmv" in fault.fix for fault in faults)
