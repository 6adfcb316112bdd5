from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import BatchFeature, GenerationConfig

from univg.models.generation import generate as generation
from univg.models.generation.generate import (
    Chat,
    Generation,
    forbidden_ids,
    generate,
    stop_ids,
)
from univg.models.loading import Loaded
from univg.models.temperature import GREEDY_BELOW, settle_temperature
from univg.models.tiny import SPECIAL_TOKENS, build_tiny
from univg.models.tokens import ANSWER_TOKENS

Picture = Callable[[int, int], Image.Image]
TOKENS = 12


@pytest.fixture
def ragged(picture: Picture) -> list[Chat]:
    """Eight chats of 1, 2, 3 or 6 images, every image and question of another size."""
    rng = np.random.default_rng(1)
    return [
        Chat.ask(
            [picture(*map(int, rng.integers(20, 200, 2))) for _ in range((1, 2, 3, 6)[number % 4])],
            "Where is it? " * int(rng.integers(1, 12)) + str(number),
        )
        for number in range(8)
    ]


def prompts(loaded: Loaded, chats: list[Chat]) -> list[str]:
    return [generation._prepare(loaded, chat, place).prompt for place, chat in enumerate(chats)]


def first_logits(loaded: Loaded, chats: list[Chat]) -> torch.Tensor:
    with torch.no_grad():
        inputs = generation.encode(loaded, chats, prompts(loaded, chats))
        return loaded.model(**inputs, logits_to_keep=1).logits[:, -1]


def test_a_batch_equals_one_by_one(tiny: Loaded, ragged: list[Chat]) -> None:
    together = generate(tiny, ragged, max_new_tokens=TOKENS, batch_size=8)
    alone = [generate(tiny, [chat], max_new_tokens=TOKENS)[0] for chat in ragged]
    assert together == alone
    assert len({response.text for [response] in together}) == 8  # else the equality would show little
    assert together == generate(tiny, ragged, max_new_tokens=TOKENS, batch_size=3)


def test_the_first_logits_of_a_batch_equal_one_by_one(tiny: Loaded, ragged: list[Chat]) -> None:
    together = first_logits(tiny, ragged)
    alone = torch.cat([first_logits(tiny, [chat]) for chat in ragged])
    assert (together - alone).abs().max() < 1e-4
    assert (together[0] - together[1]).abs().max() > 1e-2


def test_sampled_responses_depend_on_seed_and_key_alone(tiny: Loaded, ragged: list[Chat]) -> None:
    keyed = [replace(chat, key=f"sample {number}") for number, chat in enumerate(ragged[:5])]
    asked = {"max_new_tokens": 5, "temperature": 1.0}
    drawn = generate(tiny, keyed, n=3, seed=1, **asked)
    assert [len(responses) for responses in drawn] == [3] * 5
    assert len({response.text for responses in drawn for response in responses}) == 15
    assert generate(tiny, keyed, n=3, seed=1, batch_size=2, **asked) == drawn
    assert generate(tiny, keyed[::-1], n=3, seed=1, batch_size=7, **asked) == drawn[::-1]
    assert generate(tiny, keyed[2:3], n=2, seed=1, **asked) == [drawn[2][:2]]
    assert generate(tiny, keyed, n=3, seed=2, **asked) != drawn
    assert generate(tiny, ragged[:1], **asked) != generate(tiny, ragged[:1], **asked)  # no seed: drawn anew


def test_sampling_follows_the_softmax() -> None:
    scores = torch.tensor([[0.0, 1.0, 2.0, float("-inf")]])
    draw = generation.DrawByRow(2.0, [generation._stream(0, "a", 0, torch.device("cpu"))])
    draws = 4000
    counts = Counter(int(draw(torch.zeros(1, 0), scores).argmax()) for _ in range(draws))
    total = sum(math.exp(score / 2) for score in (0, 1, 2))
    for token in range(3):
        share = math.exp(token / 2) / total
        assert abs(counts[token] / draws - share) < 4 * math.sqrt(share * (1 - share) / draws)
    assert counts[3] == 0


def test_sampling_leaves_the_global_generator_reproducible(tiny: Loaded, ragged: list[Chat]) -> None:
    """What others drew before does not change our responses."""
    torch.manual_seed(0)
    first = generate(tiny, ragged[:2], max_new_tokens=6, temperature=1.0, seed=3)
    torch.manual_seed(99)
    assert generate(tiny, ragged[:2], max_new_tokens=6, temperature=1.0, seed=3) == first


def test_a_prompts_tokens_are_never_written(tiny: Loaded, picture: Picture) -> None:
    """Even by a model that wants nothing else."""
    model, processor = build_tiny(seed=1)
    tokenizer = processor.tokenizer
    wanted = {tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    wanted |= set(range(len(tokenizer), model.config.text_config.vocab_size))

    loaded = replace(tiny, model=model, processor=processor)
    favoured = torch.tensor(sorted(wanted - stop_ids(loaded.model, tokenizer)))

    class Eager(torch.nn.Module):
        weight = model.lm_head.weight

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.linear(hidden, self.weight).index_fill(-1, favoured, 50.0)

    model.lm_head = Eager()  # type: ignore[assignment]
    chat = Chat.ask([picture(40, 40)], "Where?")
    [drawn] = generate(loaded, [chat], max_new_tokens=40, temperature=1.0, n=4, seed=0)
    written = {token for response in drawn for token in tokenizer(response.text)["input_ids"]}
    assert written == set(tokenizer.convert_tokens_to_ids(sorted(ANSWER_TOKENS)))


def test_forbidden_tokens_of_a_full_size_vocabulary() -> None:
    """Qwen2-VL's special tokens, tool marks that are added but not special, and its padded embedding."""
    _, processor = build_tiny()
    tokenizer = processor.tokenizer
    tokenizer.add_tokens(["<|fim_prefix|>", "<tool_call>", "word"])
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in (*SPECIAL_TOKENS, "<|fim_prefix|>")}
    stops = frozenset({ids["<|im_end|>"], ids["<|endoftext|>"]})  # as Qwen2-VL's generation settings have it
    forbidden = forbidden_ids(tokenizer, len(tokenizer) + 5, stops)
    expected = {id for token, id in ids.items() if id not in stops and token not in ANSWER_TOKENS}
    assert set(forbidden) == expected | set(range(len(tokenizer), len(tokenizer) + 5))


def test_a_checkpoints_own_decoding_settings_do_not_leak(tiny: Loaded, ragged: list[Chat]) -> None:
    plain = generate(tiny, ragged[:3], max_new_tokens=TOKENS)
    drawn = generate(tiny, ragged[:3], max_new_tokens=TOKENS, temperature=1.0, seed=0)
    stored = tiny.model.generation_config
    shipped = GenerationConfig(
        do_sample=True,
        temperature=0.01,
        top_k=1,
        top_p=0.001,
        repetition_penalty=1.5,
        no_repeat_ngram_size=2,
        suppress_tokens=list(range(100)),
        max_new_tokens=3,
        eos_token_id=stored.eos_token_id,
        pad_token_id=stored.pad_token_id,
    )
    tiny.model.generation_config = shipped
    try:
        assert generate(tiny, ragged[:3], max_new_tokens=TOKENS) == plain
        assert generate(tiny, ragged[:3], max_new_tokens=TOKENS, temperature=1.0, seed=0) == drawn
        assert tiny.model.generation_config is shipped  # borrowed, and given back
    finally:
        tiny.model.generation_config = stored


def test_ending_and_truncation(tiny: Loaded) -> None:
    decoder = generation._Decoder(tiny, 4, 0.0)
    tokenizer = tiny.processor.tokenizer
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    a, b = tokenizer("ab")["input_ids"]
    box = tokenizer.convert_tokens_to_ids("<|box_start|>")
    assert decoder._finish([a, box, end, pad]) == Generation("a<|box_start|>", 3, truncated=False)
    assert decoder._finish([a, b, a, b]) == Generation("abab", 4, truncated=True)
    assert decoder._finish([end, pad, pad, pad]) == Generation("", 1, truncated=False)


def test_decoding_stops_when_all_have_ended(
    tiny: Loaded, ragged: list[Chat], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0
    end = tiny.processor.tokenizer.eos_token_id

    def end_at_once(
        self: object, streams: object, logits_RV: torch.Tensor, rows: Sequence[int]
    ) -> torch.Tensor:
        nonlocal steps
        steps += 1
        return torch.full((len(rows),), end)

    monkeypatch.setattr(generation._Decoder, "_choose", end_at_once)
    responses = generate(tiny, ragged[:4], max_new_tokens=200)
    assert responses == [[Generation("", 1, truncated=False)]] * 4
    assert steps == 1


def test_batches_are_sorted_by_length(
    tiny: Loaded, ragged: list[Chat], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And read in parts, when they are long."""
    shapes: list[tuple[int, int]] = []
    encode = generation.encode
    monkeypatch.setitem(generation.READ_AT_ONCE, "cpu", 300)

    def watched(*arguments: object) -> BatchFeature:
        inputs = encode(*arguments)  # type: ignore[arg-type]
        shapes.append(tuple(inputs["input_ids"].shape))
        return inputs

    monkeypatch.setattr(generation, "encode", watched)
    generate(tiny, ragged, max_new_tokens=1, batch_size=2)
    read = list(itertools.accumulate(rows for rows, _ in shapes))
    assert read[-1] == 8 and {2, 4, 6} <= set(read)
    lengths = [length for _, length in shapes]
    assert lengths == sorted(lengths, reverse=True)
    assert len(lengths) > 4  # long batches were read in parts


def test_padding_stands_left(tiny: Loaded, ragged: list[Chat]) -> None:
    inputs = generation.encode(tiny, ragged, prompts(tiny, ragged))
    mask = inputs["attention_mask"]
    assert mask[:, -1].all()
    assert (mask.diff(dim=1) >= 0).all()
    assert inputs["pixel_values"].shape[0] == inputs["image_grid_thw"].prod(dim=1).sum()


def test_chats_without_images_and_with_a_system_message(tiny: Loaded, picture: Picture) -> None:
    system = {"role": "system", "content": "Be brief."}
    words = Chat((), (system, {"role": "user", "content": "Which of these is best?"}))
    shown = Chat.ask([picture(60, 30)], "Where?")
    together = generate(tiny, [words, shown, words], max_new_tokens=8)
    assert together == [generate(tiny, [chat], max_new_tokens=8)[0] for chat in (words, shown, words)]
    assert generate(tiny, []) == []


def test_training_mode_comes_back(tiny: Loaded, ragged: list[Chat]) -> None:
    tiny.model.train()
    try:
        generate(tiny, ragged[:1], max_new_tokens=1)
        assert tiny.model.training
    finally:
        tiny.model.eval()


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"n": 2}, "would all be equal"),
        ({"n": 2, "temperature": 1e-38}, "would all be equal"),
        ({"n": 0}, "n=0"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_impossible_requests(tiny: Loaded, request_: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        generate(tiny, [], **request_)  # type: ignore[arg-type]


def test_a_chat_names_each_image_once(tiny: Loaded, picture: Picture) -> None:
    fine = Chat.ask([picture(40, 40)], "Where is <|box_start|>(1,2),(3,4)<|box_end|>?")
    with pytest.raises(ValueError, match="chat 1: 0 images, but 1 places"):
        generate(tiny, [fine, replace(fine, images=())], max_new_tokens=1)


TEMPERATURES = st.floats(0, 3, exclude_min=True) | st.sampled_from(
    [0.0, 5e-324, 1e-320, 1e-38, 1e-8, 1e-5, 1e38, 1e39, 1.7e308]
)


@settings(deadline=None, max_examples=60)
@given(temperature=TEMPERATURES, scale=st.sampled_from([1e-3, 1.0, 30.0, 1e4]), seed=st.integers(0, 9))
def test_at_every_temperature_only_what_the_logits_allow_is_drawn(
    temperature: float, scale: float, seed: int
) -> None:
    """The likeliest below the line, and nowhere a token that may not be written or is far behind."""
    logits_RV = torch.randn(4, 50, generator=torch.Generator().manual_seed(seed)) * scale
    logits_RV[:, 7] = logits_RV.max() + 1  # forbidden, and the likeliest
    decoder = object.__new__(generation._Decoder)
    decoder._temperature = settle_temperature(temperature)
    decoder._forbidden = torch.tensor([7])
    streams = [torch.Generator().manual_seed(row) for row in range(4)]
    drawn_R = decoder._choose(streams, logits_RV, range(4))
    allowed_RV = logits_RV.index_fill(1, torch.tensor([7]), float("-inf"))
    behind_R = allowed_RV.max(dim=1).values - allowed_RV.gather(1, drawn_R[:, None])[:, 0]
    if temperature < GREEDY_BELOW:
        assert drawn_R.tolist() == allowed_RV.argmax(dim=1).tolist()
    # A draw by Gumbel noise cannot be further behind than its noise reaches (100 in float32).
    assert bool((behind_R <= 100 * temperature + 1e-3 * scale).all())
