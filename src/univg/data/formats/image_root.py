"""Find a set's images, and read how large they are without decoding them."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from PIL import Image, UnidentifiedImageError

from univg.data.formats.rows import list_paths
from univg.grounding.boxes import SizeWH
from univg.pictures.images import FORMATS, ImageFault

__all__ = ["ImageRoot", "Stored", "image_size", "is_foreign", "plain_path", "stored_size"]

PREFIXES = ("", "home/liyou/opensource_datasets/")
"""Folders that published archives unpack into before the path that the annotations name."""

_PUBLISHED = (("MIG-Bench",), ("MIG-Bench", "images"), ("MGrounding-630k",))
"""Folders that published annotations name, and that may themselves be the folder of the images."""

_SIDEWAYS = {5, 6, 7, 8}
_ORIENTATION = 0x0112
_WEB = re.compile(r"(?:https?|s3|gs|ftp)://|data:", re.IGNORECASE)
_FILE = re.compile(r"file://(?:localhost)?(?=/)", re.IGNORECASE)
_SHOWN = 120
"""Signs of a path that is not there, as faults show it."""
_ANCHOR = re.compile(r"[A-Za-z]:[\\/]|[\\/]")


def is_foreign(name: str) -> bool:
    """Tell whether a path says nothing about where it lies here: of another machine, or out of its own folder.

    >>> [is_foreign(name) for name in ("a/b.jpg", "C:\\\\me\\\\b.jpg", "../b.jpg", "/nowhere/b.jpg")]
    [False, True, True, True]
    """
    name = _plain(name)
    if os.path.isabs(name) and os.path.exists(name):
        return False
    return _ANCHOR.match(name) is not None or ".." in _split(name)


def plain_path(name: str) -> str:
    """Return the path that an address of a file means; an address that means two files as it is, for `find` to refuse.

    >>> plain_path("file:///data/my%20set/a.jpg"), plain_path("a%20b.jpg")
    ('/data/my set/a.jpg', 'a%20b.jpg')
    """
    return _plain(name) if _is_one(name) else name


def _plain(name: str) -> str:
    """Return a path without the `file://` of an address, whose % signs not all who write them mean as such."""
    raw = _FILE.sub("", name, count=1)
    plain = unquote(raw) if raw != name else name
    return raw if os.path.exists(raw) and not os.path.exists(plain) else plain


def _is_one(name: str) -> bool:
    """Tell whether an address of a file is not also another file's, with its % signs as they stand."""
    raw = _FILE.sub("", name, count=1)
    return raw in (name, unquote(raw)) or not (os.path.exists(raw) and os.path.exists(unquote(raw)))


def _split(name: str) -> list[str]:
    return [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]


class ImageRoot:
    """Find images under a folder by the paths that annotations give them.

    A path is one file or none, whatever was asked before, and two paths of a set are never one file:

    - Annotations say `./MIG-Bench/images/common/x.jpg`; the folder given may be the one that holds `MIG-Bench`, or
      `MIG-Bench` itself, or its `images`. So leading parts may be dropped that are the folder's own name (with those
      above it), or one of the published sets', or that end in the folder's name and begin every path of the set. No
      other part is ever dropped.
    - A path of another machine (absolute, `C:\\…`, `..\\…`) is found by its end, the longest that is there. If
      two paths of the set (see `expect`) would be the same file, neither is.

    >>> ImageRoot("nowhere").find("a/b.jpg") is None
    True
    """

    def __init__(self, folder: str | os.PathLike[str], file: str | os.PathLike[str] | None = None) -> None:
        self.folder = Path(folder)
        tail = self.folder.resolve().parts
        self._name = tail[-1]
        own = (tail[-k:] for k in range(1, len(tail)))
        self._heads = [*dict.fromkeys([*own, *_PUBLISHED])]
        self._list_expected: Callable[[], Iterable[str]] = partial(list_paths, file) if file else tuple
        self._foreign: dict[str, Path | None] | None = None  # of paths of another machine, once one is met
        self._claimed: set[Path] = set()
        self._shared: dict[tuple[str, ...], bool] = {}  # beginnings of paths -> whether all paths begin so

    def __repr__(self) -> str:
        return f"ImageRoot({str(self.folder)!r})"

    def expect(self, names: Callable[[], Iterable[str]]) -> None:
        """Say how to list the paths of the set, in the place of those in the `file` given first.

        They are listed only if one of them is of another machine: then all decide together which ends are whose.
        """
        self._list_expected, self._foreign, self._shared = names, None, {}

    def find(self, name: str, folder: bool = False) -> Path | None:
        """Return the file (or with `folder` the folder) that an annotation's path means; None if there is none."""
        exists = os.path.isdir if folder else os.path.isfile
        if "\0" in name or _WEB.match(name):
            return None
        plain = _plain(name)
        if os.path.isabs(plain) and exists(plain):
            return Path(plain) if _is_one(name) else None
        if is_foreign(name):
            return None if folder else self._find_exact_inside(name) or self._find_foreign(name)
        return next((path for path in self._candidates(plain) if exists(path)), None)

    def _candidates(self, name: str) -> Iterator[Path]:
        """Yield where a path that is relative to the folder may lie."""
        if "\\" in name:
            yield self.folder / name  # a file may really be called so
        parts = tuple(_split(name))
        if not parts:
            return
        for spelt in dict.fromkeys([parts, *(_normalize(parts, form) for form in ("NFC", "NFD"))]):
            for prefix in PREFIXES:
                yield self.folder.joinpath(prefix, *spelt)
            for head in (*self._heads, *self._find_shared(spelt)):
                if len(head) < len(spelt) and spelt[: len(head)] == head:
                    for prefix in PREFIXES:
                        yield self.folder.joinpath(prefix, *spelt[len(head) :])

    def _find_shared(self, parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """Yield the beginnings of a path that end in the folder's own name, if all paths of the set begin so."""
        for k in range(2, len(parts)):
            if parts[k - 1] == self._name:
                head = parts[:k]
                if head not in self._shared:
                    begin = {tuple(_split(_plain(name)))[:k] for name in self._list_expected()}
                    self._shared[head] = begin == {head}
                if self._shared[head]:
                    yield head

    def _find_foreign(self, name: str) -> Path | None:
        if self._foreign is None:
            self._match_foreign([*dict.fromkeys(self._list_expected())])
        known = self._foreign or {}
        if name not in known:
            path = self._find_end(name)
            known[name] = None if path in self._claimed else path
            self._claimed.update([path] if path is not None else [])
        return known[name]

    def _match_foreign(self, names: list[str]) -> None:
        """Match all paths of another machine by their ends; those that would be the same file are no file."""
        ends = {
            name: self._find_end(name)
            for name in names
            if is_foreign(name) and self._find_exact_inside(name) is None
        }
        claims = Counter(path for path in ends.values() if path is not None)
        direct = (self.find(name) for name in names if name not in ends)
        claims.update(path for path in direct if path is not None and path in claims)
        self._claimed = set(claims)
        self._foreign = {
            name: path if path is not None and claims[path] == 1 else None for name, path in ends.items()
        }

    def _find_end(self, name: str) -> Path | None:
        parts = [part for part in _split(_plain(name)) if part != ".." and not part.endswith(":")]
        ends = ("/".join(parts[dropped:]) for dropped in range(len(parts)))
        found = next((path for end in ends for path in self._candidates(end) if os.path.isfile(path)), None)
        exact = self._find_exact(name)
        return found if found is None or exact is None or os.path.samefile(found, exact) else None

    def _find_exact_inside(self, name: str) -> Path | None:
        """Return the same if it lies in the folder: a path that is out of it and in again."""
        exact = self._find_exact(name)
        return exact if exact is not None and exact.is_relative_to(os.path.normpath(self.folder)) else None

    def _find_exact(self, name: str) -> Path | None:
        """Return the very file that a path with ".." leads to from the folder: no other of its end is meant."""
        parts = _split(_plain(name))
        path = Path(os.path.normpath(self.folder.joinpath(*parts)))
        return path if ".." in parts and os.path.isfile(path) else None

    def path(self, name: str, folder: bool = False) -> Path:
        """Return the same, or raise `ImageFault`."""
        found = self.find(name, folder)
        if found is None:
            cause = f"no such {'folder' if folder else 'file'} under {self.folder}"
            raise ImageFault(name, cause, "check --images, or fetch the images")
        return found

    def explain(self, name: str) -> str:
        """Return why a path is no file here, with what is there instead if that helps."""
        shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"
        if _WEB.match(name):
            return f"{shown} is an address, not a file: fetch it and name the file"
        why = f"no {shown} under {self.folder}"
        parts = _split(_plain(name))
        if not parts:
            return why
        if not _is_one(name):
            return f"{shown} is two files: one whose name has the % signs, and one that they stand for"
        if is_foreign(name) and (exact := self._find_exact(name)) is not None:
            return f"{why}: it leads to {exact}, outside of that folder (name one that holds all images)"
        if is_foreign(name) and self._find_end(name) is not None:
            return f"{why}: another path of the set ends in the same file"
        if len(parts) > 1 and os.path.isfile(self.folder / parts[-1]):
            return f"{why} ({parts[-1]} is, but may be another's: name the folder that {parts[0]} lies in)"
        names = _list_names(self.folder.joinpath(*parts[:-1]))
        if parts[-1] in names:
            return f"{why} (it is there, but is no file)"
        other = [found for found in names if _fold(found) == _fold(parts[-1])]
        how = "capitals" if other and other[0].lower() == parts[-1].lower() else "blanks or % signs"
        return f"{why} ({other[0]} is there: names differ in {how})" if other else why

    def relative(self, path: Path) -> str:
        """Return `path` relative to the folder, with slashes; in full if it lies elsewhere."""
        full, folder = (Path(os.path.abspath(given)) for given in (path, self.folder))
        return full.relative_to(folder).as_posix() if full.is_relative_to(folder) else full.as_posix()


def _fold(name: str) -> str:
    return " ".join(unquote(name).lower().split())


def _normalize(parts: tuple[str, ...], form: str) -> tuple[str, ...]:
    # Archives made on a Mac hold "é" as two characters, and most annotations as one.
    return tuple(unicodedata.normalize(form, part) for part in parts)  # type: ignore[arg-type]


@lru_cache(maxsize=256)
def _list_names(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(os.listdir(folder)))
    except (OSError, ValueError):  # ValueError: a path with a null character
        return ()


class Stored(NamedTuple):
    """An image as its file stores it: width and height there, and the EXIF orientation it is shown in (1: as it is)."""

    size_wh: SizeWH
    orientation: int

    @property
    def upright_wh(self) -> SizeWH:
        """Width and height of the picture as it is shown."""
        width, height = self.size_wh
        return (height, width) if self.orientation in _SIDEWAYS else (width, height)


def image_size(path: str | os.PathLike[str]) -> SizeWH:
    """Return width and height of an image as it is shown upright, from its header.

    Boxes in pixels were drawn on the upright picture, so a photograph lying on its side (EXIF orientation)
    counts with its sides exchanged, as `univg.pictures.images.open_picture` will open it. `ImageFault` if the file is
    missing or no image.
    """
    return stored_size(path).upright_wh


def stored_size(path: str | os.PathLike[str]) -> Stored:
    """Return the same as the file stores it, with its orientation."""
    return _read_header(os.fspath(path))


@lru_cache(maxsize=65536)
def _read_header(path: str) -> Stored:
    Image.init()
    try:
        with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            turned = image.getexif().get(_ORIENTATION)
            return Stored(image.size, turned if turned in range(2, 9) and isinstance(turned, int) else 1)
    except FileNotFoundError as error:
        raise ImageFault(path, "no such file", "check --images, or fetch the image") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageFault(path, "no image that can be read", "export or download it again") from error
