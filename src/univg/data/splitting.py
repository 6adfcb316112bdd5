"""Split a set into training and test so that the two share no picture.

Samples that show the same image belong together, and so do those joined by a chain of shared images. A piece cut
out of a picture counts as that picture: `univg data build` notes under `extra["from"]` what its pieces are of.
Whole groups go to one side, in an order that the seed decides, so a picture can never be on both.

A detection set is split by its photographs, and stays one: two COCO files, which all readers of detection sets read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from univg.data.detection import DETECTION, DetectionImage
from univg.data.dividing import Chains, Group, divide, divide_photographs
from univg.data.published import FaultBook, PublishedFile
from univg.data.readers import ImageRoot, Source
from univg.errors import UnivgError
from univg.files import check_writable, digest_file, unwritable, write_whole
from univg.grounding.boxes import unit_to_px
from univg.grounding.samples import GroundingSample, write_jsonl
from univg.terminal import progress

__all__ = ["ImageSplit", "Split", "list_origins", "split_by_image", "write_split"]

SIDES = ("train", "test")


@dataclass(frozen=True)
class Split:
    """How a set fell: by side how much, and of which kinds (task families; of a detection set its categories).

    `share`: what was asked for testing. `groups`: what hangs together, the `largest` of how many.
    """

    share: float
    sizes: dict[str, int]
    kinds: dict[str, Counter[str]]
    groups: int
    largest: int

    @property
    def total(self) -> int:
        return sum(self.sizes.values())

    def misses_share(self) -> bool:
        """Tell whether the share of the test side is missed by more than half."""
        off = abs(self.sizes["test"] / max(1, self.total) - self.share)
        return off > min(self.share, 1 - self.share) / 2

    def list_missing(self) -> list[str]:
        """Return for each side the kinds that it lacks, of those it would have one of or more if shares were exact."""
        told, all_kinds = [], sum(self.kinds.values(), Counter[str]())
        for side, share in (("train", 1 - self.share), ("test", self.share)):
            missing = [
                kind for kind in sorted(all_kinds) if share * all_kinds[kind] >= 1 > self.kinds[side][kind]
            ]
            if missing:
                more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
                told.append(f"{side} has no {', '.join(missing[:8])}{more}")
        return told


@dataclass(frozen=True)
class ImageSplit(Split):
    """The same of samples, and which images are the test side's."""

    test_images: frozenset[str]
    identify: Callable[[str], str]

    def is_test(self, sample: GroundingSample) -> bool:
        """Tell whether a sample goes to the test side; all its images then do."""
        return self.identify(sample.images[0]) in self.test_images


def split_by_image(
    samples: Iterable[GroundingSample],
    share: float,
    seed: int = 0,
    identify: Callable[[str], str] = str,
) -> ImageSplit:
    """Assign every image of `samples` to a side, so that about `share` of each task's samples are on the test side.

    `identify` turns an image's path into what makes two paths the same picture (a hash of the file, say).
    Memory grows with the number of images, not of samples. Raises UnivgError if the samples hang together so much
    that one side would get none.
    """
    chains = Chains()
    tasks_of: dict[str, Counter[str]] = {}
    for sample in samples:
        images = [identify(name) for name in sample.images]
        chains.join(images + list_origins(sample))
        tasks_of.setdefault(images[0], Counter())[sample.task] += 1
    groups: dict[str, Group] = {}
    for image in chains.leader:
        group = groups.setdefault(chains.find(image), Group(image))
        group.name = min(group.name, image)
        group.kinds.update(tasks_of.get(image, ()))
        group.size = group.kinds.total()
    side_of = divide(list(groups.values()), {"train": 1 - share, "test": share}, seed)
    sizes, kinds = dict.fromkeys(SIDES, 0), {side: Counter[str]() for side in SIDES}
    for group in groups.values():
        sizes[side_of[group.name]] += group.size
        kinds[side_of[group.name]].update(group.kinds)
    largest = max((group.size for group in groups.values()), default=0)
    _refuse_empty(
        sizes,
        share,
        largest,
        "samples that share pictures",
        f"divide the photographs before tasks are made: univg data build --test {share:g}",
    )
    test_images = frozenset(
        image for image in chains.leader if side_of[groups[chains.find(image)].name] == "test"
    )
    return ImageSplit(share, sizes, kinds, len(groups), largest, test_images, identify)


def _refuse_empty(sizes: dict[str, int], share: float, largest: int, what: str, remedy: str) -> None:
    """Raise UnivgError if a side that should have some gets nothing."""
    total = sum(sizes.values())
    for side, wanted in (("train", round((1 - share) * total)), ("test", round(share * total))):
        if wanted and not sizes[side]:
            raise UnivgError(
                "no split without a shared picture",
                f"{side} should get {wanted} of {total}, and the largest group of {what} holds {largest}",
                f"ask for a larger share, or {remedy}",
            )


def write_split(
    file: PublishedFile, out: Path, share: float, seed: int, book: FaultBook
) -> tuple[Split, dict[str, Path]]:
    """Write a training and a test file under `out`; return how the set fell, and the files.

    With the folder of the images known, the same picture under two names is one picture. Raises UnivgError as
    `split_by_image` does, for a folder that cannot be written, and if it holds a split already.
    """
    check_writable(out)
    for name in (f"{side}.{suffix}" for side in SIDES for suffix in ("jsonl", "json")):
        if (out / name).exists():
            raise UnivgError("a split is here already", out / name, "choose another --out, or remove it")
    write = _write_photographs if file.format in DETECTION else _write_samples
    try:
        return write(file, out, share, seed, book)
    except OSError as error:
        raise unwritable(out, error) from error


def _write_samples(
    file: PublishedFile, out: Path, share: float, seed: int, book: FaultBook
) -> tuple[Split, dict[str, Path]]:
    identify = str if file.images is None else _identify_by_content(ImageRoot(file.images, file.path))
    found = split_by_image(file.read(book, "grouping"), share, seed, identify)
    files = {side: out / f"{side}.jsonl" for side in SIDES}
    out.mkdir(parents=True, exist_ok=True)
    for side, path in files.items():
        samples = file.read(doing=f"writing {side}")
        write_jsonl(path, (one for one in samples if found.is_test(one) == (side == "test")))
    return found, files


def _write_photographs(
    file: PublishedFile, out: Path, share: float, seed: int, book: FaultBook
) -> tuple[Split, dict[str, Path]]:
    """Write a COCO file for each side. Nothing of a side is told from the other's: ids are those of the whole set."""
    root = None if file.images is None else ImageRoot(file.images, file.path)
    images = DETECTION[file.format](Source(file.path, root, book.add, book.notes.append))
    shares = {"train": 1 - share, "test": share}
    identify = str if root is None else _identify_by_content(root)
    with progress() as bar:
        compared = bar.track(images, description="comparing")
        sides, groups = divide_photographs(compared, shares, seed, identify)
    sizes = {side: len(some) for side, some in sides.items()}
    kinds = {
        side: Counter(name for one in some for name in {i.category for i in one.instances})
        for side, some in sides.items()
    }
    largest = max((group.size for group in groups), default=0)
    _refuse_empty(sizes, share, largest, "copies, or frames of one video,", "bring more photographs")
    files = {side: out / f"{side}.json" for side in SIDES}
    number_of = {image.name: number for number, image in enumerate(images, start=1)}
    categories = sorted({instance.category for image in images for instance in image.instances})
    out.mkdir(parents=True, exist_ok=True)
    for side, path in files.items():
        write_whole(path, _make_coco(sides[side], number_of, categories, root))
    found = Split(share, sizes, kinds, len(groups), largest)
    book.notes.extend(found.list_missing())
    return found, files


def _make_coco(
    images: Iterable[DetectionImage], number_of: dict[str, int], categories: list[str], root: ImageRoot | None
) -> str:
    """Return COCO's JSON of images as they were read. What is no target by itself (a crowd, difficult) is a crowd."""
    videos: dict[str, int] = {}
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image in images:
        number, (width, height) = number_of[image.name], image.size_wh
        name = image.name if root is None else root.relative(root.path(image.name))
        entry = {"id": number, "file_name": name, "width": width, "height": height}
        if image.video is not None:
            entry.update(video_id=videos.setdefault(image.video, len(videos) + 1), frame_id=image.frame)
        entries.append(entry)
        for instance in image.instances:
            x1, y1, x2, y2 = unit_to_px(instance.box, image.size_wh)
            track = {} if instance.track is None else {"track_id": instance.track}
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": categories.index(instance.category) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(not instance.alone),
                    **track,
                }
            )
    named = [{"id": number, "name": name} for number, name in enumerate(categories, start=1)]
    whole = {"images": entries, "annotations": annotations, "categories": named}
    if videos:
        whole["videos"] = [{"id": number, "name": name} for name, number in videos.items()]
    return json.dumps(whole) + "\n"


def _identify_by_content(root: ImageRoot) -> Callable[[str], str]:
    @cache
    def identify(name: str) -> str:
        path = root.find(name)
        if path is None:
            remedy = "check --images, or leave it out to compare paths"
            raise UnivgError(f"no such image under {root.folder}", name, remedy)
        return digest_file(path)

    return identify


def list_origins(sample: GroundingSample) -> list[str]:
    """Return what the sample's pictures were made from, under names that are no paths."""
    made_from = sample.extra.get("from")
    return [f"from {name}" for name in made_from] if isinstance(made_from, list) else []
