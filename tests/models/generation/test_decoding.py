"""Our own decoding writes what transformers' `generate` writes, whoever is in the batch and leaves it when."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import GenerationConfig

from univg.models.generation import decoding
from univg.models.generation import generate as generation
from univg.models.generation.cache import roomy_cache
from univg.models.generation.decoding import decode, join, joinable, prefill
from univg.models.generation.generate import Chat, encode
from univg.models.loading import Loaded

Picture = Callable[[int, int], Image.Image]


@pytest.fixture
def chats(picture: Picture) -> list[Chat]:
    """Eight chats of none to three images, all of other sizes."""
    rng = np.random.default_rng(2)
    return [
        Chat.ask(
            [picture(*map(int, rng.integers(20, 160, 2))) for _ in range(number % 4)],
            "Where is it? " * (number + 1),
        )
        for number in range(8)
    ]


def inputs(loaded: Loaded, chats: Sequence[Chat]) -> dict[str, torch.Tensor]:
    return dict(encode(loaded, chats, [generation._prepare(loaded, chat, 0).prompt for chat in chats]))


def greedy(logits_RV: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
    return logits_RV.argmax(dim=-1)


def stops_that_end_rows_apart(written: torch.Tensor) -> set[int]:
    """Tokens that the rows write at different steps."""
    return {int(token) for token in written[:, 3:20:4].flatten().unique()[:4]}


def test_it_writes_what_transformers_writes(tiny: Loaded, chats: list[Chat]) -> None:
    together = inputs(tiny, chats)
    settings = GenerationConfig(max_new_tokens=30, do_sample=False, pad_token_id=0, eos_token_id=None)
    stored, tiny.model.generation_config = tiny.model.generation_config, settings
    try:
        tokens = tiny.model.generate(**together)[:, together["input_ids"].shape[1] :]  # type: ignore[operator]
    finally:
        tiny.model.generation_config = stored
    stops = stops_that_end_rows_apart(tokens)
    expected = [
        row[: next((place + 1 for place, token in enumerate(row) if token in stops), 30)]
        for row in tokens.tolist()
    ]
    assert len({len(row) for row in expected}) > 3  # else leaving the batch would not be tried
    for parts in ([8], [3, 3, 2], [1] * 8):
        starts = np.cumsum([0, *parts])
        prefix = join(
            [prefill(tiny.model, inputs(tiny, chats[start:end])) for start, end in itertools.pairwise(starts)]
        )
        assert decode(tiny.model, prefix, greedy, stops, 30) == expected, parts


def test_repeated_rows_go_their_own_ways(tiny: Loaded, chats: list[Chat]) -> None:
    """Each response is the one it would be alone, with its prompt read once for all of them."""
    end = 0

    def by_rank(ranks: Sequence[int]) -> decoding.Choose:
        """Row r writes the token of rank `ranks[r]`: rows of one prompt then differ from the first token on."""

        def choose(logits_RV: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
            order = logits_RV.argsort(dim=-1, descending=True)
            return torch.stack([order[place, ranks[row]] for place, row in enumerate(rows)])

        return choose

    alone = []
    for chat in chats[1:3]:
        for rank in range(3):
            prefix = prefill(tiny.model, inputs(tiny, [chat]))
            alone += decode(tiny.model, prefix, by_rank([rank]), {end}, 12)
    prefix = prefill(tiny.model, inputs(tiny, chats[1:3]))
    prefix.repeat(3)
    assert len(prefix) == 6
    assert decode(tiny.model, prefix, by_rank([0, 1, 2] * 2), {end}, 12) == alone
    assert len({tuple(tokens) for tokens in alone}) == 6


def test_rows_that_ended_are_not_computed(
    tiny: Loaded, chats: list[Chat], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    step = decoding._step

    def watched(model: object, prefix: decoding.Prefix, tokens_R: torch.Tensor) -> None:
        sizes.append(len(prefix))
        step(model, prefix, tokens_R)

    monkeypatch.setattr(decoding, "_step", watched)

    def end_in_turn(logits_RV: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Row r ends with its (r + 1)-th token."""
        return torch.tensor([5 if row <= len(sizes) else 9 for row in rows])

    prefix = prefill(tiny.model, inputs(tiny, chats))
    written = decode(tiny.model, prefix, end_in_turn, {5}, 100)
    assert written == [[9] * row + [5] for row in range(8)]
    assert sizes == [7, 6, 5, 4, 3, 2, 1]


def test_the_last_token_is_not_read(tiny: Loaded, chats: list[Chat], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing follows it."""
    steps = []
    step = decoding._step
    monkeypatch.setattr(decoding, "_step", lambda *arguments: (steps.append(1), step(*arguments)))
    prefix = prefill(tiny.model, inputs(tiny, chats[:2]))
    assert [len(row) for row in decode(tiny.model, prefix, greedy, set(), 4)] == [4, 4]
    assert len(steps) == 3


def test_what_can_be_joined(tiny: Loaded) -> None:
    from transformers import Qwen2Config

    assert joinable(tiny.model.config)
    sliding = Qwen2Config(num_hidden_layers=2, use_sliding_window=True, sliding_window=8, max_window_layers=1)
    assert not joinable(sliding)
    assert len(roomy_cache(sliding).layers) == 2
