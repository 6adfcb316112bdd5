"""Ask image tokens, by an auxiliary loss, where they are, what they cover and where that ends.

A small model trained on answers alone takes long to find out that positions exist: a whole answer gives it some
twelve digits to learn from, and M-RoPE tells it places only by differences. This head asks every image token, at a
middle layer of the text model, for the thing it lies on: its box, colour and shape. It is used in base training
and thrown away; the checkpoint stays a plain Qwen2-VL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from univg.training.pretrain.packed import take
from univg.world.identity import COLOURS
from univg.world.scene import Scene
from univg.world.shapes import SHAPES

NOTHING = -1
_COLOUR_IDS = {name: i for i, name in enumerate(COLOURS)}
_SHAPE_IDS = {name: i for i, name in enumerate(SHAPES)}


@dataclass(frozen=True)
class DenseTargets:
    """Per image token, in the order in which the tokens stand in the batch.

    `place_N2` centre of the token (unit x, y); `box_N4` of the thing under it (NaN where there is none); `colour_N`,
    `shape_N` ids or NOTHING. `known_at` are the tokens of images whose scene is known (crops are not), `on_at` those of
    them that lie on a thing.
    """

    place_N2: Tensor
    box_N4: Tensor
    colour_N: Tensor
    shape_N: Tensor
    known_at: Tensor
    on_at: Tensor


ImageTargets = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], bool]
"""Place, box, colour and shape of an image's tokens, and whether its scene is known."""


def join_targets(parts: Sequence[ImageTargets]) -> DenseTargets:
    """Join the targets of a batch's images."""
    place, box, colour, shape = (np.concatenate([part[i] for part in parts]) for i in range(4))
    known = np.repeat([part[4] for part in parts], [len(part[0]) for part in parts])
    fields = place, box, colour, shape, np.flatnonzero(known), np.flatnonzero(colour != NOTHING)
    return DenseTargets(*map(torch.from_numpy, fields))


def make_dense_targets(scene: Scene | None, rows: int, columns: int) -> ImageTargets:
    """Return what a head should say of an image cut into `rows` × `columns` tokens (row by row)."""
    place_N2 = _centres(rows, columns)
    n = len(place_N2)
    box_N4 = np.full((n, 4), np.nan, np.float32)
    colour_N, shape_N = np.full(n, NOTHING), np.full(n, NOTHING)
    if scene is None or not scene.things:
        return place_N2, box_N4, colour_N, shape_N, scene is not None
    things = scene.things
    boxes_K4 = np.array([scene.box(thing) for thing in things], np.float32)
    low, high = boxes_K4[:, None, :2], boxes_K4[:, None, 2:]
    inside_KN = np.all((place_N2 >= low) & (place_N2 <= high), axis=2)
    for k in np.flatnonzero(~inside_KN.any(1)):  # smaller than a token: the one whose centre is nearest
        middle = (boxes_K4[k, :2] + boxes_K4[k, 2:]) / 2
        inside_KN[k, np.abs(place_N2 - middle).sum(1).argmin()] = True
    covered = inside_KN.any(0)
    upper = (
        len(things) - 1 - inside_KN[::-1, covered].argmax(0)
    )  # of several things the last, which is drawn on top
    box_N4[covered] = boxes_K4[upper]
    colour_N[covered] = np.array([_COLOUR_IDS[thing.identity.colour] for thing in things])[upper]
    shape_N[covered] = np.array([_SHAPE_IDS[thing.identity.shape] for thing in things])[upper]
    return place_N2, box_N4, colour_N, shape_N, True


@lru_cache(maxsize=1024)
def _centres(rows: int, columns: int) -> NDArray[np.float32]:
    """Return the centre (x, y) of every token, (rows × columns, 2)."""
    ys, xs = np.indices((rows, columns))
    centres = np.stack([(xs + 0.5) / columns, (ys + 0.5) / rows], axis=-1)
    return centres.reshape(-1, 2).astype(np.float32)


class BoxHead(nn.Module):
    """Read the box that a response is about to write, from the token before its first digit.

    Digits are a rough teacher: 399 and 401 share none. A distance between boxes tells a token that looks at the
    wrong thing which way to look. Hidden states (boxes, width) in, L1 against the box (unit) out.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.read = nn.Linear(width, 4)

    def forward(self, hidden_NW: Tensor, box_N4: Tensor) -> Tensor:
        return _mean_distance(self.read(self.norm(hidden_NW.float())), box_N4)


def _mean_distance(read_NX: Tensor, target_NX: Tensor) -> Tensor:
    """Return four times the mean L1 distance; 0 of none."""
    return 4 * functional.l1_loss(read_NX, target_NX, reduction="sum") / max(1, target_NX.numel())


class DenseHead(nn.Module):
    """Read hidden states (tokens, width) linearly: place, presence, box, colour, shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.sizes = (2, 1, 4, len(_COLOUR_IDS), len(_SHAPE_IDS))
        self.read = nn.Linear(width, sum(self.sizes))

    def forward(self, hidden_NW: Tensor, targets: DenseTargets) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the summed loss (a scalar) and its terms for the log."""
        read = self.read(self.norm(hidden_NW.float()))
        place, presence, *_ = read.split(self.sizes, dim=1)
        on, known = targets.on_at, targets.known_at
        *_, box, colour, shape = take(read, on).split(self.sizes, dim=1)
        covered = max(1, len(on))
        there = (targets.colour_N[known] != NOTHING).float()
        terms = {
            "place": _mean_distance(place, targets.place_N2),
            "presence": functional.binary_cross_entropy_with_logits(
                take(presence, known)[:, 0], there, reduction="sum"
            )
            / max(1, len(known)),
            "box": _mean_distance(box, targets.box_N4[on]),
            "colour": functional.cross_entropy(colour, targets.colour_N[on], reduction="sum") / covered,
            "shape": functional.cross_entropy(shape, targets.shape_N[on], reduction="sum") / covered,
        }
        loss: Any = sum(terms.values())
        return loss, {name: term.detach() for name, term in terms.items()}
