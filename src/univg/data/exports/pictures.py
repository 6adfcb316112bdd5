"""Find the pictures of samples, measure them, and put them where another program opens them as they were boxed.

Boxes are drawn on upright pictures. A photograph that is stored on its side (EXIF orientation) is opened upright
by browsers and OpenCV and as it is stored by much that is built on Pillow. So what is put into a folder is upright
for all of them: such a photograph as a copy that was turned, everything else as it is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from univg.data.exports.settings import Export
from univg.data.formats.faults import Unusable
from univg.data.formats.image_root import ImageRoot, stored_size
from univg.grounding.boxes import SizeWH
from univg.grounding.samples import GroundingSample
from univg.pictures.drawing import save_picture
from univg.pictures.images import ImageFault, open_picture

__all__ = ["Pictures", "Shot", "name_apart", "place", "turn_upright"]

_EVERYWHERE = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
"""What all trainers open, and find by these suffixes; of an animation, say, they get the first picture as PNG."""
_JPEG = {".jpg", ".jpeg"}


@dataclass(frozen=True)
class Shot:
    """A picture that was found: `path` as named, `file` without links, its size upright, whether it lies turned."""

    path: Path
    file: Path
    size_wh: SizeWH
    turned: bool


class Pictures:
    """Find each picture once; two names of one file are one picture."""

    def __init__(self, how: Export) -> None:
        self.root: ImageRoot | None = how.images
        self._found: dict[str, Shot] = {}

    def find(self, name: str) -> Shot:
        """Return the picture of this name, or raise `Unusable`."""
        if name not in self._found:
            self._found[name] = self._measure(name)
        return self._found[name]

    def _measure(self, name: str) -> Shot:
        path = self.root.find(name) if self.root is not None else Path(name)
        if path is None or not os.path.isfile(path):
            where = f" under {self.root.folder}" if self.root is not None else ""
            raise Unusable("missing_image", f"no {name}{where}", "say with --images where it lies")
        try:
            stored = stored_size(path)
            turned = stored.orientation != 1
            if turned or path.suffix.lower() not in _EVERYWHERE:
                open_picture(path)  # it will be written anew, so it must be whole
        except ImageFault as error:
            raise Unusable("bad_image", f"{name}: {error.cause}", error.remedy) from None
        return Shot(path, Path(os.path.realpath(path)), stored.upright_wh, turned)


def place(shots: Iterable[Shot], folder: Path, how: Export) -> dict[Path, str]:
    """Put pictures into one flat `folder`; return the name of each, by its file.

    Flat, because trainers list one folder, and take `images` in a path for the part to exchange for `labels`.
    Raises `ImageFault` for a picture that must be turned or converted and cannot be decoded.
    """
    by_file = {shot.file: shot for shot in shots}
    names = name_apart(list(by_file), how.images)
    turned = 0
    folder.mkdir(parents=True, exist_ok=True)
    for file, shot in by_file.items():
        if shot.turned or file.suffix.lower() not in _EVERYWHERE:
            suffix = file.suffix if file.suffix.lower() in _JPEG else ".png"
            names[file] = Path(names[file]).stem + suffix
            save_upright(shot, folder / names[file])
            turned += shot.turned
        else:
            (os.link if how.link else shutil.copyfile)(file, folder / names[file])
    if turned:
        how.note(f"{turned} photographs were stored on their side (EXIF) and are written upright")
    return names


def turn_upright(samples: Iterable[GroundingSample], folder: Path, how: Export) -> Iterator[GroundingSample]:
    """Yield the samples, each photograph that is stored on its side (EXIF) replaced by an upright copy in `folder`.

    A copy is named by its absolute path. What cannot be found or opened keeps its name: not every format needs it.
    """
    pictures, copies = Pictures(how), dict[Path, str]()

    @cache
    def lies_turned(name: str) -> bool:
        path = name if how.images is None else how.images.find(name)
        with suppress(ImageFault):
            return path is not None and stored_size(path).orientation != 1
        return False

    def name_upright(name: str) -> str:
        if not lies_turned(name):
            return name
        shot = pictures.find(name)
        if shot.file not in copies:
            copies[shot.file] = str(_save_copy(shot, folder))
        return copies[shot.file]

    for sample in samples:
        with how.reporting(sample):
            names = tuple(name_upright(name) for name in sample.images)
            yield sample if names == sample.images else replace(sample, images=names)
    if copies:
        how.note(
            f"{len(copies)} photographs were stored on their side (EXIF): upright copies are in {folder}"
        )


def _save_copy(shot: Shot, folder: Path) -> Path:
    suffix = shot.file.suffix if shot.file.suffix.lower() in _JPEG else ".png"
    path = folder.resolve() / f"{shot.file.stem}-{_digest(str(shot.file))}{suffix}"
    save_upright(shot, path)
    return path


def save_upright(shot: Shot, path: Path) -> None:
    options = {"quality": 95, "subsampling": 0} if path.suffix.lower() in _JPEG else {}
    save_picture(open_picture(shot.path).image, path, **options)


def name_apart(files: Sequence[Path], root: ImageRoot | None = None) -> dict[Path, str]:
    """Return a name for each file in one flat folder. Names are apart without their suffix and whatever the case.

    Labels are files of the picture's stem, so `a.jpg` and `a.png` would share one.

    >>> list(name_apart([Path("cup.jpg"), Path("1/cat.jpg"), Path("2/cat.jpg")]).values())
    ['cup.jpg', '1__cat.jpg', '2__cat.jpg']
    """
    top = Path(os.path.realpath(root.folder)) if root is not None else Path()

    def with_folder(file: Path) -> str:
        return f"{file.parent.name}__{file.name}"

    def with_digest(file: Path) -> str:
        inside = file.relative_to(top) if file.is_relative_to(top) else file
        return f"{file.stem}-{_digest(inside.as_posix())}{file.suffix}"

    names = {file: file.name for file in files}
    ways: list[Callable[[Path], str]] = [with_folder, with_digest]
    for rename in ways:
        count = Counter(_stem(name) for name in names.values())
        names = {file: rename(file) if count[_stem(name)] > 1 else name for file, name in names.items()}
    return names


def _stem(name: str) -> str:
    return Path(name).stem.casefold()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]
