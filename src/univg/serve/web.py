"""The page of `univg web`, to try a model in: images, a question, and its thought and box beside them."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg.errors import UnivgError, one_line
from univg.serve.config import WebConfig
from univg.terminal import notes

if TYPE_CHECKING:
    from PIL import Image

    from univg.models.grounder import Grounder, Grounding

__all__ = ["answer", "build_page", "open_page"]

MAX_IMAGES = 16
MAX_MEGAPIXELS = 100.0
MAX_CHARACTERS = 2000
MAX_FILE_MB = 32
MAX_WAITING = 32
KEPT_S = 3600
"""How long an image is kept that somebody gave, or an answer; all go when the page is closed."""

_SWEPT_EVERY_S = 300


def open_page(config: WebConfig) -> None:
    """Load a model and show its page until Ctrl-C. Raises UnivgError for what the caller can put right."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # nothing that is asked here is told to anybody
    # Libraries warn about their own affairs; what concerns the user is said here.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        import_module("gradio")
    except ImportError as error:
        raise UnivgError("the page needs a further package", remedy="pip install 'univg[web]'") from error
    from univg.models.conventions import list_choices
    from univg.models.grounder import Grounder

    grounder = Grounder.from_pretrained(config.model)
    for note in list_choices(grounder.loaded.style_note, grounder.loaded.pixels_note):
        notes().print(f"note: {note}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the folder goes then, too
    with tempfile.TemporaryDirectory(prefix="univg-web-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build_page(grounder)
        try:
            page.queue(max_size=MAX_WAITING).launch(
                server_name=config.host,
                server_port=config.port,
                share=False,
                max_file_size=f"{MAX_FILE_MB}mb",
                footer_links=[],
                quiet=True,
                prevent_thread_lock=True,
            )
        except OSError as error:
            raise UnivgError(
                "cannot listen", f"{config.host}:{config.port}", "choose another --port"
            ) from error
        notes().print(f"the page is at http://{config.host}:{config.port}; Ctrl-C closes it")
        page.block_thread()


def build_page(grounder: Grounder) -> Any:
    """Build the page, a `gradio.Blocks`; its one function is also an endpoint named `ground`. It answers one question
    at a time."""
    gradio: Any = import_module("gradio")  # an extra: type checkers need not have it
    from univg.models.checkpoint import EMBEDDED
    from univg.models.familiarity import EMBEDDED_NOTE

    def ground(gallery: Any, query: str, samples: float, every: bool = False) -> tuple[Image.Image, str, str]:
        try:
            return answer(grounder, [path for path, _ in gallery or []], query or "", int(samples), every)
        except (UnivgError, ValueError) as error:
            raise gradio.Error(str(error), print_exception=False) from error

    def show(gallery: Any, query: str, samples: float, every: bool) -> tuple[Image.Image | None, str, str]:
        try:
            return ground(gallery, query, samples, every)
        except gradio.Error as error:  # gradio would show it for ten seconds
            return None, "", f"error: {error.message}"

    def number(gallery: Any) -> Any:
        numbered = _number([path for path, _ in gallery or []])
        return gradio.skip() if numbered == (gallery or []) else numbered

    embedded = grounder.loaded.name in EMBEDDED
    one_at_a_time = {"concurrency_id": "model", "concurrency_limit": 1}
    with gradio.Blocks(title="univg", analytics_enabled=False, delete_cache=(_SWEPT_EVERY_S, KEPT_S)) as page:
        gradio.Markdown(
            f"## univg · {grounder.loaded.name}\n"
            "Several images, in order, and a question in; a thought and a box out, or every one."
        )
        with gradio.Row():
            with gradio.Column():
                gallery, query, every, samples, button = _lay_out_question(gradio)
            with gradio.Column():
                told = _lay_out_answer(gradio)
                if embedded:
                    gradio.Markdown(f"Note: {EMBEDDED_NOTE}.")
        asked = [gallery, query, samples, every]
        gradio.on([button.click, query.submit], show, asked, told, api_visibility="private", **one_at_a_time)
        # For programs, which are told an error as one.
        gradio.Button(visible=False).click(ground, asked, told, api_name="ground", **one_at_a_time)
        gallery.change(
            number, gallery, gallery, queue=False, show_progress="hidden", api_visibility="private"
        )
        if embedded:
            gradio.Examples(
                _read_examples(), [gallery, query, every], label="Examples of the procedural world"
            )
    return page


def _lay_out_question(gradio: Any) -> tuple[Any, Any, Any, Any, Any]:
    gallery = gradio.Gallery(
        label="Images, in order",
        show_label=False,  # it would lie on the first of them
        type="filepath",
        columns=3,
        fit_columns=False,
        height="auto",
        object_fit="contain",
        buttons=["fullscreen"],
    )
    query = gradio.Textbox(
        label="Question",
        info=f"Enter asks, Shift+Enter begins a new line. At most {MAX_CHARACTERS} characters.",
        max_lines=8,
        max_length=MAX_CHARACTERS,
    )
    every = gradio.Checkbox(
        label="Every one of them", info="All that fit, on whichever images, or that none does.", value=False
    )
    samples = gradio.Slider(1, 8, value=1, step=1, label="Responses to draw")
    return gallery, query, every, samples, gradio.Button("Ground", variant="primary")


def _lay_out_answer(gradio: Any) -> list[Any]:
    picture = gradio.Image(
        label="Answer", show_label=False, type="pil", format="png", buttons=["download", "fullscreen"]
    )
    # What is shown first qualifies what follows; what is returned keeps its order.
    box = gradio.Textbox(label="Box", lines=2, max_lines=12)
    return [picture, gradio.Textbox(label="Thought", lines=4), box]


def answer(
    grounder: Grounder, paths: Sequence[str], query: str, samples: int = 1, every: bool = False
) -> tuple[Image.Image, str, str]:
    """Return the picture with the box on it, the thought, and the box in words; `every`: all that fit, or that none
    does.

    Raises UnivgError or ValueError, one line to show.
    """
    from univg.models.overview import draw_overview
    from univg.pictures.images import read_picture

    if not 1 <= len(paths) <= MAX_IMAGES:
        remedy = f"give 1 to {MAX_IMAGES} image files, of at most {MAX_FILE_MB} MB each"
        raise UnivgError(f"{len(paths)} images", remedy=remedy)
    if not query.strip():
        raise UnivgError("the question is empty", remedy="say what to look for")
    if len(query) > MAX_CHARACTERS:
        raise UnivgError(f"the question has {len(query)} characters", remedy=f"use {MAX_CHARACTERS} at most")
    pictures, megapixels = [], MAX_MEGAPIXELS
    for number, path in enumerate(paths, start=1):
        name = f"image {number} ({one_line(Path(path).name)})"
        pictures.append(read_picture(_read_upload(path, name), name, megapixels))
        megapixels -= pictures[-1].image.width * pictures[-1].image.height / 1e6
    style = grounder.set_style if every else None
    images = [picture.image for picture in pictures]
    grounding = grounder.ground(images, query, samples=samples, style=style)
    told = [f"note: {picture.path}: {note}" for picture in pictures for note in picture.notes]
    told += [f"note: {note}" for note in grounding.notes]
    told += _describe(grounding, len(pictures), samples)
    return draw_overview(query, pictures, grounding), grounding.thought or "", "\n".join(told)


def _describe(grounding: Grounding, images: int, samples: int) -> list[str]:
    from univg.models.overview import NOTHING, explain_fault, explain_image, number_box

    nothing = grounding.is_set and grounding.says_none
    lines = [NOTHING] if nothing else []
    for place, one in enumerate(grounding.boxes):
        px, number = tuple(round(value) for value in one.box_px), number_box(grounding, place)
        told = f"image {one.image_index + 1}: {px} in pixels, {one.box_permille} in thousandths"
        share = "" if one.confidence is None else f", agreement {one.confidence:.2f}"
        lines.append(f"{number and f'box {number}, '}{told}{share}")
    lines += explain_image(grounding, images)
    if grounding.confidence is not None:
        lines.append(f"agreement of {samples} responses: {grounding.confidence:.2f}")
    if grounding.fault:
        lines.append(explain_fault(grounding.fault))
    if not grounding.boxes and not nothing:
        lines += ["no box; the model wrote:", grounding.raw.strip() or "(nothing)"]
    return lines


def _read_upload(path: str, name: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        cause = f"images are kept for {KEPT_S // 60} minutes, this one is gone"
        raise UnivgError(cause, name, "remove it and give it again") from error


def _number(paths: Sequence[str]) -> list[tuple[str, str]]:
    """Return the images with the words by which questions name them."""
    return [(path, f"image {number}") for number, path in enumerate(paths, start=1)]


def _read_examples() -> list[list[Any]]:
    """Return rows of (images, question, whether every one is asked for): the bundled examples."""
    from univg.files import EXAMPLES
    from univg.grounding.samples import read_jsonl

    return [
        [_number([str(EXAMPLES / name) for name in sample.images]), sample.query, sample.complete]
        for sample in read_jsonl(EXAMPLES / "samples.jsonl")
    ]
