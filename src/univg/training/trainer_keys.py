"""The arguments of TRL and transformers that reach something in univg's runs, with their types and bounds; no torch.

What is not here is refused, with the reason (:mod:`univg.training.trainer_rules`).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

# pydantic reads a TypedDict of typing only from Python 3.12 on
from typing_extensions import TypedDict

__all__ = ["OPTIMIZERS", "PASSED", "REPORTERS", "SCHEDULES", "WITHOUT_ARGUMENTS", "GrpoArguments"]

OPTIMIZERS: Mapping[str, str] = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"), ""),
    **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit", "ademamix", "ademamix_8bit"), "bitsandbytes"),
    **dict.fromkeys(("lion_8bit", "lion_32bit", "paged_lion_32bit", "paged_lion_8bit"), "bitsandbytes"),
    **dict.fromkeys(("paged_adamw_32bit", "paged_adamw_8bit"), "bitsandbytes"),
    **dict.fromkeys(("paged_ademamix_32bit", "paged_ademamix_8bit"), "bitsandbytes"),
    **dict.fromkeys(("rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit"), "bitsandbytes"),
    **dict.fromkeys(("galore_adamw", "galore_adamw_8bit", "galore_adafactor"), "galore_torch"),
    **dict.fromkeys(("galore_adamw_layerwise", "galore_adamw_8bit_layerwise"), "galore_torch"),
    "galore_adafactor_layerwise": "galore_torch",
    **dict.fromkeys(("apollo_adamw", "apollo_adamw_layerwise"), "apollo_torch"),
    **dict.fromkeys(("lomo", "adalomo"), "lomo_optim"),
    **dict.fromkeys(("adamw_torch_4bit", "adamw_torch_8bit"), "torchao"),
    **dict.fromkeys(("schedule_free_radam", "schedule_free_adamw", "schedule_free_sgd"), "schedulefree"),
    "adamw_torch_xla": "torch_xla",
    "adamw_torch_npu_fused": "torch_npu",
    "adamw_anyprecision": "torchdistx",
    "grokadamw": "grokadamw",
    "stable_adamw": "optimi",
}
"""transformers' optimizers, and the package that each needs beside torch."""
WITHOUT_ARGUMENTS = (
    *(
        "adamw_torch",
        "adamw_torch_fused",
        "adamw_torch_xla",
        "adamw_torch_npu_fused",
        "adafactor",
        "lomo",
        "adalomo",
    ),
    *("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"),
    *("lion_8bit", "lion_32bit", "paged_lion_32bit", "paged_lion_8bit"),
)
"""Optimizers that do not read `optim_args`."""

SCHEDULES: Mapping[str, tuple[str, ...]] = {
    "linear": (),
    "cosine": ("num_cycles",),
    "cosine_with_restarts": ("num_cycles",),
    "polynomial": ("lr_end", "power"),
    "constant": (),
    "constant_with_warmup": (),
    "inverse_sqrt": ("timescale",),
    "cosine_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate"),
    "cosine_warmup_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate", "warmup_lr_rate"),
    "warmup_stable_decay": (
        *("num_decay_steps", "num_stable_steps", "warmup_type", "decay_type", "min_lr_ratio", "num_cycles"),
    ),
}
"""transformers' schedules of the rate, and what `lr_scheduler_kwargs` may say of each. Two are left out, because they
follow scores of an evaluation in the run, which univg does not make."""

REPORTERS: Mapping[str, tuple[str, ...]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "dagshub": ("dagshub",),
    "azure_ml": ("azureml",),
    "flyte": ("flytekit",),
    "kubeflow": (),
    **{
        name: (name,)
        for name in (
            *(
                "wandb",
                "trackio",
                "mlflow",
                "comet_ml",
                "clearml",
                "neptune",
                "codecarbon",
                "dvclive",
                "swanlab",
            ),
        )
    },
}
"""Where transformers can report to, and the packages of which one must be installed."""


def _one_of(known: Mapping[str, Any]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in known:
            near = difflib.get_close_matches(value, known, n=1, cutoff=0.7)
            raise ValueError(
                f"no such choice; did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}"
            )
        return value

    return AfterValidator(check)


def _check_reporters(value: str | list[str]) -> str | list[str]:
    check: Any = _one_of({**REPORTERS, "none": ()}).func
    for name in [value] if isinstance(value, str) else value:
        check(name)
    return value


Share = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(gt=0)]
_STRICT = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class StageArguments(TypedDict, total=False):
    """What reaches something in both stages."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]

    optim: Annotated[str, _one_of(OPTIMIZERS)]
    optim_args: Annotated[str, Field(pattern=r"^\s*\w+=[^,=]+(,\s*\w+=[^,=]+)*$")]
    optim_target_modules: str | list[str]
    lr_scheduler_type: Annotated[str, _one_of(SCHEDULES)]
    lr_scheduler_kwargs: dict[str, Any]
    weight_decay: NotNegative
    adam_beta1: Beta
    adam_beta2: Beta
    adam_epsilon: NotNegative
    max_grad_norm: NotNegative
    neftune_noise_alpha: NotNegative
    fp16: bool
    tf32: bool
    full_determinism: bool
    use_cpu: bool
    use_liger_kernel: bool
    liger_kernel_config: dict[str, bool]
    gradient_checkpointing_kwargs: dict[
        Literal["use_reentrant", "preserve_rng_state", "determinism_check", "early_stop", "debug"], Any
    ]
    torch_empty_cache_steps: Count
    debug: Literal["underflow_overflow"]
    logging_strategy: Literal["steps", "epoch"]
    logging_steps: Positive
    logging_first_step: bool
    report_to: Annotated[str | list[str], AfterValidator(_check_reporters)]
    run_name: str
    project: str
    trackio_space_id: str
    trackio_bucket_id: str
    trackio_static_space_id: str | Literal[False]
    push_to_hub: bool
    hub_model_id: str
    hub_private_repo: bool
    hub_revision: str
    ddp_backend: Literal["nccl", "gloo", "mpi", "xccl", "hccl", "cncl", "mccl"]
    ddp_timeout: Count
    ddp_find_unused_parameters: bool
    ddp_bucket_cap_mb: Count
    ddp_broadcast_buffers: bool
    ddp_static_graph: bool
    fsdp: bool | str
    fsdp_config: Annotated[dict[str, Any], Field(min_length=1)] | str
    deepspeed: Annotated[dict[str, Any], Field(min_length=1)] | str


class SftArguments(StageArguments, total=False):
    """What reaches something in stage 1."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]

    loss_type: Literal["nll", "dft"]
    label_smoothing_factor: Beta
    average_tokens_across_devices: bool
    activation_offloading: bool
    torch_compile: bool
    torch_compile_backend: str
    torch_compile_mode: str


class GrpoArguments(StageArguments, total=False):
    """What reaches something in stage 2."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]

    top_k: Annotated[int, Field(ge=0)]
    min_p: Share | None
    repetition_penalty: Positive
    generation_kwargs: dict[str, Any]
    ds3_gather_for_generation: bool
    epsilon: NotNegative
    epsilon_high: NotNegative | None
    delta: Annotated[float, Field(gt=1)] | None
    importance_sampling_level: Literal["token", "sequence"]
    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"]
    mask_truncated_completions: bool
    off_policy_mask_threshold: NotNegative | None
    use_bias_correction_kl: bool
    top_entropy_quantile: Annotated[float, Field(gt=0, le=1)]
    entropy_coef: NotNegative
    use_adaptive_entropy: bool
    entropy_coef_min: NotNegative
    entropy_coef_max: NotNegative
    entropy_coef_delta: NotNegative
    entropy_target: NotNegative
    sapo_temperature_neg: Positive
    sapo_temperature_pos: Positive
    vespo_k_pos: NotNegative
    vespo_lambda_pos: NotNegative
    vespo_k_neg: NotNegative
    vespo_lambda_neg: NotNegative
    sync_ref_model: bool
    ref_model_mixup_alpha: Share
    ref_model_sync_steps: Count
    log_completions: bool
    log_multimodal: bool
    log_unique_prompts: bool
    num_completions_to_print: Count | None
    log_completions_hub_repo: str
    pad_to_multiple_of: Count | None
    dataloader_prefetch_factor: Count
    vllm_model_impl: Literal["vllm", "transformers"]
    vllm_enable_sleep_mode: bool
    vllm_structured_outputs_regex: str
    vllm_server_base_url: str
    vllm_server_host: str
    vllm_server_port: Annotated[int, Field(gt=0, lt=65536)]
    vllm_server_timeout: Positive
    vllm_group_port: Annotated[int, Field(gt=0, lt=65536)]
    vllm_gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)]
    vllm_max_model_length: Count | None
    vllm_tensor_parallel_size: Count
    vllm_importance_sampling_correction: bool
    vllm_importance_sampling_mode: Literal[
        "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"
    ]
    vllm_importance_sampling_clip_max: Positive | None
    vllm_importance_sampling_clip_min: NotNegative | None


PASSED: Mapping[str, type[Any]] = {"sft": SftArguments, "grpo": GrpoArguments}
