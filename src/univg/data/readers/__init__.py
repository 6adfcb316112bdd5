"""Read published files and folders: a file in, samples out.

    from univg.data.readers import read

    for sample in read("MIG_data.json", images="MIG-Bench", on_fault=print):
        ...

`READERS` names every format. Without a name the format is found out by the fields of the file's first record, never
by the spelling of a path.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from univg.data.detection import DETECTION, asking, asking_sets
from univg.data.detection.label_studio import is_label_studio
from univg.data.formats.faults import FAULTS, RecordFault, Unusable
from univg.data.formats.fields import name_kind
from univg.data.formats.image_root import ImageRoot
from univg.data.formats.records import Source
from univg.data.formats.rows import read_rows
from univg.data.readers.answers import read_answers
from univg.data.readers.finding import find_format
from univg.data.readers.frameworks import read_easyr1, read_trl, read_univg, read_verl
from univg.data.readers.grefcoco import read_grefcoco
from univg.data.readers.llmseg import read_llmseg, read_llmseg_raw
from univg.data.readers.mc_bench import read_mc_bench
from univg.data.readers.mgrounding import read_mgrounding, read_mgrounding_text
from univg.data.readers.mig_bench import read_mig_bench
from univg.data.readers.ms_swift import read_ms_swift
from univg.data.readers.qwen import (
    detect_conversations,
    read_llava,
    read_qwen,
    read_qwen_permille,
    read_qwen_pixels,
)
from univg.data.readers.reasonseg import read_lisa, read_reasonseg_raw
from univg.data.readers.refcoco import read_lmms_rows, read_vlm_r1, read_vlm_r1_lines
from univg.data.readers.referring import read_groundingme, read_openref, read_ref_l4, read_refcoco_m
from univg.data.readers.univg_r1 import read_cotsft, read_rl
from univg.data.readers.video import read_reasonvos, read_reasonvos_raw, read_revos, read_revos_raw
from univg.errors import UnivgError, offer
from univg.files import check_exists
from univg.grounding.samples import GroundingSample

__all__ = ["FAULTS", "READERS", "ImageRoot", "Reader", "RecordFault", "Source", "detect", "read"]


@dataclass(frozen=True)
class Reader:
    """A format: what it is, the generator that reads it, and the fields its records have.

    - `fields`: the fields of its first record; `without`: fields it does not have; separated by blanks. A format
      without `fields` is found out otherwise (`detect`), or must be named.
    - `needs_images`: whether its boxes are in pixels, so that images' sizes decide.
    - `completes`: whether its answers can be taken for sets where somebody knows that they are (`complete` of `read`).
    """

    title: str
    read: Callable[[Source], Iterator[GroundingSample]]
    fields: str = ""
    without: str = ""
    needs_images: bool = False
    completes: bool = False

    def fits(self, row: dict[str, Any]) -> bool:
        """Tell whether a record has the fields of this format."""
        there = {name for name, value in row.items() if value is not None}
        return (
            bool(self.fields)
            and there.issuperset(self.fields.split())
            and there.isdisjoint(self.without.split())
        )


def _in_pixels(
    title: str, read: Callable[[Source], Iterator[GroundingSample]], fields: str, completes: bool = False
) -> Reader:
    return Reader(title, read, fields, needs_images=True, completes=completes)


def _of_objects(title: str, name: str) -> Reader:
    return Reader(title, asking(DETECTION[name]), completes=True)


READERS: dict[str, Reader] = {
    "univg": Reader("univg's own samples (JSONL)", read_univg, "images query task", without="boxes_unit"),
    "mig_bench": Reader(
        "MIG-Bench, public or revised", read_mig_bench, "task images question answer need_format"
    ),
    "mgrounding": Reader("MGrounding-630k", read_mgrounding, "images conversations type", completes=True),
    "mgrounding_text": Reader("MGrounding-630k, box in and text out", read_mgrounding_text),
    "cotsft": Reader(
        "UniVG-R1 stage 1, ShareGPT, LLaMA-Factory",
        read_cotsft,
        "images conversations",
        without="type",
        completes=True,
    ),
    "cotsft_messages": Reader(
        "the same, as messages of role and content",
        read_cotsft,
        "images messages",
        without="objects",
        completes=True,
    ),
    "ms_swift": Reader("ms-swift, boxes in `objects`", read_ms_swift, "objects", completes=True),
    "llava": Reader("LLaVA, boxes in the text of its conversations", read_llava, completes=True),
    "qwen": Reader("Qwen-VL's own fine-tuning JSON, or chat messages", read_qwen, completes=True),
    "qwen_pixels": Reader(
        "the same, boxes in pixels (Qwen2.5-VL)", read_qwen_pixels, needs_images=True, completes=True
    ),
    "qwen_permille": Reader(
        "the same, boxes 0-1000 (Qwen2-VL, Qwen3-VL)", read_qwen_permille, completes=True
    ),
    "rl": Reader("UniVG-R1 stage 2", read_rl, "question answer images", without="need_format"),
    "vlm_r1": _in_pixels("RefCOCO/+/g as VLM-R1 JSON", read_vlm_r1, "image problem solution"),
    "vlm_r1_lines": _in_pixels("RefCOCO/+/g as VLM-R1 JSONL", read_vlm_r1_lines, "image conversations"),
    "refcoco": _in_pixels("RefCOCO/+/g as lmms-eval rows", read_lmms_rows, "image answer bbox"),
    "grefcoco": _in_pixels("gRefCOCO, grefs(unc).json", read_grefcoco, "ref_id ann_id image_id sentences"),
    "mc_bench": Reader("MC-Bench, texts of several images", read_mc_bench, needs_images=True),
    "ref_l4": _in_pixels("Ref-L4, rows", read_ref_l4, "caption bbox file_name ori_category_id"),
    "refcoco_m": _in_pixels("RefCOCO-M, rows", read_refcoco_m, "image samples file_name"),
    "groundingme": _in_pixels("GroundingME, rows", read_groundingme, "description image bbox subtask_l1"),
    "openref": Reader("OpenRef", read_openref, "image relation_type proposal positive"),
    "lisa": _in_pixels(
        "ReasonSeg, prepared (lisa_val, lisa_test)", read_lisa, "image_path instruction boxes", completes=True
    ),
    "reasonseg_raw": _in_pixels(
        "ReasonSeg, raw polygons (a folder)", read_reasonseg_raw, "text shapes", completes=True
    ),
    "llmseg": _in_pixels("LLM-Seg40K, prepared", read_llmseg, "image_path question bbox", completes=True),
    "llmseg_raw": Reader("LLM-Seg40K, raw masks", read_llmseg_raw, completes=True),
    "reasonvos": _in_pixels("ReasonVOS, prepared", read_reasonvos, "image_list question bbox_list"),
    "reasonvos_raw": Reader("ReasonVOS, raw mask images", read_reasonvos_raw),
    "revos": _in_pixels("ReVOS, prepared", read_revos, "video_id frames question bbox_list"),
    "revos_raw": Reader("ReVOS, raw masks", read_revos_raw),
    "coco": _of_objects("any COCO detection JSON", "coco"),
    "coco_detection": Reader("COCO, every object of a category as a set", asking_sets(DETECTION["coco"])),
    "voc": _of_objects("any Pascal VOC folder", "voc"),
    "yolo": _of_objects("any YOLO folder (or its data.yaml)", "yolo"),
    "csv": _of_objects("any table of boxes (CSV, TSV)", "csv"),
    "open_images": _of_objects("Open Images' table of boxes", "open_images"),
    "label_studio": _of_objects("Label Studio, JSON or JSON-MIN", "label_studio"),
    "labelme": _of_objects("labelme or X-AnyLabeling, a folder", "labelme"),
    "cvat": _of_objects("CVAT XML, for images or for video", "cvat"),
    "trl": Reader("what convert --to trl wrote", read_trl, "prompt images solution", completes=True),
    "verl": Reader("what convert --to verl wrote", read_verl, "prompt images reward_model", completes=True),
    "easyr1": Reader("what convert --to easyr1 wrote", read_easyr1, "problem answer images", completes=True),
    "answers": Reader(
        "rows of univg evaluate: a model's boxes", read_answers, "images query task boxes_unit"
    ),
}
"""Every format that can be read, by name."""


def read(
    path: str | os.PathLike[str],
    reader: str | None = None,
    images: str | os.PathLike[str] | None = None,
    on_fault: Callable[[RecordFault], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    complete: bool = False,
) -> Iterator[GroundingSample]:
    """Yield the samples of a published file or folder, streamed.

    - `reader`: a key of `READERS`; None finds out (`detect`).
    - `images`: the folder the images lie under; sets whose boxes are in pixels need it.
    - `on_fault`: takes what is wrong with single records; without it, the first is raised.
    - `on_note`: takes what was found out about the whole file, such as the scale of its boxes.
    - `complete`: whether answers hold all that is asked for, so that they are sets; of conversations where the question
      asks for all.

    Raises `UnivgError` for a file that cannot be read, at the record where that shows; samples before it have been
    yielded.
    """
    source = Source.of(path, images, on_fault, on_note, complete)
    name = reader or detect(path)
    if name not in READERS:
        raise UnivgError("no such format", name, offer(name, READERS))
    if complete and not READERS[name].completes:
        able = ", ".join(key for key, one in READERS.items() if one.completes)
        raise UnivgError(
            f"answers of {name} cannot be taken for sets", path, f"leave it out; it is for {able}"
        )
    check_exists(path)
    if images is not None and not Path(images).is_dir():
        raise UnivgError("no such folder", images, "name the folder of the images")
    try:
        yield from READERS[name].read(source)
    except OSError as error:
        raise UnivgError(f"cannot be read ({error.strerror or error})", path, "check the file") from error


def detect(path: str | os.PathLike[str]) -> str:
    """Return the format of a file or folder; `UnivgError` if none, or several, fit.

    What is no list of records shows by itself what it is (`find_format`), rows by the fields of the first record.
    """
    path = Path(path)
    check_exists(path)
    kind = find_format(path)
    if kind is not None:
        return kind
    first, why = None, ""
    for _, row in islice(read_rows(path), _LOOKED_AT):
        if not isinstance(row, dict):
            why = why or (row.cause if isinstance(row, Unusable) else f"a record is {name_kind(row)}")
            continue
        first = first or row
        if (kind := _detect_by_fields(path, row)) is not None:
            return kind
    if first is None:
        raise UnivgError(f"no record with fields ({why or 'it is empty'})", path, "give a published file")
    fields = ", ".join(sorted(map(str, first)))
    raise UnivgError(
        f"no known format{_name_nearest(first)}",
        f"{path}, whose first record has the fields {fields}",
        "name one with --format, or write univg's own: images, query, task, boxes",
    )


_LOOKED_AT = 20
"""Records, of which the first that fits a format decides: the very first may lack a field."""


def _detect_by_fields(path: Path, row: dict[str, Any]) -> str | None:
    if is_label_studio(row):
        return "label_studio"
    if (kind := detect_conversations(path, row)) is not None:
        return kind
    fitting = [name for name, reader in READERS.items() if reader.fits(row)]
    if len(fitting) > 1:
        cause = f"several formats fit ({', '.join(fitting)})"
        raise UnivgError(
            cause, f"{path}, with the fields {', '.join(map(str, row))}", "name one with --format"
        )
    return fitting[0] if fitting else None


def _name_nearest(row: dict[str, Any]) -> str:
    """Say which format it would be with one field more, as one forgets the task of one's own samples."""
    for name, reader in READERS.items():
        missing = set(reader.fields.split()) - {key for key, value in row.items() if value is not None}
        if len(missing) == 1 and len(reader.fields.split()) > 2:
            return f" ({name} also needs {missing.pop()!r})"
    return ""
