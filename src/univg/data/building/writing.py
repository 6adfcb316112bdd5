"""Write built tasks where a person can look at them.

DIR/samples.jsonl        one task a line; image paths are relative to DIR
DIR/images               copies of the pictures, and in `crops` the pieces cut out of them
DIR/contact-sheet.png    the first tasks with their boxes drawn
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path, PurePosixPath

from univg.data.building.build import TASK_FAMILIES, BuiltTask, Crop, build
from univg.data.detection import DETECTION, DetectionImage
from univg.data.published import FaultBook
from univg.data.readers import ImageRoot, Source, detect
from univg.errors import UnivgError
from univg.files import check_writable, replacing, unwritable
from univg.grounding.samples import GroundingSample, write_jsonl
from univg.pictures.drawing import SHEET_CELLS, THUMB_PX, SheetCell, draw_contact_sheet, fit, save_picture
from univg.pictures.images import open_picture
from univg.terminal import progress

__all__ = ["SAMPLES", "SHEET", "BuildPlan", "write_tasks"]

SAMPLES, SHEET = "samples.jsonl", "contact-sheet.png"


@dataclass(frozen=True)
class BuildPlan:
    """What to build: `n` tasks of `families` (default: all that the set allows).

    - `ordered`: the files of each folder are frames, in the order of their names.
    - `rename`: categories by other names, each as OLD=NEW.
    - `link`: hard-link images instead of copying them.
    - `format`: what the set is (a key of `DETECTION`), instead of finding out.
    """

    n: int
    seed: int = 0
    families: Sequence[str] = ()
    ordered: bool = False
    rename: Sequence[str] = ()
    link: bool = False
    format: str | None = None


def write_tasks(file: Path, images: Path | None, out: Path, plan: BuildPlan, book: FaultBook) -> int:
    """Make tasks of a detection set and write them under `out`; return how many.

    A shortfall is a note in `book`. Raises UnivgError for what cannot be read or written, an unknown family or
    category, and if `out` holds tasks already.
    """
    unknown = sorted(set(plan.families) - set(TASK_FAMILIES))
    if unknown:
        known = f"choose from {', '.join(TASK_FAMILIES)}"
        raise UnivgError("no such task family", f"--family {unknown[0]}", known)
    if not file.exists():
        raise UnivgError("no such file", file, "check the path")
    if images is not None and not images.is_dir():
        raise UnivgError("no such folder", images, "name the folder of the images")
    names_of = _read_renames(plan.rename)
    check_writable(out)
    samples_file = out / SAMPLES
    if samples_file.exists() and samples_file.stat().st_size:
        raise UnivgError("tasks are here already", samples_file, "choose another --out, or remove it")
    root = ImageRoot(images or (file if file.is_dir() else file.parent))
    source = Source(file, root, book.add, book.notes.append)
    found = _rename(_choose_reader(file, plan.format)(source), names_of)
    if plan.ordered:
        found = [_put_in_sequence(image) for image in found]
    # Nobody misses tracks in a set of single images, unless they were asked for.
    has_videos = any(image.video is not None for image in found)
    families = plan.families or [name for name in TASK_FAMILIES if name != "object_tracking" or has_videos]
    tasks = build(found, plan.n, plan.seed, families, lambda shortfall: book.notes.append(str(shortfall)))
    cells: list[SheetCell] = []
    try:
        (out / "images").mkdir(parents=True, exist_ok=True)
        with progress() as bar:
            shown = bar.track(tasks, total=plan.n, description="tasks")
            written = write_jsonl(samples_file, _write_pictures(shown, root, out, plan, cells))
        if cells:
            title = f"{written} tasks from {file.name} · seed {plan.seed} · the first {len(cells)} shown"
            save_picture(draw_contact_sheet(cells, 2, THUMB_PX, title), out / SHEET)
    except OSError as error:
        raise unwritable(out, error) from error
    return written


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
    tasks: Iterable[BuiltTask], root: ImageRoot, out: Path, plan: BuildPlan, cells: list[SheetCell]
) -> Iterator[GroundingSample]:
    """Put each task's pictures in place before its line, and keep the first few for the contact sheet."""
    placed: dict[str, Path | Crop] = {}
    for number, task in enumerate(tasks):
        names = []
        for i, shot in enumerate(task.shown):
            if isinstance(shot, Crop):
                wanted = f"images/crops/{task.family}-{plan.seed}-{number}-{i + 1}.png"
                names.append(_name_apart(wanted, shot, placed))
                _cut(shot, root, out / names[-1])
            else:
                # A name may lead neither up nor to the root of the disk: nothing is written outside of our folder.
                parts = shot.name.replace("\\", "/").split("/")
                wanted = "/".join(["images", *(part for part in parts if part not in ("", ".", ".."))])
                path, n_placed = root.path(shot.name), len(placed)
                names.append(_name_apart(wanted, path, placed))
                if len(placed) > n_placed:
                    _place(path, out / names[-1], plan.link)
        if len(cells) < SHEET_CELLS:
            thumbs = [fit(open_picture(out / name).image, THUMB_PX) for name in names]
            lines = [f"{number + 1} · {task.family} · {task.category}", task.query]
            cells.append((thumbs, task.box, task.target, lines))
        yield task.sample(names, f"built#{plan.seed}-{number}")


def _name_apart(wanted: str, shot: Path | Crop, placed: dict[str, Path | Crop]) -> str:
    """Return the name of a picture under which no other of this run was put: the one wanted, or one like it."""
    path = PurePosixPath(wanted)
    tries = (str(path.with_name(f"{path.stem}-{number}{path.suffix}")) for number in count(2))
    name = next(name for name in chain([wanted], tries) if placed.get(name, shot) == shot)
    placed[name] = shot
    return name


def _place(path: Path, target: Path, link: bool) -> None:
    """Put a picture in place; what lies there is of an earlier run, and maybe of another set."""
    with replacing(target) as partial:
        (os.link if link else shutil.copyfile)(path, partial)


def _cut(crop: Crop, root: ImageRoot, target: Path) -> None:
    image = open_picture(root.path(crop.image.name)).image
    width, height = image.size
    x1, y1, x2, y2 = crop.box
    corners = (round(x1 * width), round(y1 * height), round(x2 * width), round(y2 * height))
    target.parent.mkdir(parents=True, exist_ok=True)
    save_picture(image.crop(corners), target)
