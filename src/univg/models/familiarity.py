"""Tell what the embedded model knows, and when it is asked about pictures of another kind. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from univg.models.checkpoint import EMBEDDED

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "DRAWN_SHARE",
    "EMBEDDED_NOTE",
    "PHOTO_MODEL",
    "drawn_share",
    "looks_drawn",
    "note_strange_images",
]

PHOTO_MODEL = "GD-ML/UniVG-R1"
_ADVICE = (
    f"For photographs, add --model {PHOTO_MODEL} (7 billion parameters, a 17 GB download; best on a GPU)"
)
EMBEDDED_NOTE = (
    f"the embedded model knows drawn shapes only: univg's own procedural world, and plain drawings. {_ADVICE}"
)

# A drawing has few colours, a photograph many, noise and JPEG apart. Below this share were none of 238 plain drawings,
# 22 of 674 pictures of the world (which has noise and grounds like photographs'), and 590 of 620 photographs, but 2 of
# the same in grey (benchmarks/familiarity.py).
_COLOURS, DRAWN_SHARE, _SIDE_PX, _NOISE_BITS = 16, 0.6, 256, 3


def note_strange_images(model: str, images: Sequence[Image.Image]) -> tuple[str, ...]:
    """Return a note on the images that do not look like what the embedded model was trained on; none for others.

    >>> from PIL import Image
    >>> noise = Image.merge("RGB", [Image.effect_noise((64, 64), 90) for _ in "rgb"])
    >>> note_strange_images("embedded", [Image.new("RGB", (64, 64)), noise])[0][:51]
    'image 2 does not look like a drawing of simple shap'
    """
    if model not in EMBEDDED:
        return ()
    strange = [str(number) for number, image in enumerate(images, 1) if not looks_drawn(image)]
    if not strange:
        return ()
    which = f"image {strange[0]} does" if len(strange) == 1 else f"images {', '.join(strange)} do"
    return (
        f"{which} not look like a drawing of simple shapes, which is all that the embedded model knows: "
        f"the answer is likely nonsense. {_ADVICE}",
    )


def looks_drawn(image: Image.Image) -> bool:
    """Tell whether an image has as few colours as drawings have."""
    return drawn_share(image) >= DRAWN_SHARE


def drawn_share(image: Image.Image) -> float:
    """Return the share of an image's pixels, 0-1, that its 16 most frequent colours cover.

    Of each band, 8 neighbouring levels count as one, so that noise makes no colours.
    """
    import numpy as np  # not before an image is there: the command's help names the constants above
    from PIL import Image

    seen = image.copy()
    seen.thumbnail((_SIDE_PX, _SIDE_PX), Image.Resampling.NEAREST)  # which makes no colours of its own
    red, green, blue = np.moveaxis(np.asarray(seen.convert("RGB"), np.uint32) >> _NOISE_BITS, 2, 0)
    counts = np.unique(red << 16 | green << 8 | blue, return_counts=True)[1]
    return float(np.sort(counts)[-_COLOURS:].sum() / counts.sum())
