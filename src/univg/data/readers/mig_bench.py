"""MIG-Bench: `MIG_data.json` as published, and the paper's revised file.

A list of records `task`, `images`, `question`, `answer` (x1 y1 x2 y2, 0-1; in the revised file 0-1000),
`additional_info`, `need_format`. Records have no id; the benchmark speaks of them by their place in their task,
from 0, and so do we: `mig_bench#common_object/7`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from univg.data.formats.records import (
    Row,
    Source,
    Unusable,
    get_four,
    get_images,
    get_question,
    get_text,
    samples_from,
)
from univg.data.formats.rows import read_rows
from univg.data.formats.scale import file_scale, scaled
from univg.grounding.mentions import which_image
from univg.grounding.samples import GroundingSample

__all__ = ["PAPER_COLUMNS", "read_mig_bench"]

PAPER_COLUMNS: dict[str, str] = {
    "diff": "Static",
    "view_diff": "Robust",
    "common_object": "Common",
    "object_tracking": "OT",
    "multi_view": "MV",
    "region": "Region",
    "refer_grounding": "Refer",
    "group_grounding": "GG",
    "reasoning": "Reason",
    "correspondence": "Co-Re",
}
"""The benchmark's tasks, and what the paper's Table 1 calls them."""

_BOX_TEXT = re.compile(r"<\|box_start\|>.*", re.DOTALL)


def read_mig_bench(source: Source) -> Iterator[GroundingSample]:
    """The benchmark's samples, in the file's order; the scale of the answers is detected and noted.

    Inverted and outlying ground truth is kept as it stands: it is part of the published benchmark. The target
    image is what the question (or, for group grounding, the gold sentence) names; else it stays unknown.
    """
    scale = file_scale(source, read_rows(source.path), "answer")
    seen: Counter[str] = Counter()

    def numbered() -> Iterator[tuple[str, Row | Unusable]]:
        for position, row in read_rows(source.path):
            task = row.get("task") if isinstance(row, dict) else None
            if not isinstance(row, dict) or not isinstance(task, str):
                yield position, row
                continue
            yield f"{task}/{seen[task]}", {**row, "position": position}
            seen[task] += 1

    def convert(row: Row, record: str) -> Iterable[GroundingSample]:
        question, images = get_question(row, "question"), get_images(row, "images")
        info = row.get("additional_info") or ""
        yield GroundingSample(
            images=tuple(images),
            query=question,
            task=get_text(row, "task"),
            boxes=(scaled(get_four(row, "answer"), scale),),
            target_image=_target(len(images), question, info if isinstance(info, str) else ""),
            source=record,
            extra={
                "position": int(row["position"]) if str(row["position"]).isdigit() else row["position"],
                "additional_info": info,
                "need_format": row.get("need_format"),
            },
        )

    yield from samples_from(source, "mig_bench", numbered(), convert, id_fields=())


def _target(n_images: int, question: str, info: str) -> int | None:
    sentence, boxed = _BOX_TEXT.subn("", info)
    if boxed:
        image, rule = which_image(n_images, None, "", sentence)
        if rule == "thought":
            return image
    image, rule = which_image(n_images, None, question)
    return image if rule == "question" else None
