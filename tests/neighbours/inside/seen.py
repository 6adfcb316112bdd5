"""What a neighbour's own preprocessing made of a row, told as JSON: run inside the neighbour's environment.

The pictures are put together again from the patches that the model would be given, so that what is compared is what
it sees: their sizes, and where in them something red lies.
"""

from __future__ import annotations

import json
import sys
from typing import Any

__all__ = ["describe", "put_together", "tell"]

IGNORED = -100
_TOLD = "SEEN "


def describe(tokens: list[int], taught: list[int], pixels: Any, grids: Any, processor: Any) -> dict[str, Any]:
    """Describe one row: the decoded `tokens`, what of the labels `taught` counts, and each picture.

    `pixels`: patches of all pictures; `grids`: (frames, rows, columns) of patches of each.
    """
    tokenizer = processor.tokenizer
    text = tokenizer.decode(tokens, skip_special_tokens=False)
    pad = "<|image_pad|>"
    return {
        "image_tokens": text.count(pad),
        "text": text.replace(pad, ""),
        "taught": tokenizer.decode([one for one in taught if one != IGNORED], skip_special_tokens=False),
        "pictures": [_find_red(one) for one in put_together(pixels, grids, processor.image_processor)],
    }


def put_together(pixels: Any, grids: Any, image_processor: Any) -> list[Any]:
    """Return each picture as an array [height, width, 3] of 0-1 from the patches of all, as transformers cut them."""
    import numpy as np

    size, merge = image_processor.patch_size, image_processor.merge_size
    patches = pixels.float().numpy() if hasattr(pixels, "float") else np.asarray(pixels)
    mean, std = np.asarray(image_processor.image_mean), np.asarray(image_processor.image_std)
    pictures, start = [], 0
    for frames, rows, columns in [[int(one) for one in grid] for grid in grids]:
        count = frames * rows * columns
        # [rows/merge, columns/merge, merge, merge, channel, time, y, x]: the merged ones lie together
        cut = patches[start : start + count].reshape(
            rows // merge, columns // merge, merge, merge, 3, -1, size, size
        )
        whole = cut[:, :, :, :, :, 0].transpose(0, 2, 5, 1, 3, 6, 4).reshape(rows * size, columns * size, 3)
        pictures.append(whole * std + mean)
        start += count
    assert start == len(patches), f"{len(patches)} patches, {start} in the grids"
    return pictures


def _find_red(picture: Any) -> dict[str, Any]:
    """Return a picture's width and height, and the box of what is red in it: pixels, None where nothing is."""
    import numpy as np

    rows, columns = np.nonzero(picture[:, :, 0] - picture[:, :, 1] > 0.5)
    box = (
        [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
        if len(rows)
        else None
    )
    return {"size": [picture.shape[1], picture.shape[0]], "red": box}


def tell(**found: Any) -> None:
    """Print what was found where the test finds it, among whatever the neighbour prints."""
    sys.stdout.flush()
    print(f"\n{_TOLD}{json.dumps(found)}", flush=True)
