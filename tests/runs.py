"""What the tests of training share: a run that is killed, and whether two ended with the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from univg.training.config import SftConfig
from univg.training.run.rows import StageRows

QUIET = Console(quiet=True)
WEIGHTS = "model.safetensors"


class Killed(BaseException):
    """Stands for SIGKILL where a subprocess would take too long."""


@contextmanager
def killed_at(step: int, config: SftConfig) -> Iterator[None]:
    """The run ends when the first row of `step` (from 0) is drawn."""
    with pytest.MonkeyPatch.context() as patch:
        draw = StageRows.__getitem__

        def until(rows: StageRows, i: int) -> Any:
            if i >= step * config.batch:
                raise Killed
            return draw(rows, i)

        patch.setattr(StageRows, "__getitem__", until)
        with pytest.raises(Killed):
            yield


def same_weights(one: Path, other: Path, name: str = WEIGHTS) -> bool:
    a, b = load_file(one / name), load_file(other / name)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
