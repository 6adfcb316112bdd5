"""Find what would stop or spoil a run, before any GPU starts: boxes, images, the lengths of prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from univg.data.formats.fields import show_box
from univg.data.formats.image_root import image_size
from univg.data.formats.marks import mark_fault
from univg.data.formats.scale import box_fault
from univg.data.published import FaultBook, PublishedFile
from univg.data.readers import ImageRoot, RecordFault
from univg.grounding.boxes import Box, SizeWH
from univg.grounding.mentions import decide_image
from univg.grounding.samples import GroundingSample
from univg.pictures.images import ImageFault, open_picture
from univg.terminal import progress

__all__ = [
    "CountTokens",
    "ImageState",
    "check_images",
    "check_prompts",
    "check_samples",
    "find_placeless",
    "sizes_of",
]

CountTokens = Callable[[GroundingSample, list[SizeWH]], int]
"""Counts the tokens of a sample's prompt, with images of these sizes."""

_AT_ONCE = 2048


@dataclass(frozen=True)
class ImageState:
    """What became of an image: its size, or what is wrong with it."""

    size_wh: SizeWH | None
    kind: str = ""
    cause: str = ""
    fix: str = ""


def check_samples(file: PublishedFile, book: FaultBook) -> tuple[int, list[str]]:
    """Find what the file itself tells: unusable records, bad boxes. Return the number of samples, and their images."""
    images: dict[str, None] = {}
    count, unanswered, first = 0, 0, ""
    for sample in file.read(book):
        count += 1
        images.update(dict.fromkeys(sample.images))
        faults = (*map(box_fault, sample.boxes), mark_fault(sample), _find_repeated(sample))
        for found in faults:
            if found is not None:
                book.add(RecordFault(sample.source, *found, usable=True))
        if placeless := find_placeless(sample):
            kind, cause, fix = placeless
            book.add(RecordFault(sample.source, kind, cause, fix, usable=True))
        if not sample.is_answered:
            unanswered, first = unanswered + 1, first or sample.name
    if unanswered:
        book.notes.append(
            f"samples without a box, to be asked but not taught or scored: {unanswered}, first {first}; if nothing of "
            'the kind is there, say "complete": true'
        )
    return count, list(images)


def _find_repeated(sample: GroundingSample) -> tuple[str, str] | None:
    """Return the fault of a set that holds a box twice: an answer says it once, and would miss the other."""
    seen: set[tuple[int | None, Box]] = set()
    for image, box in sample.targets if sample.complete else ():
        if (image, box) in seen:
            return "repeated_box", f"{show_box(box)} is in its set twice"
        seen.add((image, box))
    return None


def find_placeless(sample: GroundingSample) -> tuple[str, str, str] | None:
    """Return the fault of a set of which nothing says on which of several images a box lies: it would be taught on
    the last one."""
    if not sample.complete or len(sample.images) == 1:
        return None
    if all(image is not None for image, _ in sample.targets):
        return None
    if decide_image(len(sample.images), None, sample.query, sample.thought)[1] != "last":
        return None
    fix = "give target_image, or box_images with one number a box"
    return "no_target_image", "nothing says on which image a box lies", fix


def check_images(
    names: Iterable[str], folder: Path, workers: int, headers_only: bool = False
) -> dict[str, ImageState]:
    """Open every image once, in parallel (decoding leaves the interpreter's lock), and return what became of it."""
    root, names = ImageRoot(folder), list(names)
    root.expect(lambda: names)
    with ThreadPoolExecutor(max(1, workers)) as pool, progress() as bar:

        def states() -> Iterator[ImageState]:
            rest = iter(names)
            while some := list(islice(rest, _AT_ONCE)):  # not a million of them queued at once
                yield from pool.map(lambda name: _check_image(root, name, headers_only), some)

        shown = bar.track(states(), total=len(names), description="images")
        return dict(zip(names, shown, strict=True))


def check_prompts(
    file: PublishedFile,
    states: Mapping[str, ImageState],
    count_tokens: CountTokens,
    max_tokens: int,
    book: FaultBook,
) -> int:
    """Find what images say about records: each image that is of no use, at the first that names it, and those whose
    prompt is too long. Return how many samples have an image that is of no use."""
    told: set[str] = set()
    spoilt = 0
    for sample in file.read(doing="comparing"):  # the first pass has told what reading finds
        spoilt += any(states[image].size_wh is None for image in sample.images)
        for image in sample.images:
            state = states[image]
            if state.size_wh is None and image not in told:
                told.add(image)
                book.add(RecordFault(sample.source, state.kind, state.cause, state.fix, usable=True))
        tokens = count_tokens(sample, sizes_of(sample, states))
        if tokens > max_tokens:
            cause = f"about {tokens} tokens, and {max_tokens} are allowed"
            book.add(RecordFault(sample.source, "too_many_tokens", cause, usable=True))
    return spoilt


def sizes_of(sample: GroundingSample, states: Mapping[str, ImageState]) -> list[SizeWH]:
    """Return the sizes of a sample's images, as far as they can be opened."""
    return [size for image in sample.images if (size := states[image].size_wh) is not None]


def _check_image(root: ImageRoot, name: str, headers_only: bool) -> ImageState:
    path = root.find(name)
    if path is None:
        return ImageState(None, "missing_image", root.explain(name))
    try:
        return ImageState(image_size(path) if headers_only else open_picture(path).image.size)
    except ImageFault as error:
        return ImageState(None, "bad_image", f"{name}: {error.cause}", error.remedy)
