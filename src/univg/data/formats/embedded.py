"""Write the pictures that rows hold (`{"bytes": …, "path": …}`, as `datasets` keeps them) to files."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from univg.data.formats.faults import Unusable
from univg.data.formats.fields import Row
from univg.data.formats.records import Source
from univg.data.formats.rows import Rows
from univg.files import write_whole

__all__ = ["EMBEDDED", "place_embedded", "unpack_rows"]

EMBEDDED = "embedded"
"""The folder under the image root that images out of rows are written to."""


def unpack_rows(source: Source, rows: Rows) -> Rows:
    """Yield rows whose `image` or `images` name files, where they held pictures."""
    for position, row in rows:
        yield position, row if isinstance(row, Unusable) else _unpack(source, row, position)


def _unpack(source: Source, row: Row, position: str) -> Row | Unusable:
    for field in ("image", "images") if isinstance(row, Mapping) else ():
        value = row.get(field)
        values = value if isinstance(value, list) else [value]
        if any(isinstance(one, Mapping) for one in values):
            try:
                names = [_name_one(source, one, f"{position}-{k}") for k, one in enumerate(values)]
            except Unusable as fault:
                return fault
            row = {**row, field: names if isinstance(value, list) else names[0]}
    return row


def _name_one(source: Source, value: Any, name: str) -> Any:
    if not isinstance(value, Mapping) or not isinstance(value.get("bytes"), bytes):
        return value
    path = value.get("path")
    if isinstance(path, str) and path and (source.images is None or source.images.find(path) is not None):
        return path
    return place_embedded(source, value["bytes"], path if isinstance(path, str) and path else name)


def place_embedded(source: Source, raw: bytes, name: str) -> str:
    """Return the path of a picture out of a row, under the image root: of the same one that is there, else written."""
    if source.images is None:
        fix = "name with --images a folder to write it to"
        raise Unusable("missing_image", "the image is embedded in the row", fix)
    name = _make_name(name)
    there = source.images.find(name)
    if there is not None and _holds(there, raw):
        return name
    return _extract(source, source.images.folder, raw, name)


def _make_name(value: Any) -> str:
    """Make a file name of what a row says, without folders: it must not lead out of the image root."""
    name = "".join(c if c.isalnum() or c in "._-" else "_" for c in os.path.basename(str(value)))
    return name.lstrip(".") or "image"


def _extract(source: Source, root: Path, raw: bytes, name: str) -> str:
    try:
        with Image.open(io.BytesIO(raw)) as image:
            kind = (image.format or "png").lower()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        raise Unusable("bad_image", "the embedded image cannot be decoded") from None
    if not Path(name).suffix:
        name += {"jpeg": ".jpg"}.get(kind, f".{kind}")
    path = root / EMBEDDED / name
    if path.exists() and not _holds(path, raw):  # of another row, called the same
        name = f"{path.stem}-{hashlib.sha256(raw).hexdigest()[:12]}{path.suffix}"
        path = path.with_name(name)
    if not path.exists():
        write_whole(path, raw)
    source.note(f"images embedded in rows were written to {path.parent}")
    return f"{EMBEDDED}/{name}"


def _holds(path: Path, raw: bytes) -> bool:
    return path.stat().st_size == len(raw) and path.read_bytes() == raw
