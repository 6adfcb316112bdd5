"""Open data files however they are stored, and say of what is no data what it is.

Plain, gzip, bzip2 or xz; UTF-8 or UTF-16 or UTF-32, told by their marks or by the zeros between the letters of JSON.
People also bring what a download left in a file's place: a page of HTML, a Git LFS pointer, an archive.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from univg.errors import UnivgError

__all__ = ["PACKED_SUFFIXES", "Opened", "opening", "read_text", "tell_encoding"]

_HEAD = 1 << 12
_PACKED: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
PACKED_SUFFIXES = (".gz", ".bz2", ".xz")
_MARKS = {  # the longer first: UTF-32's begins with UTF-16's
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
    b"\xef\xbb\xbf": "utf-8-sig",
}
_UNMARKED = (
    ("utf-32-le", b"[\0\0\0"),
    ("utf-32-le", b"{\0\0\0"),
    ("utf-16-le", b"[\0"),
    ("utf-16-le", b"{\0"),
)
_LFS = b"version https://git-lfs.github.com/spec/"
_ARCHIVES = {
    b"PK\x03\x04": "a zip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
}
_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF")
_PYTHON = re.compile(rb"[\[({\s]*[\[({]\s*'")


@dataclass(frozen=True)
class Opened:
    """A file's bytes without packing, from the first on; the text's `encoding`; the first bytes as ASCII would be."""

    file: IO[bytes]
    encoding: str
    head: bytes

    def lines(self, longest: int = -1) -> Iterator[bytes]:
        """Yield the lines in UTF-8, those over `longest` in pieces, without a byte-order mark.

        Whether the lines of a file in UTF-8 are UTF-8 is not checked.
        """
        if not self.encoding.startswith("utf-8"):
            with io.TextIOWrapper(self.file, self.encoding, newline="\n") as text:
                while letters := text.readline(longest):
                    yield letters.encode("utf-8", "surrogatepass")
            return
        first = True
        while line := self.file.readline(longest):
            yield line.removeprefix(b"\xef\xbb\xbf") if first else line
            first = False


@contextmanager
def opening(path: Path) -> Iterator[Opened]:
    """Open a file for reading. Raises `UnivgError` for one that is not there, not to be read, or plainly no data."""
    try:
        with path.open("rb") as raw:
            magic = raw.read(8)
            raw.seek(0)
            unpack = next((how for start, how in _PACKED.items() if magic.startswith(start)), None)
            file = raw if unpack is None else unpack(raw)
            head = file.read(_HEAD)
            file.seek(0)
            encoding = _find_encoding(head)
            plain = head if encoding.startswith("utf-8") else head.replace(b"\0", b"")
            _refuse(
                path, plain.removeprefix(b"\xef\xbb\xbf").removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff")
            )
            yield Opened(file, encoding, head)
    except FileNotFoundError:
        raise UnivgError("no such file", path, "check the path") from None
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        cause = f"packed, and damaged or cut short ({error})"
        raise UnivgError(cause, path, "download or copy it again") from None
    except UnicodeDecodeError as error:
        raise UnivgError(f"not {error.encoding} ({error.reason})", path, "save the file as UTF-8") from None
    except OSError as error:
        raise UnivgError(
            f"cannot be read ({error.strerror or error})", path, "check its permissions"
        ) from None


def _find_encoding(head: bytes) -> str:
    marked = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
    if marked is not None:
        return marked
    for name, start in _UNMARKED:
        if head.startswith(start):
            return name
        if head.startswith(start[::-1]):
            return name.replace("le", "be")
    return "utf-8"


def _refuse(path: Path, head: bytes) -> None:
    """Raise `UnivgError` if a file's first bytes show that it is something else than data."""
    start = head.lstrip()[:200].lower()
    if head.startswith(_LFS):
        raise UnivgError("a Git LFS pointer, not the file itself", path, "git lfs pull, or download the file")
    if start.startswith((b"<!doctype html", b"<html")):
        raise UnivgError(
            "a web page (HTML), not data: an error or login page was saved in the file's place",
            path,
            "download the file again",
        )
    archive = next((name for magic, name in _ARCHIVES.items() if head.startswith(magic)), None)
    archive = "a tar archive" if head[257:262] == b"ustar" else archive
    if archive is not None:
        raise UnivgError(archive, path, "unpack it first, and name the file in it")
    if head.startswith(_PICTURES):
        raise UnivgError(
            "a picture, not data", path, "give the annotation file, and the pictures with --images"
        )
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05" and len(head) > 1:
        raise UnivgError("a Python pickle, which could run code", path, "save it as JSON")
    if _PYTHON.match(head):
        cause = "written as Python does, with single quotes: not JSON"
        raise UnivgError(cause, path, "write it with json.dump")


def read_text(path: Path) -> str:
    """Return the whole text of a small file."""
    with opening(path) as data:
        return data.file.read().decode(data.encoding)


def tell_encoding(error: UnicodeDecodeError, path: object) -> tuple[str, str]:
    """Return what is wrong with text that is not in the encoding it should be, and what to do about it."""
    raw = bytes(error.object[error.start : error.start + 400])
    letters = re.match(rb"[\x80-\xff]+", raw)
    likely = "CP1252"
    try:
        if letters is not None and len(letters[0]) > 1:
            letters[0][: len(letters[0]) // 2 * 2].decode("gb2312")
            likely = "GB18030"
    except UnicodeDecodeError:
        pass
    name = Path(str(path)).name
    named = {"GB18030": "GBK", "CP1252": "Windows-1252"}[likely]
    cause = f"not {error.encoding.upper()} ({error.reason}); perhaps {named}"
    return cause, f"convert it: iconv -f {likely} -t UTF-8 {name} > utf8-{name}"
