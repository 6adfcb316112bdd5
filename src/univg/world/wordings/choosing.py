"""Choose how a question is worded, and list all wordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from univg.world.wordings import many_images, sets, single, two_images

PUBLISHED_SHARE = 0.25
"""How often training and test ask as the benchmark does: more often than in any other one wording."""
NOT_PUBLISHED = frozenset({"referring", "find_all", "absent", "odd_one_out", "odd_one_out, told"})
"""Families that no benchmark words: their first wordings are ours."""


@dataclass(frozen=True, slots=True)
class Wordings:
    """How a family may be asked, to be filled in: as training and test do, and as only the unseen split does."""

    seen: tuple[str, ...]
    unseen: tuple[str, ...]


def read_lines(block: tuple[str, str]) -> Wordings:
    """Return a table's two blocks, one wording a line.

    >>> read_lines(("find it\\nbox it", "spot it"))
    Wordings(seen=('find it', 'box it'), unseen=('spot it',))
    """
    seen, unseen = (tuple(text.strip().splitlines()) for text in block)
    return Wordings(seen, unseen)


OWN: dict[str, Wordings] = {
    name: read_lines(block)
    for name, block in {
        "diff": two_images.DIFF,
        "view_diff": two_images.VIEW_DIFF,
        "common_object": many_images.COMMON_OBJECT,
        "object_tracking": many_images.OBJECT_TRACKING,
        "multi_view": many_images.MULTI_VIEW,
        "region": many_images.REGION,
        "refer_grounding": two_images.REFER_GROUNDING,
        "group_grounding": many_images.GROUP_GROUNDING,
        "reasoning, same": two_images.SAME,
        "reasoning, missing": two_images.MISSING,
        "reasoning, partner": two_images.PARTNER,
        "correspondence": two_images.CORRESPONDENCE,
        "referring": single.REFERRING,
        "implicit": single.IMPLICIT,
        "video": single.VIDEO,
        "find_all": sets.FIND_ALL,
        "absent": sets.ABSENT,
        "odd_one_out": sets.ODD_ONE_OUT,
        "odd_one_out, told": sets.ODD_ONE_OUT_TOLD,
    }.items()
}
"""By family; of one that asks several questions, by family and question."""
ODD_ONE = read_lines(single.ODD_ONE)
FILM = {kind: read_lines(block) for kind, block in single.FILM.items()}


def choose_wording(rng: Random, name: str, published: Sequence[str], split: str) -> tuple[str, bool]:
    """Draw a wording to be filled in, and tell whether it is one of those `published`.

    The unseen split asks in wordings that training never uses.
    """
    own = OWN[name]
    if split != "unseen" and rng.random() < PUBLISHED_SHARE:
        return rng.choice(published), True
    return choose_phrase(rng, own, split), False


def choose_phrase(rng: Random, phrases: Wordings, split: str) -> str:
    """Draw one of the phrases that the split may use."""
    return rng.choice(phrases.unseen if split == "unseen" else phrases.seen)


def write_as_typed(rng: Random, text: str) -> str:
    """Return a wording as somebody types it: at times without its capital or its full stop, at times with them."""
    if text[0].islower():
        return text[0].upper() + text[1:] if rng.random() < 0.2 else text
    if rng.random() < 0.15:
        text = text[0].lower() + text[1:]
    return text.rstrip(".?") if rng.random() < 0.15 else text
