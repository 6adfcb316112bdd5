"""An engine without a model: its answers follow from the case's key, some right, some wrong, some no answer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from univg.data.dataset import Dataset, Item
from univg.evaluate.benchmarks import open_world
from univg.evaluate.engines import Batch
from univg.grounding.coordinates import Frame
from univg.grounding.prompts import PromptStyle, render_answer, render_response
from univg.models.answering import Answer, Decoding, Refusal
from univg.pictures.images import ImageFault


@dataclass
class ScriptedEngine:
    """`asked` holds the key of every case that was answered, in order."""

    name: str = "scripted"
    style: PromptStyle = "think"
    frame: Frame = "permille"
    batch_size: int = 4
    pause_s: float = 0.0
    version: int = 1
    asked: list[str] = field(default_factory=list)

    def fingerprint(self) -> dict[str, Any]:
        prompt = {"style": self.style, "wording": ""}
        return {"engine": "scripted", "model": self.version, "prompt": prompt, "pixels": {"max_pixels": 9}}

    def answer(self, cases: Sequence[Item], decoding: Decoding) -> Iterator[Batch]:
        for start in range(0, len(cases), self.batch_size):
            time.sleep(self.pause_s)
            yield [self._one(case, decoding) for case in cases[start : start + self.batch_size]]

    def _one(self, case: Item, decoding: Decoding) -> Answer | Refusal:
        try:
            pictures = case.pictures()
        except ImageFault as fault:
            return Refusal(case.key, "image", str(fault))
        self.asked.append(case.key)
        n, seen_wh = decoding.samples, tuple(picture.size for picture in pictures)
        texts = tuple(scripted_text(case, draw + self.version) for draw in range(n))
        return Answer(case.key, texts, (False,) * n, (7,) * n, 9, 7 * n, False, seen_wh, time.perf_counter())


def scripted_text(case: Item, draw: int) -> str:
    number = (int(case.key[:6], 16) + draw) % 4
    if case.sample.complete:
        wrong = "<think>Nothing here.</think><answer>none</answer>"
        right = render_answer(replace(case.sample, thought="All that I see."), "set")
        return ("I see something.", right, right, wrong)[number]
    x1, y1, x2, y2 = case.sample.boxes[0]
    if number == 0:
        return "I see nothing."
    moved = (x1, y1, x2, y2) if number < 3 else (x1, y1, (x1 + x2) / 2, y2)
    return render_response(moved, f"It is there, draw {number}: “{case.sample.task}”.")


def world(n: int = 2, **settings: Any) -> Dataset:
    return open_world("world", n, size_px=32, **settings)
