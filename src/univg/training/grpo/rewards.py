"""Rewards of rollouts: TRL reward functions over the one judge, :func:`univg.grounding.scoring.score`.

TRL calls a reward function with a whole batch: `completions` (each a list of chat messages, or a text), and
one keyword for every column of the rows. `GroundingGRPOTrainer` reads and scores each rollout once and adds
the columns `reading` and `score` beside `sample`, so a reward of your own is a few lines:

    def small_box_reward(completions, sample, score, **columns):
        return [one.iou * 2 if area(s.boxes[0]) < 0.01 else 0.0 for s, one in zip(sample, score)]

and in a config `rewards: {iou: 1.0, format: 1.0, my_module.small_box_reward: 0.5}`. Of answers that are sets, `iou` is
their soft-F1; `set_f1` is the same number under the name it has there, `image` judges the images named.
"""

from __future__ import annotations

import functools
import inspect
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from univg.errors import UnivgError
from univg.grounding.boxes import SizeWH, is_degenerate
from univg.grounding.coordinates import Frame
from univg.grounding.prompts import PromptStyle, render_answer
from univg.grounding.reading import Asked, Reading, read
from univg.grounding.samples import GroundingSample
from univg.grounding.scoring import Score, score
from univg.training.grpo.named import find_function
from univg.training.run.written import as_written, find_place

__all__ = [
    "REWARDS",
    "Reward",
    "RolloutReader",
    "find_rewards",
    "format_reward",
    "image_reward",
    "iou_reward",
    "is_learnable",
    "set_f1_reward",
    "text_of",
    "try_rewards",
    "watch_reward",
    "write_ideal",
]

RewardFunction = Callable[..., Sequence[float | None]]


@dataclass(frozen=True)
class RolloutReader:
    """Read rollouts to rows of a training set, in the conventions of the model that wrote them.

    `style` asks for thought or not; `frame` is the model family's; `resized` gives (width, height) of an
    image as the model sees it, and is needed for the frame "pixel" only. A row holds `sample`, `images`
    (PIL), and optionally the `style` that it is asked in.
    """

    style: PromptStyle = "think"
    frame: Frame = "permille"
    resized: Callable[[SizeWH], SizeWH] | None = None

    @classmethod
    def of(cls, model: Any, processor: Any) -> RolloutReader:
        """Return the reader for a model, by its family (the path of a model says nothing), asked for
        thoughts."""
        from univg.models.families import MODEL_FAMILIES

        family = MODEL_FAMILIES.get(getattr(getattr(model, "config", None), "model_type", ""))
        if family is None:
            return cls()
        budget = getattr(processor, "pixel_budget", None)
        resized = None if budget is None else lambda size_wh: budget.resized(size_wh, processor.factor)
        return cls(frame=family.frame, resized=resized)

    def read(self, row: Mapping[str, Any], text: str, truncated: bool = False) -> Reading:
        """Read a rollout `text` to `row`; `truncated`: the token limit cut it off."""
        return read(text, self.asked(row), self.sizes_of(row), truncated)

    def asked(self, row: Mapping[str, Any]) -> Asked:
        """Return what a row asks: its sample, in the row's own style if it has one."""
        asked = Asked.of(row["sample"], self.style, self.frame)
        return replace(asked, style=row["style"]) if row.get("style") else asked

    def sizes_of(self, row: Mapping[str, Any]) -> tuple[SizeWH, ...]:
        """Return the size at which the model sees each image, for the frame "pixel"; nothing for other
        frames."""
        if self.frame != "pixel":
            return ()
        if self.resized is None:
            raise ValueError('the frame "pixel" needs `resized`, the size at which the model sees an image')
        return tuple(self.resized(image.size) for image in row["images"])


def text_of(completion: Any) -> str:
    """Return the text of a completion as TRL hands it over: a text, or a list of chat messages.

    >>> text_of([{"role": "assistant", "content": "(1,2),(3,4)"}])
    '(1,2),(3,4)'
    """
    if isinstance(completion, str):
        return completion
    contents = (message["content"] for message in completion)
    return "".join(c if isinstance(c, str) else "".join(part.get("text", "") for part in c) for c in contents)


def iou_reward(completions: Sequence[Any], **columns: Any) -> list[float]:
    """Return the IoU of each rollout's first box with its sample's, 0-1 (the paper's accuracy reward); of an answer
    that is a set, its soft-F1.

    Needs the column `sample`; uses `score` if it is there, so the function works in TRL's own trainer too.

    >>> sample = GroundingSample(["a.png"], "The dog?", "referring", boxes=[(0, 0, 0.5, 0.5)])
    >>> iou_reward(["<think>.</think><answer>(0,0),(500,250)</answer>", "no"], sample=[sample, sample])
    [0.5, 0.0]
    """
    return [each.iou for each in _scores(completions, columns)]


def format_reward(completions: Sequence[Any], **columns: Any) -> list[float]:
    """Return 1.0 for a rollout that has the form asked for and nothing to mend, else 0.0 (the paper's format
    reward).

    >>> sample = GroundingSample(["a.png"], "The dog?", "referring", boxes=[(0, 0, 0.5, 0.5)])
    >>> format_reward(["<think>.</think><answer>(0,0),(9,9)</answer>", "(0,0),(9,9)"], sample=[sample, sample])
    [1.0, 0.0]
    """
    return [float(each.format_ok) for each in _scores(completions, columns)]


def set_f1_reward(completions: Sequence[Any], **columns: Any) -> list[float]:
    """Return the soft-F1 of each rollout's boxes with its sample's, 0-1 (:mod:`univg.grounding.sets`).

    It is the number of `iou_reward` under the name that it has where answers are sets; give a run one of the two.

    >>> sample = GroundingSample(["a"], "Every dog.", "find_all", [(0, 0, 0.5, 1), (0.5, 0, 1, 1)], 0, complete=True)
    >>> one = "<think>.</think><answer>Image-1: (0,0),(500,1000)</answer>"
    >>> [round(value, 3) for value in set_f1_reward([one, "none"], sample=[sample, sample])]
    [0.667, 0.0]
    """
    return [each.iou for each in _scores(completions, columns)]


def image_reward(completions: Sequence[Any], **columns: Any) -> list[float | None]:
    """Return how well each rollout names the images that hold something, whatever its boxes: 2 · named rightly /
    (named + right), 0-1; 1.0 where none holds anything and the rollout says so.

    None where it does not apply: one image, images that the sample does not state, samples that are not complete.

    >>> dogs = GroundingSample(["a", "b"], "Every dog.", "find_all", [(0, 0, 0.5, 1)], 1, complete=True)
    >>> texts = ["Image-2: (0,0),(9,9)", "Image-1: (0,0),(500,1000)", "none"]
    >>> image_reward([f"<think>.</think><answer>{text}</answer>" for text in texts], sample=[dogs] * 3)
    [1.0, 0.0, 0.0]
    """
    return [
        result.match.image_f1 if sample.complete and len(sample.images) > 1 else None
        for sample, result in zip(columns["sample"], _scores(completions, columns), strict=True)
    ]


REWARDS: dict[str, RewardFunction] = {
    "iou": iou_reward,
    "set_f1": set_f1_reward,
    "image": image_reward,
    "format": format_reward,
}
"""The rewards that have a name of their own; any other is named by its dotted path."""


@dataclass(frozen=True)
class Reward:
    """A reward function, the name it was asked for by, and its weight in the sum."""

    name: str
    function: RewardFunction
    weight: float


def find_rewards(weights: Mapping[str, float]) -> list[Reward]:
    """Return the rewards of a config: a name of `REWARDS` or the dotted path of a function -> its weight.

    Raises UnivgError for no reward at all, an unknown name, or a path that leads nowhere.

    >>> [(reward.name, reward.weight) for reward in find_rewards({"iou": 1.0, "format": 0.5})]
    [('iou', 1.0), ('format', 0.5)]
    """
    if not weights:
        raise UnivgError("no rewards", remedy="give at least one, such as {iou: 1.0, format: 1.0}")
    return [Reward(name, find_function(name, REWARDS, "reward"), float(w)) for name, w in weights.items()]


def try_rewards(
    texts: Sequence[str], rows: Sequence[Mapping[str, Any]], rewards: Sequence[Reward]
) -> dict[str, float | None]:
    """Call every reward as TRL will, on `texts` that answer `rows`; returns their means by name.

    Raises UnivgError naming the reward that fails, or gives something else than a number or None for each text; and
    where no reward gives any number.
    """
    columns = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
    means: dict[str, float | None] = {}
    given = 0
    for reward in rewards:
        what = f"reward {reward.name!r}"
        try:
            values = reward.function(
                prompts=[row["prompt"] for row in rows],
                completions=[[{"role": "assistant", "content": text}] for text in texts],
                completion_ids=[[] for _ in texts],
                trainer_state=None,
                log_extra=lambda column, values: None,
                log_metric=lambda name, value: None,
                **columns,
            )
        except Exception as error:  # a function of the user's may fail in any way
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            remedy = "let it take **columns" if "unexpected keyword argument" in cause else ""
            raise UnivgError(f"{what} fails on ground truth ({cause})", _find_line(error), remedy) from error
        numbers = _check_values(what, values, len(texts), " on ground truth")
        means[reward.name] = sum(numbers) / len(numbers) if numbers else None
        given += len(numbers)
    if not given:
        names = ", ".join(reward.name for reward in rewards)
        raise UnivgError(
            f"rewards: {names}: no number for any ground truth, only None", remedy="add iou or format"
        )
    return means


def watch_reward(reward: Reward) -> RewardFunction:
    """Return the function of a reward; where it fails in training, or gives no number a rollout, it says so by name.

    TRL would end the run with whatever the function raised, and leave out what is not a number.
    """
    function: Any = reward.function
    if inspect.iscoroutinefunction(function):  # TRL awaits it
        return function

    @functools.wraps(reward.function)
    def watched(completions: Sequence[Any], **columns: Any) -> Any:
        what, state = f"reward {reward.name!r}", columns.get("trainer_state")
        when = f" in step {state.global_step + 1}" if state is not None else ""
        try:
            values = reward.function(completions=completions, **columns)
        except UnivgError:
            raise
        except Exception as error:  # a function of the user's may fail in any way
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            where = _find_line(error)
            raise UnivgError(f"{what} fails{when} ({cause})", where, "mend it, then --resume") from error
        _check_values(what, values, len(completions), when)
        return values

    return watched


def _check_values(what: str, values: Any, count: int, when: str) -> list[float]:
    """Return the numbers among what a reward gave; raises UnivgError unless it gave a number, or None, for each."""
    if isinstance(values, str) or not hasattr(values, "__len__"):
        wanted = f"return a list of {count} numbers, one for each rollout, or None where it does not apply"
        raise UnivgError(f"{what} gives {values!r} for {count} rollouts{when}", remedy=wanted)
    if len(values) != count:
        raise UnivgError(
            f"{what} gives {len(values)} values for {count} rollouts{when}", remedy="return one each"
        )
    try:
        numbers = [float(value) for value in values if value is not None]
    except (TypeError, ValueError):
        raise UnivgError(f"{what} gives {list(values)!r}{when}", remedy="return numbers, or None") from None
    if not all(map(math.isfinite, numbers)):
        raise UnivgError(f"{what} gives {numbers}{when}", remedy="return finite numbers, or None")
    return numbers


def _find_line(error: Exception) -> str:
    """Return the file and line that raised an error; nothing where that is our call, which did not fit."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return "" if frame.filename == __file__ else f"{frame.filename}:{frame.lineno}"


def write_ideal(row: Mapping[str, Any], reader: RolloutReader) -> tuple[str, Mapping[str, Any], float]:
    """Write the ideal rollout to a row; returns its text, the row on which it must score 1.0, and its IoU (of a set
    its soft-F1) with the row as it is.

    Coordinates are written as integers, so the truth of a small box can be met only up to rounding: the row
    returned has its boxes moved to the nearest that can be written, and the IoU is the ceiling that rounding
    leaves.
    """
    sample: GroundingSample = row["sample"]
    thinking = replace(sample, thought=sample.thought or "The answer is known.")
    sizes = reader.sizes_of(row)
    text = render_answer(thinking, reader.asked(row).style, find_place(thinking), sizes)
    exact = dict(row) | {"sample": as_written(sample, sizes)}
    return text, exact, score(sample, reader.read(row, text)).iou


def is_learnable(row: Mapping[str, Any]) -> bool:
    """Tell whether the truth encloses an area, of a set each of its boxes: published files hold some boxes that no
    response can meet. That nothing is there can be learnt."""
    sample: GroundingSample = row["sample"]
    boxes = sample.boxes if sample.complete else sample.boxes[:1]
    return sample.is_answered and not any(map(is_degenerate, boxes))


def _scores(completions: Sequence[Any], columns: Mapping[str, Any]) -> Sequence[Score]:
    if "score" in columns:
        given: Sequence[Score] = columns["score"]
        return given
    texts, reader = map(text_of, completions), RolloutReader()
    return [
        score(sample, reader.read({"sample": sample}, text))
        for sample, text in zip(columns["sample"], texts, strict=True)
    ]
