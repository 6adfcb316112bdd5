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

    The rarest kinds are given out first (of a kind in one group, the largest share gets it), larger groups before
    smaller ones, else in an order that the seed decides. Each goes where its rarest kind is missed most, among the
    sides that it brings nearer to their share.
    """
    total, kinds = sum(group.size for group in groups), Counter[str]()
    for group in groups:
        kinds.update(group.kinds)

    def rank(group: Group) -> tuple[int, int, bytes]:
        rarest = min((kinds[kind] for kind in group.kinds), default=total)
        return (
            rarest,
            -group.size,
            hashlib.sha256(f"{seed}\n{group.name}".encode(errors="surrogatepass")).digest(),
        )

    have, held = dict.fromkeys(shares, 0), {side: Counter[str]() for side in shares}
    side_of = {}
    for group in sorted(groups, key=rank):
        lacking = {side: share * total - have[side] for side, share in shares.items()}
        nearer = [side for side in shares if lacking[side] >= group.size / 2]
        rarest = min(sorted(group.kinds), key=kinds.__getitem__, default="")

        def missed(side: str) -> tuple[float, float]:
            return shares[side] * kinds[rarest] - held[side][rarest], lacking[side]  # noqa: B023 - used at once

        side = max(nearer, key=missed) if nearer else max(lacking, key=lacking.__getitem__)
        side_of[group.name] = side
        have[side] += group.size
        held[side].update(group.kinds)
    return side_of


def divide_photographs(
    images: Iterable[DetectionImage],
    shares: Mapping[str, float],
    seed: int,
    identify: Callable[[str], str],
) -> tuple[dict[str, list[DetectionImage]], int]:
    """Return the photographs of each side, and in how many groups they hang together; categories are balanced.

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
    return sides, len(groups)
