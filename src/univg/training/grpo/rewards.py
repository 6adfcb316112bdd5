"""What a rollout earns: TRL reward functions over the one judge, :func:`univg.grounding.scoring.score`.

A reward function is called as TRL calls it, with a whole batch: `completions` (each a list of chat messages, or a
text), and one keyword for every column of the rows. `GroundingGRPOTrainer` scores each rollout once and adds the
results as the column `score`; beside it stands `sample`, so a reward of one's own is a few lines:

    def small_box_reward(completions, sample, score, **columns):
        return [one.iou * 2 if area(s.boxes[0]) < 0.01 else 0.0 for s, one in zip(sample, score)]

and in a config `rewards: {iou: 1.0, format: 1.0, my_module.small_box_reward: 0.5}`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from univg.grounding.boxes import Box, SizeWH, is_degenerate, permille_to_unit, unit_to_permille, unit_to_px
from univg.grounding.coordinates import Frame
from univg.grounding.mentions import which_image
from univg.grounding.prompts import PromptStyle, render_response, style_for
from univg.grounding.reading import Asked, Reading, read
from univg.grounding.samples import GroundingSample
from univg.grounding.scoring import Score, score
from univg.training.grpo.dotted import named_function

__all__ = [
    "REWARDS",
    "Judge",
    "Reward",
    "RewardError",
    "find_rewards",
    "format_reward",
    "iou_reward",
    "oracle",
    "text_of",
]

RewardFunction = Callable[..., Sequence[float | None]]


class RewardError(ValueError):
    """A reward that cannot be used, or that does not give ground truth what it should."""


@dataclass(frozen=True)
class Judge:
    """How a model is asked and what it writes: all that scoring one of its rollouts needs beside the sample.

    `style` asks for thought or not; `frame` is the family's; `resized` gives (width, height) of an image as the
    model sees it, and is needed for the frame "pixel" only.
    """

    style: PromptStyle = "think"
    frame: Frame = "permille"
    resized: Callable[[SizeWH], SizeWH] | None = None

    def read(self, row: Mapping[str, Any], text: str, truncated: bool = False) -> Reading:
        """Read a rollout `text` to `row`: its `sample`, the `style` it was asked in if the row says one, and its
        `images`."""
        sample: GroundingSample = row["sample"]
        asked = Asked(len(sample.images), sample.query, self.style_of(row), self.frame, sample.target_image)
        return read(text, asked, self.seen_wh(row), truncated)

    def style_of(self, row: Mapping[str, Any]) -> PromptStyle:
        return row.get("style") or style_for(row["sample"], self.style)

    def seen_wh(self, row: Mapping[str, Any]) -> tuple[SizeWH, ...]:
        """The extent of the frame "pixel": the size at which the model sees each image; nothing for other frames."""
        if self.frame != "pixel":
            return ()
        if self.resized is None:
            raise ValueError('the frame "pixel" needs `resized`, the size at which the model sees an image')
        return tuple(self.resized(image.size) for image in row["images"])


def text_of(completion: Any) -> str:
    """The text of a completion as TRL hands it over: a text, or a list of chat messages.

    >>> text_of([{"role": "assistant", "content": "(1,2),(3,4)"}])
    '(1,2),(3,4)'
    """
    if isinstance(completion, str):
        return completion
    parts = []
    for message in completion:
        content = message["content"]
        parts.append(content if isinstance(content, str) else "".join(p.get("text", "") for p in content))
    return "".join(parts)


def iou_reward(completions: Sequence[Any], **columns: Any) -> list[float]:
    """IoU of each rollout's first box with its sample's, 0-1 (the paper's accuracy reward).

    Needs the column `sample`; `score` is used if it is there, so the function works in TRL's own trainer too.

    >>> sample = GroundingSample(["a.png"], "The dog?", "referring", boxes=[(0, 0, 0.5, 0.5)])
    >>> iou_reward(["<think>.</think><answer>(0,0),(500,250)</answer>", "no"], sample=[sample, sample])
    [0.5, 0.0]
    """
    return [each.iou for each in _scores(completions, columns)]


def format_reward(completions: Sequence[Any], **columns: Any) -> list[float]:
    """1.0 for a rollout that has the form asked for and nothing to mend, else 0.0 (the paper's format reward).

    >>> sample = GroundingSample(["a.png"], "The dog?", "referring", boxes=[(0, 0, 0.5, 0.5)])
    >>> format_reward(["<think>.</think><answer>(0,0),(9,9)</answer>", "(0,0),(9,9)"], sample=[sample, sample])
    [1.0, 0.0]
    """
    return [float(each.format_ok) for each in _scores(completions, columns)]


REWARDS: dict[str, RewardFunction] = {"iou": iou_reward, "format": format_reward}
"""The rewards that have a name of their own; any other is named by its dotted path."""


@dataclass(frozen=True)
class Reward:
    """A reward function, the name it was asked for by, and its weight in the sum."""

    name: str
    function: RewardFunction
    weight: float


def find_rewards(weights: Mapping[str, float]) -> list[Reward]:
    """The rewards of a config: a name of `REWARDS` or the dotted path of a function -> its weight.

    >>> [(reward.name, reward.weight) for reward in find_rewards({"iou": 1.0, "format": 0.5})]
    [('iou', 1.0), ('format', 0.5)]

    Errors: RewardError for no reward at all or an unknown name; DottedPathError for a path that leads nowhere.
    """
    if not weights:
        raise RewardError("no rewards: give at least one, such as {iou: 1.0, format: 1.0}")
    rewards = []
    for name, weight in weights.items():
        function = REWARDS.get(name)
        if function is None:
            if "." not in name.replace(":", "."):
                near = difflib.get_close_matches(name, REWARDS, n=1)
                meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(REWARDS)},"
                raise RewardError(f"no reward {name!r}; {meant} others by dotted path (my_module.my_reward)")
            function = named_function(name, "reward")
        rewards.append(Reward(name, function, float(weight)))
    return rewards


def oracle(row: Mapping[str, Any], judge: Judge) -> tuple[str, Mapping[str, Any], float]:
    """The ideal rollout to a row: its text, the row it must score 1.0 on, and its IoU with the row as it is.

    Coordinates are written as integers, so the truth of a small box can be met only up to rounding: the row
    returned has its box moved to the nearest that can be written, and the IoU is the ceiling that rounding leaves.
    """
    sample: GroundingSample = row["sample"]
    style = judge.style_of(row)
    truth = sample.boxes[0]
    thought = sample.thought or "The answer is known."
    if judge.frame == "permille":
        written = permille_to_unit(unit_to_permille(truth))
        text = render_response(truth, thought, style)
    else:
        index, _ = which_image(len(sample.images), sample.target_image, sample.query, thought)
        seen_wh = judge.seen_wh(row)[index]
        corners = [int(value + 0.5) for value in unit_to_px(truth, seen_wh)]
        written = tuple(v / seen_wh[i % 2] for i, v in enumerate(corners))  # type: ignore[assignment]
        text = _in_pixels(corners, thought, style)
    exact = dict(row) | {"sample": _with_box(sample, written)}
    return text, exact, score(sample, judge.read(row, text)).iou


def is_learnable(row: Mapping[str, Any]) -> bool:
    """Whether the truth encloses an area: published files hold some boxes that no response can meet."""
    sample: GroundingSample = row["sample"]
    return bool(sample.boxes) and not is_degenerate(sample.boxes[0])


def _in_pixels(corners: Sequence[int], thought: str, style: PromptStyle) -> str:
    """`render_response` writes 0-1000; so its digits are replaced by pixels, its words kept."""
    template = render_response((0.0, 0.0, 1.0, 1.0), thought, style)
    x1, y1, x2, y2 = corners
    head, _, tail = template.rpartition("(0,0),(1000,1000)")
    return f"{head}({x1},{y1}),({x2},{y2}){tail}"


def _with_box(sample: GroundingSample, box: Box) -> GroundingSample:
    import dataclasses

    return dataclasses.replace(sample, boxes=(box, *sample.boxes[1:]))


def _scores(completions: Sequence[Any], columns: Mapping[str, Any]) -> Sequence[Score]:
    if "score" in columns:
        given: Sequence[Score] = columns["score"]
        return given
    judge, samples = Judge(), columns["sample"]
    return [
        score(sample, judge.read({"sample": sample}, text_of(completion)))
        for sample, completion in zip(samples, completions, strict=True)
    ]
