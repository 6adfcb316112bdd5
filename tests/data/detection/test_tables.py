"""Tables of boxes as people have them: headers, what parts the cells, what is left open, and Open Images."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from univg.data.detection import DETECTION
from univg.data.readers import RecordFault, Source, detect
from univg.errors import UnivgError
from univg.grounding.boxes import Box
from univg.grounding.samples import GroundingSample

Everything: TypeAlias = tuple[list[GroundingSample], list[RecordFault], list[str]]
Save = Callable[..., Path]
Every = Callable[..., Everything]

CUP_UNIT = (0.1, 0.1, 0.5, 0.5)
HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax\n"


def put(folder: Path, text: str, name: str = "boxes.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def near(box: Box, other: Box, slack: float = 1e-9) -> bool:
    return all(abs(a - b) <= slack for a, b in zip(box, other, strict=True))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"{HEADER}a.jpg,200,100,cup,20,10,100,50\n", id="TensorFlow's table"),
        pytest.param(
            "\ufeffclass;FileName;YMax;XMax;YMin;XMin\r\ncup;a.jpg;50;100;10;20\r\n",
            id="any order and capitals, semicolons, a byte-order mark",
        ),
        pytest.param("image\txmin\tymin\txmax\tymax\tlabel\na.jpg\t20\t10\t100\t50\tcup\n", id="tabs"),
        pytest.param(
            "sep=;\nfilename;class;xmin;ymin;xmax;ymax\na.jpg;cup;20,00;10,0;100,5e0;50\n".replace(
                "100,5e0", "100,0"
            ),
            id="decimal commas behind semicolons",
        ),
        pytest.param(
            '"image","xmin","ymin","xmax","ymax","label"\n"a.jpg",20.0,10.0,100.0,50.0,"cup"\n',
            id="VoTT's table with quotes",
        ),
        pytest.param("a.jpg,20,10,100,50,cup\n", id="keras-retinanet without a header"),
        pytest.param("a.jpg,20,10,100,50,cup,200,100\n", id="SKU-110K without a header"),
        pytest.param(
            "TRAIN,gs://bucket/x/a.jpg,cup,0.1,0.1,,,0.5,0.5,,\nTEST,gs://bucket/x/b.jpg,,,,,,,,,\n",
            id="Google AutoML with two corners",
        ),
        pytest.param(
            "gs://bucket/a.jpg,cup,0.1,0.1,0.5,0.1,0.5,0.5,0.1,0.5\n", id="Vertex AI with four corners"
        ),
        pytest.param("path,left,top,right,bottom,name\na.jpg,20,10,100,50,cup\n", id="left top right bottom"),
        pytest.param(
            "image_path,category,x0,y0,x1,y1\na.jpg,cup,20,10,100,50\n", id="corners counted from 0"
        ),
        pytest.param(
            "image,label,left,top,width,height\na.jpg,cup,20,10,80,40\n", id="left top width height"
        ),
        pytest.param("image,label,x_center,y_center,w,h\na.jpg,cup,60,30,80,40\n", id="centres"),
        pytest.param(
            "image,label,x,y,w,h,width,height\na.jpg,cup,20,10,80,40,200,100\n",
            id="sides of the box and of the image",
        ),
        pytest.param(
            "image,label,xmin,ymin,xmax,ymax,width,height\na.jpg,cup,20,10,100,50,80,40\n",
            id="corners and the box's own sides",
        ),
        pytest.param(
            'image,label,bbox\na.jpg,cup,"[20, 10, 80, 40]"\na.jpg,dog,"[150, 50, 10, 10]"\n',
            id="a box in one cell, sides by its numbers",
        ),
        pytest.param(
            'image,label,bbox\na.jpg,cup,"20,10,100,50"\na.jpg,dog,"150 60 160 70"\n',
            id="a box in one cell, corners by its numbers",
        ),
        pytest.param(
            "class_id,class_name,image,xmin,ymin,xmax,ymax\n0,cup,a.jpg,20,10,100,50\n",
            id="a class by number and name",
        ),
        pytest.param(
            ",image_id,label,xmin,ymin,xmax,ymax\n0,a,cup,20,10,100,50\n",
            id="an index column and names without suffix",
        ),
        pytest.param(
            "image,label,xmin,ymin,xmax,ymax\nC:\\me\\pics\\a.jpg,cup,20,10,100,50\n",
            id="Windows paths in a table",
        ),
        pytest.param(
            "image,label,xmin,ymin,xmax,ymax,,\na.jpg,cup,20,10,100,50,,\n\n,,,,,,,\n",
            id="blank columns and rows",
        ),
        pytest.param("image,label,xmin,ymin,xmax,ymax\na.jpg,cup,.1,.1,.5,0.5\n", id="a table in 0-1"),
        pytest.param(f"{HEADER}a.jpg,200,100,cup,20,10,100,50\n{HEADER}", id="the header once more"),
    ],
)
def test_one_box_however_it_is_tabled(text: str, tmp_path: Path, picture: Save, every: Every) -> None:
    picture("a.jpg"), picture("b.jpg")
    path = put(tmp_path, text, "t.tsv" if "\t" in text else "t.csv")
    assert detect(path) == "csv"
    for images in (tmp_path, None):
        samples, faults, _ = every(path, images)
        assert faults == []
        assert Path(samples[0].images[0]).name == "a.jpg"
        assert samples[0].query == "Locate the cup in the image." and near(samples[0].boxes[0], CUP_UNIT)


def test_utf16(tmp_path: Path, picture: Save, every: Every) -> None:
    picture("é.jpg")
    for encoding in ("utf-16", "utf-16-le"):
        path = put(tmp_path, f"{HEADER}é.jpg,200,100,Tür,20,10,100,50\n", encoding=encoding)
        (sample,), faults, _ = every(path, tmp_path)
        assert (sample.images, faults) == (("é.jpg",), []) and "Tür" in sample.query


def test_tables_in_folders(tmp_path: Path, picture: Save, every: Every) -> None:
    """RoboFlow keeps `_annotations.csv` beside the pictures of each split."""
    row = "1.jpg,200,100,cup,20,10,100,50\n"
    picture("train/1.jpg"), put(tmp_path, HEADER + row, "train/_annotations.csv")
    picture("valid/1.jpg"), put(tmp_path, HEADER + row, "valid/_annotations.csv")
    samples, faults, _ = every(tmp_path / "valid" / "_annotations.csv")
    assert (faults, samples[0].images) == ([], ((tmp_path / "valid/1.jpg").as_posix(),))
    assert detect(tmp_path / "train") == "csv" and len(every(tmp_path / "train")[0]) == 1
    with pytest.raises(UnivgError, match=r"2 tables of boxes in this folder \(train/_annotations.csv"):
        detect(tmp_path)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        pytest.param("a.jpg,200,100,cup,100,10,20,50", "inverted_box", id="a row with corners exchanged"),
        pytest.param("a.jpg,200,100,cup,20,10,20,50", "degenerate_box", id="a row whose box has no width"),
        pytest.param("a.jpg,200,100,cup,20,10,100", "bad_field", id="a row too short"),
        pytest.param("a.jpg,200,100,cup,20,10,100,50,7", "bad_field", id="a row too long"),
        pytest.param("a.jpg,200,100,cup,20,,100,50", "bad_box", id="a row with three numbers"),
        pytest.param("a.jpg,200,100,cup,x,10,100,50", "bad_box", id="a row with a word for a number"),
        pytest.param("a.jpg,200,100,cup,inf,10,100,50", "bad_box", id="a row with an infinite number"),
        pytest.param('a.jpg,200,100,cup,"1,234",10,100,50', "bad_box", id="a thousand or a decimal"),
        pytest.param("a.jpg,200,100,,20,10,100,50", "missing_field", id="a row without a class"),
        pytest.param(",200,100,cup,20,10,100,50", "missing_field", id="a row without an image"),
        pytest.param(
            "b.jpg,200,100,cup,20,10,100,50", "missing_image", id="a row of a picture that is not there"
        ),
        pytest.param(
            "sub/a.jpg,200,100,cup,20,10,100,50", "missing_image", id="a row of another folder's picture"
        ),
        pytest.param(
            "c.jpg,200,100,cup,20,10,100,50", "size_mismatch", id="a row with another size than the picture's"
        ),
        pytest.param(
            "turned.jpg,200,100,cup,20,10,100,50", "size_mismatch", id="a row drawn on the stored frame"
        ),
        pytest.param("a.jpg,200,100,cup,20,10,300,50", "out_of_range", id="a row whose box leaves the image"),
        pytest.param("a.jpg,200,100,cup,0.1,0.1,0.5,0.5", "wrong_scale", id="a row in 0-1 among pixels"),
        pytest.param("d.jpg,200,100,dog,20,10,100,50", "repeated_box", id="a row written twice"),
    ],
)
def test_bad_rows_cost_only_themselves(
    row: str, kind: str, tmp_path: Path, picture: Save, every: Every
) -> None:
    picture("a.jpg"), picture("c.jpg", (100, 100)), picture("d.jpg"), picture("turned.jpg", (200, 100), 6)
    path = put(tmp_path, f"{HEADER}d.jpg,200,100,dog,20,10,100,50\n{row}\n")
    samples, faults, _ = every(path, tmp_path)
    assert [fault.kind for fault in faults] == [kind]
    assert faults[0].record.startswith(
        "csv#line 3" if kind not in ("missing_image", "size_mismatch") else "csv#"
    )
    (dog,) = [sample for sample in samples if sample.query == "Locate the dog in the image."]
    assert near(dog.boxes[0], CUP_UNIT)
    assert len(samples) == 1 + (kind == "out_of_range")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(
            "image,label,x,y,w,h\na.jpg,cup,60,30,20,10\n",
            "boxes may be written x y width height or centre",
            id="x y that may be corner or centre",
        ),
        pytest.param(
            'image,label,bbox\na.jpg,cup,"10,10,50,50"\n',
            "boxes may be written x y width height or x1 y1 x2 y2",
            id="a box in one cell that may be either",
        ),
        pytest.param(
            "image,label,xmin,ymin,width,height\na.jpg,cup,60,30,200,100\na.jpg,cup,20,30,200,100\n",
            "width and height may be the image's",
            id="width that may be the image's",
        ),
        pytest.param(
            "image,label,class,xmin,ymin,xmax,ymax\na.jpg,cup,mug,20,10,100,50\n",
            "several columns may be the class: class and label",
            id="two columns of classes",
        ),
        pytest.param(
            "image,label,xmin,ymin,xmax,xmax\na.jpg,cup,20,10,100,50\n",
            "two columns are called 'xmax'",
            id="two columns of one name",
        ),
        pytest.param(
            "image,label,xmin,ymin,xmax\na.jpg,cup,20,10,100\n",
            "no columns of a box among image, label",
            id="no column ymax",
        ),
        pytest.param(
            "image,xmin,ymin,xmax,ymax\na.jpg,20,10,100,50\n",
            "no column of classes among image, xmin",
            id="no column of classes",
        ),
        pytest.param(
            "a.jpg,20,10,100,50,1\n",
            "whose class may be the second column or the last",
            id="no header and a class in digits",
        ),
        pytest.param(
            "a.jpg,20,cup,100,50\n",
            "a table without a header, of no known kind",
            id="no header of a known kind",
        ),
        pytest.param("", "an empty file", id="an empty table"),
    ],
)
def test_what_stops_a_table(text: str, says: str, tmp_path: Path, picture: Save, every: Every) -> None:
    picture("a.jpg")
    with pytest.raises(UnivgError) as told:
        every(put(tmp_path, text), tmp_path, "csv")
    assert says in str(told.value) and "\n" not in str(told.value)


def test_a_table_in_another_encoding(tmp_path: Path, every: Every) -> None:
    with pytest.raises(UnivgError, match="not UTF-8"):
        every(put(tmp_path, f"{HEADER}é.jpg,200,100,cup,20,10,100,50\n", encoding="latin-1"), tmp_path, "csv")


def test_rows_without_a_box_and_flags(tmp_path: Path, picture: Save, every: Every) -> None:
    for name in ("a.jpg", "none.jpg", "crowd.jpg"):
        picture(name)
    path = put(
        tmp_path,
        "image,class,xmin,ymin,xmax,ymax,difficult,iscrowd\n"
        "a.jpg,cup,20,10,100,50,0,false\nnone.jpg,,,,,,,\ncrowd.jpg,cup,20,10,100,50,Unspecified,1\n"
        "a.jpg,dog,20,10,100,50,true,0\na.jpg,cup,nan,nan,nan,nan,0,0\n",
    )
    (sample,), faults, notes = every(path, tmp_path)
    assert (sample.images, faults) == (("a.jpg",), [])
    assert "2 row(s) have no box: images without objects" in notes
    assert {
        "1 box(es) are marked crowd: there, but no targets",
        "1 box(es) are marked difficult: there, but no targets",
    } < {*notes}
    images = DETECTION["csv"](Source.of(path, tmp_path, faults.append))
    assert {image.name: len(image.instances) for image in images} == {
        "a.jpg": 2,
        "none.jpg": 0,
        "crowd.jpg": 1,
    }


def test_one_image_with_two_names_or_sizes(tmp_path: Path, picture: Save, every: Every) -> None:
    picture("x/a.jpg"), picture("b.jpg")
    path = put(
        tmp_path,
        "path,filename,width,height,class,xmin,ymin,xmax,ymax\nx/a.jpg,a.jpg,200,100,cup,20,10,100,50\n"
        "x/a.jpg,b.jpg,200,100,dog,20,10,100,50\nb.jpg,,200,100,dog,20,10,100,50\nb.jpg,,300,100,cup,20,10,100,50\n",
    )
    (sample,), faults, _ = every(path, tmp_path)
    assert sample.images == ("x/a.jpg",)
    assert [(fault.record, fault.kind) for fault in faults] == [
        ("csv#line 3", "other_name"),
        ("csv#b.jpg", "ambiguous_id"),
    ]


def test_a_name_without_suffix_is_one_picture(tmp_path: Path, picture: Save, every: Every) -> None:
    for name in ("a.jpg", "a.png", "sub/b.jpg"):
        picture(name)
    path = put(tmp_path, "image_id,class,xmin,ymin,xmax,ymax\na,cup,20,10,100,50\nb,cup,20,10,100,50\n")
    samples, faults, _ = every(path, tmp_path)
    assert (samples, [fault.kind for fault in faults]) == ([], ["missing_image", "missing_image"])
    assert "a.jpg or a.png" in faults[0].cause


# --- Open Images ---

BOXES = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,"
    "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
)


@pytest.mark.parametrize("header", ["", "LabelName,DisplayName\n"])
def test_open_images(header: str, tmp_path: Path, picture: Save, every: Every) -> None:
    """X X Y Y, not X Y X Y."""
    for name in ("validation/0001.jpg", "validation/0002.jpg"):
        picture(name)
    put(tmp_path, f'{header}/m/1,Cup\n/m/2,"Dog, large"\n', "class-descriptions-boxable.csv")
    rows = (
        "0001,xclick,/m/1,1,0.1,0.5,0.2,0.6,0,0,0,0,0\n0002,xclick,/m/1,1,0,1,0,1,0,0,1,0,0\n"
        "0002,a,/m/2,1,0.1,0.5,0.2,0.6,1,-1,-1,0,1\n"
    )
    path = put(tmp_path, BOXES + rows, "validation-annotations-bbox.csv")
    assert detect(path) == "open_images"
    for images in (tmp_path, tmp_path / "validation", None):
        samples, faults, notes = every(path, images)
        assert faults == []
        assert [sample.query.split(" the ")[1] for sample in samples] == ["Cup in", "Dog, large in"]
        assert [Path(sample.images[0]).name for sample in samples] == ["0001.jpg", "0002.jpg"]
        assert all(near(sample.boxes[0], (0.1, 0.2, 0.5, 0.6)) for sample in samples)
        assert any("1 box(es) are marked crowd" in note for note in notes)


def test_open_images_faults(tmp_path: Path, picture: Save, every: Every) -> None:
    for name in ("a/0001.jpg", "a/0002.jpg", "b/0002.jpg"):
        picture(name)
    row = "{},xclick,{},1,0.1,0.5,0.2,0.6,0,0,0,0,0\n"
    path = put(
        tmp_path,
        BOXES
        + "".join(
            row.format(*one)
            for one in (("0001", "/m/1"), ("0001", "/m/9"), ("0002", "/m/1"), ("0003", "/m/1"))
        ),
    )
    with pytest.raises(UnivgError, match="the names of its classes are not beside it"):
        every(path, tmp_path)
    put(tmp_path, "/m/1,Cup\n", "class-descriptions-boxable.csv")
    (sample,), faults, _ = every(path, tmp_path)
    assert sample.images == ("a/0001.jpg",)
    assert [(fault.record, fault.kind) for fault in faults] == [
        ("csv#line 3", "unknown_class"),
        ("csv#0002", "missing_image"),
        ("csv#0003", "missing_image"),
    ]
    labels = put(tmp_path, "ImageID,Source,LabelName,Confidence\n0001,verification,/m/1,1\n", "labels.csv")
    with pytest.raises(UnivgError, match="labels of whole images, which have no boxes"):
        detect(labels)


# --- what is written is read back ---


def to_table(rows: Sequence[Sequence[object]], delimiter: str, quote: int) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=quote).writerows(rows)  # type: ignore[arg-type]
    return text.getvalue()


@given(
    boxes=st.lists(
        st.tuples(
            *[st.integers(0, 198)] * 2,
            *[st.integers(0, 98)] * 2,
            st.sampled_from(["cup", "dog; old", 'a "b", c']),
        ),
        min_size=1,
        max_size=8,
    ),
    delimiter=st.sampled_from([",", ";", "\t"]),
    quote=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    order=st.permutations(range(8)),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_tabled_is_read_back(
    boxes: list[tuple[int, int, int, int, str]],
    delimiter: str,
    quote: int,
    order: list[int],
    encoding: str,
    tmp_path: Path,
) -> None:
    Image.new("RGB", (200, 100)).save(tmp_path / "ü.png")
    kept = {
        (label, (min(a, b), min(c, d), max(a, b) + 2, max(c, d) + 2)): None for a, b, c, d, label in boxes
    }
    rows = [["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]]
    rows += [["ü.png", "200", "100", label, *map(str, box)] for label, box in kept]
    text = to_table([[row[k] for k in order] for row in rows], delimiter, quote)
    path = put(tmp_path, text, encoding=encoding)
    assert detect(path) == "csv"
    faults: list[RecordFault] = []
    (image,) = DETECTION["csv"](Source.of(path, tmp_path, faults.append))
    assert faults == []
    for (label, box), instance in zip(kept, image.instances, strict=True):
        assert instance.category == label
        assert near(instance.box, (box[0] / 200, box[1] / 100, box[2] / 200, box[3] / 100))
