"""labelme's folders, and X-AnyLabeling's: shapes, what is no box, and which picture a JSON is about."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from univg.data.readers import RecordFault, detect, read
from univg.errors import UnivgError
from univg.grounding.samples import GroundingSample

Everything: TypeAlias = tuple[list[GroundingSample], list[RecordFault], list[str]]
UNIT = (0.1, 0.1, 0.5, 0.5)
SIZE = {"imageWidth": 200, "imageHeight": 100}


def shape(points: Any = ((100, 10), (20, 50)), kind: str | None = "rectangle", **more: Any) -> dict[str, Any]:
    return {"label": "cat", "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


@pytest.fixture
def labelme(tmp_path: Path) -> Callable[..., Path]:
    """Write `<name>.json` about these shapes (default: a cat) and give its folder."""

    def write(name: str, *shapes: Any, named: Any = None, **more: Any) -> Path:
        path = tmp_path / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        row = {
            "version": "5.4.1",
            "flags": {},
            "shapes": list(shapes) or [shape()],
            "imageData": None,
            **SIZE,
        }
        path.write_text(json.dumps({**row, "imagePath": named or f"{path.stem}.jpg", **more}), "utf-8")
        return path.parent

    return write


def shown(samples: list[GroundingSample]) -> dict[str, str]:
    return {sample.source: sample.images[0] for sample in samples}


@pytest.mark.parametrize(
    ("drawn", "box"),
    [
        pytest.param(shape(), UNIT, id="labelme rectangle, its corners in any order"),
        pytest.param(shape([[20, 50], [100, 10]]), UNIT, id="from the lower left"),
        pytest.param(shape([[20, 10], [100, 10], [100, 50], [20, 50]]), UNIT, id="four corners"),
        pytest.param(
            shape([[20, 50], [60, 10], [100, 40]], "polygon"), UNIT, id="labelme polygon is given its extent"
        ),
        pytest.param(shape([[20, 50], [60, 10], [100, 40]], None), UNIT, id="no shape_type, as long ago"),
        pytest.param(
            shape([[60, 50], [60, 20]], "circle"),
            (0.15, 0.2, 0.45, 0.8),
            id="labelme circle by centre and rim",
        ),
        pytest.param(
            shape([[60, 10], [100, 30], [60, 50], [20, 30]], "rotation", direction=0.78),
            UNIT,
            id="X-AnyLabeling rotation is given its extent",
        ),
        pytest.param(
            shape([[20, 10], [100, 50]], "mask", mask="iVBORw0"), UNIT, id="labelme mask by its corners"
        ),
        pytest.param(shape([["20", "10"], ["100", "50"]]), UNIT, id="numbers in quotes"),
    ],
)
def test_shapes(
    drawn: dict[str, Any],
    box: tuple[float, ...],
    labelme: Callable[..., Path],
    picture: Callable[..., Path],
    every: Callable[..., Everything],
) -> None:
    folder = labelme("a", drawn)
    picture("a.jpg")
    assert detect(folder) == detect(folder / "a.json") == "labelme"
    (sample,), faults, _ = every(folder, images=folder)
    assert (sample.source, sample.images) == ("labelme#a@cat", ("a.jpg",)) and faults == []
    assert sample.boxes[0] == pytest.approx(box)


@pytest.mark.parametrize(
    ("drawn", "kind"),
    [
        (shape([[20, 10]]), "bad_box"),
        (shape([[20, 10], [100, None]]), "bad_box"),
        (shape([[20, None], [None, 50]]), "bad_box"),  # two numbers are left, and they are no point
        (shape([[20, 10, 0], [100, 50]]), "bad_box"),
        (shape([20, 10, 100, 50]), "bad_box"),
        (shape("20,10"), "bad_box"),
        (shape(None), "bad_box"),
        (shape([[20, 10], [float("nan"), 50]]), "bad_box"),
        (shape([[20, 10], [20, 50]]), "degenerate_box"),
        (shape([[20, 10], [100, 50]], "polygon"), "bad_box"),
        (shape([[20, 10]], "circle"), "bad_box"),
        (shape(kind="blob"), "bad_box"),
        (shape(label=""), "missing_field"),
        (shape(label=None), "missing_field"),
        (shape(difficult="perhaps"), "bad_field"),
        (shape([[2000, 1000], [2100, 1050]]), "wrong_scale"),
        (7, "bad_field"),
    ],
)
def test_faults_of_shapes(
    drawn: Any,
    kind: str,
    labelme: Callable[..., Path],
    picture: Callable[..., Path],
    every: Callable[..., Everything],
) -> None:
    folder = labelme("a", drawn, shape(label="dog"))
    picture("a.jpg")
    samples, (fault,), _ = every(folder, images=folder)
    assert (fault.kind, fault.record, fault.usable) == (kind, "labelme#a@0", False)
    assert [sample.source for sample in samples] == ["labelme#a@dog"]


def test_what_has_no_box_is_told(
    labelme: Callable[..., Path], picture: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    folder = labelme(
        "a", shape([[1, 2]], "point"), shape([[1, 2], [3, 4]], "line"), shape([[1, 2]], "linestrip")
    )
    picture("a.jpg")
    samples, faults, notes = every(folder, images=folder)
    assert samples == [] and faults == []
    assert notes == [
        f"1 shape(s) that have no box are passed over: {kind}" for kind in ("point", "line", "linestrip")
    ]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"difficult": True}, "difficult"),
        ({"flags": {"iscrowd": "1"}}, "crowd"),
        ({"flags": {"ignore": 1.0}}, "to be ignored"),
        ({"label": "__ignore__"}, "to be ignored"),
        ({"difficult": "false", "flags": {"occluded": True, "iscrowd": "0"}}, None),
    ],
)
def test_flags(
    flags: dict[str, Any],
    told: str | None,
    labelme: Callable[..., Path],
    picture: Callable[..., Path],
    every: Callable[..., Everything],
) -> None:
    folder = labelme("a", shape(**flags))
    picture("a.jpg")
    samples, faults, notes = every(folder, images=folder)
    assert len(samples) == (told is None) and faults == []
    assert notes == ([] if told is None else [f"1 box(es) are marked {told}: there, but no targets"])


def test_parts_of_one_object(
    labelme: Callable[..., Path], picture: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    parts = [shape([[20, 10], [40, 30]], group_id=1), shape([[80, 20], [100, 50]], group_id=1)]
    folder = labelme(
        "a", *parts, shape([[10, 10], [20, 20]], group_id=2), shape([[1, 1], [3, 3]], label="dog", group_id=1)
    )
    picture("a.jpg")
    samples, faults, notes = every(folder, images=folder)
    assert (samples[0].source, samples[0].boxes[0]) == ("labelme#a@cat", UNIT)
    assert [len(sample.boxes) for sample in samples] == [2, 1] and faults == []
    assert notes == [
        "1 shape(s) with the label and group_id of another are parts of its object: taken together"
    ]


# --- which picture ---


@pytest.mark.parametrize(
    "named", ["..\\x\\a.jpg", "../x/a.jpg", "./../x/./a.jpg", "C:\\me\\x\\a.jpg", "/data/x/a.jpg", "a", ""]
)
def test_pictures_in_another_folder(
    named: str,
    labelme: Callable[..., Path],
    picture: Callable[..., Path],
    every: Callable[..., Everything],
    tmp_path: Path,
) -> None:
    labelme("json/a", named=named or " ")
    root = picture("x/a.jpg").parent
    samples, faults, _ = every(tmp_path / "json", images=root)
    assert shown(samples) == {"labelme#a@cat": "a.jpg"} and faults == []


def test_image_path_leads_to_one_of_two_pictures_of_one_name(
    labelme: Callable[..., Path],
    picture: Callable[..., Path],
    every: Callable[..., Everything],
    tmp_path: Path,
) -> None:
    folder = labelme("json/a", named="..\\x\\a.jpg")
    picture("x/a.jpg"), picture("json/a.jpg", (640, 480))
    samples, faults, _ = every(folder, images=tmp_path)
    assert shown(samples) == {"labelme#a@cat": "x/a.jpg"} and faults == []
    samples, faults, _ = every(folder)
    assert shown(samples) == {"labelme#a@cat": (tmp_path / "x/a.jpg").as_posix()} and faults == []


def test_a_renamed_json_is_about_the_picture_of_its_own_name(
    labelme: Callable[..., Path],
    picture: Callable[..., Path],
    every: Callable[..., Everything],
    tmp_path: Path,
) -> None:
    labelme("a"), labelme("b", named="a.jpg")
    picture("a.jpg"), picture("b.jpg")
    samples, (fault,), _ = every(tmp_path, images=tmp_path)
    assert shown(samples) == {"labelme#a@cat": "a.jpg", "labelme#b@cat": "b.jpg"}
    assert (fault.record, fault.kind, fault.usable) == ("labelme#b", "other_name", True)


def test_a_picture_that_another_json_annotates_is_not_taken(
    labelme: Callable[..., Path],
    picture: Callable[..., Path],
    every: Callable[..., Everything],
    tmp_path: Path,
) -> None:
    labelme("a"), labelme("b", named="a.jpg")
    picture("a.jpg")
    samples, (fault,), _ = every(tmp_path, images=tmp_path)
    assert shown(samples) == {"labelme#a@cat": "a.jpg"}
    assert (fault.record, fault.kind) == (
        "labelme#b",
        "missing_image",
    ) and "annotated by a.json" in fault.cause


@pytest.mark.parametrize("suffix", [".JPG", ".PNG", ".bmp"])
def test_one_name_in_several_folders(
    suffix: str,
    labelme: Callable[..., Path],
    picture: Callable[..., Path],
    every: Callable[..., Everything],
    tmp_path: Path,
) -> None:
    labelme("s1/a"), labelme("s2/a"), labelme("s3/a")
    picture(f"s1/a{suffix}"), picture(f"s2/a{suffix}")
    samples, (fault,), _ = every(tmp_path, images=tmp_path)
    assert shown(samples) == {"labelme#s1/a@cat": f"s1/a{suffix}", "labelme#s2/a@cat": f"s2/a{suffix}"}
    assert (fault.record, fault.kind) == ("labelme#s3/a", "missing_image")


def test_a_picture_that_is_only_in_the_json(
    labelme: Callable[..., Path], every: Callable[..., Everything], tmp_path: Path
) -> None:
    folder = labelme("a", imageData="iVBORw0KGgo=")
    samples, (fault,), _ = every(folder, images=folder)
    assert samples == [] and fault.kind == "missing_image" and "embedded in the JSON alone" in fault.cause
    samples, faults, _ = every(folder)  # its size is stated
    assert samples[0].boxes == (UNIT,) and faults == []


@pytest.mark.parametrize(
    ("size", "orientation", "words"),
    [
        pytest.param(
            (400, 200), 1, "is 400x200, and the annotation says 200x100", id="labelme size of another picture"
        ),
        pytest.param((200, 100), 6, "drawn on the stored frame", id="labelme on the stored frame"),
    ],
)
def test_the_stated_size_is_compared(
    size: tuple[int, int],
    orientation: int,
    words: str,
    labelme: Callable[..., Path],
    picture: Callable[..., Path],
    every: Callable[..., Everything],
) -> None:
    folder = labelme("a")
    picture("a.jpg", size, orientation)
    samples, (fault,), _ = every(folder, images=folder)
    assert samples == [] and fault.kind == "size_mismatch" and words in fault.cause


# --- which format ---


def test_reasonseg_is_told_from_labelme(labelme: Callable[..., Path], tmp_path: Path) -> None:
    folder = labelme("a", text=["the cat"], is_sentence=False)
    assert detect(folder) == detect(folder / "a.json") == "reasonseg_raw"
    assert detect(labelme("x/b", text="")) == "labelme"  # AnyLabeling writes a text too
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/c.json").write_text(json.dumps({"shapes": [], "text": ["the cat"]}))
    assert detect(tmp_path / "raw") == "reasonseg_raw"


def test_other_json_in_the_folder_is_a_fault(
    labelme: Callable[..., Path],
    picture: Callable[..., Path],
    every: Callable[..., Everything],
    tmp_path: Path,
) -> None:
    folder = labelme("b")
    picture("b.jpg")
    (folder / "a.json").write_text('{"classes": ["cat"]}')
    (folder / "c.json").write_text('{"version": ')
    samples, faults, _ = every(folder, images=folder)
    assert shown(samples) == {"labelme#b@cat": "b.jpg"}
    assert [(fault.record, fault.kind) for fault in faults] == [
        ("labelme#a", "bad_field"),
        ("labelme#c", "not_json"),
    ]
    (folder / "a.xml").write_text("<annotation/>")
    with pytest.raises(UnivgError, match=r"several formats: voc \(a.xml\), labelme \(b.json\)"):
        detect(folder)


POINTS = st.tuples(st.floats(2, 190), st.floats(2, 90))


@given(st.lists(st.tuples(POINTS, POINTS), min_size=1, max_size=5))
def test_what_is_written_is_read_back(corners: list[tuple[tuple[float, float], tuple[float, float]]]) -> None:
    kept = [pair for pair in corners if abs(pair[0][0] - pair[1][0]) > 1 and abs(pair[0][1] - pair[1][1]) > 1]
    shapes = [shape(pair, label=f"c{i}") for i, pair in enumerate(kept)]
    with tempfile.TemporaryDirectory() as folder:
        row = {"shapes": shapes, "imagePath": "a.jpg", **SIZE}
        (Path(folder) / "a.json").write_text(json.dumps(row))
        samples = list(read(folder))
    assert len(samples) == len(kept)
    for sample in samples:
        (x1, y1), (x2, y2) = kept[int(sample.source.rpartition("@c")[2])]
        expected = (min(x1, x2) / 200, min(y1, y2) / 100, max(x1, x2) / 200, max(y1, y2) / 100)
        assert sample.boxes[0] == pytest.approx(expected)
