"""Chats in, texts out, in batches whose make-up does not show in the results.

transformers' `generate` runs the decoding; three things about it are settled here. A checkpoint's own
`generation_config.json` (sampling defaults, repetition penalties) never applies: it would quietly change
greedy results and coordinates. Tokens that only prompts may hold (vision, padding, chat marks) are never
chosen. And when sampling, every response draws from its own stream of random numbers, so the same seed gives
the same responses whatever else is in the batch.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from univg.models.cache import roomy_cache
from univg.response import PromptStyle, render_chat

if TYPE_CHECKING:
    from PIL import Image
    from transformers import BatchFeature, PreTrainedModel, PreTrainedTokenizerBase

    from univg.models.loading import Loaded

ANSWER_TOKENS = frozenset({"<|box_start|>", "<|box_end|>", "<|object_ref_start|>", "<|object_ref_end|>"})
"""Special tokens of the Qwen families that belong to answers; every other one belongs to prompts."""


@dataclass(frozen=True)
class Chat:
    """What the model is asked: RGB pictures, and messages in which each is named by one `{"type": "image"}`.

    `key` names the chat's stream of random numbers when sampling (a sample's content key, say); without one
    it is the chat's place among those given.
    """

    images: tuple[Image.Image, ...]
    messages: tuple[Mapping[str, Any], ...]
    key: str = ""

    @classmethod
    def ask(
        cls, images: Sequence[Image.Image], query: str, style: PromptStyle = "think", key: str = ""
    ) -> Chat:
        """The chat that asks one grounding question about `images`, in the paper's words."""
        return cls(tuple(images), tuple(render_chat(len(images), query, style)), key)


@dataclass(frozen=True)
class Generation:
    """A response: its `text` (answer tokens kept, end mark removed), its length in `tokens`, the end mark
    included, and whether it was `truncated`: cut off by the limit before the model ended it."""

    text: str
    tokens: int
    truncated: bool


def generate(
    loaded: Loaded,
    chats: Sequence[Chat],
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    n: int = 1,
    seed: int | None = None,
    batch_size: int = 16,
) -> list[list[Generation]]:
    """`n` responses to each chat, in the order given.

    `temperature` 0 is greedy; above it, responses are drawn from the softmax of logits / temperature. The
    same `seed` gives the same responses (on the same kind of device); None draws anew. Chats are sorted by
    length and run `batch_size` responses at a time. In float32 the result does not depend on `batch_size` or
    on the other chats (half precisions round differently in differently shaped batches).

    Errors: ValueError for a negative temperature, counts below 1, several greedy responses (they would be
    equal), or a chat whose text does not name each of its images exactly once.
    """
    _check_request(max_new_tokens, temperature, n, batch_size)
    if seed is None:
        seed = secrets.randbits(63)
    prompts = [_render(loaded, chat, place) for place, chat in enumerate(chats)]
    lengths = [_length(loaded, chat, prompt) for chat, prompt in zip(chats, prompts, strict=True)]
    order = sorted(
        range(len(chats)), key=lambda i: -lengths[i]
    )  # longest first: what does not fit fails at once
    decoder = _Decoder(loaded, max_new_tokens, temperature)
    results: list[list[Generation]] = [[] for _ in chats]
    for first in range(0, n, batch_size):
        drawn = range(first, min(first + batch_size, n))
        step = batch_size // len(drawn)
        for start in range(0, len(order), step):
            batch = order[start : start + step]
            streams = [
                _stream(seed, chats[place].key or str(place), number, loaded.device)
                for place in batch
                for number in drawn
            ]
            inputs = encode(loaded, [chats[place] for place in batch], [prompts[place] for place in batch])
            responses = decoder.run(inputs, streams)
            for at, place in enumerate(batch):
                results[place] += responses[at * len(drawn) : (at + 1) * len(drawn)]
    return results


def encode(loaded: Loaded, chats: Sequence[Chat], prompts: Sequence[str]) -> BatchFeature:
    """The model's inputs for a batch, left-padded, on its device: `input_ids`, `attention_mask`,
    `mm_token_type_ids` (B, T), and `pixel_values`, `image_grid_thw` over all images in order."""
    images = [image for chat in chats for image in chat.images]
    inputs = loaded.processor(
        images=images or None, text=list(prompts), padding=True, padding_side="left", return_tensors="pt"
    )
    return inputs.to(loaded.device)


def stop_ids(loaded: Loaded) -> frozenset[int]:
    """Tokens that end a response: those of the checkpoint's generation settings, and the tokenizer's own."""
    stated = _plain(loaded.model).generation_config.eos_token_id
    ids = {stated} if isinstance(stated, int) else set(stated or ())
    if loaded.processor.tokenizer.eos_token_id is not None:
        ids.add(loaded.processor.tokenizer.eos_token_id)
    if not ids:
        raise ValueError(
            f"{loaded.name}: the checkpoint names no token that ends a response: set eos_token_id"
        )
    return frozenset(int(token) for token in ids)


def forbidden_ids(tokenizer: PreTrainedTokenizerBase, vocab_size: int, stops: frozenset[int]) -> list[int]:
    """Token ids a response may never hold.

    These are the added tokens written `<|…|>` or marked special (vision, padding, chat, quad, tool marks),
    except `ANSWER_TOKENS` and what ends a response; and the rows of the embedding that no token uses
    (Qwen2-VL's vocabulary is padded by some 400).
    """
    marks = {
        token
        for token, added in tokenizer.added_tokens_decoder.items()
        if (added.special or added.content.startswith("<|")) and added.content not in ANSWER_TOKENS
    }
    unused = set(range(vocab_size)) - set(tokenizer.get_vocab().values())
    return sorted(token for token in (marks | unused) - stops if token < vocab_size)


class _Decoder:
    """The decoding rules of one call, worked out once and applied batch by batch."""

    def __init__(self, loaded: Loaded, max_new_tokens: int, temperature: float) -> None:
        self._model: Any = _plain(loaded.model)
        self._tokenizer = loaded.processor.tokenizer
        self._temperature, self._stops = temperature, stop_ids(loaded)
        vocab_size = self._model.get_output_embeddings().weight.shape[0]
        forbidden = forbidden_ids(self._tokenizer, vocab_size, self._stops)
        self._forbid = _Forbid(torch.tensor(forbidden, dtype=torch.long, device=loaded.device))
        pad = self._tokenizer.pad_token_id
        self._settings: dict[str, Any] = {
            "max_new_tokens": max_new_tokens,
            "do_sample": temperature > 0,
            "use_cache": True,
            "eos_token_id": sorted(self._stops),
            "pad_token_id": min(self._stops) if pad is None else pad,
        }
        if temperature > 0:  # `_Draw` has chosen already; transformers' own top-k of 50 must not interfere
            self._settings |= {"temperature": 1.0, "top_k": 0, "top_p": 1.0}

    def run(self, inputs: BatchFeature, streams: Sequence[torch.Generator]) -> list[Generation]:
        """One response a stream; a multiple of the batch's rows, each row's responses standing together."""
        rules: list[LogitsProcessor] = [self._forbid]
        if self._temperature > 0:
            rules.append(_Draw(self._temperature, streams))
        config = GenerationConfig(
            num_return_sequences=len(streams) // len(inputs["input_ids"]), **self._settings
        )
        with _decoding(self._model, config), torch.no_grad():
            tokens = self._model.generate(
                **inputs,
                generation_config=config,
                logits_processor=LogitsProcessorList(rules),
                past_key_values=roomy_cache(self._model.config),
            )
        written = tokens[:, inputs["input_ids"].shape[1] :]
        return [self._finish(row) for row in written.tolist()]

    def _finish(self, row: list[int]) -> Generation:
        end = next((at for at, token in enumerate(row) if token in self._stops), None)
        text = self._tokenizer.decode(
            row[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return Generation(str(text), len(row) if end is None else end + 1, truncated=end is None)


class _Forbid(LogitsProcessor):
    """Takes tokens out of the choice."""

    def __init__(self, tokens: torch.Tensor) -> None:
        self._tokens = tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores.index_fill(1, self._tokens.to(scores.device), float("-inf"))


class _Draw(LogitsProcessor):
    """Draws each row's token from softmax(scores / temperature) with that row's own stream (the Gumbel-max
    trick), and leaves only that token to be chosen. `torch.multinomial` over a batch would tie every row to
    its neighbours."""

    def __init__(self, temperature: float, streams: Sequence[torch.Generator]) -> None:
        self._temperature, self._streams = temperature, streams

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        waits = torch.empty_like(scores)
        for row, stream in zip(waits, self._streams, strict=True):
            row.exponential_(generator=stream)
        waits.clamp_(min=torch.finfo(waits.dtype).tiny)  # a zero would make an infinite score, even of -inf
        drawn = (scores / self._temperature - waits.log()).argmax(dim=-1, keepdim=True)
        return torch.full_like(scores, float("-inf")).scatter(1, drawn, 0.0)


@contextmanager
def _decoding(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    """Evaluation mode, and `config` in place of the checkpoint's: `generate` fills every value that a given
    config leaves open from the model's own, so passing ours alone would let a stored repetition penalty
    through."""
    training, stored = model.training, model.generation_config
    model.eval()
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = stored
        model.train(training)


def _plain(model: Any) -> PreTrainedModel:
    """The transformers model itself: peft's wrapper keeps generation settings of its own."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _check_request(max_new_tokens: int, temperature: float, n: int, batch_size: int) -> None:
    for name, count in (("max_new_tokens", max_new_tokens), ("n", n), ("batch_size", batch_size)):
        if count < 1:
            raise ValueError(f"{name}={count}: must be at least 1")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature={temperature}: must be 0 (greedy) or above")
    if n > 1 and temperature == 0:
        raise ValueError(f"n={n} greedy responses would all be equal: give a temperature above 0")


def _render(loaded: Loaded, chat: Chat, place: int) -> str:
    """The prompt's text. Every image must stand in it once: a question that spells the model's image or video
    mark would shift all images after it, so it is refused."""
    processor = loaded.processor
    messages = [dict(message) for message in chat.messages]
    prompt = str(processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    named = prompt.count(processor.image_token)
    if named != len(chat.images) or processor.video_token in prompt:
        raise ValueError(
            f"chat {place}: {len(chat.images)} images, but {named} places for images in its text: name each "
            f"image once, and keep {processor.image_token} and {processor.video_token} out of questions"
        )
    return prompt


def _length(loaded: Loaded, chat: Chat, prompt: str) -> int:
    """About how many tokens the prompt has; good enough to put alike with alike."""
    areas = (width * height for width, height in (loaded.resized(image.size) for image in chat.images))
    return sum(areas) // loaded.processor.factor**2 + len(prompt) // 3


def _stream(seed: int, key: str, number: int, device: torch.device) -> torch.Generator:
    """The random numbers of response `number` to the chat `key`: nothing else decides them."""
    digest = hashlib.sha256(f"{seed}\0{key}\0{number}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
