"""A path is one file or none: in whatever order one asks, two paths of a set are never one file."""

from __future__ import annotations

import itertools
import json
import pickle
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from univg.data.formats.image_root import ImageRoot, is_foreign

PART = st.sampled_from(["a", "b", "images"])
NAME = st.lists(PART, min_size=0, max_size=3).map(lambda parts: "/".join([*parts, "x.jpg"]))
LEAD = st.sampled_from(["", "./", "../", "..\\", "C:\\me\\", "/nowhere-at-all/", "file:///nowhere-at-all/"])


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@example(
    there={"images/a/x.jpg", "a/x.jpg"},
    asked=[("../", "a/x.jpg"), ("../", "images/a/x.jpg")],
    inside="images",
)
@given(
    there=st.sets(NAME, max_size=5),
    asked=st.lists(st.tuples(LEAD, NAME), min_size=1, max_size=5, unique=True),
    inside=st.sampled_from(["", "images", "a/images"]),
)
def test_two_paths_are_never_one_file_and_no_order_matters(
    there: set[str],
    asked: list[tuple[str, str]],
    inside: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    top = tmp_path_factory.mktemp("root")
    put(top / inside, *there)
    names = [lead + name for lead, name in asked]
    found = []
    for order in (names, names[::-1]):
        root = ImageRoot(top / inside)
        root.expect(lambda: names)
        found.append({name: root.find(name) for name in order})
    assert found[0] == found[1]
    foreign = [path for name, path in found[0].items() if path is not None and is_foreign(name)]
    assert len(set(foreign)) == len(foreign)
    folder = top / inside
    for name, path in found[0].items():
        if path is not None and not is_foreign(name):
            # The path as it stands, from the folder or one above it; or all paths begin with the folder's name alike.
            begin = name.removeprefix("./").removesuffix(path.relative_to(folder).as_posix())
            alike = all(one.removeprefix("./").startswith(begin) for one in names)
            assert any(above / name == path for above in (folder, *folder.parents)) or (
                alike and begin.endswith(f"{folder.name}/")
            )


@pytest.mark.parametrize("order", list(itertools.permutations(["a/1.png", "b/1.png", "c/1.png"])))
def test_a_name_that_is_not_there_is_missing_whoever_was_asked_before(
    order: tuple[str, ...], tmp_path: Path
) -> None:
    put(tmp_path, "1.png", "b/1.png", "x/a/1.png")
    root = ImageRoot(tmp_path)
    assert {name: root.find(name) for name in order} == {
        "a/1.png": None,
        "b/1.png": tmp_path / "b/1.png",
        "c/1.png": None,
    }
    assert "(1.png is, but may be another's" in root.explain("a/1.png")


def test_the_folder_may_be_any_of_those_that_paths_name(tmp_path: Path) -> None:
    put(tmp_path, "data/coco/train/1.jpg")
    for folder in ("", "data", "data/coco", "data/coco/train"):
        root = ImageRoot(tmp_path / folder)
        assert root.find("data/coco/train/1.jpg") == tmp_path / "data/coco/train/1.jpg"
    # Of a longer path only the folder's name agrees: all paths of the set must begin alike.
    listed = tmp_path / "set.json"
    root = ImageRoot(tmp_path / "data/coco/train", listed)
    listed.write_text(json.dumps([{"image": "mscoco/train/1.jpg"}, {"images": ["mscoco/train/2.jpg"]}]))
    assert root.find("mscoco/train/1.jpg") == tmp_path / "data/coco/train/1.jpg"
    root = ImageRoot(tmp_path / "data/coco/train", listed)
    listed.write_text(json.dumps([{"image": "mscoco/train/1.jpg"}, {"images": ["other/train/1.jpg"]}]))
    assert root.find("mscoco/train/1.jpg") is root.find("other/train/1.jpg") is None


def test_paths_of_another_machine_decide_together(tmp_path: Path) -> None:
    put(tmp_path, "1.jpg", "sub/2.jpg", "3.jpg")
    names = ["/nowhere/u/1.jpg", "D:\\u\\sub\\2.jpg", "/nowhere/v/3.jpg", "../w/3.jpg"]
    (tmp_path / "set.json").write_text(json.dumps([{"images": names}]))
    root = ImageRoot(tmp_path, tmp_path / "set.json")
    found = [root.find(name) for name in reversed(names)]
    assert found[::-1] == [tmp_path / "1.jpg", tmp_path / "sub/2.jpg", None, None]
    assert "another path of the set ends in the same file" in root.explain(names[2])
    assert [pickle.loads(pickle.dumps(root)).find(name) for name in names] == found[::-1]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_are_one_letter_or_two(form: str, tmp_path: Path) -> None:
    put(tmp_path, unicodedata.normalize(form, "café 100%.jpg"))
    for asked in ("NFC", "NFD"):
        assert ImageRoot(tmp_path).find(unicodedata.normalize(asked, "café 100%.jpg")) is not None


def test_what_is_there_instead_is_said(tmp_path: Path) -> None:
    put(tmp_path, "a.JPG")
    root = ImageRoot(tmp_path)
    assert root.find("a.jpg") is None and "a.JPG is there: names differ in capitals" in root.explain("a.jpg")
    assert root.find("https://host.example/a.JPG") is None
    assert "an address, not a file" in root.explain("https://host.example/a.JPG")
    assert root.find(f"file://{tmp_path}/a.JPG") == tmp_path / "a.JPG"
    assert root.find("a.JPG\0") is None
    assert root.find("x" * 5000) is root.find(f"/nowhere/{'x' * 5000}") is None
    assert len(root.explain("x" * 5000)) < 400


@pytest.mark.parametrize(
    ("there", "asked", "said"),
    [
        pytest.param("a b.jpg", "a%20b.jpg", "names differ in blanks or % signs", id="a name with % signs"),
        pytest.param("a.jpg", "a.jpg ", "names differ in blanks or % signs", id="a blank behind a name"),
        pytest.param("a.jpg/x", "a.jpg", "it is there, but is no file", id="a folder called as a picture"),
    ],
)
def test_names_that_nearly_agree(there: str, asked: str, said: str, tmp_path: Path) -> None:
    put(tmp_path, there)
    assert ImageRoot(tmp_path).find(asked) is None and said in ImageRoot(tmp_path).explain(asked)


def test_a_path_that_leads_out_of_the_folder_is_no_picture_in_it(tmp_path: Path) -> None:
    """Told in the manual as: a path that leads out of the folder of images."""
    put(tmp_path, "old/1.jpg", "new/1.jpg", "new/2.jpg")
    for asked in ("../old/1.jpg", "..\\old\\1.jpg"):
        root = ImageRoot(tmp_path / "new")
        assert root.find(asked) is None
        assert f"it leads to {tmp_path / 'old/1.jpg'}, outside of that folder" in root.explain(asked)
    assert root.find("../new/1.jpg") == root.find("x/../1.jpg") == tmp_path / "new/1.jpg"
    assert root.find("../elsewhere/2.jpg") == tmp_path / "new/2.jpg"  # of another machine: found by its end


def test_addresses_of_files(tmp_path: Path) -> None:
    """Told in the manual as: a file:// address, percent-encoded or not."""
    put(tmp_path, "a b.jpg", "c%20d.jpg", "e f.jpg", "e%20f.jpg")
    root, start = ImageRoot(tmp_path), f"file://{tmp_path}"
    assert root.find(f"{start}/a%20b.jpg") == root.find(f"{start}/a b.jpg") == tmp_path / "a b.jpg"
    assert root.find(f"{start}/c%20d.jpg") == tmp_path / "c%20d.jpg"
    assert root.find(f"{start}/e%20f.jpg") is None and "is two files" in root.explain(f"{start}/e%20f.jpg")
