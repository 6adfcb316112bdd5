"""Tell what the embedded model knows, and when it is asked about pictures of another kind. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from univg.grounding.prompts import SETS, PromptStyle
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
    "note_untaught",
]

PHOTO_MODEL = "GD-ML/UniVG-R1"
_ADVICE = (
    f"For photographs, add --model {PHOTO_MODEL} (7 billion parameters, a 17 GB download; best on a GPU)"
)
EMBEDDED_NOTE = f"the embedded model knows only univg's own procedural world of drawn shapes. {_ADVICE}"

# A drawing of the world has few colours, a photograph many: the share of an image's pixels that its 32 most frequent
# colours cover was 0.80 to 1.00 in 3,467 drawings, and 0.01 to 0.63 in 620 photographs (benchmarks/familiarity.py).
_COLOURS, DRAWN_SHARE, _SIDE_PX = 32, 0.7, 256


def note_strange_images(model: str, images: Sequence[Image.Image]) -> tuple[str, ...]:
    """Return a note on the images that do not look like what the embedded model was trained on; none for others.

    >>> from PIL import Image
    >>> note_strange_images("embedded", [Image.new("RGB", (64, 64)), Image.effect_noise((64, 64), 90)])[0][:50]
    "image 2 does not look like univg's procedural worl"
    """
    if model not in EMBEDDED:
        return ()
    strange = [str(number) for number, image in enumerate(images, 1) if not looks_drawn(image)]
    if not strange:
        return ()
    which = f"image {strange[0]} does" if len(strange) == 1 else f"images {', '.join(strange)} do"
    return (
        f"{which} not look like univg's procedural world, which is all that the embedded model knows: "
        f"the answer is likely nonsense. {_ADVICE}",
    )


def note_untaught(model: str, style: PromptStyle) -> tuple[str, ...]:
    """Return a note where the embedded model is asked for a set, which it has not learnt; none for others."""
    if model not in EMBEDDED or style not in SETS:
        return ()
    return (
        "the embedded model has learnt to answer with one box, not with all or none: "
        "`univg sft --config sets-sft` teaches it",
    )


def looks_drawn(image: Image.Image) -> bool:
    """Tell whether an image has as few colours as the drawings of the procedural world."""
    return drawn_share(image) >= DRAWN_SHARE


def drawn_share(image: Image.Image) -> float:
    """Return the share of an image's pixels, 0-1, that its 32 most frequent colours cover."""
    import numpy as np  # not before an image is there: the command's help names the constants above
    from PIL import Image

    seen = image.copy()
    seen.thumbnail((_SIDE_PX, _SIDE_PX), Image.Resampling.NEAREST)  # which makes no colours of its own
    red, green, blue = np.moveaxis(np.asarray(seen.convert("RGB"), np.uint32), 2, 0)
    counts = np.unique(red << 16 | green << 8 | blue, return_counts=True)[1]
    return float(np.sort(counts)[-_COLOURS:].sum() / counts.sum())
