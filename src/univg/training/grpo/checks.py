"""Checks before the first update: the rewards on ground truth, the start model, the memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from univg.errors import UnivgError
from univg.grounding.scoring import score
from univg.models.tokens import count_prompt
from univg.training.grpo.metrics import Generation, RolloutCallback
from univg.training.grpo.rewards import Reward, RolloutReader, is_learnable, try_rewards, write_ideal
from univg.training.run.precision import computes_in_bf16

if TYPE_CHECKING:
    from rich.console import Console

    from univg.models.loading import Loaded
    from univg.models.processor import GroundingProcessor
    from univg.training.config import GrpoConfig
    from univg.training.grpo.plan import BatchPlan

__all__ = [
    "CheapAnswers",
    "StartReport",
    "check_oracle",
    "describe_memory",
    "describe_packing",
    "describe_start",
]

CHECKED = 16
FORMAT_MISSING = 0.1
"""A start model that keeps the form less often than this has hardly a rollout to learn from."""


WATCHED = 64
"""Groups that are looked at together for cheap answers."""
CHEAP_FROM = 0.25
_CHEAP = {
    "groups/all_refuse": (
        "says that nothing is there, though something is",
        "a cold start on more samples with something to find (univg sft), or fewer empty ones in data",
    ),
    "groups/all_spam": (
        "gives more than twice the boxes that there are",
        "a cold start (univg sft), or a larger share of set_f1 among the rewards",
    ),
}


class Rows(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> Mapping[str, Any]: ...


def check_oracle(
    rows: Rows, rewards: Sequence[Reward], reader: RolloutReader, processor: GroundingProcessor
) -> str:
    """Feed ground truth back as if the model had written it, through tokens, reading and rewards; returns a
    line.

    Every sample must score 1.0 (on its boxes rounded to what can be written) and the form. Raises
    UnivgError naming the sample, or the reward that fails.
    """
    texts, exact, ceilings = [], [], []
    bad: list[str] = []
    for row in (rows[place] for place in range(min(CHECKED, len(rows)))):
        name = row["sample"].name
        if not is_learnable(row):
            bad.append(name)
            continue
        written, snapped, ceiling = write_ideal(row, reader)
        ids = processor.tokenizer.encode(written)
        text = processor.tokenizer.decode(ids, skip_special_tokens=True)  # as TRL hands rollouts over
        reading = reader.read(snapped, text)
        result = score(snapped["sample"], reading)
        if not is_learnable(snapped):
            bad.append(name)
            continue
        if result.iou < 1 - 1e-9 or not result.format_ok:
            raise UnivgError(
                f"oracle: ground truth fed back scores IoU {result.iou:.4f}, fault {reading.fault}, for sample {name}",
                repr(text[:120]),
                "tokenizer, prompt style and coordinates do not fit each other",
            )
        texts.append(text)
        exact.append({**snapped, "score": result, "reading": reading})
        ceilings.append(ceiling)
    if not texts:
        raise UnivgError(f"oracle: none of the first samples has a box that encloses an area ({bad[0]}, …)")
    means = try_rewards(texts, exact, rewards)
    earned = ", ".join(
        f"{name} {'None alone' if value is None else format(value, '.2f')}" for name, value in means.items()
    )
    line = (
        f"oracle: ground truth fed back scores 1.0 on {len(texts)} samples (rounding leaves at least "
        f"{min(ceilings):.3f}); rewards: {earned}"
    )
    return line + (f"; without a usable box: {', '.join(bad)}" if bad else "")


class StartReport(RolloutCallback):
    """Say what the first rollouts show of the start model, before anything has been learnt."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def on_rollouts(self, args: Any, state: Any, generation: Generation) -> None:
        if generation.agreement is not None and state.is_world_process_zero:
            self.console.print(f"vLLM reads what the model reads: {generation.agreement}")
        if state.global_step == 0 and state.is_world_process_zero:
            for line, style in describe_start(generation.metrics):
                self.console.print(line, style=style)


def describe_start(metrics: Mapping[str, float]) -> Iterator[tuple[str, str | None]]:
    """Yield (line, style) on the start model, from its first rollouts."""
    yield (
        f"start model: format {metrics['format']:.2f}, mean IoU {metrics['iou']:.3f}, cut off "
        f"{metrics['truncated']:.2f} of its first rollouts",
        None,
    )
    if metrics["format"] < FORMAT_MISSING:
        yield (
            "the start model hardly ever keeps the form of an answer, so there is little to learn from: "
            "give it a cold start first (univg sft), or check prompt_style",
            "yellow",
        )


class CheapAnswers(RolloutCallback):
    """Say it where in many groups all rollouts answer cheaply, which teaches little: all refuse though something is
    there, or all list more than twice what there is."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.groups = 0
        self.cheap = dict.fromkeys(_CHEAP, 0.0)

    def on_rollouts(self, args: Any, state: Any, generation: Generation) -> None:
        count = len(generation.rewards_PG)
        self.groups += count
        for name in _CHEAP:
            self.cheap[name] += count * generation.metrics[name]
        if self.groups < WATCHED:
            return
        for name, (does, remedy) in _CHEAP.items():
            found = self.cheap[name]
            if found >= CHEAP_FROM * self.groups and state.is_world_process_zero:
                self.console.print(
                    f"step {generation.step}: in {found:.0f} of the last {self.groups} groups every rollout {does}, "
                    f"which teaches little: {remedy}",
                    style="yellow",
                )
        self.groups, self.cheap = 0, dict.fromkeys(_CHEAP, 0.0)


def describe_memory(config: GrpoConfig, loaded: Loaded, rows: Rows, batches: BatchPlan, shared: bool) -> str:
    """Estimate, beside weights and optimizer, the reference model, keys and values of the rollouts,
    activations.

    `shared`: a group's prompt is there once, else once for every rollout.

    Activations of a layer are taken as 34 times its width a token in two bytes (four without bf16), or with
    gradient checkpointing as its input alone.
    """
    text = loaded.model.config.get_text_config()
    size = 2 if computes_in_bf16(config.bf16) else 4
    reference = 0 if config.lora or not config.beta else loaded.model.num_parameters() * 4
    prompt = max(_count_prompt_tokens(loaded, rows[place]) for place in range(min(CHECKED, len(rows))))
    drawn = min(batches.micro_batch * batches.accumulation, config.rows_at_once or sys.maxsize)
    drawn_prompts = -(-drawn // config.rollouts) if shared else drawn
    learnt_prompts = max(batches.prompts_at_once) if shared else batches.micro_batch
    response = config.max_completion_tokens
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    a_token = 2 * text.num_hidden_layers * text.num_key_value_heads * head * size
    cache = (drawn_prompts * prompt + drawn * response) * a_token
    a_layer = text.hidden_size * size * (1 if config.gradient_checkpointing else 17)
    learnt = learnt_prompts * prompt + batches.micro_batch * response
    activations = learnt * text.num_hidden_layers * a_layer
    return (
        f"memory besides: reference {reference / 1e9:.2f} GB, rollouts' keys and values up to {cache / 1e9:.2f} GB, "
        f"activations about {activations / 1e9:.2f} GB (prompts of up to {prompt} tokens)"
    )


def describe_packing(batches: BatchPlan) -> list[str]:
    """Return a line where micro-batches divide groups, so that a shared prompt is encoded more than once.

    >>> from univg.training.grpo.plan import batch_plan
    >>> describe_packing(batch_plan(prompts=16, rollouts=8, micro_batch=2))
    ['micro_batch=2 divides groups of 8: each prompt is encoded 4.0 times an update, with micro_batch=8 once']
    >>> describe_packing(batch_plan(prompts=16, rollouts=8, micro_batch=8))
    []
    """
    encoded = sum(batches.prompts_at_once)
    prompts = batches.micro_batch * batches.accumulation / batches.rollouts
    if encoded <= prompts:
        return []
    return [
        f"micro_batch={batches.micro_batch} divides groups of {batches.rollouts}: each prompt is encoded "
        f"{encoded / prompts:.1f} times an update, with micro_batch={batches.rollouts} once"
    ]


def _count_prompt_tokens(loaded: Loaded, row: Mapping[str, Any]) -> int:
    processor = loaded.processor
    seen_wh = [loaded.resized(image.size) for image in row["images"]]
    prompt = processor.apply_chat_template(list(row["prompt"]), tokenize=False, add_generation_prompt=True)
    return count_prompt(processor.tokenizer, str(prompt), seen_wh, processor.factor)
