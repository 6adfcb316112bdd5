"""Find a set's images, and read how large they are without decoding them."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from univg.grounding.boxes import SizeWH
from univg.pictures.images import FORMATS, ImageFault

__all__ = ["ImageRoot", "image_size"]

PREFIXES = ("", "home/liyou/opensource_datasets/")
"""Folders that published archives unpack into before the path that the annotations name."""

_SIDEWAYS = {5, 6, 7, 8}
_ORIENTATION = 0x0112


class ImageRoot:
    """Find images under a folder by the paths that annotations give them.

    Annotations say `./MIG-Bench/images/common/x.jpg`; the folder given may be the one that holds `MIG-Bench`,
    or `MIG-Bench` itself, or its `images`. So leading parts of a path are dropped until the file is there, and
    the number dropped is remembered for the next.

    >>> ImageRoot("nowhere").find("a/b.jpg") is None
    True
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        # (prefix, parts dropped) that have led to a file, the latest first. Replaced whole: threads share it.
        self._ways: tuple[tuple[str, int], ...] = ()

    def __repr__(self) -> str:
        return f"ImageRoot({str(self.folder)!r})"

    def find(self, name: str, folder: bool = False) -> Path | None:
        """Return the file (or with `folder` the folder) that an annotation's path means; None if there is none."""
        exists = os.path.isdir if folder else os.path.isfile
        if os.path.isabs(name) and exists(name):
            return Path(name)
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        if not parts or ".." in parts or "\0" in name:
            return None
        known = self._ways
        untried = ((prefix, n) for n in range(len(parts)) for prefix in PREFIXES)
        for way in (*known, *(way for way in untried if way not in known)):
            prefix, dropped = way
            if dropped >= len(parts):
                continue
            path = self.folder.joinpath(prefix, *parts[dropped:])
            if exists(path):
                if known[:1] != (way,):
                    self._ways = (way, *(other for other in known if other != way))
                return path
        return None

    def path(self, name: str, folder: bool = False) -> Path:
        """Return the same, or raise `ImageFault`."""
        found = self.find(name, folder)
        if found is None:
            cause = f"no such {'folder' if folder else 'file'} under {self.folder}"
            raise ImageFault(name, cause, "check --images, or fetch the images")
        return found

    def relative(self, path: Path) -> str:
        """Return `path` relative to the folder (as it is if it lies elsewhere), with slashes."""
        try:
            return path.relative_to(self.folder).as_posix()
        except ValueError:
            return str(path)


def image_size(path: str | os.PathLike[str]) -> SizeWH:
    """Return width and height of an image as it is shown upright, from its header.

    Boxes in pixels were drawn on the upright picture, so a photograph lying on its side (EXIF orientation)
    counts with its sides exchanged, as `univg.pictures.images.open_picture` will open it. `ImageFault` if the file is
    missing or no image.
    """
    return _read_size(os.fspath(path))


@lru_cache(maxsize=65536)
def _read_size(path: str) -> SizeWH:
    Image.init()
    try:
        with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            width, height = image.size
            sideways = image.getexif().get(_ORIENTATION) in _SIDEWAYS
    except FileNotFoundError as error:
        raise ImageFault(path, "no such file", "check --images, or fetch the image") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageFault(path, "no image that can be read", "export or download it again") from error
    return (height, width) if sideways else (width, height)
