"""Report a run to TensorBoard, Weights & Biases and Trackio: the rows of its log, and pictures with boxes.

They are transformers' own integrations, but for three things: a resumed run goes on in the same place and repeats no
step, numbers have the names and the steps that they have in `log.jsonl`, and there are pictures.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

from univg.errors import UnivgError, one_line
from univg.files import write_whole
from univg.grounding.reading import Reading
from univg.grounding.samples import GroundingSample
from univg.pictures.drawing import ANSWER, OTHERS, TRUTH, draw_box, draw_side_by_side, drop_marks, fit
from univg.terminal import is_first_process
from univg.training.run.checkpoints import writing
from univg.training.run.log import LOG, read_rows

__all__ = ["Drawn", "Tracker", "Trackers", "draw_answers", "open_trackers"]

RUN_ID = "tracker-id.txt"
"""The file of a run's folder with what its run is called at Weights & Biases and Trackio."""
FOLDER = "tensorboard"
CELL_PX = 320
COLOURS = (ANSWER, OTHERS, (230, 140, 0), (130, 60, 200))
"""Of rollouts, one after the other; the truth's own is TRUTH."""

Drawn = tuple[str, Image.Image, str]
"""A picture's name, the picture, and what is said of it."""


class Tracker(Protocol):
    """What a run is reported to."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write the numbers of a step."""

    def show(self, step: int, pictures: Sequence[Drawn]) -> None:
        """Show pictures of a step."""

    def close(self) -> None:
        """Leave nothing unwritten, however the run ended."""


class TensorBoard(TensorBoardCallback):
    """Write event files into `folder`; of steps after `step`, those that are there no longer count."""

    def __init__(self, folder: Path, step: int) -> None:
        super().__init__()
        self.tb_writer = self._SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Nothing: rows come from the run's log."""

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Nothing: `close` ends it."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self.tb_writer.add_scalar(name, value, step)
        self.tb_writer.flush()

    def show(self, step: int, pictures: Sequence[Drawn]) -> None:
        for name, image, said in pictures:
            self.tb_writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")
            self.tb_writer.add_text(f"{name}/text", said.replace("\n", "  \n"), step)

    def close(self) -> None:
        self.tb_writer.close()


class Wandb(WandbCallback):
    """Write to a run at Weights & Biases that is begun here, so that a missing login or network costs no training."""

    def __init__(self, arguments: TrainingArguments, out: Path, run_id: str, name: str) -> None:
        super().__init__()
        offline = self._wandb.setup().settings.mode in ("offline", "dryrun")
        asked = os.environ.get
        try:
            self._wandb.init(
                project=asked("WANDB_PROJECT", arguments.project),
                name=asked("WANDB_NAME", arguments.run_name or name),
                id=asked("WANDB_RUN_ID", run_id),
                dir=asked("WANDB_DIR", str(out.absolute())),
                # Offline nothing can be asked; pieces of the same id become one run where they are synchronised.
                resume=None if offline else "allow",
            )
        except (self._wandb.errors.Error, OSError) as error:
            raise UnivgError(
                f"trainer.report_to: wandb cannot begin a run ({one_line(str(error))})",
                remedy="check the network and the login (wandb login), or set WANDB_MODE=offline and send it later "
                "with wandb sync",
            ) from error

    def on_log(
        self, args: Any, state: Any, control: Any, model: Any = None, logs: Any = None, **kwargs: Any
    ) -> None:
        """Nothing: rows come from the run's log."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        # By a step of its own, as TRL logs times without one, which would make ours steps of the past.
        self._wandb.log({**numbers, "train/global_step": step})

    def show(self, step: int, pictures: Sequence[Drawn]) -> None:
        self.write(step, {name: self._wandb.Image(image, caption=said) for name, image, said in pictures})

    def close(self) -> None:
        self._wandb.finish(exit_code=int(sys.exc_info()[0] is not None))


class Trackio(TrackioCallback):
    """Write to Trackio's database on this machine (`TRACKIO_DIR`), or to a Space."""

    _initialized: bool

    def setup(self, args: Any, state: Any, model: Any, **kwargs: Any) -> None:
        with contextlib.redirect_stdout(sys.stderr):  # results alone go to stdout
            super().setup(args, state, model, **kwargs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            super().on_train_end(args, state, control, **kwargs)

    def on_log(
        self, args: Any, state: Any, control: Any, model: Any = None, logs: Any = None, **kwargs: Any
    ) -> None:
        """Nothing: rows come from the run's log."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self._trackio.log(dict(numbers), step=step)

    def show(self, step: int, pictures: Sequence[Drawn]) -> None:
        self._trackio.log(
            {name: self._trackio.Image(image, caption=said) for name, image, said in pictures}, step=step
        )

    def close(self) -> None:
        if self._initialized:
            self._initialized = False
            with contextlib.redirect_stdout(sys.stderr):
                self._trackio.finish()


class Trackers:
    """All that a run is reported to, in its first process; in the others, and without `report_to`, nothing.

    What they were told of steps up to `told`, before the run was interrupted, is not told again. TensorBoard is told
    again, as its readers pass over what was there.
    """

    def __init__(self, trackers: Sequence[Any] = (), told: int = -1) -> None:
        self._trackers = [(each, -1 if isinstance(each, TensorBoard) else told) for each in trackers]

    def __bool__(self) -> bool:
        return bool(self._trackers)

    def follow(self, trainer: Trainer) -> None:
        """Put them into the trainer, where transformers' own would be."""
        for each in (TensorBoardCallback, WandbCallback, TrackioCallback):
            trainer.remove_callback(each)
        for tracker, _ in self._trackers:
            trainer.add_callback(tracker)

    def write(self, row: Mapping[str, Any]) -> None:
        """Write a row of the log: all in it that is a number."""
        numbers = {
            name: float(value)
            for name, value in row.items()
            if name != "step" and isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        # A reward that applies to no rollout of the step is no number there.
        numbers = {name: value for name, value in numbers.items() if not math.isnan(value)}
        for each in self._due(int(row["step"])):
            each.write(int(row["step"]), numbers)

    def show(self, step: int, pictures: Sequence[Drawn]) -> None:
        """Show pictures of a step."""
        for each in self._due(step):
            each.show(step, pictures)

    def _due(self, step: int) -> list[Tracker]:
        return [tracker for tracker, told in self._trackers if step > told]

    def close(self) -> None:
        """Leave nothing unwritten, however the run ended."""
        for tracker, _ in self._trackers:
            tracker.close()


def open_trackers(arguments: TrainingArguments, out: Path, resumed: Path | None) -> Trackers:
    """Open what `report_to` names, of the three that are known here; transformers' own callbacks serve the others.

    Call it before the trainer is made, and before anything heavy is loaded. Raises UnivgError where Weights & Biases
    cannot be reached.
    """
    if not is_first_process() or not {"tensorboard", "wandb", "trackio"} & set(arguments.report_to):
        return Trackers()
    step = int(resumed.name.rpartition("-")[2]) if resumed else 0
    told = max((int(row["step"]) for row in read_rows(out / LOG)), default=-1) if resumed else -1
    path = out / RUN_ID
    if not path.exists() or resumed is None:
        with writing("the run's name", out):
            write_whole(path, secrets.token_hex(4) + "\n")
    run_id = path.read_text(encoding="utf-8").strip()
    name = out.absolute().name
    found: list[TrainerCallback] = []
    if "tensorboard" in arguments.report_to:
        folder = os.environ.get("TENSORBOARD_LOGGING_DIR")
        found.append(TensorBoard(Path(folder).expanduser() if folder else out / FOLDER, step))
    if "wandb" in arguments.report_to:
        found.append(Wandb(arguments, out, run_id, name))
    if "trackio" in arguments.report_to:
        arguments.run_name = arguments.run_name or f"{name}-{run_id}"  # it knows runs by their names
        found.append(Trackio())
    return Trackers(found, told)


def draw_answers(
    sample: GroundingSample,
    images: Sequence[Image.Image],
    readings: Sequence[Reading],
    lines: Sequence[str],
) -> Image.Image:
    """Draw a question's pictures with its true boxes and those of the answers, numbered from 1; `lines` stand below.

    Of an answer the box that counts is drawn: the first one, or all where the answer is a set.
    """
    drawn = [fit(image, CELL_PX, 2 * CELL_PX) for image in images]
    count = None if sample.complete else 1
    for on, box in sample.targets[:count]:
        at = readings[0].image_index if on is None else on
        drawn[at] = draw_box(drawn[at], box, "truth", TRUTH)
    for number, reading in enumerate(readings):
        for one in reading.boxes[:count]:
            colour = COLOURS[number % len(COLOURS)]
            drawn[one.image_index] = draw_box(drawn[one.image_index], one.box, str(number + 1), colour)
    return draw_side_by_side(drawn, title=drop_marks(sample.query), footer=lines, cell_px=CELL_PX)
