"""Sets out of detection sets: every object of a category, or none; only where annotations bear it."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from univg.cli import main as cli
from univg.data.building.build import ALL_FAMILIES, TASK_FAMILIES, BuiltTask, Shortfall, build
from univg.data.building.desk import MOST_TARGETS, SMALLEST_SHARE
from univg.data.detection import DETECTION, DetectionImage, Instance
from univg.data.readers import Source
from univg.grounding.boxes import Box, area
from univg.grounding.prompts import render_answer
from univg.grounding.reading import Asked, read
from univg.grounding.samples import read_jsonl
from univg.grounding.scoring import score

BCCD = Path(__file__).parents[4] / "shared" / "data" / "bccd_voc"
SETS = ("find_all", "absent")


def scattered(n: int = 80, seed: int = 0) -> list[DetectionImage]:
    """Images with up to six objects of five categories, some of which are crowds, difficult or tiny."""
    rng = random.Random(seed)
    images = []
    for i in range(n):
        instances = []
        for slot in rng.sample(range(9), rng.randint(1, 6)):
            x, y, side = slot % 3 / 3, slot // 3 / 3, rng.choice((0.02, 0.2, 0.25, 0.3))
            category = rng.choice(("cat", "dog", "bus", "cup", "hat"))
            instances.append(Instance(category, (x, y, x + side, y + side), alone=rng.random() > 0.05))
        images.append(DetectionImage(f"{i}.jpg", f"coco#{i}", (640, 480), tuple(instances)))
    return images


def marked(task: BuiltTask) -> list[tuple[int, Instance]]:
    """What the annotations of all shown images mark as the category asked for."""
    images = [shot for shot in task.shown if isinstance(shot, DetectionImage)]
    assert len({image.record for image in images}) == len(task.shown)
    return [
        (k, one) for k, image in enumerate(images) for one in image.instances if one.category == task.category
    ]


def test_every_object_of_the_category_is_a_target_and_none_is_in_doubt() -> None:
    tasks = list(build(scattered(), 200, seed=3, families=["find_all"]))
    assert len(tasks) == 200 and len({(str(task.shown), task.query) for task in tasks}) == 200
    for task in tasks:
        there = marked(task)
        assert task.complete and task.query == f"Locate every {task.category} in these images."
        assert list(task.targets) == sorted((k, one.box) for k, one in there)
        assert all(one.alone and area(one.box) >= SMALLEST_SHARE for _, one in there)
        assert 2 <= len(task.shown) <= 4
    counts = Counter(len(task.targets) for task in tasks)
    assert (
        counts[0] > 15 and counts[1] > 15 and counts[2] > 15 and sum(counts[k] for k in counts if k > 3) > 10
    )
    used = Counter(task.category for task in tasks)
    assert len(used) == 5 and max(used.values()) - min(used.values()) <= 1


def test_half_of_the_absent_are_there_for_each_category() -> None:
    tasks = list(build(scattered(), 200, seed=4, families=["absent"]))
    found: Counter[tuple[str, bool]] = Counter()
    for task in tasks:
        there = marked(task)
        assert task.complete and list(task.targets) == [(k, one.box) for k, one in there] and len(there) <= 1
        assert all(one.alone and area(one.box) >= SMALLEST_SHARE for _, one in there)
        assert f"Locate the {task.category} in th" in task.query and 1 <= len(task.shown) <= 3
        assert ("these images" in task.query) == (len(task.shown) > 1)
        found[task.category, bool(there)] += 1
    for category in {task.category for task in tasks}:
        assert abs(found[category, True] - found[category, False]) <= 1
    shown = [task for task in tasks if len(task.shown) == 3 and task.targets]
    places = Counter(task.target for task in shown)
    assert len(places) == 3 and max(places.values()) - min(places.values()) <= 2


def test_a_seed_decides_everything_and_the_other_families_are_as_they_were() -> None:
    def made(seed: int) -> list[object]:
        return [(task.query, task.targets) for task in build(scattered(), 40, seed, SETS)]

    assert made(1) == made(1) and made(1) != made(2)
    assert not set(SETS) & set(TASK_FAMILIES) and set(SETS) <= set(ALL_FAMILIES)
    tasks = [*build(scattered(), 120, seed=3), *build(scattered(), 60, seed=3, families=["referring"])]
    assert not any(task.complete for task in tasks)
    rows = [[task.family, task.records, task.query, task.box, task.target, task.category] for task in tasks]
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16] == PINNED


PINNED = "ac8fa9108fe82c93"


def test_what_annotations_do_not_bear_is_not_asked_and_told() -> None:
    """A cat is in nine of ten images; where none is annotated, it is not taken for absent. Beans are never counted."""
    cat, dog = Instance("cat", (0.1, 0.1, 0.4, 0.4)), Instance("dog", (0.6, 0.6, 0.9, 0.9))
    beans = tuple(Instance("bean", (k / 20, 0.9, k / 20 + 0.1, 1.0)) for k in range(MOST_TARGETS + 1))
    images = []
    for i in range(60):
        kept = (dog,) if i % 10 == 0 else (cat, dog)[: 1 + i % 2]
        more = beans if i % 3 == 0 else beans[:2] if i % 3 == 1 else ()
        images.append(DetectionImage(f"{i}.jpg", f"coco#{i}", (640, 480), (*kept, *more)))
    images.append(
        DetectionImage("crowd.jpg", "coco#crowd", (640, 480), (cat, Instance("dog", dog.box, alone=False)))
    )
    sloppy = {image.record for image in images if cat not in image.instances}
    told: list[str] = []
    tasks = list(build(images, 100, families=SETS, on_note=told.append))
    assert len(tasks) == 100
    assert not sloppy & {record for task in tasks for record in task.records}
    assert not [task for task in tasks if task.category == "dog" and "coco#crowd" in task.records]
    assert not [task for task in tasks if task.family == "find_all" and task.category == "bean"]
    left_out, countless, passed_over = told
    assert "6 of 61 photographs are not used: they lack cat" in left_out
    assert "bean is not asked for" in countless
    assert passed_over.endswith("dog on 1")
    told.clear()
    list(build(images, 20, on_note=told.append))
    assert told == []


def test_a_set_that_allows_no_sets_says_so() -> None:
    one = DetectionImage("a.jpg", "coco#1", (640, 480), (Instance("cat", (0.1, 0.1, 0.5, 0.5)),))
    told: list[Shortfall] = []
    assert list(build([one], 10, families=SETS, on_shortfall=told.append)) == []
    assert {shortfall.family for shortfall in told} == set(SETS) and all(shortfall.why for shortfall in told)


@pytest.mark.skipif(not BCCD.exists(), reason="the BCCD photographs are not here")
def test_real_photographs() -> None:
    images = DETECTION["voc"](Source.of(BCCD, BCCD, lambda fault: None))
    told: list[str] = []
    tasks = list(build(images, 80, families=SETS, on_note=told.append))
    assert Counter(task.family for task in tasks) == {"find_all": 40, "absent": 40}
    for task in tasks:
        assert sorted((k, one.box) for k, one in marked(task)) == list(task.targets)
    assert len([task for task in tasks if task.family == "absent" and task.targets]) == 20
    assert {task.category for task in tasks if task.family == "find_all"} == {"WBC", "Platelets"}
    assert any("RBC is not asked for" in note for note in told)


def save_set(folder: Path) -> Path:
    """Write a COCO set of twelve pictures with none to three red squares, and one blue one in every third."""
    pictures, annotations = [], []
    folder.mkdir()
    for k in range(12):
        image = Image.new("RGB", (200, 100), "white")
        boxes = [(1, 10 + 60 * j, 20 + k, 40) for j in range(k % 4)]
        boxes += [(2, 150, 60, 30)] if k % 3 == 0 else []
        for category, x, y, side in boxes:
            ImageDraw.Draw(image).rectangle(
                (x, y, x + side - 1, y + side - 1), fill=("red", "blue")[category - 1]
            )
            entry = {
                "id": len(annotations),
                "image_id": k,
                "category_id": category,
                "bbox": [x, y, side, side],
            }
            annotations.append(entry)
        image.save(folder / f"{k}.png")
        pictures.append({"id": k, "file_name": f"{k}.png", "width": 200, "height": 100})
    categories = [{"id": 1, "name": "red square"}, {"id": 2, "name": "blue square"}]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": pictures, "annotations": annotations, "categories": categories}))
    return path


def find_blobs(path: Path, colour: str) -> list[Box]:
    """Find the squares of a colour by the picture's own pixels, from left to right."""
    with Image.open(path) as image:
        mask = [
            [image.getpixel((x, y)) == {"red": (255, 0, 0), "blue": (0, 0, 255)}[colour] for x in range(200)]
            for y in range(100)
        ]
    columns = [any(row[x] for row in mask) for x in range(200)]
    edges = [x for x in range(200) if columns[x] != (x > 0 and columns[x - 1])]
    boxes = []
    for left, right in zip(edges[::2], edges[1::2], strict=True):
        rows = [y for y in range(100) if any(mask[y][left:right])]
        boxes.append((left / 200, rows[0] / 100, right / 200, (rows[-1] + 1) / 100))
    return boxes


def test_the_command_writes_what_the_pictures_show(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = save_set(tmp_path / "set"), tmp_path / "out"
    arguments = [str(file), "--out", str(out), "--n", "24", "--family", "find_all", "--family", "absent"]
    assert cli.main(["data", "build", *arguments]) == 0
    samples = list(read_jsonl(out / "samples.jsonl"))
    assert Counter(sample.task for sample in samples) == {"find_all": 12, "absent": 12}
    assert {bool(sample.boxes) for sample in samples} == {True, False}
    assert any(sample.box_images for sample in samples)
    for sample in samples:
        colour = sample.extra["category"].split()[0]
        expected = [
            (k, box) for k, name in enumerate(sample.images) for box in find_blobs(out / name, colour)
        ]
        assert [k for k, _ in sample.targets] == [k for k, _ in expected]
        for (_, box), (_, found) in zip(sample.targets, expected, strict=True):
            assert box == pytest.approx(found)
        result = score(sample, read(render_answer(sample, "set_direct"), Asked.of(sample, "set_direct")))
        assert result.iou > 0.97
    assert (out / "contact-sheet.png").stat().st_size > 5000
    assert cli.main(["data", "build", str(file), "--out", str(tmp_path / "x"), "--family", "find_al"]) == 2
    assert "did you mean 'find_all'" in capsys.readouterr().err
