"""Read prompts once, then write all their responses together, a token a step, each leaving when it ends.

    prefix = prefill(model, inputs)         # a row a prompt: keys and values, and what may come next
    prefix = join([prefix, another])        # prompts read in small batches can be answered in a large one
    prefix.repeat(n)                        # n responses to each prompt, without reading it again
    tokens = decode(model, prefix, choose, stops, max_new_tokens=256)

transformers' `generate` keeps every row until the longest has ended: with responses of 20 to 250 tokens, half of
the arithmetic is for rows that are done. Here a row that ends gives its place to the last one, which costs one
row's copy, and the batch is one smaller. What a row is given to attend to does not change with that, so its tokens
are the same. For models of the Qwen2-VL kind: positions come from `get_rope_index` and count on in all three axes.

Nothing here knows of tokenizers, temperatures or seeds: `choose` is given logits and says which tokens follow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from univg.models.generation.cache import join_caches, joinable, keep_rows, roomy_cache
from univg.models.loading import plain_model

if TYPE_CHECKING:
    from transformers import DynamicCache

__all__ = ["Choose", "Prefix", "decode", "join", "joinable", "prefill", "prompt_positions"]

FEW_WEIGHTS = 20_000_000
"""Up to so many, a processor's threads wait for each other longer than they compute, a token at a time."""


class Choose(Protocol):
    """How the next token of each row is chosen."""

    def __call__(self, logits_RV: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Choose tokens (R,) from float32 logits (R, V). `rows`: which of the prefix's rows these are, for whatever
        belongs to a row, such as its random numbers; they are fewer, and in another order, as rows end."""


@dataclass
class Prefix:
    """What a model has read, ready to be continued: a row a response.

    `cache` holds keys and values of T tokens; `mask_RT` is 1 where they count (padding stands left);
    `logits_RV` are those of the token that follows; `positions_R` is that token's rotary position. `decode` uses
    it up.
    """

    cache: DynamicCache
    mask_RT: torch.Tensor
    logits_RV: torch.Tensor
    positions_R: torch.Tensor

    def __len__(self) -> int:
        return len(self.positions_R)

    def repeat(self, n: int) -> None:
        """Make each row n rows, standing together."""
        if n > 1:
            self.cache.batch_repeat_interleave(n)
            self.mask_RT = self.mask_RT.repeat_interleave(n, dim=0)
            self.logits_RV = self.logits_RV.repeat_interleave(n, dim=0)
            self.positions_R = self.positions_R.repeat_interleave(n, dim=0)

    def seen(self) -> dict[str, Any]:
        """Return what the next token may attend to, itself included, as the model takes it."""
        self.mask_RT = torch.cat([self.mask_RT, self.mask_RT.new_ones(len(self), 1)], dim=1)
        return {"attention_mask": self.mask_RT}

    def keep(self, places: Sequence[int]) -> None:
        """Keep these rows, in this order."""
        keep_rows(self.cache, places)
        index = torch.tensor(places, device=self.positions_R.device)
        self.mask_RT, self.positions_R = self.mask_RT[index], self.positions_R[index]
        self.logits_RV = self.logits_RV[index]


@torch.no_grad()
def prefill(model: Any, inputs: Mapping[str, torch.Tensor]) -> Prefix:
    """Read a batch of prompts: `inputs` as the processor gives them, left-padded; a row a prompt."""
    mask_RT = inputs["attention_mask"]
    positions_3RT, after_R = prompt_positions(model, inputs)
    cache = roomy_cache(model.config)
    output = model(
        **inputs, position_ids=positions_3RT, past_key_values=cache, use_cache=True, logits_to_keep=1
    )
    return Prefix(cache, mask_RT, output.logits[:, -1], after_R)


def join(prefixes: Sequence[Prefix]) -> Prefix:
    """Put the rows of all of them into one, left-padded; the parts are used up. Only for models that `joinable`
    allows."""
    if len(prefixes) == 1:
        return prefixes[0]
    length = max(prefix.mask_RT.shape[1] for prefix in prefixes)
    masks = [
        torch.nn.functional.pad(prefix.mask_RT, (length - prefix.mask_RT.shape[1], 0)) for prefix in prefixes
    ]
    return Prefix(
        join_caches([prefix.cache for prefix in prefixes]),
        torch.cat(masks),
        torch.cat([prefix.logits_RV for prefix in prefixes]),
        torch.cat([prefix.positions_R for prefix in prefixes]),
    )


@torch.no_grad()
def decode(
    model: Any, prefix: Prefix, choose: Choose, stops: Collection[int], max_new_tokens: int
) -> list[list[int]]:
    """Continue every row of `prefix` until it writes one of `stops` (which is kept) or has `max_new_tokens`.

    Returns each row's new tokens, in the order the rows had. `prefix` is of no use afterwards.
    """
    with _fitting_threads(model):
        return _decode(model, prefix, choose, stops, max_new_tokens)


def _decode(
    model: Any, prefix: Prefix, choose: Choose, stops: Collection[int], max_new_tokens: int
) -> list[list[int]]:
    written: list[list[int]] = [[] for _ in range(len(prefix))]
    rows = list(range(len(prefix)))  # rows[i]: whose turn it is in the i-th row of the batch
    for _ in range(max_new_tokens):
        tokens_R = choose(prefix.logits_RV.float(), rows)
        going = []
        for place, token in enumerate(tokens_R.tolist()):
            written[rows[place]].append(token)
            if token not in stops:
                going.append(place)
        if not going:
            break
        if len(going) < len(rows):
            places = _close_up(going)
            prefix.keep(places)
            tokens_R = tokens_R[torch.tensor(places, device=tokens_R.device)]
            rows = [rows[place] for place in places]
        if len(written[rows[0]]) < max_new_tokens:
            _step(model, prefix, tokens_R)
    return written


@contextmanager
def _fitting_threads(model: Any) -> Iterator[None]:
    """Let a small model on a processor write in one thread: a token is some hundred operations of a few microseconds,
    and after each all threads wait for the last. On an idle machine that loses little, beside other programs it is
    several times as fast (`benchmarks/decoding_threads.py`)."""
    text = plain_model(model).model.language_model
    weights = sum(weight.numel() for weight in text.parameters())
    threads = torch.get_num_threads()
    if threads == 1 or weights > FEW_WEIGHTS or next(text.parameters()).device.type != "cpu":
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _step(model: Any, prefix: Prefix, tokens_R: torch.Tensor) -> None:
    """Read one token more in each row."""
    output = model(
        input_ids=tokens_R[:, None],
        **prefix.seen(),
        position_ids=prefix.positions_R[None, :, None].expand(3, -1, 1),
        past_key_values=prefix.cache,
        use_cache=True,
    )
    prefix.logits_RV = output.logits[:, -1]
    prefix.positions_R = prefix.positions_R + 1


def _close_up(going: Sequence[int]) -> list[int]:
    """Return the places that go on, ordered so that few rows move: the last ones fill the gaps.

    >>> _close_up([0, 2, 3, 5])
    [0, 5, 2, 3]
    """
    count = len(going)
    movers = iter([place for place in going if place >= count])
    staying = set(going)
    return [place if place in staying else next(movers) for place in range(count)]


def prompt_positions(model: Any, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rotary positions (3, R, T) of the prompts' tokens in time, height and width, and those (R,) of
    the token that follows each prompt. Without images all three count the tokens."""
    mask_RT = inputs["attention_mask"]
    if inputs.get("image_grid_thw") is not None:
        positions_3RT, offset_R1 = plain_model(model).model.get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=inputs["mm_token_type_ids"],
            image_grid_thw=inputs["image_grid_thw"],
            attention_mask=mask_RT,
        )
        return positions_3RT, mask_RT.sum(dim=1) + offset_R1[:, 0]
    positions_RT = (mask_RT.cumsum(dim=1) - 1).clamp(min=0)
    return positions_RT.expand(3, -1, -1), mask_RT.sum(dim=1)
