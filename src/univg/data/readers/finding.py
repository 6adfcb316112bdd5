"""Find out what a file or folder is that holds no rows: a folder of annotations, one object, one XML file.

Rows are told apart by the fields of their first record, which `READERS` lists; everything else is told apart here, by
what stands in it, never by the spelling of a path.
"""

from __future__ import annotations

from pathlib import Path

from univg.data.formats.json_stream import read_items
from univg.data.formats.rows import detect_container

__all__ = ["find_format"]


def find_format(path: Path) -> str | None:
    """Return the format (a key of `READERS`) of what is no rows; None if the fields of rows decide."""
    if path.is_dir():
        return _find_in_folder(path)
    if path.suffix.lower() == ".xml":
        return "voc"
    return _find_in_object(path) if detect_container(path) == "object" else None


def _find_in_folder(path: Path) -> str | None:
    if next(path.rglob("*.xml"), None) is not None:
        return "voc"
    if next(path.rglob("*.parquet"), None) or next(path.rglob("*.arrow"), None):
        return None
    return "reasonseg_raw" if next(path.rglob("*.json"), None) is not None else None


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
