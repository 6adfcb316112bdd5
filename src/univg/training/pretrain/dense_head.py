"""Ask image tokens, by an auxiliary loss, where they are, what they cover and where that ends.

A small model trained on answers alone takes long to find out that positions exist: a whole answer gives it some
twelve digits to learn from, and M-RoPE tells it places only by differences. This head asks every image token, at a
middle layer of the text model, for the thing it lies on: its box, colour and shape. It is used in base training
and thrown away; the checkpoint stays a plain Qwen2-VL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from univg.grounding.boxes import Box
from univg.world.identity import COLOURS
from univg.world.scene import Scene
from univg.world.shapes import SHAPES

NOTHING = -1
_COLOUR_IDS = {name: i for i, name in enumerate(COLOURS)}
_SHAPE_IDS = {name: i for i, name in enumerate(SHAPES)}
UNKNOWN = torch.nan


@dataclass(frozen=True)
class DenseTargets:
    """Per image token, in the order in which the tokens stand in the batch.

    `place_N2` centre of the token (unit x, y); `box_N4` of the thing under it (NaN where there is none);
    `colour_N`, `shape_N` ids or NOTHING; `known_N` False for images whose scene is not known (crops).
    """

    place_N2: Tensor
    box_N4: Tensor
    colour_N: Tensor
    shape_N: Tensor
    known_N: Tensor

    @staticmethod
    def join(parts: list[DenseTargets]) -> DenseTargets:
        names = DenseTargets.__dataclass_fields__
        return DenseTargets(**{name: torch.cat([getattr(p, name) for p in parts]) for name in names})


def make_dense_targets(scene: Scene | None, rows: int, columns: int) -> DenseTargets:
    """Return what a head should say of an image cut into `rows` × `columns` tokens (row by row)."""
    n = rows * columns
    ys, xs = torch.meshgrid(
        (torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij"
    )
    place = torch.stack([xs.reshape(-1), ys.reshape(-1)], dim=1)
    box = torch.full((n, 4), UNKNOWN)
    colour = torch.full((n,), NOTHING)
    shape = torch.full((n,), NOTHING)
    for thing in scene.things if scene is not None else ():
        found: Box = scene.box(thing)  # type: ignore[union-attr]
        inside = (place[:, 0] >= found[0]) & (place[:, 0] <= found[2])
        inside &= (place[:, 1] >= found[1]) & (place[:, 1] <= found[3])
        if not inside.any():  # smaller than a token: the one whose centre is nearest
            middle = torch.tensor([(found[0] + found[2]) / 2, (found[1] + found[3]) / 2])
            inside[(place - middle).abs().sum(1).argmin()] = True
        box[inside] = torch.tensor(found)
        colour[inside] = _COLOUR_IDS[thing.identity.colour]
        shape[inside] = _SHAPE_IDS[thing.identity.shape]
    return DenseTargets(place, box, colour, shape, torch.full((n,), scene is not None))


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
        return 4 * functional.l1_loss(self.read(self.norm(hidden_NW.float())), box_N4)


class DenseHead(nn.Module):
    """Read hidden states (tokens, width) linearly: place, presence, box, colour, shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.sizes = (2, 1, 4, len(_COLOUR_IDS), len(_SHAPE_IDS))
        self.read = nn.Linear(width, sum(self.sizes))

    def forward(self, hidden_NW: Tensor, targets: DenseTargets) -> tuple[Tensor, dict[str, float]]:
        """Return the summed loss (a scalar) and its terms for the log."""
        read = self.read(self.norm(hidden_NW.float()))
        place, presence, box, colour, shape = read.split(self.sizes, dim=1)
        known, on = targets.known_N, targets.known_N & (targets.colour_N != NOTHING)
        terms: dict[str, Tensor] = {
            "place": 4 * functional.l1_loss(place, targets.place_N2),
            "presence": functional.binary_cross_entropy_with_logits(presence[known, 0], on[known].float()),
            "box": 4 * functional.l1_loss(box[on], targets.box_N4[on]),
            "colour": functional.cross_entropy(colour[on], targets.colour_N[on]),
            "shape": functional.cross_entropy(shape[on], targets.shape_N[on]),
        }
        loss: Any = sum(terms.values())
        return loss, {name: float(term.detach()) for name, term in terms.items()}
