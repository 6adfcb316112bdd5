"""Run `univg demo`: the bundled examples, one of each task family, grounded, judged and drawn.

They are samples of the procedural world's test split, which no checkpoint was trained on, taken as they fell: of each
family the first that `univg world --split test --seed 2026 --size 200` draws; of `find_all` the first with three boxes
on two images, of `absent` the first in which nothing fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from univg.cli.verbs import Command, Parameter, make_verb

if TYPE_CHECKING:
    from PIL import Image

    from univg.grounding.samples import GroundingSample
    from univg.grounding.sets import OnImage
    from univg.models.grounder import Grounding
    from univg.pictures.drawing import SheetCell


RIGHT = 0.5
"""The IoU, of a set the soft-F1, from which an answer is right."""


class DemoCommand(Command):
    """What `univg demo` takes."""

    out: Annotated[Path, Parameter(metavar="DIR")] = Field(
        default=Path("demo-out"), description="Folder for the pictures."
    )
    model: str = Field(default="embedded", description="A checkpoint folder or hub name.")


def demonstrate(command: DemoCommand) -> None:
    """Ground the bundled examples, draw the answers, and tell which are right and how many.

    Sets are scored by the soft-F1, which of one box is its IoU. From 0.5 on an answer is right.
    """
    from rich.table import Table

    from univg.cli.ground import load_grounder
    from univg.files import EXAMPLES, check_writable, unwritable
    from univg.grounding.samples import read_jsonl
    from univg.models.overview import draw_overview
    from univg.pictures.drawing import draw_contact_sheet, save_picture
    from univg.pictures.images import open_picture
    from univg.terminal import print_rich_table, progress, results

    out = command.out
    check_writable(out)
    samples = list(read_jsonl(EXAMPLES / "samples.jsonl"))
    grounder = load_grounder(command.model)
    table = Table("family", "IoU", "", "picture", box=None, header_style="bold", pad_edge=False)
    cells: list[SheetCell] = []
    right = 0
    try:
        with progress() as bar:
            for sample in bar.track(samples, description="demo"):
                pictures = [open_picture(EXAMPLES / name) for name in sample.images]
                images = [picture.image for picture in pictures]
                style = grounder.set_style if sample.complete else None
                grounding = grounder.ground(images, sample.query, style=style)
                overlap = _score(sample, grounding)
                path = out / f"{sample.task}.png"
                out.mkdir(parents=True, exist_ok=True)
                save_picture(draw_overview(sample.query, pictures, grounding), path)
                right += overlap >= RIGHT
                table.add_row(sample.task, f"{overlap:.2f}", _judge(overlap), str(path))
                cells.append(_make_cell(sample, images, grounding, overlap))
        share = f"{right} of {len(samples)} right"
        colours = "its answer pink, the truth green (red frames belong to the questions)"
        title = f"{command.model} on the bundled examples: {colours}; {share}"
        sheet = save_picture(draw_contact_sheet(cells, title, columns=3, mark="answer")[0], out / "all.png")
    except OSError as error:
        raise unwritable(out, error) from error
    console = results()
    print_rich_table(console, table)
    console.print(f"\nall of them on one sheet: {sheet}\n{share}")


def _list_boxes(sample: GroundingSample, grounding: Grounding) -> list[OnImage]:
    """Return the boxes that count, each with its image: all of a set, else the first."""
    boxes = [(box.image_index, box.box_unit) for box in grounding.boxes]
    return [*boxes] if sample.complete else [*boxes[:1]]


def _score(sample: GroundingSample, grounding: Grounding) -> float:
    """Return the IoU on the right image, of a set the soft-F1."""
    from univg.grounding.sets import match_sets

    boxes = _list_boxes(sample, grounding)
    return match_sets(boxes, sample.targets, not boxes and not grounding.says_none).soft_f1


def _judge(overlap: float) -> str:
    return "right" if overlap >= RIGHT else "wrong"


def _make_cell(
    sample: GroundingSample, images: Sequence[Image.Image], grounding: Grounding, overlap: float
) -> SheetCell:
    from univg.models.overview import NOTHING
    from univg.pictures.drawing import TRUTH, draw_targets

    images, found = draw_targets(images, sample.targets, TRUTH), _list_boxes(sample, grounding)
    thought = grounding.thought or grounding.raw
    measure = "soft-F1" if sample.complete else "IoU"
    title = f"{_judge(overlap)} · {sample.task} · {measure} {overlap:.2f}"
    if sample.complete:
        lines = [title, sample.query, thought]
        if grounding.says_none:
            lines.append(NOTHING)
        return draw_targets(images, found), None, {image for image, _ in found if image is not None}, lines
    image, box = found[0] if found else (None, None)
    return images, box, image, [title, sample.query, thought]


app = make_verb("demo", DemoCommand, demonstrate)
