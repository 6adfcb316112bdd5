"""Answers that are taken for sets because whoever reads them says that they hold all (`complete`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from univg.cli.main import main
from univg.data.readers import RecordFault, read
from univg.errors import UnivgError
from univg.grounding.samples import GroundingSample, read_jsonl


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in "ab":
        Image.new("RGB", (200, 100)).save(tmp_path / f"{name}.jpg")
    return tmp_path


def put(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def every(
    path: Path, root: Path, complete: bool = True, reader: str | None = None
) -> tuple[list[GroundingSample], list[str]]:
    faults: list[RecordFault] = []
    samples = list(read(path, reader, root, faults.append, None, complete))
    return samples, [fault.kind for fault in faults]


def talk(question: str, answer: str, images: tuple[str, ...] = ("a.jpg", "b.jpg")) -> dict[str, Any]:
    turns = [
        {"from": "human", "value": "<image>" * len(images) + question},
        {"from": "gpt", "value": answer},
    ]
    return {"images": list(images), "conversations": turns}


QUAD = "<|box_start|>(100,100),(500,500)<|box_end|>"
TALKS = [
    talk("Find all cups.", f"Image-1: {QUAD}; Image-2: (0,0),(200,200)"),
    talk("Find every dog.", "There is no dog in the images."),
    talk("Find each hippo.", "[]"),
    talk("Where is the red cup in the first image?", QUAD),
    talk("Where is the zebra?", "There is no zebra."),
]


def test_conversations(root: Path) -> None:
    samples, faults = every(put(root / "data.json", TALKS), root)
    assert [(one.complete, one.targets) for one in samples] == [
        (True, ((0, (0.1, 0.1, 0.5, 0.5)), (1, (0.0, 0.0, 0.2, 0.2)))),
        (True, ()),
        (True, ()),
        (False, ((0, (0.1, 0.1, 0.5, 0.5)),)),
    ]
    assert samples[0].query == "Find all cups." and faults == ["no_box"]  # the zebra: one is asked for


def test_without_it_they_are_as_ever(root: Path) -> None:
    samples, _ = every(put(root / "data.json", TALKS[:3] + TALKS[3:4]), root, complete=False)
    assert not any(one.complete for one in samples)
    assert [one.query for one in samples] == [
        "Find all cups. Locate it in image 1.",
        "Find all cups. Locate it in image 2.",
        TALKS[3]["conversations"][0]["value"].removeprefix("<image><image>"),
    ]


def test_qwens_list(root: Path) -> None:
    answer = json.dumps(
        [{"bbox_2d": [20, 10, 100, 50], "label": "cup"}, {"bbox_2d": [0, 0, 40, 20], "label": "mug"}]
    )
    row = {"image": "a.jpg", **talk("Detect all cups and mugs.", answer, ("a.jpg",))}
    row.pop("images")
    (sample,), faults = every(put(root / "data.json", [row]), root, reader="qwen_pixels")
    assert not faults and sample.complete and sample.target_image == 0
    assert sample.boxes == ((0.1, 0.1, 0.5, 0.5), (0.0, 0.0, 0.2, 0.2))
    assert list(sample.extra["labels"]) == ["cup", "mug"]


def test_ms_swift(root: Path) -> None:
    row = {
        "messages": [
            {"role": "user", "content": "<image><image>Find all <ref-object>."},
            {"role": "assistant", "content": "<bbox><bbox>"},
        ],
        "images": ["a.jpg", "b.jpg"],
        "objects": {"ref": ["cups"], "bbox": [[20, 10, 100, 50], [0, 0, 40, 20]], "image_id": [0, 1]},
    }
    (sample,), faults = every(put(root / "data.json", [row]), root)
    assert not faults and sample.complete
    assert sample.targets == ((0, (0.1, 0.1, 0.5, 0.5)), (1, (0.0, 0.0, 0.2, 0.2)))


COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 200, "height": 100}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 10, 80, 40], "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 2, "bbox": [0, 0, 40, 20], "iscrowd": 0},
        {"id": 3, "image_id": 1, "category_id": 2, "bbox": [0, 0, 90, 20], "iscrowd": 1},
    ],
    "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "dog"}],
}


def test_detection_sets(root: Path) -> None:
    path = put(root / "coco.json", COCO)
    (sample,), _ = every(path, root)
    assert sample.complete and sample.query == "Locate every cup in the image."
    (single,), _ = every(path, root, complete=False)
    assert not single.complete and single.query == "Locate the cup in the image."


def test_prepared_reasonseg(root: Path) -> None:
    row = {"image_path": "a.jpg", "instruction": ["All that holds tea."]}
    path = put(root / "lisa.json", [{**row, "boxes": [[20, 10, 100, 50], [0, 0, 40, 20]]}])
    (sample,), _ = every(path, root)
    assert sample.complete and len(sample.boxes) == 2 and "further_boxes" not in sample.extra
    (single,), _ = every(path, root, complete=False)
    assert not single.complete and len(single.boxes) == 1 and "further_boxes" in single.extra


def test_other_formats_refuse_it(root: Path) -> None:
    path = put(
        root / "rl.json", [{"images": ["a.jpg"], "question": "<image>Where?", "answer": [1, 2, 30, 40]}]
    )
    with pytest.raises(
        UnivgError, match=r"answers of rl cannot be taken for sets: .*leave it out; it is for"
    ):
        every(path, root)


def test_by_the_command(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = put(root / "data.json", TALKS[:3]), root / "out.jsonl"
    assert main(["data", "convert", str(path), "--complete", "--to", "jsonl", "--out", str(out)]) == 0
    assert [(one.complete, len(one.boxes)) for one in read_jsonl(out)] == [(True, 2), (True, 0), (True, 0)]
    assert main(["data", "validate", str(out), "--images", str(root)]) == 0
    assert main(["data", "stats", str(out), "--images", str(root)]) == 0
    capsys.readouterr()


def test_answers_are_scored_as_sets(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, answers = put(root / "data.json", TALKS[:3]), root / "answers.jsonl"
    answers.write_text('{"text": "none"}\n' * 3)
    out = root / "scores.jsonl"
    asked = ["score", str(answers), "--data", str(path), "--style", "direct", "--out", str(out)]
    assert main([*asked, "--complete"]) == 0
    assert [json.loads(line)["iou"] for line in out.read_text().splitlines()] == [0, 1, 1]
    assert main(asked) != 0, "as ever: other samples, of one box each"
    capsys.readouterr()


def test_sets_are_split(root: Path) -> None:
    rows = [talk("Find all cups.", answer, (name,)) for name, answer in (("a.jpg", QUAD), ("b.jpg", "none"))]
    path, out = put(root / "data.json", rows), root / "split"
    main(["data", "split", str(path), "--complete", "--out", str(out), "--test", "0.5"])
    found = [sample for side in ("train", "test") for sample in read_jsonl(out / f"{side}.jsonl")]
    assert sorted(len(one.boxes) for one in found) == [0, 1] and all(one.complete for one in found)


def test_a_box_that_is_in_a_set_twice(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An answer says it once, so that it would miss the other: it is told."""
    box = [0.1, 0.1, 0.5, 0.5]
    one = {"images": ["a.jpg"], "query": "Every cup.", "task": "find_all", "boxes": [box, box]}
    path = put(root / "data.jsonl", {**one, "target_image": 0, "complete": True})
    assert main(["data", "validate", str(path), "--images", str(root)]) == 1
    assert "(0.1, 0.1, 0.5, 0.5) is in its set twice" in capsys.readouterr().out
    put(path, {**one, "target_image": 0})
    assert main(["data", "validate", str(path), "--images", str(root)]) == 0
