"""Answer chats in batches whose make-up does not show in the results.

`decoding` writes the tokens; which of them may be chosen, and how, is settled here. A checkpoint's own
`generation_config.json` (sampling defaults, repetition penalties) never applies: it would quietly change
greedy results and coordinates; only what it names as the end of a response counts. Tokens that only prompts may
hold (vision, padding, chat marks) are never chosen. And when sampling, every response draws from its own stream
of random numbers, so the same seed gives the same responses whatever else is in the batch.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessor

from univg.errors import UnivgError
from univg.grounding.prompts import PromptStyle, render_chat
from univg.models.generation.decoding import Prefix, decode, join, joinable, prefill
from univg.models.loading import plain_model
from univg.models.temperature import GREEDY_BELOW, settle_temperature
from univg.models.tokens import chat_marks, count_prompt

if TYPE_CHECKING:
    from PIL import Image
    from transformers import BatchFeature, PreTrainedTokenizerBase

    from univg.models.loading import Loaded

READ_AT_ONCE: dict[str, int] = {"cpu": 2048, "cuda": 32768}
"""Prompt tokens that are read in one pass. A CPU reads slower what does not stay in its caches: with the embedded
model a third slower at 12,000 tokens than at 2,000."""


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
        """Return the chat that asks one grounding question about `images`, in the paper's words."""
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
    """Draw `n` responses to each chat, in the order given.

    `temperature` 0 is greedy, and so is one below `GREEDY_BELOW`; above it, responses are drawn from the softmax of
    logits / temperature. The same `seed` gives the same responses (on the same kind of device); None draws anew.
    Chats are sorted by length and run `batch_size` responses at a time. In float32 the result does not depend on
    `batch_size` or on the other chats (half precisions round differently in differently shaped batches).

    Errors: ValueError for a negative temperature, counts below 1, several greedy responses (they would be
    equal), or a chat whose text does not name each of its images exactly once.
    """
    temperature = settle_temperature(temperature)
    _check_request(max_new_tokens, temperature, n, batch_size)
    if seed is None:
        seed = secrets.randbits(63)
    asked = [_prepare(loaded, chat, place) for place, chat in enumerate(chats)]
    # The longest first: what does not fit into memory fails at once.
    order = sorted(range(len(chats)), key=lambda place: -asked[place].length)
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
            with _evaluating(loaded.model):
                responses = decoder.run([asked[place] for place in batch], streams)
            for at, place in enumerate(batch):
                results[place] += responses[at * len(drawn) : (at + 1) * len(drawn)]
    return results


def measure(loaded: Loaded, chat: Chat) -> int:
    """Return how many tokens the model is given for `chat`. Errors: as `generate`."""
    return _prepare(loaded, chat, 0).length


def encode(loaded: Loaded, chats: Sequence[Chat], prompts: Sequence[str]) -> BatchFeature:
    """Make the model's inputs for a batch, left-padded, on its device: `input_ids`, `attention_mask`,
    `mm_token_type_ids` (B, T), and `pixel_values`, `image_grid_thw` over all images in order."""
    images = [image for chat in chats for image in chat.images]
    inputs = loaded.processor(
        images=images or None, text=list(prompts), padding=True, padding_side="left", return_tensors="pt"
    )
    return inputs.to(loaded.device)


def stop_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the tokens that end a response: those of the model's generation settings, and the tokenizer's own.

    Errors: UnivgError if neither names one.
    """
    stated = plain_model(model).generation_config.eos_token_id
    ids = {stated} if isinstance(stated, int) else set(stated or ())
    if tokenizer.eos_token_id is not None:
        ids.add(tokenizer.eos_token_id)
    if not ids:
        raise UnivgError(
            "no token ends a response", tokenizer.name_or_path, "set the tokenizer's eos_token_id"
        )
    return frozenset(int(token) for token in ids)


def forbidden_ids(tokenizer: PreTrainedTokenizerBase, vocab_size: int, stops: frozenset[int]) -> list[int]:
    """List the token ids that a response may never hold.

    These are the marks of a chat (`chat_marks`), except what ends a response; and the rows of the embedding that
    no token uses (Qwen2-VL's vocabulary is padded by some 400).
    """
    unused = set(range(vocab_size)) - set(tokenizer.get_vocab().values())
    return sorted(token for token in (unused | chat_marks(tokenizer).keys()) - stops if token < vocab_size)


@dataclass(frozen=True)
class _Asked:
    """A chat with its prompt's text, and how many tokens that has: to put alike with alike."""

    chat: Chat
    prompt: str
    length: int


class _Decoder:
    """The decoding rules of one call, worked out once and applied batch by batch."""

    def __init__(self, loaded: Loaded, max_new_tokens: int, temperature: float) -> None:
        self._loaded = loaded
        self._model: Any = plain_model(loaded.model)
        self._tokenizer = loaded.processor.tokenizer
        self._limit, self._temperature = max_new_tokens, temperature
        self._stops = stop_ids(loaded.model, self._tokenizer)
        vocab_size = self._model.get_output_embeddings().weight.shape[0]
        forbidden = forbidden_ids(self._tokenizer, vocab_size, self._stops)
        self._forbidden = torch.tensor(forbidden, dtype=torch.long, device=loaded.device)
        self._read_at_once = READ_AT_ONCE.get(loaded.device.type, READ_AT_ONCE["cuda"])

    def run(self, asked: Sequence[_Asked], streams: Sequence[torch.Generator]) -> list[Generation]:
        """Draw one response a stream; a multiple of the chats asked, each chat's responses standing together."""
        prefix = join([self._read(part) for part in self._parts(asked)])
        prefix.repeat(len(streams) // len(prefix))
        written = decode(self._model, prefix, partial(self._choose, streams), self._stops, self._limit)
        return [self._finish(row) for row in written]

    def _read(self, asked: Sequence[_Asked]) -> Prefix:
        inputs = encode(self._loaded, [one.chat for one in asked], [one.prompt for one in asked])
        return prefill(self._model, inputs)

    def _parts(self, asked: Sequence[_Asked]) -> Iterator[Sequence[_Asked]]:
        """Yield runs of chats whose prompts, padded to the longest, have about as many tokens as are read at once."""
        if not joinable(self._model.config):
            yield asked
            return
        start = 0
        for end in range(1, len(asked) + 1):
            following = asked[start : end + 1]
            tokens = len(following) * max(one.length for one in following)
            if end == len(asked) or tokens > self._read_at_once:
                yield asked[start:end]
                start = end

    def _choose(
        self, streams: Sequence[torch.Generator], logits_RV: torch.Tensor, rows: Sequence[int]
    ) -> torch.Tensor:
        # Divided first: the highest temperatures are infinite in float32, and -inf / inf is no number.
        scores_RV = logits_RV / self._temperature if self._temperature else logits_RV
        allowed_RV = scores_RV.index_fill(1, self._forbidden, float("-inf"))
        if not self._temperature:
            return allowed_RV.argmax(dim=-1)
        return draw_by_row(allowed_RV, [streams[row] for row in rows])

    def _finish(self, row: list[int]) -> Generation:
        end = next((place for place, token in enumerate(row) if token in self._stops), None)
        text = self._tokenizer.decode(
            row[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return Generation(str(text), len(row) if end is None else end + 1, truncated=end is None)


def draw_by_row(scores_RV: torch.Tensor, streams: Sequence[torch.Generator]) -> torch.Tensor:
    """Draw tokens (R,), each from the softmax of its row of scores with that row's own stream (the Gumbel-max
    trick). `torch.multinomial` over a batch would tie every row to its neighbours."""
    waits_RV = torch.empty_like(scores_RV)
    for waits_V, stream in zip(waits_RV, streams, strict=True):
        waits_V.exponential_(generator=stream)
    # A zero would make an infinite score, even of -inf.
    waits_RV.clamp_(min=torch.finfo(waits_RV.dtype).tiny)
    return (scores_RV - waits_RV.log()).argmax(dim=-1)


class DrawByRow(LogitsProcessor):
    """`draw_by_row` for transformers' `generate`: leaves only the token that was drawn to be chosen."""

    def __init__(self, temperature: float, streams: Sequence[torch.Generator]) -> None:
        self._temperature, self._streams = temperature, streams

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        drawn = draw_by_row(scores / self._temperature, self._streams)
        return torch.full_like(scores, float("-inf")).scatter(1, drawn[:, None], 0.0)


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _check_request(max_new_tokens: int, temperature: float, n: int, batch_size: int) -> None:
    for name, count in (("max_new_tokens", max_new_tokens), ("n", n), ("batch_size", batch_size)):
        if count < 1:
            raise ValueError(f"{name}={count}: must be at least 1")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature={temperature}: must be 0 (greedy) or above")
    if n > 1 and temperature == 0:
        raise ValueError(
            f"n={n} greedy responses would all be equal: give a temperature of {GREEDY_BELOW:g} or above"
        )


def _prepare(loaded: Loaded, chat: Chat, place: int) -> _Asked:
    prompt = _render(loaded, chat, place)
    seen_wh = [loaded.resized(image.size) for image in chat.images]
    return _Asked(
        chat, prompt, count_prompt(loaded.processor.tokenizer, prompt, seen_wh, loaded.processor.factor)
    )


def _render(loaded: Loaded, chat: Chat, place: int) -> str:
    """Render the prompt's text, in which every image must stand once."""
    processor = loaded.processor
    messages = [dict(message) for message in chat.messages]
    prompt = str(processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    named = prompt.count(processor.image_token)
    if named != len(chat.images):
        raise ValueError(
            f"chat {place}: {len(chat.images)} images, but {named} places for images in its text: name each once"
        )
    return prompt


def _stream(seed: int, key: str, number: int, device: torch.device) -> torch.Generator:
    """Make the random numbers of response `number` to the chat `key`: nothing else decides them."""
    digest = hashlib.sha256(f"{seed}\0{key}\0{number}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
