"""`univg ground`: a question about several images, answered with a thought and a box drawn on the right one.

The order of the checks is the order of their cost: arguments, image files and the output folder first, then
torch and the model. What is wrong is said before anybody waits for it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from univg.errors import UnivgError, one_line
from univg.files import check_writable, unwritable
from univg.grounding.reading import FAULTS, Fault
from univg.pictures.drawing import ANSWER, OTHERS, draw_box, save_atomically, side_by_side
from univg.pictures.images import ImageFault, Picture, open_picture

if TYPE_CHECKING:
    from PIL import Image

    from univg.models.grounder import GroundedBox, Grounder, Grounding

DEFAULT_OUT = "univg-out"
PHOTO_MODEL = "GD-ML/UniVG-R1"
EMBEDDED_NOTE = (
    "the embedded model knows only univg's own procedural world of drawn shapes. "
    f"For photographs, add --model {PHOTO_MODEL} (7 billion parameters, a 17 GB download; best on a GPU)"
)
RULES = {
    "target": "as given",
    "question": "named by the question",
    "thought": "named by the thought",
    "last": "the last image, as neither question nor thought names one",
}


@dataclass(frozen=True)
class Request:
    """What `univg ground` was asked. `out` None: pictures go to `univg-out`, or nowhere with `as_json`."""

    images: Sequence[str]
    query: str
    model: str = "embedded"
    samples: int = 1
    seed: int = 0
    max_new_tokens: int = 256
    out: str | None = None
    as_json: bool = False

    @property
    def folder(self) -> Path | None:
        """Where pictures are written; None for nowhere."""
        if self.out is None:
            return None if self.as_json else Path(DEFAULT_OUT)
        return Path(self.out)


def run(request: Request) -> None:
    """Answer the request: result on stdout, notes and progress on stderr.

    Errors: `UnivgError` for everything a person can put right.
    """
    notes = Console(stderr=True, soft_wrap=True, highlight=False)
    _check_arguments(request)
    pictures = _open_all(request.images)
    if request.folder is not None:
        check_writable(request.folder)
    for picture in pictures:
        for note in picture.notes:
            notes.print(f"[dim]note:[/] {escape(one_line(picture.path))}: {escape(note)}")
    if request.model.startswith("embedded"):
        notes.print(f"[dim]note:[/] {escape(EMBEDDED_NOTE)}")
    with _waiting(notes, f"loading {request.model}"):
        grounder = load_grounder(request.model)
    _check_query(request.query, grounder)
    with _waiting(notes, "looking and thinking"):
        grounding = grounder.ground(
            [picture.image for picture in pictures],
            request.query,
            samples=request.samples,
            seed=request.seed,
            max_new_tokens=request.max_new_tokens,
        )
    if request.as_json:
        paths = write_pictures(request, pictures, grounding)
        sys.stdout.write(json.dumps(as_json(grounding, paths), allow_nan=False) + "\n")
        return
    # Told before it is drawn: a full disk must not cost the answer.
    console = Console(soft_wrap=True, highlight=False)
    _tell(console, request, pictures, grounding)
    _section(console, "Pictures", *(str(path) for path in write_pictures(request, pictures, grounding)))


def load_grounder(model: str) -> Grounder:
    """The model behind `--model`, its errors told as the command's own."""
    # Libraries warn about their own affairs; what concerns the user is said here.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from univg.models.grounder import Grounder

    return Grounder.from_pretrained(model)


def as_json(grounding: Grounding, pictures: Sequence[Path] = ()) -> dict[str, Any]:
    """The object that `--json` prints; box coordinates are x1 y1 x2 y2, `image_index` counts from 0."""
    return {
        "thought": grounding.thought,
        "boxes": [_box_as_json(box) for box in grounding.boxes],
        "image_rule": grounding.image_rule,
        "fault": grounding.fault,
        "confidence": grounding.confidence,
        "raw": grounding.raw,
        "model": grounding.model,
        "seconds": round(grounding.seconds, 3),
        "pictures": [str(path) for path in pictures],
    }


def _box_as_json(box: GroundedBox) -> dict[str, Any]:
    return {
        "image_index": box.image_index,
        "box_px": [round(v, 2) for v in box.box_px],
        "box_unit": list(box.box_unit),
        "box_permille": list(box.box_permille),
    }


def write_pictures(request: Request, pictures: Sequence[Picture], grounding: Grounding) -> list[Path]:
    """Write what there is to see and return the paths.

    `<name>-grounded.png` shows the question, all images with the box on the right one, and the thought;
    `<name>-box` is that image alone, at full resolution (JPEG if it came as one); without a box, not written.
    """
    folder = request.folder
    if folder is None:
        return []
    shown = grounding.boxes[0].image_index if grounding.boxes else 0
    source = Path(pictures[shown].path)
    stem = source.stem[:80] or "image"
    jobs: list[tuple[Path, Callable[[], Image.Image]]] = [
        (folder / f"{stem}-grounded.png", lambda: overview(request.query, pictures, grounding))
    ]
    if grounding.boxes:
        suffix = ".jpg" if source.suffix.lower() in (".jpg", ".jpeg") else ".png"
        jobs.append((folder / f"{stem}-box{suffix}", lambda: boxed(pictures[shown], grounding)))
    written = []
    for path, draw in jobs:
        path = _beside_inputs(path, pictures)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_atomically(draw(), path, **({"quality": 93} if path.suffix == ".jpg" else {}))
        except OSError as error:
            raise unwritable(path, error) from error
        written.append(path)
    return written


def overview(query: str, pictures: Sequence[Picture], grounding: Grounding) -> Image.Image:
    """All images side by side, the box on its own, question above and thought below."""
    boxes: list[list[tuple[float, float, float, float]]] = [[] for _ in pictures]
    for box in grounding.boxes:
        boxes[box.image_index].append(box.box_unit)
    answer = grounding.boxes[0].image_index if grounding.boxes else None
    captions = [
        f"image {i + 1}" + (f" · {_answer_label(grounding)}" if i == answer else "")
        for i in range(len(pictures))
    ]
    footer = [grounding.thought] if grounding.thought else []
    if grounding.fault:
        footer.append(f"{'' if grounding.boxes else 'No box. '}{_explain(grounding.fault)}")
    title = re.sub(r"<\|[^|>]*\|>", "", query).strip()  # marks for the model, no words for people
    return side_by_side(
        [picture.image for picture in pictures],
        boxes,
        captions,
        title=title,
        footer=footer,
        highlight=answer,
    )


def boxed(picture: Picture, grounding: Grounding) -> Image.Image:
    """The answer's image at full resolution with its boxes; the first is the answer."""
    image = picture.image
    for place, box in reversed(list(enumerate(grounding.boxes))):
        if box.image_index == grounding.boxes[0].image_index:
            label = _answer_label(grounding) if place == 0 else str(place + 1)
            image = draw_box(image, box.box_unit, label, ANSWER if place == 0 else OTHERS)
    return image


def _check_arguments(request: Request) -> None:
    if not request.images:
        raise UnivgError("no images: univg ground: name at least one image file before -q")
    if not request.query.strip():
        raise UnivgError('no question: univg ground: say what to look for with -q "…"')
    if request.samples < 1:
        raise UnivgError(f"--samples {request.samples}: univg ground: draw at least one")
    if request.max_new_tokens < 1:
        raise UnivgError(f"--max-new-tokens {request.max_new_tokens}: univg ground: allow at least one")


def _check_query(query: str, grounder: Grounder) -> None:
    from univg.models.tokens import check_image_marks

    check_image_marks(query, grounder.loaded.processor, "-q")


def _open_all(paths: Sequence[str]) -> list[Picture]:
    try:
        return [open_picture(path) for path in paths]
    except ImageFault as error:
        raise UnivgError(str(error)) from error


def _beside_inputs(path: Path, pictures: Sequence[Picture]) -> Path:
    """`path`, numbered if it would overwrite one of the images that were asked about."""
    inputs = {Path(picture.path).resolve() for picture in pictures}
    number, free = 2, path
    while free.resolve() in inputs:
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return free


def _answer_label(grounding: Grounding) -> str:
    return "answer" if grounding.confidence is None else f"answer · agreement {grounding.confidence:.2f}"


def _explain(fault: str) -> str:
    return f"{fault}: {FAULTS[cast('Fault', fault)]}"


def _tell(console: Console, request: Request, pictures: Sequence[Picture], grounding: Grounding) -> None:
    _section(console, "Thought", grounding.thought or "(none)")
    lines = []
    for box in grounding.boxes:
        picture = pictures[box.image_index]
        size = f"{picture.image.width}x{picture.image.height}"
        px = ", ".join(f"{v:.0f}" for v in box.box_px)
        lines += [
            f"image {box.image_index + 1} of {len(pictures)}: {one_line(picture.path)}",
            f"box ({px}) in pixels of {size}; {box.box_permille} in thousandths",
        ]
    if grounding.boxes:
        lines.append(f"which image: {RULES.get(grounding.image_rule, grounding.image_rule)}")
    if grounding.confidence is not None:
        lines.append(f"agreement of {request.samples} samples: {grounding.confidence:.2f}")
    if grounding.fault:
        lines.append(_explain(grounding.fault))
    if not grounding.boxes:
        lines += ["no box; the model wrote:", grounding.raw.strip() or "(nothing)"]
    _section(console, "Answer", *lines, f"{grounding.model}, {grounding.seconds:.1f} s")


def _section(console: Console, heading: str, *lines: str) -> None:
    if lines:
        console.print(Text(heading, style="bold"))
        for line in lines:
            console.print(Text("  " + line.replace("\n", "\n  ")))


@contextmanager
def _waiting(console: Console, what: str) -> Iterator[None]:
    """A spinner on a terminal; nothing in a log."""
    if not console.is_terminal:
        yield
        return
    with console.status(escape(what)):
        yield
