"""Read back what is to be taught, before the first step: tokens, prompt style and coordinates must fit each other."""

from __future__ import annotations

from dataclasses import replace

from univg.errors import UnivgError
from univg.grounding.boxes import clip_unit, iou
from univg.grounding.reading import Asked, read
from univg.grounding.samples import GroundingSample
from univg.grounding.scoring import score
from univg.grounding.sets import match_sets
from univg.training.run.rows import StageRows
from univg.training.run.written import as_written

__all__ = ["check_lessons"]

CHECKED = 16


def check_lessons(rows: StageRows) -> str:
    """Read the first responses of each source as if the model had written them, through its tokens; return a line.

    Of an answer that is a set all boxes must come back, each on its image, or that there is none. Raises UnivgError
    naming the sample whose answer does not, or not in the form asked for.
    """
    found: list[float] = []
    tokenizer = rows.processor.tokenizer
    for row in rows.preview(CHECKED):
        text = tokenizer.decode(tokenizer.encode(row.response))
        sizes = [rows.seen_wh(image) for image in row.images]
        asked = replace(Asked.of(row.sample, row.style, rows.frame), style=row.style)
        reading = read(text, asked, sizes)
        truth = as_written(row.sample, sizes if rows.frame == "pixel" else ())
        again = score(truth, reading).iou
        if again < 1 - 1e-9 or not reading.format_ok:
            raise UnivgError(
                f"oracle: what is taught reads back with IoU {again:.3f}, fault {reading.fault}, for sample "
                f"{row.sample.name}",
                repr(text[-120:]),
                "look at its boxes; or tokenizer, prompt style and coordinates do not fit each other",
            )
        found.append(_measure_rounding(row.sample, truth))
    if not found:
        cause = f"none of the first {CHECKED} samples of any source can be used"
        raise UnivgError(f"data: {cause}", remedy="check their images (univg data validate) and max_tokens")
    return f"oracle: what is taught reads back on {len(found)} samples (rounding leaves at least {min(found):.3f})"


def _measure_rounding(sample: GroundingSample, written: GroundingSample) -> float:
    """Return what rounding leaves of a perfect answer: its IoU with the truth, of a set its soft-F1."""
    if not sample.complete:
        return iou(clip_unit(sample.boxes[0])[0], written.boxes[0])
    clipped = [(on, clip_unit(box)[0]) for on, box in sample.targets]
    return match_sets(written.targets, clipped).soft_f1
