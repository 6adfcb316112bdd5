"""Muon on all matrices of a shape at once takes the steps of torch's, one by one."""

from __future__ import annotations

import copy

import torch
from torch import nn

from univg.training.run.muon import Muon

SHAPES = ((64, 160), (64, 160), (160, 64), (48, 48), (48, 48), (7, 3))


def test_its_steps_are_those_of_torch() -> None:
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    theirs = [nn.Parameter(weight.detach().clone()) for weight in ours]
    before = [weight.detach().clone() for weight in ours]
    muon = Muon(ours, 0.01, 0.1)
    torchs = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(4):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        muon.step()
        torchs.step()
        if step == 1:
            muon.load_state_dict(copy.deepcopy(torchs.state_dict()))  # as runs of older versions left it
    for one, other, start in zip(ours, theirs, before, strict=True):
        assert (one - other).norm() < 0.01 * (other - start).norm()


def test_a_matrix_without_a_gradient_stays() -> None:
    learning, resting = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(3, 4))
    learning.grad = torch.randn(3, 4)
    Muon([learning, resting], 0.1).step()
    assert torch.equal(resting, torch.ones(3, 4)) and not torch.equal(learning, torch.ones(3, 4))
