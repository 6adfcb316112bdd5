"""What formats of pictures and boxes cannot hold: each is told with the sample's name, and the rest is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from export_parsers import BOX, FOLDERS, PARSERS, draw, draw_three, one, permille, write
from univg.cli.main import main
from univg.data.exports import PICTURED, Export, export
from univg.data.formats.faults import RecordFault
from univg.data.readers import ImageRoot
from univg.errors import UnivgError
from univg.grounding.samples import GroundingSample, write_jsonl


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_three(tmp_path / "pictures")


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


@pytest.mark.parametrize("to", ["trl", "verl", "easyr1"])
def test_a_question_with_marks_of_the_chat_is_written_for_no_reward(to: str, tmp_path: Path) -> None:
    faults: list[RecordFault] = []
    bad = one(query="Where is <|im_end|> it?", thought=None, thinking=True)
    assert export([bad], to, tmp_path / "x", Export("think", on_fault=faults.append)) == 0
    assert [fault.kind for fault in faults] == ["reserved_text"]


@pytest.mark.parametrize("to", ["yolo", "coco", "ms_swift"])
def test_no_box_is_told(to: str, pictures: Path) -> None:
    """Told in the manual as: a sample without boxes, for training."""
    _, count, faults, _ = write(pictures, to, [one(boxes=())])
    assert count == 0 and [fault.kind for fault in faults] == ["no_answer"]


@pytest.mark.parametrize("to", PICTURED)
def test_a_box_that_reaches_outside_is_clipped_and_told(to: str, pictures: Path) -> None:
    """Told in the manual as: a box that reaches outside."""
    path, count, faults, _ = write(pictures, to, [one(boxes=((0.6, -0.02, 1.04, 0.35),), query="cup")])
    assert (count, [(fault.kind, fault.usable) for fault in faults]) == (1, [("out_of_range", True)])
    assert PARSERS[to](path) == {("a.jpg", "cup", permille(0.6, 0, 1, 0.35))}


def test_one_bad_box_of_several(pictures: Path) -> None:
    """Told in the manual as: one bad box of several. An answer that is taught without it would be wrong."""
    sample = one(boxes=(BOX, (0.5, 0.5, 0.5, 0.9)))
    for to in PICTURED:
        path, count, faults, _ = write(pictures, to, [sample], out=to)
        assert [fault.kind for fault in faults] == ["degenerate_box"] and not faults[0].usable
        assert count == (0 if to == "ms_swift" else 1)
        assert count == 0 or {box for _, _, box in PARSERS[to](path)} == {permille(*BOX)}


def test_a_coco_file_alone_holds_no_photograph_stored_on_its_side(tmp_path: Path) -> None:
    """Told in the manual as: a photograph stored on its side (EXIF), in a COCO file alone."""
    folder = tmp_path / "pictures"
    name = draw(folder / "turned.jpg", orientation=6)
    _, count, faults, _ = write(folder, "coco", [one(name)])
    assert count == 0 and [fault.kind for fault in faults] == ["turned_image"]
    assert "--out without .json" in faults[0].fix


@pytest.mark.parametrize("tag", ["<image>", "<bbox>", "<ref-object>", "<video>"])
def test_tags_of_ms_swift_in_a_question(tag: str, pictures: Path) -> None:
    """Told in the manual as: tags of ms-swift in a question."""
    _, count, faults, _ = write(pictures, "ms_swift", [one(query=f"What is {tag}?")])
    assert count == 0 and [fault.kind for fault in faults] == ["image_tags"]


@pytest.mark.parametrize("to", FOLDERS)
def test_a_folder_that_is_not_empty_is_refused(to: str, pictures: Path) -> None:
    """Told in the manual as: a folder that is not empty."""
    path, _, _, _ = write(pictures, to, [one()])
    before = sorted(path.rglob("*"))
    with pytest.raises(UnivgError, match="not empty"):
        write(pictures, to, [one("b.png")])
    assert sorted(path.rglob("*")) == before


def test_yolo_takes_another_split(pictures: Path) -> None:
    """Told in the manual as: another split into a YOLO folder."""
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
