"""Run `univg data convert`: a set in the format of another framework."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from univg.cli.data.reading import ReadCommand, print_faults, say_replaced
from univg.cli.verbs import Parameter, make_verb
from univg.errors import UnivgError, offer
from univg.grounding.boxes import SizeWH

if TYPE_CHECKING:
    from univg.data.readers import ImageRoot
    from univg.grounding.samples import GroundingSample

_ANSWERED = ("sharegpt", "llamafactory", "trl", "verl", "easyr1")
"""Formats that hold an answer in words, of one box where a sample is no set."""
_STOCK_PIXELS = (3136, 16384 * 28**2)
"""What the files of stock Qwen2.5-VL models, and qwen-vl-utils, let a picture have."""


class ConvertCommand(ReadCommand):
    """What `univg data convert` takes."""

    to: Literal[
        "jsonl",
        "sharegpt",
        "llamafactory",
        "trl",
        "verl",
        "easyr1",
        "ms_swift",
        "yolo",
        "coco",
        "label_studio",
        "fiftyone",
    ] = Field(description="The format to write.")
    out: Annotated[Path, Parameter(metavar="PATH")] = Field(description="The file or folder to write.")
    style: Literal["think", "direct"] = Field(
        default="think", description="Ask for a thought and a box, or for a box alone."
    )
    family: str = Field(
        default="qwen2_vl",
        description="Write boxes as this family of models does (sharegpt, llamafactory, trl, verl, easyr1).",
    )
    max_pixels: int = Field(
        default=401408,
        ge=3136,
        description="What the trainer lets a picture have, where the family writes pixels.",
    )
    embed_images: Annotated[bool, Parameter(negative="")] = Field(
        default=False, description="Put images into the rows (verl, easyr1)."
    )
    link: Annotated[bool, Parameter(negative="")] = Field(
        default=False, description="Hard-link images instead of copying them (folders)."
    )
    split: Literal["train", "val", "test"] = Field(
        default="train", description="Which part of the set this is (yolo, coco)."
    )
    category: Annotated[str | None, Parameter(metavar="NAME")] = Field(
        default=None, description="One name for all that is boxed (default: what samples say)."
    )
    image_url: Annotated[str | None, Parameter(metavar="URL")] = Field(
        default=None, description="What images' addresses begin with (label_studio; default: local files)."
    )


def convert(command: ConvertCommand) -> int:
    """Write a set in another program's format. What cannot be written is told; exit code 1 then."""
    from univg.data.exports import Export, export
    from univg.data.published import FaultBook
    from univg.data.readers import ImageRoot
    from univg.files import unwritable
    from univg.terminal import results

    to, out = command.to, command.out
    check_out(to, out)
    if command.embed_images and (command.images is None or to not in ("verl", "easyr1")):
        cause = "images can be embedded for verl and easyr1, with --images"
        raise UnivgError(cause, "--embed-images", "leave it out")
    if command.category is not None and not command.category.strip():
        raise UnivgError("a category has a name", "--category", "name what is boxed, or leave it out")
    root = None if command.images is None else ImageRoot(command.images, command.file)
    seen = find_seen(command, root)
    replaced = say_replaced(out)
    book = FaultBook()
    several = 0

    def counted(samples: Iterable[GroundingSample]) -> Iterator[GroundingSample]:
        nonlocal several
        for sample in samples:
            several += len(sample.boxes) > 1 and not sample.complete
            yield sample

    samples = counted(command.open().read(book, "converting"))
    how = Export(
        *(command.style, root, command.embed_images, book.add, book.notes.append),
        *(command.link, command.split, command.category, command.image_url, seen),
    )
    try:
        written = export(samples, to, out, how)
    except OSError as error:
        raise unwritable(out, error) from error
    console = results()
    console.print(f"{written} samples  {out}{replaced}")
    if seen is not None:
        console.print(
            f"pixels      of pictures of at most {command.max_pixels:,} pixels: let the trainer allow as many"
        )
    if several and to in _ANSWERED:
        told = f"{several} samples with several boxes are answered by their first: where all are asked for, --complete"
        console.print(f"note        {told}")
    if to == "llamafactory":
        console.print(f"entry       {out.with_name('dataset_info.json')} (dataset: {out.stem})")
    print_faults(book, console)
    if not written:
        console.print(f"no record could be written{': the file is empty' if out.suffix else ''}")
    return int(bool(book.left_out) or not written)


def find_seen(command: ConvertCommand, root: ImageRoot | None) -> Callable[[str], SizeWH] | None:
    """Return how large the family sees the picture of a name, where it writes pixels of that; each is measured once.
    Raises UnivgError for no family, and for a format whose boxes are its own."""
    from univg.data.exports import Export
    from univg.data.exports.pictures import Pictures
    from univg.models.families import MODEL_FAMILIES

    if command.family not in MODEL_FAMILIES:
        remedy = offer(command.family, MODEL_FAMILIES)
        raise UnivgError("no such family", f"--family {command.family}", remedy)
    family = MODEL_FAMILIES[command.family]
    if family.frame != "pixel":
        return None
    if command.to not in _ANSWERED:
        cause = f"{command.to} has coordinates of its own, whatever is trained"
        raise UnivgError(cause, f"--family {command.family}", "leave it out")
    pictures, settings = Pictures(Export(images=root)), (command.to, command.max_pixels, family.factor)
    return lambda name: measure_seen(*settings, pictures.find(name).size_wh)


def measure_seen(to: str, max_pixels: int, factor: int, size_wh: SizeWH) -> SizeWH:
    """Return how large the model sees a picture in the trainer that reads the format `to`.

    Most shrink it before the processor of the checkpoint does: LLaMA-Factory (`_preprocess_image`) and EasyR1
    (`process_image`) to at most `max_pixels` and no multiples of anything; verl's qwen-vl-utils only rounds it. TRL
    leaves it to the processor, whose limit `max_pixels` is there, as in verl. Raises ValueError as `PixelBudget` does.

    >>> [measure_seen(to, 401_408, 28, (1920, 1080)) for to in ("llamafactory", "verl", "trl")]
    [(840, 476), (840, 476), (840, 448)]
    """
    from univg.models.pixels import PixelBudget

    stock, budget = PixelBudget(*_STOCK_PIXELS), PixelBudget().up_to(max_pixels)
    if to == "trl":
        return budget.resized(size_wh, factor)
    if to == "verl":
        return budget.resized(stock.resized(size_wh, factor), factor)
    width, height = size_wh
    if width * height > max_pixels:
        shrink = math.sqrt(max_pixels / (width * height))
        size_wh = int(width * shrink), int(height * shrink)
    return stock.resized(size_wh, factor)


def check_out(to: str, out: Path) -> None:
    """Raise UnivgError unless `out` is named as files or folders of the format are."""
    from univg.data.exports import SUFFIXES

    suffix, given = SUFFIXES[to], out.suffix
    if given == suffix or (to == "coco" and not given):
        return
    if suffix:
        remedy = f"name it {out.with_suffix(suffix)}"
        raise UnivgError(f"{to} files end in {suffix}", f"--out {out}", remedy)
    if given in SUFFIXES.values():
        raise UnivgError(f"{to} is a folder", f"--out {out}", f"name it {out.with_suffix('')}")


app = make_verb(
    "data convert",
    ConvertCommand,
    convert,
    example="univg data convert MIG_data.json --to trl --out mig.jsonl",
)
