"""Attention over shared prompts: equal to a dense mask, in values and gradients; decoding with one copy of a prompt."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from univg.models.generation import shared_attention
from univg.models.generation.decoding import decode, prefill
from univg.models.generation.shared_attention import Packing, PromptKeys, Span, share_prompts, why_not
from univg.models.generation.shared_cache import shared
from univg.models.tiny import build_tiny

SHAPE = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [4, 4, 4]},
}


def _spans(groups: Sequence[tuple[int, Sequence[int]]]) -> list[Span]:
    spans, start = [], 0
    for prompt, lengths in groups:
        spans.append(Span(start, prompt, tuple(lengths)))
        start = spans[-1].end
    return spans


def _mask(spans: Sequence[Span]) -> Tensor:
    """What each position may see, written out."""
    mask = torch.zeros(spans[-1].end, spans[-1].end, dtype=torch.bool)
    for span in spans:
        mask[span.start : span.prompt_end, span.start : span.prompt_end] = True
        start = span.prompt_end
        for length in span.lengths:
            mask[start : start + length, span.start : span.prompt_end] = True
            mask[start : start + length, start : start + length] = True
            start += length
    return mask.tril()


GROUPS = {
    "one group": [(13, [5, 5, 5])],
    "ragged": [(7, [4, 1, 9, 3])],
    "an empty completion": [(7, [4, 0, 2])],
    "only empty ones": [(7, [0, 0]), (3, [1, 2])],
    "several groups": [(40, [3, 3]), (1, [8, 2, 8]), (70, [33, 33])],
}


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)], ids=str)
@pytest.mark.parametrize("way", ["_attend_merged", "_attend_joined"])
@pytest.mark.parametrize("name", GROUPS)
def test_it_is_attention_under_a_dense_mask(
    name: str, way: str, heads: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "_attend_joined":  # what other devices take
        monkeypatch.setattr(shared_attention, "_attend_merged", shared_attention._attend_joined)
    spans = _spans(GROUPS[name])
    chance = torch.Generator().manual_seed(len(name))
    tokens = spans[-1].end
    query, key, value = (
        torch.randn(1, tokens, count, 8, generator=chance).transpose(1, 2).requires_grad_()
        for count in (heads[0], heads[1], heads[1])
    )
    packing = Packing(spans, torch.zeros(1, dtype=torch.long))
    ours = packing.attend(0, query, key, value, 0.3)
    expected = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=_mask(spans), scale=0.3, enable_gqa=True
    )
    torch.testing.assert_close(ours, expected, atol=2e-6, rtol=1e-5)
    upstream = torch.randn(ours.shape, generator=chance)
    for mine, theirs in zip(
        torch.autograd.grad(ours, (query, key, value), upstream),
        torch.autograd.grad(expected, (query, key, value), upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_rows_that_are_written_see_one_copy_of_their_prompt() -> None:
    """In any order, as rows end, and where a prompt has none left."""
    chance = torch.Generator().manual_seed(0)
    prompts = [
        (torch.randn(1, 2, n, 8, generator=chance), torch.randn(1, 2, n, 8, generator=chance))
        for n in (9, 4, 6)
    ]
    held = PromptKeys([prompts], [0, 0, 1, 2, 2])
    for sources in ([0, 0, 1, 2, 2], [2, 0, 1, 0], [2, 0], [2]):
        held.keep(sources)
        rows = len(sources)
        query = torch.randn(rows, 4, 1, 8, generator=chance)
        own = [torch.randn(rows, 2, 3, 8, generator=chance) for _ in range(2)]
        ours = held.attend(0, query, own[0], own[1], 0.4)
        for row, source in enumerate(sources):
            key, value = (
                torch.cat([p[0], o[row]], dim=1)[None] for p, o in zip(prompts[source], own, strict=True)
            )
            expected = functional.scaled_dot_product_attention(
                query[row : row + 1], key, value, scale=0.4, enable_gqa=True
            )
            torch.testing.assert_close(ours[row : row + 1], expected, atol=1e-6, rtol=1e-5)


def test_the_plain_way_of_looking_equals_the_fused_one() -> None:
    """Devices without the CPU's kernel take the first."""
    chance = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, n, m, 8, generator=chance) for n, m in ((4, 3), (2, 11), (2, 11)))
    fused = shared_attention._look(query, key, value, 0.3)
    plain = shared_attention._look_plainly(query, key, value, 0.3)
    for one, other in zip(fused, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def _model_and_prompts() -> tuple[Any, dict[str, Tensor]]:
    model, processor = build_tiny(0, text=SHAPE)
    with torch.no_grad():  # at the usual initial scale all prompts are answered alike
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(4)
    rng = np.random.default_rng(0)
    images = [
        [Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in sizes]
        for sizes in ([(60, 80)], [(60, 60), (120, 60)], [(100, 60)])
    ]
    mark = processor.image_token
    texts = ["<|vision_start|>" + mark + "<|vision_end|>" + "short"]
    texts += [("<|vision_start|>" + mark + "<|vision_end|>") * 2 + "a longer question than that"]
    texts += ["<|vision_start|>" + mark + "<|vision_end|>" + "middling?"]
    return model, dict(processor(images=images, text=texts, padding=True, return_tensors="pt"))


@pytest.mark.parametrize("ending", [30, 200])
def test_decoding_writes_the_same_tokens_with_one_copy_of_each_prompt(ending: int) -> None:
    """Ragged prompts, unequal groups, rows that end at different times, with their first token too."""
    model, inputs = _model_and_prompts()
    sources = [0, 0, 0, 1, 1, 2, 2, 2]
    stops = set(range(30, 30 + ending))

    def written(sharing: bool) -> list[list[int]]:
        streams = [torch.Generator().manual_seed(row) for row in range(len(sources))]
        own = copy.deepcopy(model)

        def choose(logits_RV: Tensor, rows: Sequence[int]) -> Tensor:
            chances = logits_RV[:, :250].softmax(dim=-1)
            return torch.cat(
                [
                    torch.multinomial(c, 1, generator=streams[row])
                    for c, row in zip(chances, rows, strict=True)
                ]
            )

        prefix = prefill(own, inputs)
        if sharing:
            prefix = shared(own, prefix, sources)
        else:
            prefix.keep(sources)
        return decode(own, prefix, choose, stops, 24)

    one, other = written(True), written(False)
    assert one == other
    lengths = {len(row) for row in one}
    assert len(lengths) > 3 and max(lengths) == 24 if ending == 30 else 1 in lengths


def test_under_autocast_it_runs_in_half_precision() -> None:
    model, inputs = _model_and_prompts()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        prefix = shared(model, prefill(model, inputs), [0, 0, 1, 2])
        tokens = decode(model, prefix, lambda logits_RV, rows: logits_RV[:, :250].argmax(dim=-1), [], 6)
    assert [len(row) for row in tokens] == [6] * 4 and tokens[0] == tokens[1]


def test_a_shared_prefix_cannot_be_repeated_again() -> None:
    model, inputs = _model_and_prompts()
    prefix = shared(model, prefill(model, inputs), [0, 1, 2])
    with pytest.raises(NotImplementedError, match="given when it is made"):
        prefix.repeat(2)


def test_sharing_leaves_other_forward_passes_and_the_saved_config_as_they_were(tmp_path: Any) -> None:
    model, inputs = _model_and_prompts()
    before = model(**inputs).logits
    saved_before = model.config.to_dict()
    share_prompts(model)
    share_prompts(model)
    assert len(model.model.language_model._forward_hooks) == 1
    assert torch.equal(model(**inputs).logits, before)
    assert model.config.to_dict() == saved_before
    assert shared_attention.ATTENTION not in str(model.config.to_json_string())


REASONS: dict[str, tuple[dict[str, Any], str]] = {
    "family": ({"model_type": "llava"}, "models of type 'llava'"),
    "attention": ({"_attn_implementation_internal": "eager"}, "attn_implementation='eager'"),
    "sliding": ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding-window"),
    "dropout": ({"attention_dropout": 0.1}, "attention_dropout"),
}


@pytest.mark.parametrize("name", REASONS)
def test_what_cannot_share_says_why(name: str) -> None:
    model, _ = _model_and_prompts()
    changes, words = REASONS[name]
    assert why_not(model) is None
    for field, value in changes.items():
        holder = model.config if field == "model_type" else model.config.text_config
        if field == "model_type":
            type(holder).model_type, kept = value, type(holder).model_type
            try:
                assert words in str(why_not(model))
            finally:
                type(holder).model_type = kept
            continue
        setattr(holder, field, value)
        assert words in str(why_not(model))
        with pytest.raises(ValueError, match=re.escape(words)):
            share_prompts(model)
