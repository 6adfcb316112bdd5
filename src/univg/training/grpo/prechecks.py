"""Check the settings of stage 2 that need no torch, as :mod:`univg.training.run.prechecks` does those of both."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace

from univg.errors import UnivgError
from univg.models import checkpoint
from univg.models.layout import find_rotary_fault
from univg.training.config import GrpoConfig
from univg.training.grpo.difficulty import check_weighting
from univg.training.grpo.plan import BatchPlan, batch_plan
from univg.training.grpo.rewards import Reward, RolloutReader, find_rewards, try_rewards, write_ideal
from univg.training.run.launch import count_processes
from univg.training.run.prechecks import check_stage

__all__ = ["check_engine", "check_grpo"]

TRIED = 2
"""Samples of the world on which rewards are tried: two show whether a reward gives one value each."""


def check_grpo(config: GrpoConfig, resume: bool = False) -> tuple[BatchPlan, Sequence[Reward]]:
    """Return the batches and rewards of a config; raises UnivgError for what is wrong in it."""
    batches = batch_plan(config.prompts_per_step, config.rollouts, config.micro_batch, count_processes())
    check_weighting(config.weighting, config.power_w)
    rewards = find_rewards(config.rewards)
    check_stage(config, resume)
    if config.vllm != "off":
        check_engine(config.vllm, config.model, config.lora is not None and config.bf16)
    if config.data[0].reader == "world":  # a reward may be made for other data: that is tried once it is open
        _try_on_world(config, rewards)
    return batches, rewards


def check_engine(mode: str, start: str, lora_in_bf16: bool) -> None:
    """Raise UnivgError for what vLLM cannot do in a run from `start`; before a model is loaded."""
    place = f"vllm: {mode}"
    if importlib.util.find_spec("vllm") is None:
        raise UnivgError(
            "vLLM is not installed", place, "pip install 'trl[vllm]' (it needs a GPU), or vllm=off"
        )
    if lora_in_bf16:
        # 0.7 % of a weight's norm after 200 hand-overs, where float32 leaves 1e-7.
        raise UnivgError(
            "each hand-over to vLLM adds a LoRA adapter to its base and takes it out again, and in bf16 what "
            "rounding leaves of that adds up",
            place,
            "use bf16=false or vllm=off",
        )
    folder = checkpoint.locate(start).folder
    folder = checkpoint.base_of(folder).folder if checkpoint.is_adapter(folder) else folder
    fault = find_rotary_fault(folder)
    if fault is not None:
        raise UnivgError(f"vLLM cannot run {start}: {fault}", place, "use vllm=off")


def _try_on_world(config: GrpoConfig, rewards: Sequence[Reward]) -> None:
    from univg.grounding.prompts import choose_style, render_chat
    from univg.grounding.scoring import score
    from univg.world import make_sample

    reader = RolloutReader(config.prompt_style)
    texts, rows = [], []
    made = [make_sample("referring", index=index, size=56) for index in range(TRIED)]
    tried = [(drawn.sample, drawn.images) for drawn in made]
    if "image" in config.rewards:  # it applies to sets on several images alone
        drawn = make_sample("diff", size=56)
        tried.append((replace(drawn.sample, complete=True), drawn.images))
    for sample, images in tried:
        style = choose_style(sample, config.prompt_style)
        prompt = render_chat(len(images), sample.query, style)
        row = {"prompt": prompt, "sample": sample, "style": style, "notes": ()}
        row["images"] = list(images)
        text, exact, _ = write_ideal(row, reader)
        reading = reader.read(exact, text)
        texts.append(text)
        rows.append({**exact, "score": score(exact["sample"], reading), "reading": reading})
    try_rewards(texts, rows, rewards)
