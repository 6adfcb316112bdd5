"""Built tasks as files: no task's picture is another's, whatever pictures are called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from univg.data.building.writing import BuildPlan, Side, write_tasks
from univg.data.published import FaultBook
from univg.errors import UnivgError
from univg.grounding.samples import read_jsonl

COLOURS = ("red", "green", "blue", "yellow", "black", "white")
BOX = (20, 10, 120, 70)


def save_set(folder: Path, named: list[tuple[str, Path, str]]) -> Path:
    """Write a COCO set of pictures (as the set names them, where they lie), each in one colour, which is its object."""
    images, annotations = [], []
    for k, (name, path, colour) in enumerate(named):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (160, 90), colour).save(path)
        images.append({"id": k, "file_name": name})
        x1, y1, x2, y2 = BOX
        box = [x1, y1, x2 - x1, y2 - y1]
        annotations.append({"id": k, "image_id": k, "category_id": COLOURS.index(colour), "bbox": box})
    categories = [{"id": k, "name": colour} for k, colour in enumerate(COLOURS)]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def check(out: Path, n: int) -> None:
    samples = list(read_jsonl(out / "samples.jsonl"))
    assert len(samples) == n
    for sample in samples:
        colour = next(name for name in COLOURS if name in sample.query)
        target = out / sample.images[sample.target_image or 0]
        with Image.open(target) as image, Image.new("RGB", (1, 1), colour) as pure:
            assert image.convert("RGB").getpixel((40, 40)) == pure.getpixel((0, 0))


def build(file: Path, images: Path, out: Path, n: int) -> None:
    plan = BuildPlan(n, families=("group_grounding",))
    assert count(write_tasks(file, images, out, plan, FaultBook())) == {"samples": n}


def count(sides: list[Side]) -> dict[str, int]:
    return {side.name: side.families.total() for side in sides}


def test_two_pictures_that_would_have_one_name(tmp_path: Path) -> None:
    """Told in the manual as: two pictures that would have one name in the folder of tasks."""
    root = tmp_path / "root"
    named = []
    for k, colour in enumerate(COLOURS):
        outside = tmp_path / f"{k}.png"
        name = outside.as_posix()
        if k < 3:
            named.append((name, outside, colour))
        else:
            other = f"{tmp_path.as_posix()[1:]}/{k - 3}.png"
            named.append((other, root / other, colour))
    build(save_set(tmp_path, named), root, tmp_path / "out", 12)
    check(tmp_path / "out", 12)


def test_pictures_of_an_earlier_run_are_not_taken(tmp_path: Path) -> None:
    """Told in the manual as: pictures of an earlier run in the folder of tasks."""
    for turn in (1, -1):
        root = tmp_path / f"set{turn}"
        named = [(f"{k}.png", root / f"{k}.png", colour) for k, colour in enumerate(COLOURS[::turn])]
        build(save_set(root if root.is_dir() else tmp_path, named), root, tmp_path / "out", 6)
        check(tmp_path / "out", 6)
        (tmp_path / "out" / "samples.jsonl").unlink()


def test_large_pictures_are_shrunk_and_boxes_stay_on_what_they_are_on(tmp_path: Path) -> None:
    named = [(f"{k}.jpg", tmp_path / "root" / f"{k}.jpg", COLOURS[k % 3]) for k in range(6)]
    file = save_set(tmp_path, named)
    made = {}
    for longest in (None, 80, 160):
        plan = BuildPlan(12, families=("group_grounding", "region"), longest=longest)
        write_tasks(file, tmp_path / "root", out := tmp_path / str(longest), plan, FaultBook())
        samples = list(read_jsonl(out / "samples.jsonl"))
        made[longest] = [sample.to_json() for sample in samples]
        sizes = {Image.open(out / name).size for sample in samples for name in sample.images}
        whole = {Image.open(out / f"images/{k}.jpg").size for k in range(6)}
        assert whole == {(80, 45) if longest == 80 else (160, 90)}
        assert longest != 80 or max(map(max, sizes)) == 80
    assert made[None] == made[80] == made[160]
    assert (tmp_path / "160/images/0.jpg").read_bytes() == (tmp_path / "root/0.jpg").read_bytes()


def test_a_folder_of_several_formats_is_built_by_name(tmp_path: Path) -> None:
    root = tmp_path / "images"
    save_set(tmp_path, [(f"{k}.png", root / f"{k}.png", colour) for k, colour in enumerate(COLOURS)])
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "0.txt").write_text("0 0.5 0.5 0.5 0.5")
    with pytest.raises(UnivgError, match="annotations in several formats"):
        write_tasks(tmp_path, root, tmp_path / "out", BuildPlan(6), FaultBook())
    plan = BuildPlan(6, families=("group_grounding",), format="coco")
    assert count(write_tasks(tmp_path, root, tmp_path / "out", plan, FaultBook())) == {"samples": 6}
    with pytest.raises(UnivgError, match=r"no detection set, but rl: --format rl"):
        write_tasks(tmp_path, root, tmp_path / "out2", BuildPlan(6, format="rl"), FaultBook())


def test_sides_are_made_of_photographs_of_their_own(tmp_path: Path) -> None:
    """Told in the manual as: copies of one photograph, frames of one video, RoboFlow's variants."""
    named = [(f"{k}.png", tmp_path / "root" / f"{k}.png", COLOURS[k % 6]) for k in range(24)]
    named += [(f"copy-{k}.png", tmp_path / "root" / f"copy-{k}.png", COLOURS[k]) for k in range(4)]
    named += [(f"v_png.rf.{k}a.png", tmp_path / "root" / f"v_png.rf.{k}a.png", COLOURS[k]) for k in range(3)]
    file = save_set(tmp_path, named)
    for k in range(24):  # each its own, but for the copies
        with Image.open(named[k][1]) as image:
            image.putpixel((0, 0), (k, k, k))
            image.save(named[k][1])
    for k in range(4):
        (tmp_path / "root" / f"copy-{k}.png").write_bytes(named[k][1].read_bytes())
    whole = json.loads(file.read_text())
    for k in range(8, 12):
        whole["images"][k].update(video_id=1, frame_id=k)
    file.write_text(json.dumps({**whole, "videos": [{"id": 1, "name": "v"}]}))
    for seed in range(2):
        out = tmp_path / f"out{seed}"
        plan = BuildPlan(40, seed, validation=0.2, test=0.25)
        made = write_tasks(file, tmp_path / "root", out, plan, FaultBook())
        assert {side.name: side.wanted for side in made} == {"train": 22, "validation": 8, "test": 10}
        shown = {}
        for side in made:
            samples = list(read_jsonl(side.file))
            assert len(samples) == side.families.total() and side.sheet.is_file()
            assert all((out / name).is_file() for sample in samples for name in sample.images)
            shown[side.name] = {name for sample in samples for name in sample.extra["from"]}
        numbers = {side: {int(name.removeprefix("coco#")) for name in names} for side, names in shown.items()}
        assert not numbers["train"] & numbers["test"] and not numbers["validation"] & numbers["test"]
        kin = [*({k, 24 + k} for k in range(4)), {8, 9, 10, 11}, {28, 29, 30}]
        for one in kin:  # stands on one side
            assert sum(bool(one & found) for found in numbers.values()) <= 1
        assert 0.15 < next(side.photographs for side in made if side.name == "test") / 31 < 0.35


@pytest.mark.parametrize(
    ("plan", "line"),
    [
        (BuildPlan(40, test=0.05), "too few photographs for test: 6 photographs, and a share of 0.05"),
        (BuildPlan(40, test=0.2, ordered=True), "6 photographs in 1 groups of copies or frames of one video"),
        (BuildPlan(4, test=0.1), "no task for test: 0.1 of --n 4"),
        (BuildPlan(40, test=0.6, validation=0.4), "nothing is left to train on"),
    ],
)
def test_sides_that_cannot_be(plan: BuildPlan, line: str, tmp_path: Path) -> None:
    file = save_set(
        tmp_path, [(f"{k}.png", tmp_path / "r" / f"{k}.png", name) for k, name in enumerate(COLOURS)]
    )
    with pytest.raises(UnivgError, match=line):
        write_tasks(file, tmp_path / "r", tmp_path / "out", plan, FaultBook())
    assert not (tmp_path / "out").exists()


def test_tasks_of_an_earlier_run_are_kept(tmp_path: Path) -> None:
    named = [(f"{k}.png", tmp_path / "r" / f"{k}.png", name) for k, name in enumerate(COLOURS)]
    file = save_set(tmp_path, named)
    write_tasks(file, tmp_path / "r", tmp_path / "out", BuildPlan(6, test=0.4), FaultBook())
    with pytest.raises(UnivgError, match=r"tasks are here already: .*train\.jsonl"):
        write_tasks(file, tmp_path / "r", tmp_path / "out", BuildPlan(6), FaultBook())
