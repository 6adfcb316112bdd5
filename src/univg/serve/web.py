"""The page of `univg web`, to try a model in: images, a question, and its thought and box beside them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from univg.errors import UnivgError
from univg.serve.config import WebConfig

if TYPE_CHECKING:
    from PIL import Image

    from univg.models.grounder import Grounder

__all__ = ["answer", "build_page", "open_page"]

MAX_IMAGES = 16
MAX_MEGAPIXELS = 100.0


def open_page(config: WebConfig) -> None:
    """Load a model and show its page until Ctrl-C. Raises UnivgError for what the caller can put right."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # nothing that is asked here is told to anybody
    # Libraries warn about their own affairs; what concerns the user is said here.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        import_module("gradio")
    except ImportError as error:
        raise UnivgError("the page needs a further package", remedy="pip install 'univg[web]'") from error
    from univg.models.grounder import Grounder

    page = build_page(Grounder.from_pretrained(config.model))
    try:
        page.launch(
            server_name=config.host,
            server_port=config.port,
            share=False,
            max_file_size="32mb",
            footer_links=[],
        )
    except OSError as error:
        raise UnivgError("cannot listen", f"{config.host}:{config.port}", "choose another --port") from error


def build_page(grounder: Grounder) -> Any:
    """Build the page, a `gradio.Blocks`; its one function is also an endpoint named `ground`. It answers one question
    at a time."""
    gradio: Any = import_module("gradio")  # an extra: type checkers need not have it

    def ground(gallery: Any, query: str, samples: float) -> tuple[Image.Image, str, str]:
        try:
            return answer(grounder, [path for path, _ in gallery or []], query or "", int(samples))
        except (UnivgError, ValueError) as error:
            raise gradio.Error(str(error), print_exception=False) from error

    examples = _read_examples()
    with gradio.Blocks(title="univg", analytics_enabled=False) as page:
        gradio.Markdown(
            f"## univg · {grounder.loaded.name}\nSeveral images and a question in, a thought and a box out."
        )
        with gradio.Row():
            with gradio.Column():
                gallery = gradio.Gallery(
                    label="Images, in order", type="filepath", file_types=["image"], columns=3
                )
                query = gradio.Textbox(label="Question", lines=2)
                samples = gradio.Slider(1, 8, value=1, step=1, label="Responses to draw")
                button = gradio.Button("Ground", variant="primary")
            with gradio.Column():
                picture = gradio.Image(label="Answer", type="pil", format="png")
                thought = gradio.Textbox(label="Thought", lines=4)
                box = gradio.Textbox(label="Box", lines=2)
        asked, told = [gallery, query, samples], [picture, thought, box]
        button.click(ground, asked, told, api_name="ground", concurrency_limit=1)
        query.submit(ground, asked, told, api_name=False, concurrency_limit=1)
        if examples and grounder.loaded.name.startswith("embedded"):
            gradio.Examples(examples, [gallery, query], label="Examples of the procedural world")
    return page


def answer(
    grounder: Grounder, paths: Sequence[str], query: str, samples: int = 1
) -> tuple[Image.Image, str, str]:
    """Return the picture with the box on it, the thought, and the box in words.

    Raises UnivgError or ValueError, one line to show.
    """
    from univg.models.overview import IMAGE_RULES, draw_overview
    from univg.pictures.images import open_picture

    if not 1 <= len(paths) <= MAX_IMAGES:
        raise UnivgError(f"{len(paths)} images", remedy=f"give 1 to {MAX_IMAGES}")
    if not query.strip():
        raise UnivgError("the question is empty", remedy="say what to look for")
    pictures = [open_picture(path, MAX_MEGAPIXELS) for path in paths]
    grounding = grounder.ground([picture.image for picture in pictures], query, samples=samples)
    lines = [] if grounding.boxes else ["no box"]
    for one in grounding.boxes:
        px = tuple(round(value) for value in one.box_px)
        lines.append(f"image {one.image_index + 1}: {px} in pixels, {one.box_permille} in thousandths")
    if grounding.boxes:
        lines.append(f"which image: {IMAGE_RULES.get(grounding.image_rule, grounding.image_rule)}")
    if grounding.confidence is not None:
        lines.append(f"agreement of {samples} responses: {grounding.confidence:.2f}")
    if grounding.fault:
        lines.append(f"fault: {grounding.fault}")
    return draw_overview(query, pictures, grounding), grounding.thought or "", "\n".join(lines)


def _read_examples() -> list[list[Any]]:
    """Return rows of (images, question): the bundled examples, one of each task family."""
    from univg.files import EXAMPLES
    from univg.grounding.samples import read_jsonl

    rows = []
    for sample in read_jsonl(EXAMPLES / "samples.jsonl"):
        rows.append([[str(EXAMPLES / name) for name in sample.images], sample.query])
    return rows
