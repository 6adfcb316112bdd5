"""Find out what a file or folder is that holds no rows: a folder of annotations, one object, one XML file.

Rows are told apart by the fields of their first record, which `READERS` lists; everything else is told apart here, by
what stands in it, never by the spelling of a path.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from univg.data.detection.coco_folder import find_coco_files
from univg.data.detection.cvat import find_root_tag
from univg.data.detection.label_studio import is_label_studio
from univg.data.detection.labelme import is_labelme
from univg.data.detection.tables import choose_table, find_table_files, find_table_format
from univg.data.detection.yolo_folder import find_yolo_labels, is_yolo_config
from univg.data.formats.rows import detect_container, holds_object
from univg.data.readers.glimpse import peek_object
from univg.data.readers.strangers import refuse_stranger
from univg.errors import UnivgError

__all__ = ["find_format"]

_LOOKED_AT = 20
"""Files of a folder that are looked at."""
_LISTS = ("annotations", "completions", "predictions", "result")
"""Fields of Label Studio's that hold lists, of which a glimpse keeps an item."""


def find_format(path: Path) -> str | None:
    """Return the format (a key of `READERS`) of what is no rows; None if the fields of rows decide.

    Raises `UnivgError` for what is known and cannot be read, and for a folder that holds sets of several formats.
    """
    refuse_stranger(path)
    if path.is_dir():
        return _find_in_folder(path)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv") and (found := find_table_format(path)) is not None:
        return found
    if suffix == ".xml":
        return _find_in_xml([path]) or "voc"
    if suffix in (".yaml", ".yml"):
        if is_yolo_config(path):
            return "yolo"
        raise UnivgError(
            "a YAML file without names of classes", path, "give a YOLO set's data.yaml, or its folder"
        )
    return _find_in_object(path) if detect_container(path) == "object" else None


def _find_in_folder(path: Path) -> str | None:
    """Return the format of the annotations in a folder, None for rows; what holds several sets is refused."""
    found: dict[str, Path] = {}
    if (xml := next(path.rglob("*.xml"), None)) is not None:
        found[_find_in_xml(path.rglob("*.xml")) or "voc"] = xml
    in_json = _find_in_jsons(path.rglob("*.json"))
    if in_json is not None and in_json[0] == "labelme":
        found["labelme"] = in_json[1]
    labels = find_yolo_labels(path) or next(filter(is_yolo_config, sorted(path.iterdir())), None)
    if labels is not None:
        found["yolo"] = labels
    if rows := next(path.rglob("*.parquet"), None) or next(path.rglob("*.arrow"), None):
        found[""] = rows
    if coco := find_coco_files(path):
        found["coco"] = coco[0]
    if tables := find_table_files(path):
        table = tables[0] if found else choose_table(path)
        found[find_table_format(table) or "csv"] = table
    if not found and in_json is not None:
        return in_json[0]
    if not found and holds_object(path):
        raise UnivgError("no folder of a format that is known", path, "name one of its files")
    if len(found) > 1:
        several = ", ".join(f"{name or 'rows'} ({file.relative_to(path)})" for name, file in found.items())
        fix = "give the file or folder of one of them, or name one with --format"
        raise UnivgError(f"annotations in several formats: {several}", path, fix)
    return next(iter(found), None) or None


def _find_in_xml(files: Iterable[Path]) -> str | None:
    """Tell Pascal VOC from CVAT by the outermost element; None if there is no file."""
    tags = list(dict.fromkeys(map(find_root_tag, islice(files, _LOOKED_AT))))
    if not tags:
        return None
    return "cvat" if "annotations" in tags and "annotation" not in tags else "voc"


def _find_in_jsons(files: Iterable[Path]) -> tuple[str, Path] | None:
    """Tell labelme's folder from ReasonSeg's by the first of its files that is either."""
    found = [(kind, file) for file in islice(files, _LOOKED_AT) if (kind := _find_shapes(file)) is not None]
    return min(found, key=lambda one: one[0] != "labelme", default=None)


def _find_shapes(path: Path) -> str | None:
    """Tell labelme's JSON from ReasonSeg's; None if it is neither."""
    seen = peek_object(path)
    if is_labelme(seen):
        return "labelme"
    return "reasonseg_raw" if seen.keys() & {"text", "shapes", "is_sentence"} else None


def _is_mc_bench(seen: dict[str, Any]) -> bool:
    """Tell MC-Bench's two files from COCO's by what only they say of descriptions or images."""
    text, image = (
        {**one} if isinstance(one := seen.get(key), dict) else {} for key in ("descriptions", "images")
    )
    return "images_id" in text or "inter_img_id" in image or {"pair_image_id", "description"} <= image.keys()


def _find_in_object(path: Path) -> str | None:
    """Tell single objects apart by their fields, the first that decides."""
    seen = peek_object(path)
    if is_label_studio(seen | {name: [seen[name]] for name in _LISTS if name in seen}):
        return "label_studio"
    if _is_mc_bench(seen):
        return "mc_bench"
    for key, value in seen.items():
        if key in ("images", "annotations", "categories") and isinstance(value, dict):
            return "coco"
        if key == "videos" and isinstance(value, dict):
            video = next(iter(value.values()), None)
            expressions = video.get("expressions") if isinstance(video, dict) else None
            return "revos_raw" if isinstance(expressions, dict) else "reasonvos_raw"
        if isinstance(value, dict) and "qa_pairs" in value:
            return "llmseg_raw"
        if key in ("text", "shapes", "is_sentence"):
            return _find_shapes(path)
    return None
