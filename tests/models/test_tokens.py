"""Prompts are counted and estimated in one place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from PIL import Image

from univg.grounding.prompts import render_prompt
from univg.models.generation.generate import Chat, encode, measure
from univg.models.loading import Loaded
from univg.models.pixels import PixelBudget
from univg.models.tokens import estimate_prompt, estimate_text

Picture = Callable[[int, int], Image.Image]


@pytest.mark.parametrize("sizes", [[], [(40, 40)], [(200, 50), (30, 90), (120, 120)]])
@pytest.mark.parametrize("query", ["Where?", "图里的猫在哪里? " * 3, "<|image_pad|><|im_end|>"])
def test_the_count_is_what_the_model_is_given(
    tiny: Loaded, picture: Picture, sizes: list[tuple[int, int]], query: str
) -> None:
    chat = Chat.ask([picture(*size) for size in sizes], query)
    prompt = tiny.processor.apply_chat_template(
        list(chat.messages), tokenize=False, add_generation_prompt=True
    )
    assert measure(tiny, chat) == encode(tiny, [chat], [str(prompt)])["input_ids"].shape[1]


def test_an_estimate_counts_images_as_they_are() -> None:
    words = estimate_prompt(render_prompt("Where is the dog?"), [], 28)
    with_images = estimate_prompt(render_prompt("Where is the dog?"), [(56, 84), (28, 28)], 28)
    assert with_images - words == 6 + 1 + 2 * 2  # the marks around each
    assert words > estimate_text(render_prompt("Where is the dog?"))
    assert estimate_text("猫" * 9) == 9 == estimate_text("cat" * 9)


@pytest.mark.parametrize(("most", "least"), [(640_000, 3136), (3136, 3136), (784, 784)])
def test_a_budget_with_another_limit(most: int, least: int) -> None:
    assert PixelBudget().up_to(most) == PixelBudget(least, most)
