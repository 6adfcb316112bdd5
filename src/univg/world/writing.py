"""Write samples of the procedural world where a person can look at them.

DIR/samples.jsonl        one sample a line; image paths are relative to DIR
DIR/images/*.png
DIR/contact-sheet.png    the first samples with their boxes drawn
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from univg.errors import UnivgError, offer
from univg.files import check_writable, unwritable
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
from univg.terminal import progress
from univg.world import (
    ALL_FAMILIES,
    DEFAULT_DIFFICULTY,
    DRAWN,
    DRAWN_FAMILIES,
    FAMILIES,
    FAMILY_NAMES,
    SETS,
    SIZES,
    SOURCE,
    WORLD_VERSION,
    Size,
    Split,
    WorldSample,
    stream,
)

__all__ = ["write_world"]

FIRST_WRITTEN_PX = 448
SAMPLES, SHEET = "samples.jsonl", "contact-sheet.png"
_IMAGE = re.compile(rf"images/(v\d+-)?(train|test|unseen|drawn)-({'|'.join(ALL_FAMILIES)})-\d+-\d+-\d+\.png")


def write_world(
    out: Path,
    n: int = len(FAMILIES),
    split: Split = "train",
    seed: int = 0,
    families: Sequence[str] = (),
    size: Size | None = None,
    difficulty: float = DEFAULT_DIFFICULTY,
    version: int = WORLD_VERSION,
) -> int:
    """Write `n` samples under `out`, the families (default: all of one box) in turn; return how many were written.

    `size`: the images' longer side, one number or the least and the greatest (default: `SIZES`; of version 1 448).
    What an earlier run wrote there is replaced. Raises UnivgError for an unknown family, a folder that cannot be
    written, or one that holds anything else.
    """
    known = (*DRAWN_FAMILIES, SETS) if split == DRAWN else FAMILY_NAMES
    unknown = sorted(set(families) - set(known))
    if unknown:
        raise UnivgError("no such task family", f"--family {unknown[0]}", offer(unknown[0], known))
    if split == DRAWN and version == 1:
        raise UnivgError(f"the split {DRAWN} is newer than version 1", remedy="leave out --world-version")
    check_writable(out)
    size = size or (FIRST_WRITTEN_PX if version == 1 else SIZES)
    samples = islice(stream(split, seed, families, difficulty, size, version), n)
    cells: list[SheetCell] = []
    try:
        _clear(out)
        (out / "images").mkdir(parents=True, exist_ok=True)
        with progress() as bar:
            shown = bar.track(samples, total=n, description="world")
            written = write_jsonl(out / SAMPLES, _save_images(shown, out, cells))
        title = f"{written} samples · {split} · seed {seed} · difficulty {difficulty:g}"
        sheet, _ = draw_contact_sheet(cells, title, of=written)
        save_picture(sheet, out / SHEET)
    except OSError as error:
        raise unwritable(out, error) from error
    return written


def _clear(out: Path) -> None:
    """Remove what an earlier run wrote: its images would stand among the new ones. Any other file is refused."""
    if not out.exists():
        return
    found = [path for path in sorted(out.rglob("*")) if not path.is_dir()]
    others = [path for path in found if not _is_ours(path, out)]
    if others:
        found_there = f"the folder holds something else ({others[0].relative_to(out)})"
        raise UnivgError(found_there, out, "give --out an empty or new folder")
    # The list of samples goes last: killed before that, the folder is still known for what it is.
    for path in sorted(found, key=lambda path: path.name == SAMPLES):
        path.unlink()


def _is_ours(path: Path, out: Path) -> bool:
    name = path.relative_to(out).as_posix()
    if name == SAMPLES:
        with open(path, encoding="utf-8", errors="replace") as file:
            return f'"source": "{SOURCE}' in file.readline()
    cut_off = path.name.startswith(".") and (SAMPLES in path.name or ".png" in path.name)
    return name == SHEET or _IMAGE.fullmatch(name) is not None or cut_off


def _save_images(
    samples: Iterable[WorldSample], out: Path, cells: list[SheetCell]
) -> Iterator[GroundingSample]:
    """Write each sample's images before its line, and keep the first few for the contact sheet."""
    for made in samples:
        sample = made.sample
        for name, image in zip(sample.images, made.images, strict=True):
            save_picture(image, out / name)
        if len(cells) < SHEET_CELLS:
            thumbs = [fit(image, THUMB_PX) for image in made.images]
            number = f" · {count_targets(sample.targets)}" if sample.complete else ""
            title = f"{len(cells) + 1} · {sample.task}{number}"
            lines = [title, sample.query, sample.thought or "", sample.key]
            if sample.complete:
                cells.append((draw_targets(thumbs, sample.targets), None, None, lines))
            else:
                cells.append((thumbs, sample.boxes[0], sample.target_image, lines))
        yield sample
