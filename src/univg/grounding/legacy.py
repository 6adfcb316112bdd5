"""Scorers that give the published reference code's numbers, faults included, to the last bit.

For comparison with published tables only; everything of this project is judged by ``univg.grounding.scoring.score``.
The reference is the code released with the UniVG-R1 paper (arXiv 2505.14231): its MIG-Bench and zero-shot
evaluation, and the two rewards of its GRPO training. What differs from ``score``:

- MIG-Bench: the first box of the whole text counts, thought included; formats have a rank that beats
  position; decimals become zeros; the answer is compared as it stands, so 0-1 answers score 0.
- Zero-shot: the first box of prompt and completion together; 1e-6 is added to the union.
- Accuracy reward: an overlap of one unit or less in width or height counts nothing.
- Format reward: searched, not matched, so anything may stand before; a final newline passes.

Where the reference would stop with an error instead of giving a number, the number here is 0.0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

__all__ = [
    "legacy_accuracy_reward",
    "legacy_format_reward",
    "legacy_mig_bench_box",
    "legacy_mig_bench_iou",
    "legacy_zero_shot_iou",
]

_INTEGER_PAIRS = r"\((\d+),\s*(\d+)\),\s*\((\d+),\s*(\d+)\)"
_DECIMAL = r"(\d+\.\d+)"
_MIG_BENCH_FORMATS = tuple(
    re.compile(pattern)
    for pattern in (
        _INTEGER_PAIRS,
        rf"\[{_DECIMAL},\s*{_DECIMAL},\s*{_DECIMAL},\s*{_DECIMAL}\]",
        rf"\({_DECIMAL},{_DECIMAL}\),\({_DECIMAL},{_DECIMAL}\)",
        rf"\({_DECIMAL},\s*{_DECIMAL},\s*{_DECIMAL},\s*{_DECIMAL}\)",
        r"\[(\d+),\s*(\d+),\s*(\d+),\s*(\d+)\]",
        r"<box>(\d+)\s+(\d+)\s+(\d+)\s+(\d+)</box>",
    )
)
_ZERO_SHOT_FORMAT = re.compile(r"\(\s*(\d+)\s*,\s*(\d+)\s*\)\s*,\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)")
_REWARD_FORMAT = re.compile(_INTEGER_PAIRS)
_ANSWER_AT_END = re.compile(rf"<answer>{_INTEGER_PAIRS}</answer>$")


def legacy_mig_bench_box(text: str) -> list[float]:
    """Return the box the MIG-Bench scorer reads: four integers as written, or ``[0.0, 0.0, 0.0, 0.0]``.

    >>> legacy_mig_bench_box("<think>maybe (1,2),(3,4)</think><answer>(5,6),(7,8)</answer>")
    [1, 2, 3, 4]
    >>> legacy_mig_bench_box("[0.1, 0.2, 0.3, 0.4]")
    [0.0, 0.0, 0.0, 0.0]
    """
    for pattern in _MIG_BENCH_FORMATS:
        match = pattern.search(text)
        if match is not None:
            try:
                return [int(number) for number in match.groups()]
            except ValueError:  # decimals, or more digits than Python converts
                break
    return [0.0, 0.0, 0.0, 0.0]


def legacy_mig_bench_iou(text: str, answer: Sequence[float]) -> float:
    """Return the IoU of the box read from ``text`` with ``answer`` as it stands in the file; meant for 0-1000 only.

    >>> legacy_mig_bench_iou("<answer>(0,0),(200,100)</answer>", [0, 0, 100, 100])
    0.5
    >>> legacy_mig_bench_iou("<answer>(0,0),(200,100)</answer>", [0.0, 0.0, 0.1, 0.1])
    5.000000000000001e-07
    """
    truth, box = answer, legacy_mig_bench_box(text)
    left, top = max(truth[0], box[0]), max(truth[1], box[1])
    right, bottom = min(truth[2], box[2]), min(truth[3], box[3])
    if right < left or bottom < top:
        return 0.0
    overlap = (right - left) * (bottom - top)
    return _divide(overlap, lambda: _find_extent(truth) + _find_extent(box) - overlap)


def legacy_zero_shot_iou(text: str, box_unit: Sequence[float] | None) -> float:
    """Return the zero-shot scorer's IoU: ``text`` is prompt and completion together, ``box_unit`` the truth
    divided by the image's size (None if that failed, as for a missing image: 0.0).

    >>> legacy_zero_shot_iou("( 0, 0 ) , (500,500)", (0.0, 0.0, 0.5, 0.5))
    0.9999960000160001
    """
    match = _ZERO_SHOT_FORMAT.search(text)
    if match is None or box_unit is None:
        return 0.0
    try:
        x1, y1, x2, y2 = (int(number) / 1000 for number in match.groups())
    except (ValueError, OverflowError):
        return 0.0
    box = (x1, y1, x2, y2)
    width = max(0, min(box[2], box_unit[2]) - max(box[0], box_unit[0]))
    height = max(0, min(box[3], box_unit[3]) - max(box[1], box_unit[1]))
    overlap = width * height
    return _divide(overlap, lambda: float(_find_extent(box) + _find_extent(box_unit) - overlap + 1e-6))


def legacy_accuracy_reward(text: str, answer_permille: Sequence[float], simple: bool = False) -> float:
    """Return the IoU reward of GRPO: the first integer box inside the first ``<answer>``, against a 0-1000 answer.

    ``simple`` is the reference's case of a single-image simple reference: the whole text is the answer.

    >>> legacy_accuracy_reward("<answer>(0,0),(200,100)</answer>", [0, 0, 100, 100])
    0.5
    >>> legacy_accuracy_reward("<answer>(0,0),(1,100)</answer>", [0, 0, 100, 100])  # one unit wide
    0.0
    """
    region = text if simple else _find_first_answer(text)
    match = _REWARD_FORMAT.search(region.strip()) if region is not None else None
    if match is None:
        return 0.0
    try:
        box = [int(number) for number in match.groups()]
    except ValueError:
        return 0.0
    truth = answer_permille
    left, top = max(box[0], truth[0]), max(box[1], truth[1])
    # The last unit is counted in, so edges move by one and back: with decimals this shows in the last bit.
    right, bottom = min(box[2] - 1, truth[2] - 1), min(box[3] - 1, truth[3] - 1)
    overlap = (right - left + 1) * (bottom - top + 1) if left < right and top < bottom else 0
    return _divide(overlap, lambda: _find_extent(box) + _find_extent(truth) - overlap)


def legacy_format_reward(text: str, simple: bool = False) -> float:
    """Return the format reward of GRPO, 1.0 or 0.0.

    Equal to searching ``<think>.*?</think>\\s*<answer>BOX</answer>$`` with a dot that matches newlines, but
    in linear time. With ``simple``, a box anywhere passes.

    >>> legacy_format_reward("Well: <think></think> <answer>(1,2),(3,4)</answer>")
    1.0
    >>> legacy_format_reward("<think></think><answer>(1, 2),(3,4) </answer>")
    0.0
    """
    if simple:
        return 1.0 if _REWARD_FORMAT.search(text) else 0.0
    # A box holds no tag, so the answer that ends the text can only begin at the last <answer>.
    begin = text.rfind("<answer>")
    if begin < 0 or not _ANSWER_AT_END.match(text, begin):
        return 0.0
    before = text[:begin].rstrip()
    opened = before.find("<think>")
    return 1.0 if before.endswith("</think>") and 0 <= opened <= len(before) - len("<think></think>") else 0.0


def _find_first_answer(text: str) -> str | None:
    begin = text.find("<answer>")
    end = text.find("</answer>", begin) if begin >= 0 else -1
    return text[begin + len("<answer>") : end] if end >= 0 else None


def _find_extent(box: Sequence[float]) -> float:
    """Return width times height with their signs: the reference does not ask whether a box is one."""
    return (box[2] - box[0]) * (box[3] - box[1])


def _divide(overlap: float, union: Callable[[], float]) -> float:
    try:
        return float(overlap) / union() + 0.0  # + 0.0: a negative union would leave -0.0
    except (ZeroDivisionError, OverflowError):
        return 0.0
