"""HTML pages of rollouts: some groups of a step, each with its images, boxes, thoughts, rewards and weight.

A page shows the images with the true boxes and every rollout's, and who says that nothing is there. It needs no
server and no other files; `index.html` beside the pages lists all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from univg.files import write_whole
from univg.grounding.reading import Reading
from univg.grounding.samples import GroundingSample
from univg.grounding.scoring import Score
from univg.pictures.drawing import drop_marks
from univg.pictures.pages import place_percent, render_page, thumbnail_url
from univg.training.grpo.difficulty import Level, level_of
from univg.training.grpo.metrics import Generation, RolloutCallback
from univg.training.run.checkpoints import writing
from univg.training.run.trackers import Drawn, Trackers, draw_answers

__all__ = ["Group", "Rollout", "RolloutPages", "RolloutPictures", "groups_in"]

THUMB_PX = 240
PAGE_GROUPS = 8
PICTURES = 4
"""Groups that are drawn for trackers: they keep pictures of every time."""
HUES = (210, 30, 130, 280, 0, 170, 330, 60)  # one a rollout, again from the first when there are more
INDEX_COLUMNS = (
    *("iou", "hit_50", "format", "truncated"),
    *("groups/weight", "groups/easy", "groups/hard", "groups/all_refuse", "groups/all_spam"),
)


@dataclass(frozen=True)
class Rollout:
    """One response: what it says, how it was scored, and what it earned."""

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
        """The image the true box is on: where the sample does not say, the one that the first reading took."""
        known = self.sample.target_image
        return self.rollouts[0].reading.image_index if known is None else known

    @property
    def measure(self) -> str:
        """What the score is called."""
        return "soft-F1" if self.sample.complete else "IoU"

    def frames(self) -> list[dict[str, Any]]:
        """Return the pictures with the boxes that count on them, in percent of width and height: the first one of the
        truth and of each rollout, or where the answer is a set all of them."""
        count = None if self.sample.complete else 1
        truths = [(self.target if on is None else on, box) for on, box in self.sample.targets[:count]]
        frames = []
        for index, image in enumerate(self.images):
            boxes = [
                {"number": number, "place": place_percent(one.box), "hue": HUES[number % len(HUES)]}
                for number, each in enumerate(self.rollouts)
                for one in each.reading.boxes[:count]
                if one.image_index == index
            ]
            places = [place_percent(box) for on, box in truths if on == index]
            frames.append(
                {"address": thumbnail_url(image.convert("RGB"), THUMB_PX), "truths": places, "boxes": boxes}
            )
        return frames


def groups_in(generation: Generation) -> list[Group]:
    """Return the first groups of a process's generation, as far as they are whole there."""
    g, size = generation, generation.size
    columns = (g.readings, g.tokens, g.scores, g.rewards, g.advantages)
    rollouts = [Rollout(*each) for each in zip(*columns, strict=True)]
    return [
        Group(g.rows[at]["sample"], g.rows[at]["images"], g.weights[at], rollouts[at : at + size])
        for at in range(0, len(rollouts) - size + 1, size)[:PAGE_GROUPS]
    ]


class RolloutPages(RolloutCallback):
    """Write `step-000100.html` and the index into `folder`: the first step's page, then one every `every`
    steps.

    What is there stays; a step written again (after resuming) replaces its page.
    """

    def __init__(self, folder: str | Path, every: int = 1) -> None:
        self.folder, self.every = Path(folder), every

    def on_rollouts(self, args: Any, state: Any, generation: Generation) -> None:
        if _is_due(args, generation.step, self.every) and state.is_world_process_zero:
            with writing("the page of rollouts", self.folder.parent):
                self.write(generation.step, groups_in(generation), generation.metrics)

    def write(self, step: int, groups: Sequence[Group], metrics: Mapping[str, float]) -> Path:
        """Write the page of one step and list it in the index; returns the page's path."""
        page = self.folder / f"step-{step:06d}.html"
        shown = {
            name: round(value, 4)
            for name, value in metrics.items()
            if not name.startswith("faults/") or value
        }
        write_whole(page, _render("page", step=step, groups=groups, metrics=shown, hues=HUES))
        write_whole(
            page.with_suffix(".json"), json.dumps({"step": step, "file": page.name, "metrics": shown})
        )
        summaries = [json.loads(path.read_text()) for path in sorted(self.folder.glob("step-*.json"))]
        write_whole(self.folder / "index.html", _render("index", pages=summaries, names=INDEX_COLUMNS))
        return page


class RolloutPictures(RolloutCallback):
    """Show `trackers` some groups of the steps that have a page: the pictures with all boxes, and what each earned."""

    def __init__(self, trackers: Trackers, every: int = 1) -> None:
        self.trackers, self.every = trackers, every

    def on_rollouts(self, args: Any, state: Any, generation: Generation) -> None:
        if self.trackers and _is_due(args, generation.step, self.every):
            groups = groups_in(generation)[:PICTURES]
            self.trackers.show(
                generation.step, [_draw(number, group) for number, group in enumerate(groups, 1)]
            )


def _draw(number: int, group: Group) -> Drawn:
    """Draw a group, and say what its rollouts were and earned."""
    rollouts, measure = group.rollouts, group.measure
    earned = [
        f"{k}: {measure} {each.score.iou:.2f}, advantage {each.advantage:+.2f}"
        + (f", {each.reading.fault}" if each.reading.fault else "")
        for k, each in enumerate(rollouts, 1)
    ]
    head = f"{group.sample.task} · mean {measure} {group.mean_iou:.3f} ({group.level}) · weight {group.weight:.3f}"
    readings = [each.reading for each in rollouts]
    image = draw_answers(group.sample, group.images, readings, [head, "; ".join(earned)])
    texts = [f"{line}\n{drop_marks(each.reading.text)}" for line, each in zip(earned, rollouts, strict=True)]
    return f"rollouts/{number}", image, "\n".join([drop_marks(group.sample.query), head, *texts])


def _is_due(args: Any, step: int, every: int) -> bool:
    """Tell whether a generation that is learnt from in `step` and later is the first one, or one every `every`."""
    steps_between = args.steps_per_generation * args.num_iterations
    return step == 1 or step % every < max(1, steps_between // args.gradient_accumulation_steps)


def _render(part: str, **values: Any) -> str:
    return render_page("training.grpo", "pages.html.jinja", part=part, **values)
