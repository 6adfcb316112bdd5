"""Label Studio's exports: JSON and JSON-MIN, whose answer counts, which image a region lies on, what addresses mean."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from univg.data.exports.label_studio import write_label_studio
from univg.data.exports.settings import Export
from univg.data.readers import ImageRoot, RecordFault, detect, read
from univg.errors import UnivgError
from univg.grounding.samples import GroundingSample

Everything: TypeAlias = tuple[list[GroundingSample], list[RecordFault], list[str]]
UNIT = (0.1, 0.1, 0.5, 0.5)
VALUE = {"x": 10.0, "y": 10.0, "width": 40.0, "height": 40.0, "rotation": 0}


def region(label: str | None = "cat", kind: str = "rectanglelabels", **more: Any) -> dict[str, Any]:
    """A region of an image of 200x100; what is no field of a region is one of its value."""
    own = {key: more.pop(key) for key in list(more) if key in FIELDS}
    labels = {} if label is None else {kind: [label]}
    value = {**(VALUE if "points" not in more and "radiusX" not in more else {}), **more, **labels}
    stated = {"original_width": 200, "original_height": 100, "image_rotation": 0}
    return {
        "id": "r1",
        "from_name": "label",
        "to_name": "image",
        "type": kind,
        "value": value,
        **stated,
        **own,
    }


FIELDS = (
    "id",
    "type",
    "to_name",
    "source",
    "item_index",
    "image_rotation",
    "original_width",
    "original_height",
)


def task(*regions: Any, number: int = 1, data: Any = None, **more: Any) -> dict[str, Any]:
    answer = {
        "id": 5,
        "completed_by": 1,
        "was_cancelled": False,
        "ground_truth": False,
        "result": list(regions),
    }
    whole = {
        "id": number,
        "annotations": [answer],
        "drafts": [],
        "predictions": [],
        "data": data or {"image": "a.jpg"},
    }
    return {**whole, **more}


def answer(*regions: Any, **more: Any) -> dict[str, Any]:
    return {"result": list(regions), "was_cancelled": False, **more}


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Write tasks as an export."""

    def write(*tasks: Any) -> Path:
        path = tmp_path / "export.json"
        path.write_text(json.dumps(list(tasks)), "utf-8")
        return path

    return write


def boxes_of(samples: list[GroundingSample]) -> dict[str, list[tuple[float, ...]]]:
    return {
        sample.images[0]: [tuple(round(edge, 4) for edge in box) for box in sample.boxes]
        for sample in samples
    }


@pytest.mark.parametrize(
    ("drawn", "box"),
    [
        pytest.param(region(), UNIT, id="Label Studio rectangle in percent"),
        pytest.param(
            # 40 by 40 percent are 80 by 40 pixels; turned by 90 degrees about (100, 10) they reach to (60, 90)
            region(x=50.0, rotation=90),
            (0.3, 0.1, 0.5, 0.9),
            id="Label Studio rectangle turned is given its extent",
        ),
        pytest.param(
            # of a public report: 1000x500, (200, 100) 300 wide and 100 high, turned by 90 degrees
            region(x=20, y=20, width=30, height=20, rotation=90, original_width=1000, original_height=500),
            (0.1, 0.2, 0.2, 0.8),
            id="angles are taken in pixels, not in percent",
        ),
        pytest.param(region(rotation=360), UNIT, id="turned all the way round"),
        pytest.param(
            region(kind="polygonlabels", points=[[10, 50], [30, 10], [50, 20]]),
            UNIT,
            id="Label Studio polygon is given its extent",
        ),
        pytest.param(
            region(kind="ellipselabels", x=30, y=30, radiusX=20, radiusY=20, rotation=0),
            UNIT,
            id="Label Studio ellipse",
        ),
        pytest.param(
            region(kind="ellipselabels", x=30, y=50, radiusX=10, radiusY=40, rotation=90),
            (0.1, 0.3, 0.5, 0.7),
            id="an ellipse turned, in pixels",
        ),
        pytest.param(region(kind="labels"), UNIT, id="labels that hold the shape themselves"),
    ],
)
def test_shapes(
    drawn: dict[str, Any],
    box: tuple[float, ...],
    put: Callable[..., Path],
    picture: Callable[..., Path],
    every: Callable[..., Everything],
) -> None:
    path = put(task(drawn))
    assert detect(path) == "label_studio"
    size = (drawn["original_width"], drawn["original_height"])
    (sample,), faults, notes = every(path, images=picture("a.jpg", size).parent)
    assert boxes_of([sample]) == {"a.jpg": [box]} and sample.source == "label_studio#1@cat" and faults == []
    assert any("turned" in note for note in notes) == bool(drawn["value"].get("rotation", 0) % 360)


def test_labels_beside_the_shape(
    put: Callable[..., Path], picture: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    """<Rectangle> with <Labels>, choices and texts: results of one id speak of one region."""
    results = [
        region(None, "rectangle", id="a"),
        region("cat", "labels", id="a"),
        {"id": "a", "type": "textarea", "value": {**VALUE, "text": ["a grey cat"]}},
        region(None, "rectangle", id="b", x=55.0),
        {"id": "b", "type": "choices", "value": {**VALUE, "choices": ["dog"]}},
        region("bird", id="c", y=55.0, rectanglelabels=["bird", "small"]),
        {"id": "d", "type": "choices", "value": {"choices": ["outdoors"]}},
        {"type": "relation", "from_id": "a", "to_id": "b"},
    ]
    results[5]["value"]["rectanglelabels"] = ["bird", "small"]
    samples, faults, _ = every(put(task(*results)), images=picture("a.jpg").parent)
    assert [sample.source.partition("@")[2] for sample in samples] == ["bird", "cat", "dog", "small"]
    assert samples[1].boxes == (UNIT,) and faults == []


def test_regions_of_a_kind_that_is_not_known_are_told(
    put: Callable[..., Path], picture: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    path = put(task(region(), region(kind="magicwand", id="r2"), region(kind="textarea")))
    samples, faults, notes = every(path, images=picture("a.jpg").parent)
    assert [sample.boxes for sample in samples] == [(UNIT,)] and not faults
    assert notes == ["1 region(s) of a kind that is not known are passed over: magicwand"]


@pytest.mark.parametrize(
    ("drawn", "kind"),
    [
        (region(None), "missing_field"),
        (region(x=None), "bad_box"),
        (region(x="10 20"), "bad_box"),
        (region(width=float("nan")), "bad_box"),
        (region(width=-40.0), "inverted_box"),
        (region(width=0), "degenerate_box"),
        (region(x=320.0), "wrong_scale"),  # pixels
        (region(kind="polygonlabels", points=[[1, 2], [3, None], [None, 4]]), "bad_box"),
        (region(kind="polygonlabels", points=[[1, 2], [3, 4]]), "bad_box"),
        (region(kind="ellipselabels", x=1, y=2, radiusX=0, radiusY=1), "degenerate_box"),
        (region(rotation=30, original_width=None), "missing_field"),
        pytest.param(region(image_rotation=90), "bad_box", id="Label Studio image turned in the editor"),
        pytest.param(region(kind="brushlabels", rle=[0, 1], format="rle"), "no_box", id="Label Studio brush"),
        (region(kind="bitmasklabels", imageDataURL="data:image/png;base64,"), "no_box"),
        (region(kind="videorectangle", sequence=[]), "no_box"),
        ({"type": "rectanglelabels", "id": "r1"}, "missing_field"),
        (7, "bad_field"),
    ],
)
def test_faults_of_regions(
    drawn: Any,
    kind: str,
    put: Callable[..., Path],
    picture: Callable[..., Path],
    every: Callable[..., Everything],
) -> None:
    path = put(task(drawn, region("dog", id="r2")))
    samples, (fault,), _ = every(path, images=picture("a.jpg").parent)
    assert fault.kind == kind and not fault.usable and fault.record.startswith("label_studio#1@")
    assert [sample.source for sample in samples] == ["label_studio#1@dog"]


def test_points_are_told(
    put: Callable[..., Path], picture: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    path = put(task(region("nose", "keypointlabels")))
    samples, faults, notes = every(path, images=picture("a.jpg").parent)
    assert (
        samples == []
        and faults == []
        and notes == ["1 region(s) that have no box are passed over: keypointlabels"]
    )


# --- whose answer ---

OTHER = region("dog")


@pytest.mark.parametrize(
    ("answers", "seen"),
    [
        pytest.param(
            [answer(region()), answer(OTHER, ground_truth=True)],
            "dog",
            id="the answer marked as ground truth",
        ),
        pytest.param([answer(region()), answer(region(id="z"))], "cat", id="two people agree"),
        pytest.param(
            [answer(OTHER, was_cancelled=True), answer(region())], "cat", id="a skipped answer is passed over"
        ),
        pytest.param([answer(region()), answer(OTHER)], None, id="two people differ, and none is right"),
        pytest.param(
            [answer(region(), ground_truth=True), answer(OTHER, ground_truth=True)], None, id="two truths"
        ),
    ],
)
def test_whose_answer_counts(
    answers: list[Any],
    seen: str | None,
    put: Callable[..., Path],
    picture: Callable[..., Path],
    every: Callable[..., Everything],
) -> None:
    samples, faults, notes = every(put(task(annotations=answers)), images=picture("a.jpg").parent)
    assert [sample.source.partition("@")[2] for sample in samples] == ([seen] if seen else [])
    assert [fault.kind for fault in faults] == ([] if seen else ["several_answers"])
    assert any("1 answer(s) that were skipped" in note for note in notes) == any(
        one["was_cancelled"] for one in answers
    )


def test_completions_of_old_exports(
    put: Callable[..., Path], picture: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    row = {"id": 0, "data": {"image": "a.jpg"}, "completions": [{"result": [region()]}]}
    samples, faults, _ = every(put(row), images=picture("a.jpg").parent)
    assert boxes_of(samples) == {"a.jpg": [UNIT]} and faults == []


def test_predictions_are_no_annotations(
    put: Callable[..., Path], picture: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    root = picture("a.jpg").parent
    guessed = task(number=2, annotations=[], predictions=[answer(OTHER)], data={"image": "b.jpg"})
    both = put(task(region(), predictions=[answer(OTHER)]), guessed)
    samples, faults, notes = every(both, images=root)
    assert [sample.source for sample in samples] == ["label_studio#1@cat"] and faults == []
    assert notes == [
        "1 task(s) that hold only a model's predictions are passed over: nobody has annotated them"
    ]
    samples, _, notes = every(put({"data": {"image": "a.jpg"}, "predictions": [answer(OTHER)]}), images=root)
    assert len(samples) == 1 and notes == [
        "no task is annotated: the boxes are a model's predictions, which nobody has checked"
    ]
    two = [answer(region(), model_version="1"), answer(OTHER, model_version="2")]
    samples, (fault,), _ = every(put(task(annotations=[], predictions=two)), images=root)
    assert samples == [] and fault.kind == "several_answers"


def test_an_export_that_nobody_annotated(put: Callable[..., Path]) -> None:
    with pytest.raises(UnivgError, match="no task of this export is annotated"):
        list(read(put(task(annotations=[]))))


# --- which of several images ---


@pytest.mark.parametrize(
    ("data", "says", "image"),
    [
        ({"images": ["a.jpg", "b.jpg"]}, {"item_index": 1}, "b.jpg"),
        ({"images": ["a.jpg", "b.jpg"]}, {"item_index": 0}, "a.jpg"),
        ({"image": "a.jpg", "other": "b.jpg"}, {"to_name": "other"}, "b.jpg"),
        ({"image": "a.jpg", "other": "b.jpg"}, {"to_name": "img", "source": "$other"}, "b.jpg"),
        ({"images": [{"url": "a.jpg"}, {"url": "b.jpg"}]}, {"to_name": "page_1"}, "b.jpg"),
        ({"images": ["a.jpg"]}, {"to_name": "img"}, "a.jpg"),
        ({"image": "a.jpg", "text": "two cats"}, {"to_name": "img-1"}, "a.jpg"),
        pytest.param(
            {"images": ["a.jpg", "b.jpg"]},
            {},
            None,
            id="Label Studio region that names none of several images",
        ),
        ({"image": "a.jpg", "other": "b.jpg"}, {"to_name": "img"}, None),
        ({"images": ["a.jpg", "b.jpg"]}, {"item_index": 2}, None),
        ({"images": ["a.jpg", "b.jpg"]}, {"item_index": -1}, None),
        ({"images": ["a.jpg", "b.jpg"]}, {"item_index": "1"}, None),
    ],
)
def test_several_images_of_a_task(
    data: dict[str, Any],
    says: dict[str, Any],
    image: str | None,
    put: Callable[..., Path],
    picture: Callable[..., Path],
    every: Callable[..., Everything],
) -> None:
    root = picture("a.jpg").parent
    picture("b.jpg")
    samples, faults, _ = every(put(task(region(**says), data=data)), images=root)
    assert boxes_of(samples) == ({image: [UNIT]} if image else {})
    assert len(faults) == (image is None)
    if not image:
        assert faults[0].kind in ("which_image", "bad_field") and faults[0].record == "label_studio#1@r1"


# --- addresses ---


@pytest.mark.parametrize(
    ("address", "file"),
    [
        ("/data/upload/4/8f2a-a.jpg", "a.jpg"),
        ("/data/upload/4/8f2a1b3c-a-b.jpg", "a-b.jpg"),
        ("/data/upload/4/8f2a1b3c-a.jpg", "8f2a1b3c-a.jpg"),
        ("/data/upload/4/8f2a1b3c-a.jpg", "upload/4/8f2a1b3c-a.jpg"),
        ("upload/4/8f2a1b3c-a.jpg", "a.jpg"),
        ("http://localhost:8080/data/upload/4/8f2a1b3c-a.jpg", "a.jpg"),
        ("/data/local-files/?d=dir/a.jpg", "dir/a.jpg"),
        ("/data/local-files/?d=home/me/dir/a%20b.jpg", "dir/a b.jpg"),
        ("/data/local-files/?d=Users%5Cme%5Cdir%5Ca.jpg", "dir/a.jpg"),
        ("http://localhost:8080/data/local-files/?d=dir/a.jpg", "dir/a.jpg"),
        ("s3://bucket/dir/a.jpg", "dir/a.jpg"),
        ("s3://bucket/dir/a.jpg", "a.jpg"),
        ("https://host/x/dir/a%20b.JPG?X-Amz-Signature=1", "dir/a b.JPG"),
        ("C:\\Users\\me\\dir\\a.jpg", "dir/a.jpg"),
        ("dir/a.PNG", "dir/a.PNG"),
    ],
)
def test_addresses(
    address: str,
    file: str,
    put: Callable[..., Path],
    picture: Callable[..., Path],
    every: Callable[..., Everything],
    tmp_path: Path,
) -> None:
    picture(f"root/{file}")
    tasks = [task(region(), number=k, data={"image": address}) for k in (1, 2)]  # one picture, in two tasks
    samples, _, notes = every(put(*tasks), images=tmp_path / "root")
    assert boxes_of(samples) == {file: [UNIT]}
    assert sum("found by" in note for note in notes) <= 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/data/upload/4/11111111-a.jpg", "/data/upload/4/22222222-a.jpg"),
        ("/data/upload/4/11111111-a.jpg", "/data/upload/5/11111111-a.jpg"),
        ("s3://bucket/x/a.jpg", "s3://bucket/y/a.jpg"),
        ("https://host/x/a.jpg", "C:\\y\\a.jpg"),
        ("/data/local-files/?d=x/a.jpg", "/data/local-files/?d=y/a.jpg"),
        ("/data/upload/4/11111111-a.jpg", "s3://bucket/y/a.jpg"),
    ],
)
def test_two_addresses_are_never_one_picture(
    one: str,
    other: str,
    put: Callable[..., Path],
    picture: Callable[..., Path],
    every: Callable[..., Everything],
    tmp_path: Path,
) -> None:
    root = picture("root/a.jpg").parent
    pair = [task(region(), number=k, data={"image": name}) for k, name in enumerate((one, other))]
    for tasks in (pair, pair[::-1]):
        samples, faults, _ = every(put(*tasks), images=root)
        assert samples == [] and [fault.kind for fault in faults] == ["missing_image"] * 2
        assert "its 1 box(es) are left out" in faults[0].cause


def test_all_uploads_are_found_in_one_way(
    put: Callable[..., Path], picture: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    """11111111-a.jpg is there with its digits, so a.jpg is not 22222222-a.jpg."""
    root = picture("root/11111111-a.jpg").parent
    picture("root/a.jpg")
    names = ("/data/upload/4/11111111-a.jpg", "/data/upload/4/22222222-a.jpg")
    tasks = [task(region(), number=k, data={"image": name}) for k, name in enumerate(names)]
    samples, (fault,), _ = every(put(*tasks), images=root)
    assert boxes_of(samples) == {"11111111-a.jpg": [UNIT]} and fault.record == "label_studio#1"


def test_an_upload_and_the_picture_itself(
    put: Callable[..., Path], picture: Callable[..., Path], every: Callable[..., Everything], tmp_path: Path
) -> None:
    """a.jpg is the second task's by name, so it is not the first's, whose own is not there."""
    tasks = [task(region(), data={"image": "/data/upload/4/11111111-a.jpg"}), task(region(), number=2)]
    samples, (fault,), _ = every(put(*tasks), images=picture("root/a.jpg").parent)
    assert [sample.source for sample in samples] == [
        "label_studio#2@cat"
    ] and fault.record == "label_studio#1"


@pytest.mark.parametrize(
    ("drawn", "size", "orientation", "words"),
    [
        (region(), (400, 200), 1, "the annotation says 200x100"),
        (region(), (200, 100), 6, "drawn on the stored frame"),
        ([region(), region("dog", original_width=640)], (200, 100), 1, "state 200x100 and 640x100"),
    ],
)
def test_the_stated_size_is_compared(
    drawn: Any,
    size: tuple[int, int],
    orientation: int,
    words: str,
    put: Callable[..., Path],
    picture: Callable[..., Path],
    every: Callable[..., Everything],
) -> None:
    path = put(task(*(drawn if isinstance(drawn, list) else [drawn])))
    samples, (fault,), _ = every(path, images=picture("a.jpg", size, orientation).parent)
    assert samples == [] and fault.kind == "size_mismatch" and words in fault.cause


# --- JSON-MIN, single tasks, other projects ---


def minimal(label: str = "cat", **more: Any) -> dict[str, Any]:
    value = {**VALUE, "rectanglelabels": [label], "original_width": 200, "original_height": 100}
    row = {
        "image": "/data/upload/4/8f2a1b3c-a.jpg",
        "id": 1,
        "label": [value],
        "annotator": 1,
        "annotation_id": 7,
    }
    return {**row, "created_at": "", "updated_at": "", "lead_time": 1.0, **more}


def test_json_min(
    put: Callable[..., Path], picture: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    root = picture("a.jpg").parent
    path = put(minimal())
    assert detect(path) == "label_studio"
    samples, faults, _ = every(path, images=root)
    assert (
        boxes_of(samples) == {"a.jpg": [UNIT]} and samples[0].source == "label_studio#1@cat" and faults == []
    )
    samples, (fault,), _ = every(put(minimal(), minimal("dog", annotator=2)), images=root)
    assert samples == [] and (fault.record, fault.kind) == ("label_studio#1", "several_answers")
    place = {**VALUE, "original_width": 200, "original_height": 100}
    beside = minimal(
        bbox=[place], transcription=["a cat"], note=[{**place, "text": ["x"]}]
    )  # tags repeat the place
    samples, faults, _ = every(put(beside), images=root)
    assert boxes_of(samples) == {"a.jpg": [UNIT]} and faults == []
    _, (fault,), _ = every(put(minimal(bbox=[{**place, "x": 55.0}])), images=root)
    assert fault.kind == "missing_field" and fault.cause == "the region has no label"
    old = {key: value for key, value in minimal().items() if key in ("image", "label")}
    assert len(every(put(old), images=root)[0]) == 1


def test_one_task_a_file(
    picture: Callable[..., Path], every: Callable[..., Everything], tmp_path: Path
) -> None:
    root = picture("a.jpg").parent
    stored = {
        "id": 9,
        "result": [region()],
        "task": {"id": 1, "data": {"image": "a.jpg"}},
    }  # as a bucket keeps it
    for row in (task(region()), stored):
        path = tmp_path / "1.json"
        path.write_text(json.dumps(row, indent=1))
        assert detect(path) == "label_studio"
        samples, faults, _ = every(path, images=root)
        assert boxes_of(samples) == {"a.jpg": [UNIT]} and faults == []


def test_projects_of_other_things(put: Callable[..., Path], every: Callable[..., Everything]) -> None:
    sentiment = task({"id": "x", "type": "choices", "value": {"choices": ["good"]}}, data={"text": "fine"})
    samples, (fault,), _ = every(put(sentiment))
    assert samples == [] and fault.kind == "no_images" and "holds choices" in fault.cause


@pytest.mark.parametrize(
    ("boxes", "seen", "kinds"),
    [
        ([(40, 30, 200, 150), (320, 240, 160, 120), (10, 10, 20, 20)], 3, []),
        ([(10, 10, 20, 20), (20, 20, 30, 30), (320, 240, 160, 120)], 2, ["wrong_scale"]),
        ([(600, 10, 200, 20), (20, 20, 30, 30)], 1, ["wrong_scale"]),
    ],
)
def test_pixels_where_percent_are_meant(
    boxes: list[tuple[int, ...]],
    seen: int,
    kinds: list[str],
    put: Callable[..., Path],
    picture: Callable[..., Path],
    every: Callable[..., Everything],
) -> None:
    size = {"original_width": 640, "original_height": 480}
    regions = [
        region(f"c{i}", id=f"r{i}", x=x, y=y, width=w, height=h, **size)
        for i, (x, y, w, h) in enumerate(boxes)
    ]
    samples, faults, notes = every(put(task(*regions)), images=picture("a.jpg", (640, 480)).parent)
    assert len(samples) == seen and [fault.kind for fault in faults] == kinds
    if not kinds:
        assert samples[0].boxes[0] == (40 / 640, 30 / 480, 240 / 640, 180 / 480)
        assert notes[0].startswith("boxes are written in pixels, not in percent")
    else:
        assert "where percent are meant" in notes[0]


def test_what_univg_writes_is_read_back(
    picture: Callable[..., Path], every: Callable[..., Everything], tmp_path: Path
) -> None:
    """`convert --to label_studio` writes predictions, which are read where nothing else is in the file."""
    root = picture("pictures/s 1/a.jpg").parents[1]
    picture("pictures/s 2/a.jpg")
    samples = [
        GroundingSample(
            (f"s {k}/a.jpg",), "the cat", "detection", ((0.1 * k, 0.1, 0.5, 0.5),), 0, source=f"x#{k}"
        )
        for k in (1, 2)
    ]
    how = Export(images=ImageRoot(root), category="cat")
    write_label_studio(tmp_path / "tasks.json", iter(samples), how)
    read_back, faults, _ = every(tmp_path / "tasks.json", images=root)
    assert boxes_of(read_back) == {"s 1/a.jpg": [UNIT], "s 2/a.jpg": [(0.2, 0.1, 0.5, 0.5)]} and faults == []


SIDES = st.tuples(*[st.floats(2, 49)] * 4)


@given(st.lists(SIDES, min_size=1, max_size=5))
def test_what_is_written_is_read_back(sides: list[tuple[float, float, float, float]]) -> None:
    regions = [
        region(f"c{i}", id=str(i), x=x, y=y, width=w, height=h) for i, (x, y, w, h) in enumerate(sides)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "export.json"
        path.write_text(json.dumps([task(*regions)]))
        samples = list(read(path))
    assert len(samples) == len(sides)
    for sample in samples:
        x, y, w, h = sides[int(sample.source.rpartition("@c")[2])]
        assert sample.boxes[0] == pytest.approx((x / 100, y / 100, (x + w) / 100, (y + h) / 100))
