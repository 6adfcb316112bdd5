"""Built tasks as files: no task's picture is another's, whatever pictures are called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from univg.data.building.writing import BuildPlan, write_tasks
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
    assert write_tasks(file, images, out, plan, FaultBook()) == n


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


def test_a_folder_of_several_formats_is_built_by_name(tmp_path: Path) -> None:
    root = tmp_path / "images"
    save_set(tmp_path, [(f"{k}.png", root / f"{k}.png", colour) for k, colour in enumerate(COLOURS)])
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "0.txt").write_text("0 0.5 0.5 0.5 0.5")
    with pytest.raises(UnivgError, match="annotations in several formats"):
        write_tasks(tmp_path, root, tmp_path / "out", BuildPlan(6), FaultBook())
    plan = BuildPlan(6, families=("group_grounding",), format="coco")
    assert write_tasks(tmp_path, root, tmp_path / "out", plan, FaultBook()) == 6
    with pytest.raises(UnivgError, match=r"no detection set, but rl: --format rl"):
        write_tasks(tmp_path, root, tmp_path / "out2", BuildPlan(6, format="rl"), FaultBook())
