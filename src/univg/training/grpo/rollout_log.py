"""What is told of the rollouts: the numbers of every step, and pages to look at.

A page shows some groups of one step: the images with the true box and every rollout's, and for each rollout its
thought, rewards and weight. Pages need no server and no other files; `index.html` beside them lists all.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from univg.grounding.boxes import Box
from univg.grounding.reading import FAULTS, Reading
from univg.grounding.samples import GroundingSample
from univg.grounding.scoring import Score
from univg.pictures.drawing import fit
from univg.training.grpo.difficulty import Level, level_of

__all__ = ["FAULT_NAMES", "Group", "Judged", "Rollout", "RolloutPages", "step_metrics"]

FAULT_NAMES = tuple(FAULTS)
THUMB_PX = 240
HUES = (210, 30, 130, 280, 0, 170, 330, 60)  # one a rollout, again from the first when there are more


@dataclass(frozen=True)
class Judged:
    """All rollouts of one generation over all processes, group after group: arrays (prompt, generation)."""

    iou_PG: np.ndarray
    hit_50_PG: np.ndarray
    format_PG: np.ndarray
    truncated_PG: np.ndarray
    fault_PG: np.ndarray
    """Index into `FAULT_NAMES`, -1 for none."""

    @staticmethod
    def row(score: Score, reading: Reading) -> list[float]:
        """One rollout as numbers; `Judged.of` puts the rows of all together."""
        index = FAULT_NAMES.index(reading.fault) if reading.fault else -1
        return [score.iou, score.hit_50, score.format_ok, reading.truncated, index]

    @classmethod
    def of(cls, rows: Sequence[Sequence[float]] | np.ndarray, generations: int) -> Judged:
        table = np.asarray(rows, dtype=np.float64)
        return cls(*(column.reshape(-1, generations) for column in table.T))

    @property
    def mean_iou_P(self) -> np.ndarray:
        """m of each group, which decides its weight."""
        return self.iou_PG.mean(axis=1)


def step_metrics(judged: Judged, rewards_PG: np.ndarray, weights_P: np.ndarray) -> dict[str, float]:
    """What a step's log says about its rollouts; every share is 0-1.

    `iou`, `hit_50`, `format` and `truncated` are means over rollouts, `faults/…` shares of rollouts with that fault
    (`faults/any`: with one). Over groups: `groups/no_spread`, those whose rewards are all equal and teach nothing;
    `groups/weight`, the mean difficulty weight; `groups/easy`, `groups/medium`, `groups/hard`, by mean IoU
    (from 0.7; below 0.3). KL, entropy and lengths are TRL's: `kl`, `entropy`, `completions/mean_length`.
    """
    metrics = {
        "iou": float(judged.iou_PG.mean()),
        "hit_50": float(judged.hit_50_PG.mean()),
        "format": float(judged.format_PG.mean()),
        "truncated": float(judged.truncated_PG.mean()),
        "faults/any": float((judged.fault_PG >= 0).mean()),
    }
    for index, name in enumerate(FAULT_NAMES):
        metrics[f"faults/{name}"] = float((judged.fault_PG == index).mean())
    levels = [level_of(mean) for mean in judged.mean_iou_P]
    with np.errstate(invalid="ignore"):  # a reward may be infinite
        spread_P = rewards_PG.max(axis=1) - rewards_PG.min(axis=1)
    metrics |= {
        "groups/no_spread": float((~(spread_P > 1e-6)).mean()),
        "groups/weight": float(weights_P.mean()),
    }
    return metrics | {
        f"groups/{level}": levels.count(level) / len(levels) for level in ("easy", "medium", "hard")
    }


@dataclass(frozen=True)
class Rollout:
    """One response: what it says, how it was judged, and what it earned."""

    reading: Reading
    tokens: int
    score: Score
    rewards: Mapping[str, float]
    advantage: float
    """Relative to its group, already multiplied by the group's weight."""


@dataclass(frozen=True)
class Group:
    """The rollouts of one prompt."""

    sample: GroundingSample
    images: Sequence[Image.Image]
    weight: float
    rollouts: Sequence[Rollout]

    @property
    def mean_iou(self) -> float:
        return sum(each.score.iou for each in self.rollouts) / len(self.rollouts)

    @property
    def level(self) -> Level:
        return level_of(self.mean_iou)

    @property
    def target(self) -> int:
        """The image the true box is on: where the sample does not say, the one that scoring took."""
        known = self.sample.target_image
        return self.rollouts[0].reading.image_index if known is None else known

    def frames(self) -> list[dict[str, Any]]:
        """The pictures with the boxes on them, in percent of width and height."""
        frames = []
        for index, image in enumerate(self.images):
            boxes = [
                {"number": number, "place": _percent(each.reading.box), "hue": HUES[number % len(HUES)]}
                for number, each in enumerate(self.rollouts)
                if each.reading.box is not None and each.reading.image_index == index
            ]
            truth = _percent(self.sample.boxes[0]) if index == self.target else None
            frames.append({"address": _address(image), "truth": truth, "boxes": boxes})
        return frames


class RolloutPages:
    """Writes `step-000100.html` and the index into a folder. What is there stays; a step written again (after
    resuming) replaces its page."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def write(self, step: int, groups: Sequence[Group], metrics: Mapping[str, float]) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        page = self.folder / f"step-{step:06d}.html"
        shown = {
            name: round(value, 4)
            for name, value in metrics.items()
            if not name.startswith("faults/") or value
        }
        summary = {"step": step, "file": page.name, "metrics": shown}
        _replace(page, _render("page", step=step, groups=groups, metrics=shown, hues=HUES))
        _replace(page.with_suffix(".json"), json.dumps(summary))
        self._index()
        return page

    def _index(self) -> None:
        summaries = [json.loads(path.read_text()) for path in sorted(self.folder.glob("step-*.json"))]
        names = ["iou", "hit_50", "format", "truncated", "groups/weight", "groups/easy", "groups/hard"]
        _replace(self.folder / "index.html", _render("index", pages=summaries, names=names))


def _render(part: str, **values: Any) -> str:
    import jinja2

    source = (
        resources.files("univg.training.grpo").joinpath("rollouts.html.jinja").read_text(encoding="utf-8")
    )
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source).render(part=part, **values)


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _percent(box_unit: Box) -> list[float]:
    """(left, top, width, height) in percent, inside the image."""
    x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in box_unit)
    left, top, right, bottom = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
    return [round(100 * value, 2) for value in (left, top, right - left, bottom - top)]


def _address(image: Image.Image) -> str:
    """The picture as an address that holds it."""
    buffer = io.BytesIO()
    fit(image.convert("RGB"), THUMB_PX, 2 * THUMB_PX).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
