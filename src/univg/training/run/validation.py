"""Score a run while it learns: by answers to questions it is not taught, in the words and by the judge of evaluation.

Before the first step, every so many steps and after the last one, the model answers greedily, and its boxes are scored.
What was found is in the log and in the trainer's own state, so that it comes back with a checkpoint; the weights of the
best step lie in `best/`, and each checkpoint holds a link to them.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object  # type: ignore[import-untyped]
from transformers import Trainer, TrainerCallback

from univg.data.dataset import Item
from univg.errors import UnivgError
from univg.files import write_whole
from univg.grounding.prompts import render_chat
from univg.grounding.reading import Asked, Reading, read
from univg.grounding.scoring import Score, score
from univg.models.answering import Answer, Decoding, LocalAnswerer, Question
from univg.models.loading import Loaded, plain_model
from univg.pictures.drawing import drop_marks
from univg.report.plots import draw_learning
from univg.terminal import is_first_process
from univg.training.config import StageConfig, Validation
from univg.training.run.checkpoints import writing
from univg.training.run.cpu_layers import ATTENTION
from univg.training.run.gathering import holding_whole_weights
from univg.training.run.held_out import HeldOut
from univg.training.run.log import RunLog, read_rows
from univg.training.run.sources import choose_prompt_style
from univg.training.run.trackers import Drawn, Trackers, draw_answers

__all__ = ["PREFIX", "AnswerPictures", "Best", "Scores", "Validator", "keep_best_with", "list_scores"]

BEST, CURVE = "best", "validation.png"
PREFIX = "validation/"
PICTURES = 8
"""Answers that are drawn for trackers, the first ones of the first process: the same questions each time."""


@dataclass(frozen=True, order=True)
class Scores:
    """What answers to the held-out questions are worth after a step; a better one is greater, of two equal ones the
    later."""

    acc_50: float
    iou: float
    step: int

    def __str__(self) -> str:
        return f"{100 * self.acc_50:.1f} %"


@dataclass(frozen=True)
class Best:
    """What a run came to: the best of its steps, its last one, and the start model, as far as they were scored."""

    best: Scores
    last: Scores
    start: Scores | None
    kept: bool
    """Whether the finished model is the best step's."""


def list_scores(rows: Sequence[Mapping[str, Any]]) -> list[Scores]:
    """Return the scores that stand in the rows of a log, by step."""
    found = {
        int(row["step"]): Scores(row[f"{PREFIX}acc_50"], row[f"{PREFIX}iou"], int(row["step"]))
        for row in rows
        if f"{PREFIX}acc_50" in row
    }
    return [found[step] for step in sorted(found)]


class AnswerPictures(TrainerCallback):
    """Show `trackers` some of the answers to held-out questions, with their boxes and the true ones."""

    def __init__(self, trackers: Trackers) -> None:
        self.trackers = trackers
        self._drawn: list[Drawn] = []

    def on_answer(self, number: int, item: Item, reading: Reading, result: Score) -> None:
        """Draw an answer, if its question is among the first ones of this process, from 1."""
        if self.trackers and number <= PICTURES:
            fault = f", {reading.fault}" if reading.fault else ""
            head = f"{item.sample.task} · {item.sample.name} · IoU {result.iou:.3f}{fault}"
            image = draw_answers(item.sample, item.pictures(), [reading], [head])
            said = "\n".join([drop_marks(item.sample.query), head, drop_marks(reading.text)])
            self._drawn.append((f"{PREFIX}answers/{number}", image, said))

    def on_validated(self, step: int) -> None:
        """Show what was drawn."""
        drawn, self._drawn = sorted(self._drawn, key=itemgetter(0)), []
        self.trackers.show(step, drawn)


class Validator(TrainerCallback):
    """Score the trainer's model on what was held out, keep the weights of the best step in `best/`, draw the curve.

    `save(folder)` writes the model's weights; every process must call it.
    """

    def __init__(
        self,
        config: StageConfig,
        held: HeldOut,
        loaded: Loaded,
        log: RunLog,
        resumed: Path | None,
        trainer: Any,
        save: Callable[[Path], None],
    ) -> None:
        assert config.validation is not None
        self.wanted: Validation = config.validation
        self.loaded, self.log, self.resumed, self.trainer, self.save = loaded, log, resumed, trainer, save
        self.out, self.frame = log.path.parent, loaded.family.frame
        self.cases = [
            (item, choose_prompt_style(item.sample, source.settings, config)) for item, source in held.items
        ]

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if is_first_process():
            shutil.rmtree(self.out / BEST, ignore_errors=True)
            if self.resumed is not None:
                _link_tree(self.resumed / BEST, self.out / BEST)
        if state.global_step == 0:
            self._score(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.wanted.every == 0 or state.global_step == state.max_steps:
            self._score(state)

    def _score(self, state: Any) -> None:
        """Score the model as it is, and log it; the weights are kept if it is the best since the first step."""
        started = time.perf_counter()
        self.log.show("validating")
        with _answering(self.trainer):
            numbers = self._answer()
            before = [each for each in list_scores(state.log_history) if each.step]
            numbers[f"{PREFIX}seconds"] = round(time.perf_counter() - started, 3)
            should_log = self.trainer.control.should_log
            # The base's own: TRL's adds the step's numbers, and empties them, before the step's row is written.
            Trainer.log(self.trainer, numbers)
            self.trainer.control.should_log = should_log
        for each in self._pictures():
            each.on_validated(state.global_step)
        now = list_scores(state.log_history)[-1]
        best = now.step > 0 and all(now > each for each in before)
        if best and self.wanted.keep_best:
            self._keep()
        if is_first_process():
            self._tell(now, numbers, best)
        self.log.leave_out(time.perf_counter() - started, self.wanted.every)

    def _answer(self) -> dict[str, float]:
        """Return the means over all processes' questions."""
        rank, processes = self.trainer.args.process_index, self.trainer.args.world_size
        mine = range(rank, len(self.cases), processes)
        model = replace(self.loaded, model=self.trainer.model)
        answerer = LocalAnswerer(model, self.wanted.batch_size)
        found: list[tuple[Any, ...]] = []
        with self.trainer.accelerator.autocast():
            try:
                for batch in answerer.answer(
                    [self._ask(k) for k in mine], Decoding(max_new_tokens=self.wanted.max_new_tokens)
                ):
                    found += [self._judge(each) for each in batch if isinstance(each, Answer)]
            except UnivgError as error:
                if isinstance(error.__cause__, torch.OutOfMemoryError):
                    remedy = f"give less than validation.batch_size={self.wanted.batch_size}"
                    raise UnivgError(f"validation: {error.cause}", remedy=remedy) from error
                raise
        found = gather_object(found) if processes > 1 else found
        if not found:
            raise UnivgError(
                "validation: no question could be asked", remedy="check its pictures: univg data validate"
            )
        *judged, absent, refused, tasks = zip(*found, strict=True)
        acc_50, iou, form = (sum(column) / len(found) for column in judged)
        return {
            f"{PREFIX}acc_50": acc_50,
            f"{PREFIX}iou": iou,
            f"{PREFIX}format": form,
            f"{PREFIX}n": len(found),
            **_count_refusals(absent, refused),
            **_list_families(tasks, judged),
        }

    def _ask(self, k: int) -> Question:
        item, style = self.cases[k]
        chat = render_chat(len(item.sample.images), item.sample.query, style)
        return Question(str(k), chat, item.pictures, group=item.sample.task, sizes_wh=item.sizes_wh)

    def _judge(self, answer: Answer) -> tuple[Any, ...]:
        """Return a hit at 0.5, the IoU (of a set its soft-F1) and the form; whether nothing is there, and whether the
        answer says so; the task family."""
        item, style = self.cases[int(answer.key)]
        asked = replace(Asked.of(item.sample, style, self.frame), style=style)
        reading = read(answer.texts[0], asked, answer.seen_wh, answer.truncated[0])
        result = score(item.sample, reading)
        for each in self._pictures():
            each.on_answer(1 + int(answer.key) // self.trainer.args.world_size, item, reading, result)
        facts = not item.sample.boxes, reading.says_none, item.sample.task
        return float(result.hit_50), result.iou, float(result.format_ok), *facts

    def _pictures(self) -> list[AnswerPictures]:
        return [each for each in self.trainer.callback_handler.callbacks if isinstance(each, AnswerPictures)]

    def _keep(self) -> None:
        """Write the weights to `best/`, whole or not at all."""
        staged = self.out / f".{BEST}"
        with writing("the best model", self.out):
            if is_first_process():
                shutil.rmtree(staged, ignore_errors=True)
            self.trainer.accelerator.wait_for_everyone()
            self.save(staged)
            self.trainer.accelerator.wait_for_everyone()
            if is_first_process():
                shutil.rmtree(self.out / BEST, ignore_errors=True)
                os.replace(staged, self.out / BEST)

    def _tell(self, now: Scores, numbers: Mapping[str, float], best: bool) -> None:
        self._draw()
        form, n, seconds = (numbers[PREFIX + name] for name in ("format", "n", "seconds"))
        refusals = ""
        if f"{PREFIX}refused_absent" in numbers:
            right, wrong = (100 * numbers[f"{PREFIX}refused_{name}"] for name in ("absent", "present"))
            refusals = f" · says that nothing is there: {right:.0f} % where so, {wrong:.0f} % else"
        self.log.console.print(
            f"step {now.step}: validation Acc@0.5 {now}, mean IoU {now.iou:.3f}, right form {100 * form:.0f} % of {n} "
            f"answers in {seconds:.0f} s{refusals}" + (" · best" if best else "")
        )

    def _draw(self) -> None:
        with writing("the learning curve", self.out):
            rows = read_rows(self.log.path)
            steps = [each for each in list_scores(rows) if each.step]
            write_whole(self.out / CURVE, draw_learning(rows, max(steps).step if steps else None))

    def finish(self) -> Best | None:
        """Put the best step's weights into the trainer's model, if they are to be the finished one's; return what the
        run came to, None where no step was scored."""
        found = list_scores(self.trainer.state.log_history)
        steps = [each for each in found if each.step]
        if not steps:
            return None
        best, last = max(steps), steps[-1]
        if self.wanted.keep_best and best != last:
            self.trainer._load_from_checkpoint(str(self.out / BEST))
        return Best(best, last, found[0] if not found[0].step else None, self.wanted.keep_best)

    def tell_best(self, best: Best) -> None:
        """Say what the finished model is; its folder `best/` is no longer needed."""
        shutil.rmtree(self.out / BEST, ignore_errors=True)
        self._draw()  # with the last step, whose row came after its scores
        start = "" if best.start is None else f", start model: {best.start}"
        kept = "the finished model is that of the last step"
        if best.kept and best.best != best.last:
            kept = (
                f"the finished model is that of the best step, the last one's is checkpoint-{best.last.step}"
            )
        console = self.log.console
        console.print(
            f"best step {best.best.step}: Acc@0.5 {best.best} (last, step {best.last.step}: {best.last}{start}); "
            f"{kept}; the curve is {self.out / CURVE}"
        )
        if best.start is not None and (best.start.acc_50, best.start.iou) >= (
            best.best.acc_50,
            best.best.iou,
        ):
            console.print("no step is better than the start model", style="yellow")


def _count_refusals(absent: Sequence[float], refused: Sequence[float]) -> dict[str, float]:
    """Return the shares of answers that say that nothing is there, where that is so and where it is not; nothing
    where no question has an empty answer.

    >>> _count_refusals([True, False, False], [True, True, False])
    {'validation/refused_absent': 1.0, 'validation/refused_present': 0.5}
    """
    if not any(absent):
        return {}
    shares = {}
    for name, there in (("absent", True), ("present", False)):
        said = [no for empty, no in zip(absent, refused, strict=True) if bool(empty) == there]
        shares[f"{PREFIX}refused_{name}"] = sum(said) / max(1, len(said))
    return shares


def _list_families(tasks: Sequence[str], judged: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return the mean hits and IoUs of each task family.

    >>> _list_families(["diff", "region", "diff"], [(1, 0, 0), (0.9, 0.1, 0.4)])["validation/acc_50/diff"]
    0.5
    """
    means = {}
    for name, column in zip(("acc_50", "iou"), judged, strict=False):
        for task in sorted(set(tasks)):
            values = [value for value, of in zip(column, tasks, strict=True) if of == task]
            means[f"{PREFIX}{name}/{task}"] = sum(values) / len(values)
    return means


def keep_best_with(checkpoint: Path, out: Path) -> None:
    """Put the weights of the best step so far into a checkpoint as links: a run that goes on from it, however often,
    knows them."""
    _link_tree(out / BEST, checkpoint / BEST)


def _link_tree(source: Path, target: Path) -> None:
    """Make `target` a copy of the folder `source`, if there is one; its files are links where that can be."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)


@contextmanager
def _answering(trainer: Any) -> Iterator[None]:
    """Let the model answer, and train on as before: prompts are padded on the left, which needs the mask that the
    training attention of CPUs does without."""
    model = trainer.model
    plain = plain_model(model)
    training, attention = model.training, plain.config._attn_implementation
    model.eval()
    if attention == ATTENTION:
        plain.set_attn_implementation("sdpa")
    try:
        with holding_whole_weights(trainer):
            yield
    finally:
        if attention == ATTENTION:
            plain.set_attn_implementation(ATTENTION)
        model.train(training)
