"""Divide what hangs together among sides (training, validation, test), each of which gets its share of every kind.

Photographs hang together if they are copies of one another, frames of one video, or variants that RoboFlow made of one
picture (`NAME.rf.….jpg`); samples if they show the same picture.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from univg.data.detection import DetectionImage

__all__ = ["Chains", "Group", "divide", "divide_photographs"]

_VARIANT = re.compile(r"(.+)\.rf\.\w+\.\w+")


@dataclass
class Chains:
    """Join names that belong together, also through others (union-find).

    >>> chains = Chains()
    >>> chains.join(["a", "b"]), chains.join(["c"]), chains.join(["b", "d"])
    (None, None, None)
    >>> chains.find("a") == chains.find("d"), chains.find("a") == chains.find("c")
    (True, False)
    """

    leader: dict[str, str] = field(default_factory=dict)

    def find(self, name: str) -> str:
        """Return the one name that stands for all that `name` was joined with."""
        root = name
        while self.leader[root] != root:
            root = self.leader[root]
        while self.leader[name] != root:
            self.leader[name], name = root, self.leader[name]
        return root

    def join(self, names: Sequence[str]) -> None:
        for name in names:
            self.leader.setdefault(name, name)
            self.leader[self.find(name)] = self.find(names[0])


@dataclass
class Group:
    """What stays together: how many things, and of each kind how many. `name` is the same in any order of reading."""

    name: str
    size: int = 0
    kinds: Counter[str] = field(default_factory=Counter)


def divide(groups: Sequence[Group], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Return the side of each group, by its name; `shares` sum to one.

    The largest groups are given out first, of these the rarest kinds, else in an order that the seed decides.
    Each goes where its rarest kind is missed most, among the sides that it brings nearer to their share. A kind too
    rare to be on every side decides nothing.
    """
    total, kinds = sum(group.size for group in groups), Counter[str]()
    for group in groups:
        kinds.update(group.kinds)
    least = min((share for share in shares.values() if share), default=1)

    def find_rarest(group: Group) -> str | None:
        divisible = [kind for kind in sorted(group.kinds) if round(least * kinds[kind])]
        return min(divisible, key=kinds.__getitem__, default=None)

    def rank(group: Group) -> tuple[int, int, bytes]:
        rarest, text = find_rarest(group), f"{seed}\n{group.name}"
        digest = hashlib.sha256(text.encode(errors="surrogatepass")).digest()
        return -group.size, total if rarest is None else kinds[rarest], digest

    lacking = {side: share * total for side, share in shares.items()}
    lacking_of = {
        kind: {side: share * number for side, share in shares.items()} for kind, number in kinds.items()
    }
    side_of = {}
    for group in sorted(groups, key=rank):
        rarest = find_rarest(group)
        missed = lacking if rarest is None else lacking_of[rarest]
        nearer = [side for side in shares if lacking[side] >= group.size / 2] or list(shares)
        side = max(nearer, key=lambda side: (missed[side], lacking[side]))
        side_of[group.name] = side
        lacking[side] -= group.size
        for kind, number in group.kinds.items():
            lacking_of[kind][side] -= number
    return side_of


def divide_photographs(
    images: Iterable[DetectionImage],
    shares: Mapping[str, float],
    seed: int,
    identify: Callable[[str], str],
) -> tuple[dict[str, list[DetectionImage]], list[Group]]:
    """Return the photographs of each side, and the groups in which they hang together; categories are balanced.

    `identify` turns an image's path into what makes two paths the same picture (a hash of the file, say).
    """
    chains, marked = Chains(), []
    for image in images:
        marks = [f"picture {identify(image.name)}"]
        if image.video is not None:
            marks.append(f"video {image.video}")
        if made := _VARIANT.fullmatch(PurePosixPath(image.name.replace("\\", "/")).name):
            marks.append(f"variant {made[1]}")
        chains.join(marks)
        marked.append((image, marks[0]))
    groups: dict[str, Group] = {}
    for image, mark in marked:
        group = groups.setdefault(chains.find(mark), Group(mark))
        group.name = min(group.name, mark)
        group.size += 1
        group.kinds.update({instance.category for instance in image.instances})
    side_of = divide(list(groups.values()), shares, seed)
    sides: dict[str, list[DetectionImage]] = {side: [] for side in shares}
    for image, mark in marked:
        sides[side_of[groups[chains.find(mark)].name]].append(image)
    return sides, list(groups.values())
