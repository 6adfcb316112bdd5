"""`univg data validate`: everything about a file that would stop or spoil a run, before any GPU starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from univg.cli.data_reading import FaultBook, chosen_format, progress_bar, samples_of, screen
from univg.cli.data_tokens import TokenCounter
from univg.data.formats.image_root import image_size
from univg.data.formats.scale import box_fault
from univg.data.readers import READERS, ImageRoot, RecordFault
from univg.errors import UnivgError
from univg.grounding.boxes import SizeWH
from univg.grounding.samples import GroundingSample
from univg.pictures.images import ImageFault, open_picture

_AT_ONCE = 2048


@dataclass(frozen=True)
class Check:
    """What `univg data validate` was asked."""

    file: Path
    images: Path | None = None
    name: str | None = None
    workers: int = 4
    headers_only: bool = False
    max_tokens: int = 6000
    min_pixels: int = 3136
    max_pixels: int = 401408
    tokenizer: Path | None = None
    out: Path | None = None


@dataclass(frozen=True)
class ImageState:
    """What became of an image: its size, or what is wrong with it."""

    size_wh: SizeWH | None
    kind: str = ""
    cause: str = ""
    fix: str = ""


def run(check: Check) -> int:
    """Report on stdout; returns how many faults were found."""
    name = chosen_format(check.file, check.name)
    console = screen()
    with ExitStack() as stack:
        try:
            file = stack.enter_context(check.out.open("w", encoding="utf-8")) if check.out else None
        except OSError as error:
            raise UnivgError(
                f"cannot be written ({error.strerror}): {check.out}: name another --out"
            ) from error
        book = FaultBook(file)
        n_samples, images = _first_pass(check, name, book)
        if check.images is not None:
            states = check_images(images, check.images, check.workers, check.headers_only)
            _second_pass(check, name, states, book)
    console.print(f"{check.file}: {name} ({READERS[name].title})")
    found = "1 fault" if len(book) == 1 else f"{len(book)} faults" if len(book) else "no faults"
    console.print(f"{n_samples} samples of {len(images)} images, {book.left_out} unusable, {found}")
    if check.images is None:
        book.note("images and prompt lengths were not checked: name their folder with --images")
    book.tell(console)
    if check.out is not None:
        console.print(f"all faults, one a line: {check.out}")
    return len(book)


def _first_pass(check: Check, name: str, book: FaultBook) -> tuple[int, list[str]]:
    """What the file itself tells: unusable records, boxes. Returns the number of samples, and their images."""
    images: dict[str, None] = {}
    n_samples = 0
    for sample in samples_of(check.file, name, check.images, book):
        n_samples += 1
        images.update(dict.fromkeys(sample.images))
        for fault in box_faults(sample):
            book.fault(fault)
    return n_samples, list(images)


def box_faults(sample: GroundingSample) -> Iterator[RecordFault]:
    """What is wrong with a sample's boxes; the sample is usable all the same."""
    for box in sample.boxes:
        found = box_fault(box)
        if found is not None:
            yield RecordFault(sample.source, *found, usable=True)


def check_images(
    names: Iterable[str], folder: Path, workers: int, headers_only: bool = False
) -> dict[str, ImageState]:
    """The state of every image, each opened once, in parallel (decoding leaves the interpreter's lock)."""
    root, names = ImageRoot(folder), list(names)
    states: dict[str, ImageState] = {}
    rest = iter(names)
    with (
        progress_bar("images", len(names)) as advance,
        ThreadPoolExecutor(max(1, workers)) as pool,
    ):
        while some := list(islice(rest, _AT_ONCE)):
            for name, state in zip(
                some, pool.map(lambda n: _state(root, n, headers_only), some), strict=True
            ):
                states[name] = state
                advance()
    return states


def _state(root: ImageRoot, name: str, headers_only: bool) -> ImageState:
    path = root.find(name)
    if path is None:
        return ImageState(None, "missing_image", f"no {name} under {root.folder}")
    try:
        return ImageState(image_size(path) if headers_only else open_picture(path).image.size)
    except ImageFault as error:
        return ImageState(None, "bad_image", f"{name}: {error.cause}", error.remedy)


def _second_pass(check: Check, name: str, states: dict[str, ImageState], book: FaultBook) -> None:
    """What images say about records: those that miss one, and those whose prompt is too long."""
    counter = TokenCounter(check.min_pixels, check.max_pixels, check.tokenizer)
    quiet = FaultBook()  # the first pass has told what reading finds
    for sample in samples_of(check.file, name, check.images, quiet, "comparing"):
        bad = [states[image] for image in sample.images if states[image].size_wh is None]
        for state in bad:
            book.fault(RecordFault(sample.source, state.kind, state.cause, state.fix, usable=True))
        sizes = [size for image in sample.images if (size := states[image].size_wh) is not None]
        tokens = counter.prompt(sample, sizes)
        if tokens > check.max_tokens:
            cause = f"about {tokens} tokens, and {check.max_tokens} are allowed"
            book.fault(RecordFault(sample.source, "too_many_tokens", cause, usable=True))
