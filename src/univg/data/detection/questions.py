"""Ask for the categories of a detection set: one sample an image and category.

`asking` asks for what is there. `asking_sets` asks for every instance and says that these are all, which is so only
where the set is annotated exhaustively, as COCO is: a category that an image has no box of is then known not to be
there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import wraps

from univg.data.detection.images import DetectionImage
from univg.data.detection.listing import WHOLE
from univg.data.formats.records import Source
from univg.grounding.samples import GroundingSample

__all__ = ["asking", "asking_sets"]

TASK = "detection"


def asking(
    read_images: Callable[[Source], list[DetectionImage]],
) -> Callable[[Source], Iterator[GroundingSample]]:
    """Make a reader of images a reader of samples, which ask for each category of each image."""

    @wraps(read_images)
    def read(source: Source) -> Iterator[GroundingSample]:
        yield from _ask(source, read_images(source))

    return read


def asking_sets(
    read_images: Callable[[Source], list[DetectionImage]],
) -> Callable[[Source], Iterator[GroundingSample]]:
    """Make a reader of images a reader of samples that ask for every instance of a category, or for one that the image
    has none of: one such question an image, of the set's categories in turn.

    What is no target by itself (COCO's crowd) is none of the boxes; it is kept under `extra["protocol"]`, as COCO's
    evaluation passes over it.
    """

    @wraps(read_images)
    def read(source: Source) -> Iterator[GroundingSample]:
        images = read_images(source)
        categories = sorted({instance.category for image in images for instance in image.instances})
        lost = crowded = 0
        for turn, image in enumerate(images):
            here = sorted({instance.category for instance in image.instances})
            unread = {one.category for one in image.instances if not one.alone and one.box == WHOLE}
            lost += len(unread)
            asked = [_ask_every(image, category) for category in here if category not in unread]
            crowded += sum(bool(sample.extra["protocol"]["crowds"]) for sample in asked)
            yield from asked
            others = [category for category in categories if category not in here]
            if others:
                yield _ask_every(image, others[turn % len(others)])
        if lost:
            source.note(
                f"{lost} question(s) are not asked: the place of an object that they ask for is not known"
            )
        if crowded:
            source.note(
                f"{crowded} question(s) ask for what is also there as a crowd: COCO's AP passes over boxes on it, the "
                "score of the set does not"
            )

    return read


def _ask_every(image: DetectionImage, category: str) -> GroundingSample:
    here = [instance for instance in image.instances if instance.category == category]
    crowds = [list(instance.box) for instance in here if not instance.alone]
    boxes = tuple(instance.box for instance in here if instance.alone)
    return GroundingSample(
        *((image.name,), f"Locate every {category} in the image.", TASK, boxes, 0),
        complete=True,
        thinking=False,
        source=f"{image.record}@{category}",
        extra={"category": category, "protocol": {"category": category, "crowds": crowds}},
    )


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
            every = len(here) > 1 or source.complete  # what is asked must not tell how many there are
            query = f"Locate {'every' if every else 'the'} {category} in the image."
            boxes, name = tuple(instance.box for instance in here), f"{image.record}@{category}"
            yield GroundingSample(
                *((image.name,), query, TASK, boxes, 0),
                complete=source.complete,
                thinking=False,
                source=name,
                extra={"category": category},
            )
    if unfair:
        source.note(
            f"{unfair} question(s) are not asked: beside the targets of their category are others that are none, "
            "or whose place is not known"
        )
