"""`univg data convert`, `split` and `build`: new files out of what was read."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from univg.cli.data_reading import FaultBook, chosen_format, progress_bar, samples_of, screen, told
from univg.data.building.build import TASK_FAMILIES, BuiltTask, Crop, build
from univg.data.exports import SUFFIXES, Export, export
from univg.data.readers import ImageRoot, Source
from univg.data.readers.detection import DetectionImage, read_detection
from univg.data.splitting import split_by_image
from univg.errors import UnivgError
from univg.files import check_writable, unwritable
from univg.grounding.prompts import PromptStyle
from univg.grounding.samples import GroundingSample, write_jsonl
from univg.pictures.drawing import SheetCell, contact_sheet, fit, save_atomically
from univg.pictures.images import ImageFault, open_picture

SHEET_CELLS = 60
THUMB_PX = 220


def convert(
    file: Path, to: str, out: Path, name: str | None, images: Path | None, style: PromptStyle, embed: bool
) -> int:
    """Write `file` in another format; returns how many records could not be written."""
    if out.suffix != SUFFIXES[to]:
        raise UnivgError(
            f"{to} files end in {SUFFIXES[to]}: --out {out}: name it {out.with_suffix(SUFFIXES[to])}"
        )
    if embed and (images is None or to not in ("verl", "easyr1")):
        raise UnivgError(
            "images can be embedded for verl and easyr1, with --images: --embed-images: leave it out"
        )
    kind, book = chosen_format(file, name), FaultBook()
    how = Export(style, ImageRoot(images) if images is not None else None, embed, book.fault)
    try:
        with told():
            written = export(samples_of(file, kind, images, book, "converting"), to, out, how)
    except OSError as error:
        raise unwritable(out, error) from error
    console = screen()
    console.print(f"{written} samples  {out}")
    if to == "llamafactory":
        console.print(f"entry       {out.with_name('dataset_info.json')} (dataset: {out.stem})")
    book.tell(console)
    if not written:
        console.print("no record could be written: the file is empty")
    return book.left_out + (not written)


def split(file: Path, out: Path, share: float, seed: int, name: str | None, images: Path | None) -> int:
    """Write DIR/train.jsonl and DIR/test.jsonl without a shared picture; returns how many records were unusable."""
    kind, book = chosen_format(file, name), FaultBook()
    identify = _by_content(images) if images is not None else str
    with told():
        found = split_by_image(samples_of(file, kind, images, book, "grouping"), share, seed, identify)
    counts: Counter[str] = Counter()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for side in ("train", "test"):
            quiet = FaultBook()
            every = samples_of(file, kind, images, quiet, f"writing {side}")
            chosen = (sample for sample in every if found.is_test(sample) == (side == "test"))
            counts[side] = write_jsonl(out / f"{side}.jsonl", chosen)
    except OSError as error:
        raise unwritable(out, error) from error
    console = screen()
    for side in ("train", "test"):
        console.print(f"{counts[side]} samples  {out / f'{side}.jsonl'}")
    share_made = counts["test"] / max(1, counts.total())
    how = "file content" if images is not None else "path"
    console.print(
        f"{found.groups} groups of samples that share pictures (compared by {how}), the largest of "
        f"{found.largest}; test share {share_made:.1%}, asked for {share:.1%}"
    )
    book.tell(console)
    return book.left_out


def _by_content(folder: Path) -> Callable[[str], str]:
    """Identify an image by its bytes: the same picture under two names is one picture."""
    root = ImageRoot(folder)

    @cache
    def identify(name: str) -> str:
        path = root.find(name)
        if path is None:
            raise UnivgError(
                f"no such image under {folder}: {name}: check --images, or leave it out to compare paths"
            )
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return identify


# --- build ---


def build_tasks(
    file: Path,
    images: Path | None,
    out: Path,
    n: int,
    seed: int,
    families: Sequence[str],
    ordered: bool,
    link: bool,
    rename: Sequence[str] = (),
) -> int:
    """Write DIR/samples.jsonl, DIR/images and DIR/contact-sheet.png; returns how many tasks are lacking."""
    unknown = sorted(set(families) - set(TASK_FAMILIES))
    if unknown:
        raise UnivgError(
            f"no such task family: --family {unknown[0]}: choose from {', '.join(TASK_FAMILIES)}"
        )
    if not file.exists():
        raise UnivgError(f"no such file: {file}: check the path")
    if images is not None and not images.is_dir():
        raise UnivgError(f"no such folder: {images}: name the folder of the images")
    folder = images or (file if file.is_dir() else file.parent)
    names_of = _renames(rename)
    check_writable(out)
    if (out / "samples.jsonl").exists() and (out / "samples.jsonl").stat().st_size:
        raise UnivgError(
            f"tasks are here already: {out / 'samples.jsonl'}: choose another --out, or remove it"
        )
    book, root = FaultBook(), ImageRoot(folder)
    with told():
        found = read_detection(Source(file, root, book.fault, book.note))
    found = _renamed(found, names_of)
    if ordered:
        found = [_in_sequence(image) for image in found]
    names = [
        name
        for name in (families or TASK_FAMILIES)
        if families or name != "object_tracking" or _has_videos(found)
    ]
    cells: list[SheetCell] = []
    lacking: list[str] = []
    try:
        (out / "images").mkdir(parents=True, exist_ok=True)
        with progress_bar("tasks", n) as advance:
            tasks = build(found, n, seed, names, lambda shortfall: lacking.append(str(shortfall)))
            samples = _written(tasks, root, out, seed, link, cells, advance)
            written = write_jsonl(out / "samples.jsonl", samples)
        console = screen()
        console.print(f"{written} samples  {out / 'samples.jsonl'}")
        console.print(f"images      {out / 'images'}")
        if cells:
            title = f"{written} tasks from {file.name} · seed {seed} · the first {len(cells)} shown"
            sheet = save_atomically(contact_sheet(cells, 2, THUMB_PX, title), out / "contact-sheet.png")
            console.print(f"to look at  {sheet}")
    except OSError as error:
        raise unwritable(out, error) from error
    for line in lacking:
        console.print(f"note: {line}")
    book.tell(console)
    return n - written


def _renames(pairs: Sequence[str]) -> dict[str, str]:
    names = {}
    for pair in pairs:
        old, equals, new = pair.partition("=")
        if not (old and equals and new.strip()):
            raise UnivgError(
                f"not of the form OLD=NEW: --rename {pair}: write --rename 'WBC=white blood cell'"
            )
        names[old] = new.strip()
    return names


def _renamed(images: list[DetectionImage], names: dict[str, str]) -> list[DetectionImage]:
    """The images with other names for categories; `UnivgError` for one that the set has not."""
    known = {instance.category for image in images for instance in image.instances}
    for old in names.keys() - known:
        raise UnivgError(
            f"no such category: --rename {old}=…: the set has {', '.join(sorted(known)) or 'none'}"
        )
    return [
        replace(
            image,
            instances=tuple(replace(i, category=names.get(i.category, i.category)) for i in image.instances),
        )
        for image in images
    ]


def _has_videos(images: Sequence[DetectionImage]) -> bool:
    return any(image.video is not None for image in images)


def _in_sequence(image: DetectionImage) -> DetectionImage:
    """An image as a frame of its folder, ordered by name."""
    folder, _, _ = image.name.rpartition("/")
    return DetectionImage(
        image.name, image.record, image.size_wh, image.instances, folder or ".", image.frame
    )


def _written(
    tasks: Iterable[BuiltTask],
    root: ImageRoot,
    out: Path,
    seed: int,
    link: bool,
    cells: list[SheetCell],
    advance: Callable[[], None],
) -> Iterator[GroundingSample]:
    """Put each task's pictures in place before its line, and keep the first few for the contact sheet."""
    for number, task in enumerate(tasks):
        names = []
        for i, shot in enumerate(task.shown):
            if isinstance(shot, Crop):
                names.append(f"images/crops/{task.family}-{seed}-{number}-{i + 1}.png")
                _cut(shot, root, out / names[-1])
            else:
                names.append(f"images/{_inside(shot.name)}")
                _place(root.path(shot.name), out / names[-1], link)
        sample = task.sample(names, f"built#{seed}-{number}")
        if len(cells) < SHEET_CELLS:
            thumbs = [fit(open_picture(out / name).image, THUMB_PX) for name in names]
            lines = [f"{number + 1} · {task.family} · {task.category}", task.query]
            cells.append((thumbs, task.box, task.target, lines))
        advance()
        yield sample


def _inside(name: str) -> str:
    """A path as it lies under our folder of images: nothing may lead out of it."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", ".", ".."))


def _place(path: Path, target: Path, link: bool) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    if link:
        os.link(path, part)
    else:
        shutil.copyfile(path, part)
    part.replace(target)


def _cut(crop: Crop, root: ImageRoot, target: Path) -> None:
    try:
        image = open_picture(root.path(crop.image.name)).image
    except ImageFault as error:
        raise UnivgError(str(error)) from error
    width, height = image.size
    x1, y1, x2, y2 = crop.box
    corners = (round(x1 * width), round(y1 * height), round(x2 * width), round(y2 * height))
    target.parent.mkdir(parents=True, exist_ok=True)
    save_atomically(image.crop(corners), target)
