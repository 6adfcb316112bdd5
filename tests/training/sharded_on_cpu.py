"""Run `univg` with a launch config of `configs/accelerate` on processors, where accelerate itself shards nothing.

    torchrun --nproc_per_node 2 sharded_on_cpu.py zero3 grpo --config tiny-grpo …

The processes are those of accelerate, DeepSpeed, PyTorch and TRL; only what accelerate asks the machine for is changed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import yaml
from accelerate import state

CONFIGS = Path(__file__).parents[2] / "configs" / "accelerate"
RENAMED = {
    "fsdp_transformer_layer_cls_to_wrap": "FSDP_TRANSFORMER_CLS_TO_WRAP",
    "zero_stage": "ACCELERATE_DEEPSPEED_ZERO_STAGE",
    "zero3_init_flag": "ACCELERATE_DEEPSPEED_ZERO3_INIT",
    "zero3_save_16bit_model": "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL",
}


def set_environment(name: str) -> None:
    """Set what `accelerate launch` sets for the launch config `name`, in float32."""
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    use = "ACCELERATE_USE_FSDP" if "fsdp_config" in config else "ACCELERATE_USE_DEEPSPEED"
    os.environ |= {use: "true", "ACCELERATE_MIXED_PRECISION": "no", "DS_ACCELERATOR": "cpu"}
    for key, value in (config.get("fsdp_config") or config["deepspeed_config"]).items():
        variable = RENAMED.get(
            key, key.upper() if key.startswith("fsdp") else f"ACCELERATE_DEEPSPEED_{key.upper()}"
        )
        os.environ[variable] = value if isinstance(value, str) else str(value).lower()


def shard_on_processors() -> None:
    begin = state.PartialState.__init__

    def begin_as_accelerator(self: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        if self.distributed_type == state.DistributedType.MULTI_CPU:
            self.distributed_type = state.DistributedType.MULTI_XPU

    state.PartialState.__init__ = begin_as_accelerator
    if os.environ.get("ACCELERATE_USE_DEEPSPEED"):
        state.PartialState._prepare_backend = lambda *_: ("gloo", state.DistributedType.MULTI_CPU)


if __name__ == "__main__":
    set_environment(sys.argv.pop(1))
    shard_on_processors()
    from univg.cli.main import main

    sys.exit(main())
