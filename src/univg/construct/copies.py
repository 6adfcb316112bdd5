"""Near-copies among many thoughts, found exactly and without comparing every pair.

Two texts are as like as their sets of five-word runs: |A ∩ B| / |A ∪ B| (Jaccard). Sets as like as t share at least
one of their |A| - ceil(t |A|) + 1 smallest members, in any common order; so only texts that share one of those
are compared (prefix filtering: Chaudhuri et al. 2006, Bayardo et al. 2007).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import defaultdict

RUN = 5
_WORD = re.compile(r"\w+")


class Copies:
    """Thoughts seen so far, by whose they are."""

    def __init__(self, likeness: float) -> None:
        self._likeness = likeness
        self._runs: list[frozenset[int]] = []
        self._owners: list[str] = []
        self._places: dict[int, list[int]] = defaultdict(list)

    def original(self, owner: str, thought: str) -> str | None:
        """Whose thought, another owner's and seen before, this one nearly repeats; None if nobody's.

        >>> seen = Copies(0.9)
        >>> seen.add("a", "The cat sits to the left of the dog.")
        >>> seen.original("b", "the cat sits to the left of the dog"), seen.original("a", "The cat sits.")
        ('a', None)
        """
        if not self._likeness:
            return None
        runs = _runs(thought)
        for at in sorted({at for run in self._prefix(runs) for at in self._places.get(run, ())}):
            other = self._runs[at]
            if self._owners[at] != owner and _alike(runs, other) >= self._likeness:
                return self._owners[at]
        return None

    def add(self, owner: str, thought: str) -> None:
        """Remember a thought."""
        if not self._likeness:
            return
        runs = _runs(thought)
        for run in self._prefix(runs):
            self._places[run].append(len(self._runs))
        self._runs.append(runs)
        self._owners.append(owner)

    def _prefix(self, runs: frozenset[int]) -> list[int]:
        return sorted(runs)[: len(runs) - math.ceil(self._likeness * len(runs) - 1e-9) + 1]


def _alike(a: frozenset[int], b: frozenset[int]) -> float:
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def _runs(thought: str) -> frozenset[int]:
    """Its five-word runs as numbers that are the same on every machine; a shorter text is one run."""
    words = _WORD.findall(thought.lower())
    runs = {" ".join(words[at : at + RUN]) for at in range(max(1, len(words) - RUN + 1))}
    return frozenset(int.from_bytes(hashlib.blake2b(run.encode(), digest_size=8).digest()) for run in runs)
