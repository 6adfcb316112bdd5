"""Run `univg ground`: a question about several images, answered with a thought and boxes drawn on the right image.

The order of the checks is the order of their cost: arguments, image files and the output folder first, then torch and
the model. What is wrong is said before anybody waits for it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from univg.cli.verbs import Command, Parameter, make_verb
from univg.errors import UnivgError, one_line
from univg.models.checkpoint import EMBEDDED
from univg.models.conventions import list_choices
from univg.models.familiarity import EMBEDDED_NOTE, PHOTO_MODEL, note_strange_images
from univg.models.families import AskedStyle, settle_style

if TYPE_CHECKING:
    from PIL import Image
    from rich.console import Console

    from univg.models.grounder import GroundedBox, Grounder, Grounding
    from univg.pictures.images import Picture

DEFAULT_OUT = Path("univg-out")


class GroundCommand(Command):
    """What `univg ground` takes."""

    positional: ClassVar[str | None] = "images"

    images: Annotated[tuple[str, ...], Parameter(metavar="IMAGE")] = Field(
        default=(), description="Image files, in the order in which the question speaks of them."
    )
    query: Annotated[str, Parameter(alias="-q")] = Field(default="", description="The question.")
    find_all: Annotated[bool, Parameter(name="--all", negative="")] = Field(
        default=False, description="Ask for every one that fits, on whichever images, or that none does."
    )
    model: str = Field(
        default="embedded", description=f"A checkpoint folder or hub name; for photographs {PHOTO_MODEL}."
    )
    samples: int = Field(default=1, description="Draw k responses; the box they agree on most is the answer.")
    seed: int = Field(default=0, description="Seed of the draws with --samples.")
    dtype: str = Field(
        default="auto",
        description="Of the weights: auto, float32, bfloat16 or float16 (auto: by the machine).",
    )
    style: AskedStyle | None = Field(
        default=None,
        description="How to ask; native: as stock models are (default: as the checkpoint was trained).",
    )
    max_pixels: int | None = Field(
        default=None, ge=784, description="Pixels of an image after the resize (default: the checkpoint's)."
    )
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = Field(
        default=False, description="Print one JSON object and nothing else."
    )
    out: Annotated[Path | None, Parameter(metavar="DIR")] = Field(
        default=None, description="Folder for the pictures (default: univg-out; none with --json)."
    )
    max_new_tokens: int | None = Field(
        default=None, description="Longest response, in tokens (default: 256; with --all 512)."
    )

    @property
    def folder(self) -> Path | None:
        """The folder that pictures are written to; None for nowhere."""
        if self.out is None:
            return None if self.as_json else DEFAULT_OUT
        return self.out


def ground(command: GroundCommand) -> int:
    """Answer a question about images: a thought, and a box drawn on the right image; with --all every one.

    Exit code 0 if the model answered, also that nothing of the kind is there
    (`none` with --json); 1 if what it wrote holds no answer; 2 if it could not be asked.
    """
    from univg.files import check_writable
    from univg.pictures.images import open_picture
    from univg.terminal import notes, results, waiting

    told = notes()
    _check_arguments(command)
    pictures = [open_picture(path) for path in command.images]
    images = [picture.image for picture in pictures]
    if command.folder is not None:
        check_writable(command.folder)
    opening = [f"{one_line(picture.path)}: {note}" for picture in pictures for note in picture.notes]
    for note in opening:
        told.print(f"note: {note}")
    strange = note_strange_images(command.model, images)  # which the answer says
    if command.model in EMBEDDED and not strange:
        told.print(f"note: {EMBEDDED_NOTE}")
    with waiting(told, f"loading {command.model}"):
        grounder = load_grounder(command.model, command.dtype)
    style: AskedStyle = command.style or grounder.loaded.prompt_style
    loaded, most = grounder.loaded, command.max_pixels
    if most is not None:
        loaded.processor.set_pixel_budget(loaded.pixel_budget.up_to(most))
    for note in list_choices(
        *(loaded.style_note, loaded.pixels_note), style=command.style, max_pixels=most, options=True
    ):
        told.print(f"note: {note}")
    with waiting(told, "looking and thinking"):
        grounding = grounder.ground(
            images,
            command.query,
            samples=command.samples,
            style=settle_style(style, grounder.loaded.family, command.find_all),
            seed=command.seed,
            max_new_tokens=command.max_new_tokens,
        )
    if command.as_json:
        paths = write_pictures(command, pictures, grounding)
        sys.stdout.write(json.dumps(describe_grounding(grounding, paths, opening), allow_nan=False) + "\n")
        return _find_exit_code(grounding)
    # Printed before it is drawn: a full disk must not cost the answer.
    console = results()
    _print_answer(console, command, pictures, grounding)
    paths = write_pictures(command, pictures, grounding)
    _print_section(console, "Pictures", *(str(path) for path in paths))
    return _find_exit_code(grounding)


def _find_exit_code(grounding: Grounding) -> int:
    return 0 if grounding.boxes or grounding.says_none else 1


def load_grounder(model: str, dtype: str = "auto") -> Grounder:
    """Load the model behind `--model`, without the libraries' warnings about their own affairs."""
    import os

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from univg.models.grounder import Grounder

    return Grounder.from_pretrained(model, dtype=dtype)


def describe_grounding(
    grounding: Grounding, pictures: Sequence[Path] = (), opening: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the object that `--json` prints; box coordinates are x1 y1 x2 y2, `image_index` counts from 0.
    `none`: the model says that nothing of the kind is there. `opening` is what there was to note on the files."""
    return {
        "thought": grounding.thought,
        "boxes": [_describe_box(box) for box in grounding.boxes],
        "none": grounding.says_none,
        "image_rule": grounding.image_rule,
        "fault": grounding.fault,
        "confidence": grounding.confidence,
        "raw": grounding.raw,
        "model": grounding.model,
        "style": grounding.style,
        "seconds": round(grounding.seconds, 3),
        "notes": [*opening, *grounding.notes],
        "pictures": [str(path) for path in pictures],
    }


def _describe_box(box: GroundedBox) -> dict[str, Any]:
    return {
        "image_index": box.image_index,
        "box_px": [round(v, 2) for v in box.box_px],
        "box_unit": list(box.box_unit),
        "box_permille": list(box.box_permille),
        **({} if box.confidence is None else {"confidence": box.confidence}),
    }


def write_pictures(command: GroundCommand, pictures: Sequence[Picture], grounding: Grounding) -> list[Path]:
    """Write what there is to see and return the paths; pictures that are there already stay, those of now get a number.

    `<name>-grounded.png` shows the question, all images with the box on the right one, and the thought;
    `<name>-box` is that image alone, at full resolution (JPEG if it came as one); without a box, not written. Of a set
    there is one for each image that holds boxes.
    """
    from univg.files import unwritable
    from univg.models.overview import draw_answer, draw_overview
    from univg.pictures.drawing import save_picture

    folder = command.folder
    if folder is None:
        return []
    shown = list(dict.fromkeys(box.image_index for box in grounding.boxes))
    shown = shown if grounding.is_set else shown[:1]
    stems = [Path(picture.path).stem[:80] or "image" for picture in pictures]
    names = [
        stems[i] if [stems[k] for k in shown].count(stems[i]) == 1 else f"{stems[i]}-{i + 1}" for i in shown
    ]
    suffixes = [
        ".jpg" if Path(pictures[i].path).suffix.lower() in (".jpg", ".jpeg") else ".png" for i in shown
    ]
    overview, *alone = _find_free(
        folder / f"{stems[shown[0] if shown else 0]}-grounded.png",
        *(folder / f"{name}-box{suffix}" for name, suffix in zip(names, suffixes, strict=True)),
    )
    jobs: list[tuple[Path, Callable[[], Image.Image]]] = [
        (overview, lambda: draw_overview(command.query, pictures, grounding))
    ]
    jobs += [
        (path, partial(draw_answer, pictures[i], grounding, i)) for path, i in zip(alone, shown, strict=True)
    ]
    written = []
    for path, draw in jobs:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_picture(draw(), path, **({"quality": 93} if path.suffix == ".jpg" else {}))
        except OSError as error:
            raise unwritable(path, error) from error
        written.append(path)
    return written


def _check_arguments(command: GroundCommand) -> None:
    if not command.images:
        raise UnivgError("no images", "univg ground", "name at least one image file before -q")
    if not command.query.strip():
        raise UnivgError("no question", "univg ground", 'say what to look for with -q "…"')
    if command.samples < 1:
        raise UnivgError(f"--samples {command.samples}", "univg ground", "draw at least one")
    if command.max_new_tokens is not None and command.max_new_tokens < 1:
        raise UnivgError(f"--max-new-tokens {command.max_new_tokens}", "univg ground", "allow at least one")


def _find_free(*paths: Path) -> list[Path]:
    """Return paths of which none is there: these, or all with the first number that is free: a-2.png, b-2.png."""
    free, number = list(paths), 1
    while any(path.exists() for path in free):
        number += 1
        free = [path.with_name(f"{path.stem}-{number}{path.suffix}") for path in paths]
    return free


def _print_answer(
    console: Console, command: GroundCommand, pictures: Sequence[Picture], grounding: Grounding
) -> None:
    from univg.models.overview import NOTHING, explain_fault, explain_image

    _print_section(console, "Thought", grounding.thought or "(none)")
    lines = [f"note: {note}" for note in grounding.notes]
    nothing = grounding.is_set and grounding.says_none
    lines += [NOTHING] if nothing else []
    lines += _list_set(pictures, grounding) if grounding.is_set else []
    for box in () if grounding.is_set else grounding.boxes:
        picture = pictures[box.image_index]
        size = f"{picture.image.width}x{picture.image.height}"
        px = ", ".join(f"{v:.0f}" for v in box.box_px)
        lines += [
            f"image {box.image_index + 1} of {len(pictures)}: {one_line(picture.path)}",
            f"box ({px}) in pixels of {size}; {box.box_permille} in thousandths",
        ]
    lines += explain_image(grounding, len(pictures))
    if grounding.confidence is not None:
        lines.append(f"agreement of {command.samples} samples: {grounding.confidence:.2f}")
    if grounding.fault:
        lines.append(explain_fault(grounding.fault))
    if grounding.fault == "truncated":
        lines.append("a longer response is allowed with --max-new-tokens")
    if not grounding.boxes and not nothing:
        lines += ["no box; the model wrote:", grounding.raw.strip() or "(nothing)"]
    _print_section(console, "Answer", *lines, f"{grounding.model}, {grounding.seconds:.1f} s")


def _list_set(pictures: Sequence[Picture], grounding: Grounding) -> list[str]:
    """List all boxes of a set under the images that they lie on, with the numbers that the pictures show."""
    from univg.models.overview import number_box

    lines = []
    for image in sorted({box.image_index for box in grounding.boxes}):
        size_wh = pictures[image].image.size
        name = one_line(pictures[image].path)
        lines.append(f"image {image + 1} of {len(pictures)}: {name}, {size_wh[0]}x{size_wh[1]} pixels")
        for place, box in enumerate(grounding.boxes):
            if box.image_index == image:
                number = number_box(grounding, place)
                px = ", ".join(f"{v:.0f}" for v in box.box_px)
                told = f"box{number and ' ' + number} ({px}) in pixels; {box.box_permille} in thousandths"
                share = "" if box.confidence is None else f"; agreement {box.confidence:.2f}"
                lines.append(f"  {told}{share}")
    return lines


def _print_section(console: Console, heading: str, *lines: str) -> None:
    from rich.text import Text

    if lines:
        console.print(Text(heading, style="bold"))
        for line in lines:
            console.print(Text("  " + line.replace("\n", "\n  ")))


app = make_verb(
    "ground", GroundCommand, ground, example='univg ground a.png b.png -q "What differs in the second image?"'
)
