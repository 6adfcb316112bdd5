"""Find near-copies among many thoughts, exactly and without comparing every pair.

The likeness of two texts is that of their sets of shingles (runs of five words): |A ∩ B| / |A ∪ B| (Jaccard). Two
sets of likeness t or more share at least one of their |A| - ceil(t |A|) + 1 smallest members, in any common order; so
only texts that share one of those are compared (prefix filtering: Chaudhuri et al. 2006, Bayardo et al. 2007).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import defaultdict

SHINGLE_WORDS = 5
_WORD = re.compile(r"\w+")


class Copies:
    """Remember thoughts and their owners, and find whom a new thought repeats. `likeness` 0 finds nobody.

    >>> seen = Copies(0.9)
    >>> seen.add("a", "The cat sits to the left of the dog.")
    >>> seen.find_original("b", "the cat sits to the left of the dog"), seen.find_original("a", "The cat sits.")
    ('a', None)
    """

    def __init__(self, likeness: float) -> None:
        self._likeness = likeness
        self._thoughts: list[tuple[str, frozenset[int]]] = []
        self._places: dict[int, list[int]] = defaultdict(list)

    def find_original(self, owner: str, thought: str) -> str | None:
        """Return the owner, another than `owner`, of the first thought that this one nearly repeats; None if none."""
        if not self._likeness:
            return None
        shingles = hash_shingles(thought)
        for place in sorted({place for one in self._prefix(shingles) for place in self._places.get(one, ())}):
            other, others = self._thoughts[place]
            if other != owner and measure_likeness(shingles, others) >= self._likeness:
                return other
        return None

    def add(self, owner: str, thought: str) -> None:
        """Remember a thought."""
        if not self._likeness:
            return
        shingles = hash_shingles(thought)
        for one in self._prefix(shingles):
            self._places[one].append(len(self._thoughts))
        self._thoughts.append((owner, shingles))

    def _prefix(self, shingles: frozenset[int]) -> list[int]:
        size = len(shingles)
        return sorted(shingles)[: size - math.ceil(self._likeness * size - 1e-9) + 1]


def measure_likeness(a: frozenset[int], b: frozenset[int]) -> float:
    """Return the Jaccard index of two sets."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def hash_shingles(thought: str) -> frozenset[int]:
    """Return a thought's shingles as numbers that are the same on every machine; a shorter text is one shingle."""
    words = _WORD.findall(thought.lower())
    starts = range(max(1, len(words) - SHINGLE_WORDS + 1))
    texts = {" ".join(words[start : start + SHINGLE_WORDS]) for start in starts}
    return frozenset(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) for text in texts)
