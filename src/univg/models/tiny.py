"""Build the embedded family: Qwen2-VL, at a size that a laptop's CPU trains.

Nothing here is a mock: `Qwen2VLForConditionalGeneration` with a small configuration, a byte-level tokenizer
with Qwen2-VL's special tokens and pre-tokenisation (every digit its own token), its chat format, its image
processor. Saved in the standard layout, so nothing downstream knows that it is tiny: what other programs take for
granted of a Qwen2-VL (three rotary sections, the vision tower's rotary base, patches of 14 pixels merged by twos,
heads of 64 and 80) is as they take it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX, Qwen2Tokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from univg.grounding.prompts import PromptStyle
from univg.models.conventions import write_conventions
from univg.models.layout import publish_layout
from univg.models.pixels import PixelBudget
from univg.models.processor import CHAT_TEMPLATE, GroundingProcessor

# Qwen2-VL's special tokens, in the order of their ids there.
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
PATCH_SIZE = 14  # Qwen2-VL's own, which SGLang and qwen-vl-utils assume; a token is 28 × 28 pixels
PIXEL_BUDGET = PixelBudget(min_pixels=140 * 140, max_pixels=196 * 196)
"""25 to 49 tokens an image. Small pictures are enlarged, so that a thing's share of its picture decides how many
tokens it covers."""
ROPE_THETA = 500.0


def build_tokenizer(corpus: Iterable[str] = (), vocab_size: int = 1024) -> Qwen2Tokenizer:
    """Build a byte-level BPE tokenizer; merges are learnt from `corpus` (none: plain bytes).

    Any text round-trips. Digits are never merged, so a coordinate is three or four tokens at most.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        min_frequency=3,
    )
    bpe.train_from_iterator(corpus, trainer)
    learnt = json.loads(bpe.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learnt["vocab"],
        merges=[tuple(merge) for merge in learnt["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        model_max_length=32768,
    )
    tokenizer.add_special_tokens(
        {"additional_special_tokens": list(SPECIAL_TOKENS)}, replace_extra_special_tokens=False
    )
    tokenizer.padding_side = "left"
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def rotary_sections(head_dim: int) -> list[int]:
    """Return how a head's pairs of dimensions are divided between time, height and width: Qwen2-VL's `mrope_section`.

    Sections take falling frequencies, width the lowest. Time needs few pairs (one image has one moment), height enough
    for a dozen rows; width gets the rest, since its slow end is also where a thing is found by its looks at any
    distance.

    >>> rotary_sections(64)
    [4, 6, 22]
    """
    pairs = head_dim // 2
    time, height = max(1, pairs // 8), max(1, 3 * pairs // 16)
    return [time, height, pairs - time - height]


def tiny_config(tokenizer: Qwen2Tokenizer, text: Mapping[str, Any] | None = None) -> Qwen2VLConfig:
    """Return Qwen2-VL's configuration at 7 M parameters. `text` replaces settings of the text model (width, layers…).

    The text's rotary base is low (Qwen2-VL has 1,000,000): an image is seven tokens wide, and over seven columns the
    frequencies of a large base hardly turn.
    """
    settings = {
        "vocab_size": -(-len(tokenizer) // 16) * 16,
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,  # the vision tower's as well, where a server gives both the text's
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    } | dict(text or {})
    sections = rotary_sections(settings["hidden_size"] // settings["num_attention_heads"])
    rope = {"rope_type": "default", "rope_theta": ROPE_THETA, "mrope_section": sections}
    settings = {"rope_parameters": rope, "max_window_layers": settings["num_hidden_layers"]} | settings
    vision = {
        "depth": 4,
        "embed_dim": 160,
        "hidden_size": settings["hidden_size"],
        "num_heads": 2,
        "patch_size": PATCH_SIZE,
    }
    ids: dict[str, Any] = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    return Qwen2VLConfig(
        text_config=settings,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def build_tiny(
    seed: int = 0,
    corpus: Iterable[str] = (),
    pixel_budget: PixelBudget = PIXEL_BUDGET,
    text: Mapping[str, Any] | None = None,
) -> tuple[Qwen2VLForConditionalGeneration, GroundingProcessor]:
    """Build a tiny Qwen2-VL with random weights (float32) and its processor; the same seed gives the same weights."""
    tokenizer = build_tokenizer(corpus)
    image_processor = Qwen2VLImageProcessorPil(
        patch_size=PATCH_SIZE,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": pixel_budget.min_pixels, "longest_edge": pixel_budget.max_pixels},
    )
    processor = GroundingProcessor(image_processor, tokenizer, chat_template=CHAT_TEMPLATE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2VLForConditionalGeneration(tiny_config(tokenizer, text))
    # As Qwen2-VL's own: greedy for a server that takes its defaults from here, and would draw at temperature 1.
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.pad_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
        temperature=0.01,
        top_k=1,
        top_p=0.001,
    )
    return model.eval(), processor


def save_tiny(
    model: Qwen2VLForConditionalGeneration,
    processor: GroundingProcessor,
    folder: str | Path,
    prompt_style: PromptStyle = "think",
) -> None:
    """Write the checkpoint in the standard layout: safetensors, tokenizer, image processor, chat template.

    Beside it `univg.json`: how it is to be asked (`prompt_style`) and the pixel budget it was trained with.
    """
    model.save_pretrained(folder, safe_serialization=True)
    processor.save_pretrained(folder)
    publish_layout(folder)
    write_conventions(folder, prompt_style, processor.pixel_budget)
