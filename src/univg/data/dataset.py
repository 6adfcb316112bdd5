"""Data sets for training, evaluation and construction: samples, the way to their pictures, and a digest.

data = Dataset.from_file("MIG_data.json", images="MIG-Bench")
data = Dataset.from_world(100, "test", families=["diff", "region"])
for item in data.items():
    item.sample, item.pictures()
"""

from __future__ import annotations

import hashlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from PIL import Image

from univg.data.formats.image_root import image_size
from univg.data.readers import ImageRoot, RecordFault, read
from univg.errors import UnivgError
from univg.files import canonical, digest_file
from univg.grounding.boxes import SizeWH
from univg.grounding.samples import GroundingSample
from univg.pictures.images import ImageFault, open_picture
from univg.world import (
    DEFAULT_DIFFICULTY,
    WORLD_VERSION,
    Size,
    Split,
    WorldSample,
    list_families,
    make_sample,
    settle_size,
)

__all__ = [
    *("ENDLESS", "Dataset", "FileItem", "Item", "Shard", "WorldItem"),
    *("digest_parts", "parse_shard", "reopen_pictures"),
]

Shard: TypeAlias = tuple[int, int]
"""(number from 0, how many)."""
ENDLESS = sys.maxsize
"""How many samples the world has, if nobody bounds it."""


@dataclass(frozen=True)
class Item(ABC):
    """A sample under a key, and the way to its pictures."""

    key: str
    sample: GroundingSample
    drawn: ClassVar[bool] = False
    """Whether the pictures are drawn by us, and lie nowhere on disk yet."""

    @abstractmethod
    def pictures(self) -> list[Image.Image]:
        """Open the images in order, RGB and upright. Raises ImageFault."""

    @abstractmethod
    def sizes_wh(self) -> list[SizeWH]:
        """Return the images' sizes without decoding them; (0, 0) where that fails."""

    @abstractmethod
    def digests(self) -> tuple[str, ...]:
        """Return 16 hexadecimal digits of each image's content. Raises ImageFault."""


@dataclass(frozen=True)
class FileItem(Item):
    """A sample whose images are files under `root`."""

    root: ImageRoot

    def paths(self) -> list[Path]:
        """Find the files. Raises ImageFault for one that is not there."""
        return [self.root.path(name) for name in self.sample.images]

    def pictures(self) -> list[Image.Image]:
        return [open_picture(path).image for path in self.paths()]

    def sizes_wh(self) -> list[SizeWH]:
        return [_size_or_none(self.root, name) or (0, 0) for name in self.sample.images]

    def digests(self) -> tuple[str, ...]:
        return tuple(map(_digest_image, self.paths()))


@dataclass(frozen=True)
class WorldItem(Item):
    """A sample of the procedural world; its pictures are drawn each time anew, as only its scenes are small to keep."""

    made: WorldSample
    drawn: ClassVar[bool] = True

    @classmethod
    def of(cls, made: WorldSample) -> WorldItem:
        return cls(made.sample.key, made.sample, made)

    def pictures(self) -> list[Image.Image]:
        return list(self.made.draw())

    def sizes_wh(self) -> list[SizeWH]:
        return self.made.sizes_wh

    def digests(self) -> tuple[str, ...]:
        return tuple(digest_parts([str(one.size), one.tobytes()])[:16] for one in self.pictures())


@dataclass(frozen=True)
class Dataset:
    """`total` items (or `ENDLESS`), made by number when they are asked for.

    - `name`: what results call it; `about`: what it holds, for people.
    - `content`: what `digest` stands for. The digest is part of the names that kept results go by, so evaluation,
      construction and training each have their own.
    - `origin`: enough to open the pictures of a kept sample again (:func:`reopen_pictures`).
    - `faults`: the records that could not be read, or only with a remark.
    """

    name: str
    total: int
    item: Callable[[int], Item]
    content: Callable[[], Iterable[str | bytes]] = tuple
    about: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)
    faults: Sequence[RecordFault] = ()

    @classmethod
    def from_samples(
        cls, name: str, samples: Sequence[GroundingSample], images: str | os.PathLike[str] | None
    ) -> Dataset:
        """Make a data set of samples that are read already, their images under the folder `images` (default: the
        current one). Its digest is that of the samples' keys."""
        root = ImageRoot(images or ".")
        root.expect(partial(_list_images, samples))
        return cls(
            name,
            len(samples),
            partial(_file_item, samples, root),  # no closure: it travels to data-loader workers
            lambda: (sample.key for sample in samples),
            f"{len(samples)} samples of {name}",
        )

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        reader: str | None = None,
        images: str | os.PathLike[str] | None = None,
        keep: Callable[[GroundingSample], bool] = lambda sample: True,
        n: int | None = None,
    ) -> Dataset:
        """Read a published file or folder, once: its samples that `keep` wants, of these the first `n`.

        `reader` and `images` are those of :func:`univg.data.readers.read`, which also says what is raised. The
        digest is that of the file: boxes in pixels become samples only with their images, and images may be fetched
        between two runs.
        """
        faults: list[RecordFault] = []
        notes: list[str] = []
        samples: list[GroundingSample] = []
        for sample in read(path, reader, images, faults.append, notes.append):
            if keep(sample):
                samples.append(sample)
            if len(samples) == n:
                break
        folder = str(Path(images or ".").resolve())
        return replace(
            cls.from_samples(Path(path).name, samples, images),
            content=lambda: _content(Path(path)),
            origin={"kind": "file", "data": str(path), "images": folder, "notes": notes},
            faults=faults,
        )

    @classmethod
    def from_world(
        cls,
        n: int,
        split: Split = "train",
        seed: int = 0,
        families: Sequence[str] = (),
        difficulty: float = DEFAULT_DIFFICULTY,
        size: Size | None = None,
        version: int = WORLD_VERSION,
    ) -> Dataset:
        """Make a data set of the procedural world: `families` (default: all of one box; "sets": all of sets) in
        turn, images of `size` pixels on the longer side (see `make_sample`). Sample k does not depend on `n`. Its
        digest is that of these arguments and of the first sample.

        >>> [item.sample.task for item in Dataset.from_world(3, families=["diff", "region"]).items()]
        ['diff', 'region', 'diff']
        """
        names, size = list_families(families, split), settle_size(size, version)
        settings: dict[str, Any] = {"split": split, "seed": seed, "difficulty": difficulty}
        if version > 1:  # results kept of the first world know no versions
            settings["version"] = version

        def item(k: int) -> Item:
            index, turn = divmod(k, len(names))
            return WorldItem.of(make_sample(names[turn], split, seed, index, difficulty, size, version))

        def content() -> Iterator[str]:
            yield canonical({**settings, "families": list(families), "size": size, "n": n})
            yield from (item(0).key, *item(0).digests())

        of = f" ({', '.join(families)})" if families else ""
        about = (
            f"{n} samples of the procedural world{of}, split {split}, seed {seed}, difficulty {difficulty:g}"
        )
        return cls("world", n, item, content, about, {"kind": "world", **settings, "size_px": size})

    def items(self) -> Iterator[Item]:
        """Go through the items from the first on."""
        return map(self.item, range(self.total))

    def part(self, shard: Shard) -> Dataset:
        """Return every n-th item, beginning with number i from 0, of a `shard` (i, n).

        >>> whole = Dataset.from_world(5, families=["diff"])
        >>> [item.key for item in whole.part((1, 2)).items()] == [item.key for item in whole.items()][1::2]
        True
        """
        number, count = shard
        return replace(
            self,
            total=len(range(number, self.total, count)),
            item=lambda k: self.item(number + k * count),
            content=lambda: (f"{number}/{count}", *self.content()),
            about=f"shard {number} of {count} of {self.about}",
        )

    @cached_property
    def digest(self) -> str:
        """32 hexadecimal digits of the content, alike on every machine."""
        return digest_parts(self.content())[:32]


def parse_shard(text: str) -> Shard:
    """Parse `"i/n"`, i counted from 0. Raises UnivgError.

    >>> parse_shard("1/4")
    (1, 4)
    """
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise UnivgError(f"no shard {text!r}", remedy="write i/n with i from 0 to n-1, such as 0/4")
    return int(number), int(count)


def digest_parts(parts: Iterable[str | bytes]) -> str:
    """Return the SHA-256 of the parts, one after the other.

    >>> digest_parts(["a", b"b"]) == digest_parts(["ab"])
    True
    """
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.encode() if isinstance(part, str) else part)
    return sha.hexdigest()


def reopen_pictures(row: Mapping[str, Any], origin: Mapping[str, Any]) -> list[Image.Image]:
    """Open, or draw again, the pictures of a sample of which a result's row kept task, source and images.

    Raises ImageFault for a file that is not there any more.
    """
    if origin.get("kind") != "world":
        root = ImageRoot(origin.get("images", "."), origin.get("data"))
        return [open_picture(root.path(name)).image for name in row["images"]]
    index = int(row["source"].rpartition("-")[2])
    size = origin["size_px"]
    settings = (
        origin["difficulty"],
        size if isinstance(size, int) else tuple(size),
        origin.get("version", 1),
    )
    return list(make_sample(row["task"], origin["split"], origin["seed"], index, *settings).draw())


def _list_images(samples: Sequence[GroundingSample]) -> list[str]:
    return [name for sample in samples for name in sample.images]


def _file_item(samples: Sequence[GroundingSample], root: ImageRoot, k: int) -> Item:
    return FileItem(samples[k].key, samples[k], root)


def _content(path: Path) -> Iterator[str | bytes]:
    """Yield what a file holds; of a folder (raw annotations beside images) names and sizes."""
    if path.is_file():
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                yield block
    for found in sorted(one for one in path.rglob("*") if one.is_file()):
        yield f"{found.relative_to(path).as_posix()}\0{found.stat().st_size}\0"


def _digest_image(path: Path) -> str:
    try:
        return digest_file(path)[:16]
    except OSError as error:
        why = f"the file cannot be read ({error.strerror})"
        raise ImageFault(path, why, "check its permissions") from None


def _size_or_none(root: ImageRoot, name: str) -> SizeWH | None:
    try:
        return image_size(root.path(name))
    except ImageFault:
        return None  # opening it for the model will say what is wrong
