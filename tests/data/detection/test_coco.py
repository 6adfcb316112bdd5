"""COCO files as people have them: ids, flags, forms of boxes, pictures that are not what is said of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from univg.data.detection import DETECTION
from univg.data.formats.records import Source
from univg.data.readers import RecordFault, read
from univg.errors import UnivgError
from univg.grounding.samples import GroundingSample

Everything: TypeAlias = tuple[list[GroundingSample], list[RecordFault], list[str]]

CUP = (20, 10, 80, 40)
CUP_UNIT = (0.1, 0.1, 0.5, 0.5)


def annotation(**changes: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 1, "category_id": 1, "bbox": list(CUP), **changes}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"image_id": "1"}, id="image id as text"),
        pytest.param({"image_id": 1.0}, id="image id as float"),
        pytest.param({"category_id": "1"}, id="category id as text"),
        pytest.param({"category_id": 1.0}, id="category id as float"),
        pytest.param({"bbox": ["20", "10", "80", "40"]}, id="numbers as texts"),
        pytest.param({"bbox": "[20, 10, 80, 40]"}, id="a box as text"),
        pytest.param({"bbox": [[20, 10, 80, 40]]}, id="a nested box"),
        pytest.param({"bbox": {"h": 0, "y": 10, "height": 40, "x": 20, "width": 80}}, id="a box as object"),
        pytest.param(
            {"bbox": None, "segmentation": [[20, 10, 100, 10, 100, 50, 20, 50]]},
            id="an object with a segmentation alone",
        ),
        pytest.param(
            {"bbox": [], "segmentation": {"size": [100, 200], "counts": [2010, *[40, 60] * 79, 40, 10050]}},
            id="the same as run lengths",
        ),
        *(
            pytest.param({"iscrowd": no}, id=f"iscrowd {no!r}")
            for no in (0, "0", "false", 0.0, False, None, "")
        ),
    ],
)
def test_one_box_however_it_is_written(
    changes: dict[str, Any], coco: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    (sample,), faults, _ = every(coco([(1, "a.jpg")], [annotation(**changes)]))
    assert (sample.boxes, sample.query, faults) == ((CUP_UNIT,), "Locate the cup in the image.", [])


def test_categories_as_an_object(coco: Callable[..., Path], every: Callable[..., Everything]) -> None:
    path = coco([(1, "a.jpg")], [(1, CUP)], categories={"1": "cup", "2": {"name": "dog"}})
    (sample,), _, _ = every(path)
    assert sample.query == "Locate the cup in the image."


@pytest.mark.parametrize("yes", [1, "1", True, "true", 1.0, "Yes"])
def test_a_set_of_crowds_says_so(
    yes: Any, coco: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    samples, faults, notes = every(coco([(1, "a.jpg")], [annotation(iscrowd=yes)]))
    assert (samples, faults) == ([], [])
    assert notes == ["1 box(es) are marked crowd: there, but no targets"]


def test_difficult_objects_are_no_targets_in_coco_either(
    coco: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    samples, faults, notes = every(coco([(1, "a.jpg")], [annotation(difficult="1")]))
    assert (samples, faults) == ([], []) and "1 box(es) are marked difficult" in notes[0]


def test_a_flag_that_is_no_flag_is_a_fault(
    coco: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    samples, faults, _ = every(coco([(1, "a.jpg")], [annotation(iscrowd="perhaps")]))
    assert (samples, [(fault.kind, fault.record) for fault in faults]) == ([], [("bad_field", "coco#1@1")])


def test_a_target_beside_a_crowd_is_not_asked_for_and_counted(
    coco: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    samples, _, notes = every(coco([(1, "a.jpg")], [annotation(), annotation(bbox=[0, 0, 5, 5], iscrowd=1)]))
    assert samples == [] and any("1 question(s) are not asked" in note for note in notes)


# --- identity of pictures ---


def test_two_pictures_with_one_id_are_refused(
    coco: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    path = coco([(1, "cam1/f.png"), ("1", "cam2/f.png"), (2, "c.png")], [(1, CUP), (2, CUP)])
    (sample,), (fault,), _ = every(path)
    assert sample.images == ("c.png",)
    assert (fault.record, fault.kind) == ("coco#1", "ambiguous_id")
    assert "cam1/f.png" in fault.cause and "cam2/f.png" in fault.cause and "1 box(es)" in fault.cause


def test_two_categories_with_one_id_are_refused(
    coco: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    path = coco([(1, "a.jpg")], [(1, CUP)], categories=[{"id": 1, "name": "cup"}, {"id": 1, "name": "dog"}])
    samples, (fault,), _ = every(path)
    assert (samples, fault.kind, fault.cause) == ([], "ambiguous_id", "its category 1 is cup and dog")


@pytest.mark.parametrize("shift", [-1, 1])
def test_categories_numbered_from_another_number_are_refused(
    shift: int, coco: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    start = 1 if shift < 0 else 0
    categories = [{"id": k, "name": name} for k, name in enumerate(("cup", "dog", "hat"), start)]
    used = [annotation(id=k, category_id=start + k + shift) for k in range(3)]
    with pytest.raises(UnivgError, match="their names may all be shifted by one"):
        every(coco([(1, "a.jpg")], used, categories=categories))


def test_one_entry_written_twice_is_one(coco: Callable[..., Path], every: Callable[..., Everything]) -> None:
    (sample,), faults, notes = every(coco([(1, "a.jpg"), (1, "./a.jpg")], [(1, CUP)]))
    assert (sample.boxes, faults, len(notes)) == ((CUP_UNIT,), [], 1)


def test_a_file_listed_twice_has_all_its_boxes(
    coco: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    (sample,), faults, notes = every(coco([(1, "a.jpg"), (7, "a.jpg")], [(1, CUP), (7, (0, 0, 20, 10))]))
    assert sample.query == "Locate every cup in the image."  # not "the", as each half of it would have it
    assert (set(sample.boxes), faults) == ({CUP_UNIT, (0.0, 0.0, 0.1, 0.1)}, [])
    assert notes == ["1 image(s) are listed more than once, as a.jpg: their boxes are put together"]


def test_two_names_of_one_file_are_one_picture(
    coco: Callable[..., Path], every: Callable[..., Everything], picture: Callable[..., Path], tmp_path: Path
) -> None:
    """Told in the manual as: a picture and a link to it."""
    picture("a.jpg")
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    listed = coco(
        [(1, "a.jpg"), (2, "b.jpg"), (3, f"file://{tmp_path}/a.jpg")],
        [(k, (20 * k, 10, 9, 9)) for k in (1, 2, 3)],
    )
    (sample,), faults, notes = every(listed, tmp_path)
    assert (sample.images, len(sample.boxes), faults) == (("a.jpg",), 3, [])
    assert notes == ["1 image(s) are listed more than once, as a.jpg: their boxes are put together"]


def test_a_note_of_many_pictures_is_one(
    coco: Callable[..., Path], every: Callable[..., Everything], picture: Callable[..., Path], tmp_path: Path
) -> None:
    names = [f"C:\\me\\{k}.jpg" for k in range(3)]
    for k in range(3):
        picture(f"{k}.jpg")
    _, faults, notes = every(coco([*enumerate(names), *enumerate(names)], []), tmp_path)
    assert faults == [] and len(notes) == 2 and all("0.jpg" in note for note in notes)


def test_a_name_too_long_for_a_file_costs_only_itself(
    coco: Callable[..., Path], every: Callable[..., Everything], tmp_path: Path, picture: Callable[..., Path]
) -> None:
    picture("a.jpg")
    for images in (tmp_path, None):
        samples, _, _ = every(coco([(1, "x" * 999), (2, "a.jpg")], [(2, CUP)]), images)
        assert [sample.images[0] for sample in samples] == ["a.jpg"]


def test_an_object_written_twice_counts_once(
    coco: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    (sample,), (fault,), _ = every(coco([(1, "a.jpg"), (7, "a.jpg")], [(1, CUP), (7, CUP)]))
    assert (sample.boxes, sample.query) == ((CUP_UNIT,), "Locate the cup in the image.")
    assert (fault.kind, fault.usable) == ("repeated_box", True)


@pytest.mark.parametrize(
    "bbox", [None, [20, "x", 5, 5], [90, 10, -50, 40], [5000, 4000, 90, 90], [float("nan")] * 4]
)
def test_beside_an_object_of_unknown_place_none_is_the_only_one(
    bbox: Any, coco: Callable[..., Path], every: Callable[..., Everything], tmp_path: Path
) -> None:
    lost = annotation(id=2, bbox=bbox)
    path = coco([(1, "a.jpg"), (2, "b.jpg")], [annotation(), lost, annotation(id=3, image_id=2)])
    (sample,), (fault,), notes = every(path)
    assert (sample.images, fault.record) == (("b.jpg",), "coco#1@2")
    assert any("1 question(s) are not asked" in note for note in notes)
    images = DETECTION["coco"](Source.of(path, on_fault=lambda fault: None))
    counts = {image.name: [one.category for one in image.instances].count("cup") for image in images}
    assert counts == {"a.jpg": 2, "b.jpg": 1}  # `build` counts two cups, too


def test_a_click_that_drew_nothing_is_no_object(
    coco: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    (sample,), (fault,), _ = every(coco([(1, "a.jpg")], [annotation(), annotation(id=2, bbox=[7, 7, 0, 0])]))
    assert (sample.query, fault.kind) == ("Locate the cup in the image.", "degenerate_box")


def test_a_name_in_another_folder_is_not_this_picture(
    coco: Callable[..., Path], every: Callable[..., Everything], picture: Callable[..., Path], tmp_path: Path
) -> None:
    picture("f.png"), picture("cam2/f.png")
    names = ["cam1/f.png", "cam2/f.png", "cam3/cam2/f.png"]
    path = coco(list(enumerate(names)), [(i, CUP) for i in range(3)])
    (sample,), faults, _ = every(path, images=tmp_path)
    assert sample.images == ("cam2/f.png",)
    assert {fault.record for fault in faults} == {"coco#0", "coco#2"}
    assert all(fault.kind == "missing_image" and "1 box(es) are left out" in fault.cause for fault in faults)


def test_windows_paths(
    coco: Callable[..., Path], every: Callable[..., Everything], picture: Callable[..., Path], tmp_path: Path
) -> None:
    for name in ("a b.jpg", "café 100%.jpg", "sub/c.jpg", "d.jpg"):
        picture(f"images/{name}")
    names = [
        "images\\a b.jpg",
        "..\\..\\label-studio\\media\\upload\\4\\café 100%.jpg",
        "images\\sub\\c.jpg",
        "..\\label\\c.jpg",  # there is a c.jpg, but in another folder
        "C:\\Users\\me\\one\\d.jpg",  # the same file as the next: neither can be believed
        "D:\\two\\d.jpg",
    ]
    path = coco(list(enumerate(names)), [(i, CUP) for i in range(len(names))])
    samples, faults, notes = every(path, images=tmp_path / "images")
    assert [sample.images[0] for sample in samples] == ["a b.jpg", "café 100%.jpg", "sub/c.jpg"]
    assert [fault.record for fault in faults] == ["coco#3", "coco#4", "coco#5"]
    assert "another path of the set ends in the same file" in faults[1].cause
    assert any("paths of another machine" in note for note in notes)


# --- size and orientation ---


def test_boxes_on_the_stored_frame_are_refused_in_their_own_words(
    coco: Callable[..., Path], every: Callable[..., Everything], picture: Callable[..., Path], tmp_path: Path
) -> None:
    picture("turned.jpg", orientation=6), picture("upside.jpg", orientation=3), picture("plain.jpg")
    names = ["turned.jpg", "upside.jpg", "plain.jpg"]
    path = coco(list(enumerate(names)), [(i, CUP) for i in range(3)])
    (sample,), faults, notes = every(path, images=tmp_path)
    assert sample.images == ("plain.jpg",)
    assert [(fault.record, fault.kind) for fault in faults] == [
        ("coco#0", "size_mismatch"),
        ("coco#1", "size_mismatch"),  # 180 degrees: its size proves nothing, but turned.jpg's does
    ]
    assert "stored as 200x100 and shown turned (EXIF orientation 6)" in faults[0].cause
    assert "as turned.jpg's were" in faults[1].cause and "orientation" in faults[0].fix
    assert [note for note in notes if note.startswith("2 image(s) are stored rotated")]


def test_rotated_pictures_are_counted_where_nothing_is_wrong(
    coco: Callable[..., Path], every: Callable[..., Everything], picture: Callable[..., Path], tmp_path: Path
) -> None:
    picture("a.jpg", (100, 200), orientation=8), picture("b.jpg", orientation=3)
    (one, _), faults, notes = every(coco([(1, "a.jpg"), (2, "b.jpg")], [(1, CUP), (2, CUP)]), images=tmp_path)
    assert (one.boxes, faults) == ((CUP_UNIT,), [])
    assert [note for note in notes if note.startswith("2 image(s) are stored rotated")]


# --- scale and form ---


def sized(name: str, width: int = 800, height: int = 600) -> dict[str, Any]:
    return {"id": 1, "file_name": name, "width": width, "height": height}


BOXES = [(10 * k, 5 * k, 300 + k, 200 + k) for k in range(1, 12)]  # x y width height in 800x600


@pytest.mark.parametrize(
    ("across", "down", "said"),
    [
        (1 / 800, 1 / 600, "0-1"),
        (100 / 800, 100 / 600, "in percent"),
        (1, 1, ""),
    ],
)
def test_a_file_in_another_scale_is_read_as_such_and_says_so(
    across: float, down: float, said: str, coco: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    scaled = [(x * across, y * down, w * across, h * down) for x, y, w, h in BOXES]
    (sample,), faults, notes = every(coco([sized("a.jpg")], [(1, box) for box in scaled]))
    expected = [(x / 800, y / 600, (x + w) / 800, (y + h) / 600) for x, y, w, h in BOXES]
    assert faults == [] and len(sample.boxes) == len(BOXES)
    for box, right in zip(sample.boxes, expected, strict=True):
        assert box == pytest.approx(right)
    assert [said in note for note in notes] == ([True] if said else [])


def test_thousandths_where_pixels_are_expected(
    coco: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    boxes = [(100 + 50 * k, 200, 300, 500) for k in range(10)]
    (sample,), faults, notes = every(coco([sized("a.jpg", 320, 240)], [(1, box) for box in boxes]))
    assert sample.boxes[9] == pytest.approx((0.55, 0.2, 0.85, 0.7)) and faults == []
    assert "boxes are written 0-1000, not in pixels" in notes[0]


def test_a_box_of_another_scale_among_many_is_refused(
    coco: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    strays = [(0.1, 0.2, 0.5, 0.6), (5000, 4000, 900, 800)]
    other = {**sized("b.jpg"), "id": 2}
    path = coco([sized("a.jpg"), other], [*((1, box) for box in BOXES), *((2, box) for box in strays)])
    (sample,), faults, _ = every(path)
    assert len(sample.boxes) == len(BOXES)
    assert [fault.kind for fault in faults] == ["wrong_scale", "wrong_scale"]


def test_corners_where_sides_are_expected(
    coco: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    corners = [(x + 400, y + 300, x + 480, y + 380) for x, y, _, _ in BOXES]
    (sample,), faults, notes = every(coco([sized("a.jpg")], [(1, box) for box in corners]))
    x1, y1, x2, y2 = corners[0]
    assert (sample.boxes[0], faults) == ((x1 / 800, y1 / 600, x2 / 800, y2 / 600), [])
    assert "x1 y1 x2 y2, not x y width height" in notes[0]


def test_a_doubtful_scale_is_said(coco: Callable[..., Path], every: Callable[..., Everything]) -> None:
    (sample,), _, notes = every(coco([sized("a.jpg")], [(1, (10, 10, 40, 40))]))
    assert sample.boxes == ((10 / 800, 10 / 600, 50 / 800, 50 / 600),)
    assert "percent? Read as pixels" in notes[0]


# --- other COCO files ---


def test_panoptic_files_say_what_they_are(
    coco: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    path = coco([(1, "a.jpg")], [{"image_id": 1, "file_name": "a.png", "segments_info": []}])
    with pytest.raises(Exception, match="a COCO panoptic file"):
        every(path)


@given(
    st.lists(
        st.tuples(*[st.integers(0, 99)] * 2, *[st.integers(3, 100)] * 2), min_size=1, max_size=6, unique=True
    ),
    st.randoms(use_true_random=False),
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, boxes: list[tuple[int, int, int, int]], random: Any
) -> None:
    """Any boxes on any images, the entries in any order, lie where they were written."""
    images = [{"id": i, "file_name": f"{i % 2}/{i}.jpg", "width": 200, "height": 200} for i in range(4)]
    annotations = [
        {"id": k, "image_id": random.randrange(4), "category_id": random.randrange(2), "bbox": list(box)}
        for k, box in enumerate(boxes)
    ]
    written = {
        (f"{a['image_id'] % 2}/{a['image_id']}.jpg", ["cup", "dog"][a["category_id"]], *a["bbox"])
        for a in annotations
    }
    random.shuffle(annotations), random.shuffle(images)
    categories = [{"id": 0, "name": "cup"}, {"id": 1, "name": "dog"}]
    path = tmp_path_factory.mktemp("coco") / "a.json"
    path.write_text(json.dumps({"annotations": annotations, "images": images, "categories": categories}))
    back = {
        (sample.images[0], sample.query.split()[2], *(round(200 * v) for v in (x1, y1, x2 - x1, y2 - y1)))
        for sample in read(path, on_fault=lambda fault: None)
        for x1, y1, x2, y2 in sample.boxes
    }
    assert back == written


def test_every_object_of_a_category_as_a_set(tmp_path: Path) -> None:
    """A crowd is no box and is kept for COCO's AP; a category that an image has none of is asked for, too."""
    value = {
        "images": [{"id": k, "file_name": f"{k}.jpg", "width": 200, "height": 100} for k in (1, 2)],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 10, 80, 40], "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [100, 50, 100, 50], "iscrowd": 1},
            {"id": 3, "image_id": 2, "category_id": 2, "bbox": [20, 10, 80, 40], "iscrowd": 0},
            {"id": 4, "image_id": 2, "category_id": 2, "bbox": [100, 10, 80, 40], "iscrowd": 0},
            {"id": 5, "image_id": 2, "category_id": 3, "bbox": ["?", 10, 80, 40], "iscrowd": 0},
        ],
        "categories": [{"id": k, "name": name} for k, name in ((1, "cup"), (2, "dog"), (3, "cat"))],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(value))
    faults, notes = [], []
    samples = list(read(path, "coco_detection", None, faults.append, notes.append))
    assert all(sample.complete for sample in samples)
    assert [(one.images[0], one.extra["category"], len(one.boxes)) for one in samples] == [
        ("1.jpg", "cup", 1),
        ("1.jpg", "cat", 0),
        ("2.jpg", "dog", 2),
        ("2.jpg", "cup", 0),
    ]
    assert samples[0].extra["protocol"] == {"category": "cup", "crowds": [[0.5, 0.5, 1.0, 1.0]]}
    assert [fault.kind for fault in faults] == ["bad_box"]
    assert any("the place of an object" in note for note in notes)
    assert any("as a crowd" in note for note in notes)
