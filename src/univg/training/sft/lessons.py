"""Read back what is to be taught, before the first step: tokens, prompt style and coordinates must fit each other."""

from __future__ import annotations

from univg.errors import UnivgError
from univg.grounding.boxes import (
    clip_unit,
    iou,
    permille_to_unit,
    px_to_unit,
    unit_to_permille,
    unit_to_whole_px,
)
from univg.grounding.reading import Asked, read
from univg.training.run.rows import StageRows

__all__ = ["check_lessons"]

CHECKED = 16


def check_lessons(rows: StageRows) -> str:
    """Read the first responses of each source as if the model had written them, through its tokens; return a line.

    Raises UnivgError naming the sample whose box does not come back, or not in the form asked for.
    """
    found: list[float] = []
    tokenizer = rows.processor.tokenizer
    for row in rows.preview(CHECKED):
        text = tokenizer.decode(tokenizer.encode(row.response))
        n, target = len(row.images), row.sample.target_image
        sizes = [rows.seen_wh(image) for image in row.images]
        reading = read(text, Asked(n, row.sample.query, row.style, rows.frame, target), sizes)
        truth, _ = clip_unit(row.sample.boxes[0])
        if rows.frame == "pixel":
            seen_wh = sizes[reading.image_index]
            written = px_to_unit(unit_to_whole_px(truth, seen_wh), seen_wh)
        else:
            written = permille_to_unit(unit_to_permille(truth))
        found.append(iou(truth, written))
        again = 0.0 if reading.box is None else iou(reading.box, written)
        if again < 1 - 1e-9 or not reading.format_ok:
            raise UnivgError(
                f"oracle: what is taught reads back with IoU {again:.3f}, fault {reading.fault}, for sample "
                f"{row.sample.name}",
                repr(text[-120:]),
                "look at its box; or tokenizer, prompt style and coordinates do not fit each other",
            )
    if not found:
        cause = f"none of the first {CHECKED} samples of any source can be used"
        raise UnivgError(f"data: {cause}", remedy="check their images (univg data validate) and max_tokens")
    return f"oracle: what is taught reads back on {len(found)} samples (rounding leaves at least {min(found):.3f})"
