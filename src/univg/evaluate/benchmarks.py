"""What is evaluated: the cases of a benchmark, each a sample and a way to its pictures.

`world` and `world_unseen` are drawn on the fly; every other benchmark is a published file that a reader of
`univg.data.readers` turns into samples, and a folder of images.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from univg.data.formats.image_root import image_size
from univg.data.readers import READERS, ImageRoot, RecordFault, detect, read
from univg.errors import UnivgError
from univg.files import canonical
from univg.grounding.boxes import SizeWH
from univg.grounding.samples import GroundingSample
from univg.pictures.images import ImageFault, open_picture
from univg.world import DEFAULT_DIFFICULTY, FAMILIES, Split, WorldSample, make_sample

WORLDS: Mapping[str, Split] = {"world": "test", "world_unseen": "unseen"}
WORLD_PX = 120
WORLD_N = 50

FORMATS: Mapping[str, tuple[str, ...]] = {
    "mig_bench": ("mig_bench",),
    "lisa_val": ("lisa", "reasonseg_raw"),
    "lisa_test": ("lisa", "reasonseg_raw"),
    "llmseg": ("llmseg", "llmseg_raw"),
    "reasonvos": ("reasonvos", "reasonvos_raw"),
    "revos": ("revos", "revos_raw"),
    "refcoco": ("vlm_r1", "vlm_r1_lines", "refcoco"),
    "refcoco_plus": ("vlm_r1", "vlm_r1_lines", "refcoco"),
    "refcocog": ("vlm_r1", "vlm_r1_lines", "refcoco"),
}
"""Benchmarks, and the formats that their files come in (keys of `univg.data.readers.READERS`). The name of any other
format is a benchmark too: `univg` for samples of one's own."""

ZERO_SHOT_MAX_PIXELS = 640_000
ZERO_SHOT = frozenset({"lisa_val", "lisa_test", "llmseg", "reasonvos", "revos"})
"""Benchmarks that the paper's code evaluates with a larger pixel budget and a scorer of its own."""


class BenchmarkError(UnivgError):
    """A benchmark that cannot be opened; one line with what, which and what to do."""


class Case(Protocol):
    """One sample of a benchmark under a key that is unique in it."""

    @property
    def key(self) -> str: ...

    @property
    def sample(self) -> GroundingSample: ...

    def pictures(self) -> list[Image.Image]:
        """The images in order, RGB and upright. Raises ImageFault."""

    def sizes_wh(self) -> list[SizeWH]:
        """Their sizes, without decoding them; (0, 0) where that fails."""


@dataclass(frozen=True)
class FileCase:
    """A sample whose images are files: where each was found, None for one that is not under `root`."""

    key: str
    sample: GroundingSample
    paths: tuple[Path | None, ...]
    root: Path

    def pictures(self) -> list[Image.Image]:
        for name, path in zip(self.sample.images, self.paths, strict=True):
            if path is None:
                raise ImageFault(
                    name, f"no such file under {self.root}", "check --images, or fetch the images"
                )
        return [open_picture(path).image for path in self.paths if path is not None]

    def sizes_wh(self) -> list[SizeWH]:
        return [_header_size(path) for path in self.paths]


@dataclass(frozen=True)
class WorldCase:
    """A sample of the procedural world; its pictures are held as PNG, which is small for drawn shapes."""

    key: str
    sample: GroundingSample
    encoded: tuple[bytes, ...]

    def pictures(self) -> list[Image.Image]:
        return [Image.open(io.BytesIO(data)).convert("RGB") for data in self.encoded]

    def sizes_wh(self) -> list[SizeWH]:
        return [Image.open(io.BytesIO(data)).size for data in self.encoded]


@dataclass(frozen=True)
class Benchmark:
    """`cases` in the benchmark's order; `faults` of records that could not be read; `digest` of all the
    data, also those that `n` left out, so that a run can be extended. `about` is enough to find the
    pictures of a row again."""

    name: str
    cases: Sequence[Case]
    digest: str
    faults: Sequence[Mapping[str, Any]] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> Counter[str]:
        return Counter(case.sample.task for case in self.cases)


def open_world(
    name: str,
    n: int = WORLD_N,
    seed: int = 0,
    difficulty: float = DEFAULT_DIFFICULTY,
    size_px: int = WORLD_PX,
    tasks: Sequence[str] = (),
) -> Benchmark:
    """`n` samples of each family of the world's test or unseen part; images of `size_px` on the longer side.

    The first samples do not depend on `n`. Raises BenchmarkError for a name or task that the world lacks.
    """
    if name not in WORLDS:
        raise BenchmarkError(f"no world {name!r}: choose from {', '.join(WORLDS)}")
    wanted = _choose(tasks, list(FAMILIES))
    settings: dict[str, Any] = {"split": WORLDS[name], "seed": seed}
    settings |= {"difficulty": difficulty, "size_px": size_px}
    made = (_world_sample(task, index, settings) for index in range(n) for task in wanted)
    cases = [
        WorldCase(key, one.sample, tuple(_png(image) for image in one.images))
        for key, one in _keyed_world(made)
    ]
    about = {"kind": "world", **settings}
    return Benchmark(name, cases, _world_digest(settings), about=about)


def open_file(
    name: str, data: Path, images: Path, n: int | None = None, tasks: Sequence[str] = ()
) -> Benchmark:
    """The benchmark `name` in the published file `data`, its images under `images`; `n`: the first of each
    task. Raises BenchmarkError for an unknown name, a file that cannot be read, or one without samples."""
    samples, faults, notes = _read(name, data, images)
    if not samples:
        raise BenchmarkError(f"no usable sample ({len(faults)} faults): {data}: see `univg data validate`")
    wanted = set(_choose(tasks, list(dict.fromkeys(sample.task for sample in samples))))
    root = ImageRoot(images)
    taken: Counter[str] = Counter()
    cases = []
    for key, sample in zip(_unique(sample.key for sample in samples), samples, strict=True):
        if sample.task in wanted and (n is None or taken[sample.task] < n):
            taken[sample.task] += 1
            cases.append(FileCase(key, sample, tuple(map(root.find, sample.images)), images))
    about = {"kind": "file", "data": str(data), "images": str(images.resolve()), "notes": notes}
    return Benchmark(name, cases, _data_digest(data), faults, about)


def _read(
    name: str, data: Path, images: Path
) -> tuple[list[GroundingSample], list[dict[str, Any]], list[str]]:
    """(samples, faults, notes on the file). A fault whose record gave a sample all the same is `usable`."""
    formats = formats_of(name)
    faults: list[RecordFault] = []
    notes: list[str] = []
    try:
        found = formats[0] if len(formats) == 1 else detect(data)
        if found not in formats:
            raise BenchmarkError(
                f"{READERS[found].title}, not {name}: {data}: give its file, or --benchmark {found}"
            )
        samples = list(read(data, found, images, faults.append, notes.append))
    except UnivgError as error:
        raise BenchmarkError(str(error)) from error
    told = [
        {
            "key": None,
            "source": one.record,
            "task": "",
            "kind": "record",
            "why": f"{one.kind}: {one.cause}: {one.fix}",
            "usable": one.usable,
        }
        for one in faults
    ]
    return samples, told, notes


def formats_of(name: str) -> tuple[str, ...]:
    """The formats that the files of benchmark `name` come in. Raises BenchmarkError for a name that is none.

    >>> formats_of("lisa_val"), formats_of("univg")
    (('lisa', 'reasonseg_raw'), ('univg',))
    """
    formats = FORMATS.get(name, (name,) if name in READERS else ())
    if not formats:
        known = dict.fromkeys([*WORLDS, *FORMATS, *READERS])
        raise BenchmarkError(f"no benchmark {name!r}: choose from {', '.join(known)}")
    return formats


def pictures_of(row: Mapping[str, Any], about: Mapping[str, Any]) -> list[Image.Image]:
    """The pictures that a row's question was about, found or drawn again from its run's `about`.

    Raises ImageFault for a file that is not there any more.
    """
    if about.get("kind") == "world":
        index = int(row["source"].rpartition("-")[2])
        return list(_world_sample(row["task"], index, about).images)
    root = ImageRoot(about.get("images", "."))
    return [open_picture(root.path(name)).image for name in row["images"]]


def _choose(wanted: Sequence[str], known: Sequence[str]) -> list[str]:
    unknown = [task for task in wanted if task not in known]
    if unknown:
        raise BenchmarkError(f"no task {unknown[0]!r} in this benchmark: choose from {', '.join(known)}")
    return [task for task in known if task in wanted or not wanted]


def _world_sample(task: str, index: int, settings: Mapping[str, Any]) -> WorldSample:
    split, seed = settings["split"], settings["seed"]
    return make_sample(task, split, seed, index, settings["difficulty"], settings["size_px"])


def _keyed_world(samples: Iterable[WorldSample]) -> Iterator[tuple[str, WorldSample]]:
    counts: Counter[str] = Counter()
    for sample in samples:
        yield _numbered(sample.sample.key, counts), sample


def _unique(keys: Iterable[str]) -> Iterator[str]:
    """Content keys; the second of two equal samples becomes KEY-2 (the public MIG-Bench file holds some)."""
    counts: Counter[str] = Counter()
    return (_numbered(key, counts) for key in keys)


def _numbered(key: str, counts: Counter[str]) -> str:
    counts[key] += 1
    return key if counts[key] == 1 else f"{key}-{counts[key]}"


def _world_digest(settings: Mapping[str, Any]) -> str:
    """Of the settings, and of one drawn sample a family: words or pixels drawn otherwise are other data."""
    digest = hashlib.sha256(canonical(settings).encode("ascii"))
    for task in FAMILIES:
        one = _world_sample(task, 0, settings)
        digest.update(one.sample.key.encode("ascii"))
        for image in one.images:
            digest.update(image.tobytes())
    return digest.hexdigest()[:32]


def _data_digest(data: Path) -> str:
    """Of a file its content; of a folder (raw annotations beside images) names and sizes. Not of the samples:
    boxes in pixels become samples only with their images, and images may be fetched between two runs."""
    digest = hashlib.sha256()
    if data.is_file():
        with open(data, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    else:
        for path in sorted(path for path in data.rglob("*") if path.is_file()):
            digest.update(f"{path.relative_to(data).as_posix()}\0{path.stat().st_size}\0".encode())
    return digest.hexdigest()[:32]


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _header_size(path: Path | None) -> SizeWH:
    try:
        return (0, 0) if path is None else image_size(path)
    except ImageFault:
        return 0, 0  # opening it for the model will say what is wrong
