"""Read MIG-Bench: `MIG_data.json` as published, and the paper's revised file.

A list of records `task`, `images`, `question`, `answer` (x1 y1 x2 y2, 0-1; in the revised file 0-1000),
`additional_info`, `need_format`. Records have no id; the benchmark speaks of them by their place in their task,
from 0, and so do we: `mig_bench#common_object/7`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from univg.data.formats.conversations import find_named_image
from univg.data.formats.fields import Row, get_box, get_images, get_question, get_text
from univg.data.formats.records import Source, make_samples
from univg.data.formats.rows import Rows, read_rows
from univg.data.formats.scale import apply_scale, detect_scale
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
    """Yield the benchmark's samples, in the file's order; the scale of the answers is detected and noted.

    Inverted and outlying ground truth is kept as it stands: it is part of the published benchmark. The target
    image is what the question (or, for group grounding, the gold sentence) names; else it stays unknown.
    """
    scale = detect_scale(source, "answer")

    def convert(row: Row, record: str) -> Iterable[GroundingSample]:
        task, question, images = (
            get_text(row, "task"),
            get_question(row, "question"),
            get_images(row, "images"),
        )
        info, position = row.get("additional_info") or "", str(row["position"])
        sentence, boxed = _BOX_TEXT.subn("", info if isinstance(info, str) else "")
        yield GroundingSample(
            images,
            question,
            task,
            (apply_scale(get_box(row, "answer"), scale),),
            find_named_image(len(images), question, sentence if boxed else ""),
            source=record,
            extra={
                "position": int(position) if position.isdigit() else position,
                "additional_info": info,
                "need_format": row.get("need_format"),
            },
        )

    yield from make_samples(
        source, "mig_bench", _number_in_tasks(read_rows(source.path)), convert, id_fields=()
    )


def _number_in_tasks(rows: Rows) -> Rows:
    seen: Counter[str] = Counter()
    for position, row in rows:
        task = row.get("task") if isinstance(row, dict) else None
        if isinstance(row, dict) and isinstance(task, str):
            yield f"{task}/{seen[task]}", {**row, "position": position}
            seen[task] += 1
        else:
            yield position, row
