"""What is evaluated: benchmarks by name, each a data set.

`world` and `world_unseen` are drawn on the fly, as are the first world's `world_v1` and `world_v1_unseen`, and
`world_drawn`, whose pictures other programs draw; every other benchmark is a published file that a reader of
`univg.data.readers` turns into samples, and a folder of images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from univg.data.dataset import Dataset, Item
from univg.data.fetching import SETS
from univg.data.readers import READERS, ImageRoot, RecordFault, detect
from univg.errors import UnivgError, offer, one_line
from univg.files import canonical, check_exists
from univg.world import (
    ALL_FAMILIES,
    DEFAULT_DIFFICULTY,
    DRAWN,
    DRAWN_FAMILIES,
    SIZES,
    Size,
    Split,
    list_families,
    list_programs,
    make_sample,
    settle_size,
)

__all__ = [
    "FORMATS",
    "WORLDS",
    "WORLD_N",
    "ZERO_SHOT",
    "ZERO_SHOT_MAX_PIXELS",
    "check_images",
    "choose_tasks",
    "find_formats",
    "open_file",
    "open_world",
]

WORLDS: Mapping[str, tuple[Split, int]] = {
    "world": ("test", 2),
    "world_unseen": ("unseen", 2),
    "world_drawn": ("drawn", 2),
    "world_v1": ("test", 1),
    "world_v1_unseen": ("unseen", 1),
}
"""The split and the version of the world that each name stands for."""
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


def open_world(
    name: str,
    n: int = WORLD_N,
    seed: int = 0,
    difficulty: float = DEFAULT_DIFFICULTY,
    size_px: Size | None = None,
    tasks: Sequence[str] = (),
) -> Dataset:
    """Open `n` samples of each family of the world's test, unseen or drawn part; images of `size_px` on the longer side
    (default: `SIZES`, of version 1 120).

    `tasks`: the families (default: all of one box; "sets": all of sets). The first samples do not depend on `n`.
    Raises UnivgError for a name or task that the world lacks.
    """
    if name not in WORLDS:
        raise UnivgError(f"no world {name!r}", remedy=offer(name, WORLDS))
    split, version = WORLDS[name]
    size_px = settle_size(SIZES if size_px is None and version > 1 else size_px, version)
    known = DRAWN_FAMILIES if split == DRAWN else ALL_FAMILIES
    families = choose_tasks(list_families(tasks, split), list(known))

    def content() -> Iterator[str | bytes]:
        """Return the settings, and one sample a family: words or pixels drawn otherwise are other data."""
        yield canonical({"split": split, "seed": seed, "difficulty": difficulty, "size_px": size_px})
        if split == DRAWN:
            yield canonical(list(list_programs()))
        for family in dict.fromkeys((*list_families(split=split), *families)):
            made = make_sample(family, split, seed, 0, difficulty, size_px, version)
            yield made.sample.key
            yield from (image.tobytes() for image in made.images)

    data = Dataset.from_world(n * len(families), split, seed, families, difficulty, size_px, version)
    return replace(data, name=name, content=content)


def open_file(
    name: str, data: Path, images: Path, n: int | None = None, tasks: Sequence[str] = ()
) -> Dataset:
    """Open the benchmark `name` in the published file `data`, its images under `images`; `n`: the first of each task.

    The digest is that of the whole file, so that a run can be extended. A sample that comes twice has the key KEY-2
    the second time (the public MIG-Bench file holds some). Raises UnivgError for an unknown name, a file that cannot
    be read, or one without samples.
    """
    formats = find_formats(name)
    check_exists(data)
    if not images.is_dir():
        raise UnivgError("no such folder", images, _say_fetching(name, images))
    found = formats[0] if len(formats) == 1 else detect(data)
    whole = Dataset.from_file(data, found, images) if found in formats else None
    if whole is None or not whole.total:
        found = detect(data)  # of a file that the named format finds nothing in
        if found not in formats:
            remedy = f"give its file, or --benchmark {found}"
            raise UnivgError(f"{READERS[found].title}, not {name}", data, remedy)
        _refuse_empty(whole.faults if whole else (), data)
    items = list(whole.items())
    wanted = choose_tasks(tasks, list(dict.fromkeys(item.sample.task for item in items)))
    seen: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    chosen: list[Item] = []
    for item in items:
        seen[item.key] += 1
        if item.sample.task in wanted and (n is None or taken[item.sample.task] < n):
            taken[item.sample.task] += 1
            number = seen[item.key]
            chosen.append(item if number == 1 else replace(item, key=f"{item.key}-{number}"))
    return replace(whole, name=name, total=len(chosen), item=chosen.__getitem__)


def _refuse_empty(faults: Sequence[RecordFault], data: Path) -> NoReturn:
    first = f"; the first: {one_line(faults[0].record)}: {one_line(faults[0].cause)}" if faults else ""
    remedy = faults[0].fix if faults else "see `univg data validate`"
    raise UnivgError(f"no usable sample ({len(faults)} faults{first})", data, remedy)


def check_images(benchmark: Dataset, images: Path) -> str:
    """Say how many images of a benchmark are not there, and how to get them; "" if all are.

    Raises UnivgError if none is.
    """
    names = list(dict.fromkeys(name for item in benchmark.items() for name in item.sample.images))
    root = ImageRoot(images)
    root.expect(lambda: names)
    missing = sum(root.find(name) is None for name in names)
    if not missing:
        return ""
    remedy = _say_fetching(benchmark.name, images)
    if missing == len(names):
        raise UnivgError(f"none of the benchmark's {missing} images is there", images, remedy)
    return f"{missing} of {len(names)} images are not under {images}, and their samples are not evaluated: {remedy}"


def _say_fetching(name: str, images: Path) -> str:
    remedy = "name the folder that the images are in with --images"
    fetch = f"`univg data fetch {name} --out {images} --yes` fetches the images"
    return f"{fetch}, or {remedy}" if name in SETS else remedy


def find_formats(name: str) -> tuple[str, ...]:
    """Return the formats that the files of benchmark `name` come in. Raises UnivgError for a name that is none.

    >>> find_formats("lisa_val"), find_formats("univg")
    (('lisa', 'reasonseg_raw'), ('univg',))
    """
    formats = FORMATS.get(name, (name,) if name in READERS else ())
    if not formats:
        known = dict.fromkeys([*WORLDS, *FORMATS, *READERS])
        raise UnivgError(f"no benchmark {name!r}", remedy=offer(name, known))
    return formats


def choose_tasks(wanted: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return those of the tasks `known` that are `wanted`, all if none is named. Raises UnivgError for another."""
    for task in wanted:
        if task not in known:
            raise UnivgError(f"no task {task!r} in this benchmark", remedy=offer(task, known))
    return [task for task in known if task in wanted or not wanted]
