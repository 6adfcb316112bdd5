"""Write samples in the formats of other frameworks and tools: `export(samples, "yolo", folder, Export(…))`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from univg.data.exports.detection import write_coco, write_yolo
from univg.data.exports.fiftyone import write_fiftyone
from univg.data.exports.frameworks import (
    write_easyr1,
    write_llamafactory,
    write_samples,
    write_sharegpt,
    write_trl,
    write_verl,
)
from univg.data.exports.label_studio import write_label_studio
from univg.data.exports.ms_swift import write_ms_swift
from univg.data.exports.pictures import turn_upright
from univg.data.exports.settings import Export, Writer
from univg.data.formats.faults import Unusable
from univg.data.formats.fields import shorten
from univg.errors import UnivgError, offer
from univg.grounding.samples import GroundingSample

__all__ = ["EXPORTS", "PICTURED", "SUFFIXES", "Export", "export"]

EXPORTS: dict[str, Writer] = {
    "jsonl": write_samples,
    "sharegpt": write_sharegpt,
    "llamafactory": write_llamafactory,
    "trl": write_trl,
    "verl": write_verl,
    "easyr1": write_easyr1,
    "ms_swift": write_ms_swift,
    "yolo": write_yolo,
    "coco": write_coco,
    "label_studio": write_label_studio,
    "fiftyone": write_fiftyone,
}
"""The formats that samples can be written in."""

SUFFIXES: dict[str, str] = {
    "jsonl": ".jsonl",
    "sharegpt": ".json",
    "llamafactory": ".json",
    "trl": ".jsonl",
    "verl": ".parquet",
    "easyr1": ".parquet",
    "ms_swift": ".jsonl",
    "yolo": "",
    "coco": ".json",
    "label_studio": ".json",
    "fiftyone": "",
}
"""How a file of each format is named, by which programs know it; "" for a folder. COCO may be either."""

_AS_STORED = ("sharegpt", "llamafactory", "verl", "easyr1", "ms_swift")
"""Formats that name pictures for frameworks which pass over EXIF: they get upright copies in `<file>-upright`."""

_ESCAPED = ("jsonl", "sharegpt", "llamafactory", "trl", "ms_swift")
"""Formats that hold any text, even one that is not Unicode."""

PICTURED = ("ms_swift", "yolo", "coco", "label_studio", "fiftyone")
"""Formats whose boxes are measured on the pictures, or that hold them."""


def export(samples: Iterable[GroundingSample], to: str, out: str | os.PathLike[str], how: Export) -> int:
    """Write `samples` to the file or folder `out` in the format `to` (a key of `EXPORTS`); return how many.

    What appears is complete or not there at all. A sample that the format cannot hold, such as one without a
    thought where thoughts are to be taught, is a fault. `UnivgError` if pyarrow is missing for Parquet, and for a
    folder that is not empty.
    """
    if to not in EXPORTS:
        raise UnivgError("no such format", to, offer(to, EXPORTS))
    placed = _place_images(samples, how)
    if to not in _ESCAPED:
        placed = _keep_texts(placed, how, classes_only=to == "yolo")
    path = Path(out)
    if to in _AS_STORED:
        placed = turn_upright(placed, path.with_name(f"{path.stem}-upright"), how)
    return EXPORTS[to](path, placed, how)


def _keep_texts(
    samples: Iterable[GroundingSample], how: Export, classes_only: bool
) -> Iterator[GroundingSample]:
    """Yield the samples whose texts are Unicode; names of files that come from other machines may be none."""
    for sample in samples:
        with how.reporting(sample):
            row = sample.to_json()
            kept = [row["query"], row["extra"]] if classes_only else row
            text = json.dumps(kept, ensure_ascii=False)
            if odd := re.search(r"\S*[\ud800-\udfff]\S*", text):
                cause = f"it holds what is no Unicode, which this format cannot hold: {shorten(odd[0])}"
                raise Unusable("bad_field", cause, "name it anew (convmv -f gbk -t utf-8 renames files)")
            yield sample


def _place_images(samples: Iterable[GroundingSample], how: Export) -> Iterator[GroundingSample]:
    """Yield the samples, with image paths relative to the image root as the files really lie there."""
    for sample in samples:
        if how.images is None:
            yield sample
            continue
        found = {name: how.images.find(name) for name in sample.images}
        missing = next((name for name, path in found.items() if path is None), None)
        with how.reporting(sample):
            if missing is not None:
                raise Unusable("missing_image", f"no {missing} under {how.images.folder}")
            names = [how.images.relative(path) for name in sample.images if (path := found[name]) is not None]
            yield GroundingSample.from_json({**sample.to_json(), "images": names})
