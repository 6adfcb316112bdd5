"""Run `univg demo`: the bundled examples, one of each task family, grounded by a model and drawn.

The examples are samples of the procedural world's test split, which no checkpoint was trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from univg.cli.verbs import Command, Parameter, make_verb


class DemoCommand(Command):
    """What `univg demo` takes."""

    out: Annotated[Path, Parameter(metavar="DIR")] = Field(
        default=Path("demo-out"), description="Folder for the pictures."
    )
    model: str = Field(default="embedded", description="A checkpoint folder or hub name.")


def demonstrate(command: DemoCommand) -> None:
    """Ground the bundled examples, one of each task family, and draw the answers."""
    from rich.table import Table

    from univg.cli.ground import load_grounder
    from univg.files import EXAMPLES, check_writable, unwritable
    from univg.grounding.boxes import iou
    from univg.grounding.samples import read_jsonl
    from univg.models.overview import draw_overview
    from univg.pictures.drawing import TRUTH, SheetCell, draw_box, draw_contact_sheet, save_picture
    from univg.pictures.images import open_picture
    from univg.terminal import print_rich_table, progress, results

    out = command.out
    check_writable(out)
    samples = list(read_jsonl(EXAMPLES / "samples.jsonl"))
    grounder = load_grounder(command.model)
    table = Table("family", "IoU", "picture", box=None, header_style="bold", pad_edge=False)
    cells: list[SheetCell] = []
    try:
        with progress() as bar:
            for sample in bar.track(samples, description="demo"):
                pictures = [open_picture(EXAMPLES / name) for name in sample.images]
                images = [picture.image for picture in pictures]
                grounding = grounder.ground(images, sample.query)
                answer = grounding.boxes[0] if grounding.boxes else None
                right_image = answer is not None and answer.image_index == sample.target_image
                overlap = iou(answer.box_unit, sample.boxes[0]) if answer and right_image else 0.0
                path = out / f"{sample.task}.png"
                out.mkdir(parents=True, exist_ok=True)
                save_picture(draw_overview(sample.query, pictures, grounding), path)
                table.add_row(sample.task, f"{overlap:.2f}", str(path))
                target = sample.target_image or 0
                images[target] = draw_box(images[target], sample.boxes[0], colour=TRUTH)
                lines = [
                    f"{sample.task} · IoU {overlap:.2f}",
                    sample.query,
                    grounding.thought or grounding.raw,
                ]
                box, index = (answer.box_unit, answer.image_index) if answer else (None, None)
                cells.append((images, box, index, lines))
        title = f"{command.model} on the bundled examples: its answer red, the truth green"
        sheet = save_picture(draw_contact_sheet(cells, title, columns=2, mark="answer")[0], out / "all.png")
    except OSError as error:
        raise unwritable(out, error) from error
    console = results()
    print_rich_table(console, table)
    console.print(f"\nall of them on one sheet: {sheet}")


app = make_verb("demo", DemoCommand, demonstrate)
