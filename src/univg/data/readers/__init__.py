"""Readers: a published file in, samples out.

    from univg.data.readers import read

    for sample in read("MIG_data.json", images="MIG-Bench", on_fault=print):
        ...

`READERS` names every format. Without a name the format is told by the fields of the file's first record, never
by the spelling of a path.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from univg.data.formats.image_root import ImageRoot
from univg.data.formats.json_stream import JsonFault, read_items
from univg.data.formats.records import FAULTS, ReadError, RecordError, RecordFault, Source
from univg.data.formats.rows import container_of, read_rows
from univg.data.readers.detection import read_coco, read_voc
from univg.data.readers.frameworks import read_easyr1, read_trl, read_univg, read_verl
from univg.data.readers.llmseg import read_llmseg, read_llmseg_raw
from univg.data.readers.mgrounding import read_mgrounding, read_mgrounding_text
from univg.data.readers.mig_bench import read_mig_bench
from univg.data.readers.reasonseg import read_lisa, read_reasonseg_raw
from univg.data.readers.refcoco import read_lmms_rows, read_vlm_r1, read_vlm_r1_lines
from univg.data.readers.univg_r1 import read_cotsft, read_rl
from univg.data.readers.video import read_reasonvos, read_reasonvos_raw, read_revos, read_revos_raw
from univg.grounding.samples import GroundingSample

__all__ = [
    "FAULTS",
    "READERS",
    "ImageRoot",
    "ReadError",
    "Reader",
    "RecordError",
    "RecordFault",
    "Source",
    "detect",
    "read",
]


@dataclass(frozen=True)
class Reader:
    """A format: what it is, the generator that reads it, and the fields its records have.

    - `fields`: the fields of its first record; `without`: fields it does not have. A format without `fields`
      is told otherwise (`detect`), or must be named.
    - `needs_images`: whether its boxes are in pixels, so that images' sizes decide.
    """

    title: str
    read: Callable[[Source], Iterator[GroundingSample]]
    fields: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()
    needs_images: bool = False


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


READERS: dict[str, Reader] = {
    "univg": Reader("univg's own samples (JSONL)", read_univg, _set("images query task")),
    "mig_bench": Reader(
        "MIG-Bench, public or revised", read_mig_bench, _set("task images question answer need_format")
    ),
    "mgrounding": Reader("MGrounding-630k", read_mgrounding, _set("images conversations type")),
    "mgrounding_text": Reader("MGrounding-630k, box in and text out", read_mgrounding_text),
    "cotsft": Reader(
        "UniVG-R1 stage 1, ShareGPT, LLaMA-Factory", read_cotsft, _set("images conversations"), _set("type")
    ),
    "cotsft_messages": Reader(
        "the same, as messages of role and content", read_cotsft, _set("images messages")
    ),
    "rl": Reader("UniVG-R1 stage 2", read_rl, _set("question answer images"), _set("need_format")),
    "vlm_r1": Reader(
        "RefCOCO/+/g as VLM-R1 JSON", read_vlm_r1, _set("image problem solution"), needs_images=True
    ),
    "vlm_r1_lines": Reader(
        "RefCOCO/+/g as VLM-R1 JSONL", read_vlm_r1_lines, _set("image conversations"), needs_images=True
    ),
    "refcoco": Reader(
        "RefCOCO/+/g as lmms-eval rows", read_lmms_rows, _set("image answer bbox"), needs_images=True
    ),
    "lisa": Reader(
        "ReasonSeg, prepared (lisa_val, lisa_test)",
        read_lisa,
        _set("image_path instruction boxes"),
        needs_images=True,
    ),
    "reasonseg_raw": Reader(
        "ReasonSeg, raw polygons (a folder)", read_reasonseg_raw, _set("text shapes"), needs_images=True
    ),
    "llmseg": Reader(
        "LLM-Seg40K, prepared", read_llmseg, _set("image_path question bbox"), needs_images=True
    ),
    "llmseg_raw": Reader("LLM-Seg40K, raw masks", read_llmseg_raw),
    "reasonvos": Reader(
        "ReasonVOS, prepared", read_reasonvos, _set("image_list question bbox_list"), needs_images=True
    ),
    "reasonvos_raw": Reader("ReasonVOS, raw mask images", read_reasonvos_raw),
    "revos": Reader(
        "ReVOS, prepared", read_revos, _set("video_id frames question bbox_list"), needs_images=True
    ),
    "revos_raw": Reader("ReVOS, raw masks", read_revos_raw),
    "coco": Reader("any COCO detection JSON", read_coco),
    "voc": Reader("any Pascal VOC folder", read_voc),
    "trl": Reader("what convert --to trl wrote", read_trl, _set("prompt images solution")),
    "verl": Reader("what convert --to verl wrote", read_verl, _set("prompt images reward_model")),
    "easyr1": Reader("what convert --to easyr1 wrote", read_easyr1, _set("problem answer images")),
}
"""Every format that can be read, by name."""


def read(
    path: str | os.PathLike[str],
    reader: str | None = None,
    images: str | os.PathLike[str] | None = None,
    on_fault: Callable[[RecordFault], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Iterator[GroundingSample]:
    """The samples of a published file or folder, streamed.

    - `reader`: a key of `READERS`; None finds out (`detect`).
    - `images`: the folder the images lie under; sets whose boxes are in pixels need it.
    - `on_fault`: takes what is wrong with single records; without it, the first raises `RecordError`.
    - `on_note`: takes what was found out about the whole file, such as the scale of its boxes.

    Raises `ReadError` (one line: what, where, what to do) for a file that cannot be read, at the record where
    that shows; samples before it have been yielded.
    """
    source = Source.of(path, images, on_fault, on_note)
    name = reader or detect(path)
    if name not in READERS:
        raise ReadError(f"no such format: {name}: choose from {', '.join(READERS)}")
    if not source.path.exists():
        raise ReadError(f"no such file: {path}: check the path")
    if images is not None and not Path(images).is_dir():
        raise ReadError(f"no such folder: {images}: name the folder of the images")
    try:
        yield from READERS[name].read(source)
    except JsonFault as error:
        raise ReadError(str(error)) from error
    except OSError as error:
        raise ReadError(f"cannot be read ({error.strerror or error}): {path}: check the file") from error


def detect(path: str | os.PathLike[str]) -> str:
    """The format of a file, by the fields of its first records; `ReadError` if none, or several, fit.

    A folder is `voc` if XML files are in it, `reasonseg_raw` if JSON files are, else rows of tables.
    """
    path = Path(path)
    if not path.exists():
        raise ReadError(f"no such file: {path}: check the path")
    if path.suffix.lower() == ".xml":
        return "voc"
    try:
        if path.is_dir():
            kind = _detect_folder(path)
            if kind is not None:
                return kind
        elif container_of(path) == "object":
            kind = _detect_object(path)
            if kind is not None:
                return kind
        first = next((row for _, row in read_rows(path) if isinstance(row, dict)), None)
    except JsonFault as error:
        raise ReadError(str(error)) from error
    if first is None:
        raise ReadError(f"no record with fields: {path}: give a published file")
    fitting = [name for name, reader in READERS.items() if _fits(reader, first)]
    if len(fitting) == 1:
        return fitting[0]
    fields = ", ".join(sorted(map(str, first)))
    what = f"several formats fit ({', '.join(fitting)})" if fitting else "no known format"
    raise ReadError(f"{what}: {path}, whose first record has the fields {fields}: name one with --format")


def _fits(reader: Reader, row: dict[str, Any]) -> bool:
    there = {name for name, value in row.items() if value is not None}
    return bool(reader.fields) and reader.fields <= there and not reader.without & there


def _detect_folder(path: Path) -> str | None:
    if next(path.rglob("*.xml"), None) is not None:
        return "voc"
    if next(path.rglob("*.parquet"), None) or next(path.rglob("*.arrow"), None):
        return None
    return "reasonseg_raw" if next(path.rglob("*.json"), None) is not None else None


def _detect_object(path: Path) -> str | None:
    """One JSON object: COCO, LLM-Seg40K, ReasonVOS or ReVOS by what stands in it first."""
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
