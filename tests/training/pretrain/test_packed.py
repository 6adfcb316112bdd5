"""Rows are encoded as the processor does it, and the packed model computes what transformers' own does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from transformers import Qwen2VLForConditionalGeneration

from univg.models.processor import GroundingProcessor
from univg.models.tiny import build_tiny
from univg.training.config import Phase, PretrainConfig
from univg.training.pretrain.batches import Collator, MicroBatch, draw_samples, place_patches, render_dialogue
from univg.training.pretrain.dense_head import BoxHead, DenseHead
from univg.training.pretrain.packed import LIKE, ByteEmbedding, encode_packed, norm_last, pack, take
from univg.training.run.batches import IGNORED, PixelTable, encode_row, join_inputs, pad_right
from univg.world import ALL_FAMILIES, WorldSample, make_sample

EVERYTHING = {f"{family}/{style}": 1.0 for family in ("*", "sets") for style in ("think", "direct", "simple")}
SHAPE = {"hidden_size": 96, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def draw(n: int, mixture: dict[str, float], size: int = 70) -> list[tuple[WorldSample, str]]:
    phase = Phase(name="all", steps=1, mixture=mixture)
    return draw_samples(PretrainConfig(phases=(phase,), batch=n, image_px=size), 0)


def encode_slowly(processor: GroundingProcessor, pair: tuple[WorldSample, str]) -> dict[str, Any]:
    chat, response = render_dialogue(*pair)
    prompt = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return encode_row(processor, pair[0].images, str(prompt), response)


@pytest.fixture(scope="module")
def built() -> tuple[Qwen2VLForConditionalGeneration, GroundingProcessor]:
    """A tiny model whose keys are shared by two heads, and whose biases are no longer 0."""
    model, processor = build_tiny(0, text=SHAPE | {"num_key_value_heads": 1})
    torch.manual_seed(1)
    for weight in model.parameters():
        if weight.ndim == 1:
            weight.data += 0.1 * torch.randn_like(weight)
    return model.train(), processor


def test_rows_are_the_processors_own(
    built: tuple[Qwen2VLForConditionalGeneration, GroundingProcessor],
) -> None:
    model, processor = built
    styles = "think", "direct", "simple", "describe"
    drawn = [
        (make_sample(name, "train", 0, i, size=130), styles[i % 4]) for name in ALL_FAMILIES for i in range(4)
    ]
    slow = [encode_slowly(processor, pair) for pair in drawn]  # which leaves its padding set in the tokenizer
    chats = [render_dialogue(*pair) for pair in drawn]
    texts, responses = [chat[0]["content"][-1]["text"] for chat, _ in chats], [said for _, said in chats]
    rows = Collator(processor).encoder.encode([made.images for made, _ in drawn], texts, responses)
    for expected, row in zip(slow, rows, strict=True):
        assert row.ids_T.tolist() == expected["ids"]
        assert np.array_equal(row.patches_PF, expected["bytes"].numpy())
        assert [[1, *grid] for grid in row.grids] == expected["grids"].tolist()
        assert row.answer == sum(label != IGNORED for label in expected["labels"])
        assert row.image_at.tolist() == np.flatnonzero(expected["types"]).tolist()
        ids, types = torch.tensor([expected["ids"]]), torch.tensor([expected["types"]])
        found, _ = model.model.get_rope_index(ids, types, image_grid_thw=expected["grids"])
        assert np.array_equal(row.positions_3T, found[:, 0].numpy())


def test_every_box_of_an_answer_is_found_where_its_digits_begin(
    built: tuple[Qwen2VLForConditionalGeneration, GroundingProcessor],
) -> None:
    _, processor = built
    answers = ["Image-2: (12,0),(345,1000); Image-1: (7,8),(9,10)", "<answer>none</answer>", "(1,2),(3,4)"]
    picture = draw(1, {"referring/direct": 1.0})[0][0].images[0]
    rows = Collator(processor).encoder.encode([[picture]] * 3, ["where?"] * 3, answers)
    assert [[box for _, box in row.boxes] for row in rows] == [
        [(0.012, 0, 0.345, 1), (0.007, 0.008, 0.009, 0.01)],
        [],
        [(0.001, 0.002, 0.003, 0.004)],
    ]
    said = [processor.tokenizer.decode(rows[0].ids_T[at + 1 : at + 4].tolist()) for at, _ in rows[0].boxes]
    assert said == ["12,", "7,8"]


def forward_plainly(
    model: Any, processor: GroundingProcessor, drawn: list[tuple[WorldSample, str]]
) -> tuple[list[Tensor], Tensor]:
    """Return transformers' own hidden states of the real tokens, the last one normed, and the summed loss."""
    rows = sorted((encode_slowly(processor, pair) for pair in drawn), key=lambda row: len(row["ids"]))
    inputs, labels = join_inputs(rows, processor.tokenizer.pad_token_id), pad_right(rows, "labels", IGNORED)
    real = torch.arange(labels.shape[1]) < torch.tensor([len(row["ids"]) for row in rows])[:, None]
    inputs = PixelTable(processor).spread(inputs)
    out = model.model(**inputs, attention_mask=real.long(), output_hidden_states=True, use_cache=False)
    answered = labels[:, 1:] != IGNORED
    logits = model.lm_head(out.last_hidden_state[:, :-1][answered])
    loss = functional.cross_entropy(logits, labels[:, 1:][answered], reduction="sum")
    return [hidden[real] for hidden in (*out.hidden_states[:-1], out.last_hidden_state)], loss


def gradients_of(model: Any) -> dict[str, Tensor]:
    found = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return found


def test_the_packed_model_computes_what_the_model_does(
    built: tuple[Qwen2VLForConditionalGeneration, GroundingProcessor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = built
    drawn = draw(8, EVERYTHING, size=90)
    states, loss = forward_plainly(model, processor, drawn)
    loss.backward()  # type: ignore[no-untyped-call]
    expected = gradients_of(model)
    visual: Any = model.model.visual
    monkeypatch.setattr(visual, "patch_embed", ByteEmbedding(visual.patch_embed, PixelTable(processor)))
    (part,) = Collator(processor).split(drawn, len(drawn))
    masked = [group for group in part.images.groups if group.mask_R11L is not None]
    assert masked and len(part.images.groups) > 1 and len(part.rows.groups) > 1, (
        "nothing is set side by side: no test"
    )
    hidden = encode_packed(model, part)
    last = norm_last(model, hidden[-1], torch.float32)
    for ours, theirs in zip([*hidden[:-1], last], states, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    logits = model.lm_head(take(last, part.answered_at_A))
    found = functional.cross_entropy(logits, part.answers_A, reduction="sum")
    torch.testing.assert_close(found, loss, rtol=1e-5, atol=0)
    found.backward()  # type: ignore[no-untyped-call]
    for name, gradient in gradients_of(model).items():
        assert (gradient - expected[name]).norm() < 1e-4 * expected[name].norm() + 1e-5, name


@pytest.mark.parametrize("lengths", [[3, 3], [1, 4, 2], [4, 9, 10, 4, 20], [2, 3]])
def test_what_is_spread_and_gathered_is_as_it_was(lengths: list[int]) -> None:
    packing = pack(lengths)
    packed = torch.randn(sum(lengths), 2, 5, dtype=torch.double, requires_grad=True)
    assert torch.equal(packing.gather(packing.spread(packed)), packed.flatten(1))
    assert torch.autograd.gradcheck(
        lambda x: packing.gather([each.square() for each in packing.spread(x)]), (packed,)
    )


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_pieces_of_like_length_are_side_by_side(lengths: list[int]) -> None:
    """Each in a row of its own, from the row's first place, and no row much longer than what is in it."""
    packing = pack(lengths, masked=True)
    rows = torch.split(torch.arange(sum(lengths)) + 1, lengths)
    found = [
        row[row > 0].tolist()
        for part in packing.spread(torch.arange(sum(lengths))[:, None, None] + 1)
        for row in part[:, 0, :, 0]
    ]
    assert sorted(found) == [row.tolist() for row in rows]
    for group in packing.groups:
        assert group.mask_R11L is None or group.mask_R11L.sum() >= LIKE * group.rows * (group.longest - 15)


def losses_of(part: MicroBatch, width: int = 8) -> list[float]:
    torch.manual_seed(0)
    dense, _ = DenseHead(width)(torch.randn(len(part.image_at_M), width), part.dense)
    return [float(dense.detach()), float(BoxHead(width)(torch.randn(len(part.box_at_K), width), part.box_K4))]


def test_a_batch_without_any_box_has_a_loss(
    built: tuple[Qwen2VLForConditionalGeneration, GroundingProcessor],
) -> None:
    nothing = [pair for pair in draw(12, {"absent/think": 1.0}) if not pair[0].sample.boxes]
    (part,) = Collator(built[1]).split(nothing, len(nothing))
    assert len(part.box_K4) == 0
    dense, pointed = losses_of(part)
    assert 0 < dense < 100 and pointed == 0


def test_patches_are_placed_as_they_are_merged() -> None:
    assert place_patches(2, 4, 2).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3], [1, 2], [1, 3]]
