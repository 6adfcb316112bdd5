"""Find the pictures that Label Studio's addresses mean: uploads, its local files, buckets and the web.

Label Studio names an upload `/data/upload/<project>/<8 hexadecimal digits>-<name>`: its exports hold the picture with
the digits, whoever uploaded it has it without. None of these addresses says where a picture lies here, so it is found
by the address's end (:class:`ImageRoot`): of two that would be the same file, neither is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from univg.data.detection.listing import say_lost
from univg.data.formats.faults import Unusable
from univg.data.formats.image_root import ImageRoot
from univg.data.formats.records import Source
from univg.pictures.images import names_picture

__all__ = ["AddressedPictures", "looks_like_picture"]

_UPLOAD = re.compile(r"(?:^|.*/)upload/(.+)")
_PREFIX = re.compile(r"([0-9a-fA-F]{4,32})-(.+)")
_BUCKETS = ("s3", "gs", "gcs", "azure-blob", "azure_blob")


def looks_like_picture(address: str) -> bool:
    """Tell whether a text of a task's data is the address of a picture.

    >>> [looks_like_picture(text) for text in ("s3://b/a.JPG?x=1", "/data/local-files/?d=a.png", "a cat", "a.mp4")]
    [True, True, False, False]
    """
    if address.startswith("data:image") or "\n" in address:
        return "\n" not in address
    return names_picture(_write(address)[0].partition("?")[0])


def _write(address: str) -> list[str]:
    """Return how an address may be written as a path here, the likeliest first; with ".." it is found by its end."""
    text = address.strip()
    if "?d=" in text:
        local = unquote(text.partition("?d=")[2].partition("&")[0]).lstrip("/")
        return [local, f"../{local}"]
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    if scheme in _BUCKETS:
        return [f"../{urlsplit(text.partition('?')[0]).path.lstrip('/')}"]
    if scheme in ("http", "https"):
        text = unquote(urlsplit(text).path)
    upload = (
        _UPLOAD.fullmatch(text.replace("\\", "/")) if text.startswith(("/", "upload/")) or scheme else None
    )
    if upload is None:
        return [f"../{text.lstrip('/')}"] if scheme in ("http", "https") else [text]
    folder, _, name = f"upload/{upload[1]}".rpartition("/")
    prefix = _PREFIX.fullmatch(name)
    # The digits stay a folder: two uploads of one name must stay two paths.
    return [f"../{folder}/{name}", *([f"../{folder}/{prefix[1]}/{prefix[2]}"] if prefix else [])]


def _is_upload(address: str) -> bool:
    return "?d=" not in address


class AddressedPictures:
    """The pictures of all addresses of a file, found together: under the image root, else beside the file."""

    def __init__(self, source: Source, addresses: Iterable[str]) -> None:
        self._source, self._told = source, False
        beside = source.path.parent
        pictures = beside / "images"
        self._root = source.images or ImageRoot(pictures if pictures.is_dir() else beside)
        self._written = {address: _write(address) for address in addresses}
        names = {address: written[0] for address, written in self._written.items()}
        self._expect(names)
        # One way for all of a kind: else a picture that is missing would be found in another's copy.
        found = {
            _is_upload(address)
            for address, written in self._written.items()
            if len(written) > 1 and self._root.find(written[0]) is not None
        }
        for address, written in self._written.items():
            if len(written) > 1 and _is_upload(address) not in found:
                names[address] = written[1]
        self._names = names
        self._expect(names)

    def _expect(self, names: dict[str, str]) -> None:
        listed = list(names.values())
        self._root.expect(lambda: listed)

    def find(self, address: str, n_boxes: int) -> tuple[Path | None, str]:
        """Return the picture of an address, and its name; without an image root the picture may be None."""
        name = self._names[address]
        path = self._root.find(name)
        plain = self._written[address][0].removeprefix("../")
        if path is None and self._source.images is not None:
            raise Unusable("missing_image", self._explain(address) + say_lost(n_boxes))
        if path is not None and name.startswith("../") and not self._told:
            self._told = True
            self._source.note(
                f"images are named by addresses, as {address[:80]}: found by the addresses' ends"
            )
        return path, plain

    def _explain(self, address: str) -> str:
        written = self._written[address]
        if address.startswith("data:"):
            return "the image is embedded in the task, as text: write it to a file and name that"
        causes = [self._root.explain(name).replace("../", "") for name in written]
        shared = next((cause for cause in causes if "another path" in cause), "")
        if shared:
            return shared
        tail = PurePosixPath(written[-1]).name
        also = f", nor {tail}" if len(written) > 1 and tail != PurePosixPath(written[0]).name else ""
        return causes[0] + also
