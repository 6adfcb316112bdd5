"""What a config's `trainer` may hold, and why not the rest; free of torch.

Every argument of TRL's `SFTConfig` and `GRPOConfig` is in exactly one of three tables (a test compares them with the
installed TRL): those that reach something (:mod:`univg.training.trainer_keys`), those that a key of univg's own
decides, and those that do nothing in univg's runs, with the reason. What has no effect is refused, not believed.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter

from univg.config import fault_at
from univg.training.trainer_keys import OPTIMIZERS, PASSED, SCHEDULES, WITHOUT_ARGUMENTS, GrpoArguments

if TYPE_CHECKING:
    from univg.training.config import StageConfig

__all__ = ["IDLE", "OWN", "check_keys", "check_together"]

_OWN_OF_BOTH = {
    "output_dir": "--out",
    "resume_from_checkpoint": "--resume",
    "per_device_train_batch_size": "micro_batch",
    "num_train_epochs": "epochs, or max_steps",
    "max_steps": "max_steps",
    "learning_rate": "learning_rate",
    "warmup_steps": "warmup_ratio",
    "bf16": "bf16",
    "gradient_checkpointing": "gradient_checkpointing",
    "activation_checkpointing": "gradient_checkpointing",
    "activation_checkpointing_kwargs": "trainer.gradient_checkpointing_kwargs",
    "seed": "seed",
    "data_seed": "seed, and a source's own (data.0.seed)",
    "save_strategy": "save_every",
    "save_steps": "save_every",
    "save_total_limit": "keep_checkpoints",
    "dataloader_num_workers": "workers",
}
OWN: Mapping[str, Mapping[str, str]] = {
    "sft": {**_OWN_OF_BOTH, "gradient_accumulation_steps": "batch", "max_length": "max_tokens"},
    "grpo": {
        **_OWN_OF_BOTH,
        "gradient_accumulation_steps": "prompts_per_step and micro_batch",
        "generation_batch_size": "prompts_per_step and rollouts",
        "steps_per_generation": "prompts_per_step and micro_batch",
        "num_generations": "rollouts",
        "max_completion_length": "max_completion_tokens",
        "temperature": "temperature",
        "top_p": "top_p",
        "beta": "beta",
        "loss_type": "loss_type",
        "scale_rewards": "scale_rewards",
        "num_iterations": "iterations",
        "reward_weights": "rewards",
        "use_vllm": "vllm",
        "vllm_mode": "vllm",
        "vllm_importance_sampling_cap": "trainer.vllm_importance_sampling_clip_max",
    },
}
"""Arguments that a key of univg's own decides, and that key."""

_IDLE_IN_BOTH = (
    (
        "a run is scored by its answers, not by TRL: use validation",
        (
            *("eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "eval_accumulation_steps"),
            *("eval_do_concat_batches", "eval_use_gather_object", "per_device_eval_batch_size", "do_eval"),
            *(
                "do_predict",
                "prediction_loss_only",
                "include_for_metrics",
                "batch_eval_metrics",
                "label_names",
            ),
            *("bf16_full_eval", "fp16_full_eval", "load_best_model_at_end", "metric_for_best_model"),
            "greater_is_better",
        ),
    ),
    (
        "univg makes, orders and batches the rows itself: use data, workers and the sizes of a batch",
        (
            *("dataloader_drop_last", "dataloader_pin_memory", "dataloader_persistent_workers"),
            *("dataloader_in_order", "dataloader_multiprocessing_context", "train_sampling_strategy"),
            *("length_column_name", "remove_unused_columns", "shuffle_dataset", "accelerator_config"),
            *("auto_find_batch_size", "parallelism_config", "ignore_data_skip"),
        ),
    ),
    (
        "univg's checkpoints always hold all that --resume needs, in one folder: use save_every",
        (
            *("save_only_model", "save_on_each_node", "enable_jit_checkpoint"),
            "restore_callback_states_from_checkpoint",
        ),
    ),
    ("univg pushes the finished model, once: leave it out", ("hub_strategy", "hub_always_push")),
    (
        "it would be saved with the run and its card: log in with hf auth login, or set HF_TOKEN",
        ("hub_token",),
    ),
    (
        "univg prints and logs by itself: log.jsonl has a row each step",
        (
            *("disable_tqdm", "log_level", "log_level_replica", "log_on_each_node", "skip_memory_metrics"),
            *("include_num_input_tokens_seen", "logging_nan_inf_filter"),
        ),
    ),
    (
        "univg loads the model itself, and no code that comes with one: use model",
        (*("model_init_kwargs", "trust_remote_code"),),
    ),
    ("no model of these families is a mixture of experts: leave it out", ("router_aux_loss_coef",)),
    ("training keeps no cache: leave it out", ("use_cache",)),
    ("the launcher decides it: use torchrun or accelerate launch", ("local_rank",)),
    ("univg sft and univg grpo always train: leave it out", ("do_train",)),
)
IDLE: Mapping[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "sft": (
        *_IDLE_IN_BOTH,
        (
            "univg makes, orders and batches the rows itself: use data, batch and micro_batch",
            (
                *("dataset_text_field", "dataset_kwargs", "dataset_num_proc", "dataloader_prefetch_factor"),
                *("packing", "packing_strategy", "padding_free", "eval_packing", "pad_to_multiple_of"),
            ),
        ),
        ("nothing is ever cut: use max_tokens", ("truncation_mode",)),
        (
            "the loss is always that of the response: leave it out",
            (*("completion_only_loss", "assistant_only_loss"),),
        ),
        (
            "the checkpoint's own template and marks are what it is asked with later: leave it out",
            (*("chat_template_path", "eos_token", "pad_token"),),
        ),
    ),
    "grpo": (
        *_IDLE_IN_BOTH,
        ("a run is scored by its answers, not by TRL: use validation", ("num_generations_eval",)),
        (
            "univg's prompts are the same in training, evaluation and serving: use prompt_style",
            ("chat_template_kwargs",),
        ),
        ("the models have no dropout but LoRA's: use lora.dropout", ("disable_dropout",)),
        ("univg draws rollouts itself, with a cache of its own: leave it out", ("cache_implementation",)),
        (
            "TRL has it for text alone, not for pictures: use vllm",
            (
                *("use_transformers_continuous_batching", "transformers_continuous_batching_config"),
                "use_transformers_paged",
            ),
        ),
        ("rollouts call no tools: leave it out", ("max_tool_calling_iterations",)),
        (
            "TRL looks for the embeddings where these models do not have them: use bf16: false",
            ("cast_lm_head_to_fp32",),
        ),
        (
            "TRL's loss of GRPO does not read it: leave it out",
            (*("label_smoothing_factor", "average_tokens_across_devices"),),
        ),
        (
            "univg calls the layers inside the model, which are not compiled: leave it out",
            (*("torch_compile", "torch_compile_backend", "torch_compile_mode"),),
        ),
    ),
}
"""Arguments that do nothing in univg's runs: why, and what to use -> their names."""


def check_keys(stage: Literal["sft", "grpo"], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's `trainer`, validated: every key of it reaches something and has a value that it can have.

    Raises pydantic's ValidationError, whose lines name the key.
    """
    known = PASSED[stage].__annotations__
    idle = {name: why for why, names in IDLE[stage] for name in names}
    for name, value in given.items():
        if name in OWN[stage]:
            raise fault_at((name,), f"univg decides it: use {OWN[stage][name]}", value)
        if name in idle:
            why, _, instead = idle[name].partition(": ")
            raise fault_at((name,), f"does nothing here, because {why}; {instead}", value)
        if name not in known:
            near = difflib.get_close_matches(name, [*known, *OWN[stage]], n=1)
            hint = f"did you mean {near[0]!r}?" if near else "see docs/training.md for those that there are"
            raise fault_at((name,), f"TRL's {stage.upper()} trainer has no such argument; {hint}", value)
    return dict(_read_by_type(stage).validate_python(dict(given))) if given else {}


@functools.cache
def _read_by_type(stage: str) -> TypeAdapter[Any]:
    return TypeAdapter(PASSED[stage])


def check_together(config: StageConfig) -> None:
    """Raise ValidationError for an argument in `config.trainer` that does nothing beside the other settings."""
    given = config.trainer
    for names, holds, condition in (*_of_both(config), *_of_grpo(config)):
        for name in names:
            if name in given and not holds:
                raise fault_at(("trainer", name), f"does nothing here without {condition}", given[name])
    if given.get("fp16") and config.bf16:
        raise fault_at(("trainer", "fp16"), "bf16 is on too: set bf16: false, or leave it out", True)
    _check_schedule(given, is_sft=not hasattr(config, "rollouts"))


Need = tuple[tuple[str, ...], Any, str]
"""Names, whether what they need is there, and what that is."""


def _of_both(config: StageConfig) -> Iterator[Need]:
    given = config.trainer
    optim = str(given.get("optim", "adamw_torch_fused"))
    others = ", ".join(name for name in OPTIMIZERS if name not in WITHOUT_ARGUMENTS)
    yield ("optim_args",), optim not in WITHOUT_ARGUMENTS, f"an optim that reads them ({others})"
    yield ("optim_target_modules",), optim.startswith(("galore", "apollo")), "an optim of galore or apollo"
    yield ("gradient_checkpointing_kwargs",), config.gradient_checkpointing, "gradient_checkpointing: true"
    yield ("liger_kernel_config",), given.get("use_liger_kernel"), "trainer.use_liger_kernel: true"
    reports = given.get("report_to", "none") not in ("none", [], ["none"])
    trackio = ("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id")
    yield ("run_name", *trackio), reports, "trainer.report_to"
    hub = ("hub_model_id", "hub_private_repo", "hub_revision")
    yield hub, given.get("push_to_hub"), "trainer.push_to_hub: true"
    yield ("fsdp_config",), given.get("fsdp"), "trainer.fsdp: true"
    yield (
        ("torch_compile_backend", "torch_compile_mode"),
        given.get("torch_compile"),
        "trainer.torch_compile: true",
    )


def _of_grpo(config: Any) -> Iterator[Need]:
    given = config.trainer
    if not hasattr(config, "rollouts"):
        return
    colocated = ("vllm_gpu_memory_utilization", "vllm_max_model_length", "vllm_tensor_parallel_size")
    yield (
        (*colocated, "vllm_enable_sleep_mode", "vllm_model_impl"),
        config.vllm == "colocate",
        "vllm: colocate",
    )
    served = ("vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_server_timeout")
    yield (*served, "vllm_group_port"), config.vllm == "server", "vllm: server"
    drawn = tuple(name for name in GrpoArguments.__annotations__ if name.startswith("vllm_"))
    drawn += ("repetition_penalty", "generation_kwargs")
    yield (
        drawn,
        config.vllm != "off",
        "vllm: colocate or server; univg itself draws by temperature, top_p, trainer.top_k and trainer.min_p alone",
    )
    yield ("sapo_temperature_neg", "sapo_temperature_pos"), config.loss_type == "sapo", "loss_type: sapo"
    vespo = ("vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg", "vespo_lambda_neg")
    yield vespo, config.loss_type == "vespo", "loss_type: vespo"
    clipped = config.loss_type in ("grpo", "bnpo", "dr_grpo", "dapo", "luspo")
    yield ("epsilon", "delta"), clipped, "a loss_type that clips (grpo, bnpo, dr_grpo, dapo, luspo)"
    yield ("epsilon_high",), clipped or config.loss_type == "cispo", "a loss_type that clips"
    yield ("sync_ref_model",), config.beta and config.lora is None, "beta above 0, and without lora"
    yield (
        ("ref_model_mixup_alpha", "ref_model_sync_steps"),
        given.get("sync_ref_model"),
        "trainer.sync_ref_model: true",
    )
    yield ("use_bias_correction_kl",), config.beta, "beta above 0"
    adaptive = ("entropy_coef_min", "entropy_coef_max", "entropy_coef_delta", "entropy_target")
    yield adaptive, given.get("use_adaptive_entropy"), "trainer.use_adaptive_entropy: true"
    shown = ("log_unique_prompts", "num_completions_to_print", "log_completions_hub_repo", "log_multimodal")
    yield shown, given.get("log_completions"), "trainer.log_completions: true"
    yield ("dataloader_prefetch_factor",), config.workers, "workers above 0"
    low, high = given.get("entropy_coef_min", 0.0), given.get("entropy_coef_max", 1.0)
    yield ("entropy_coef_min", "entropy_coef_max"), low <= high, "entropy_coef_min <= entropy_coef_max"
    yield ("pad_to_multiple_of",), config.shared_prefix == "off", "shared_prefix: off"


def _check_schedule(given: Mapping[str, Any], is_sft: bool) -> None:
    name = given.get("lr_scheduler_type", "cosine" if is_sft else "linear")
    settings = given.get("lr_scheduler_kwargs", {})
    for key in settings:
        if key not in SCHEDULES[name]:
            has = ", ".join(SCHEDULES[name]) or "none"
            why = f"the schedule {name!r} has no such setting; it has {has}"
            raise fault_at(("trainer", "lr_scheduler_kwargs", key), why, settings[key])
    if "min_lr" in name and not {"min_lr", "min_lr_rate"} & settings.keys():
        why = f"{name!r} needs trainer.lr_scheduler_kwargs: {{min_lr_rate: 0.1}} or {{min_lr: …}}"
        raise fault_at(("trainer", "lr_scheduler_type"), why, name)
