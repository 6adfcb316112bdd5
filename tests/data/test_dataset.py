"""One contract for data from the world, a file or a list: keys, pictures, sizes, digests, and where they come from."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from univg.data.dataset import ENDLESS, Dataset, WorldItem, digest_parts, reopen_pictures
from univg.errors import UnivgError
from univg.grounding.samples import GroundingSample, read_jsonl, write_jsonl
from univg.pictures.images import ImageFault
from univg.world import FAMILIES, make_sample, stream

Open = Callable[[Path], Dataset]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three samples of two images each, one image on its side."""
    samples = []
    for i in range(3):
        names = (f"{i}/a.png", f"{i}/b.jpg")
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            exif = Image.Exif()
            exif[0x0112] = 6 if name == "1/b.jpg" else 1
            Image.new("RGB", (40 + i, 30), (80 * i, 9, 9)).save(tmp_path / name, exif=exif)
        samples.append(GroundingSample(names, f"Where is {i}?", "diff", [(0, 0, 1, 1)], source=f"own#{i}"))
    write_jsonl(tmp_path / "samples.jsonl", samples)
    return tmp_path


def from_samples(folder: Path) -> Dataset:
    return Dataset.from_samples("own", list(read_jsonl(folder / "samples.jsonl")), folder)


def from_file(folder: Path) -> Dataset:
    return Dataset.from_file(folder / "samples.jsonl", images=folder)


def from_world(folder: Path) -> Dataset:
    return Dataset.from_world(4, "test", families=["refer_grounding", "region"], size=40)


EVERY = pytest.mark.parametrize("opened", [from_samples, from_file, from_world])


@EVERY
def test_every_source_gives_the_same_contract(opened: Open, folder: Path) -> None:
    data, again = opened(folder), opened(folder)
    items = list(data.items())
    assert len(items) == data.total and [data.item(k).key for k in range(data.total)] == [
        item.key for item in items
    ]
    for item in items:
        pictures = item.pictures()
        assert item.key == item.sample.key and len(pictures) == len(item.sample.images)
        assert [picture.mode for picture in pictures] == ["RGB"] * len(pictures)
        assert item.sizes_wh() == [picture.size for picture in pictures]
        assert len(set(item.digests())) == len(pictures) and {len(one) for one in item.digests()} == {16}
    assert len(data.digest) == 32 and data.digest == again.digest
    assert not data.faults and data.about.startswith(f"{data.total} samples of ")


@EVERY
def test_the_pictures_of_a_kept_row_are_found_again(opened: Open, folder: Path) -> None:
    data = opened(folder)
    for item in data.items():
        row = {name: item.sample.to_json()[name] for name in ("task", "source", "images")}
        found = reopen_pictures(row, data.origin or {"images": str(folder)})
        assert [one.tobytes() for one in found] == [one.tobytes() for one in item.pictures()]


def test_the_world_is_drawn_by_number_whatever_its_size() -> None:
    few, many = Dataset.from_world(3, seed=2, size=28), Dataset.from_world(30, seed=2, size=28)
    made = list(islice(stream("train", 2, size=28), 15))
    assert [item.sample for item in few.items()] == [one.sample for one in made[:3]]
    assert [item.sample for item in islice(many.items(), 15)] == [one.sample for one in made]
    assert [one.tobytes() for one in few.item(2).pictures()] == [one.tobytes() for one in made[2].images]
    assert few.digest != many.digest  # kept results go by what was asked for


def test_the_world_has_no_end() -> None:
    data = Dataset("world", ENDLESS, lambda k: WorldItem.of(make_sample("diff", index=k, size=28)))
    assert next(islice(data.items(), 2, None)).key == data.item(2).key
    assert data.item(10**12).sample.source == f"world#v2-train-diff-0-{10**12}"


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_of_the_world_are_known_without_drawing(family: str) -> None:
    for index in range(4):
        made = make_sample(family, "test", 1, index, index / 3, 50)
        assert made.sizes_wh == [image.size for image in made.images]
        assert [one.tobytes() for one in made.draw()] == [one.tobytes() for one in made.images]


def test_a_file_is_read_once_and_only_as_far_as_asked(folder: Path) -> None:
    seen: list[str] = []

    def keep(sample: GroundingSample) -> bool:
        seen.append(sample.source)
        return not sample.source.endswith("#0")

    data = Dataset.from_file(folder / "samples.jsonl", "univg", folder, keep, n=1)
    assert [item.sample.source for item in data.items()] == ["own#1"] and len(seen) == 2
    list(data.items())
    assert len(seen) == 2


def test_faults_are_kept_and_a_file_that_cannot_be_read_is_an_error(folder: Path) -> None:
    path = folder / "samples.jsonl"
    path.write_bytes(path.read_bytes() + b'{"images": ["a.png"], "query": " ", "task": "diff"}\n')
    data = Dataset.from_file(path, images=folder)
    assert data.total == 3 and [fault.kind for fault in data.faults] == ["empty_question"]
    with pytest.raises(UnivgError, match="no such file"):
        Dataset.from_file(folder / "none.jsonl")


def test_the_digest_is_that_of_a_files_content(folder: Path) -> None:
    path = folder / "samples.jsonl"
    first = from_file(folder).digest
    assert first == digest_parts([path.read_bytes()])[:32]
    (folder / "0" / "a.png").unlink()
    assert from_file(folder).digest == first, "images may be fetched later"
    path.write_bytes(path.read_bytes().replace(b"Where is 1?", b"Where is X?"))
    assert from_file(folder).digest != first


def test_of_a_folder_names_and_sizes_count(folder: Path) -> None:
    raw = folder / "raw"
    raw.mkdir()
    Image.new("RGB", (40, 30)).save(raw / "a.jpg")
    shape = {"label": "target", "points": [[4, 3], [20, 15]]}
    (raw / "a.json").write_text(json.dumps({"text": "the thing", "is_sentence": False, "shapes": [shape]}))
    first = Dataset.from_file(raw, images=raw)
    assert [item.sample.boxes for item in first.items()] == [((0.1, 0.1, 0.5, 0.5),)]
    assert Dataset.from_file(raw, images=raw).digest == first.digest
    (raw / "b.txt").write_text("other")
    assert Dataset.from_file(raw, images=raw).digest != first.digest


def test_the_digest_of_an_image_is_that_of_its_content(folder: Path) -> None:
    item = from_file(folder).item(0)
    first = item.digests()
    Image.new("RGB", (40, 30), (1, 2, 3)).save(folder / "0" / "a.png")
    assert item.digests() != first and item.digests()[1] == first[1]


def test_a_picture_that_is_not_there_is_named(folder: Path) -> None:
    (folder / "0" / "b.jpg").unlink()
    (folder / "0" / "a.png").write_text("no image")
    item = from_file(folder).item(0)
    for ask in (item.pictures, item.digests):
        with pytest.raises(ImageFault, match=f"no such file under {folder}: 0/b.jpg: check --images"):
            ask()
    assert item.sizes_wh() == [(0, 0), (0, 0)]
    with pytest.raises(ImageFault, match=r"no such file under \.: 1/a.png: check --images"):
        Dataset.from_samples("own", [from_file(folder).item(1).sample], None).item(0).pictures()


def test_a_file_travels_to_other_processes(folder: Path) -> None:
    data = replace(from_file(folder), content=tuple)
    again = pickle.loads(pickle.dumps(data))
    assert [item.digests() for item in again.items()] == [item.digests() for item in data.items()]
