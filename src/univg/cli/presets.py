"""The presets that univg ships, and what each of them configures."""

from __future__ import annotations

from collections.abc import Mapping

from univg.config import Config
from univg.study.config import StudyConfig
from univg.training.config import GrpoConfig, PretrainConfig, SftConfig

__all__ = ["PRESETS", "VERBS_OF"]

PRESETS: Mapping[str, type[Config]] = {
    "tiny-base": PretrainConfig,
    "tiny-words": PretrainConfig,
    "tiny-think": PretrainConfig,
    "tiny-think-more": PretrainConfig,
    "tiny-sft": SftConfig,
    "tiny-grpo": GrpoConfig,
    "tiny-r1": GrpoConfig,
    "sets-sft": SftConfig,
    "sets-grpo": GrpoConfig,
    "photos-sft": SftConfig,
    "photos-grpo": GrpoConfig,
    "qwen2-vl-7b-sft": SftConfig,
    "qwen2-vl-7b-grpo": GrpoConfig,
    "qwen2-vl-2b-lora-sft": SftConfig,
    "qwen2-vl-2b-lora-grpo": GrpoConfig,
    "qwen2-vl-7b-lora-sft": SftConfig,
    "qwen2-vl-7b-lora-grpo": GrpoConfig,
    "qwen25-vl-3b-lora-sft": SftConfig,
    "qwen25-vl-3b-lora-grpo": GrpoConfig,
    "qwen25-vl-7b-lora-sft": SftConfig,
    "qwen25-vl-7b-lora-grpo": GrpoConfig,
    "qwen3-vl-2b-lora-sft": SftConfig,
    "qwen3-vl-2b-lora-grpo": GrpoConfig,
    "qwen3-vl-4b-lora-sft": SftConfig,
    "qwen3-vl-4b-lora-grpo": GrpoConfig,
    "qwen3-vl-8b-lora-sft": SftConfig,
    "qwen3-vl-8b-lora-grpo": GrpoConfig,
    "qwen2-vl-2b-lora-16gb-sft": SftConfig,
    "qwen2-vl-2b-lora-16gb-grpo": GrpoConfig,
    "study": StudyConfig,
    "study-quick": StudyConfig,
    "study-rl": StudyConfig,
    "study-thoughts": StudyConfig,
}
"""The stem of every file directly in ``configs/`` and its class. A test loads every one of them."""

VERBS_OF: Mapping[type[Config], str] = {
    PretrainConfig: "univg pretrain",
    SftConfig: "univg sft",
    GrpoConfig: "univg grpo",
    StudyConfig: "univg study",
}
"""The command that a preset of each class is for."""
