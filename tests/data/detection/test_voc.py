"""Pascal VOC folders as people have them: renamed files, flags in words, pictures in folders of folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from univg.data.readers import RecordFault
from univg.grounding.samples import GroundingSample

Everything: TypeAlias = tuple[list[GroundingSample], list[RecordFault], list[str]]
BOX = "<bndbox><xmax>100.0</xmax><xmin>20</xmin><ymax>50</ymax><ymin>10.0</ymin></bndbox>"
UNIT = (0.1, 0.1, 0.5, 0.5)


@pytest.fixture
def xml(tmp_path: Path) -> Callable[..., Path]:
    """Write `Annotations/<name>.xml` about one cat in a picture of 200x100."""

    def write(name: str, filename: str | None = None, inside: str = BOX, size: str = "200 100") -> Path:
        path = tmp_path / "Annotations" / f"{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = size.split()
        named = "" if filename is None else f"<filename>{filename}</filename>"
        path.write_text(
            f"<annotation>{named}<size><width>{width}</width><height>{height}</height></size>"
            f"<object><name>cat</name>{inside}</object></annotation>",
            "utf-8",
        )
        return path

    return write


def shown(samples: list[GroundingSample]) -> dict[str, str]:
    return {sample.source: sample.images[0] for sample in samples}


def test_a_renamed_file_is_about_the_picture_of_its_own_name(
    xml: Callable[..., Path], picture: Callable[..., Path], every: Callable[..., Everything], tmp_path: Path
) -> None:
    picture("JPEGImages/a.jpg"), picture("JPEGImages/b.jpg")
    xml("a", "a.jpg"), xml("b", "a.jpg")
    samples, (fault,), _ = every(tmp_path, images=tmp_path)
    assert shown(samples) == {"voc#a@cat": "JPEGImages/a.jpg", "voc#b@cat": "JPEGImages/b.jpg"}
    assert (fault.record, fault.kind, fault.usable) == ("voc#b", "other_name", True)
    assert "it names a.jpg, which is there too" in fault.cause


def test_a_picture_that_another_file_annotates_is_not_taken(
    xml: Callable[..., Path], picture: Callable[..., Path], every: Callable[..., Everything], tmp_path: Path
) -> None:
    picture("JPEGImages/a.jpg")
    xml("a", "a.jpg"), xml("b", "a.jpg")  # b.jpg was deleted, and b.xml kept the name it was copied with
    samples, (fault,), _ = every(tmp_path, images=tmp_path)
    assert shown(samples) == {"voc#a@cat": "JPEGImages/a.jpg"}
    assert (fault.record, fault.kind) == ("voc#b", "missing_image") and "annotated by a.xml" in fault.cause


def test_two_files_that_only_name_one_picture_are_both_refused(
    xml: Callable[..., Path], picture: Callable[..., Path], every: Callable[..., Everything], tmp_path: Path
) -> None:
    picture("JPEGImages/a.jpg"), xml("x", "a.jpg"), xml("y", "a.jpg"), xml("z", "z.jpg", size="10 10")
    samples, faults, _ = every(tmp_path, images=tmp_path)
    assert samples == []
    assert [(fault.record, fault.kind) for fault in faults][:3] == [
        ("voc#z", "missing_image"),
        ("voc#x", "other_name"),
        ("voc#y", "other_name"),
    ]
    assert "it names a.jpg, and so does voc#y" in faults[1].cause


def test_without_pictures_a_name_is_that_of_its_own_file(
    xml: Callable[..., Path], every: Callable[..., Everything], tmp_path: Path
) -> None:
    xml("a", "a.jpg"), xml("b", "a.jpg")
    (sample,), (fault,), _ = every(tmp_path)
    assert (sample.source, fault.record, fault.kind) == ("voc#a@cat", "voc#b", "other_name")


@pytest.mark.parametrize("filename", [None, "p", "p.jpg", "x/p.JPG", "C:\\x\\p.JPG", "old-name.jpg", ""])
@pytest.mark.parametrize("there", ["p.JPG", "p.PNG", "p.bmp", "p.jpeg", "p.webp"])
def test_pictures_are_found_by_the_name_of_the_file(
    filename: str | None,
    there: str,
    xml: Callable[..., Path],
    picture: Callable[..., Path],
    every: Callable[..., Everything],
    tmp_path: Path,
) -> None:
    xml("p", filename), picture(f"JPEGImages/{there}")
    (sample,), faults, _ = every(tmp_path, images=tmp_path)
    assert (sample.images, sample.boxes, faults) == ((f"JPEGImages/{there}",), (UNIT,), [])


def test_two_pictures_of_one_name_are_told_apart_by_the_suffix_alone(
    xml: Callable[..., Path], picture: Callable[..., Path], every: Callable[..., Everything], tmp_path: Path
) -> None:
    for name in ("p.png", "p.jpg", "q.png", "q.jpg"):
        picture(f"JPEGImages/{name}")
    xml("p", "p.jpg"), xml("q", "q")
    samples, (fault,), _ = every(tmp_path, images=tmp_path)
    assert shown(samples) == {"voc#p@cat": "JPEGImages/p.jpg"}
    assert (fault.record, fault.kind) == ("voc#q", "missing_image") and "q.jpg and q.png" in fault.cause


def test_one_file_name_in_several_folders(
    xml: Callable[..., Path], picture: Callable[..., Path], every: Callable[..., Everything], tmp_path: Path
) -> None:
    picture("JPEGImages/one/f.jpg"), picture("JPEGImages/f.jpg"), picture("JPEGImages/g.jpg")
    xml("one/f", "f.jpg"), xml("two/f", "f.jpg"), xml("three/g", "g.jpg")
    samples, (fault,), _ = every(tmp_path, images=tmp_path)
    assert shown(samples) == {
        "voc#one/f@cat": "JPEGImages/one/f.jpg",
        "voc#three/g@cat": "JPEGImages/g.jpg",  # the only file of this name: pictures may lie in one folder
    }
    assert (fault.record, fault.kind) == ("voc#two/f", "missing_image")


@pytest.mark.parametrize("no", ["", "0", "0.0", "false", "Unspecified", "no"])
@pytest.mark.parametrize("tag", ["difficult", "Difficult"])
def test_flags_that_say_no(
    no: str, tag: str, xml: Callable[..., Path], every: Callable[..., Everything], tmp_path: Path
) -> None:
    xml("a", "a.jpg", f"<{tag}>{no}</{tag}>{BOX}")
    (sample,), faults, notes = every(tmp_path)
    assert (sample.boxes, faults, notes) == ((UNIT,), [], [])


@pytest.mark.parametrize("yes", ["1", "1.0", "true", "Yes"])
def test_flags_that_say_yes_are_counted(
    yes: str, xml: Callable[..., Path], every: Callable[..., Everything], tmp_path: Path
) -> None:
    xml("a", "a.jpg", f"<difficult>{yes}</difficult>{BOX}")
    assert every(tmp_path) == ([], [], ["1 box(es) are marked difficult: there, but no targets"])


@pytest.mark.parametrize(
    ("inside", "kind"),
    [
        ("", "bad_box"),
        ("<polygon><x1>1</x1><y1>2</y1></polygon>", "bad_box"),
        ("<bndbox><xmin>1</xmin></bndbox>", "bad_box"),
        (BOX.replace("100.0", "nan"), "bad_box"),
        (BOX.replace("100.0", "10"), "inverted_box"),
        (BOX.replace("100.0", "20"), "degenerate_box"),
        (f"<difficult>maybe</difficult>{BOX}", "bad_field"),
    ],
)
def test_faults_of_objects(
    inside: str, kind: str, xml: Callable[..., Path], every: Callable[..., Everything], tmp_path: Path
) -> None:
    xml("a", "a.jpg", inside)
    samples, (fault,), _ = every(tmp_path)
    assert (samples, fault.kind, fault.record) == ([], kind, "voc#a@0")


def test_polygons_are_given_their_extent(
    xml: Callable[..., Path], every: Callable[..., Everything], tmp_path: Path
) -> None:
    points = "<x1>20</x1><y1>50</y1><x2>100</x2><y2>10</y2><x3>60</x3><y3>30</y3>"
    xml("a", "a.jpg", f"<polygon>{points}</polygon>")
    (sample,), _, _ = every(tmp_path)
    assert sample.boxes == (UNIT,)


def test_a_size_of_nothing_states_nothing(
    xml: Callable[..., Path], picture: Callable[..., Path], every: Callable[..., Everything], tmp_path: Path
) -> None:
    xml("a", "a.jpg", size="0 0"), picture("JPEGImages/a.jpg")
    (sample,), faults, _ = every(tmp_path, images=tmp_path)
    assert (sample.boxes, faults) == ((UNIT,), [])


def test_other_xml_is_not_taken_for_this(every: Callable[..., Everything], tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<note/>")
    samples, (fault,), _ = every(tmp_path, reader="voc")
    assert samples == [] and "no Pascal VOC file: it begins with <note>" in fault.cause


@pytest.mark.parametrize("kept", [0, 1, 12, 13, 60, 200, -1])
def test_a_file_that_was_cut_off(
    kept: int, xml: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    """Told in the manual as: an XML file that is empty or cut off."""
    path = xml("a", "a.jpg")
    path.write_bytes(path.read_bytes()[:kept])
    samples, (fault,), _ = every(path)
    assert samples == [] and (fault.kind, fault.fix) == ("bad_field", "copy or export it again")
    assert "is empty, or cut off in its middle" in fault.cause


@pytest.mark.parametrize("encoding", ["gbk", "gb2312", "big5", "utf-8", "utf-16", "iso-8859-1"])
def test_the_encoding_that_a_file_says_of_itself(
    encoding: str, xml: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    """Told in the manual as: an XML in GBK or another encoding that it names."""
    path = xml("a", "a.jpg")
    name = "café" if encoding.startswith("iso") else "小"
    text = f'\n<?xml version="1.0" encoding="{encoding}"?>\n' + path.read_text("utf-8").replace("cat", name)
    path.write_bytes((text.lstrip() if encoding == "utf-16" else text).encode(encoding))
    (sample,), faults, _ = every(path)
    assert (sample.extra["category"], sample.boxes, faults) == (name, (UNIT,), [])
    path.write_bytes(text.encode("utf-8").replace(encoding.encode(), b"no-such"))
    samples, (fault,), _ = every(path)
    assert samples == [] and "no XML" in fault.cause and fault.fix == "write it again, as UTF-8"
