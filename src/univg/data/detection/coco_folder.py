"""Find the COCO file of a folder, and where in it that file's pictures lie.

COCO keeps `annotations/instances_train2017.json` beside `train2017/`, CVAT beside `images/`, RoboFlow one
`_annotations.coco.json` in each split's folder. A folder with several files is not read: which one is meant is asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from univg.data.detection.beside import choose_file
from univg.data.detection.listing import ListedImage
from univg.data.formats.fields import clean_path
from univg.data.formats.image_root import ImageRoot
from univg.data.formats.json_stream import read_items
from univg.data.formats.records import Source
from univg.errors import UnivgError

__all__ = ["choose_coco_file", "find_coco_files", "find_coco_pictures"]

_KEYS = ("images", "annotations", "categories")
_OTHERS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")


def find_coco_files(folder: Path) -> list[Path]:
    """Return the COCO detection files below a folder: those called `instances_…`, if there are some."""
    files = [
        file for file in sorted(folder.rglob("*.json")) if not _is_of_one_picture(file) and _is_coco(file)
    ]
    instances = [file for file in files if file.name.startswith("instances_")]
    return instances or [file for file in files if not file.name.startswith(_OTHERS)] or files


def choose_coco_file(path: Path) -> Path:
    """Return the one COCO file of a folder (a file is itself)."""
    if not path.is_dir():
        return path
    fix = "give a folder with annotations/instances_….json"
    return choose_file(path, find_coco_files(path), "COCO file", "COCO files", fix)


def find_coco_pictures(source: Source, folder: Path, file: Path, listed: Iterable[ListedImage]) -> None:
    """Give each listed image of a folder's COCO file its picture, where no other folder of images is named.

    All lie under one place: the folder with the name of the file's split, else the one where most are found; where
    a name is another picture in each of two, which is meant is asked.
    """
    if source.images is not None and source.images.folder.resolve() != folder.resolve():
        return
    split = file.stem.removeprefix("instances_")
    above = [folder, folder / "images", file.parent]
    own = [place / split for place in above if (place / split).is_dir()]
    listed = list(listed)
    found: list[tuple[Path, list[Path | None]]] = []
    for place in dict.fromkeys(own or [place for place in above if place.is_dir()]):
        root = ImageRoot(place)
        root.expect(lambda: [clean_path(entry.name) for entry in listed])
        found.append((place, [root.find(clean_path(entry.name)) for entry in listed]))
    for paths in zip(*(paths for _, paths in found), strict=True):
        if len({path.resolve() for path in paths if path is not None}) > 1:
            places = " or ".join(str(place) for place, _ in found)
            raise UnivgError(f"its pictures may be those in {places}", file, "say which with --images")
    fullest = max(found, key=lambda one: sum(path is not None for path in one[1]), default=None)
    for entry, path in zip(listed, fullest[1] if fullest else (), strict=True):
        entry.path = path


def _is_of_one_picture(file: Path) -> bool:
    return any(file.with_suffix(suffix).is_file() for suffix in (".jpg", ".JPG", ".jpeg", ".png"))


def _is_coco(file: Path) -> bool:
    try:
        for key, value in read_items(file):
            if key in _KEYS and isinstance(value, dict):
                return True
            if not key or key not in ("info", "licenses", "type"):
                return False
    except UnivgError:
        pass
    return False
