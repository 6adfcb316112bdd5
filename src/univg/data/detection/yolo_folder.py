"""Find out what a YOLO folder holds: the names of its classes, its pictures, and the label file of each.

The rules are those of https://docs.ultralytics.com/datasets/detect: a label file has the path of its picture with
`labels` in the place of the last `images`, or lies beside it. What two places could mean is refused, never chosen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from univg.data.detection.beside import list_pictures
from univg.data.formats.fields import shorten
from univg.data.formats.image_root import ImageRoot, is_foreign
from univg.errors import UnivgError

__all__ = ["Split", "YoloFolder", "find_yolo_labels", "is_yolo_config", "name_place", "read_lines"]

_SPLITS = ("train", "val", "valid", "validation", "test")
_IMAGES, _LABELS = ("images", "jpegimages"), "labels"
_PART = re.compile(
    r"(?:images|labels|jpegimages|train|val|valid|validation|test)(?:[\W_]?\d+)?", re.IGNORECASE
)
_NAME_FILES = (
    "classes.txt",
    "obj.names",
    "_darknet.labels",
    "classes.names",
    "coco.names",
    "predefined_classes.txt",
)
_NO_LABELS = re.compile(
    r"(?:classes|predefined_classes|readme.*|notes?|license.*|requirements|train|val|valid|validation|test|.*autosplit.*)\.txt",
    re.IGNORECASE,
)
_NUMBERS = re.compile(rb"\s*\d+(?:\.0*)?(?:[\s,;]+[-+]?[\d.][\d.eE+-]*){4,}[\s,;]*")


class _Loader(yaml.BaseLoader):
    """Read YAML whose values are texts as they stand: a class `no` is not False, and `010` is not 8."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"{key!r} stands there twice", problem_mark=node.start_mark
                )
        return super().construct_mapping(node, deep)


def is_yolo_config(file: Path) -> bool:
    """Tell whether a YAML file names classes, as a YOLO folder's `data.yaml` does."""
    try:
        return file.suffix.lower() in (".yaml", ".yml") and "names" in _load(file)
    except UnivgError:
        return file.stem == "data"


def find_yolo_labels(folder: Path) -> Path | None:
    """Return a label file of the folder, by its place and its first line; None if it is no YOLO folder."""
    files = sorted(folder.rglob("*.txt"))
    return next((file for file in files if _is_labels(file, folder) and _begins_with_numbers(file)), None)


@dataclass(frozen=True)
class Split:
    """A part of a set: its name in `data.yaml`, and what it names there."""

    name: str
    folder: Path | None = None
    listing: Path | None = None


@dataclass
class YoloFolder:
    """A YOLO folder.

    - `base`: the folder of the whole set; `part`: the folder in it that is asked for.
    - `names`: the classes by number; `shape`: number and size of keypoints; `config`: the `data.yaml`, if there is one.
    - `splits`: what `data.yaml` names that is there; `lost`: what is not.
    """

    base: Path
    part: Path
    names: dict[int, str] = field(default_factory=dict)
    named_by: Path | None = None
    config: Path | None = None
    shape: tuple[int, int] | None = None
    splits: list[Split] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path) -> YoloFolder:
        """Read `data.yaml` or the list of names of a set, given as its folder, its `data.yaml` or a part of it."""
        path = Path(os.path.abspath(path))
        if not path.is_dir():
            if path.suffix.lower() not in (".yaml", ".yml"):
                raise UnivgError("no YOLO set", path, "give its folder, or its data.yaml")
            folder = cls(path.parent, path.parent)
            folder._read_config(path)
            return folder
        places = [path]
        while _PART.fullmatch(places[-1].name) and len(places) < 4:
            places.append(places[-1].parent)
        base = next((place for place in places if place.name.lower() not in (*_IMAGES, _LABELS)), path)
        in_labels = [place.parent for place in places[:3] if place.name.lower() in (*_IMAGES, _LABELS)]
        folder = cls(in_labels[-1] if in_labels else base, path)
        for place in places:
            configs = [file for file in sorted(place.iterdir()) if is_yolo_config(file)]
            lists = [
                file
                for name in _NAME_FILES
                for file in (place / name, place / _LABELS / name)
                if file.is_file()
            ]
            if configs:
                folder.base = place  # what it names is relative to it
                folder._read_config(_choose_config(configs))
                _compare(folder, lists)
            elif lists:
                folder._read_lists(lists)
                folder.base = folder.base if folder.base in place.parents else place
            if configs or lists:
                return folder
        within = [file for file in sorted(path.rglob("*.yaml")) if is_yolo_config(file)]
        if within:
            sets = ", ".join(file.relative_to(path).as_posix() for file in within[:5])
            raise UnivgError(f"no set, but a folder of sets ({sets})", path, "give the folder of one of them")
        fix = "write classes.txt, one name a line from class 0 on, or data.yaml, into the folder"
        raise UnivgError("the names of the classes are nowhere (no data.yaml, no classes.txt)", path, fix)

    def _read_lists(self, files: list[Path]) -> None:
        self.names, self.named_by = _read_names(files[0]), files[0]
        for other in files[1:]:
            if _read_names(other) != self.names:
                raise UnivgError(
                    f"{files[0].name} and {other.name} name other classes", other, "remove the wrong one"
                )

    # --- data.yaml ---

    def _read_config(self, file: Path) -> None:
        data = _load(file)
        self.config = self.named_by = file
        self.names = _read_yaml_names(data, file)
        self.shape = _read_shape(data.get("kpt_shape"), file)
        root = str(data.get("path") or "").strip()
        for name in _SPLITS:
            for entry in _list_texts(data.get(name), file, name):
                found = self._resolve(entry, root, f"{file}, {name}")
                if found is None:
                    self.lost.append(f"{name}: {entry}")
                elif os.path.isdir(found):
                    self.splits.append(Split(name, folder=found))
                else:
                    self.splits.append(Split(name, listing=found))

    def _resolve(self, entry: str, root: str, place: str) -> Path | None:
        """Return the folder or list that an entry of `data.yaml` means; None if it is not there.

        What RoboFlow writes (`../train/images`, though the folder is beside `data.yaml`) and paths of another
        machine are understood; an entry that could mean two places is refused.
        """
        entry, root = entry.replace("\\", "/"), root.replace("\\", "/")
        roots = [self.base] if not root else [self.base / root, self.base]
        bare = re.sub(r"^(?:\.\.?/)+", "", entry)
        own = bare.removeprefix(f"{self.base.name}/")
        found: dict[Path, Path] = {}
        for start in roots:
            for spelt in (entry, bare, own):
                path = Path(os.path.normpath(start / spelt))
                if os.path.exists(path) and path != self.base.parent:
                    found.setdefault(path.resolve(), path)
        if not found and is_foreign(entry):
            parts = [part for part in entry.split("/") if part not in ("", ".", "..")]
            ends = (self.base.joinpath(*parts[k:]) for k in range(len(parts)))
            return next((path for path in ends if os.path.exists(path)), None)
        if len(found) > 1:
            what = " or ".join(str(path) for path in found.values())
            raise UnivgError(f"{entry} may be {what}", place, "correct it, or 'path', there")
        return next(iter(found.values()), None)

    # --- pictures and labels ---

    def list_pictures(self, split: Split, lost: list[tuple[str, str]]) -> Iterator[Path]:
        """Yield the pictures of a split; what a list names and is not there goes to `lost`, with the line."""
        if split.folder is not None:
            for same in list_pictures(split.folder).values():
                yield from same
            return
        assert split.listing is not None
        lines = read_lines(split.listing)
        texts = [
            (number, line.strip().replace("\\", "/")) for number, line in enumerate(lines, 1) if line.strip()
        ]
        roots = [ImageRoot(split.listing.parent), ImageRoot(self.base)]
        names = [
            re.sub(r"^data/(?=obj_)", "", text) for _, text in texts
        ]  # as darknet's tools start elsewhere
        for root in roots:
            root.expect(lambda: names)
        for (number, _), name in zip(texts, names, strict=True):
            found = {os.path.realpath(path): path for root in roots if (path := root.find(name)) is not None}
            if len(found) == 1:
                yield Path(os.path.abspath(*found.values()))
            else:
                why = (
                    f"it may be {' or '.join(map(str, found.values()))}" if found else roots[-1].explain(name)
                )
                lost.append((f"{split.listing.name} line {number}", why))

    def find_label_files(self, picture: Path) -> list[Path]:
        """Return where the label file of a picture may lie: in `labels` in the place of `images`, and beside it."""
        beside = picture.with_suffix(".txt")
        return [*dict.fromkeys([*_exchange(beside, self.base, _IMAGES, (_LABELS, "Labels")), beside])]

    def list_label_files(self) -> list[Path]:
        """Return every file of the set, or of the part asked for, that holds labels."""
        folders = [self.part, *_exchange(self.part / "x", self.base, _IMAGES, (_LABELS,))]
        folders = [folders[0], *(folder.parent for folder in folders[1:])]
        files = {file for folder in folders if folder.is_dir() for file in folder.rglob("*.txt")}
        return sorted(file for file in files if _is_labels(file, self.base))

    def is_asked_for(self, picture: Path) -> bool:
        """Tell whether a picture, or its label file, lies in the part asked for."""
        return any(self.part in (path.parents) for path in (picture, *self.find_label_files(picture)))

    def is_in_splits(self, labels: Path) -> bool:
        """Tell whether a label file stands where the labels of a split's folder stand."""
        folders = {split.folder for split in self.splits if split.folder is not None}
        places = (labels, *_exchange(labels, self.base, (_LABELS,), (*_IMAGES, "Images", "JPEGImages")))
        return any(folder in place.parents for place in places for folder in folders)

    def name_config(self) -> str:
        return self.config.name if self.config is not None else "the set"

    def say(self, files: Iterable[Path]) -> str:
        """Return files by their paths in the set, joined by "and"."""
        inside = (file.relative_to(self.base) if self.base in file.parents else file for file in files)
        return " and ".join(file.as_posix() for file in inside)

    def name_record(self, file: Path) -> str:
        """Return the name of a file's record: its path in the set, without suffix."""
        return f"yolo#{self.say([file.with_suffix('')])}"


def name_place(file: Path, base: Path) -> str:
    """Return a file's path below `base` without suffix and without the folder that says of what kind files are.

    >>> name_place(Path("ds/labels/train/1.txt"), Path("ds")), name_place(Path("ds/train/images/1.jpg"), Path("ds"))
    ('train/1', 'train/1')
    """
    parts = list(file.with_suffix("").relative_to(base).parts)
    kinds = [k for k, part in enumerate(parts[:-1]) if part.lower() in (*_IMAGES, _LABELS)]
    if kinds:
        del parts[kinds[-1]]
    return "/".join(parts)


def _exchange(file: Path, base: Path, old: Iterable[str], new: Iterable[str]) -> Iterator[Path]:
    """Yield a path with the last folder of the `old` names exchanged for each of the `new`; nothing if it has none."""
    parts = list(file.parts)
    first = len(base.parts) if base in file.parents else 0
    places = [k for k, part in enumerate(parts[:-1]) if k >= first and part.lower() in old]
    for name in new if places else ():
        yield Path(*parts[: places[-1]], name, *parts[places[-1] + 1 :])


def _is_labels(file: Path, base: Path) -> bool:
    """Tell a label file from other texts: it lies under `labels`, or begins with numbers."""
    if _NO_LABELS.fullmatch(file.name) or file.name in _NAME_FILES:
        return False
    below = file.relative_to(base).parts[:-1] if base in file.parents else file.parts[:-1]
    return any(part.lower() == _LABELS for part in below) or _begins_with_numbers(file)


def _begins_with_numbers(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            start = opened.read(1 << 12).removeprefix(b"\xef\xbb\xbf").replace(b"\0", b"")
    except OSError:
        return False
    return _NUMBERS.fullmatch(start.removeprefix(b"\xff\xfe").strip().split(b"\n", 1)[0]) is not None


# --- names ---


def _load(file: Path) -> dict[str, Any]:
    try:
        data = yaml.load(file.read_bytes(), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UnivgError(f"no YAML ({error.problem})", f"{file}{line}", "write it again") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UnivgError(
            f"no YAML ({str(error).splitlines()[0]})", file, "write it again, as UTF-8"
        ) from None
    return data if isinstance(data, dict) else {}


def _choose_config(files: list[Path]) -> Path:
    first = _load(files[0])
    for other in files[1:]:
        if any(_load(other).get(key) != first.get(key) for key in ("names", "path", "kpt_shape", *_SPLITS)):
            cause = f"{files[0].name} and {other.name} both name classes, and differ"
            raise UnivgError(cause, other.parent, "give the one that is meant in the place of the folder")
    return files[0]


def _compare(folder: YoloFolder, lists: list[Path]) -> None:
    """Refuse a list of names that contradicts `data.yaml`: one of them is of another set."""
    for file in lists:
        others = _read_names(file)
        differ = [n for n in others if n in folder.names and others[n] != folder.names[n]]
        if differ and folder.config is not None:
            n = differ[0]
            cause = (
                f"class {n} is {folder.names[n]!r} in {folder.config.name} and {others[n]!r} in {file.name}"
            )
            raise UnivgError(
                cause, file, f"give {folder.config.name} in the place of the folder, or remove {file.name}"
            )


def read_lines(file: Path) -> list[str]:
    """Return the lines of a text, as editors count them; `UnivgError` if it is none."""
    raw = file.read_bytes()
    try:
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        raise UnivgError("no text in UTF-8", file, "save it as UTF-8") from None
    return re.split(r"\r\n|\r|\n", text)


def _read_names(file: Path) -> dict[int, str]:
    return {number: line.strip() for number, line in enumerate(read_lines(file)) if line.strip()}


def _read_yaml_names(data: dict[str, Any], file: Path) -> dict[int, str]:
    written, place = data.get("names"), f"{file}, names"
    if (
        isinstance(written, list)
        and written
        and all(isinstance(one, dict) and len(one) == 1 for one in written)
    ):
        pairs = [pair for one in written for pair in one.items()]  # "- 0: cat" in the place of "0: cat"
    elif isinstance(written, (list, dict)):
        pairs = list(enumerate(written) if isinstance(written, list) else written.items())
    else:
        fix = "write names: [first, second, …]"
        raise UnivgError(f"no names of classes, but {shorten(written)}", place, fix)
    names: dict[int, str] = {}
    for key, name in pairs:
        if not isinstance(name, str) or not str(key).strip().isdecimal() or int(key) in names:
            cause = f"{shorten({key: name})} is no number with its name, or is there twice"
            raise UnivgError(cause, place, "write each class as number: name")
        names[int(key)] = name.strip()
    count = str(data.get("nc") or len(names)).strip()
    if count != str(len(names)):
        raise UnivgError(f"nc is {count}, and {len(names)} classes are named", file, "correct one of the two")
    return {number: name for number, name in names.items() if name}


def _read_shape(written: Any, file: Path) -> tuple[int, int] | None:
    if not written:
        return None
    if isinstance(written, list) and len(written) == 2 and all(str(n).isdecimal() for n in written):
        number, size = (int(n) for n in written)
        if number > 0 and size in (2, 3):
            return number, size
    raise UnivgError(f"kpt_shape is {shorten(written)}", file, "write kpt_shape: [keypoints, 2 or 3]")


def _list_texts(value: Any, file: Path, name: str) -> list[str]:
    texts = value if isinstance(value, list) else [value or ""]
    if not all(isinstance(text, str) for text in texts):
        raise UnivgError(
            f"{name} is {shorten(value)}", file, "name a folder, a list of pictures, or several of them"
        )
    return [text.strip() for text in texts if text.strip()]
