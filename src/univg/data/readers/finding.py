"""Find out what a file or folder is that holds no rows: a folder of annotations, one object, one XML file.

Rows are told apart by the fields of their first record, which `READERS` lists; everything else is told apart here, by
what stands in it, never by the spelling of a path.
"""

from __future__ import annotations

from pathlib import Path

from univg.data.detection.coco_folder import find_coco_files
from univg.data.detection.tables import choose_table, find_table_files, find_table_format
from univg.data.detection.yolo_folder import find_yolo_labels, is_yolo_config
from univg.data.formats.json_stream import read_items
from univg.data.formats.rows import detect_container, holds_object
from univg.errors import UnivgError

__all__ = ["find_format"]


def find_format(path: Path) -> str | None:
    """Return the format (a key of `READERS`) of what is no rows; None if the fields of rows decide.

    Raises `UnivgError` for a folder that holds sets of several formats.
    """
    if path.is_dir():
        return _find_in_folder(path)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv") and (found := find_table_format(path)) is not None:
        return found
    if suffix == ".xml":
        return "voc"
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
        found["voc"] = xml
    labels = find_yolo_labels(path) or next(filter(is_yolo_config, sorted(path.iterdir())), None)
    if labels is not None:
        found["yolo"] = labels
    if rows := next(path.rglob("*.parquet"), None) or next(path.rglob("*.arrow"), None):
        found[""] = rows
    elif coco := find_coco_files(path):
        found["coco"] = coco[0]
    elif find_table_files(path):
        table = choose_table(path)
        found[find_table_format(table) or "csv"] = table
    elif not found and holds_object(path):
        return "reasonseg_raw"
    if len(found) > 1:
        several = ", ".join(f"{name or 'rows'} ({file.relative_to(path)})" for name, file in found.items())
        fix = "give the file or folder of one of them, or name one with --format"
        raise UnivgError(f"annotations in several formats: {several}", path, fix)
    return next(iter(found), None) or None


def _find_in_object(path: Path) -> str | None:
    """Tell COCO, LLM-Seg40K, ReasonVOS and ReVOS apart by what stands in the object first."""
    for key, value in read_items(path):
        if key in ("images", "annotations", "categories") and isinstance(value, dict):
            return "coco"
        if key == "videos" and isinstance(value, dict):
            video = next(iter(value.values()), None)
            expressions = video.get("expressions") if isinstance(video, dict) else None
            return "revos_raw" if isinstance(expressions, dict) else "reasonvos_raw"
        if isinstance(value, dict) and "qa_pairs" in value:
            return "llmseg_raw"
        if key in ("text", "shapes", "is_sentence"):
            return "reasonseg_raw"
    return None
