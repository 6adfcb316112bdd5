"""The pixel budget is the processors' own rule, without their library."""

from __future__ import annotations

import base64
import io
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from univg.models.pixels import PixelBudget, is_resizable
from univg.models.server import as_seen

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


@given(SIDE, SIDE, st.sampled_from([28, 32]), st.integers(1, 40_000), st.integers(1, 2_000_000))
@example(6000, 30, 28, 3136, 401_408)  # seen 320 times as long as high, which no processor takes
@example(5000, 50, 28, 19_600, 18_816)  # the least side is too large for so few pixels
def test_a_picture_resized_ahead_is_seen_as_it_would_have_been(
    width: int, height: int, factor: int, low: int, more: int
) -> None:
    budget = PixelBudget(low, low + more)
    if is_resizable((width, height)):
        ahead = budget.prepared((width, height), factor)
        assert budget.resized(ahead, factor) == budget.resized((width, height), factor)


@pytest.mark.parametrize("size", [(1000, 700), (6000, 30), (40, 30)])
@pytest.mark.parametrize("served", [None, PixelBudget(3136, 50_000), PixelBudget(65_536, 401_408)])
def test_the_size_seen_behind_a_server_is_the_servers(
    size: tuple[int, int], served: PixelBudget | None
) -> None:
    own = PixelBudget(3136, 200_000)
    url, seen = as_seen(Image.new("RGB", size), own, 28, served)
    sent = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).size
    assert seen == (served or own).resized(sent, 28)
    assert sent == (size if size == (6000, 30) else own.resized(size, 28))


def test_a_size_needs_no_library() -> None:
    code = (
        "import sys; from univg.models.pixels import PixelBudget; PixelBudget().resized((640, 480), 28); "
        "print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
