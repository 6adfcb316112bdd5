"""Ask for the categories of a detection set: one sample an image and category."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import wraps

from univg.data.detection.images import DetectionImage
from univg.data.formats.records import Source
from univg.grounding.samples import GroundingSample

__all__ = ["asking"]

TASK = "detection"


def asking(
    read_images: Callable[[Source], list[DetectionImage]],
) -> Callable[[Source], Iterator[GroundingSample]]:
    """Make a reader of images a reader of samples, which ask for each category of each image."""

    @wraps(read_images)
    def read(source: Source) -> Iterator[GroundingSample]:
        yield from _ask(source, read_images(source))

    return read


def _ask(source: Source, images: Iterable[DetectionImage]) -> Iterator[GroundingSample]:
    unfair = 0
    for image in images:
        for category in sorted({instance.category for instance in image.instances if instance.alone}):
            here = [i for i in image.instances if i.category == category]
            if not all(instance.alone for instance in here):
                unfair += (
                    1  # a crowd: its members have no boxes of their own, so no question about them is fair
                )
                continue
            query = f"Locate {'the' if len(here) == 1 else 'every'} {category} in the image."
            boxes, name = tuple(instance.box for instance in here), f"{image.record}@{category}"
            extra = {"category": category}
            yield GroundingSample(
                (image.name,), query, TASK, boxes, 0, thinking=False, source=name, extra=extra
            )
    if unfair:
        source.note(
            f"{unfair} question(s) are not asked: beside the targets of their category are others that are none, "
            "or whose place is not known"
        )
