"""A model for the commands that ask one."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a checkpoint with random weights."""
    from univg.models.tiny import build_tiny, save_tiny

    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(*build_tiny(seed=3), folder)
    return str(folder)
