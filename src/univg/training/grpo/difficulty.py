"""From how well a group of rollouts did to how much its prompt counts: the paper's difficulty weights.

m is a group's mean IoU: the rollouts of one prompt, scored by `univg.grounding.scoring.score`. A weight multiplies
the group's advantages, so hard prompts (small m) can be made to count more than easy ones. In the paper (arXiv
2505.14231, "difficulty-aware weight adjustment") it is worked out over a local batch; here over the group, whatever
the batches and processes.

Another weighting is a function with a name:

    @weighting("linear")
    def linear_weight(mean_iou: float) -> float:
        return 1.5 - mean_iou

and then `weighting: linear` in Python, or, from a config, `weighting: my_module.linear_weight`.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from univg.training.grpo.dotted import named_function

__all__ = [
    "EASY_FROM",
    "HARD_BELOW",
    "LOG_FLOOR",
    "WEIGHTINGS",
    "DifficultyError",
    "check_weighting",
    "exp_weight",
    "find_weighting",
    "level_of",
    "log_weight",
    "no_weight",
    "power_weight",
    "weight_of",
    "weighting",
]

Weighting = Callable[[float], float]
Level = Literal["easy", "medium", "hard"]
F = TypeVar("F", bound=Callable[..., float])

WEIGHTINGS: dict[str, Callable[..., float]] = {}
"""Every weighting by its name: mean IoU of a group (0-1) in, a positive weight out."""

LOG_FLOOR = 0.01
"""The least `log_weight`: about its value at m = 0.97. The formula itself ends at 0 for m = 0.98 and is negative
above, which would turn the advantages of nearly solved groups round."""

EASY_FROM = 0.7
HARD_BELOW = 0.3
"""A group is easy from a mean IoU of 0.7 and hard below 0.3 (MIG-Bench's strictest and loosest thresholds)."""


class DifficultyError(ValueError):
    """A weighting that does not exist, or a weight that is not a positive number."""


def weighting(name: str) -> Callable[[F], F]:
    """Register the decorated function, mean IoU -> weight, under `name`."""

    def register(function: F) -> F:
        WEIGHTINGS[name] = function
        return function

    return register


@weighting("none")
def no_weight(mean_iou: float) -> float:
    """1: plain GRPO.

    >>> no_weight(0.2)
    1.0
    """
    return 1.0


@weighting("exp")
def exp_weight(mean_iou: float) -> float:
    """e^(1 - m), from e for a group that never hits to 1 for one that always does. The paper's choice.

    >>> round(exp_weight(0.0), 4), exp_weight(1.0)
    (2.7183, 1.0)
    """
    return math.exp(1 - mean_iou)


@weighting("power")
def power_weight(mean_iou: float, w: float = 1.0) -> float:
    """(1.05 - m)^w, from 1.05^w down to 0.05^w; the paper's ablation takes w = 1.

    >>> round(power_weight(0.05), 4), round(power_weight(0.55, w=2), 4)
    (1.0, 0.25)
    """
    return (1.05 - mean_iou) ** w


@weighting("log")
def log_weight(mean_iou: float) -> float:
    """-ln(0.02 + m), but never below `LOG_FLOOR`: from 3.9 down to 0.01.

    The paper's formula is negative for m above 0.98; the floor keeps it positive, and nothing else changes.

    >>> round(log_weight(0.0), 3), round(log_weight(0.98), 3), log_weight(1.0)
    (3.912, 0.01, 0.01)
    """
    return max(-math.log(0.02 + mean_iou), LOG_FLOOR)


def find_weighting(name: str, power_w: float = 1.0) -> Weighting:
    """The weighting `name`: a registered one, or the dotted path of a function.

    `power_w` is given to the function if it has a parameter `w`, as `power` does.

    >>> find_weighting("power", power_w=2)(0.05)
    1.0
    >>> find_weighting("expo")
    Traceback (most recent call last):
    univg.training.grpo.difficulty.DifficultyError: weighting 'expo': choose from exp, log, none, power, or give \
the dotted path of a function (my_module.my_weight)
    """
    function = WEIGHTINGS.get(name)
    if function is None:
        if "." not in name.replace(":", "."):
            known = ", ".join(sorted(WEIGHTINGS))
            raise DifficultyError(
                f"weighting {name!r}: choose from {known}, or give the dotted path of a function "
                "(my_module.my_weight)"
            )
        function = named_function(name, "weighting")
    if _takes_w(function):
        return functools.partial(function, w=power_w)
    return function


def weight_of(weighting: Weighting, mean_iou: float) -> float:
    """`weighting` of a group, checked: a weight that is zero, negative or not finite is refused, since it would
    silence a group or turn its advantages round without a word."""
    weight = float(weighting(mean_iou))
    if not (weight > 0 and math.isfinite(weight)):
        raise DifficultyError(
            f"the weighting gives {weight} for a mean IoU of {mean_iou:.4f}: weights must be positive and finite"
        )
    return weight


def check_weighting(name: str, power_w: float = 1.0) -> None:
    """Try the weighting `name` over the whole range of mean IoUs. Errors: DifficultyError, DottedPathError."""
    function = find_weighting(name, power_w)
    for mean_iou in (0.0, 0.25, 0.5, 0.75, 1.0):
        try:
            weight_of(function, mean_iou)
        except Exception as error:
            cause = " ".join(str(error).split()) or type(error).__name__
            raise DifficultyError(
                f"weighting {name!r} fails for a mean IoU of {mean_iou}: {cause}"
            ) from error


def level_of(mean_iou: float) -> Level:
    """Whether a group is easy, medium or hard for the model as it is now.

    >>> level_of(0.7), level_of(0.5), level_of(0.1)
    ('easy', 'medium', 'hard')
    """
    if mean_iou >= EASY_FROM:
        return "easy"
    return "hard" if mean_iou < HARD_BELOW else "medium"


def _takes_w(function: Callable[..., Any]) -> bool:
    try:
        return "w" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # a builtin without a signature
        return False
