"""A cache with room holds what transformers' own holds, token by token."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from PIL import Image
from transformers import DynamicCache, PreTrainedConfig

from univg.grounding.prompts import render_chat
from univg.models.generation import decoding
from univg.models.generation.cache import ROOM, join_caches, keep_rows, roomy_cache
from univg.models.generation.generate import Chat, encode, generate
from univg.models.loading import Loaded


def test_it_holds_the_same_tokens() -> None:
    torch.manual_seed(0)
    from transformers import Qwen2Config

    config = Qwen2Config(num_hidden_layers=2)
    ours, theirs = roomy_cache(config), DynamicCache(config=config)
    for tokens in [5, *[1] * 3, ROOM, *[1] * 3, 2 * ROOM]:
        for layer in range(2):
            keys, values = torch.randn(3, 4, tokens, 8), torch.randn(3, 4, tokens, 8)
            for held, expected in zip(
                ours.update(keys, values, layer), theirs.update(keys, values, layer), strict=True
            ):
                assert torch.equal(held, expected)
    assert ours.get_seq_length() == theirs.get_seq_length()


def test_rows_that_are_chosen_or_repeated_go_on_rightly() -> None:
    from transformers import Qwen2Config

    config = Qwen2Config(num_hidden_layers=1)
    ours, theirs = roomy_cache(config), DynamicCache(config=config)

    def both(change: Callable[[DynamicCache], object]) -> None:
        change(ours)
        change(theirs)

    def grow(rows: int) -> None:
        keys, values = torch.randn(rows, 2, 3, 4), torch.randn(rows, 2, 3, 4)
        both(lambda cache: cache.update(keys, values, 0))
        assert torch.equal(ours.layers[0].keys, theirs.layers[0].keys)
        assert torch.equal(ours.layers[0].values, theirs.layers[0].values)

    grow(2)
    both(lambda cache: cache.batch_repeat_interleave(2))
    grow(4)
    both(lambda cache: cache.batch_select_indices(torch.tensor([3, 0])))
    grow(2)
    both(lambda cache: cache.crop(-2))
    grow(2)
    both(lambda cache: cache.reset())
    grow(5)


@pytest.mark.parametrize("n", [1, 3])
def test_generation_writes_the_same(
    tiny: Loaded, picture: Callable[[int, int], Image.Image], n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [picture(70, 60), picture(60, 80)]
    chats = [Chat.ask(images[:count], "Where is it?", key=str(count)) for count in (1, 2)]
    settings = {"max_new_tokens": 9, "n": n, "temperature": float(n > 1), "seed": 0}
    plain = generate(tiny, chats, **settings)  # type: ignore[arg-type]
    used = []

    def without_room(config: PreTrainedConfig) -> DynamicCache:
        used.append(DynamicCache(config=config))
        return used[-1]

    monkeypatch.setattr(decoding, "roomy_cache", without_room)
    assert generate(tiny, chats, **settings) == plain  # type: ignore[arg-type]
    assert used and used[0].get_seq_length() > 0


def test_rows_close_up_where_they_lie() -> None:
    """Keeping a few rows moves those behind into the gaps, in the buffers there are, and goes on rightly."""
    from transformers import Qwen2Config

    config = Qwen2Config(num_hidden_layers=2)
    ours, theirs = roomy_cache(config), DynamicCache(config=config)
    torch.manual_seed(0)

    def grow(rows: int, tokens: int) -> None:
        for layer in range(2):
            keys, values = torch.randn(rows, 2, tokens, 4), torch.randn(rows, 2, tokens, 4)
            for held, expected in zip(
                ours.update(keys, values, layer), theirs.update(keys, values, layer), strict=True
            ):
                assert torch.equal(held, expected)

    grow(6, 5)
    there = ours.layers[0].keys.data_ptr()  # type: ignore[union-attr]
    for places in ([0, 5, 2, 4], [0, 1, 2], [2, 1]):
        keep_rows(ours, places)
        theirs.batch_select_indices(torch.tensor(places))
        grow(len(places), 1)
        assert ours.layers[0].keys.data_ptr() == there  # type: ignore[union-attr]
    keep_rows(ours, [1, 0])  # not a closing up: copied
    theirs.batch_select_indices(torch.tensor([1, 0]))
    grow(2, 1)
    keep_rows(ours, [0])
    theirs.batch_select_indices(torch.tensor([0]))
    grow(1, ROOM + 1)


def test_caches_join_with_their_tokens_right() -> None:
    from transformers import Qwen2Config

    config = Qwen2Config(num_hidden_layers=1)
    parts = [torch.randn(rows, 2, tokens, 4) for rows, tokens in ((2, 3), (1, 5), (3, 4))]
    caches = [roomy_cache(config) for _ in parts]
    for cache, part in zip(caches, parts, strict=True):
        cache.update(part, -part, 0)
    whole = join_caches(caches)
    expected = torch.cat([torch.nn.functional.pad(part, (0, 0, 5 - part.shape[2], 0)) for part in parts])
    new = torch.randn(6, 2, 1, 4)
    keys, values = whole.update(new, -new, 0)
    assert torch.equal(keys, torch.cat([expected, new], dim=2))
    assert torch.equal(values, -keys)
    assert all(cache.layers[0].keys is None for cache in caches[1:])  # memory is given back


def test_logits_are_equal_to_the_last_bit(tiny: Loaded, picture: Callable[[int, int], Image.Image]) -> None:
    chat = Chat((picture(60, 60),), tuple(render_chat(1, "Where?")))
    prompt = tiny.processor.apply_chat_template(
        list(chat.messages), tokenize=False, add_generation_prompt=True
    )
    inputs = encode(tiny, [chat], [str(prompt)])
    logits = []
    for cache in (roomy_cache(tiny.model.config), DynamicCache(config=tiny.model.config)):
        with torch.no_grad():
            out = tiny.model.generate(
                **inputs,
                past_key_values=cache,
                max_new_tokens=5,
                output_logits=True,
                return_dict_in_generate=True,
            )
        logits.append(torch.stack(out.logits))
    assert torch.equal(*logits)
