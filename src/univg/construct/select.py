"""Choose which of several verified chains is kept, by a judge's votes that no order of showing can decide.

k chains are shown k times, starting from another one each time, so every chain stands at every place once. A judge
that always takes the first, or the last, gives each chain one vote, which is a tie. A single vote decides nothing: it
was cast in one order only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Ground: TypeAlias = Literal["only", "votes", "tie", "refused", "rule"]

MEANINGS: dict[Ground, str] = {
    "only": "it was the only verified one",
    "votes": "the judge named it more often than any other",
    "tie": "the judge's votes were even, or a single one: higher IoU, then the earlier proposal",
    "refused": "the judge named none in a form that can be read: higher IoU, then the earlier proposal",
    "rule": "no judge was asked: higher IoU, then the earlier proposal",
}
"""What decides between verified chains."""


@dataclass(frozen=True)
class Choice:
    """Hold the place of the chain that is kept, what decided, and each chain's votes."""

    chosen: int
    by: Ground
    votes: tuple[int, ...]


def list_orders(count: int) -> list[tuple[int, ...]]:
    """Return the orders to show `count` chains in: each rotation once, none for a single chain.

    >>> list_orders(2), list_orders(3), list_orders(1)
    ([(0, 1), (1, 0)], [(0, 1, 2), (1, 2, 0), (2, 0, 1)], [])
    """
    if count < 2:
        return []
    return [tuple((start + at) % count for at in range(count)) for start in range(count)]


_BEST = re.compile(
    r"<\s?best\s?>\s{0,3}(?:(?:chain|number|no\.?)\s{0,2})?(\d{1,2}|tie[d]?|none)\b", re.IGNORECASE
)
_BARE = re.compile(r"\A\W{0,4}(?:chain\s?)?(\d{1,2}|tie)\W{0,4}\Z", re.IGNORECASE)


def read_vote(text: str, order: Sequence[int]) -> int | Literal["tie"] | None:
    """Return the chain that a judge names in its answer to chains shown in this order, "tie", or None if no vote can
    be read.

    >>> read_vote("<best>1</best>", (2, 0, 1)), read_vote("<best>tie</best>", (0, 1)), read_vote("Hm.", (0, 1))
    (2, 'tie', None)
    """
    found = _BEST.findall(text) or _BARE.findall(text.strip())
    if not found:
        return None
    word = found[-1]
    if not word.isdigit():
        return "tie"
    place = int(word) - 1
    return order[place] if 0 <= place < len(order) else None


def choose(ious: Sequence[float], answers: Sequence[str | None] | None) -> Choice:
    """Choose among verified chains with these IoUs. `answers` are the judge's, one for each of
    `list_orders(len(ious))`, None where it gave none; None altogether if no judge was asked.

    Where votes are even or cannot be read, the rule decides: higher IoU (to a hundredth), then the earlier proposal.

    >>> choose([0.9, 0.8], ["<best>2</best>", "<best>1</best>"])
    Choice(chosen=1, by='votes', votes=(0, 2))
    >>> choose([0.9, 0.8], ["<best>1</best>", "<best>1</best>"])
    Choice(chosen=0, by='tie', votes=(1, 1))
    """

    def rank(place: int) -> tuple[float, int]:
        return round(ious[place], 2), -place

    first, nobody = max(range(len(ious)), key=rank), (0,) * len(ious)
    if len(ious) == 1:
        return Choice(0, "only", nobody)
    if answers is None:
        return Choice(first, "rule", nobody)
    read = [
        None if text is None else read_vote(text, order)
        for text, order in zip(answers, list_orders(len(ious)), strict=True)
    ]
    counts = Counter(vote for vote in read if isinstance(vote, int))
    votes = tuple(counts[at] for at in range(len(ious)))
    if not any(vote is not None for vote in read):
        return Choice(first, "refused", votes)
    best = [at for at, count in enumerate(votes) if count == max(votes)]
    if len(best) == 1 and max(votes) > 1:
        return Choice(best[0], "votes", votes)
    return Choice(max(best, key=rank), "tie", votes)
