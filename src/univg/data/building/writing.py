"""Write built tasks where a person can look at them.

DIR/samples.jsonl        one task a line; image paths are relative to DIR
DIR/images               copies of the pictures, and in `crops` the pieces cut out of them
DIR/contact-sheet.png    the first tasks with their boxes drawn

With shares for a validation or test side, the photographs are divided first, and each side is made of its own:

DIR/train.jsonl, DIR/validation.jsonl, DIR/test.jsonl
DIR/contact-sheet-train.png, …
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path, PurePosixPath

from PIL import Image

from univg.data.building.build import ALL_FAMILIES, TASK_FAMILIES, BuiltTask, Crop, Shortfall, build
from univg.data.detection import DETECTION, DetectionImage
from univg.data.dividing import divide_photographs
from univg.data.published import FaultBook, find_default_images
from univg.data.readers import ImageRoot, Source, detect
from univg.errors import UnivgError, offer
from univg.files import check_exists, check_writable, digest_file, replacing, unwritable
from univg.grounding.samples import GroundingSample, write_jsonl
from univg.pictures.drawing import (
    SHEET_CELLS,
    THUMB_PX,
    SheetCell,
    count_targets,
    draw_contact_sheet,
    draw_targets,
    fit,
    save_picture,
)
from univg.pictures.images import open_picture
from univg.terminal import progress

__all__ = ["BuildPlan", "Side", "write_tasks"]

UNDIVIDED = "samples"
SIDES = ("train", "validation", "test")


@dataclass(frozen=True)
class BuildPlan:
    """What to build: `n` tasks of `families` (default: all of one box and several images that the set allows).

    - `ordered`: the files of each folder are frames, in the order of their names.
    - `rename`: categories by other names, each as OLD=NEW.
    - `link`: hard-link images instead of copying them.
    - `format`: what the set is (a key of `DETECTION`), instead of finding out.
    - `longest`: shrink pictures whose longer side has more pixels.
    - `validation`, `test`: shares of the photographs, and of the `n` tasks, that are kept from training.
    """

    n: int
    seed: int = 0
    families: Sequence[str] = ()
    ordered: bool = False
    rename: Sequence[str] = ()
    link: bool = False
    format: str | None = None
    validation: float = 0.0
    test: float = 0.0
    longest: int | None = None

    @property
    def shares(self) -> dict[str, float]:
        """The sides to make and their shares; empty if there is one only."""
        kept = {"validation": self.validation, "test": self.test}
        shares = {"train": 1 - sum(kept.values()), **kept} if any(kept.values()) else {}
        return {side: share for side, share in shares.items() if share}


@dataclass(frozen=True)
class Side:
    """What was written of one side: its file and contact sheet, of how many photographs, and its tasks by family."""

    name: str
    file: Path
    sheet: Path
    wanted: int
    photographs: int
    families: Counter[str]


def write_tasks(file: Path, images: Path | None, out: Path, plan: BuildPlan, book: FaultBook) -> list[Side]:
    """Make tasks of a detection set and write them under `out`; return what each side holds.

    A shortfall is a note in `book`. Raises UnivgError for what cannot be read or written, an unknown family or
    category, photographs that cannot be divided, and if `out` holds tasks already.
    """
    names_of = _check(file, images, out, plan)
    root = ImageRoot(images or find_default_images(file))
    source = Source(file, root, book.add, book.notes.append)
    found = _rename(_choose_reader(file, plan.format)(source), names_of)
    if plan.ordered:
        found = [_put_in_sequence(image) for image in found]
    # Nobody misses tracks in a set of single images, unless they were asked for.
    has_videos = any(image.video is not None for image in found)
    families = plan.families or [name for name in TASK_FAMILIES if name != "object_tracking" or has_videos]
    parts = _divide(found, root, plan) if plan.shares else {UNDIVIDED: found}
    numbers = _share_out(plan)
    placed: dict[str, Path | Crop] = {}
    sides = []
    try:
        (out / "images").mkdir(parents=True, exist_ok=True)
        for name, photographs in parts.items():
            about = f"{name}: " if plan.shares else ""
            side = Side(
                name,
                out / f"{name}.jsonl",
                _name_sheet(out, name),
                numbers[name],
                len(photographs),
                Counter(),
            )
            told: list[Shortfall | str] = []
            tasks = build(photographs, side.wanted, plan.seed, families, told.append, told.append)
            _write_side(side, tasks, root, out, plan, placed, file.name)
            book.notes.extend(f"{about}{one}" for one in told)
            sides.append(side)
    except OSError as error:
        raise unwritable(out, error) from error
    return sides


def _check(file: Path, images: Path | None, out: Path, plan: BuildPlan) -> dict[str, str]:
    """Raise UnivgError for what can be known before the set is read; return the new names of categories."""
    unknown = sorted(set(plan.families) - set(ALL_FAMILIES))
    if unknown:
        raise UnivgError("no such task family", f"--family {unknown[0]}", offer(unknown[0], ALL_FAMILIES))
    check_exists(file)
    if images is not None and not images.is_dir():
        raise UnivgError("no such folder", images, "name the folder of the images")
    names_of = _read_renames(plan.rename)
    kept = plan.validation + plan.test
    if kept >= 1:
        raise UnivgError(
            "nothing is left to train on", f"--validation and --test are {kept:g}", "ask for less"
        )
    for side, number in _share_out(plan).items():
        if not number:
            share = plan.shares.get(side, 1)
            raise UnivgError(
                f"no task for {side}", f"{share:.3g} of --n {plan.n}", "ask for more tasks, or a larger share"
            )
    check_writable(out)
    for name in (UNDIVIDED, *SIDES):
        there = out / f"{name}.jsonl"
        if there.exists() and there.stat().st_size:
            raise UnivgError("tasks are here already", there, "choose another --out, or remove it")
    return names_of


def _share_out(plan: BuildPlan) -> dict[str, int]:
    """Return how many tasks each side gets; training what the others leave.

    >>> _share_out(BuildPlan(2000, validation=0.1, test=0.2))
    {'train': 1400, 'validation': 200, 'test': 400}
    """
    if not plan.shares:
        return {UNDIVIDED: plan.n}
    kept = {side: round(share * plan.n) for side, share in plan.shares.items() if side != "train"}
    return {"train": plan.n - sum(kept.values()), **kept}


def _divide(
    images: list[DetectionImage], root: ImageRoot, plan: BuildPlan
) -> dict[str, list[DetectionImage]]:
    with progress() as bar:
        compared = bar.track(images, description="comparing")
        sides, groups = divide_photographs(
            compared, plan.shares, plan.seed, lambda name: digest_file(root.path(name))
        )
    for side, some in sides.items():
        if not some:
            joined = f" in {len(groups)} groups of copies or frames of one video" * (
                len(groups) < len(images)
            )
            place = f"{len(images)} photographs{joined}, and a share of {plan.shares[side]:.3g}"
            remedy = "ask for a larger share, or bring more photographs"
            raise UnivgError(f"too few photographs for {side}", place, remedy)
    return sides


def _name_sheet(out: Path, side: str) -> Path:
    return out / ("contact-sheet.png" if side == UNDIVIDED else f"contact-sheet-{side}.png")


def _write_side(
    side: Side,
    tasks: Iterator[BuiltTask],
    root: ImageRoot,
    out: Path,
    plan: BuildPlan,
    placed: dict[str, Path | Crop],
    of: str,
) -> None:
    cells: list[SheetCell] = []
    label = f"{plan.seed}" if side.name == UNDIVIDED else f"{plan.seed}-{side.name}"
    with progress() as bar:
        shown = bar.track(tasks, total=side.wanted, description="tasks")
        samples = _write_pictures(shown, root, out, label, plan, placed, cells)
        written = write_jsonl(side.file, _count(samples, side.families))
    if cells:
        title = f"{written} tasks from {of} · seed {label}"
        sheet, _ = draw_contact_sheet(cells, title, of=written)
        save_picture(sheet, side.sheet)


def _count(samples: Iterable[GroundingSample], families: Counter[str]) -> Iterator[GroundingSample]:
    for sample in samples:
        families[sample.task] += 1
        yield sample


def _choose_reader(file: Path, named: str | None) -> Callable[[Source], list[DetectionImage]]:
    name = named or detect(file)
    if name not in DETECTION:
        fix = f"give a set of boxes with categories: {', '.join(DETECTION)}"
        raise UnivgError(f"no detection set, but {name}", f"--format {named}" if named else file, fix)
    return DETECTION[name]


def _read_renames(pairs: Sequence[str]) -> dict[str, str]:
    names = {}
    for pair in pairs:
        old, equals, new = pair.partition("=")
        if not (old and equals and new.strip()):
            remedy = "write --rename 'WBC=white blood cell'"
            raise UnivgError("not of the form OLD=NEW", f"--rename {pair}", remedy)
        names[old] = new.strip()
    return names


def _rename(images: list[DetectionImage], names: dict[str, str]) -> list[DetectionImage]:
    """Give categories other names; UnivgError for one that the set has not."""
    known = {instance.category for image in images for instance in image.instances}
    for old in names.keys() - known:
        there = f"the set has {', '.join(sorted(known)) or 'none'}"
        raise UnivgError("no such category", f"--rename {old}=…", there)
    return [
        replace(
            image,
            instances=tuple(replace(i, category=names.get(i.category, i.category)) for i in image.instances),
        )
        for image in images
    ]


def _put_in_sequence(image: DetectionImage) -> DetectionImage:
    """Make an image a frame of its folder, ordered by name."""
    folder, _, _ = image.name.rpartition("/")
    return replace(image, video=folder or ".")


def _write_pictures(
    tasks: Iterable[BuiltTask],
    root: ImageRoot,
    out: Path,
    label: str,
    plan: BuildPlan,
    placed: dict[str, Path | Crop],
    cells: list[SheetCell],
) -> Iterator[GroundingSample]:
    """Put each task's pictures in place before its line, and keep the first few for the contact sheet."""
    for number, task in enumerate(tasks):
        names = []
        for i, shot in enumerate(task.shown):
            if isinstance(shot, Crop):
                wanted = f"images/crops/{task.family}-{label}-{number}-{i + 1}.png"
                names.append(_name_apart(wanted, shot, placed))
                _cut(shot, root, out / names[-1], plan.longest)
            else:
                # A name may lead neither up nor to the root of the disk: nothing is written outside of our folder.
                parts = shot.name.replace("\\", "/").split("/")
                wanted = "/".join(["images", *(part for part in parts if part not in ("", ".", ".."))])
                path, n_placed = root.path(shot.name), len(placed)
                names.append(_name_apart(wanted, path, placed))
                if len(placed) > n_placed:
                    _place(path, out / names[-1], plan)
        if len(cells) < SHEET_CELLS:
            thumbs = [fit(open_picture(out / name).image, THUMB_PX) for name in names]
            title = f"{number + 1} · {task.family} · {task.category}"
            if task.complete:
                lines = [f"{title} · {count_targets(task.targets)}", task.query]
                cells.append((draw_targets(thumbs, task.targets), None, None, lines))
            else:
                cells.append((thumbs, task.box, task.target, [title, task.query]))
        yield task.sample(names, f"built#{label}-{number}")


def _name_apart(wanted: str, shot: Path | Crop, placed: dict[str, Path | Crop]) -> str:
    """Return the name of a picture under which no other of this run was put: the one wanted, or one like it."""
    path = PurePosixPath(wanted)
    tries = (str(path.with_name(f"{path.stem}-{number}{path.suffix}")) for number in count(2))
    name = next(name for name in chain([wanted], tries) if placed.get(name, shot) == shot)
    placed[name] = shot
    return name


def _place(path: Path, target: Path, plan: BuildPlan) -> None:
    """Put a picture in place; what lies there is of an earlier run, and maybe of another set."""
    if plan.longest is not None and max((image := open_picture(path).image).size) > plan.longest:
        _save(image, target, plan.longest)
        return
    with replacing(target) as partial:
        (os.link if plan.link else shutil.copyfile)(path, partial)


def _cut(crop: Crop, root: ImageRoot, target: Path, longest: int | None) -> None:
    image = open_picture(root.path(crop.image.name)).image
    width, height = image.size
    x1, y1, x2, y2 = crop.box
    corners = (round(x1 * width), round(y1 * height), round(x2 * width), round(y2 * height))
    _save(image.crop(corners), target, longest)


def _save(image: Image.Image, target: Path, longest: int | None) -> None:
    if longest is not None:
        image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_picture(image, target, quality=95)
