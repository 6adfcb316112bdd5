"""Write tasks for Label Studio: boxes as predictions, to be corrected by people, and the labelling config to paste.

One task is what is shown together, the question above it. Several pictures are a list (`valueList`, Label Studio 1.15
and later), and `item_index` says on which of them a box lies. Browsers show photographs upright, so that boxes
in percent lie right whatever EXIF says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from univg.data.exports.pictures import Shot
from univg.data.exports.scenes import Scene, gather_scenes
from univg.data.exports.settings import Export
from univg.errors import UnivgError
from univg.files import write_whole
from univg.grounding.boxes import Box
from univg.grounding.samples import GroundingSample

__all__ = ["CONFIG", "write_label_studio"]

CONFIG = "label-config.xml"
_LOCAL = "/data/local-files/?d="


def write_label_studio(path: Path, samples: Iterator[GroundingSample], how: Export) -> int:
    """Write the tasks, and `label-config.xml` beside them; return how many samples.

    `UnivgError` unless `how` says where pictures lie: tasks hold addresses, not pictures.
    """
    if how.images is None:
        cause = "Label Studio is given the pictures' addresses, under a folder that it may serve"
        raise UnivgError(cause, "--to label_studio", "name that folder with --images")
    folder = how.images.folder.resolve()
    scenes = gather_scenes(samples, how)
    several = any(len(scene.shots) > 1 for scene in scenes)
    tasks = [_make_task(scene, several, how) for scene in scenes]
    labels = list(dict.fromkeys(label for scene in scenes for _, label, _, _ in scene.boxes))
    write_whole(path, json.dumps(tasks, ensure_ascii=False, indent=1) + "\n")
    write_whole(path.with_name(CONFIG), _make_config(labels, several))
    how.note(f"paste {path.with_name(CONFIG)} as the project's labelling interface before the import")
    if how.image_url is None:
        how.note(
            f"start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
            f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={folder.parent}, and add {folder} as local storage"
        )
    return sum(len(scene.samples) for scene in scenes)


def _make_task(scene: Scene, several: bool, how: Export) -> dict[str, Any]:
    addresses = [_make_address(name, shot, how) for name, shot in zip(scene.names, scene.shots, strict=True)]
    shown = {"images": addresses} if several else {"image": addresses[0]}
    sources = "\n".join(sample.source for sample in scene.samples)
    data = {**shown, "question": scene.question, "source": sources, "task": scene.samples[0].task}
    results = [_make_result(scene, number, several) for number in range(len(scene.boxes))]
    said = scene.samples[0].extra
    prediction: dict[str, Any] = {"model_version": str(said.get("model_version", "univg")), "result": results}
    if isinstance(said.get("score"), (int, float)):
        prediction["score"] = said["score"]
    # A prediction without regions says that nothing is there; no prediction, that nobody has looked.
    predicted = results or all(sample.is_answered for sample in scene.samples)
    return {"data": data, "predictions": [prediction] if predicted else []}


def _make_result(scene: Scene, number: int, several: bool) -> dict[str, Any]:
    image, label, box, sample = scene.boxes[number]
    width, height = scene.shots[image].size_wh
    return {
        "id": f"{sample.key[:12]}-{number}",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {**_to_percent(box), "rotation": 0, "rectanglelabels": [label]},
        **({"item_index": image} if several else {}),
    }


def _to_percent(box: Box) -> dict[str, float]:
    x1, y1, x2, y2 = box
    corner = {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1}
    return {name: round(value * 100, 6) for name, value in corner.items()}


def _make_address(name: str, shot: Shot, how: Export) -> str:
    """Return where Label Studio finds a picture. Of local files it serves what lies below its document root."""
    if how.image_url is not None:
        return how.image_url + quote(name)
    assert how.images is not None
    folder = how.images.folder.resolve()
    path = shot.path if shot.path.is_absolute() else shot.path.absolute()
    inside = path.relative_to(folder) if path.is_relative_to(folder) else Path(name)
    return _LOCAL + quote(f"{folder.name}/{inside.as_posix()}")


def _make_config(labels: list[str], several: bool) -> str:
    lines = [f"    <Label value={quoteattr(label)}/>" for label in labels or ["target"]]
    value = 'valueList="$images"' if several else 'value="$image"'
    return "\n".join(
        [
            "<View>",
            '  <Header value="$question"/>',
            f'  <Image name="image" {value} zoom="true"/>',
            '  <RectangleLabels name="label" toName="image">',
            *lines,
            "  </RectangleLabels>",
            "</View>",
            "",
        ]
    )
