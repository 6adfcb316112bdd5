"""Rows of an evaluation as samples, and as predictions to be corrected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from univg.data.exports import Export, export
from univg.data.readers import ImageRoot, RecordFault, detect, read

ROW: dict[str, Any] = {
    "key": "k1",
    "fingerprint": "0123456789abcdef",
    "source": "set#1",
    "task": "diff",
    "images": ["a.png", "b.png"],
    "query": "What is new?",
    "truth_unit": [0, 0, 1, 1],
    "text": "(100,200),(300,400)",
    "boxes_unit": [[0.1, 0.2, 0.3, 0.4]],
    "image_index": 1,
    "confidence": 0.75,
}


def test_a_run_is_read_as_what_the_model_boxed(tmp_path: Path) -> None:
    path = tmp_path / "rows-0-of-1.jsonl"
    two = {**ROW, "source": "set#2", "boxes_unit": [[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.6, 0.6]]}
    none = {**ROW, "source": "set#3", "boxes_unit": [], "image_index": None}
    path.write_text("".join(json.dumps(row) + "\n" for row in (ROW, two, none)))
    faults: list[RecordFault] = []
    assert detect(path) == "answers"
    first, second, third = read(path, on_fault=faults.append)
    assert first.boxes == second.boxes == ((0.1, 0.2, 0.3, 0.4),) and first.target_image == 1
    assert third.boxes == () and third.source == "set#3"
    assert [(fault.record, fault.usable) for fault in faults] == [("set#2", True)]
    for name in ("a.png", "b.png"):
        Image.new("RGB", (10, 20)).save(tmp_path / name)
    tasks = tmp_path / "tasks.json"
    assert export([first, third], "label_studio", tasks, Export(images=ImageRoot(tmp_path))) == 2
    (prediction,), nothing = (task["predictions"] for task in json.loads(tasks.read_text()))
    assert (prediction["score"], prediction["model_version"]) == (0.75, "0123456789abcdef")
    assert prediction["result"][0]["item_index"] == 1 and nothing == []


def test_a_set_keeps_all_its_boxes_on_their_images(tmp_path: Path) -> None:
    path = tmp_path / "rows-0-of-1.jsonl"
    boxes = [[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.6, 0.6]]
    every = {**ROW, "complete": True, "boxes_unit": boxes, "box_images": [1, 0], "refused": False}
    none = {
        **every,
        "source": "set#2",
        "truth_unit": None,
        "boxes_unit": [],
        "box_images": [],
        "refused": True,
    }
    broken = {**none, "source": "set#3", "refused": False}
    path.write_text("".join(json.dumps(row) + "\n" for row in (every, none, broken)))
    faults: list[RecordFault] = []
    first, second, third = read(path, on_fault=faults.append)
    assert [image for image, _ in first.targets] == [1, 0] and first.complete and not faults
    assert second.complete and second.boxes == ()
    assert not third.is_answered, "a broken answer does not say that nothing is there"
