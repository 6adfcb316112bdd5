"""What thoughts are written for: samples and a way to their pictures, from any reader or drawn by the world."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image

from univg.data.readers import ImageRoot
from univg.files import canonical
from univg.grounding.samples import GroundingSample
from univg.pictures.images import ImageFault, open_picture
from univg.world import DEFAULT_DIFFICULTY, Split, WorldSample, stream

WORLD = "world#"
"""How the source of a world's sample begins, wherever it was stored in between."""


@dataclass(frozen=True)
class Item:
    """A sample; `pictures` opens its images (RGB, upright), `digests` gives 16 hexadecimal digits of each image's
    content. Both raise ImageFault. `drawn`: the images are nowhere on disk yet."""

    sample: GroundingSample
    pictures: Callable[[], Sequence[Image.Image]]
    digests: Callable[[], tuple[str, ...]]
    drawn: bool = False


@dataclass(frozen=True)
class Data:
    """`total` items, gone through as often as asked. `digest` stands for all of them, `about` says what they
    are."""

    name: str
    total: int
    items: Callable[[], Iterator[Item]]
    digest: str
    about: str


def of_samples(name: str, samples: Sequence[GroundingSample], images: Path | None) -> Data:
    """Samples that a reader gave, their images under the folder `images` (None: they have no pictures here)."""
    root = ImageRoot(images) if images is not None else None
    digest = hashlib.sha256("".join(sample.key for sample in samples).encode("ascii"))
    about = f"{len(samples)} samples of {name}"
    return Data(
        name, len(samples), lambda: (_on_disk(one, root) for one in samples), digest.hexdigest()[:32], about
    )


def of_world(
    n: int,
    split: Split = "train",
    seed: int = 0,
    families: Sequence[str] = (),
    difficulty: float = DEFAULT_DIFFICULTY,
    size: int = 120,
) -> Data:
    """The first `n` samples of the procedural world, the families in turn; images of `size` pixels."""
    settings = {"split": split, "seed": seed, "families": list(families), "difficulty": difficulty}
    settings |= {"size": size, "n": n}

    def items() -> Iterator[Item]:
        for made in islice(stream(split, seed, families or None, difficulty, size), n):
            yield _drawn(made)

    digest = hashlib.sha256(canonical(settings).encode("ascii"))
    if first := next(items(), None):
        digest.update(first.sample.key.encode("ascii"))
        digest.update("".join(first.digests()).encode("ascii"))
    of = f" ({', '.join(families)})" if families else ""
    about = f"{n} samples of the procedural world{of}, split {split}, seed {seed}, difficulty {difficulty:g}"
    return Data("world", n, items, digest.hexdigest()[:32], about)


def _drawn(made: WorldSample) -> Item:
    def digests() -> tuple[str, ...]:
        return tuple(
            hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()[:16]
            for image in made.images
        )

    return Item(made.sample, lambda: made.images, digests, drawn=True)


def _on_disk(sample: GroundingSample, root: ImageRoot | None) -> Item:
    def paths() -> list[Path]:
        if root is None:
            raise ImageFault(sample.images[0], "nobody said where images lie", "give --images")
        return [root.path(name) for name in sample.images]

    def digests() -> tuple[str, ...]:
        return tuple(_digest(path) for path in paths())

    return Item(sample, lambda: [open_picture(path).image for path in paths()], digests)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise ImageFault(
            path, f"the file cannot be read ({error.strerror})", "check its permissions"
        ) from None
