"""Write a folder that FiftyOne imports: `images`, `samples.json`, and the script that makes a dataset of them.

FiftyOne's own dataset folders are tied to a version of its database schema, and COCO's form knows no samples of several
pictures; so the import is a short script against its documented interface.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from univg.data.exports.pictures import place
from univg.data.exports.scenes import Scene, gather_scenes
from univg.data.exports.settings import Export, check_folder
from univg.files import replacing
from univg.grounding.samples import GroundingSample

__all__ = ["SCRIPT", "write_fiftyone"]

SCRIPT = "import_fiftyone.py"


def write_fiftyone(path: Path, samples: Iterator[GroundingSample], how: Export) -> int:
    """Write the folder; return how many samples. `UnivgError` if there is something in it."""
    check_folder(path)
    scenes = gather_scenes(samples, how)
    if not scenes:
        return 0
    with replacing(path) as folder:
        names = place((shot for scene in scenes for shot in scene.shots), folder / "images", how)
        rows = [_make_row(scene, names) for scene in scenes]
        (folder / "samples.json").write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", "utf-8")
        (folder / SCRIPT).write_text(files("univg.data.exports").joinpath(SCRIPT).read_text("utf-8"), "utf-8")
    how.note(f"python {path / SCRIPT} --launch (where FiftyOne is installed)")
    return sum(len(scene.samples) for scene in scenes)


def _make_row(scene: Scene, names: dict[Path, str]) -> dict[str, Any]:
    first = scene.samples[0]
    boxes = [
        {"image": image, "label": label, "bounding_box": [x1, y1, x2 - x1, y2 - y1], "source": sample.source}
        for image, label, (x1, y1, x2, y2), sample in scene.boxes
    ]
    return {
        "images": [f"images/{names[shot.file]}" for shot in scene.shots],
        "sizes": [list(shot.size_wh) for shot in scene.shots],
        "question": scene.question,
        "task": first.task,
        "thought": first.thought,
        "sources": [sample.source for sample in scene.samples],
        "boxes": boxes,
        "complete": all(sample.complete for sample in scene.samples),
    }
