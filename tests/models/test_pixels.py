"""The pixel budget is the processors' own rule, without their library."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from univg.models.pixels import PixelBudget

SIDE = st.integers(1, 6000)


@given(SIDE, SIDE, st.sampled_from([20, 28, 32]), st.integers(1, 400_000), st.integers(1, 2_000_000))
@example(1, 200, 28, 3136, 401_408)
@example(6000, 30, 28, 3136, 401_408)
@example(14, 42, 28, 784, 784)
def test_sizes_are_those_of_the_processors(width: int, height: int, factor: int, low: int, more: int) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    budget = PixelBudget(low, low + more)
    try:
        expected = smart_resize(height, width, factor, low, low + more)[::-1]
    except ValueError:
        with pytest.raises(ValueError, match="longer than 200:1"):
            budget.resized((width, height), factor)
    else:
        assert budget.resized((width, height), factor) == expected


def test_a_size_needs_no_library() -> None:
    code = (
        "import sys; from univg.models.pixels import PixelBudget; PixelBudget().resized((640, 480), 28); "
        "print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
