"""Split samples into training and test so that the two share no picture.

Samples that show the same image belong together, and so do those joined by a chain of shared images. A piece cut
out of a picture counts as that picture: `univg data build` notes under `extra["from"]` what its pieces are of.
Whole groups go to one side, in an order that the seed decides, so a picture can never be on both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from univg.data.published import FaultBook, PublishedFile
from univg.data.readers import ImageRoot
from univg.errors import UnivgError
from univg.files import digest_file, unwritable
from univg.grounding.samples import GroundingSample, write_jsonl

__all__ = ["ImageSplit", "split_by_image", "write_split"]


@dataclass(frozen=True)
class ImageSplit:
    """Which images are the test side's, and how the samples fall. `largest` is the largest group of samples."""

    test_images: frozenset[str]
    train: int
    test: int
    groups: int
    largest: int
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
    """Assign every image of `samples` to a side, so that about `share` of the samples are on the test side.

    `identify` turns an image's path into what makes two paths the same picture (a hash of the file, say).
    Memory grows with the number of images, not of samples. Raises UnivgError if the samples hang together so much
    that no group fits the test side.
    """
    leader: dict[str, str] = {}

    def find(image: str) -> str:
        root = image
        while leader[root] != root:
            root = leader[root]
        while leader[image] != root:
            leader[image], image = root, leader[image]
        return root

    count_of: dict[str, int] = {}
    total = 0
    for sample in samples:
        total += 1
        images = [identify(name) for name in sample.images] + _list_origins(sample)
        for image in images:
            leader.setdefault(image, image)
        first = find(images[0])
        for image in images[1:]:
            leader[find(image)] = first
        count_of[images[0]] = count_of.get(images[0], 0) + 1
    members: dict[str, list[str]] = {}
    for image in leader:
        members.setdefault(find(image), []).append(image)
    sizes = {root: sum(count_of.get(image, 0) for image in images) for root, images in members.items()}
    wanted = round(share * total)
    # By a hash of a member that any order of reading gives: the smallest.
    order = sorted(members, key=lambda root: _hash(seed, min(members[root])))
    taken, test_images = 0, set()
    for root in order:
        if taken + sizes[root] <= wanted:
            taken += sizes[root]
            test_images.update(members[root])
    largest = max(sizes.values(), default=0)
    if wanted and not taken:
        raise UnivgError(
            "no split without a shared picture",
            f"the smallest group of samples that share pictures holds {min(sizes.values())} of {total}, and "
            f"{wanted} were to be split off",
            "ask for a larger share",
        )
    return ImageSplit(frozenset(test_images), total - taken, taken, len(members), largest, identify)


def write_split(file: PublishedFile, out: Path, share: float, seed: int, book: FaultBook) -> ImageSplit:
    """Write `out`/train.jsonl and `out`/test.jsonl. With the folder of the images known, the same picture under two
    names is one picture. Raises UnivgError as `split_by_image` does, and for a folder that cannot be written."""
    identify = str if file.images is None else _identify_by_content(file.images, file.path)
    found = split_by_image(file.read(book, "grouping"), share, seed, identify)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for side in ("train", "test"):
            samples = file.read(doing=f"writing {side}")
            write_jsonl(
                out / f"{side}.jsonl", (one for one in samples if found.is_test(one) == (side == "test"))
            )
    except OSError as error:
        raise unwritable(out, error) from error
    return found


def _identify_by_content(folder: Path, file: Path) -> Callable[[str], str]:
    root = ImageRoot(folder, file)

    @cache
    def identify(name: str) -> str:
        path = root.find(name)
        if path is None:
            remedy = "check --images, or leave it out to compare paths"
            raise UnivgError(f"no such image under {folder}", name, remedy)
        return digest_file(path)

    return identify


def _list_origins(sample: GroundingSample) -> list[str]:
    """Return what the sample's pictures were made from, under names that are no paths."""
    made_from = sample.extra.get("from")
    return [f"from {name}" for name in made_from] if isinstance(made_from, list) else []


def _hash(seed: int, image: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{image}".encode("utf-8", errors="surrogatepass")).digest()
