"""CVAT's XML as CVAT and datumaro write it: images in folders, turned boxes, masks, tracks through a video."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from univg.data.readers import RecordFault, detect, read
from univg.errors import UnivgError
from univg.grounding.samples import GroundingSample

Everything: TypeAlias = tuple[list[GroundingSample], list[RecordFault], list[str]]
BOX = '<box label="car" occluded="1" xtl="20.00" ytl="10.00" xbr="100.00" ybr="50.00" z_order="2"></box>'
UNIT = (0.1, 0.1, 0.5, 0.5)
VIDEO_SIZE = "<original_size><width>200</width><height>100</height></original_size>"
META = f"<meta><task><name>drive</name>{VIDEO_SIZE}</task></meta>"


def image(name: str, inside: str = BOX, size: str = 'width="200" height="100"', **more: str) -> str:
    extra = " ".join(f'{key}="{value}"' for key, value in more.items())
    return f'<image id="{more.pop("id", 0)}" name="{name}" {size} {extra}>{inside}</image>'


@pytest.fixture
def xml(tmp_path: Path) -> Callable[..., Path]:
    """Write `annotations.xml` with these elements."""

    def write(*elements: str, path: str = "annotations.xml") -> Path:
        (tmp_path / path).parent.mkdir(exist_ok=True, parents=True)
        head = '<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>'
        text = f"{head}{''.join(elements)}</annotations>"
        (tmp_path / path).write_text(text, "utf-8")
        return tmp_path / path

    return write


def boxes_of(samples: list[GroundingSample]) -> dict[str, list[tuple[float, ...]]]:
    return {
        sample.images[0]: [tuple(round(edge, 4) for edge in box) for box in sample.boxes]
        for sample in samples
    }


def test_one_name_in_two_folders(
    xml: Callable[..., Path], picture: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    root = picture("s 1/a.jpg").parents[1]
    picture("s 2/a.jpg")
    path = xml(image("s 1/a.jpg"), image("s 2\\a.jpg", BOX.replace("20.00", "40.00")))
    assert detect(path) == "cvat"
    samples, faults, _ = every(path, images=root)
    assert boxes_of(samples) == {"s 1/a.jpg": [UNIT], "s 2/a.jpg": [(0.2, *UNIT[1:])]} and faults == []


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        pytest.param(BOX, UNIT, id="CVAT box"),
        pytest.param(
            '<box label="car" xtl="60" ytl="40" xbr="140" ybr="60" rotation="90.00"/>',
            (0.45, 0.1, 0.55, 0.9),
            id="CVAT box turned by 90 degrees is given its extent",
        ),
        pytest.param(
            '<polygon label="car" points="20,50;100.0,10;60,30"/>',
            UNIT,
            id="CVAT polygon is given its extent",
        ),
        pytest.param('<ellipse label="car" cx="60" cy="30" rx="40" ry="20"/>', UNIT, id="CVAT ellipse"),
        pytest.param(
            '<ellipse label="car" cx="60" cy="50" rx="20" ry="40" rotation="90"/>',
            (0.1, 0.3, 0.5, 0.7),
            id="CVAT ellipse turned",
        ),
        # rows of 4 pixels from (20, 10) on: .##. / .##. / ....
        pytest.param(
            '<mask label="car" rle="1, 2, 2, 2, 5" left="20" top="10" width="4" height="3"/>',
            (0.105, 0.1, 0.115, 0.12),
            id="CVAT mask is given its extent",
        ),
    ],
)
def test_shapes(
    shape: str,
    box: tuple[float, ...],
    xml: Callable[..., Path],
    picture: Callable[..., Path],
    every: Callable[..., Everything],
) -> None:
    samples, faults, notes = every(xml(image("a.jpg", shape)), images=picture("a.jpg").parent)
    assert boxes_of(samples) == {"a.jpg": [box]} and faults == []
    assert any("turned" in note for note in notes) == ("rotation" in shape)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ('<box label="car" xtl="20" ytl="10" xbr="100"/>', "bad_box"),
        ('<box label="car" xtl="nan" ytl="10" xbr="100" ybr="50"/>', "bad_box"),
        ('<box label="car" xtl="1e999" ytl="10" xbr="100" ybr="50"/>', "bad_box"),
        ('<box label="car" xtl="20 3" ytl="10" xbr="100" ybr="50"/>', "bad_box"),
        ('<box label="car" xtl="100" ytl="10" xbr="20" ybr="50"/>', "inverted_box"),
        ('<box label="car" xtl="100" ytl="10" xbr="20" ybr="50" rotation="30"/>', "inverted_box"),
        ('<box label="car" xtl="20" ytl="10" xbr="20" ybr="50"/>', "degenerate_box"),
        ('<box label="" xtl="20" ytl="10" xbr="100" ybr="50"/>', "missing_field"),
        ('<polygon label="car" points="1,2;3"/>', "bad_box"),
        ('<polygon label="car" points="1,2;3,4"/>', "bad_box"),
        ('<ellipse label="car" cx="60" cy="30" rx="0" ry="20"/>', "degenerate_box"),
        ('<mask label="car" rle="12" left="0" top="0" width="4" height="3"/>', "degenerate_box"),
        ('<mask label="car" rle="99, 3" left="0" top="0" width="4" height="3"/>', "bad_field"),
        ('<blob label="car"/>', "bad_field"),
        ('<box label="car" outside="perhaps" xtl="20" ytl="10" xbr="100" ybr="50"/>', "bad_field"),
    ],
)
def test_faults_of_shapes(
    shape: str,
    kind: str,
    xml: Callable[..., Path],
    picture: Callable[..., Path],
    every: Callable[..., Everything],
) -> None:
    path = xml(image("a.jpg", shape + BOX.replace("car", "dog")))
    samples, (fault,), _ = every(path, images=picture("a.jpg").parent)
    assert fault.kind == kind and not fault.usable and fault.record.startswith("cvat#0@0")
    assert [sample.source for sample in samples] == ["cvat#0@dog"]


def test_what_has_no_box_or_is_no_target_is_told(
    xml: Callable[..., Path], picture: Callable[..., Path], every: Callable[..., Everything]
) -> None:
    inside = (
        '<points label="car" points="1,2"/><polyline label="car" points="1,2;3,4"/><tag label="night"/>'
        + BOX.replace("></box>", '><attribute name="is_crowd">true</attribute></box>')
        + BOX.replace("car", "gone").replace("<box", '<box outside="1"')
    )
    samples, faults, notes = every(xml(image("a.jpg", inside)), images=picture("a.jpg").parent)
    assert samples == [] and faults == []
    assert "2 shape(s) that have no box are passed over: points, polyline" in notes
    assert "1 box(es) are marked crowd: there, but no targets" in notes
    assert any("marked outside" in note for note in notes)


@pytest.mark.parametrize(
    ("size", "orientation", "words"),
    [
        pytest.param(
            (400, 200), 1, "is 400x200, and the annotation says 200x100", id="CVAT size of another picture"
        ),
        pytest.param((200, 100), 6, "drawn on the stored frame", id="CVAT on the stored frame"),
    ],
)
def test_the_stated_size_is_compared(
    size: tuple[int, int],
    orientation: int,
    words: str,
    xml: Callable[..., Path],
    picture: Callable[..., Path],
    every: Callable[..., Everything],
) -> None:
    root = picture("a.jpg", size, orientation).parent
    samples, (fault,), _ = every(xml(image("a.jpg")), images=root)
    assert samples == [] and fault.kind == "size_mismatch" and words in fault.cause


def test_one_name_in_two_tasks_of_a_project(
    xml: Callable[..., Path], picture: Callable[..., Path], every: Callable[..., Everything], tmp_path: Path
) -> None:
    both = (image("a.jpg", subset="Train", task_id="1"), image("a.jpg", subset="Test", task_id="2"))
    path = xml(*both, path="project/annotations.xml")
    Image.new("RGB", (200, 100)).save(path.parent / "a.jpg")
    samples, faults, _ = every(path, images=path.parent)
    assert samples == [] and [fault.kind for fault in faults] == ["ambiguous_id"] * 2
    for subset in ("Train", "Test"):
        (path.parent / "images" / subset).mkdir(parents=True)
        Image.new("RGB", (200, 100)).save(path.parent / "images" / subset / "a.jpg")
    samples, faults, _ = every(path, images=path.parent)
    assert list(boxes_of(samples)) == ["images/Train/a.jpg", "images/Test/a.jpg"] and faults == []


def test_images_lie_where_cvat_packs_them(
    xml: Callable[..., Path], every: Callable[..., Everything], tmp_path: Path
) -> None:
    xml(image("s/a.png"))
    (tmp_path / "images/s").mkdir(parents=True)
    Image.new("RGB", (200, 100)).save(tmp_path / "images/s/a.png")
    assert detect(tmp_path) == "cvat"
    samples, faults, _ = every(tmp_path)
    assert samples[0].images == (str(tmp_path / "images/s/a.png"),) and faults == []


def test_all_images_are_found_in_one_way(
    xml: Callable[..., Path], picture: Callable[..., Path], every: Callable[..., Everything], tmp_path: Path
) -> None:
    """Two pictures lie in images/, so b.jpg above it is another b.jpg."""
    path = xml(*(image(f"{name}.jpg") for name in "abc"))
    for name in ("images/a.jpg", "images/c.jpg", "b.jpg"):
        picture(name)
    samples, (fault,), _ = every(path, images=tmp_path / "images")
    assert fault.kind == "missing_image" and "its 1 box(es) are left out" in fault.cause
    samples, _, _ = every(path, images=tmp_path)
    assert "b.jpg" not in boxes_of(samples)


# --- video ---


def track(*boxes: str, label: str = "car", number: int = 0) -> str:
    return f'<track id="{number}" label="{label}" source="manual">{"".join(boxes)}</track>'


def at(frame: int, outside: int = 0, x: int = 20) -> str:
    corners = f'xtl="{x}" ytl="10" xbr="{x + 80}" ybr="50"'
    return f'<box frame="{frame}" outside="{outside}" occluded="0" keyframe="1" {corners}/>'


def put_frames(folder: Path, *numbers: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.new("RGB", (200, 100)).save(folder / f"frame_{number:06d}.PNG")
    return folder


def test_tracks_through_frames(
    xml: Callable[..., Path], every: Callable[..., Everything], tmp_path: Path
) -> None:
    path = xml(META, track(at(0), at(1, x=40), at(2, outside=1)), track(at(1, x=60), number=1))
    root = put_frames(tmp_path / "images", 0, 1, 2)
    samples, faults, notes = every(path, images=root)
    assert boxes_of(samples) == {
        "frame_000000.PNG": [UNIT],
        "frame_000001.PNG": [(0.2, 0.1, 0.6, 0.5), (0.3, 0.1, 0.7, 0.5)],
    }
    assert faults == [] and any("marked outside" in note for note in notes)
    from univg.data.detection import DETECTION
    from univg.data.readers import Source

    frames = DETECTION["cvat"](Source.of(path, root))
    assert [(frame.video, frame.frame) for frame in frames] == [("drive", 0), ("drive", 1), ("drive", 2)]
    assert [instance.track for instance in frames[1].instances] == ["0", "1"]


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param((), id="CVAT for video without its frames"),
        pytest.param((1, 2), id="CVAT for video whose frames are counted from 1"),
    ],
)
def test_frames_that_nobody_numbered_are_no_frames(
    numbers: tuple[int, ...], xml: Callable[..., Path], tmp_path: Path
) -> None:
    path = xml(META, track(at(0), at(1)))
    root = put_frames(tmp_path / "images", *numbers)
    with pytest.raises(UnivgError, match=r"frame_000000.*-start_number 0"):
        list(read(path, images=root))


def test_a_frame_that_is_not_there_is_a_fault(
    xml: Callable[..., Path], every: Callable[..., Everything], tmp_path: Path
) -> None:
    path = xml(META, track(at(0), at(7)))
    samples, (fault,), _ = every(path, images=put_frames(tmp_path / "images", 0, 1))
    assert list(boxes_of(samples)) == ["frame_000000.PNG"]
    assert (fault.kind, fault.cause) == ("missing_image", "no frame_000007.*; its 1 box(es) are left out")


def test_two_pictures_of_one_frame_are_told_and_cost_that_frame_alone(
    xml: Callable[..., Path], every: Callable[..., Everything], tmp_path: Path
) -> None:
    folder = put_frames(tmp_path / "images", 0, 1)
    (folder / "frame_000000.jpg").write_bytes((folder / "frame_000000.PNG").read_bytes())
    samples, (fault,), _ = every(xml(META, track(at(0), at(1))), images=folder)
    assert list(boxes_of(samples)) == ["frame_000001.PNG"]
    assert fault.cause.endswith("are one frame; its 1 box(es) are left out")


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ((), "no image and no track"),
        ((image("a.jpg"), track(at(0))), "both images and tracks"),
        (
            (track(at(0)).replace("id=", 'task_id="1" id='), track(at(0)).replace("id=", 'task_id="2" id=')),
            "several tasks",
        ),
    ],
)
def test_files_that_leave_open_what_is_meant(
    elements: tuple[str, ...], words: str, xml: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(UnivgError, match=words):
        list(read(xml(*elements), images=put_frames(tmp_path / "images", 0)))


def test_a_file_that_ends_in_the_middle(xml: Callable[..., Path], picture: Callable[..., Path]) -> None:
    path = xml(image("a.jpg"))
    path.write_text(path.read_text()[:-30])
    with pytest.raises(UnivgError, match="no XML that can be read"):
        list(read(path, images=picture("a.jpg").parent))


NUMBERS = st.floats(2, 85)


@given(
    st.lists(
        st.tuples(NUMBERS, NUMBERS, st.floats(1, 10), st.floats(1, 10)), min_size=1, max_size=5, unique=True
    )
)
def test_what_is_written_is_read_back(sides: list[tuple[float, float, float, float]]) -> None:
    boxes = [(round(x, 2), round(y, 2), round(x + w, 2), round(y + h, 2)) for x, y, w, h in sides]
    shapes = [
        f'<box label="c{i}" xtl="{a}" ytl="{b}" xbr="{c}" ybr="{d}"/>' for i, (a, b, c, d) in enumerate(boxes)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "annotations.xml"
        path.write_text(f"<annotations>{image('a.jpg', ''.join(shapes))}</annotations>")
        samples = list(read(path))
    expected = {f"cvat#0@c{i}": (a / 200, b / 100, c / 200, d / 100) for i, (a, b, c, d) in enumerate(boxes)}
    assert len(samples) == len(expected)
    for sample in samples:
        assert sample.boxes[0] == pytest.approx(expected[sample.source])
