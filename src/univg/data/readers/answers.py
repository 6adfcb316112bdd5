"""Read the rows of an evaluation as samples whose boxes are the model's own, to be looked at or corrected."""

from __future__ import annotations

from collections.abc import Iterable

from univg.data.formats.faults import RecordFault, report
from univg.data.formats.fields import Row, get_images, get_list, get_question, get_text, read_box
from univg.data.formats.records import Source, reads
from univg.grounding.samples import GroundingSample

__all__ = ["read_answers"]


@reads("answers", id_fields=("key",))
def read_answers(source: Source, row: Row, record: str) -> Iterable[GroundingSample]:
    """Yield a sample for each row of `rows-*.jsonl`; one that was answered without a box has none.

    Of several boxes the first is kept, which was scored: on which image the others lie, a row does not say. Of an
    answer that is a set, all are, on their images, or that it says that nothing fits.
    """
    boxes = [read_box(box, "'boxes_unit'") for box in get_list(row, "boxes_unit")]
    name = str(row.get("source") or record)
    complete = row.get("complete") is True and bool(boxes or row.get("refused"))
    if len(boxes) > 1 and not complete:
        cause = f"{len(boxes) - 1} further boxes are left out: the row does not say on which image they lie"
        report(
            RecordFault(name, "no_target_image", cause, "see them in the report", usable=True),
            source.on_fault,
        )
    extra = {"text": row.get("text"), "model_version": str(row.get("fingerprint") or "univg")}
    if isinstance(row.get("confidence"), (int, float)):
        extra["score"] = row["confidence"]
    images, target = get_images(row, "images"), row.get("image_index") if boxes else None
    query, task = get_question(row, "query"), get_text(row, "task")
    if complete:
        on = tuple(get_list(row, "box_images"))
        yield GroundingSample(
            images, query, task, tuple(boxes), source=name, complete=True, box_images=on, extra=extra
        )
        return
    yield GroundingSample(images, query, task, tuple(boxes[:1]), target, source=name, extra=extra)
