"""Splits in which no picture stands on both sides."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from univg.data.detection import DETECTION, DetectionImage
from univg.data.published import FaultBook, PublishedFile
from univg.data.readers import Source, detect, read
from univg.data.splitting import split_by_image, write_split
from univg.errors import UnivgError
from univg.grounding.samples import GroundingSample


def asked(*images: str) -> GroundingSample:
    return GroundingSample(images, "Where?", "diff")


@given(
    st.lists(st.lists(st.integers(0, 30).map(str), min_size=1, max_size=4), min_size=1, max_size=40),
    st.floats(0, 1),
    st.integers(0, 3),
)
def test_no_picture_is_on_both_sides(groups: list[list[str]], share: float, seed: int) -> None:
    samples = [asked(*images) for images in groups]
    try:
        split = split_by_image(samples, share, seed)
    except UnivgError:
        return
    sides = {side: [s for s in samples if split.is_test(s) == side] for side in (True, False)}
    seen = {side: {name for s in some for name in s.images} for side, some in sides.items()}
    assert not seen[True] & seen[False]
    assert split.sizes == {"test": len(sides[True]), "train": len(sides[False])}
    assert abs(split.sizes["test"] - share * len(samples)) <= split.largest
    random.Random(0).shuffle(samples)
    assert split_by_image(samples, share, seed).test_images == split.test_images  # whatever the order


def test_the_share_is_met_where_pictures_are_not_shared() -> None:
    samples = [asked(f"{i}.jpg", f"{i}-crop.jpg") for i in range(200)]
    split = split_by_image(samples, 0.1)
    assert (split.sizes, split.groups, split.largest) == ({"train": 180, "test": 20}, 200, 1)
    assert split_by_image(samples, 0.1, seed=1).test_images != split.test_images


def test_one_picture_under_two_names_is_one_picture() -> None:
    samples = [asked("a.jpg"), asked("copy-of-a.jpg"), asked("b.jpg"), asked("c.jpg")]
    split = split_by_image(samples, 0.5, identify=lambda name: name.removeprefix("copy-of-"))
    assert split.is_test(samples[0]) == split.is_test(samples[1])


def test_a_piece_goes_with_the_picture_it_is_of() -> None:
    piece = GroundingSample(
        ("crop.png", "b.jpg"), "Where?", "refer_grounding", extra={"from": ["voc#a", "voc#b"]}
    )
    whole = GroundingSample(("a.jpg",), "Where?", "region", extra={"from": ["voc#a"]})
    others = [asked(f"{i}.jpg") for i in range(6)]
    for seed in range(8):
        split = split_by_image([piece, whole, *others], 0.5, seed)
        assert split.is_test(piece) == split.is_test(whole)


def test_samples_that_hang_together_cannot_be_split() -> None:
    told = r"no split without a shared picture: .* holds 10: .* a larger share, or .* univg data build --test 0\.3"
    with pytest.raises(UnivgError, match=told):
        split_by_image([asked("a", str(i)) for i in range(10)], 0.3)


def test_each_family_gets_its_share() -> None:
    """However rare it is, and in whatever company: forty groups of two families, and one that is in a tenth of them."""
    samples = []
    for i in range(40):
        families = ("common", "region", "rare") if i % 10 == 0 else ("common", "region")
        samples += [GroundingSample((f"{i}.jpg",), "Where?", family) for family in families]
    for seed in range(10):
        split = split_by_image(samples, 0.25, seed)
        assert split.kinds["test"] == {"common": 10, "region": 10, "rare": 1}
        assert not split.misses_share() and not split.list_missing()


def test_a_family_that_cannot_be_on_both_sides_is_told() -> None:
    chained = [GroundingSample((f"{i}.jpg", f"{i + 1}.jpg"), "Where?", "common") for i in range(60)]
    loose = [GroundingSample((f"{i}.png",), "Where?", "region") for i in range(40)]
    split = split_by_image(chained + loose, 0.2)
    assert split.list_missing() == ["test has no common"] and not split.misses_share()
    split = split_by_image(chained + loose[:3], 0.2)
    assert split.misses_share() and split.sizes == {"train": 60, "test": 3}


# --- detection sets ---


def save_frames(folder: Path) -> Path:
    """Write a COCO-video set: twelve photographs, two with one content, four frames of one video, a crowd."""
    entries: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": []}
    entries["categories"] = [{"id": 3, "name": "Tasse, weiß"}, {"id": 9, "name": "people"}]
    for i in range(12):
        path = folder / "images" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (97, 61), (10 * (i if i != 5 else 4), 0, 0)).save(path)
        video = {"video_id": 7, "frame_id": i} if i >= 8 else {}
        entries["images"].append({"id": f"p{i}", "file_name": f"{i}.png", "width": 97, "height": 61, **video})
        for k, category in enumerate((3, 9) if i % 3 == 0 else (3,)):
            box = [1.5 + i, 2.25, 33.3, 20 + i]
            more = {"track_id": 1} if i >= 8 else {}
            one = {"id": 10 * i + k, "image_id": f"p{i}", "category_id": category, "bbox": box, **more}
            entries["annotations"].append({**one, "iscrowd": int(category == 9 and i == 3)})
    (folder / "set.json").write_text(json.dumps(entries))
    return folder / "set.json"


def list_questions(images: list[DetectionImage]) -> list[tuple[Any, ...]]:
    return sorted(
        (image.name, image.frame, *sorted((i.category, i.alone, i.track, *i.box) for i in image.instances))
        for image in images
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_detection_set_stays_one(seed: int, tmp_path: Path) -> None:
    """Its two sides together say what it said, flags, tracks and frames too, and hang together by content and video."""
    file = save_frames(tmp_path)
    opened = PublishedFile.open(file, images=tmp_path / "images")
    found, files = write_split(opened, tmp_path / "out", 0.4, seed, FaultBook())
    sides, book = {}, FaultBook()
    for side, path in files.items():
        sides[side] = DETECTION["coco"](Source.of(path, tmp_path / "images", book.add))
        assert detect(path) == "coco" and len(sides[side]) == found.sizes[side] > 0
    whole = DETECTION["coco"](Source.of(file, tmp_path / "images", book.add))
    for ours, theirs in zip(
        list_questions(sides["train"] + sides["test"]), list_questions(whole), strict=True
    ):
        assert len(ours) == len(theirs) and ours[:2] == theirs[:2]
        for one, other in zip(ours[2:], theirs[2:], strict=True):
            assert one[:3] == other[:3] and one[3:] == pytest.approx(other[3:], abs=1e-9)
    assert not book
    for kin in ({"4.png", "5.png"}, {f"{i}.png" for i in range(8, 12)}):
        assert sum(bool(kin & {image.name for image in side}) for side in sides.values()) == 1
    names = [{sample.source for sample in read(path, images=tmp_path / "images")} for path in files.values()]
    assert not names[0] & names[1]  # what is measured of one side is never taken for the other's


def test_without_the_pictures_paths_are_compared(tmp_path: Path) -> None:
    file = save_frames(tmp_path)
    found, _ = write_split(PublishedFile.open(file), tmp_path / "out", 0.4, 0, FaultBook())
    assert found.total == 12 and found.groups == 9  # the video is one; the copy is not seen
    with pytest.raises(UnivgError, match="a split is here already"):
        write_split(PublishedFile.open(file), tmp_path / "out", 0.4, 0, FaultBook())
