"""`univg demo`: the bundled examples, one of each task family, grounded by the embedded model and drawn.

The examples are samples of the procedural world's test split, which no checkpoint was trained on.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from univg.cli.ground import load_grounder, overview
from univg.files import check_writable, unwritable
from univg.grounding.boxes import iou
from univg.grounding.samples import read_jsonl
from univg.pictures.drawing import TRUTH, SheetCell, contact_sheet, draw_box, save_atomically
from univg.pictures.images import open_picture

EXAMPLES = Path(__file__).parents[1] / "assets" / "examples"


def run(out: Path, model: str = "embedded") -> None:
    """Ground every bundled example with `model`; write a picture each under `out`, and one sheet of all.

    Errors: `UnivgError` for a checkpoint that cannot be loaded or a folder that cannot be written.
    """
    check_writable(out)
    samples = list(read_jsonl(EXAMPLES / "samples.jsonl"))
    grounder = load_grounder(model)
    table = Table("family", "IoU", "picture", box=None, header_style="bold", pad_edge=False)
    cells: list[SheetCell] = []
    columns = (TextColumn("demo"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        for sample in progress.track(samples):
            pictures = [open_picture(EXAMPLES / name) for name in sample.images]
            grounding = grounder.ground([p.image for p in pictures], sample.query)
            found = [box for box in grounding.boxes[:1] if box.image_index == sample.target_image]
            overlap = iou(found[0].box_unit, sample.boxes[0]) if found else 0.0
            path = out / f"{sample.task}.png"
            try:
                out.mkdir(parents=True, exist_ok=True)
                save_atomically(overview(sample.query, pictures, grounding), path)
            except OSError as error:
                raise unwritable(path, error) from error
            table.add_row(sample.task, f"{overlap:.2f}", str(path))
            images = [p.image for p in pictures]
            where = sample.target_image or 0
            images[where] = draw_box(images[where], sample.boxes[0], colour=TRUTH)
            lines = [f"{sample.task} · IoU {overlap:.2f}", sample.query, grounding.thought or grounding.raw]
            answer = grounding.boxes[:1]
            cells.append(
                (
                    images,
                    answer[0].box_unit if answer else None,
                    answer[0].image_index if answer else None,
                    lines,
                )
            )
    title = "the embedded model on the bundled examples: its answer red, the truth green"
    try:
        sheet = save_atomically(contact_sheet(cells, 2, 220, title, mark="answer"), out / "all.png")
    except OSError as error:
        raise unwritable(out, error) from error
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    console.print(f"\nall of them on one sheet: {sheet}")
