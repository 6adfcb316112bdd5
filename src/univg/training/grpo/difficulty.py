"""Difficulty weights: how much a prompt counts, given how well its group of rollouts did (paper, section 3.3).

m is a group's mean IoU: that of the rollouts of one prompt, as `univg.grounding.scoring.score` judges them. A
weight multiplies the group's advantages, so hard prompts (small m) can count more than easy ones. The paper
(arXiv 2505.14231, "difficulty-aware weight adjustment") computes m over a local batch; here it is the group's
own, whatever the split into batches and processes.

To define your own weighting, give a function a name:

    @weighting("linear")
    def linear_weight(mean_iou: float) -> float:
        return 1.5 - mean_iou

and pass `weighting="linear"` in Python, or name the function in a config: `weighting: my_module.linear_weight`.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeVar

import numpy as np

from univg.errors import UnivgError
from univg.training.grpo.named import find_function

__all__ = [
    "EASY_FROM",
    "HARD_BELOW",
    "LOG_FLOOR",
    "WEIGHTINGS",
    "check_weighting",
    "exp_weight",
    "find_weighting",
    "level_of",
    "log_weight",
    "no_weight",
    "power_weight",
    "weight_of",
    "weighting",
    "weights_of",
]

Weighting = Callable[[float], float]
Level = Literal["easy", "medium", "hard"]
F = TypeVar("F", bound=Callable[..., float])

WEIGHTINGS: dict[str, Callable[..., float]] = {}
"""Every weighting by its name: mean IoU of a group (0-1) in, a positive weight out."""

LOG_FLOOR = 0.01
"""The least `log_weight`: about its value at m = 0.97. The formula itself reaches 0 at m = 0.98 and is
negative above, which would reverse the advantages of nearly solved groups."""

EASY_FROM = 0.7
HARD_BELOW = 0.3
"""A group is easy from a mean IoU of 0.7 and hard below 0.3 (MIG-Bench's strictest and loosest thresholds)."""


def weighting(name: str) -> Callable[[F], F]:
    """Register the decorated function, mean IoU -> weight, under `name`."""

    def register(function: F) -> F:
        WEIGHTINGS[name] = function
        return function

    return register


@weighting("exp")
def exp_weight(mean_iou: float) -> float:
    """Return e^(1 - m): from e for a group that never hits to 1 for one that always does. The paper's choice.

    >>> round(exp_weight(0.0), 4), exp_weight(1.0)
    (2.7183, 1.0)
    """
    return math.exp(1 - mean_iou)


@weighting("log")
def log_weight(mean_iou: float) -> float:
    """Return -ln(0.02 + m), but at least `LOG_FLOOR`: from 3.9 down to 0.01.

    The paper's formula is negative for m above 0.98; the floor keeps it positive, and nothing else changes.

    >>> round(log_weight(0.0), 3), round(log_weight(0.98), 3), log_weight(1.0)
    (3.912, 0.01, 0.01)
    """
    return max(-math.log(0.02 + mean_iou), LOG_FLOOR)


@weighting("none")
def no_weight(mean_iou: float) -> float:
    """Return 1: plain GRPO.

    >>> no_weight(0.2)
    1.0
    """
    return 1.0


@weighting("power")
def power_weight(mean_iou: float, w: float = 1.0) -> float:
    """Return (1.05 - m)^w: from 1.05^w down to 0.05^w; the paper's ablation takes w = 1.

    >>> round(power_weight(0.05), 4), round(power_weight(0.55, w=2), 4)
    (1.0, 0.25)
    """
    return (1.05 - mean_iou) ** w


def find_weighting(name: str, power_w: float = 1.0) -> Weighting:
    """Return the weighting `name`: a registered one, or the function at a dotted path.

    `power_w` is given to the function if it has a parameter `w`, as `power` does. Raises UnivgError.

    >>> find_weighting("power", power_w=2)(0.05)
    1.0
    >>> find_weighting("expo")
    Traceback (most recent call last):
    univg.errors.UnivgError: weighting 'expo': choose from exp, log, none, power (did you mean 'exp'?), or give \
the dotted path of a function (my_module.my_weighting)
    """
    function = find_function(name, WEIGHTINGS, "weighting")
    return functools.partial(function, w=power_w) if _takes_w(function) else function


def weight_of(weighting: Weighting, mean_iou: float) -> float:
    """Return a group's weight. Raises UnivgError for one that is zero, negative or not finite: it would
    silence the group or reverse its advantages without a word."""
    weight = float(weighting(mean_iou))
    if not (weight > 0 and math.isfinite(weight)):
        raise UnivgError(
            f"the weighting gives {weight} for a mean IoU of {mean_iou:.4f}",
            remedy="weights must be positive and finite",
        )
    return weight


def weights_of(weighting: Weighting, mean_iou_P: Iterable[float], even: bool = False) -> np.ndarray:
    """Return the weight of each group (P,), from its mean IoU; `even`: divided by their mean.

    >>> weights_of(exp_weight, [0.0, 1.0], even=True).round(3)
    array([1.462, 0.538])
    """
    weights_P = np.array([weight_of(weighting, float(mean_iou)) for mean_iou in mean_iou_P])
    return weights_P / weights_P.mean() if even else weights_P


def check_weighting(name: str, power_w: float = 1.0) -> None:
    """Try the weighting `name` over the whole range of mean IoUs. Raises UnivgError where it fails."""
    function = find_weighting(name, power_w)
    for mean_iou in (0.0, 0.25, 0.5, 0.75, 1.0):
        try:
            weight_of(function, mean_iou)
        except Exception as error:  # a function of the user's may fail in any way
            cause = " ".join(str(error).split()) or type(error).__name__
            remedy = "" if isinstance(error, UnivgError) else "take a mean IoU, return a positive number"
            raise UnivgError(
                f"weighting {name!r} fails for a mean IoU of {mean_iou}", cause, remedy
            ) from error


def level_of(mean_iou: float) -> Level:
    """Tell whether a group is easy, medium or hard for the model as it is now.

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
